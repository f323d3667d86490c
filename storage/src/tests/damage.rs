//! Acknowledged data found damaged: it is told from what a crash left torn, and never passed over in silence.

use super::*;
use crate::OpenError;
use crate::disk::sim::Crash;
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskFile};

fn journal() -> std::path::PathBuf {
    Path::new(DIR).join("journal/0000.journal")
}

/// Where the frames in the first journal file begin.
async fn frames(disk: &SimDisk) -> Vec<u64> {
    let file = disk.open(&journal()).await.unwrap();
    let bytes = file.read_at(0, file.size() as usize).await.unwrap();
    let blocks = bytes.chunks(BLOCK).enumerate();
    blocks.filter(|(_, block)| block.starts_with(b"PSJF")).map(|(at, _)| (at * BLOCK) as u64).collect()
}

/// Changes one byte of a file.
async fn flip(disk: &SimDisk, path: &Path, at: u64) {
    let file = disk.open(path).await.unwrap();
    let from = at / BLOCK as u64 * BLOCK as u64;
    let block = file.read_at(from, BLOCK).await.unwrap();
    let mut changed = AlignedBuf::zeroed(BLOCK);
    changed.copy_from_slice(&block);
    changed[(at - from) as usize] ^= 1;
    file.write_at(changed.freeze(), from).await.unwrap();
    file.sync_data().await.unwrap();
}

/// A store with three acknowledged batches of `len` bytes, then so many ticks, then killed; and the frames it left.
fn killed(len: usize, ticks: usize) -> (SimWorld, Vec<u64>) {
    let first = world(7);
    let disk = first.disk();
    let frames = first.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        for n in 0..3 {
            let appended = log.append(vec![batch(1, len, n, 1)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
            while store.stats().open_files == 0 {
                disk.sleep(std::time::Duration::from_millis(10)).await;
            }
        }
        for _ in 0..ticks {
            store.tick(2000).await;
            disk.sleep(std::time::Duration::from_secs(1)).await;
        }
        // The last frame may be on its way still.
        for _ in 0..20 {
            disk.sleep(std::time::Duration::from_millis(50)).await;
        }
        frames(&disk).await
    });
    (first.crash(Crash::Kill), frames)
}

/// Flips a byte so far from the beginning of frame `index`, and opens.
fn open_with(
    (world, frames): (SimWorld, Vec<u64>),
    index: usize,
    at: u64,
) -> Result<RecoveryReport, OpenError> {
    let disk = world.disk();
    world.block_on(async move {
        flip(&disk, &journal(), frames[index] + at).await;
        let opened = Store::open(disk, Path::new(DIR), small(), 3000).await;
        opened.map(|(_, report)| report)
    })
}

/// Creation, three appends.
const LAST: usize = 3;

#[test]
fn a_damaged_frame_before_others_keeps_the_store_closed() {
    let refused = open_with(killed(500, 0), LAST - 1, 30).unwrap_err();
    assert!(refused.to_string().contains("is damaged although it was stable"), "{refused}");
}

#[test]
fn the_last_frame_is_vouched_for_after_a_quiet_while() {
    for ticks in [0, 1] {
        // Nothing tells it from one that was never written: so long it takes.
        let report = open_with(killed(500, ticks), LAST, 30).unwrap();
        assert_eq!((report.frames_replayed, report.offline.len()), (LAST as u64, 0), "{report:?}");
    }
    let refused = open_with(killed(500, 2), LAST, 30).unwrap_err();
    assert!(refused.to_string().contains("is damaged although it was stable"), "{refused}");
    // The frame that vouches for it holds nothing itself.
    let report = open_with(killed(500, 2), LAST + 1, 30).unwrap();
    assert_eq!((report.frames_replayed, report.offline.len()), (LAST as u64 + 1, 0), "{report:?}");
}

#[test]
fn the_last_records_are_vouched_for_after_a_quiet_while() {
    let inline = |ticks| open_with(killed(500, ticks), LAST, 400).unwrap();
    assert_eq!((inline(0).torn_tail, inline(0).offline.len()), (true, 0));
    assert_eq!((inline(2).torn_tail, inline(2).offline.len()), (false, 1));
    let direct = |ticks| {
        let (world, _) = killed(40_000, ticks);
        let disk = world.disk();
        world.block_on(async move {
            let segment = Path::new(DIR).join("logs/a-0/00000000000000000000.log");
            flip(&disk, &segment, 4096 + 2 * 40_000 + 20_000).await;
            open(disk, small()).await.1
        })
    };
    assert_eq!((direct(0).torn_tail, direct(0).offline.len()), (true, 0));
    assert_eq!((direct(2).torn_tail, direct(2).offline.len()), (false, 1));
}

#[test]
fn an_idle_store_writes_that_once_and_none_after_a_checkpoint() {
    let world = world(8);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a-0", log_config()).await.unwrap();
        let tick = async || {
            let before = store.stats().journal_bytes;
            for _ in 0..5 {
                store.tick(2000).await;
                disk.sleep(std::time::Duration::from_secs(1)).await;
            }
            store.stats().journal_bytes - before
        };
        assert_eq!(tick().await, BLOCK as u64);
        assert_eq!(tick().await, 0);
        let appended = log.append(vec![batch(1, 500, 0, 1)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        assert_eq!(tick().await, BLOCK as u64);
        let appended = log.append(vec![batch(1, 500, 1, 1)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        store.checkpoint().await.unwrap();
        assert_eq!(tick().await, 0);
        store.close().await.unwrap();
    });
}
