//! Cleaning by key where something goes wrong: damage that no crc covers, a disk that fails or is full, and what other
//! changes of the log leave of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use penstock_format::{BatchBuilder, EndTransactionMarker, NewRecord};

use super::clean::{append, compacted, config, keyed, keys_of, settle};
use super::offline::check;
use super::*;
use crate::checkpoint::{self, tests::as_version_1};
use crate::checkpoint_file::{checkpoint_path, copy_path};
use crate::disk::sim::{Crash, Effect, Fault, Operation};
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskFile};

/// Records of three keys in turn.
fn threes(count: u64) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("{}", n % 3))
}

async fn flip(disk: &SimDisk, path: &Path, at: u64, bit: u8) {
    let file = disk.open(path).await.unwrap();
    let from = at / BLOCK as u64 * BLOCK as u64;
    let mut block = AlignedBuf::zeroed(BLOCK);
    block.copy_from_slice(&file.read_at(from, BLOCK).await.unwrap());
    block[(at - from) as usize] ^= 1 << bit;
    file.write_at(block.freeze(), from).await.unwrap();
}

/// Ticks for a while: who waits for room tries for ever.
async fn ticks(store: &Store<SimDisk>, disk: &SimDisk, now_ms: &mut i64) {
    for _ in 0..200 {
        *now_ms += 10;
        store.tick(*now_ms).await;
        disk.sleep(Duration::from_millis(20)).await;
    }
}

/// Names of the log's segment files.
async fn segment_files(disk: &SimDisk, log: &str) -> BTreeSet<String> {
    let entries = disk.list(&Path::new(DIR).join("logs").join(log)).await.unwrap();
    entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(".log")).collect()
}

/// A store of which a log has seven batches of a kilobyte in each segment, closed; as files.
fn seven_each() -> BTreeMap<std::path::PathBuf, Bytes> {
    let world = world(61);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, config()).await;
        let log = store.create_log("a", LogConfig { compaction: None, ..compacted() }).await.unwrap();
        append(&store, &log, threes(40)).await;
        store.close().await.unwrap();
    });
    world.files()
}

#[test]
fn no_header_with_a_flipped_bit_is_believed() {
    let files = seven_each();
    let path = Path::new(DIR).join("logs/a/00000000000000000007.log");
    let len = keyed("0", 1000).len() as u64;
    // The first of a segment, one between, and the last.
    for (batch, offset) in [(0, 7), (3, 10), (6, 13)] {
        let bits = if batch == 3 { 61 * 8 } else { 21 * 8 };
        for bit in 0..bits {
            let world = SimWorld::with_files(bit, &files);
            let (disk, path) = (world.disk(), path.clone());
            world.block_on(async move {
                let (store, _) = open(disk.clone(), config()).await;
                let log = store.log("a").unwrap();
                let segments = log.segment_count();
                let at = BLOCK as u64 + batch * len;
                flip(&disk, &path, at + bit / 8, (bit % 8) as u8).await;
                log.set_config(compacted());
                settle(&store, &disk, &mut 1000).await;
                let reason =
                    log.uncleanable().unwrap_or_else(|| panic!("bit {bit} of batch {offset} is believed"));
                assert!(reason.contains("segment 7, position "), "bit {bit}: {reason}");
                assert_eq!((log.segment_count(), log.cleaned_offset()), (segments, 0), "bit {bit}");
                assert!(store.stats().cleaner_read_bytes < 64 << 10, "bit {bit}: {:?}", store.stats());
                flip(&disk, &path, at + bit / 8, (bit % 8) as u8).await;
                assert_eq!(keys_of(&read_all(&log).await).len(), 40, "nothing was dropped");
            });
        }
    }
}

