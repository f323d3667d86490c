//! Batches that no journal frame can hold.

use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use crate::disk::Disk;
use crate::disk::sim::{Crash, Effect, Fault, Operation};
use crate::{AppendError, StoreError};

/// Sizes of the broker's own, but for the number of journal files.
fn as_the_broker() -> StoreConfig {
    StoreConfig { journal_file_bytes: 32 << 20, journal_files: 4, ..StoreConfig::default() }
}

#[test]
fn a_batch_of_32_mib_survives_a_crash_at_any_step() {
    const LEN: usize = 32 << 20;
    let mut found = [0; 2];
    for seed in 0..12 {
        let mut world = world(100 + seed);
        let disk = world.disk();
        let store = world.block_on(async move {
            let (store, _) = open(disk, as_the_broker()).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            let small = log.append(vec![batch(1, 5_000, 1, 1)], client(0)).unwrap();
            log.durable(small.ticket).await.unwrap();
            store
        });
        let step = world.steps() + 1 + world.random(60);
        let log = store.log("a-0").unwrap();
        let acknowledged = world.block_on_until(step, async move {
            let appended = log.append_large(batch(2, LEN, 2, 2), client(0)).await.unwrap();
            log.durable(appended.ticket).await.unwrap();
        });
        let stats = store.stats();
        assert!(stats.journal_bytes < 1 << 20, "{stats:?}: only its description is in the journal");
        drop(store);
        for crash in [Crash::PowerLoss, Crash::Kill] {
            world = world.crash(crash);
            let disk = world.disk();
            let batches = world.block_on(async move {
                let (store, report) = open(disk, as_the_broker()).await;
                assert_eq!(report.offline, []);
                read_all(&store.log("a-0").unwrap()).await
            });
            let lens: Vec<usize> = batches.iter().map(Batch::len).collect();
            match batches.get(1) {
                Some(last) => {
                    assert_eq!(lens, [5_000, LEN]);
                    assert!(last.crc_ok() && last.body == batch(2, LEN, 2, 2).body);
                    found[1] += 1;
                }
                None => {
                    assert_eq!((lens, acknowledged), (vec![5_000], None));
                    found[0] += 1;
                }
            }
        }
    }
    assert!(found.iter().all(|count| *count > 0), "{found:?}: it was there, and it was not");
}

#[test]
fn large_and_small_batches_take_their_turns_and_segments_roll() {
    let world = world(31);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let bytes_max = small().append_bytes_max();
        let mut lens = Vec::new();
        for n in 0..40_u64 {
            let len = match n % 4 {
                0 => 300,
                1 => bytes_max + 1 + 1000 * n as usize,
                2 => bytes_max,
                // More than a segment, more than a journal file.
                _ => 300_000,
            };
            let _room = store.reserve(len).await.unwrap();
            let appended = log.append_large(batch(1, len, n, 1), client(0)).await.unwrap();
            assert_eq!((appended.base_offset, appended.duplicate), (n as i64, false));
            if n % 3 == 0 {
                log.durable(appended.ticket).await.unwrap();
            }
            lens.push(len);
        }
        let seen = |batches: Vec<Batch>| batches.iter().map(Batch::len).collect::<Vec<_>>();
        assert_eq!(seen(read_all(&log).await), lens);
        assert!(log.segment_count() > 10);
        store.close().await.unwrap();
        let (store, report) = open(disk, small()).await;
        assert_eq!(report.frames_replayed, 0);
        assert_eq!(seen(read_all(&store.log("a-0").unwrap()).await), lens);
        store.close().await.unwrap();
    });
}

