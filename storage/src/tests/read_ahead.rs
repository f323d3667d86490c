//! What is read ahead is what would have been read, once for all, within its bounds, and never of what is gone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::failures::{append, fault};
use super::*;
use crate::ReadError;
use crate::disk::Disk;
use crate::disk::sim::{Operation, SimWorld};

/// A cache of next to nothing: what is settled leaves memory.
fn cold() -> StoreConfig {
    StoreConfig { cache_bytes_max: 1, open_files_max: 16, ..small() }
}

fn without() -> StoreConfig {
    let read_ahead = ReadAheadConfig { bytes_max: 0, ..small().read_ahead };
    StoreConfig { read_ahead, ..cold() }
}

/// Appends `count` batches, each of one record, and has them leave memory.
async fn fill(store: &Store<SimDisk>, log: &Log<SimDisk>, count: u64, salt: u64) {
    for n in 0..count {
        let _room = store.reserve(1000).await.unwrap();
        append(log, 900 + (n * 37 % 200) as usize, n + salt).await.unwrap();
    }
    chill(store).await;
}

/// Has everything leave memory.
async fn chill(store: &Store<SimDisk>) {
    store.checkpoint().await.unwrap();
    while store.stats().cache_bytes > 1 {
        store.tick(0).await;
    }
}

/// Reads on from an offset; gives the next one.
async fn step(log: &Log<SimDisk>, from: i64, bytes: usize) -> (i64, Vec<Batch>) {
    let found = log.read(from, bytes, i64::MAX, true).await.unwrap();
    (found.next_offset, join(&found))
}

/// Reads in order until something is there that was read ahead; gives the next offset.
async fn read_until_ahead(store: &Store<SimDisk>, disk: &SimDisk, log: &Log<SimDisk>) -> i64 {
    let mut from = log.log_start_offset();
    for _ in 0..4 {
        from = step(log, from, 4000).await.0;
    }
    settle(store, disk).await;
    assert!(store.stats().read_ahead_held_bytes > 0);
    from
}

/// Waits until nothing is on its way.
async fn settle(store: &Store<SimDisk>, disk: &SimDisk) {
    let mut before = u64::MAX;
    while store.stats().read_ahead_bytes != before {
        before = store.stats().read_ahead_bytes;
        disk.sleep(Duration::from_secs(1)).await;
    }
}

/// Reads of the device that one after the other, or so many readers side by side, make of a log of 300 batches.
fn reads_of(config: StoreConfig, readers: usize) -> u64 {
    let world = world(7);
    let (disk, counts) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        fill(&store, &log, 300, 0).await;
        assert!(log.segment_count() > 2, "it goes on into the next segment");
        let before = counts.count(Operation::Read);
        let mut from = 0;
        while from < log.log_end_offset() {
            let mut next = from;
            for _ in 0..readers {
                next = step(&log, from, 6000).await.0;
            }
            from = next;
        }
        settle(&store, &disk).await;
        let stats = store.stats();
        assert_eq!(stats.read_ahead_unused_bytes, 0);
        assert!(stats.read_ahead_taken_bytes <= stats.read_ahead_bytes);
        let reads = counts.count(Operation::Read) - before;
        store.close().await.unwrap();
        assert_eq!(store.stats().read_ahead_held_bytes, 0, "nothing is kept of a closed store");
        reads
    })
}

#[test]
fn readers_of_one_place_share_what_is_read_ahead() {
    let (one, two) = (reads_of(cold(), 1), reads_of(cold(), 2));
    let (one_alone, two_alone) = (reads_of(without(), 1), reads_of(without(), 2));
    // The first reads find out that somebody reads in order.
    assert!(two <= one + 4, "{one} and {two} reads");
    assert!(two_alone >= 2 * one_alone - 4, "{one_alone} and {two_alone} reads without");
}

