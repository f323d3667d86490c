//! Finding records by offset, time and epoch, from memory and from disk, with and without an index.

use std::cell::Cell;

use penstock_format::{BatchBuilder, Compression, DECOMPRESSED_BYTES_MAX, NewRecord, recompress};

use super::*;
use crate::disk::Disk;
use crate::disk::sim::Operation;
use crate::writeback::STALE_ENTRIES_MAX;
use crate::{BatchSearch, ReadError, TimestampOffset};

fn records(timestamps: &[i64]) -> Batch {
    let mut builder = BatchBuilder::new();
    for &timestamp in timestamps {
        builder.append(&NewRecord { timestamp, value: Some(&[1; 900]), ..NewRecord::default() }).unwrap();
    }
    builder.finish().unwrap()
}

async fn open_here(search: BatchSearch) -> Option<TimestampOffset> {
    search.run(DECOMPRESSED_BYTES_MAX)
}

#[test]
fn a_batch_is_opened_once_however_its_times_grow() {
    let world = world(14);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let times: Vec<i64> = (0..2000).collect();
        for n in 0..5 {
            let grown: Vec<i64> = times.iter().map(|time| time - 2 * n).collect();
            let packed = recompress(&records(&grown), Compression::Zstd, None, usize::MAX).unwrap();
            let appended = log.append(vec![packed], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
        }
        // The newest record is gone with the first batch; what is left of the second is younger than the third.
        assert_eq!(log.delete_records(2500).await, Ok(2500));
        let opened = Cell::new(0);
        let count = async |search: BatchSearch| {
            opened.set(opened.get() + 1);
            search.run(DECOMPRESSED_BYTES_MAX)
        };
        let newest = log.max_timestamp(count).await.unwrap().unwrap();
        assert_eq!((newest.offset, newest.timestamp), (3999, 1997));
        assert_eq!(opened.replace(0), 1);
        // Now the start cuts the third batch behind its newest record but one.
        assert_eq!(log.delete_records(5999).await, Ok(5999));
        let newest = log.max_timestamp(count).await.unwrap().unwrap();
        assert_eq!((newest.offset, newest.timestamp), (5999, 1995));
        assert_eq!(opened.replace(0), 1);
        let first = log.offset_for_time(1992, count).await.unwrap().unwrap();
        assert_eq!((first.offset, first.timestamp), (5999, 1995));
        assert_eq!(opened.get(), 1);
        // What cannot be opened within the bound answers with its first offset.
        let barely =
            log.offset_for_time(1992, async |search: BatchSearch| search.run(1)).await.unwrap().unwrap();
        assert_eq!((barely.offset, barely.timestamp), (5999, 1995));
        store.close().await.unwrap();
    });
}

#[test]
fn records_are_found_by_time_before_and_after_reopening() {
    let world = world(8);
    let disk = world.disk();
    world.block_on(async move {
        let (mut store, _) = open(disk.clone(), small()).await;
        let mut log = store.create_log("a-0", log_config()).await.unwrap();
        for n in 0..400_i64 {
            let _room = store.reserve(3000).await.unwrap();
            let timestamps = [10 * n, 10 * n + 7, 10 * n + 3];
            let appended = log.append(vec![records(&timestamps)], client(0)).unwrap();
            if n % 20 == 0 {
                log.durable(appended.ticket).await.unwrap();
            }
        }
        for _ in 0..2 {
            let find = async |timestamp| {
                let found = log.offset_for_time(timestamp, open_here).await.unwrap();
                found.map(|found| (found.offset, found.timestamp, found.leader_epoch))
            };
            assert_eq!(find(0).await, Some((0, 0, 3)));
            assert_eq!(find(1004).await, Some((301, 1007, 3)));
            assert_eq!(find(1008).await, Some((303, 1010, 3)));
            assert_eq!(find(3997).await, Some((1198, 3997, 3)));
            assert_eq!(find(3998).await, None);
            let newest = log.max_timestamp(open_here).await.unwrap().unwrap();
            assert_eq!((newest.offset, newest.timestamp), (1198, 3997));
            let found = log.read(601, 1, i64::MAX, true).await.unwrap();
            assert_eq!((found.first_offset, found.next_offset), (600, 603));
            assert_eq!(log.read(601, 1, i64::MAX, false).await.unwrap().bytes, 0);
            assert_eq!(log.read(600, 1 << 20, 605, true).await.unwrap().next_offset, 603);
            assert_eq!(log.epoch_end_offset(3), Some((3, 1200)));
            assert_eq!(log.epoch_at(17), Some(3));
            store.close().await.unwrap();
            (store, _) = open(disk.clone(), small()).await;
            log = store.log("a-0").unwrap();
        }
        store.close().await.unwrap();
    });
}

