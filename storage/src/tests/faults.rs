//! A disk that fails, and one that is full.

use std::time::Duration;

use super::*;
use crate::checkpoint_file::copy_path;
use crate::disk::Disk;
use crate::disk::sim::{Effect, Fault, Operation};
use crate::{AppendError, StoreError};

pub(super) fn fault(operation: Operation, path: &str, times: u64, errno: i32) -> Fault {
    Fault { operation, path_contains: path.into(), skip: 0, times, effect: Effect::Fail(errno) }
}

#[test]
fn a_failed_flush_or_write_of_the_journal_takes_the_store_offline_for_all_waiters() {
    for (operation, path) in [(Operation::Sync, "journal"), (Operation::Write, "journal")] {
        let world = world(11);
        let disk = world.disk();
        let faults = world.clone();
        world.block_on(async move {
            let (store, _) = open(disk.clone(), small()).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            let appended = log.append(vec![batch(1, 100, 0, 1)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
            while store.stats().open_files == 0 {
                disk.sleep(Duration::from_millis(10)).await; // Until the segment's file is there: shares go direct.
            }
            faults.inject(fault(operation, path, 1, libc::EIO));
            let lost = log.append(vec![batch(1, 30_000, 1, 1)], client(0)).unwrap();
            let error = log.durable(lost.ticket).await.unwrap_err();
            assert!(error.reason.contains("failed"), "{error}");
            assert_eq!(log.durable(appended.ticket).await, Ok(()), "what was stable stays so");
            assert_eq!(
                log.append(vec![batch(1, 100, 2, 1)], client(0)),
                Err(AppendError::Offline(error.clone()))
            );
            assert_eq!(log.offline(), Some(error.clone()));
            assert_eq!(store.reserve(10).await.err(), Some(StoreError::Offline(error.clone())));
            assert_eq!(log.delete_records(1).await, Err(StoreError::Offline(error.clone())));
            assert_eq!(store.close().await, Err(StoreError::Offline(error)));
            let (store, report) = open(disk, small()).await;
            assert_eq!(report.offline, []);
            assert!(store.log("a-0").unwrap().log_end_offset() >= 1);
            store.close().await.unwrap();
        });
    }
}

#[test]
fn a_full_disk_refuses_clients_and_serves_again_by_itself() {
    let world = world(12);
    let disk = world.disk();
    let faults = world.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        faults.inject(fault(Operation::Name, "logs/a-0", u64::MAX, libc::ENOSPC));
        let appended = log.append(vec![batch(1, 100, 0, 1)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        while !store.stats().disk_full {
            disk.sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(log.append(vec![batch(1, 100, 1, 1)], client(0)), Err(AppendError::DiskFull));
        let coordinator = AppendContext { origin: Origin::Coordinator, ..client(0) };
        let own = log.append(vec![batch(1, 100, 1, 1)], coordinator).unwrap();
        log.durable(own.ticket).await.unwrap();
        assert_eq!(read_all(&log).await.len(), 2, "reads go on");
        faults.clear_faults();
        while store.stats().disk_full {
            disk.sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(log.offline(), None);
        let appended = log.append(vec![batch(1, 30_000, 2, 1)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        store.close().await.unwrap();
        let (store, _) = open(disk, small()).await;
        assert_eq!(read_all(&store.log("a-0").unwrap()).await.len(), 3);
        store.close().await.unwrap();
    });
}

#[test]
fn a_rotten_or_missing_active_segment_takes_its_own_log_offline() {
    for missing in [false, true] {
        let world = world(17);
        let disk = world.disk();
        world.block_on(async move {
            let (store, _) = open(disk.clone(), small()).await;
            for name in ["a-0", "b-0"] {
                let log = store.create_log(name, log_config()).await.unwrap();
                let appended = log.append(vec![batch(1, 5000, 0, 1)], client(0)).unwrap();
                log.durable(appended.ticket).await.unwrap();
            }
            store.close().await.unwrap();
            let path = Path::new(DIR).join("logs/a-0/00000000000000000000.log");
            if missing {
                disk.remove(&path).await.unwrap();
            } else {
                let mut bytes = disk.read_small(&path, 1 << 20).await.unwrap();
                // The header alone is told by the file's name and the batches.
                bytes[100] ^= 1;
                bytes[4096 + 100] ^= 1;
                disk.write_small(&path, bytes.into()).await.unwrap();
            }
            let (store, report) = open(disk, small()).await;
            let names: Vec<_> = report.offline.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names, ["a-0"]);
            let [bad, good] = ["a-0", "b-0"].map(|name| store.log(name).unwrap());
            assert!(matches!(bad.append(vec![batch(1, 100, 1, 1)], client(0)), Err(AppendError::Offline(_))));
            let appended = good.append(vec![batch(1, 30_000, 1, 1)], client(0)).unwrap();
            good.durable(appended.ticket).await.unwrap();
            assert_eq!(read_all(&good).await.len(), 2);
            store.close().await.unwrap();
        });
    }
}

#[test]
fn segments_behind_the_damage_of_a_log_stay() {
    let world = world(20);
    let disk = world.disk();
    world.block_on(async move {
        // No checkpoint comes: the frames are replayed.
        let config = StoreConfig { journal_files: 32, checkpoint_bytes: 1 << 40, ..small() };
        let (store, _) = open(disk.clone(), config).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        for n in 0..10 {
            let appended = log.append(vec![batch(1, 40_000, n, 1)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
            // So that the segment's file is there, and shares go to it directly.
            disk.sleep(Duration::from_millis(100)).await;
        }
        assert!(log.segment_count() > 2 && store.stats().direct_bytes > 100_000, "{:?}", store.stats());
    });
    let world = world.crash(crate::disk::sim::Crash::PowerLoss);
    let disk = world.disk();
    world.block_on(async move {
        let dir = Path::new(DIR).join("logs/a-0");
        let path = dir.join("00000000000000000000.log");
        let mut bytes = disk.read_small(&path, 1 << 20).await.unwrap();
        bytes[4096 + 100_000] ^= 1; // The third batch, the first that went there directly.
        disk.write_small(&path, bytes.into()).await.unwrap();
        let segments = async || {
            let mut files = disk.list(&dir).await.unwrap();
            files.retain(|file| file.name.ends_with(".log"));
            files
        };
        let files = segments().await;
        assert!(files.len() > 2, "{files:?}");
        let mut told = String::new();
        for _ in 0..2 {
            let (store, report) = open(disk.clone(), small()).await;
            let [(name, reason)] = &report.offline[..] else { panic!("{report:?}") };
            // The last frame is stable, but none after it says so.
            assert!(name == "a-0" && reason.contains("all up to offset 8"), "{reason}");
            assert!(told.is_empty() || told == *reason, "{reason}");
            told.clone_from(reason);
            assert_eq!(segments().await, files);
            store.close().await.unwrap();
        }
        let (store, _) = open(disk.clone(), small()).await;
        store.remove_log("a-0").await.unwrap();
        assert!(!disk.exists(&dir).await.unwrap());
        store.close().await.unwrap();
    });
}

#[test]
fn too_few_descriptors_and_a_spent_quota_are_waited_for() {
    for (operation, path, errno) in [
        (Operation::Name, "logs/", libc::EMFILE),
        (Operation::Name, "logs/", libc::ENFILE),
        (Operation::SyncDir, "", libc::EMFILE),
        (Operation::Write, "checkpoint", libc::EDQUOT),
        (Operation::Allocate, "", libc::EDQUOT),
    ] {
        let world = world(18);
        let disk = world.disk();
        let faults = world.clone();
        world.block_on(async move {
            let config = LogConfig { retention_bytes: 100_000, ..log_config() };
            let (store, _) = open(disk.clone(), small()).await;
            let log = store.create_log("a-0", config).await.unwrap();
            for n in 0..300 {
                if n % 20 == 0 {
                    faults.inject(fault(operation, path, 3, errno));
                }
                let appended = loop {
                    match log.append(vec![batch(1, 12_000, n, 1)], client(0)) {
                        Ok(appended) => break appended,
                        Err(AppendError::DiskFull) => disk.sleep(Duration::from_millis(50)).await,
                        Err(error) => panic!("{operation:?} {errno}: {error}"),
                    }
                };
                log.durable(appended.ticket).await.unwrap();
                store.tick(0).await;
            }
            faults.clear_faults();
            let last = read_all(&log).await.last().map(|last| last.header.base_offset);
            assert_eq!(last, Some(299));
            store.close().await.unwrap();
        });
    }
}

#[test]
fn files_that_wait_for_their_flush_are_bounded() {
    let world = world(19);
    let disk = world.disk();
    world.block_on(async move {
        let config = StoreConfig { checkpoint_bytes: 1 << 40, ..small() };
        let (store, _) = open(disk.clone(), config).await;
        let mut logs = Vec::new();
        for part in 0..40 {
            logs.push(store.create_log(&format!("a-{part}"), log_config()).await.unwrap());
        }
        for n in 0..10 {
            for log in &logs {
                let _room = store.reserve(2000).await.unwrap();
                let appended = log.append(vec![batch(1, 2000, n, 1)], client(0)).unwrap();
                log.durable(appended.ticket).await.unwrap();
            }
            let unflushed = || logs[0].store.writeback.unflushed.borrow().len();
            for _ in 0..100 {
                if unflushed() <= small().open_files_max {
                    break;
                }
                disk.sleep(Duration::from_millis(50)).await;
            }
            assert!(unflushed() <= small().open_files_max, "{}", unflushed());
        }
        assert!(store.stats().writeback_bytes > 0);
        store.close().await.unwrap();
    });
}

#[test]
fn a_store_closes_on_a_full_disk_and_loses_nothing() {
    for (operation, path) in [(Operation::Name, "logs/a-0"), (Operation::Write, "checkpoint")] {
        let world = world(24);
        let disk = world.disk();
        let faults = world.clone();
        world.block_on(async move {
            let (store, _) = open(disk.clone(), small()).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            faults.inject(fault(operation, path, u64::MAX, libc::ENOSPC));
            let appended = log.append(vec![batch(1, 5000, 0, 1)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
            assert_eq!(store.close().await, Ok(()), "{path}");
            assert_eq!(log.offline(), None);
            faults.clear_faults();
            let (store, report) = open(disk, small()).await;
            assert!(report.frames_replayed > 0 && report.offline.is_empty(), "{report:?}");
            assert_eq!(read_all(&store.log("a-0").unwrap()).await.len(), 1);
            store.close().await.unwrap();
        });
    }
}

#[test]
fn a_store_closes_though_its_journal_stands_still_on_a_full_disk() {
    let world = world(27);
    let disk = world.disk();
    let faults = world.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        faults.inject(fault(Operation::Name, "logs/a-0", u64::MAX, libc::ENOSPC));
        faults.inject(fault(Operation::Allocate, "logs/a-0", u64::MAX, libc::ENOSPC));
        let coordinator = AppendContext { origin: Origin::Coordinator, ..client(0) };
        let mut stable = 0;
        // No segment takes what the journal holds, and the journal ends.
        for n in 0.. {
            let Ok(appended) = log.append(vec![batch(1, 9000, n, 1)], coordinator) else { break };
            let mut durable = Box::pin(log.durable(appended.ticket));
            let mut told = None;
            for _ in 0..1000 {
                told = futures_util::FutureExt::now_or_never(&mut durable);
                if told.is_some() {
                    break;
                }
                disk.sleep(Duration::from_millis(10)).await;
            }
            let Some(told) = told else { break };
            told.unwrap();
            stable += 1;
        }
        assert!(stable > 10 && store.stats().disk_full, "{stable}: {:?}", store.stats());
        assert_eq!(store.close().await, Ok(()));
        faults.clear_faults();
        let (store, report) = open(disk, small()).await;
        assert_eq!(report.offline, []);
        assert!(read_all(&store.log("a-0").unwrap()).await.len() >= stable);
        store.close().await.unwrap();
    });
}

#[test]
fn ancestors_that_cannot_be_flushed_are_not_ours() {
    for (skip, errno) in
        [(1, libc::EINVAL), (1, libc::EROFS), (1, libc::EACCES), (0, libc::EINVAL), (1, libc::EIO)]
    {
        let world = world(25);
        let disk = world.disk();
        let faults = world.clone();
        world.block_on(async move {
            // First the store's directory, then the one above it.
            faults.inject(Fault { skip, ..fault(Operation::SyncDir, "/data", 1, errno) });
            let opened = Store::open(disk, Path::new(DIR), small(), 1000).await;
            let fine = skip == 1 && errno != libc::EIO;
            assert_eq!(opened.is_ok(), fine, "{skip} {errno}");
        });
    }
}

#[test]
fn room_is_bounded_and_a_giant_request_comes_through_alone() {
    let world = world(13);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let first = store.reserve(100_000).await.unwrap();
        let mut second = Box::pin(store.reserve(1 << 20));
        assert!(futures_util::FutureExt::now_or_never(&mut second).is_none());
        drop(first);
        drop(second.await.unwrap());
        // Nothing else would press the little that is unsettled out of memory.
        let own = store.create_log("b-0", log_config()).await.unwrap();
        let appended = own.append(vec![batch(1, 100, 0, 1)], client(0)).unwrap();
        own.durable(appended.ticket).await.unwrap();
        drop(store.reserve(1 << 20).await.unwrap());
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let bytes_max = small().append_bytes_max();
        let (mut giant, same) = (batch(1, bytes_max + 1, 0, 1), batch(1, bytes_max + 1, 0, 1));
        let refused = log.append_one(&mut giant, client(0));
        assert_eq!(refused, Err(AppendError::TooLarge { bytes: bytes_max + 1, bytes_max }));
        assert_eq!((&giant, log.log_end_offset()), (&same, 0));
        assert_eq!(log.append_large(giant, client(0)).await.unwrap().base_offset, 0);
        let appended = log.append(vec![batch(1, bytes_max, 0, 1)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        store.close().await.unwrap();
    });
}

/// The copy of the checkpoint alone finds no room: the start goes on without, and leaves no old one.
#[test]
fn a_start_needs_no_room_for_the_copy_of_its_checkpoint() {
    let world = world(403);
    let (disk, inner) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let appended = log.append(vec![batch(1, 3000, 0, 1)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        store.close().await.unwrap();
        let copy = copy_path(Path::new(DIR));
        for (times, is_there) in [(1, true), (2, false)] {
            inner.inject(fault(Operation::Write, "checkpoint.copy", times, libc::ENOSPC));
            let (store, _) = open(disk.clone(), small()).await;
            assert_eq!((inner.faults_left(), disk.exists(&copy).await.unwrap()), (0, is_there));
            assert_eq!(read_all(&store.log("a-0").unwrap()).await.len(), 1);
            store.close().await.unwrap();
            assert!(disk.exists(&copy).await.unwrap(), "the next checkpoint has one");
        }
    });
}