#[test]
fn a_wrong_length_is_told_without_reading_all_that_it_claims() {
    let world = world(62);
    let disk = world.disk();
    world.block_on(async move {
        let config = StoreConfig { segment_bytes_max: 4 << 20, ..config() };
        let (store, _) = open(disk.clone(), config).await;
        let log_config = LogConfig { segment_bytes: 3 << 20, ..compacted() };
        let log = store.create_log("a", LogConfig { compaction: None, ..log_config.clone() }).await.unwrap();
        append(&store, &log, threes(3200)).await;
        store.checkpoint().await.unwrap();
        assert_eq!(log.segment_count(), 2);
        // Two megabytes more, within the segment.
        flip(&disk, &Path::new(DIR).join("logs/a/00000000000000000000.log"), BLOCK as u64 + 9, 5).await;
        log.set_config(log_config);
        settle(&store, &disk, &mut 1000).await;
        let reason = log.uncleanable().unwrap();
        assert!(reason.contains("segment 0, position 4096"), "{reason}");
        assert!(store.stats().cleaner_read_bytes < 128 << 10, "{:?}", store.stats());
    });
}

#[test]
fn a_damaged_header_of_a_cleaned_segment_that_begins_with_a_gap_is_read_past() {
    let world = world(63);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config()).await;
        let log = store.create_log("a", compacted()).await.unwrap();
        append(&store, &log, threes(40)).await;
        settle(&store, &disk, &mut 1000).await;
        let keys = keys_of(&read_all(&log).await);
        assert!(keys.first().is_some_and(|(offset, _)| *offset > 0), "{keys:?}");
        store.close().await.unwrap();
        let names = segment_files(&disk, "a").await;
        let cleaned = names.iter().find(|name| name.contains('-')).unwrap();
        flip(&disk, &Path::new(DIR).join("logs/a").join(cleaned), 24, 0).await;
        let (store, _) = open(disk.clone(), config()).await;
        assert_eq!(keys_of(&read_all(&store.log("a").unwrap()).await), keys);
        store.close().await.unwrap();
    });
}

#[test]
fn what_cleaning_left_without_records_goes_with_its_age() {
    let world = world(64);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config()).await;
        let log = store.create_log("a", compacted()).await.unwrap();
        let mut builder = BatchBuilder::new().producer(9, 0, 0);
        let value = vec![7; 7000];
        let record = NewRecord { timestamp: 1000, key: Some(b"0"), value: Some(&value), headers: &[] };
        builder.append(&record).unwrap();
        let room = store.reserve(8000).await.unwrap();
        let first = log.append(vec![builder.finish().unwrap()], client(1000)).unwrap();
        drop(room);
        log.durable(first.ticket).await.unwrap();
        // The next segments hold unique keys, so that each stays alone.
        append(&store, &log, (10..40).map(|n| n.to_string()).chain(["0".to_owned()])).await;
        append(&store, &log, (50..60).map(|n| n.to_string())).await;
        let mut now_ms = 2000;
        settle(&store, &disk, &mut now_ms).await;
        let batches = read_all(&log).await;
        assert_eq!((batches[0].header.base_offset, batches[0].header.record_count), (0, 0));
        assert!(log.segment_count() > 3);
        log.set_config(LogConfig { retention_ms: 1000, ..compacted() });
        store.tick(1_000_000).await;
        assert_eq!(log.log_start_offset(), log.log_end_offset());
    });
}

/// Room for what a log has and a few segments besides.
#[test]
fn old_files_make_room_for_new_ones_while_the_round_goes_on() {
    let world = world(65);
    let (disk, inner) = (world.disk(), world.clone());
    world.block_on(async move {
        let config = StoreConfig { reserve_bytes: Some(16 << 10), ..config() };
        let (store, _) = open(disk.clone(), config).await;
        let log = store.create_log("a", LogConfig { compaction: None, ..compacted() }).await.unwrap();
        append(&store, &log, (0..250).map(|n| n.to_string())).await;
        append(&store, &log, threes(7)).await;
        store.checkpoint().await.unwrap();
        settle(&store, &disk, &mut 1000).await;
        let (segments, size) = (log.segment_count(), log.size_bytes());
        assert!(segments > 30);
        inner.set_capacity(inner.used_bytes() + 100 * 1024);
        log.set_config(compacted());
        let mut now_ms = 5000;
        settle(&store, &disk, &mut now_ms).await;
        assert!(log.cleaned_offset() >= 250, "{} of {size} bytes", log.cleaned_offset());
        assert_eq!((log.uncleanable(), store.stats().disk_full), (None, false));
        let keys: BTreeSet<_> = keys_of(&read_all(&log).await).into_iter().map(|(_, key)| key).collect();
        assert_eq!(keys.len(), 250);
        store.close().await.unwrap();
    });
}