#[test]
fn what_remembers_batches_in_memory_is_bounded_by_them() {
    let world = world(15);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, StoreConfig { cache_bytes_max: 1 << 30, ..small() }).await;
        let kept = LogConfig { retention_bytes: 64 << 10, segment_bytes: 32 << 10, ..log_config() };
        let log = store.create_log("a-0", kept).await.unwrap();
        let gone = store.create_log("b-0", log_config()).await.unwrap();
        let in_memory = log.store.clone();
        let check = move || {
            let (entries, batches) = (in_memory.cached.borrow().len(), in_memory.levels.cached_batches.get());
            assert!(entries >= batches && entries <= 2 * batches + STALE_ENTRIES_MAX, "{entries}, {batches}");
        };
        let weak = std::rc::Rc::downgrade(&gone.inner);
        for n in 0..2000 {
            let _room = store.reserve(1000).await.unwrap();
            let appended = log.append(vec![batch(1, 1000, n, 5)], client(0)).unwrap();
            if n == 500 {
                for _ in 0..100 {
                    gone.append(vec![batch(1, 500, n, 5)], client(0)).unwrap();
                }
            }
            if n % 20 == 0 {
                log.durable(appended.ticket).await.unwrap();
                store.tick(0).await;
                check();
            }
            match n {
                700 => assert_eq!(gone.truncate(1).await, Ok(1)),
                1000 => store.remove_log("b-0").await.unwrap(),
                1500 => assert_eq!(log.delete_records(1490).await, Ok(1490)),
                _ => {}
            }
        }
        drop(gone);
        assert_eq!(weak.strong_count(), 0, "nothing holds a removed log");
        assert_eq!(read_all(&log).await.last().map(|last| last.header.base_offset), Some(1999));
        store.close().await.unwrap();
    });
}

#[test]
fn damage_on_disk_is_told_and_never_served() {
    let world = world(9);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        for n in 0..3 {
            let appended = log.append(vec![batch(1, 9000, n, 5)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
        }
        store.close().await.unwrap();
        let path = Path::new(DIR).join("logs/a-0/00000000000000000000.log");
        let mut bytes = disk.read_small(&path, 1 << 20).await.unwrap();
        bytes[4096 + 9000 + 500] ^= 1;
        disk.write_small(&path, bytes.into()).await.unwrap();
        let (store, report) = open(disk, small()).await;
        assert_eq!(report.offline, []);
        let log = store.log("a-0").unwrap();
        let found = log.read(0, 1, i64::MAX, true).await.unwrap();
        assert_eq!(found.next_offset, 1);
        let corrupt = ReadError::Corrupt { segment_base: 0, position: 4096 + 9000 };
        assert_eq!(log.read(1, 1, i64::MAX, true).await, Err(corrupt));
        assert_eq!(log.read(2, 1, i64::MAX, true).await.unwrap().next_offset, 3);
        store.close().await.unwrap();
    });
}

