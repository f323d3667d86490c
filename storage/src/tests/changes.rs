//! Rolling, deleting, truncating, removing: what stays, now and after reopening.

use super::*;
use crate::disk::{BLOCK, Disk, DiskFile};
use crate::writeback::Hurry;
use crate::{AppendError, StoreError};

async fn fill(store: &Store<SimDisk>, log: &Log<SimDisk>, count: u64, len: usize) {
    for n in 0..count {
        let _room = store.reserve(len).await.unwrap();
        let timestamp = 1000 * (log.log_end_offset() + 1);
        let appended = log.append(vec![batch(2, len, n, timestamp)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
    }
}

async fn offsets(log: &Log<SimDisk>) -> Vec<i64> {
    read_all(log).await.iter().map(|batch| batch.header.base_offset).collect()
}

/// Closes and opens anew, and gives the log.
async fn reopen(disk: &SimDisk, store: Store<SimDisk>) -> (Store<SimDisk>, Log<SimDisk>) {
    store.close().await.unwrap();
    let (store, report) = open(disk.clone(), small()).await;
    assert_eq!((report.offline.len(), report.frames_replayed), (0, 0));
    let log = store.log("a-0").unwrap();
    (store, log)
}

#[test]
fn deleted_records_stay_deleted_and_their_segments_are_reused() {
    let world = world(3);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        fill(&store, &log, 30, 20_000).await;
        assert!(log.segment_count() >= 5);
        assert_eq!(log.delete_records(25).await, Ok(25));
        assert_eq!(log.delete_records(7).await, Ok(25), "never back");
        assert_eq!(log.delete_records(61).await, Err(StoreError::OutOfRange { start: 25, end: 60 }));
        assert_eq!(offsets(&log).await, (12..30).map(|n| 2 * n).collect::<Vec<_>>());
        let out_of_range = crate::ReadError::OutOfRange { start: 25, end: 60 };
        assert_eq!(log.read(24, 100, i64::MAX, true).await, Err(out_of_range));
        let (store, log) = reopen(&disk, store).await;
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (25, 60));
        assert_eq!(offsets(&log).await.first(), Some(&24));
        store.close().await.unwrap();
    });
}

#[test]
fn retention_deletes_by_size_and_time_down_to_nothing() {
    let world = world(4);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        fill(&store, &log, 40, 20_000).await;
        store.tick(100_000).await;
        assert_eq!(log.log_start_offset(), 0, "without limits nothing goes");
        log.set_config(LogConfig { retention_bytes: 300_000, ..log_config() });
        store.tick(100_000).await;
        assert!((300_000..440_000).contains(&log.size_bytes()), "{}", log.size_bytes());
        log.set_config(LogConfig { retention_ms: 10_000, ..log_config() });
        store.tick(200_000).await;
        assert_eq!((log.log_start_offset(), log.log_end_offset(), log.size_bytes()), (80, 80, 0));
        fill(&store, &log, 2, 500).await;
        assert_eq!(offsets(&log).await, [80, 82]);
        let (store, log) = reopen(&disk, store).await;
        assert_eq!(offsets(&log).await, [80, 82]);
        store.close().await.unwrap();
    });
}

#[test]
fn retention_by_time_waits_for_its_interval() {
    let world = world(5);
    let disk = world.disk();
    world.block_on(async move {
        let config = StoreConfig { retention_check_interval_ms: 300_000, ..small() };
        let (store, _) = open(disk.clone(), config).await;
        let log = store.create_log("a-0", LogConfig { retention_ms: 10_000, ..log_config() }).await.unwrap();
        fill(&store, &log, 10, 20_000).await;
        store.tick(30_999).await;
        assert_eq!(log.log_start_offset(), 0, "the first look comes 30 s after opening");
        store.tick(31_000).await;
        assert_eq!(log.log_start_offset(), 20);
        fill(&store, &log, 10, 20_000).await;
        store.tick(330_999).await;
        assert_eq!(log.log_start_offset(), 20, "the next look comes an interval later");
        store.tick(331_000).await;
        assert_eq!(log.log_start_offset(), 40);
        store.close().await.unwrap();
    });
}

