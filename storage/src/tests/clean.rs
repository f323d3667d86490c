//! Cleaning by key: what it leaves behind on disk and in memory, and what ends it. Its rules are tested beside them, and
//! against a model in `tests/log/clean.rs`.

use std::time::Duration;

use penstock_format::{BatchBuilder, NewRecord, Records};

use super::offline::{check, dump};
use super::*;
use crate::disk::sim::Crash;
use crate::disk::{BLOCK, Disk, DiskFile};
use crate::offline::OfflineStore;
use crate::{CleanerConfig, Compaction};

pub(super) fn config() -> StoreConfig {
    let cleaner = CleanerConfig { backoff_ms: 1, io_bytes: 8 << 10, ..CleanerConfig::default() };
    StoreConfig { cleaner, ..small() }
}

pub(super) fn compacted() -> LogConfig {
    let compaction = Some(Compaction { min_dirty_millionths: 0, ..Compaction::default() });
    LogConfig { segment_bytes: 8 << 10, index_interval_bytes: 512, compaction, ..LogConfig::default() }
}

pub(super) fn keyed(key: &str, len: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    let value = vec![7; len];
    let (key, value) = (Some(key.as_bytes()), Some(&value[..]));
    builder.append(&NewRecord { timestamp: 1000, key, value, headers: &[] }).unwrap();
    builder.finish().unwrap()
}

/// Appends a batch of a kilobyte for each key, durably.
pub(super) async fn append(
    store: &Store<SimDisk>,
    log: &Log<SimDisk>,
    keys: impl IntoIterator<Item = String>,
) {
    for key in keys {
        let batch = keyed(&key, 1000);
        let room = store.reserve(batch.len()).await.unwrap();
        let appended = log.append(vec![batch], client(1000)).unwrap();
        drop(room);
        log.durable(appended.ticket).await.unwrap();
    }
}

/// Ticks until the cleaner has read nothing for a while.
pub(super) async fn settle(store: &Store<SimDisk>, disk: &SimDisk, now_ms: &mut i64) {
    let (mut read_bytes, mut quiet) = (u64::MAX, 0);
    while quiet < 20 {
        *now_ms += 10;
        store.tick(*now_ms).await;
        disk.sleep(Duration::from_millis(20)).await;
        let before = std::mem::replace(&mut read_bytes, store.stats().cleaner_read_bytes);
        quiet = if before == read_bytes { quiet + 1 } else { 0 };
    }
}

pub(super) fn keys_of(batches: &[Batch]) -> Vec<(i64, String)> {
    let mut keys = Vec::new();
    for batch in batches {
        for record in &Records::open(batch, 1 << 20).unwrap() {
            let record = record.unwrap();
            keys.push((record.offset, String::from_utf8(record.key.unwrap().to_vec()).unwrap()));
        }
    }
    keys
}

#[test]
fn segments_that_lose_all_go_and_reads_pass_the_gap() {
    let world = world(21);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config()).await;
        let log = store.create_log("a", compacted()).await.unwrap();
        // First and last segments hold other keys than those between.
        let first = (0..7).map(|n| format!("first-{n}"));
        let between = (0..49).map(|n| format!("between-{}", n % 3));
        append(&store, &log, first.chain(between).chain(["last".to_owned()])).await;
        let segments = log.segment_count();
        settle(&store, &disk, &mut 1000).await;
        assert!(segments > 7 && log.segment_count() <= 3, "{segments}, now {}", log.segment_count());
        assert_eq!(log.cleaned_offset(), 56, "up to the active segment");
        let keys = keys_of(&read_all(&log).await);
        let mut expected: Vec<_> = (0..7).map(|n| (n, format!("first-{n}"))).collect();
        expected.extend([(53, 1), (54, 2), (55, 0)].map(|(offset, n)| (offset, format!("between-{n}"))));
        expected.push((56, "last".to_owned()));
        assert_eq!(keys, expected);
        for from in 0..57 {
            let found = log.read(from, 1, i64::MAX, true).await.unwrap();
            let next = expected.iter().map(|(offset, _)| *offset).find(|offset| *offset >= from);
            assert_eq!(Some(found.first_offset), next, "from {from}");
            // What may not be read yet is not passed over.
            let upper = log.read(from, 5000, from, true).await.unwrap();
            assert_eq!((upper.bytes, upper.next_offset), (0, from));
            let tight = log.read(from, 1, i64::MAX, false).await.unwrap();
            assert_eq!((tight.bytes, tight.next_offset), (0, from));
        }
        store.close().await.unwrap();
        let files = dump(&disk).await;
        assert_eq!(check(&files).findings, []);
        let offline = OfflineStore::open(&files, Path::new(DIR)).unwrap();
        let seen = offline.log("a").unwrap();
        let views = seen.segments.iter().flat_map(|segment| segment.batches(&files));
        let batches: Vec<Batch> = views.map(|view| view.unwrap().batch).collect();
        assert_eq!(keys_of(&batches), expected);
    });
}