#[test]
fn producers_of_all_logs_together_are_bounded_in_memory() {
    let world = world(16);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let known =
            |store: &Store<SimDisk>| store.logs().iter().map(|log| log.producers().len()).sum::<usize>();
        let send = async |log: &Log<SimDisk>, id: i64, now_ms| {
            let mut batch = batch(1, 100, id as u64, 5);
            batch.patch_header(|header| {
                (header.producer_id, header.producer_epoch, header.base_sequence) = (id, 0, 0);
            });
            let _room = store.reserve(100).await.unwrap();
            let appended = log.append_large(batch, client(now_ms)).await.unwrap();
            log.durable(appended.ticket).await.unwrap();
            appended.duplicate
        };
        let quiet = store.create_log("quiet-0", log_config()).await.unwrap();
        for id in 0..20 {
            assert!(!send(&quiet, id, 1000).await);
        }
        for part in 0..4 {
            let flood = store.create_log(&format!("flood-{part}"), log_config()).await.unwrap();
            for id in 0..90 {
                send(&flood, 1000 * part + id, 2000 + id).await;
                assert!(known(&store) <= small().producers_max);
            }
            assert!(flood.producers().iter().any(|known| known.producer_id == 1000 * part + 89));
        }
        assert_eq!(quiet.producers().len(), 0, "they were silent for longest, and are on disk");
        assert!(send(&quiet, 7, 5000).await, "it is known still");
        assert_eq!(quiet.producers().len(), 1);
        store.remove_log("flood-3").await.unwrap();
        store.tick(5000).await;
        assert_eq!(quiet.store.levels.producers.get(), known(&store));
        store.tick(86_400_000 + 5000).await;
        assert_eq!(quiet.producers().len(), 0, "expired");
        store.close().await.unwrap();
        let (store, _) = open(disk, small()).await;
        assert_eq!(store.log("quiet-0").unwrap().store.levels.producers.get(), known(&store));
        store.close().await.unwrap();
    });
}

#[test]
fn damage_hides_nothing_before_it_and_one_reader_makes_the_index() {
    let world = world(21);
    let disk = world.disk();
    let config = StoreConfig { segment_bytes_max: 4 << 20, checkpoint_bytes: 1 << 20, ..small() };
    let counted = world.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), config.clone()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        for n in 0..100 {
            let appended = log.append(vec![batch(1, 20_000, n, 5)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
        }
        store.close().await.unwrap();
        let dir = Path::new(DIR).join("logs/a-0");
        disk.remove(&dir.join("00000000000000000000.index")).await.unwrap();
        let path = dir.join("00000000000000000000.log");
        let (store, _) = open(disk.clone(), config.clone()).await;
        let log = store.log("a-0").unwrap();
        let before = counted.count(Operation::Read);
        let reads = (0..20).map(|n| log.read(5 * n, 1, i64::MAX, true));
        for (n, found) in futures_util::future::join_all(reads).await.into_iter().enumerate() {
            assert_eq!(found.unwrap().first_offset, 5 * n as i64);
        }
        let reads = counted.count(Operation::Read) - before;
        assert!(reads <= 25, "{reads}: all 2 MB once, then one piece for each");
        store.close().await.unwrap();

        disk.remove(&dir.join("00000000000000000000.index")).await.unwrap();
        let mut bytes = disk.read_small(&path, 8 << 20).await.unwrap();
        bytes[4096 + 50 * 20_000 + 8] ^= 0x40; // The length of a batch.
        disk.write_small(&path, bytes.into()).await.unwrap();
        let (store, _) = open(disk, config).await;
        let log = store.log("a-0").unwrap();
        for _ in 0..2 {
            for from in [0, 20, 49] {
                assert_eq!(log.read(from, 1, i64::MAX, true).await.unwrap().first_offset, from);
            }
            let corrupt = ReadError::Corrupt { segment_base: 0, position: 4096 + 50 * 20_000 };
            assert_eq!(log.read(50, 1, i64::MAX, true).await, Err(corrupt.clone()));
            assert_eq!(log.read(99, 1, i64::MAX, true).await, Err(corrupt));
        }
        for n in 100..110 {
            let appended = log.append(vec![batch(1, 20_000, n, 5)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
        }
        assert_eq!(log.read(109, 1, i64::MAX, true).await.unwrap().first_offset, 109);
        store.close().await.unwrap();
    });
}

#[test]
fn segments_of_a_deletion_that_gave_up_go_at_the_next_tick() {
    let world = world(26);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        for n in 0..20 {
            let appended = log.append(vec![batch(1, 30_000, n, 5)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
        }
        let before = log.segment_count();
        {
            let mut deletion = Box::pin(log.delete_records(15));
            assert!(futures_util::FutureExt::now_or_never(deletion.as_mut()).is_none());
        }
        store.tick(0).await;
        assert_eq!(log.segment_count(), before, "the new start is not stable");
        store.checkpoint().await.unwrap();
        store.tick(0).await;
        assert!(log.segment_count() < before, "the log has no limits, and they go");
        assert_eq!(read_all(&log).await.len(), 5);
        store.close().await.unwrap();
    });
}

#[test]
fn an_index_file_does_not_outlive_a_cut() {
    let world = world(22);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        for n in 0..20 {
            log.append(vec![batch(1, 1000, n, 1000 + n as i64)], client(0)).unwrap();
        }
        store.checkpoint().await.unwrap(); // So that the segment's file is there.
        store.close().await.unwrap();
        let path = Path::new(DIR).join("logs/a-0/00000000000000000000.index");
        assert!(disk.exists(&path).await.unwrap());
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.log("a-0").unwrap();
        assert_eq!(log.truncate(5).await, Ok(5));
        assert!(!disk.exists(&path).await.unwrap());
        // As many batches of the same size, newer than those cut off: the old index would look too late for them.
        for n in 0..15 {
            let appended = log.append(vec![batch(1, 1000, n, 5000)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
        }
    });
    let world = world.crash(crate::disk::sim::Crash::PowerLoss);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, small()).await;
        let log = store.log("a-0").unwrap();
        // Bodies are no records: what cannot be read of a batch is not found, so ask for where the search begins.
        let asked = Cell::new(-1);
        let first = async |search: BatchSearch| {
            asked.set(search.batch().header.base_offset);
            Some(search.unopened())
        };
        let found = log.offset_for_time(1018, first).await.unwrap().unwrap();
        assert_eq!((found.offset, asked.get()), (5, 5));
        store.close().await.unwrap();
    });
}

