//! Many producers at once: in one append, in appends beside each other, and with a log that moves.

use std::rc::Rc;

use super::reshards::{DATA, open_shard_with};
use super::spills::{Book, few, of, repeat, send, write};
use super::*;
use crate::disk::Disk;
use crate::disk::sim::{Crash, Effect, Fault, Operation};
use crate::{AppendError, Appended, Resharding, reshard};

/// Appends batches of several producers in one go; gives how many times they had to be waited for as well.
async fn append(
    log: &Log<SimDisk>,
    batches: &[Batch],
    context: AppendContext,
) -> Result<(Appended, usize), AppendError> {
    for waits in 0.. {
        match log.append(batches.to_vec(), context) {
            Err(AppendError::ProducerAway(_)) if waits < 10 => {
                let ids = batches.iter().map(|batch| batch.header.producer_id);
                log.admit_producers(ids, context).await?;
            }
            appended => return Ok((appended?, waits)),
        }
    }
    unreachable!("it is waited for ten times at most")
}

/// Waits until no more producers than these are in memory.
async fn settled(store: &Store<SimDisk>, disk: &SimDisk, producers_max: usize) {
    for _ in 0..5000 {
        if store.stats().producers <= producers_max {
            return;
        }
        disk.sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("{} producers stay in memory", store.stats().producers);
}

/// As a leader has them.
fn contiguous(mut batches: Vec<Batch>, from: i64) -> Vec<Batch> {
    for (batch, at) in batches.iter_mut().zip((from..).step_by(2)) {
        (batch.header.base_offset, batch.header.partition_leader_epoch) = (at, 3);
    }
    batches
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    New,
    Expired,
    Void,
    Known,
}

/// More than are remembered to be absent, and more than memory has room for.
#[test]
fn an_append_of_any_number_of_producers_is_waited_for_once() {
    const MANY: i64 = 5_000;
    for standing in [Standing::New, Standing::Expired, Standing::Void, Standing::Known] {
        let world = world(1);
        let disk = world.disk();
        world.block_on(async move {
            let roomy =
                StoreConfig { producers_max: 700, producers_per_log_max: 600, ..StoreConfig::default() };
            let (store, _) = open(disk.clone(), roomy).await;
            let expiring = LogConfig { producer_expiration_ms: 10_000, ..log_config() };
            let log = store.create_log("a", expiring).await.unwrap();
            let before = if standing == Standing::New { 0 } else { MANY };
            for first in (0..before).step_by(200) {
                let batches: Vec<_> = (first..first + 200).map(|producer| of(producer, 0)).collect();
                let (appended, _) = append(&log, &batches, client(1000)).await.unwrap();
                assert_eq!(appended.base_offset, 2 * first);
                log.durable(appended.ticket).await.unwrap();
            }
            if standing == Standing::Void {
                let before = log.store.unique();
                log.inner.state.borrow_mut().cuts.void_all(before);
            }
            let now_ms = if standing == Standing::Expired { 20_000 } else { 2000 };
            let context = AppendContext { origin: Origin::Replica, ..client(now_ms) };
            let batches: Vec<_> = (0..MANY).map(|producer| of(producer, 2)).collect();
            let batches = contiguous(batches, log.log_end_offset());
            let (appended, waits) = append(&log, &batches, context).await.unwrap();
            assert_eq!((appended.base_offset, waits), (2 * before, 1), "{standing:?}");
            log.durable(appended.ticket).await.unwrap();
            let known = standing == Standing::Known;
            for producer in (0..MANY).step_by(7) {
                let again = send(&log, producer, 2, now_ms).await.unwrap();
                assert_eq!((again.duplicate, again.base_offset), (true, 2 * (before + producer)));
                let first = send(&log, producer, 0, now_ms).await;
                // Where it is known no more, its first batch is out of order.
                let of_old = first.is_ok_and(|first| first.duplicate && first.base_offset == 2 * producer);
                let in_memory = standing == Standing::Void && producer >= MANY - 600;
                assert!(of_old == known || in_memory, "{standing:?} {producer}");
            }
            settled(&store, &disk, 525).await;
            store.close().await.unwrap();
        });
    }
}

#[test]
fn who_is_held_does_not_leave_memory() {
    let world = world(6);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        write(&store, "a", 0..10, &Book::default()).await;
        let spiller = &log.store.spiller;
        let round = async || {
            spiller.demand(&log.store, true, Some(log.inner.id));
            let asked = spiller.asked();
            spiller.changed.until(|| spiller.has_served(asked).then_some(())).await;
            log.producers().len()
        };
        let known = round().await;
        let ids = log.producers().iter().map(|producer| producer.producer_id).collect();
        let held = [spiller.hold(log.inner.id, &ids), spiller.hold(log.inner.id, &ids)];
        assert_eq!(round().await, known);
        // They may leave soon, so that nobody is refused for it.
        assert!(known > 0 && !spiller.has_found_none());
        let [first, second] = held;
        drop(first);
        assert_eq!(round().await, known);
        drop(second);
        assert!(round().await < known);
        store.close().await.unwrap();
    });
}

