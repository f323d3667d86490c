//! Damage of what is settled is found without anybody reading it, and the rest goes on.

use std::time::Duration;

use super::*;
use crate::ReadError;
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskFile};
use crate::scrub::PASS_PAUSE;

fn scrubbed() -> StoreConfig {
    StoreConfig { scrub_bytes_per_second: 1 << 20, cache_bytes_max: 8 << 10, ..small() }
}

async fn flip(disk: &SimDisk, path: &Path, at: usize) {
    let file = disk.open(path).await.unwrap();
    let from = at / BLOCK * BLOCK;
    let mut block = AlignedBuf::zeroed(BLOCK);
    block.copy_from_slice(&file.read_at(from as u64, BLOCK).await.unwrap());
    block[at - from] ^= 1;
    file.write_at(block.freeze(), from as u64).await.unwrap();
}

/// A log of several segments with batches of 9,000 bytes, settled.
async fn filled(disk: &SimDisk, config: StoreConfig) -> (Store<SimDisk>, Log<SimDisk>) {
    let (store, _) = open(disk.clone(), config).await;
    let log = store.create_log("a-0", log_config()).await.unwrap();
    for n in 0..40 {
        let _room = store.reserve(9000).await.unwrap();
        let appended = log.append(vec![batch(1, 9000, n, 5)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
    }
    store.checkpoint().await.unwrap();
    crate::indexes::write_files(&log.store).await;
    store.tick(0).await;
    (store, log)
}

/// Waits for another whole pass.
async fn pass(disk: &SimDisk, store: &Store<SimDisk>) {
    let passes = store.stats().scrub_passes;
    // The one under way may have been past the damage.
    while store.stats().scrub_passes < passes + 2 {
        disk.sleep(Duration::from_secs(3600)).await;
    }
}

#[test]
fn a_pass_reads_all_that_is_settled_no_faster_than_allowed() {
    let world = world(4);
    let (disk, clock) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, log) = filled(&disk, small()).await;
        store.close().await.unwrap();
        let (store, _) = open(disk.clone(), scrubbed()).await;
        let began = clock.elapsed();
        while store.stats().scrub_passes == 0 {
            disk.sleep(Duration::from_millis(10)).await;
        }
        let stats = store.stats();
        let read = (stats.scrub_batches, stats.scrub_bytes, stats.scrub_damaged, stats.scrub_mended);
        assert_eq!(read, (40, 40 * 9000, 0, 0));
        assert!(log.segment_count() > 2);
        // The clock may have gone on to the next pass before this task went on.
        let took = clock.elapsed() - began;
        let took = if took > PASS_PAUSE { took - PASS_PAUSE } else { took };
        assert!(took >= Duration::from_millis(40 * 9000 * 1000 / (1 << 20)), "{took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        store.close().await.unwrap();
    });
}

#[test]
fn a_damaged_batch_is_found_once_and_readers_get_past_it() {
    for at in [700, 10] {
        let world = world(4);
        let disk = world.disk();
        world.block_on(async move {
            let (store, log) = filled(&disk, scrubbed()).await;
            let path = Path::new(DIR).join("logs/a-0/00000000000000000000.log");
            // The body of offset 3, or its length.
            flip(&disk, &path, 4096 + 3 * 9000 + at).await;
            pass(&disk, &store).await;
            assert_eq!((store.stats().scrub_damaged, store.stats().scrub_mended), (1, 0));
            assert!(store.stats().scrub_batches > 40);
            pass(&disk, &store).await;
            assert_eq!(store.stats().scrub_damaged, 1, "it is told once");
            let corrupt = ReadError::Corrupt { segment_base: 0, position: 4096 + 3 * 9000 };
            for _ in 0..2 {
                let before = log.read(0, 1 << 20, i64::MAX, true).await.unwrap();
                assert_eq!(before.next_offset, 3, "all before it");
                assert_eq!(log.read(3, 1 << 20, i64::MAX, true).await, Err(corrupt.clone()));
                let behind = log.read(4, 1, i64::MAX, true).await.unwrap();
                assert_eq!((behind.first_offset, behind.next_offset), (4, 5));
            }
            // What an operator can do for readers that are stuck.
            assert_eq!(log.delete_records(4).await.unwrap(), 4);
            let batches = read_all(&log).await;
            assert_eq!((batches[0].header.base_offset, batches.len()), (4, 36));
            store.close().await.unwrap();
            let (store, report) = open(disk, small()).await;
            assert_eq!(report.offline, []);
            assert_eq!(read_all(&store.log("a-0").unwrap()).await.len(), 36);
            store.close().await.unwrap();
        });
    }
}

#[test]
fn headers_indexes_and_checkpoints_are_written_anew() {
    let world = world(5);
    let disk = world.disk();
    world.block_on(async move {
        let (store, log) = filled(&disk, scrubbed()).await;
        let dir = Path::new(DIR).join("logs/a-0");
        flip(&disk, &dir.join("00000000000000000000.log"), 100).await;
        for path in [dir.join("00000000000000000000.index"), Path::new(DIR).join("checkpoint.copy")] {
            let mut bytes = disk.read_small(&path, 1 << 20).await.unwrap();
            bytes[50] ^= 4;
            disk.write_small(&path, bytes.into()).await.unwrap();
        }
        pass(&disk, &store).await;
        assert_eq!((store.stats().scrub_damaged, store.stats().scrub_mended), (0, 3));
        pass(&disk, &store).await;
        assert_eq!(store.stats().scrub_mended, 3);
        assert_eq!(read_all(&log).await.len(), 40);
        store.close().await.unwrap();
    });
}

#[test]
fn a_scrub_goes_on_beside_changes_of_the_log_and_takes_none_for_damage() {
    let world = world(6);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = filled(&disk, scrubbed()).await;
        store.close().await.unwrap();
        // A pass begins with the opening, and is slow enough to last through all changes.
        let (store, _) =
            open(disk.clone(), StoreConfig { scrub_bytes_per_second: 64 << 10, ..scrubbed() }).await;
        let log = store.log("a-0").unwrap();
        let scrubbed = store.stats().scrub_batches;
        for round in 0..200_u64 {
            disk.sleep(Duration::from_millis(20)).await;
            let _room = store.reserve(9000).await.unwrap();
            let appended = log.append(vec![batch(1, 9000, round, 5)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
            let (start, end) = (log.log_start_offset(), log.log_end_offset());
            match round % 10 {
                3 => drop(log.truncate(end - 7).await.unwrap()),
                7 => drop(log.delete_records(start + 2).await.unwrap()),
                _ => store.tick(0).await,
            }
        }
        let stats = store.stats();
        assert!(stats.scrub_batches > scrubbed, "{stats:?}");
        assert_eq!((stats.scrub_damaged, stats.scrub_mended), (0, 0));
        store.close().await.unwrap();
    });
}