#[test]
fn indexes_of_active_segments_keep_to_their_share_of_the_budget() {
    let world = world(23);
    let disk = world.disk();
    world.block_on(async move {
        let config = StoreConfig { index_bytes_max: 16 << 10, ..small() };
        let (store, _) = open(disk, config).await;
        let mut logs = Vec::new();
        for part in 0..8 {
            let eager = LogConfig { index_interval_bytes: 0, ..log_config() };
            logs.push(store.create_log(&format!("a-{part}"), eager).await.unwrap());
        }
        let bytes = |log: &Log<SimDisk>| {
            let state = log.inner.state.borrow();
            state.segments.back().unwrap().index.borrow().memory_bytes()
        };
        for n in 0..300 {
            for log in &logs {
                let _room = store.reserve(400).await.unwrap();
                let appended = log.append(vec![batch(1, 400, n, 5)], client(0)).unwrap();
                log.durable(appended.ticket).await.unwrap();
            }
            if n == 20 {
                let entries = logs[0].inner.state.borrow().segments[0].index.borrow().len();
                assert!(entries <= 12, "{entries} of 21 batches: not every one");
            }
            store.tick(0).await;
            let active: usize = logs.iter().map(bytes).sum();
            assert!(active <= 8 << 10, "{active}");
        }
        for log in &logs {
            assert_eq!(log.read(200, 1, i64::MAX, true).await.unwrap().first_offset, 200);
        }
        store.close().await.unwrap();
    });
}

#[test]
fn a_producers_batch_that_comes_again_is_answered_with_its_first_offsets() {
    let world = world(10);
    let disk = world.disk();
    world.block_on(async move {
        let (mut store, _) = open(disk.clone(), small()).await;
        let mut log = store.create_log("a-0", log_config()).await.unwrap();
        let of = |sequence| {
            let mut batch = batch(2, 500, sequence as u64, 5);
            batch.patch_header(|header| {
                (header.producer_id, header.producer_epoch, header.base_sequence) = (77, 0, sequence);
            });
            vec![batch]
        };
        for n in 0..8 {
            let appended = log.append(of(2 * n), client(50)).unwrap();
            assert_eq!((appended.base_offset, appended.duplicate), (2 * i64::from(n), false));
            log.durable(appended.ticket).await.unwrap();
        }
        for _ in 0..2 {
            let again = log.append(of(12), client(60)).unwrap();
            assert_eq!((again.base_offset, again.last_offset, again.duplicate), (12, 13, true));
            log.durable(again.ticket).await.unwrap();
            let refused = log.append(of(20), client(60));
            assert!(matches!(refused, Err(crate::AppendError::Producer(_))), "{refused:?}");
            assert_eq!((log.log_end_offset(), log.producers()[0].last_sequence), (16, 15));
            store.close().await.unwrap();
            (store, _) = open(disk.clone(), small()).await;
            log = store.log("a-0").unwrap();
        }
        store.tick(i64::MAX / 2).await;
        assert_eq!(log.producers(), []);
        store.close().await.unwrap();
    });
}
