//! Finding records by offset, time and epoch, from memory and from disk, with and without an index.

use penstock_format::{BatchBuilder, NewRecord};

use super::*;
use crate::ReadError;
use crate::disk::Disk;

fn records(timestamps: &[i64]) -> Batch {
    let mut builder = BatchBuilder::new();
    for &timestamp in timestamps {
        builder.append(&NewRecord { timestamp, value: Some(&[1; 900]), ..NewRecord::default() }).unwrap();
    }
    builder.finish().unwrap()
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
                let found = log.offset_for_time(timestamp).await.unwrap();
                found.map(|found| (found.offset, found.timestamp, found.leader_epoch))
            };
            assert_eq!(find(0).await, Some((0, 0, 3)));
            assert_eq!(find(1004).await, Some((301, 1007, 3)));
            assert_eq!(find(1008).await, Some((303, 1010, 3)));
            assert_eq!(find(3997).await, Some((1198, 3997, 3)));
            assert_eq!(find(3998).await, None);
            let newest = log.max_timestamp().await.unwrap().unwrap();
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
        disk.write_small(&path, &bytes).await.unwrap();
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
