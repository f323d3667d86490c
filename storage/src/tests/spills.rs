//! Far more producers than memory has room for: each is answered as if it were there.

mod limits;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use penstock_format::{BatchBuilder, NewRecord};

use super::flips::image::Image;
use super::*;
use crate::checkpoint_file::load_checkpoint;
use crate::disk::Disk;
use crate::disk::sim::{Crash, Effect, Fault, Operation};
use crate::offline::check_store;
use crate::spill::path_in;
use crate::{AppendError, Appended, StoreStats};

const PRODUCERS: i64 = 200;

/// Room for 16 producers in memory.
pub(super) fn few() -> StoreConfig {
    StoreConfig { producers_max: 16, producers_per_log_max: 12, ..small() }
}

/// A producer's batch of two records.
pub(super) fn of(producer: i64, sequence: i32) -> Batch {
    let mut builder = BatchBuilder::new().producer(producer, 0, sequence);
    let value = format!("{producer} {sequence}");
    for _ in 0..2 {
        builder
            .append(&NewRecord { timestamp: 5, value: Some(value.as_bytes()), ..NewRecord::default() })
            .unwrap();
    }
    builder.finish().unwrap()
}

pub(super) async fn send(
    log: &Log<SimDisk>,
    producer: i64,
    sequence: i32,
    now_ms: i64,
) -> Result<Appended, AppendError> {
    log.append_large(of(producer, sequence), client(now_ms)).await
}

/// Where each producer's batches are, by log: those of which it was told.
pub(super) type Book = Rc<RefCell<BTreeMap<(String, i64), Vec<i64>>>>;

/// Has each producer write its next batch to a log, and notes where it is.
pub(super) async fn write(store: &Store<SimDisk>, name: &str, producers: std::ops::Range<i64>, book: &Book) {
    let log = store.log(name).unwrap();
    for producer in producers {
        let next = book.borrow().get(&(name.to_owned(), producer)).map_or(0, Vec::len);
        // One that was not acknowledged before a crash may be there.
        let appended = send(&log, producer, 2 * next as i32, 1000 + producer).await.unwrap();
        if log.durable(appended.ticket).await.is_ok() {
            book.borrow_mut().entry((name.to_owned(), producer)).or_default().push(appended.base_offset);
        }
    }
}

/// Has each producer send its last batches again: four, since a fifth may be there that nobody was told of.
pub(super) async fn repeat(store: &Store<SimDisk>, book: &Book) {
    let all = book.borrow().clone();
    for ((name, producer), offsets) in all {
        let log = store.log(&name).unwrap();
        for (n, offset) in offsets.iter().enumerate().rev().take(4) {
            let again = send(&log, producer, 2 * n as i32, 2000).await.unwrap();
            assert_eq!((again.duplicate, again.base_offset), (true, *offset), "{name} {producer} {n}");
        }
        let stats = store.stats();
        assert!(stats.producers <= 16, "{stats:?}");
    }
}

#[test]
fn a_producer_that_left_memory_is_known_by_all_its_batches() {
    let mut world = world(1);
    let book = Book::default();
    for life in 0..4 {
        let (disk, book) = (world.disk(), book.clone());
        world.block_on(async move {
            let (store, report) = open(disk, few()).await;
            assert_eq!(report.producers_lost, Vec::<String>::new());
            repeat(&store, &book).await;
            if life == 0 {
                for name in ["a", "b", "c"] {
                    store.create_log(name, log_config()).await.unwrap();
                }
            }
            for name in ["a", "b", "c"] {
                write(&store, name, 0..PRODUCERS, &book).await;
                write(&store, name, 0..PRODUCERS / 2, &book).await;
                store.tick(3000).await;
            }
            repeat(&store, &book).await;
            let stats = store.stats();
            assert!(stats.spilled_producers >= 500 && stats.producers_forgotten == 0, "{stats:?}");
            if life == 2 {
                store.close().await.unwrap();
            }
        });
        world = world.crash(if life == 1 { Crash::Kill } else { Crash::PowerLoss });
    }
}

#[test]
fn a_wrong_sequence_of_a_producer_on_disk_is_refused() {
    let world = world(2);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        let book = Book::default();
        write(&store, "a", 0..PRODUCERS, &book).await;
        for producer in 0..PRODUCERS {
            let refused = send(&log, producer, 6, 2000).await;
            assert!(matches!(refused, Err(AppendError::Producer(_))), "{refused:?}");
        }
        assert_eq!(log.log_end_offset(), 2 * PRODUCERS);
        assert!(store.stats().producers_brought_back >= 188, "{:?}", store.stats());
        store.close().await.unwrap();
    });
}