#[test]
fn a_truncated_log_goes_on_from_its_cut_whatever_old_bytes_lie_there() {
    let world = world(5);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        fill(&store, &log, 30, 20_000).await;
        assert_eq!(log.truncate(60).await, Ok(60), "nothing to cut");
        assert_eq!(log.truncate(41).await, Ok(40), "batches stay whole");
        assert_eq!((log.log_end_offset(), log.durable_offset()), (40, 40));
        assert_eq!(offsets(&log).await, (0..20).map(|n| 2 * n).collect::<Vec<_>>());
        // The same lengths line up with what was cut off.
        fill(&store, &log, 3, 20_000).await;
        assert_eq!(offsets(&log).await.len(), 23);
        let (store, log) = reopen(&disk, store).await;
        assert_eq!((offsets(&log).await.len(), log.log_end_offset()), (23, 46));
        assert_eq!(log.truncate(0).await, Ok(0));
        assert_eq!((offsets(&log).await.len(), log.latest_epoch()), (0, None));
        fill(&store, &log, 1, 20_000).await;
        let (store, log) = reopen(&disk, store).await;
        assert_eq!(offsets(&log).await, [0]);
        store.close().await.unwrap();
    });
}

#[test]
fn a_removed_log_is_gone_and_its_name_is_free() {
    let world = world(6);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        assert_eq!(store.create_log("a-0", log_config()).await.err(), Some(StoreError::Exists("a-0".into())));
        for bad in ["", "..", "a/b", "ä"] {
            let refused = Some(StoreError::InvalidName(bad.into()));
            assert_eq!(store.create_log(bad, log_config()).await.err(), refused);
        }
        fill(&store, &log, 20, 20_000).await;
        store.remove_log("a-0").await.unwrap();
        assert_eq!(store.remove_log("a-0").await, Err(StoreError::NotFound("a-0".into())));
        assert_eq!(log.append(vec![batch(1, 100, 1, 1)], client(0)), Err(AppendError::Closed));
        let log = store.create_log("a-0", log_config()).await.unwrap();
        assert_eq!(log.log_end_offset(), 0);
        fill(&store, &log, 3, 20_000).await;
        let (store, log) = reopen(&disk, store).await;
        assert_eq!(offsets(&log).await, [0, 2, 4]);
        store.close().await.unwrap();
    });
}

#[test]
fn records_of_a_relaxed_log_show_at_once_and_durable_ones_when_stable() {
    let world = world(7);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let relaxed = LogConfig { flush_messages: u64::MAX, ..log_config() };
        let relaxed = store.create_log("relaxed", relaxed).await.unwrap();
        let strict = store.create_log("strict", log_config()).await.unwrap();
        let changes = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = changes.clone();
        strict.on_change(Some(std::rc::Rc::new(move || counted.set(counted.get() + 1))));
        let first = relaxed.append(vec![batch(1, 100, 1, 1)], client(0)).unwrap();
        let second = strict.append(vec![batch(1, 100, 1, 1)], client(0)).unwrap();
        assert_eq!((relaxed.written_offset(), strict.written_offset()), (1, 0));
        assert_eq!(relaxed.poll_durable(first.ticket), Some(Ok(())));
        assert_eq!((strict.poll_durable(second.ticket), changes.get()), (None, 0));
        strict.durable(second.ticket).await.unwrap();
        assert_eq!((strict.written_offset(), relaxed.durable_offset(), changes.get()), (1, 1, 1));
        store.close().await.unwrap();
    });
}

#[test]
fn what_left_does_not_come_back_when_power_is_lost_after_a_clean_close() {
    for seed in 0..30 {
        let first = world(400 + seed);
        let disk = first.disk();
        let segments = first.block_on(async move {
            let (store, _) = open(disk.clone(), small()).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            let gone = store.create_log("gone-0", log_config()).await.unwrap();
            for log in [&log, &gone] {
                fill(&store, log, 12, 40_000).await;
            }
            log.delete_records(9).await.unwrap();
            store.checkpoint().await.unwrap();
            store.tick(5000).await;
            store.remove_log("gone-0").await.unwrap();
            store.close().await.unwrap();
            log.segment_count()
        });
        let world = first.crash(crate::disk::sim::Crash::PowerLoss);
        let disk = world.disk();
        world.block_on(async move {
            let logs = Path::new(DIR).join("logs");
            let names = async |dir: &Path| {
                let entries = disk.list(dir).await.unwrap();
                entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
            };
            assert_eq!(names(&logs).await, ["a-0"], "seed {seed}");
            let mut files = names(&logs.join("a-0")).await;
            files.retain(|name| name.ends_with(".log"));
            assert_eq!(files.len(), segments, "seed {seed}: {files:?}");
        });
    }
}

