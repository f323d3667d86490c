//! Damage that a log had before one of its writes fails, or before it is truncated: blocks that rotted, or that cannot be read.

use std::path::PathBuf;

use penstock_format::{BatchBuilder, NewRecord};

use super::failures::{append, fault, produced, two_logs};
use super::*;
use crate::ReadError;
use crate::disk::sim::{Crash, Operation};
use crate::disk::{BLOCK, Disk, DiskFile};

/// A log of two segments and most of a third, all of one producer, of which memory has not the third's first batches.
async fn long_log(store: &Store<SimDisk>, log: &Log<SimDisk>) -> i32 {
    let mut sequence = 0;
    let mut left = 16;
    while left > 0 {
        let appended = log.append(vec![produced(sequence, 6000)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        sequence += 1;
        left -= i32::from(log.segment_count() == 3);
    }
    store.checkpoint().await.unwrap();
    store.tick(0).await;
    sequence
}

fn last_segment(log: &Log<SimDisk>) -> PathBuf {
    log.inner.state.borrow().segments.back().unwrap().path.clone()
}

/// A write of the log fails.
async fn fail_long_log(bad: &Log<SimDisk>, world: &SimWorld, sequence: i32) {
    for n in sequence..sequence + 2 {
        let appended = bad.append(vec![produced(n, 6000)], client(0)).unwrap();
        bad.durable(appended.ticket).await.unwrap();
    }
    world.inject(fault(Operation::Write, "logs/a-0", 1));
    // Straight to its segment, which has room for it.
    let lost = bad.append(vec![produced(sequence + 2, 16_400)], client(0)).unwrap();
    bad.durable(lost.ticket).await.unwrap_err();
}

/// It alone goes offline and is saved.
async fn save_long_log(store: &Store<SimDisk>, good: &Log<SimDisk>) {
    store.checkpoint().await.unwrap();
    assert_eq!(good.offline(), None);
    append(good, 100, 1).await.unwrap();
}

/// After the next start the long log has its end, its first segments, and its producer; gives what a read of its last
/// batches says.
fn long_log_after(world: &SimWorld, sequence: i32) -> Result<i64, ReadError> {
    let disk = world.disk();
    world.block_on(async move {
        let (store, report) = open(disk, small()).await;
        assert_eq!(report.offline, []);
        let bad = store.log("a-0").unwrap();
        let (from, end) = (i64::from(sequence) + 1, bad.log_end_offset());
        assert_eq!(end, from + 2, "one of two_logs is before them");
        let newest = bad.read(from, 50_000, i64::MAX, true).await.map(|found| found.next_offset);
        assert_eq!(bad.read(0, 6500, i64::MAX, true).await.unwrap().first_offset, 0);
        for (n, len, known) in
            [(sequence - 1, 6000, true), (sequence + 1, 6000, true), (sequence + 2, 16_400, false)]
        {
            let appended = bad.append(vec![produced(n, len)], client(0)).unwrap();
            assert_eq!(appended.duplicate, known, "{n}");
        }
        store.close().await.unwrap();
        newest
    })
}

/// Old damage, which readers of it are told of, is nobody else's affair.
#[test]
fn a_log_with_old_damage_is_saved_all_the_same() {
    let world = world(82);
    let (disk, inner) = (world.disk(), world.clone());
    let sequence = world.block_on(async move {
        let (store, logs) = two_logs(&disk).await;
        let sequence = long_log(&store, &logs[0]).await;
        let file = disk.open(&last_segment(&logs[0])).await.unwrap();
        let mut block = file.read_at(BLOCK as u64, BLOCK).await.unwrap();
        block[300] ^= 1;
        file.write_at(block.freeze(), BLOCK as u64).await.unwrap();
        fail_long_log(&logs[0], &inner, sequence).await;
        save_long_log(&store, &logs[1]).await;
        sequence
    });
    assert_eq!(long_log_after(&world.crash(Crash::PowerLoss), sequence), Ok(i64::from(sequence) + 3));
}

#[test]
fn reads_that_fail_for_a_while_cost_nothing() {
    let world = world(83);
    let (disk, inner) = (world.disk(), world.clone());
    let sequence = world.block_on(async move {
        let (store, logs) = two_logs(&disk).await;
        let sequence = long_log(&store, &logs[0]).await;
        inner.inject(fault(Operation::Read, last_segment(&logs[0]).to_str().unwrap(), 2));
        fail_long_log(&logs[0], &inner, sequence).await;
        save_long_log(&store, &logs[1]).await;
        assert_eq!(inner.faults_left(), 0, "it was read");
        sequence
    });
    assert_eq!(long_log_after(&world.crash(Crash::PowerLoss), sequence), Ok(i64::from(sequence) + 3));
}

/// What cannot be read may stand in the journal alone. So the shard goes offline with its journal, and the next start replays it.
#[test]
fn blocks_that_cannot_be_read_lose_nothing_to_a_failed_write() {
    for crash in [Crash::Kill, Crash::PowerLoss] {
        let world = world(83);
        let (disk, inner) = (world.disk(), world.clone());
        let sequence = world.block_on(async move {
            let (store, logs) = two_logs(&disk).await;
            let sequence = long_log(&store, &logs[0]).await;
            inner.inject(fault(Operation::Read, last_segment(&logs[0]).to_str().unwrap(), u64::MAX));
            fail_long_log(&logs[0], &inner, sequence).await;
            store.checkpoint().await.unwrap_err();
            let told = logs[1].offline().map(|offline| offline.to_string()).unwrap_or_default();
            assert!(told.contains("log a-0") && told.contains("cannot be read"), "{told}");
            sequence
        });
        world.clear_faults();
        assert_eq!(long_log_after(&world.crash(crash), sequence), Ok(i64::from(sequence) + 3), "{crash:?}");
    }
}

/// A batch of one record of that producer.
fn produced_by(producer: i64, sequence: i32) -> Batch {
    let mut builder = BatchBuilder::new().producer(producer, 0, sequence);
    let value = vec![sequence as u8; 6000];
    builder.append(&NewRecord { timestamp: 1, value: Some(&value), ..NewRecord::default() }).unwrap();
    builder.finish().unwrap()
}

/// Two segments: a batch of producer 7, and all others of producer 9.
async fn two_producers(disk: &SimDisk) {
    let (store, _) = open(disk.clone(), small()).await;
    let log = store.create_log("a-0", log_config()).await.unwrap();
    for n in 0..30 {
        let batch = if n == 0 { produced_by(7, 0) } else { produced_by(9, n - 1) };
        let appended = log.append(vec![batch], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
    }
    assert_eq!(log.segment_count(), 2);
    store.close().await.unwrap();
}

fn first_segment() -> PathBuf {
    Path::new(DIR).join("logs/a-0/00000000000000000000.log")
}

fn is_duplicate(log: &Log<SimDisk>, batch: Batch) -> bool {
    log.append(vec![batch], client(0)).unwrap().duplicate
}

/// Which batches of the producer that the cut concerns are left nobody knows; of all others it is known.
#[test]
fn damage_before_a_cut_costs_no_producer_that_the_cut_leaves_alone() {
    let world = world(90);
    let disk = world.disk();
    world.block_on(async move {
        two_producers(&disk).await;
        let file = disk.open(&first_segment()).await.unwrap();
        // Within the third batch.
        let at = (BLOCK as u64 + 2 * 6000 + 3000) / BLOCK as u64 * BLOCK as u64;
        let mut block = file.read_at(at, BLOCK).await.unwrap();
        block[0] ^= 1;
        file.write_at(block.freeze(), at).await.unwrap();
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.log("a-0").unwrap();
        assert_eq!(log.truncate(29).await, Ok(29));
        assert!(is_duplicate(&log, produced_by(7, 0)));
        assert!(!is_duplicate(&log, produced_by(9, 28)));
        store.close().await.unwrap();
    });
}

#[test]
fn a_truncation_does_not_mind_blocks_behind_its_cut_that_cannot_be_read() {
    let world = world(91);
    let disk = world.disk();
    world.block_on(async move { two_producers(&disk).await });
    let mut files = world.files();
    // The fourth batch ends in the last block that is there.
    let len = (BLOCK + 4 * produced_by(9, 0).len()).next_multiple_of(BLOCK);
    files.get_mut(&first_segment()).unwrap().truncate(len);
    let world = SimWorld::with_files(92, &files);
    let disk = world.disk();
    world.block_on(async move {
        let (store, report) = open(disk.clone(), small()).await;
        assert_eq!(report.offline, []);
        let log = store.log("a-0").unwrap();
        assert_eq!(log.truncate(4).await, Ok(4));
        assert_eq!(read_all(&log).await.len(), 4);
        assert!(is_duplicate(&log, produced_by(7, 0)) && is_duplicate(&log, produced_by(9, 2)));
        assert!(!is_duplicate(&log, produced_by(9, 3)));
        store.close().await.unwrap();
    });
}