#[test]
fn no_crash_forgets_a_producer() {
    // Each life ends some writes or flushes later than the one before.
    for kind in [Operation::Write, Operation::Sync, Operation::SyncDir] {
        for count in 1..60 {
            let mut world = world(count);
            let book = Book::default();
            for life in 0..3 {
                let (disk, book) = (world.disk(), book.clone());
                let step = count * (1 + life);
                world.spawn(async move {
                    let (store, _) = open(disk, few()).await;
                    repeat(&store, &book).await;
                    for name in ["a", "b"] {
                        if store.log(name).is_none() {
                            store.create_log(name, log_config()).await.unwrap();
                        }
                    }
                    for round in 0..3 {
                        write(&store, "a", 0..30, &book).await;
                        write(&store, "b", 20..50, &book).await;
                        if round == 1 {
                            store.checkpoint().await.ok();
                        }
                    }
                    std::future::pending::<()>().await;
                });
                while world.count(kind) < step * 4 && !world.run_until(world.steps() + 1) {}
                world = world.crash(if count % 3 == 0 { Crash::Kill } else { Crash::PowerLoss });
            }
            let (disk, found) = (world.disk(), book.clone());
            world.block_on(async move {
                let (store, _) = open(disk, few()).await;
                repeat(&store, &found).await;
                store.close().await.unwrap();
            });
            assert!(!book.borrow().is_empty() || count < 10);
        }
    }
}

#[test]
fn a_checkpoint_has_who_left_memory_while_it_was_taken() {
    for seed in 0..40 {
        let mut world = world(seed);
        let (disk, book) = (world.disk(), Book::default());
        let (inner, told) = (world.clone(), book.clone());
        world.block_on(async move {
            let (store, _) = open(disk.clone(), few()).await;
            store.create_log("a", log_config()).await.unwrap();
            write(&store, "a", 0..40, &told).await;
            for round in 0..6 {
                let taking = store.clone();
                inner.spawn(async move {
                    taking.checkpoint().await.ok();
                });
                write(&store, "a", 10 * round..10 * round + 30, &told).await;
                inner.disk().sleep(std::time::Duration::from_millis(seed % 5)).await;
            }
        });
        world = world.crash(Crash::PowerLoss);
        let disk = world.disk();
        world.block_on(async move {
            let (store, _) = open(disk, few()).await;
            repeat(&store, &book).await;
            store.close().await.unwrap();
        });
    }
}

#[test]
fn a_cut_makes_void_what_it_takes_away_and_nothing_else() {
    let mut world = world(3);
    let (disk, book) = (world.disk(), Book::default());
    let told = book.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), few()).await;
        for name in ["a", "b"] {
            store.create_log(name, log_config()).await.unwrap();
        }
        for name in ["a", "b"] {
            write(&store, name, 0..50, &told).await;
            write(&store, name, 20..60, &told).await;
            write(&store, name, 100..130, &told).await;
        }
        let log = store.log("a").unwrap();
        // Behind the second batch of producer 29: those from 30 to 49 keep their first.
        assert_eq!(log.truncate(2 * (50 + 10)).await.unwrap(), 120);
        let end = 120;
        {
            let mut book = told.borrow_mut();
            for ((_, _), offsets) in book.iter_mut().filter(|((name, _), _)| name == "a") {
                offsets.retain(|offset| *offset < end);
            }
            book.retain(|_, offsets| !offsets.is_empty());
        }
        repeat(&store, &told).await;
        // Nothing is known of whoever wrote behind the cut alone.
        assert!(!send(&log, 55, 0, 2000).await.unwrap().duplicate);
        assert!(!send(&log, 101, 44, 2000).await.unwrap().duplicate);
        // The others go on where they were.
        assert!(!send(&log, 45, 2, 2000).await.unwrap().duplicate);
        store.checkpoint().await.unwrap();
    });
    world = world.crash(Crash::PowerLoss);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        repeat(&store, &book).await;
        let log = store.log("a").unwrap();
        assert!(!send(&log, 105, 44, 2000).await.unwrap().duplicate);
        store.close().await.unwrap();
    });
}

