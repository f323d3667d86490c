//! One thing at a time.

use super::*;

#[test]
fn appended_records_are_read_from_memory_and_after_reopening_from_disk() {
    let world = world(1);
    let disk = world.disk();
    world.block_on(async move {
        let (store, report) = open(disk.clone(), small()).await;
        assert_eq!(report, RecoveryReport::default());
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let mut expected = Vec::new();
        for n in 0..200_u64 {
            let len = 100 + (n as usize * 997) % 30_000;
            let _room = store.reserve(len).await.unwrap();
            let appended = log.append(vec![batch(3, len, n, 5000 + n as i64)], client(2000)).unwrap();
            assert_eq!(appended.base_offset, 3 * n as i64);
            if n % 5 == 0 {
                log.durable(appended.ticket).await.unwrap();
                assert!(log.durable_offset() > appended.last_offset);
            }
            expected.push((appended.base_offset, len));
        }
        let seen =
            |batches: Vec<Batch>| batches.iter().map(|b| (b.header.base_offset, b.len())).collect::<Vec<_>>();
        assert_eq!(seen(read_all(&log).await), expected);
        store.close().await.unwrap();
        let (store, report) = open(disk, small()).await;
        assert_eq!((report.frames_replayed, report.logs, report.torn_tail), (0, 1, false));
        let log = store.log("a-0").unwrap();
        let batches = read_all(&log).await;
        assert!(batches.iter().all(|batch| batch.crc_ok() && batch.header.partition_leader_epoch == 3));
        assert_eq!(seen(batches), expected);
        assert_eq!(log.latest_epoch(), Some(3));
        store.close().await.unwrap();
    });
}

/// What a fetch sends are the bytes that came in, where they lie: before they are stable in their segment, and after.
#[test]
fn what_is_read_from_memory_is_the_memory_that_was_appended() {
    let world = world(2);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, StoreConfig { cache_bytes_max: 1 << 20, ..small() }).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let sent: Vec<Batch> = (0..5).map(|n| batch(2, 3000, n, 1)).collect();
        let mut ticket = None;
        for batch in &sent {
            ticket = Some(log.append(vec![batch.clone()], client(0)).unwrap().ticket);
        }
        log.durable(ticket.unwrap()).await.unwrap();
        for settled in [false, true] {
            if settled {
                store.checkpoint().await.unwrap();
            }
            assert_eq!(log.store.levels.unsettled_bytes.get() == 0, settled);
            let found = log.read(0, 50_000, i64::MAX, true).await.unwrap();
            let bodies: Vec<_> = found.slices.iter().skip(1).step_by(2).map(|body| body.as_ptr()).collect();
            assert_eq!(bodies, sent.iter().map(|batch| batch.body.as_ptr()).collect::<Vec<_>>());
        }
        store.close().await.unwrap();
    });
}

#[test]
fn a_directory_that_was_never_made_is_made_with_the_first_file() {
    let world = world(92);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        // As after a start from a checkpoint that tells of a segment whose records were deleted before it had a file.
        log.inner.has_dir.set(true);
        let appended = log.append(vec![batch(1, 1000, 0, 1)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        store.checkpoint().await.unwrap();
        assert_eq!(log.offline(), None);
        store.close().await.unwrap();
        let (store, _) = open(disk, small()).await;
        assert_eq!(read_all(&store.log("a-0").unwrap()).await.len(), 1);
        store.close().await.unwrap();
    });
}