/// Write behind leaves the disk to commits while there is time, and has it as others come to wait.
#[test]
fn as_much_is_written_behind_at_once_as_is_needed() {
    let world = world(91);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, StoreConfig { unsettled_bytes_max: 1000, ..small() }).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let inner = &log.store;
        let at_once = |most| inner.behind_at_once(most);
        for (unsettled, expected) in [(0, 1), (500, 1), (750, 9), (999, 16), (1000, 16), (1500, 16)] {
            inner.levels.unsettled_bytes.set(unsettled);
            assert_eq!(at_once(16), expected, "{unsettled}");
        }
        inner.levels.unsettled_bytes.set(0);
        inner.levels.cache_bytes.set(small().cache_bytes_max * 3 / 2);
        assert_eq!(at_once(16), 9);
        inner.levels.cache_bytes.set(0);
        let hurry = Hurry::begin(&inner.writeback);
        assert_eq!(at_once(64), 64);
        drop(hurry);
        assert_eq!(at_once(64), 1);
        inner.levels.room_waiters.set(1);
        assert_eq!(at_once(64), 64, "for room");
        inner.levels.room_waiters.set(0);
        inner.journal.waiting.set(true);
        assert_eq!(at_once(64), 64, "a commit for a checkpoint");
        inner.journal.waiting.set(false);
        assert_eq!(at_once(64), 1);
        store.close().await.unwrap();
    });
}

#[test]
fn a_truncation_does_not_mind_damage_behind_its_cut() {
    let world = world(38);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), StoreConfig { cache_bytes_max: 4 << 10, ..small() }).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        fill(&store, &log, 10, 3000).await;
        store.checkpoint().await.unwrap();
        store.tick(0).await;
        let path = Path::new(DIR).join("logs/a/00000000000000000000.log");
        let file = disk.open(&path).await.unwrap();
        // Within the eighth batch, of two records as all.
        let at = BLOCK as u64 + 7 * 3000 + 1000;
        let from = at / BLOCK as u64 * BLOCK as u64;
        let mut block = file.read_at(from, BLOCK).await.unwrap();
        block[(at - from) as usize] ^= 1;
        file.write_at(block.freeze(), from).await.unwrap();
        assert!(log.truncate(16).await.is_err(), "what would stay is damaged");
        assert!(log.offline().is_some());
        store.close().await.unwrap();
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.log("a").unwrap();
        assert_eq!(log.truncate(14).await, Ok(14));
        assert_eq!(offsets(&log).await, (0..7).map(|n| 2 * n).collect::<Vec<_>>());
        fill(&store, &log, 3, 3000).await;
        store.close().await.unwrap();
    });
}

/// Logs that are written to alike, a batch each in turn, with segments long enough to be spread.
#[test]
fn logs_written_to_alike_begin_their_segments_apart() {
    const LOGS: usize = 8;
    const BATCH: usize = 32 << 10;
    /// Batches that fit a segment.
    const FULL: u64 = 128;
    let world = world(31);
    let disk = world.disk();
    world.block_on(async move {
        let bytes = 4 << 20;
        let config = StoreConfig { segment_bytes_max: bytes, recycle_bytes_max: 0, ..small() };
        let (store, _) = open(disk, config).await;
        let log_config = LogConfig { segment_bytes: bytes, ..log_config() };
        let mut logs = Vec::new();
        for number in 0..LOGS {
            logs.push(store.create_log(&format!("a-{number}"), log_config.clone()).await.unwrap());
        }
        // By log: how many batches each of its segments took.
        let mut took = vec![vec![0_u64]; LOGS];
        for n in 0..2 * FULL + 1 {
            for (log, took) in logs.iter().zip(&mut took) {
                let _room = store.reserve(BATCH).await.unwrap();
                let appended = log.append(vec![batch(2, BATCH, n, 1000)], client(0)).unwrap();
                log.durable(appended.ticket).await.unwrap();
                took.resize(log.segment_count(), 0);
                *took.last_mut().unwrap() += 1;
            }
        }
        let mut first: Vec<u64> = took.iter().map(|took| took[0]).collect();
        first.sort_unstable();
        assert!(first.iter().all(|took| (FULL / 2..=FULL).contains(took)), "{first:?}");
        first.dedup();
        assert_eq!(first.len(), LOGS, "each at a moment of its own: {first:?}");
        assert!(took.iter().all(|took| took[1] == FULL), "later ones are full: {took:?}");
        store.close().await.unwrap();
    });
}