#[test]
fn a_disk_without_room_holds_up_cleaning_and_no_append() {
    let world = world(66);
    let (disk, inner) = (world.disk(), world.clone());
    world.block_on(async move {
        let config = StoreConfig { reserve_bytes: Some(16 << 10), recycle_bytes_max: 0, ..config() };
        let (store, _) = open(disk.clone(), config).await;
        let log = store.create_log("a", LogConfig { compaction: None, ..compacted() }).await.unwrap();
        append(&store, &log, threes(100)).await;
        store.checkpoint().await.unwrap();
        // Six kilobytes beyond what is kept back, where a segment has seven.
        let mut capacity = inner.used_bytes() + (1 << 20);
        for _ in 0..4 {
            inner.set_capacity(capacity);
            store.tick(1000).await;
            let stats = store.stats();
            capacity = capacity + stats.reserve_bytes + (6 << 10) - stats.free_bytes;
        }
        log.set_config(compacted());
        let mut now_ms = 5000;
        ticks(&store, &disk, &mut now_ms).await;
        assert_eq!((log.cleaned_offset(), log.uncleanable(), store.stats().disk_full), (0, None, false));
        append(&store, &log, ["more".to_owned()]).await;
        inner.set_capacity(u64::MAX >> 4);
        // It is tried again, however often it failed.
        ticks(&store, &disk, &mut now_ms).await;
        assert!(log.cleaned_offset() > 90, "{}", log.cleaned_offset());
        store.close().await.unwrap();
    });
}

#[test]
fn a_log_that_cannot_go_on_keeps_no_other_waiting_and_is_tried_again() {
    for error in [libc::ENOSPC, libc::EMFILE, libc::EIO] {
        let world = world(67);
        let (disk, inner) = (world.disk(), world.clone());
        world.block_on(async move {
            let (store, _) = open(disk.clone(), config()).await;
            let first = store.create_log("a", compacted()).await.unwrap();
            let other = store.create_log("b", compacted()).await.unwrap();
            // The first is dirtier, for there is more of it in closed segments.
            append(&store, &first, (100..107).map(|n| n.to_string()).chain(threes(60))).await;
            append(&store, &other, threes(40)).await;
            let path_contains = "logs/a/00000000000000000000-".to_owned();
            let fails = Effect::Fail(error);
            for operation in [Operation::Name, Operation::Write] {
                let (path_contains, skip) = (path_contains.clone(), 0);
                inner.inject(Fault { operation, path_contains, skip, times: 1000, effect: fails });
            }
            let mut now_ms = 5000;
            ticks(&store, &disk, &mut now_ms).await;
            assert!(inner.faults_left() < 2000, "it was tried");
            assert_eq!((first.cleaned_offset(), first.uncleanable(), first.offline()), (0, None, None));
            assert!(other.cleaned_offset() > 30, "{}", other.cleaned_offset());
            inner.clear_faults();
            // A disk that failed so often is tried once a day.
            now_ms += if error == libc::EIO { 24 * 3_600_000 } else { 0 };
            ticks(&store, &disk, &mut now_ms).await;
            assert!(first.cleaned_offset() > 50, "error {error}: {}", first.cleaned_offset());
            store.close().await.unwrap();
        });
    }
}