#[test]
fn a_large_batch_that_gave_up_leaves_nothing_behind() {
    let world = world(32);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        {
            let mut append = Box::pin(log.append_large(batch(1, 200_000, 0, 1), client(0)));
            assert!(append.as_mut().now_or_never().is_none());
        }
        // The log goes on without it, past the segment that was begun for it, and back.
        for n in 0..8 {
            let appended = log.append(vec![batch(1, 60_000, n, 1)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
        }
        {
            let mut append = Box::pin(log.append_large(batch(1, 200_000, 0, 1), client(0)));
            assert!(append.as_mut().now_or_never().is_none());
            disk.sleep(Duration::from_secs(1)).await;
        }
        let appended = log.append(vec![batch(1, 60_000, 8, 1)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        assert_eq!(log.truncate(3).await, Ok(3));
        for n in 3..9 {
            let appended = log.append_large(batch(1, 150_000, n, 1), client(0)).await.unwrap();
            log.durable(appended.ticket).await.unwrap();
        }
        let expected = [60_000, 60_000, 60_000, 150_000, 150_000, 150_000, 150_000, 150_000, 150_000];
        let seen = |batches: Vec<Batch>| batches.iter().map(Batch::len).collect::<Vec<_>>();
        assert_eq!(seen(read_all(&log).await), expected);
        {
            let mut append = Box::pin(log.append_large(batch(1, 200_000, 0, 1), client(0)));
            assert!(append.as_mut().now_or_never().is_none());
        }
        let segments = log.segment_count();
        store.close().await.unwrap();
        let files = disk.list(&Path::new(DIR).join("logs/a-0")).await.unwrap();
        assert_eq!(files.iter().filter(|file| file.name.ends_with(".log")).count(), segments, "{files:?}");
        let (store, _) = open(disk, small()).await;
        assert_eq!(seen(read_all(&store.log("a-0").unwrap()).await), expected);
        store.close().await.unwrap();
    });
}

#[test]
fn a_large_batch_is_told_of_a_full_disk_a_truncation_and_the_end() {
    let world = world(33);
    let disk = world.disk();
    let faults = world.clone();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        faults.inject(Fault {
            operation: Operation::Name,
            path_contains: "logs/a-0".into(),
            skip: 0,
            times: u64::MAX,
            effect: Effect::Fail(libc::ENOSPC),
        });
        let large = || log.append_large(batch(1, 200_000, 0, 1), client(0));
        assert_eq!(large().await, Err(AppendError::DiskFull));
        let other = store.create_log("b-0", log_config()).await.unwrap();
        faults.clear_faults();
        while store.stats().disk_full {
            disk.sleep(Duration::from_millis(10)).await;
        }
        let appended = large().await.unwrap();
        log.durable(appended.ticket).await.unwrap();

        let waiting = other.append_large(batch(1, 200_000, 0, 1), client(0));
        let ended = Rc::new(std::cell::RefCell::new(None));
        let slot = ended.clone();
        let mut waiting = Box::pin(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        store.remove_log("b-0").await.unwrap();
        *slot.borrow_mut() = Some(waiting.await);
        assert_eq!(ended.take(), Some(Err(AppendError::Closed)));
        store.close().await.unwrap();
        assert_eq!(large().await, Err(AppendError::Closed));
        assert_eq!(store.reserve(1).await.err(), Some(StoreError::Closed));
    });
}

#[test]
fn what_follows_a_large_batch_does_not_draw_it_into_the_frame() {
    let world = world(34);
    let disk = world.disk();
    world.block_on(async move {
        // No commit is closed for its size, and no segment rolls.
        let config = StoreConfig { commit_bytes_target: 8 << 20, segment_bytes_max: 1 << 20, ..small() };
        let (store, _) = open(disk.clone(), config.clone()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        log.append_large(batch(1, 300_000, 0, 1), client(0)).await.unwrap();
        // At once, beyond the end of the file that was made for the first.
        let mut last = None;
        for n in 1..4 {
            last = Some(log.append(vec![batch(1, 60_000, n, 1)], client(0)).unwrap());
        }
        log.durable(last.unwrap().ticket).await.unwrap();
        let lens: Vec<usize> = read_all(&log).await.iter().map(Batch::len).collect();
        assert_eq!(lens, [300_000, 60_000, 60_000, 60_000]);
        assert_eq!(log.segment_count(), 1);
        store.close().await.unwrap();
    });
}
