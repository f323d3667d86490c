//! Damage that a log had before one of its writes fails, or before it is truncated: blocks that rotted, or that cannot be read.

use std::path::PathBuf;

use super::failures::{append, fault, produced, two_logs};
use super::*;
use crate::ReadError;
use crate::disk::sim::{Crash, Operation};
use crate::disk::{BLOCK, Disk, DiskFile};

/// A log of two segments and most of a third, all of one producer, of which memory has not the third's first batches.
async fn long_log(store: &Store<SimDisk>, log: &Log<SimDisk>) -> i32 {
    let mut sequence = 0;
    let mut left = 18;
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
    let lost = bad.append(vec![produced(sequence + 2, 30_000)], client(0)).unwrap();
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
            [(sequence - 1, 6000, true), (sequence + 1, 6000, true), (sequence + 2, 30_000, false)]
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