#[test]
fn an_old_file_that_cannot_be_opened_for_a_while_is_cleaned_later() {
    let world = world(68);
    let (disk, inner) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config()).await;
        let log = store.create_log("a", LogConfig { compaction: None, ..compacted() }).await.unwrap();
        append(&store, &log, threes(60)).await;
        store.checkpoint().await.unwrap();
        let path_contains = "logs/a/0".to_owned();
        let effect = Effect::Fail(libc::EMFILE);
        inner.inject(Fault { operation: Operation::Name, path_contains, skip: 0, times: 3, effect });
        log.set_config(compacted());
        let mut now_ms = 5000;
        ticks(&store, &disk, &mut now_ms).await;
        assert_eq!((inner.faults_left(), log.uncleanable()), (0, None));
        assert!(log.cleaned_offset() > 50);
        store.close().await.unwrap();
    });
}

#[test]
fn truncation_leaves_none_of_the_files_that_cleaning_replaced() {
    let world = world(69);
    let disk = world.disk();
    world.block_on(async move {
        // No checkpoint lets go of them before.
        let (store, _) = open(disk.clone(), StoreConfig { checkpoint_bytes: 1 << 30, ..config() }).await;
        let log = store.create_log("a", compacted()).await.unwrap();
        append(&store, &log, threes(60)).await;
        store.tick(5000).await;
        while log.cleaned_offset() == 0 {
            disk.sleep(Duration::from_millis(1)).await;
        }
        assert!(segment_files(&disk, "a").await.len() > log.segment_count(), "old ones are there still");
        log.truncate(20).await.unwrap();
        store.checkpoint().await.unwrap();
        store.tick(5001).await;
        let names = segment_files(&disk, "a").await;
        assert_eq!(names.len(), log.segment_count(), "{names:?}");
        append(&store, &log, threes(30)).await;
        let found = keys_of(&read_all(&log).await);
        store.close().await.unwrap();
        let (store, _) = open(disk.clone(), config()).await;
        assert_eq!(keys_of(&read_all(&store.log("a").unwrap()).await), found);
        store.close().await.unwrap();
    });
}

#[test]
fn a_store_of_version_1_is_opened_cleaned_and_crashed() {
    let mut files = seven_each();
    for path in [checkpoint_path(Path::new(DIR)), copy_path(Path::new(DIR))] {
        let found = checkpoint::decode(&files[&path]).unwrap();
        files.insert(path, as_version_1(&found).into());
    }
    let (mut before, mut after) = (0, 0);
    for seed in 0..150 {
        let world = SimWorld::with_files(seed, &files);
        let (disk, inner) = (world.disk(), world.clone());
        world.spawn(async move {
            let (store, _) = open(disk.clone(), config()).await;
            let log = store.log("a").unwrap();
            log.set_config(compacted());
            let mut now_ms = 1000;
            settle(&store, &disk, &mut now_ms).await;
            assert!(log.cleaned_offset() > 30 || inner.steps() == 0);
        });
        world.run_until(100 + seed * 15);
        let world = world.crash(if seed % 2 == 0 { Crash::Kill } else { Crash::PowerLoss });
        let disk = world.disk();
        let cleaned = world.block_on(async move {
            let (store, report) = open(disk.clone(), config()).await;
            assert_eq!(report.offline, vec![], "seed {seed}");
            let log = store.log("a").unwrap();
            let keys = keys_of(&read_all(&log).await);
            let newest: Vec<_> = keys.iter().rev().take(3).cloned().collect();
            let expected = [(39, "0"), (38, "2"), (37, "1")].map(|(at, key)| (at, key.to_owned()));
            assert_eq!(newest, expected, "seed {seed}");
            let cleaned = log.cleaned_offset();
            assert!(keys.len() == 40 || cleaned > 0 || keys.len() > 3, "seed {seed}: {keys:?}");
            assert_eq!(segment_files(&disk, "a").await.len(), log.segment_count(), "seed {seed}");
            store.close().await.unwrap();
            assert_eq!(check(&super::offline::dump(&disk).await).findings, [], "seed {seed}");
            cleaned
        });
        if cleaned > 0 {
            after += 1;
        } else {
            before += 1;
        }
    }
    assert!(before > 10 && after > 10, "{before} went back, {after} did not");
}