#[test]
fn what_is_held_stays_within_its_bound_and_goes_in_time() {
    let world = world(8);
    let disk = world.disk();
    let (most, bound) = (Rc::new(Cell::new(0)), small().read_ahead.bytes_max);
    let seen = most.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), cold()).await;
        let mut logs = Vec::new();
        for name in ["a-0", "b-0", "c-0", "d-0"] {
            let log = store.create_log(name, log_config()).await.unwrap();
            fill(&store, &log, 200, 0).await;
            logs.push(log);
        }
        // Two readers of each, more than are read ahead for.
        let mut places: Vec<_> = logs.iter().flat_map(|log| [(log, 0), (log, 90)]).collect();
        for _ in 0..15 {
            for (log, from) in &mut places {
                *from = step(log, *from, 3000).await.0;
                let held = store.stats().read_ahead_held_bytes;
                assert!(held <= bound, "{held} bytes");
                seen.set(seen.get().max(held));
            }
        }
        for _ in 0..12 {
            store.tick(0).await;
        }
        settle(&store, &disk).await;
        store.tick(0).await;
        let stats = store.stats();
        assert_eq!(stats.read_ahead_held_bytes, 0, "readers that are silent are forgotten");
        assert_eq!(stats.read_ahead_bytes, stats.read_ahead_taken_bytes + stats.read_ahead_unused_bytes);
        store.close().await.unwrap();
    });
    assert!(most.get() > bound / 2, "{} bytes", most.get());
}

/// What is written anew lies where what was cut off did, in the same segment.
#[test]
fn what_was_cut_off_is_not_read_any_more() {
    for seed in 0..8 {
        let world = world(20 + seed);
        let disk = world.disk();
        world.block_on(async move {
            let (store, _) = open(disk.clone(), cold()).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            fill(&store, &log, 60, 0).await;
            let from = read_until_ahead(&store, &disk, &log).await;
            assert_eq!(log.truncate(from).await, Ok(from));
            assert_eq!(store.stats().read_ahead_held_bytes, 0);
            fill(&store, &log, 60, 1000).await;
            let (_, batches) = step(&log, from, 4000).await;
            let expected = batch(1, 900, 1000, 1);
            assert_eq!(batches[0].body, expected.body, "seed {seed}");
            store.close().await.unwrap();
        });
    }
}

#[test]
fn nothing_is_kept_of_deleted_segments() {
    let world = world(40);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), cold()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        fill(&store, &log, 300, 0).await;
        read_until_ahead(&store, &disk, &log).await;
        let end = log.log_end_offset();
        log.delete_records(end - 1).await.unwrap();
        store.tick(0).await;
        settle(&store, &disk).await;
        assert_eq!((log.segment_count(), store.stats().read_ahead_held_bytes), (1, 0));
        store.checkpoint().await.unwrap();
        store.tick(0).await;
        assert!(store.stats().open_files <= 1, "their files are free");
        store.close().await.unwrap();
    });
}

/// The removal comes while stretches are on their way: whoever reads them must not leave a file open.
#[test]
fn nothing_is_kept_of_removed_logs() {
    for seed in 0..200 {
        let world = world(100 + seed);
        let disk = world.disk();
        world.block_on(async move {
            let (store, _) = open(disk.clone(), StoreConfig { segment_bytes_max: 16 << 10, ..cold() }).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            fill(&store, &log, 60, 0).await;
            store.close().await.unwrap();
            let (store, _) = open(disk.clone(), StoreConfig { segment_bytes_max: 16 << 10, ..cold() }).await;
            let log = store.log("a-0").unwrap();
            let mut from = 0;
            for _ in 0..4 {
                from = step(&log, from, 4000).await.0;
            }
            disk.sleep(Duration::from_micros(seed * 20)).await;
            store.remove_log("a-0").await.unwrap();
            settle(&store, &disk).await;
            let stats = store.stats();
            assert_eq!((stats.open_files, stats.read_ahead_held_bytes), (0, 0), "seed {seed}");
            store.close().await.unwrap();
        });
    }
}