#[test]
fn who_was_silent_for_too_long_does_not_come_back() {
    let world = world(4);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        let expiring = LogConfig { producer_expiration_ms: 10_000, ..log_config() };
        let log = store.create_log("a", expiring).await.unwrap();
        let book = Book::default();
        write(&store, "a", 0..PRODUCERS, &book).await;
        // Producer n was seen at 1000 + n ms.
        assert!(send(&log, 20, 0, 11_019).await.unwrap().duplicate);
        assert!(!send(&log, 19, 0, 11_019).await.unwrap().duplicate, "forgotten, so it begins anew");
        store.close().await.unwrap();
    });
}

#[test]
fn a_log_made_anew_knows_none_of_the_producers_before() {
    let world = world(5);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        store.create_log("a", log_config()).await.unwrap();
        let book = Book::default();
        write(&store, "a", 0..PRODUCERS, &book).await;
        store.remove_log("a").await.unwrap();
        store.create_log("a", log_config()).await.unwrap();
        let again = Book::default();
        write(&store, "a", 0..PRODUCERS, &again).await;
        repeat(&store, &again).await;
        // Many more runs, so that they are merged: the removed log's producers go.
        for _ in 0..4 {
            write(&store, "a", 0..PRODUCERS, &again).await;
        }
        store.create_log("b", log_config()).await.unwrap();
        repeat(&store, &again).await;
        let stats = store.stats();
        assert!(stats.spilled_producers < 2 * PRODUCERS as u64, "{stats:?}");
        store.close().await.unwrap();
    });
}

#[test]
fn beyond_the_bound_on_disk_those_silent_longest_are_forgotten() {
    let world = world(6);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), StoreConfig { spilled_producers_max: 80, ..few() }).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        let book = Book::default();
        write(&store, "a", 0..PRODUCERS, &book).await;
        let accounted =
            |stats: &StoreStats| stats.producers as u64 + stats.spilled_producers + stats.producers_forgotten;
        let mut stats = store.stats();
        for _ in 0..1000 {
            stats = store.stats();
            if stats.spilled_producers <= 80 && accounted(&stats) == PRODUCERS as u64 {
                break;
            }
            disk.sleep(std::time::Duration::from_millis(1)).await;
        }
        assert!(stats.spilled_producers <= 80, "{stats:?}");
        // Each wrote once: whoever is neither in memory nor on disk was forgotten, and counted once.
        assert_eq!(accounted(&stats), PRODUCERS as u64, "{stats:?}");
        for producer in 140..PRODUCERS {
            assert!(send(&log, producer, 0, 2000).await.unwrap().duplicate, "{producer}");
        }
        assert!(!send(&log, 3, 0, 2000).await.unwrap().duplicate, "forgotten");
        store.close().await.unwrap();
    });
}

#[test]
fn a_disk_that_takes_no_run_has_producers_forgotten_and_nothing_else() {
    for code in [libc::ENOSPC, libc::EIO] {
        let world = world(7);
        let disk = world.disk();
        let inner = world.clone();
        world.block_on(async move {
            let (store, _) = open(disk, few()).await;
            let log = store.create_log("a", log_config()).await.unwrap();
            let book = Book::default();
            write(&store, "a", 0..10, &book).await;
            for operation in [Operation::Name, Operation::Write] {
                inner.inject(Fault {
                    operation,
                    path_contains: "/producers".into(),
                    skip: 0,
                    times: u64::MAX,
                    effect: Effect::Fail(code),
                });
            }
            write(&store, "a", 10..100, &book).await;
            assert_eq!(book.borrow().len(), 100);
            let stats = store.stats();
            // Each wrote once, and whoever is not in memory any more was counted.
            let known = (stats.producers as u64, stats.spilled_producers);
            assert_eq!(known, (100 - stats.producers_forgotten, 0), "{stats:?}");
            assert!(stats.producers_forgotten >= 84, "{stats:?}");
            assert_eq!((log.offline(), store.stats().disk_full), (None, false));
            assert!(send(&log, 99, 0, 2000).await.unwrap().duplicate);
            inner.clear_faults();
            let book = Book::default();
            write(&store, "a", 200..300, &book).await;
            repeat(&store, &book).await;
            store.close().await.unwrap();
        });
    }
}