/// A block of a cleaned segment that cannot be read: each try would write all segments before it anew.
#[test]
fn a_log_with_a_bad_block_in_its_clean_part_is_not_written_anew_for_ever() {
    let world = world(70);
    let (disk, inner) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config()).await;
        let log = store.create_log("a", compacted()).await.unwrap();
        append(&store, &log, (0..40).map(|n| n.to_string())).await;
        let mut now_ms = 1000;
        settle(&store, &disk, &mut now_ms).await;
        let path_contains = "logs/a/00000000000000000014-".to_owned();
        let (operation, effect) = (Operation::Read, Effect::Fail(libc::EIO));
        inner.inject(Fault { operation, path_contains, skip: 0, times: u64::MAX, effect });
        append(&store, &log, threes(20)).await;
        let before = log.cleaned_offset();
        for _ in 0..2 {
            ticks(&store, &disk, &mut now_ms).await;
        }
        let written = store.stats().cleaner_written_bytes;
        for _ in 0..3 {
            ticks(&store, &disk, &mut now_ms).await;
        }
        assert_eq!(store.stats().cleaner_written_bytes, written);
        assert_eq!((log.cleaned_offset(), log.offline()), (before, None));
        assert_eq!(store.stats().cleaner_uncleanable_logs, 1);
        // A day later it is tried again.
        inner.clear_faults();
        now_ms += 24 * 3_600_000;
        settle(&store, &disk, &mut now_ms).await;
        assert!(log.cleaned_offset() > before);
        assert_eq!(store.stats().cleaner_uncleanable_logs, 0);
        store.close().await.unwrap();
    });
}

/// A batch of one record of a transaction.
fn of_transaction(sequence: i32) -> Batch {
    let mut builder = BatchBuilder::new().transactional(true).producer(9, 0, sequence);
    let (key, value) = (format!("{}", sequence % 3), vec![7; 1000]);
    let (key, value) = (Some(key.as_bytes()), Some(&value[..]));
    builder.append(&NewRecord { timestamp: 1000, key, value, headers: &[] }).unwrap();
    builder.finish().unwrap()
}

#[test]
fn a_block_that_the_cleaner_cannot_read_takes_no_log_offline() {
    let mut struck = 0;
    for skip in 0..30 {
        let world = world(71);
        let (disk, inner) = (world.disk(), world.clone());
        struck += world.block_on(async move {
            let (store, _) = open(disk.clone(), StoreConfig { cache_bytes_max: 4 << 10, ..config() }).await;
            let log = store.create_log("a", LogConfig { compaction: None, ..compacted() }).await.unwrap();
            for sequence in 0..30 {
                let appended = log.append(vec![of_transaction(sequence)], client(1000)).unwrap();
                log.durable(appended.ticket).await.unwrap();
            }
            let marker = EndTransactionMarker {
                producer_id: 9,
                producer_epoch: 0,
                coordinator_epoch: 1,
                committed: true,
                timestamp: 1000,
            };
            let context = AppendContext { origin: Origin::Coordinator, ..client(1000) };
            let ended = log.append(vec![marker.to_batch().unwrap()], context).unwrap();
            log.durable(ended.ticket).await.unwrap();
            append(&store, &log, threes(10)).await;
            store.checkpoint().await.unwrap();
            store.tick(1000).await;
            let (operation, effect) = (Operation::Read, Effect::Fail(libc::EIO));
            inner.inject(Fault { operation, path_contains: "logs/a/".into(), skip, times: 1, effect });
            log.set_config(compacted());
            let mut now_ms = 5000;
            ticks(&store, &disk, &mut now_ms).await;
            assert_eq!((log.offline(), log.uncleanable()), (None, None), "read {skip}");
            assert!(log.cleaned_offset() > 25, "read {skip}: {}", log.cleaned_offset());
            store.close().await.unwrap();
            usize::from(inner.faults_left() == 0)
        });
    }
    assert!(struck > 10, "{struck}");
}

