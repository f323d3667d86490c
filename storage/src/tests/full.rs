//! A disk that fills up: clients' appends are refused before the last of it is taken, the broker's own go on, and
//! all is taken again once there is room.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join;

use super::*;
use crate::AppendError;
use crate::disk::Disk;

const MIB: u64 = 1 << 20;

fn tight() -> StoreConfig {
    StoreConfig { reserve_bytes: Some(MIB), ..small() }
}

/// Appends until it is refused; batches acknowledged.
async fn fill(disk: &SimDisk, store: &Store<SimDisk>, log: &Log<SimDisk>) -> u64 {
    let mut count = 0;
    loop {
        match log.append(vec![batch(1, 12_000, count, 1)], client(0)) {
            Ok(appended) => log.durable(appended.ticket).await.unwrap(),
            Err(AppendError::DiskFull) => return count,
            Err(error) => panic!("{error}"),
        }
        count += 1;
        assert!(count < 10_000, "{:?}", store.stats());
        if count.is_multiple_of(10) {
            store.tick(0).await;
            disk.sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn wait_for_room(disk: &SimDisk, store: &Store<SimDisk>) {
    while store.stats().disk_full {
        disk.sleep(Duration::from_millis(200)).await;
        store.tick(0).await;
    }
}

#[test]
fn the_reserve_is_for_the_brokers_own_data() {
    let world = world(41);
    let disk = world.disk();
    let inner = world.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), tight()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let own = store.create_log("own", log_config()).await.unwrap();
        inner.set_capacity(inner.used_bytes() + 8 * MIB);
        let count = fill(&disk, &store, &log).await;
        let stats = store.stats();
        assert!(stats.disk_full && stats.free_bytes > MIB / 2, "{stats:?}");
        assert!(count > 300, "{count} batches of 12 kB before the reserve");
        let coordinator = AppendContext { origin: Origin::Coordinator, ..client(0) };
        for n in 0..20 {
            let appended = own.append(vec![batch(1, 5000, n, 1)], coordinator).unwrap();
            own.durable(appended.ticket).await.unwrap();
            store.tick(0).await;
        }
        store.create_log("b-0", log_config()).await.unwrap();
        store.checkpoint().await.unwrap();
        assert_eq!(read_all(&log).await.len() as u64, count, "reads go on");
        assert_eq!(read_all(&own).await.len(), 20);
        // Little more than the reserve is not enough, a quarter more is.
        let reserve = store.stats().reserve_bytes;
        inner.set_capacity(inner.used_bytes() + reserve * 9 / 8);
        store.tick(0).await;
        assert!(store.stats().disk_full);
        inner.set_capacity(inner.used_bytes() + reserve * 11 / 8);
        store.tick(0).await;
        assert!(!store.stats().disk_full);
        let appended = log.append(vec![batch(1, 100, 0, 1)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        store.close().await.unwrap();
    });
}

#[test]
fn deletion_makes_room_and_service_resumes_by_itself() {
    for by_removal in [true, false] {
        let world = world(42);
        let disk = world.disk();
        let inner = world.clone();
        world.block_on(async move {
            let (store, _) = open(disk.clone(), tight()).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            let old = store.create_log("old", log_config()).await.unwrap();
            let appended = log.append(vec![batch(1, 100, 0, 1)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
            inner.set_capacity(inner.used_bytes() + 8 * MIB);
            let count = fill(&disk, &store, &old).await;
            let refused = log.append(vec![batch(1, 100, 1, 1)], client(0));
            assert_eq!(refused, Err(AppendError::DiskFull));
            if by_removal {
                store.remove_log("old").await.unwrap();
            } else {
                // Files that would be kept for reuse are removed instead.
                old.set_config(LogConfig { retention_bytes: MIB as i64, ..log_config() });
            }
            wait_for_room(&disk, &store).await;
            assert!(store.stats().free_bytes > 4 * MIB, "{:?}", store.stats());
            let appended = log.append(vec![batch(1, 100, 1, 1)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
            if !by_removal {
                assert_eq!(old.log_end_offset() as u64, count);
            }
            store.close().await.unwrap();
            let (store, report) = open(disk, tight()).await;
            assert_eq!((report.offline, read_all(&store.log("a-0").unwrap()).await.len()), (vec![], 2));
            store.close().await.unwrap();
        });
    }
}

#[test]
fn spare_files_go_before_anything_is_refused() {
    let world = world(43);
    let disk = world.disk();
    let inner = world.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), tight()).await;
        let config = LogConfig { retention_bytes: 200_000, ..log_config() };
        let log = store.create_log("a-0", config).await.unwrap();
        for n in 0..100 {
            let appended = log.append(vec![batch(1, 12_000, n, 1)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
            store.tick(0).await;
        }
        let spares = async || disk.list(&Path::new(DIR).join("recycle")).await.unwrap().len();
        assert!(spares().await > 0);
        let before = inner.used_bytes();
        // With the spare files below the reserve, without them above.
        inner.set_capacity(before + MIB - 4096);
        store.tick(0).await;
        assert!(spares().await == 0 && inner.used_bytes() < before, "{:?}", store.stats());
        assert!(!store.stats().disk_full, "{:?}", store.stats());
        store.close().await.unwrap();
    });
}

/// What is taken while the volume is asked may be in its answer already. It is not counted twice.
#[test]
fn what_is_taken_while_the_volume_is_asked_does_not_count_twice() {
    let world = world(44);
    let disk = world.disk();
    let inner = world.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), tight()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let reserve = store.stats().reserve_bytes;
        inner.set_capacity(inner.used_bytes() + reserve + MIB);
        store.tick(0).await;
        assert!(!store.stats().disk_full);
        log.store.ask_for_space();
        disk.yield_now().await;
        log.store.took_space(2 * MIB);
        disk.sleep(Duration::from_millis(200)).await;
        assert!(!store.stats().disk_full, "{:?}", store.stats());
        store.close().await.unwrap();
    });
}

/// A journal file has its room from its making's beginning on: that is not kept free for it as well.
#[test]
fn a_journal_file_that_is_being_made_does_not_count_twice() {
    for seed in 0..20 {
        let world = world(seed);
        let disk = world.disk();
        let inner = world.clone();
        world.block_on(async move {
            // So much that the files of the journal are a small part of the volume.
            let config = StoreConfig { reserve_bytes: Some(8 * MIB), ..small() };
            let (store, _) = open(disk.clone(), config).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            let store_inner = &log.store;
            let file_bytes = store_inner.config.journal_file_bytes;
            inner.set_capacity(inner.used_bytes() + 64 * MIB);
            store_inner.look_at_space().await;
            inner.set_capacity(inner.used_bytes() + store_inner.space.wanted() + file_bytes / 2);
            let (made, looks) = (Cell::new(false), Cell::new(0));
            let make = async {
                store_inner.journal.make(&disk, 2).await.unwrap();
                made.set(true);
            };
            let look = async {
                while !made.get() {
                    store_inner.look_at_space().await;
                    assert!(!store.stats().disk_full, "{:?}", store.stats());
                    looks.set(looks.get() + 1);
                }
            };
            let before = store_inner.space.wanted();
            join(make, look).await;
            assert!(looks.get() > 0);
            store_inner.look_at_space().await;
            assert_eq!(store_inner.space.wanted(), before - file_bytes);
            store.close().await.unwrap();
        });
    }
}

/// Files of deleted segments are kept for reuse, on a large file system more of them.
#[test]
fn the_pool_of_files_may_have_a_part_of_the_file_system() {
    for (part, keeps) in [(0, false), (64, true)] {
        let world = world(43);
        let disk = world.disk();
        world.set_capacity(world.used_bytes() + 256 * MIB);
        world.block_on(async move {
            let config = StoreConfig { recycle_bytes_max: 0, recycle_volume_part: part, ..small() };
            let (store, _) = open(disk.clone(), config).await;
            let config = LogConfig { retention_bytes: 100_000, ..log_config() };
            let log = store.create_log("a-0", config).await.unwrap();
            for n in 0..60 {
                let appended = log.append(vec![batch(1, 12_000, n, 1)], client(0)).unwrap();
                log.durable(appended.ticket).await.unwrap();
                store.tick(0).await;
            }
            store.checkpoint().await.unwrap();
            store.tick(0).await;
            let files = disk.list(&crate::recycle::recycle_dir(Path::new(DIR))).await.unwrap();
            let bytes: u64 = files.iter().map(|file| file.len).sum();
            assert_eq!(bytes > 0, keeps, "one part in {part}: {files:?}");
            assert!(bytes <= 256 * MIB / 64);
            store.close().await.unwrap();
        });
    }
}