#[test]
fn a_failure_in_reading_ahead_is_the_readers_only_if_it_meets_it() {
    for times in [1, u64::MAX] {
        let world = world(9);
        let (disk, faults) = (world.disk(), world.clone());
        world.block_on(async move {
            let (store, _) = open(disk.clone(), cold()).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            fill(&store, &log, 100, 0).await;
            let mut from = 0;
            for _ in 0..3 {
                if from > 0 {
                    settle(&store, &disk).await;
                }
                from = step(&log, from, 2000).await.0;
            }
            // It has read in order, and what follows is about to be read.
            faults.inject(fault(Operation::Read, "logs/a-0/", times));
            disk.sleep(Duration::from_secs(1)).await;
            assert_eq!((faults.faults_left(), log.offline()), (times - 1, None), "read ahead, in vain");
            let mut outcome = Ok(());
            while from < log.log_end_offset() && outcome.is_ok() {
                let found = log.read(from, 2000, i64::MAX, true).await;
                outcome = found.map(|found| from = found.next_offset);
            }
            match times {
                u64::MAX => {
                    assert!(matches!(outcome, Err(ReadError::Io(_))), "{outcome:?}");
                    assert!(log.offline().is_some());
                }
                _ => assert_eq!((outcome, log.offline()), (Ok(()), None)),
            }
        });
    }
}

/// Who needs so many bytes at once goes to the device for them, or would ask for ever.
#[test]
fn less_than_is_needed_is_not_given_and_little_is_copied() {
    let world = world(10);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), cold()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        fill(&store, &log, 60, 0).await;
        let from = read_until_ahead(&store, &disk, &log).await;
        let place = crate::read::find_cold(&log.inner.state.borrow(), from).unwrap();
        let (life, at) = (place.segment.life, place.position);
        let ahead = &log.store.read_ahead;
        let whole = ahead.take(life, at..at + 50_000, 1).await.unwrap();
        let len = whole.len() as u64;
        assert!((4096..=8192).contains(&len), "{len} bytes");
        assert!(ahead.take(life, at..at + 50_000, len + 1).await.is_none());
        assert!(ahead.take(life, at + len..at + 50_000, 1).await.is_some(), "the next begins there");
        let part = ahead.take(life, at..at + 3000, 3000).await.unwrap();
        let few = ahead.take(life, at..at + 1000, 1000).await.unwrap();
        assert_eq!((&part[..], &few[..]), (&whole[..3000], &whole[..1000]));
        assert_eq!(part.as_ptr(), whole.as_ptr());
        assert_ne!(few.as_ptr(), whole.as_ptr(), "a small part does not keep all of it");
        store.close().await.unwrap();
    });
}

/// A fetch whose bytes are spent still asks for its other partitions.
#[test]
fn who_has_room_for_nothing_reads_nothing() {
    let world = world(11);
    let (disk, counts) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, _) = open(disk.clone(), cold()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        fill(&store, &log, 300, 0).await;
        let from = read_until_ahead(&store, &disk, &log).await;
        let seen = || (counts.count(Operation::Read), store.stats().read_ahead_taken_bytes);
        let before = seen();
        for from in [from, 0, 200] {
            let found = log.read(from, 0, i64::MAX, false).await.unwrap();
            assert_eq!((found.bytes, found.next_offset), (0, from));
        }
        assert_eq!(seen(), before);
        let outcome = log.read(log.log_end_offset() + 1, 0, i64::MAX, false).await;
        assert!(matches!(outcome, Err(ReadError::OutOfRange { .. })), "its range is checked all the same");
        store.close().await.unwrap();
    });
}

#[test]
fn limits_that_leave_no_place_are_refused() {
    for none in [
        ReadAheadConfig { stretches_max: 0, ..small().read_ahead },
        ReadAheadConfig { readers_per_log_max: 0, ..small().read_ahead },
    ] {
        assert!(StoreConfig { read_ahead: none, ..small() }.check().is_err());
    }
}