#[test]
fn the_newest_record_of_a_cleaned_segment_that_is_cut_is_no_batch_without_records() {
    let world = world(72);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config()).await;
        let log = store.create_log("a", compacted()).await.unwrap();
        let mut builder = BatchBuilder::new().producer(9, 0, 0);
        builder
            .append(&NewRecord { timestamp: 9000, key: Some(b"0"), value: Some(b"old"), headers: &[] })
            .unwrap();
        let first = log.append(vec![builder.finish().unwrap()], client(1000)).unwrap();
        log.durable(first.ticket).await.unwrap();
        append(&store, &log, (1..7).map(|n| n.to_string())).await;
        append(&store, &log, (0..30).map(|n| (n % 9 + 10).to_string()).chain(["0".to_owned()])).await;
        append(&store, &log, (50..60).map(|n| n.to_string())).await;
        settle(&store, &disk, &mut 2000).await;
        let batches = read_all(&log).await;
        assert_eq!((batches[0].header.record_count, batches[0].header.max_timestamp), (0, 9000));
        assert_eq!(log.truncate(4).await.unwrap(), 4);
        let open = async |search: crate::BatchSearch| search.run(1 << 20);
        let newest = log.max_timestamp(open).await.unwrap();
        assert_eq!(newest.map(|newest| (newest.offset, newest.timestamp)), Some((1, 1000)));
        store.close().await.unwrap();
    });
}

/// A key map too small ends a round in the middle of a segment.
#[test]
fn a_segment_cleaned_in_part_that_may_not_be_cleaned_now_is_not_written_anew() {
    let world = world(73);
    let disk = world.disk();
    world.block_on(async move {
        let cleaner = crate::CleanerConfig { map_bytes_max: 24 * 12, ..config().cleaner };
        let (store, _) = open(disk.clone(), StoreConfig { cleaner, ..config() }).await;
        let rules = crate::Compaction {
            min_dirty_millionths: 600_000,
            delete_retention_ms: 100_000,
            ..crate::Compaction::default()
        };
        let log_config = LogConfig { compaction: Some(rules), ..compacted() };
        let log = store.create_log("a", log_config.clone()).await.unwrap();
        let mut builder = BatchBuilder::new();
        builder
            .append(&NewRecord { timestamp: 1000, key: Some(b"gone"), value: None, headers: &[] })
            .unwrap();
        let gone = log.append(vec![builder.finish().unwrap()], client(1000)).unwrap();
        log.durable(gone.ticket).await.unwrap();
        append(&store, &log, (0..15).map(|n| n.to_string())).await;
        let mut now_ms = 10_000;
        settle(&store, &disk, &mut now_ms).await;
        let cleaned_to = log.cleaned_offset();
        assert!((8..14).contains(&cleaned_to), "{cleaned_to}");
        let before = segment_files(&disk, "a").await;
        // From now on all is too young, and a day later the tombstone in the clean segment may go.
        let young = crate::Compaction { min_lag_ms: 1 << 40, ..rules };
        log.set_config(LogConfig { compaction: Some(young), ..log_config });
        now_ms += 200_000;
        settle(&store, &disk, &mut now_ms).await;
        let keys = keys_of(&read_all(&log).await);
        assert_eq!((keys.len(), log.cleaned_offset()), (15, cleaned_to), "the tombstone went");
        let after = segment_files(&disk, "a").await;
        let of_second =
            |names: &BTreeSet<String>| names.iter().filter(|name| name.contains("0008")).cloned().collect();
        let names: [Vec<String>; 2] = [of_second(&before), of_second(&after)];
        assert!(names[0] == names[1] && names[0].len() == 1, "{before:?}, then {after:?}");
        store.close().await.unwrap();
    });
}