/// Appends of several logs bring their producers back in the same millisecond, far more than there is room for.
#[test]
fn who_comes_back_at_the_same_time_does_not_push_others_out() {
    for seed in 0..60 {
        let (world, at_once) = (world(seed), [5, 10, 12, 20][seed as usize % 4]);
        let (disk, book) = (world.disk(), Book::default());
        let inner = world.clone();
        world.block_on(async move {
            let (store, _) = open(disk.clone(), few()).await;
            let names = ["a", "b", "c", "d"];
            for name in names {
                store.create_log(name, log_config()).await.unwrap();
                write(&store, name, 0..60, &book).await;
            }
            let running = Rc::new(());
            for name in names {
                let (log, book, running) = (store.log(name).unwrap(), book.clone(), running.clone());
                inner.spawn(async move {
                    let _running = running;
                    for sequence in [2, 4] {
                        for first in (0..60).step_by(at_once) {
                            let producers = first..first + at_once as i64;
                            let batches: Vec<_> =
                                producers.clone().map(|producer| of(producer, sequence)).collect();
                            // A client, which has one at once, may be refused.
                            let origin = Origin::Replica;
                            let batches = contiguous(batches, log.log_end_offset());
                            let context = AppendContext { origin, ..client(2000) };
                            let (appended, waits) = append(&log, &batches, context).await.unwrap();
                            assert!(!appended.duplicate && waits <= 1, "{waits}");
                            log.durable(appended.ticket).await.unwrap();
                            for (producer, at) in producers.zip((appended.base_offset..).step_by(2)) {
                                book.borrow_mut().entry((name.to_owned(), producer)).or_default().push(at);
                            }
                        }
                    }
                });
            }
            while Rc::strong_count(&running) > 1 {
                disk.sleep(std::time::Duration::from_millis(1)).await;
            }
            let came_back = store.stats().producers_brought_back;
            assert!(came_back <= 4 * 2 * 60, "{came_back} came back for 480 batches");
            let all = book.borrow().clone();
            for ((name, producer), offsets) in all {
                assert_eq!(offsets.len(), 3);
                let again = send(&store.log(&name).unwrap(), producer, 4, 2000).await.unwrap();
                assert_eq!((again.duplicate, again.base_offset), (true, offsets[2]));
            }
            assert_eq!(store.stats().producers_forgotten, 0);
            store.close().await.unwrap();
        });
    }
}

/// The same with a batch each, as clients send them.
#[test]
fn each_producer_comes_back_once_for_a_batch() {
    for seed in 0..10 {
        let world = world(seed);
        let (disk, book) = (world.disk(), Book::default());
        let inner = world.clone();
        world.block_on(async move {
            let (store, _) = open(disk.clone(), few()).await;
            let logs = ["a", "b", "c"];
            for name in logs {
                store.create_log(name, log_config()).await.unwrap();
                write(&store, name, 0..60, &book).await;
            }
            let running = Rc::new(());
            for name in logs {
                for producer in 0..60 {
                    let (log, book) = (store.log(name).unwrap(), book.clone());
                    let running = running.clone();
                    inner.spawn(async move {
                        let _running = running;
                        let appended = send(&log, producer, 2, 2000).await.unwrap();
                        assert!(!appended.duplicate);
                        log.durable(appended.ticket).await.unwrap();
                        let key = (log.name().to_string(), producer);
                        book.borrow_mut().entry(key).or_default().push(appended.base_offset);
                    });
                }
            }
            while Rc::strong_count(&running) > 1 {
                disk.sleep(std::time::Duration::from_millis(1)).await;
            }
            let came_back = store.stats().producers_brought_back;
            assert!((100..=180).contains(&came_back), "{came_back} came back for 180 batches");
            for name in logs {
                // Those that came back beside each other were more than fit.
                let log = store.log(name).unwrap();
                assert!(send(&log, 59, 2, 2000).await.unwrap().duplicate);
                settled(&store, &disk, 14).await;
            }
            repeat(&store, &book).await;
            assert_eq!(store.stats().producers_forgotten, 0);
            store.close().await.unwrap();
        });
    }
}