#[test]
fn nothing_is_kept_for_who_caught_up() {
    let world = world(14);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), cold()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        fill(&store, &log, 60, 0).await;
        let mut from = read_until_ahead(&store, &disk, &log).await;
        let cold_end = log.log_end_offset();
        while from < cold_end {
            from = step(&log, from, 4000).await.0;
        }
        assert_eq!(from, cold_end);
        step(&log, 3, 1000).await;
        let _room = store.reserve(1000).await.unwrap();
        // In memory, as nobody waits for it.
        log.append(vec![batch(1, 900, 100, 1)], client(0)).unwrap();
        assert!(store.stats().read_ahead_held_bytes > 0, "somebody else read elsewhere");
        assert_eq!(step(&log, from, 4000).await.0, log.log_end_offset());
        assert_eq!(store.stats().read_ahead_held_bytes, 0);
        store.close().await.unwrap();
    });
}

/// Index files are a convenience: without them the next segment's batches are read, 1 MiB at once.
#[test]
fn neither_a_cut_nor_the_end_waits_for_an_index_made_ahead() {
    let config = || StoreConfig {
        journal_file_bytes: 1 << 20,
        unsettled_bytes_max: 1 << 20,
        segment_bytes_max: 16 << 20,
        read_ahead: ReadAheadConfig { stretch_bytes: 512 << 10, ..ReadAheadConfig::default() },
        ..cold()
    };
    let world = world(15);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, config()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        while log.log_end_offset() < 320 {
            let _room = store.reserve(100_000).await.unwrap();
            append(&log, 100_000, 1).await.unwrap();
        }
        store.close().await.unwrap();
    });
    let mut files = world.files();
    files.retain(|path, _| path.extension().is_none_or(|extension| extension != "index"));
    for what in ["nothing", "a cut", "the end"] {
        let world = SimWorld::with_files(16, &files);
        let (disk, counts) = (world.disk(), world.clone());
        world.block_on(async move {
            let (store, _) = open(disk.clone(), config()).await;
            let log = store.log("a-0").unwrap();
            let base = log.inner.state.borrow().segments[1].base;
            let mut from = base - 6;
            while from < base - 2 {
                from = step(&log, from, 100_000).await.0;
            }
            let before = counts.count(Operation::Read);
            match what {
                "a cut" => assert_eq!(log.truncate(5).await, Ok(5)),
                "the end" => store.close().await.unwrap(),
                _ => {
                    for _ in 0..100 {
                        disk.sleep(Duration::from_secs(1)).await;
                    }
                }
            }
            let reads = counts.count(Operation::Read) - before;
            assert_eq!(reads >= 15, what == "nothing", "{what}: {reads} reads");
        });
    }
}

/// It looks here and there, and is over soon.
#[test]
fn nothing_is_read_ahead_of_who_looks_for_a_time() {
    let world = world(13);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), cold()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        for n in 0..1500 {
            let _room = store.reserve(1000).await.unwrap();
            append(&log, 900, n).await.unwrap();
        }
        chill(&store).await;
        // None is found, however far it looks: 256 KiB at once.
        let found = log.offset_for_time(0, async |_| None).await.unwrap();
        assert_eq!(found, None);
        settle(&store, &disk).await;
        assert_eq!(store.stats().read_ahead_bytes, 0);
        store.close().await.unwrap();
    });
}

/// What the log should hold: offset and body of each batch.
type Twin = Rc<RefCell<Vec<(i64, Bytes)>>>;

/// Reads in order from some place, as long as nothing is cut off below it, and holds it against the twin.
async fn reader(disk: SimDisk, log: Log<SimDisk>, twin: Twin, world: SimWorld, left: Rc<Cell<u32>>) {
    let mut from = None;
    while left.get() > 0 {
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        if world.random(20) == 0 {
            from = None;
        }
        let at = from
            .filter(|from| (start..end).contains(from))
            .unwrap_or_else(|| start + world.random((end - start).max(1) as u64) as i64);
        let before = twin.borrow().clone();
        match log.read(at, 500 + world.random(9000) as usize, end, true).await {
            Ok(found) => {
                for batch in join(&found) {
                    // It may be cut off by now.
                    let of = (batch.header.base_offset, batch.body);
                    assert!(twin.borrow().contains(&of) || before.contains(&of), "offset {}", of.0);
                }
                from = Some(found.next_offset);
            }
            Err(ReadError::OutOfRange { .. }) => from = None,
            Err(error) => panic!("{error}"),
        }
        disk.sleep(Duration::from_micros(world.random(3000))).await;
    }
}