#[test]
fn damage_ends_the_cleaning_of_its_log_and_costs_nothing_else() {
    let world = world(22);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config()).await;
        let log = store.create_log("a", LogConfig { compaction: None, ..compacted() }).await.unwrap();
        let other = store.create_log("b", compacted()).await.unwrap();
        append(&store, &log, (0..40).map(|n| format!("{}", n % 3))).await;
        append(&store, &other, (0..40).map(|n| format!("{}", n % 3))).await;
        store.checkpoint().await.unwrap();
        let path = Path::new(DIR).join("logs/a/00000000000000000007.log");
        let file = disk.open(&path).await.unwrap();
        let mut block = file.read_at(BLOCK as u64, BLOCK).await.unwrap();
        block[500] ^= 1;
        file.write_at(block.freeze(), BLOCK as u64).await.unwrap();
        let segments = log.segment_count();
        log.set_config(compacted());
        settle(&store, &disk, &mut 1000).await;
        let reason = log.uncleanable().unwrap();
        assert!(reason.contains("segment 7, position 4096: a batch is damaged"), "{reason}");
        assert_eq!((log.segment_count(), log.cleaned_offset()), (segments, 0));
        let mut served = 0;
        while served < 7 {
            let found = log.read(served, 1 << 20, 7, true).await.unwrap();
            assert!(found.next_offset > served, "what is sound is served");
            served = found.next_offset;
        }
        assert_eq!(keys_of(&read_all(&other).await).len() as i64, 3 + 40 - other.cleaned_offset());
        assert_eq!(store.stats().cleaner_uncleanable_logs, 1);
        append(&store, &log, ["more".to_owned()]).await;
        store.close().await.unwrap();
    });
}

#[test]
fn a_log_may_go_or_the_store_close_while_it_is_cleaned() {
    for seed in 0..60 {
        let world = world(seed);
        let (disk, inner) = (world.disk(), world.clone());
        world.block_on(async move {
            let (store, _) = open(disk.clone(), config()).await;
            let log = store.create_log("a", compacted()).await.unwrap();
            append(&store, &log, (0..40).map(|n| format!("{}", n % 3))).await;
            store.tick(2000).await;
            disk.sleep(Duration::from_millis(inner.random(60))).await;
            if seed % 2 == 0 {
                store.remove_log("a").await.unwrap();
                let log = store.create_log("a", compacted()).await.unwrap();
                append(&store, &log, ["new".to_owned()]).await;
                assert_eq!(keys_of(&read_all(&log).await), [(0, "new".to_owned())], "seed {seed}");
            }
            store.close().await.unwrap();
        });
        let world = world.crash(Crash::Kill);
        let disk = world.disk();
        world.block_on(async move {
            assert_eq!(check(&dump(&disk).await).findings, [], "seed {seed}");
            let (store, report) = open(disk.clone(), config()).await;
            assert_eq!(report.frames_replayed, 0);
            let log = store.log("a").unwrap();
            let names = disk.list(&Path::new(DIR).join("logs/a")).await.unwrap();
            let segments = names.iter().filter(|entry| entry.name.ends_with(".log")).count();
            assert_eq!(segments, log.segment_count(), "seed {seed}: {names:?}");
            let keys: Vec<_> = keys_of(&read_all(&log).await).into_iter().rev().map(|(_, key)| key).collect();
            let newest = if seed % 2 == 0 { &["new"][..] } else { &["0", "2", "1"][..] };
            assert_eq!(keys[..newest.len()], *newest, "seed {seed}");
        });
    }
}

