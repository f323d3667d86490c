//! What recovery replays is bounded: commits behind a checkpoint wait for its end, and for nothing else.

use std::time::Duration;

use super::faults::fault;
use super::*;
use crate::disk::Disk;
use crate::disk::sim::{Crash, Operation};
use crate::log::Ticket;

const CHECKPOINT_BYTES: u64 = 48 << 10;
const LATE_BYTES: u64 = 16 << 10;

fn config() -> StoreConfig {
    StoreConfig {
        journal_files: 32,
        checkpoint_bytes: CHECKPOINT_BYTES,
        checkpoint_late_bytes_max: LATE_BYTES,
        ..small()
    }
}

async fn append(store: &Store<SimDisk>, log: &Log<SimDisk>, len: usize, n: u64) -> Ticket {
    let batch = batch(1, len, n, 1);
    let room = store.reserve(batch.len()).await.unwrap();
    let appended = log.append(vec![batch], client(0)).unwrap();
    drop(room);
    appended.ticket
}

/// However many are appended at once, and with the clock standing still: all are committed, and after a kill little is
/// replayed.
#[test]
fn a_flood_is_replayed_in_part() {
    let mut replayed_most = 0;
    for seed in 0..20 {
        let world = world(seed);
        let disk = world.disk();
        let flood = world.block_on(async move {
            let (store, _) = open(disk, config()).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            let mut last = None;
            for n in 0..400 + seed {
                last = Some(append(&store, &log, 3000, n).await);
            }
            log.durable(last.unwrap()).await.unwrap();
            log.log_end_offset()
        });
        let world = world.crash(Crash::Kill);
        let disk = world.disk();
        let replayed = world.block_on(async move {
            let (store, report) = open(disk, config()).await;
            assert_eq!(store.log("a-0").unwrap().log_end_offset(), flood);
            report.bytes_replayed
        });
        replayed_most = replayed.max(replayed_most);
    }
    // What was appended when the checkpoint began, and the commits that go beyond the bound behind it and the one before.
    let more = (small().unsettled_bytes_max + 2 * small().commit_bytes_target) as u64;
    assert!(replayed_most <= CHECKPOINT_BYTES + LATE_BYTES + more, "{replayed_most}");
    assert!(replayed_most > LATE_BYTES, "{replayed_most}");
}

/// A commit may be larger than all that is to be replayed: the next asks for the checkpoint that nobody else asks for.
#[test]
fn commits_larger_than_the_bounds_go_on_without_the_clock() {
    let world = world(40);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) =
            open(disk, StoreConfig { checkpoint_bytes: 1, checkpoint_late_bytes_max: 1, ..config() }).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let mut last = None;
        for n in 0..30 {
            last = Some(append(&store, &log, 60_000, n).await);
        }
        log.durable(last.unwrap()).await.unwrap();
        assert!(store.stats().checkpoints > 5, "{:?}", store.stats());
        store.close().await.unwrap();
    });
}

/// A full disk keeps a checkpoint from its end, and only a deletion may make room, which has to be committed first.
#[test]
fn commits_do_not_wait_for_a_checkpoint_that_a_full_disk_holds_up() {
    let world = world(41);
    let disk = world.disk();
    let faults = world.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        faults.inject(fault(Operation::Write, "checkpoint", u64::MAX, libc::ENOSPC));
        let mut last = None;
        let mut n = 0;
        while !store.stats().disk_full {
            n += 1;
            assert!(n < 1000, "no checkpoint is written");
            match log.append(vec![batch(1, 3000, n, 1)], client(0)) {
                Ok(appended) => last = Some(appended.ticket),
                Err(error) => panic!("{error}"),
            }
            disk.sleep(Duration::from_millis(1)).await;
            store.tick(0).await;
        }
        let own = AppendContext { origin: Origin::Coordinator, ..client(0) };
        for n in 0..30 {
            let appended = log.append(vec![batch(1, 3000, n, 1)], own).unwrap();
            log.durable(appended.ticket).await.unwrap();
        }
        log.durable(last.unwrap()).await.unwrap();
        log.delete_records(10).await.unwrap();
        assert!(store.stats().disk_full);
        faults.clear_faults();
        store.close().await.unwrap();
    });
}

/// Who finds many committed behind a checkpoint begins the next one earlier.
#[test]
fn a_checkpoint_that_took_long_makes_the_next_one_due_sooner() {
    let world = world(42);
    let disk = world.disk();
    let faults = world.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        assert_eq!(log.store.journal.due_bytes(), CHECKPOINT_BYTES);
        faults.inject(fault(Operation::Write, "checkpoint", u64::MAX, libc::ENOSPC));
        let own = AppendContext { origin: Origin::Coordinator, ..client(0) };
        let append = async |n| {
            let appended = log.append(vec![batch(1, 3000, n, 1)], own).unwrap();
            log.durable(appended.ticket).await.unwrap();
            store.tick(0).await;
        };
        // Nobody waits for a checkpoint that the full disk holds up.
        for n in 0..60 {
            append(n).await;
        }
        let before = store.stats().checkpoints;
        faults.clear_faults();
        let taken = async |more| {
            let mut waited = 0;
            while store.stats().checkpoints < before + more {
                waited += 1;
                assert!(waited < 10_000, "{:?}", store.stats());
                disk.sleep(Duration::from_millis(1)).await;
                store.tick(0).await;
            }
        };
        // The one that was held up, and the one that was due behind it.
        taken(2).await;
        let due = log.store.journal.due_bytes();
        assert!(due < CHECKPOINT_BYTES, "{due}");
        for n in 0..due.div_ceil(3000) {
            append(n).await;
        }
        assert!(due.div_ceil(3000) * 3000 < CHECKPOINT_BYTES);
        taken(3).await;
        store.close().await.unwrap();
    });
}