#[test]
fn where_all_have_open_transactions_another_is_refused() {
    let world = world(8);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        for name in ["a", "b"] {
            let log = store.create_log(name, log_config()).await.unwrap();
            for producer in 0..20 {
                let mut batch = of(producer, 0);
                batch.patch_header(|header| header.attributes |= 1 << 4);
                let appended = log.append_large(batch, client(1000)).await;
                let most = if name == "a" { 12 } else { 4 };
                match appended {
                    Ok(_) => assert!(producer < most, "{name} {producer}"),
                    Err(AppendError::Producer(_)) => assert!(producer >= most, "{name} {producer}"),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert_eq!((store.stats().producers, store.stats().producers_forgotten), (16, 0));
        store.close().await.unwrap();
    });
}

#[test]
fn a_damaged_run_makes_producers_unknown_and_nothing_worse() {
    let world = world(9);
    let (disk, book) = (world.disk(), Book::default());
    let told = book.clone();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        for name in ["a", "b"] {
            store.create_log(name, log_config()).await.unwrap();
            write(&store, name, 0..60, &told).await;
            write(&store, name, 30..50, &told).await;
        }
        store.close().await.unwrap();
    });
    let closed = world.crash(Crash::Kill);
    let (disk, files) = (closed.disk(), closed.files());
    // A merge that the end came before may have left a file over, which nobody reads.
    let live = closed.block_on(async move { load_checkpoint(&disk, Path::new(DIR)).await.unwrap().runs });
    let runs: Vec<_> = live.iter().map(|run| path_in(Path::new(DIR), run.number)).collect();
    assert!(runs.len() > 1, "{runs:?}");
    let sound = Image { files: files.clone(), logs: BTreeMap::new() };
    assert_eq!(check_store(&sound, Path::new(DIR)).unwrap().findings, []);
    let mut random = oorandom::Rand64::new(4);
    let mut tally = [0; 3];
    for n in 0..150 {
        let path = &runs[n % runs.len()];
        let mut image = sound.clone();
        let mut bytes = files[path].to_vec();
        let at = random.rand_range(0..bytes.len() as u64) as usize;
        // The first is sound.
        bytes[at] ^= if n > 0 { 1 << (n % 8) } else { 0 };
        image.files.insert(path.clone(), bytes.into());
        let findings = check_store(&image, Path::new(DIR)).unwrap().findings;
        let is_found = findings.iter().any(|found| found.file.as_ref() == Some(path));
        assert_eq!(is_found, n > 0, "{path:?} at {at}");
        let damaged = SimWorld::with_files(n as u64, &image.files);
        let (disk, book) = (damaged.disk(), book.clone());
        let (unknown, refused) = damaged.block_on(async move {
            let (store, report) = open(disk, few()).await;
            let refused = report.producers_lost.len();
            let mut unknown = 0;
            let all = book.borrow().clone();
            for ((name, producer), offsets) in all {
                let last = offsets.len() - 1;
                let log = store.log(&name).unwrap();
                // Refused would be worst.
                let again = send(&log, producer, 2 * last as i32, 2000).await.unwrap();
                unknown += usize::from(!again.duplicate);
                if again.duplicate {
                    assert_eq!(again.base_offset, offsets[last], "{name} {producer}");
                    // Who is known is known by all its batches.
                    let first = send(&log, producer, 0, 2000).await.unwrap();
                    assert_eq!((first.duplicate, first.base_offset), (true, offsets[0]), "{name} {producer}");
                }
            }
            let forgotten = store.stats().producers_forgotten as usize;
            assert!(refused > 0 || unknown <= forgotten, "{unknown} are unknown, {forgotten} forgotten");
            store.close().await.unwrap();
            (unknown, refused)
        });
        assert!(n > 0 || (unknown, refused) == (0, 0), "{unknown}");
        // One block of a run is lost, or the run with all that are older.
        assert!(if refused == 0 { unknown <= 60 } else { unknown < 120 }, "{unknown}");
        tally[if unknown == 0 { 0 } else { 1 + usize::from(refused > 0) }] += 1;
    }
    // Nobody is unknown if the run is sound, or if all that the block tells is told by a newer one or by memory.
    assert!(tally[0] >= 1 && tally[1] > 15 && tally[2] > 15, "{tally:?}");
}