/// A record without a value.
fn tombstone(key: &str) -> Batch {
    let mut builder = BatchBuilder::new();
    let record = NewRecord { timestamp: 1000, key: Some(key.as_bytes()), value: None, headers: &[] };
    builder.append(&record).unwrap();
    builder.finish().unwrap()
}

/// Its time is counted from its first cleaning, however old the record is: who reads slowly learns of the deletion.
#[test]
fn a_tombstone_stays_until_its_horizon_which_its_first_cleaning_sets() {
    let world = world(23);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config()).await;
        let keeps =
            Compaction { min_dirty_millionths: 0, delete_retention_ms: 100_000, ..Compaction::default() };
        let log_config = LogConfig { compaction: Some(keeps), ..compacted() };
        let log = store.create_log("a", log_config.clone()).await.unwrap();
        append(&store, &log, ["gone".to_owned()]).await;
        let appended = log.append(vec![tombstone("gone")], client(1000)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        append(&store, &log, (0..20).map(|n| n.to_string())).await;
        let has = async |log: &Log<SimDisk>| {
            let keys = keys_of(&read_all(log).await);
            keys.into_iter().filter(|(_, key)| key == "gone").map(|(offset, _)| offset).collect::<Vec<_>>()
        };
        // All records are far older than the time that tombstones stay.
        let mut now_ms = 1_000_000;
        settle(&store, &disk, &mut now_ms).await;
        assert!(log.cleaned_offset() > 10);
        assert_eq!(has(&log).await, [1], "the value is gone, the tombstone stays");
        // Another cleaning, and a start, change nothing of that.
        append(&store, &log, (0..20).map(|n| n.to_string())).await;
        settle(&store, &disk, &mut now_ms).await;
        assert!(log.cleaned_offset() > 30);
        store.close().await.unwrap();
        let (store, _) = open(disk.clone(), config()).await;
        let log = store.log("a").unwrap();
        log.set_config(log_config);
        assert!(now_ms < 1_090_000);
        now_ms = 1_099_000;
        settle(&store, &disk, &mut now_ms).await;
        assert!(now_ms < 1_100_000);
        assert_eq!(has(&log).await, [1]);
        // Nothing was written: the horizon alone makes the log due.
        now_ms = 1_105_000;
        settle(&store, &disk, &mut now_ms).await;
        assert_eq!(has(&log).await, [] as [i64; 0]);
        store.close().await.unwrap();
    });
}

/// Beside a client who never stops, the cleaner reads and writes at most two pieces for each commit: one that waited for
/// it, and one that began before the next.
#[test]
fn commits_go_before_pieces_of_the_cleaner() {
    let world = world(31);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) =
            open(disk.clone(), StoreConfig { unsettled_bytes_max: 1 << 20, journal_files: 12, ..config() })
                .await;
        let not_yet = LogConfig { compaction: None, ..compacted() };
        let dirty = store.create_log("dirty", not_yet).await.unwrap();
        let mut others = Vec::new();
        for n in 0..8 {
            others.push(store.create_log(&format!("other{n}"), LogConfig::default()).await.unwrap());
        }
        append(&store, &dirty, (0..400).map(|n| format!("{}", n % 300))).await;
        dirty.set_config(compacted());
        let (mut commits, mut now_ms) = (0, 2000);
        while dirty.cleaned_offset() < 390 {
            now_ms += 10;
            store.tick(now_ms).await;
            // They go straight to their segments, which takes many operations.
            let mut last = None;
            for other in &others {
                last = Some(other.append(vec![batch(1, 40_000, commits, 1)], client(1000)).unwrap());
            }
            others[0].durable(last.unwrap().ticket).await.unwrap();
            commits += 1;
            assert!(commits < 10_000, "cleaned up to {}", dirty.cleaned_offset());
        }
        let stats = store.stats();
        let moved = stats.cleaner_read_bytes + stats.cleaner_written_bytes;
        assert!(moved > 600 << 10, "{moved}: 400 KiB are read twice, 300 written");
        assert!(
            moved <= (commits + 4) * 2 * config().cleaner.io_bytes as u64,
            "{moved} bytes beside {commits} commits"
        );
        store.close().await.unwrap();
    });
}