async fn change(store: &Store<SimDisk>, log: &Log<SimDisk>, twin: &Twin, world: &SimWorld, salt: u64) {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let span = (end - start).max(1) as u64;
    match world.random(16) {
        0 => {
            let to = start + world.random(span) as i64;
            let to = log.truncate(to).await.unwrap();
            twin.borrow_mut().retain(|(offset, _)| *offset < to);
        }
        1 => {
            let to = start + world.random(span / 2 + 1) as i64;
            log.delete_records(to).await.unwrap();
        }
        2 => chill(store).await,
        3 => store.tick(0).await,
        _ => {
            for n in 0..1 + world.random(8) {
                let len = 100 + world.random(3000) as usize;
                let _room = store.reserve(len).await.unwrap();
                let batch = batch(1, len, salt * 17 + n, 1);
                let body = batch.body.clone();
                let appended = log.append(vec![batch], client(0)).unwrap();
                twin.borrow_mut().push((log.log_end_offset() - 1, body));
                log.durable(appended.ticket).await.unwrap();
            }
        }
    }
}

#[test]
fn whatever_is_done_to_the_log_readers_get_what_it_holds() {
    let taken = Rc::new(Cell::new(0));
    for seed in 0..40 {
        let world = world(1000 + seed);
        let (disk, here, taken) = (world.disk(), world.clone(), taken.clone());
        world.block_on(async move {
            let config = StoreConfig { segment_bytes_max: 32 << 10, ..cold() };
            let (store, _) = open(disk.clone(), config).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            let (twin, left) = (Twin::default(), Rc::new(Cell::new(150)));
            for _ in 0..3 {
                let (disk, log, twin) = (disk.clone(), log.clone(), twin.clone());
                here.spawn(reader(disk, log, twin, here.clone(), left.clone()));
            }
            for n in 0..150 {
                change(&store, &log, &twin, &here, seed * 1000 + n).await;
                disk.sleep(Duration::from_micros(here.random(4000))).await;
                left.set(left.get() - 1);
            }
            let held: Vec<_> = read_all(&log).await;
            let start = log.log_start_offset();
            let twin: Vec<_> = twin.borrow().iter().filter(|(offset, _)| *offset >= start).cloned().collect();
            let held: Vec<_> = held.iter().map(|of| (of.header.base_offset, of.body.clone())).collect();
            assert_eq!(held, twin, "seed {seed}");
            taken.set(taken.get() + store.stats().read_ahead_taken_bytes);
            store.close().await.unwrap();
        });
    }
    assert!(taken.get() > 1 << 20, "{} bytes were read ahead and taken", taken.get());
}

/// The file is the one that it was: only its name is looked up.
#[test]
fn the_header_of_a_file_is_read_once_however_often_it_is_opened() {
    let world = world(9);
    let (disk, counts) = (world.disk(), world.clone());
    world.block_on(async move {
        let config = StoreConfig { open_files_max: 1, ..without() };
        let (store, _) = open(disk, config).await;
        for name in ["a-0", "b-0"] {
            let log = store.create_log(name, log_config()).await.unwrap();
            fill(&store, &log, 3, 0).await;
        }
        let logs = ["a-0", "b-0"].map(|name| store.log(name).unwrap());
        let mut seen = Vec::new();
        for _ in 0..2 {
            let of = |operation| counts.count(operation);
            let (opens, reads) = (of(Operation::Name), of(Operation::Read));
            for log in &logs {
                assert_eq!(step(log, 0, 1).await.0, 1);
            }
            seen.push((of(Operation::Name) - opens, of(Operation::Read) - reads));
        }
        assert_eq!(seen[1], (2, 2), "for each log a name and the batch");
        store.close().await.unwrap();
    });
}