#[test]
fn a_batch_whose_producer_is_away_stays_as_it_is() {
    let world = world(30);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        for producer in 0..PRODUCERS {
            send(&log, producer, 0, 2000).await.unwrap();
        }
        let (mut next, same, end) = (of(0, 2), of(0, 2), log.log_end_offset());
        let refused = log.append_one(&mut next, client(2000));
        assert_eq!(refused, Err(AppendError::ProducerAway(0)));
        assert_eq!((&next, log.log_end_offset()), (&same, end));
        let appended = log.append_large(next, client(2000)).await.unwrap();
        assert_eq!((appended.base_offset, appended.duplicate), (end, false));
        store.close().await.unwrap();
    });
}

/// Appends batches of several producers in one go, once all of these are in memory.
async fn send_all(log: &Log<SimDisk>, batches: &[Batch], now_ms: i64) -> Appended {
    loop {
        match log.append(batches.to_vec(), client(now_ms)) {
            Err(AppendError::ProducerAway(_)) => {
                let ids = batches.iter().map(|batch| batch.header.producer_id);
                log.admit_producers(ids, client(now_ms)).await.unwrap();
            }
            appended => return appended.unwrap(),
        }
    }
}

#[test]
fn what_several_producers_wrote_at_once_is_replayed_as_it_was() {
    for (at_once, crash) in [(3, Crash::Kill), (5, Crash::PowerLoss), (8, Crash::Kill)] {
        let mut world = world(10);
        let (disk, book) = (world.disk(), Book::default());
        let told = book.clone();
        world.block_on(async move {
            let (store, _) = open(disk, few()).await;
            let log = store.create_log("a", log_config()).await.unwrap();
            let mut now_ms = 2000;
            for sequence in [0, 2, 4] {
                for first in (0..80).step_by(at_once) {
                    let producers = first..first + at_once as i64;
                    let batches: Vec<_> = producers.clone().map(|producer| of(producer, sequence)).collect();
                    // Those that come back together are the last to leave.
                    now_ms += 1;
                    let appended = send_all(&log, &batches, now_ms).await;
                    log.durable(appended.ticket).await.unwrap();
                    for (producer, offset) in producers.zip((appended.base_offset..).step_by(2)) {
                        let mut book = told.borrow_mut();
                        book.entry(("a".to_owned(), producer)).or_default().push(offset);
                    }
                }
            }
        });
        world = world.crash(crash);
        let disk = world.disk();
        world.block_on(async move {
            let (store, report) = open(disk, few()).await;
            assert!(report.frames_replayed > 0);
            repeat(&store, &book).await;
            assert_eq!(store.stats().producers_forgotten, 0);
            store.close().await.unwrap();
        });
    }
}

/// Some wrote behind the checkpoint, and what they wrote last was lost with the log's file; some had been on disk since before
/// the checkpoint, and only what was lost brought them back.
#[test]
fn a_log_that_is_saved_forgets_no_producer_and_no_batch_of_one() {
    let mut world = world(11);
    let (disk, book) = (world.disk(), Book::default());
    let (inner, told) = (world.clone(), book.clone());
    world.block_on(async move {
        let (store, _) = open(disk.clone(), few()).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        write(&store, "a", 0..60, &told).await;
        store.checkpoint().await.unwrap();
        write(&store, "a", 0..30, &told).await;
        let active = log.inner.state.borrow().segments.back().unwrap().clone();
        while active.prepared_to.get() < active.end.get() + 40_000 {
            disk.sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut lost: Vec<_> = [1, 2, 3].into_iter().map(|producer| of(producer, 4)).collect();
        lost.extend([40, 41, 42].into_iter().map(|producer| of(producer, 2)));
        let mut wide = BatchBuilder::new();
        let value = vec![7; 30_000];
        wide.append(&NewRecord { timestamp: 5, value: Some(&value), ..NewRecord::default() }).unwrap();
        lost.push(wide.finish().unwrap());
        inner.inject(super::failures::fault(Operation::Write, "logs/a", 1));
        let lost = send_all(&log, &lost, 2000).await;
        log.durable(lost.ticket).await.unwrap_err();
        store.checkpoint().await.unwrap();
        inner.clear_faults();
    });
    world = world.crash(Crash::PowerLoss);
    let disk = world.disk();
    world.block_on(async move {
        let (store, report) = open(disk, few()).await;
        assert_eq!(report.offline, []);
        repeat(&store, &book).await;
        let log = store.log("a").unwrap();
        for (producer, sequence) in [(1, 4), (41, 2)] {
            assert!(!send(&log, producer, sequence, 2000).await.unwrap().duplicate, "{producer}");
        }
        store.close().await.unwrap();
    });
}