#[test]
fn nobody_is_missing_where_nobody_has_to_leave() {
    let world = world(8);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        // As when the round before has made room.
        let spiller = &log.store.spiller;
        spiller.demand(&log.store, true, Some(log.inner.id));
        let asked = spiller.asked();
        spiller.changed.until(|| spiller.has_served(asked).then_some(())).await;
        assert!(!spiller.has_found_none());
        store.close().await.unwrap();
    });
}

#[test]
fn who_waits_for_a_round_is_refused_where_the_disk_is_full() {
    let (world, book) = (world(9), Book::default());
    let disk = world.disk();
    let inner = world.clone();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        write(&store, "a", 0..60, &book).await;
        inner.inject(Fault {
            operation: Operation::Write,
            path_contains: "/journal/".into(),
            skip: 0,
            times: u64::MAX,
            effect: Effect::Fail(libc::ENOSPC),
        });
        // As many as fit. Then one has to wait for a round, and that for their commit.
        let waits = (1000..).find(|producer| log.append(vec![of(*producer, 0)], client(2000)).is_err());
        let refused = log.append_large(of(waits.unwrap(), 0), client(2000)).await;
        assert!(matches!(refused, Err(AppendError::DiskFull)), "{refused:?}");
        // Who is refused anyway asks for no round, which would forget others for nobody.
        let asked = log.store.spiller.asked();
        assert!(!log.awaits_producer(&of(2000, 0), Origin::Client));
        log.admit_producers([2000], client(2000)).await.unwrap();
        assert_eq!(log.store.spiller.asked(), asked);
    });
}

#[test]
fn any_number_of_batches_of_one_producer_count_as_one() {
    let (world, book) = (world(10), Book::default());
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        let context = AppendContext { origin: Origin::Replica, ..client(2000) };
        for (known, batches) in [(10, 6), (0, 40)] {
            write(&store, "a", 0..known, &book).await;
            let producer = 1000 + known;
            let batches = (0..batches).map(|n| of(producer, 2 * n)).collect();
            let batches = contiguous(batches, log.log_end_offset());
            append(&log, &batches, context).await.unwrap();
            let known = log.producers().into_iter().find(|known| known.producer_id == producer);
            assert_eq!(known.unwrap().last_sequence, batches.last().unwrap().header.base_sequence + 1);
        }
        store.close().await.unwrap();
    });
}

#[test]
fn a_log_that_moves_takes_along_who_was_seen_last() {
    let mut world = world(5);
    let (disk, book) = (world.disk(), Book::default());
    let told = book.clone();
    world.block_on(async move {
        let store = open_shard_with(&disk, 0, few()).await;
        for name in ["a", "bb"] {
            store.create_log(name, log_config()).await.unwrap();
            write(&store, name, 0..200, &told).await;
            write(&store, name, 0..100, &told).await;
        }
        store.close().await.unwrap();
    });
    world = world.crash(Crash::PowerLoss);
    let disk = world.disk();
    world.block_on(async move {
        let assign = |name: &str, _| name.len() % 2;
        let moved = reshard(&disk, Path::new(DATA), &few(), &Resharding { to: 2, assign: &assign }, 0).await;
        assert_eq!(moved.unwrap(), 1);
        let store = open_shard_with(&disk, 1, few()).await;
        let log = store.log("a").unwrap();
        // Those from 100 on were silent since they wrote, but seen later by the clock of this test.
        let is_known = async |producer: i64| {
            let offsets = book.borrow()[&("a".to_owned(), producer)].clone();
            let last = offsets.len() - 1;
            let again = send(&log, producer, 2 * last as i32, 3000).await.unwrap();
            again.duplicate && again.base_offset == offsets[last]
        };
        let mut known = 0;
        while is_known(199 - known).await {
            known += 1;
        }
        // Up to 12 from memory, and 12 from disk.
        assert!((13..=24).contains(&known), "{known}");
        for producer in (0..199 - known).rev() {
            assert!(!is_known(producer).await, "{producer}");
        }
        store.close().await.unwrap();
        // The other knows all of its own.
        let store = open_shard_with(&disk, 0, few()).await;
        book.borrow_mut().retain(|(name, _), _| name == "bb");
        repeat(&store, &book).await;
        store.close().await.unwrap();
    });
}
