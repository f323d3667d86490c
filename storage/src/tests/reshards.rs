//! Moving logs between shards, with crashes in between.

use super::clean::{append, compacted, config as cleaning, keys_of, settle};
use super::*;
use crate::disk::Disk;
use crate::disk::sim::Crash;
use crate::{Resharding, reshard, reshard_plan_path, shard_dir};

pub(super) const DATA: &str = "/data";

async fn open_shard(disk: &SimDisk, shard: usize) -> Store<SimDisk> {
    open_shard_with(disk, shard, small()).await
}

pub(super) async fn open_shard_with(disk: &SimDisk, shard: usize, config: StoreConfig) -> Store<SimDisk> {
    let dir = shard_dir(Path::new(DATA), shard);
    let config = StoreConfig { id_space: shard as u16, ..config };
    let (store, report) = Store::open(disk.clone(), &dir, config, 0).await.unwrap();
    assert_eq!(report.offline, []);
    store
}

async fn move_logs(disk: &SimDisk, to: usize) -> usize {
    let assign = |name: &str, _| name.len() % to;
    reshard(disk, Path::new(DATA), &small(), &Resharding { to, assign: &assign }, 0).await.unwrap()
}

/// Appends one batch to each log of each shard, and checks what is there.
async fn use_all(disk: &SimDisk, shards: usize, rounds: i64) {
    let mut found = 0;
    for shard in 0..shards {
        let store = open_shard(disk, shard).await;
        for log in store.logs() {
            assert_eq!(log.name().len() % shards, shard, "{}", log.name());
            if log.name().starts_with("no-") {
                continue; // Never written to.
            }
            found += 1;
            assert_eq!(read_all(&log).await.len() as i64, rounds, "{}", log.name());
            let appended = log.append(vec![batch(1, 9000, 1, 1)], client(0)).unwrap();
            assert_eq!(appended.base_offset, rounds);
            log.durable(appended.ticket).await.unwrap();
        }
        store.close().await.unwrap();
    }
    assert_eq!(found, 4);
}

#[test]
fn logs_move_up_and_down_and_survive_crashes_under_way() {
    for seed in 0..200 {
        let first = world(seed);
        let disk = first.disk();
        first.block_on(async move {
            let store = open_shard(&disk, 0).await;
            for name in ["a", "bb", "ccc", "dddd", "no-directory-1", "no-directory-22"] {
                store.create_log(name, log_config()).await.unwrap();
            }
            store.close().await.unwrap();
            use_all(&disk, 1, 0).await;
        });
        let mut current = first;
        for crashes in 0..3 {
            let disk = current.disk();
            let steps = current.steps() + 1 + current.random(if crashes == 0 { 3000 } else { 600 });
            current.block_on_until(steps, async move { move_logs(&disk, 3).await });
            let crash = if current.random(3) == 0 { Crash::Kill } else { Crash::PowerLoss };
            current = current.crash(crash);
        }
        let disk = current.disk();
        current.block_on(async move {
            move_logs(&disk, 3).await;
            assert!(!disk.exists(&reshard_plan_path(Path::new(DATA))).await.unwrap());
            assert_eq!(move_logs(&disk, 3).await, 0);
            use_all(&disk, 3, 1).await;
            assert!(move_logs(&disk, 2).await > 0);
            use_all(&disk, 2, 2).await;
        });
        // And down from three to two, where shards both lose and gain.
        let disk = current.disk();
        current.block_on(async move { move_logs(&disk, 3).await });
        for _ in 0..3 {
            let disk = current.disk();
            let steps = current.steps() + 1 + current.random(600);
            current.block_on_until(steps, async move { move_logs(&disk, 2).await });
            let crash = if current.random(3) == 0 { Crash::Kill } else { Crash::PowerLoss };
            current = current.crash(crash);
        }
        let disk = current.disk();
        current.block_on(async move {
            move_logs(&disk, 2).await;
            use_all(&disk, 2, 3).await;
        });
    }
}

/// Names of the segment files in a log's directory.
async fn segment_files(disk: &SimDisk, shard: usize, log: &str) -> Vec<String> {
    let dir = shard_dir(Path::new(DATA), shard).join("logs").join(log);
    let names = disk.list(&dir).await.unwrap().into_iter().map(|entry| entry.name);
    names.filter(|name| name.ends_with(".log")).collect()
}

async fn open_cleaning(disk: &SimDisk, shard: usize) -> (Store<SimDisk>, Log<SimDisk>) {
    let dir = shard_dir(Path::new(DATA), shard);
    let config = StoreConfig { id_space: shard as u16, ..cleaning() };
    let (store, report) = Store::open(disk.clone(), &dir, config, 1000).await.unwrap();
    assert_eq!(report.offline, []);
    let log = store.log("four").unwrap();
    log.set_config(compacted());
    (store, log)
}

/// Files of a cleaned log have names of their own, which the checkpoint that it moves to has to tell.
#[test]
fn a_cleaned_log_moves_whole_and_is_cleaned_on() {
    for seed in 0..60 {
        let mut current = world(seed);
        let (disk, kill) = (current.disk(), seed % 3 == 0);
        let before = current.block_on(async move {
            let store = open_shard(&disk, 0).await;
            store.create_log("four", compacted()).await.unwrap();
            store.close().await.unwrap();
            let (store, log) = open_cleaning(&disk, 0).await;
            append(&store, &log, (0..60).map(|n| (n % 11).to_string())).await;
            settle(&store, &disk, &mut 2000).await;
            let cleaned_to = log.cleaned_offset();
            assert!(cleaned_to > 40);
            append(&store, &log, (0..20).map(|n| (n % 5).to_string())).await;
            let keys = keys_of(&read_all(&log).await);
            // Every other time the frames tell of what is not in segments yet.
            if !kill {
                store.close().await.unwrap();
            }
            (keys, cleaned_to)
        });
        for _ in 0..2 {
            current = current.crash(if kill { Crash::Kill } else { Crash::PowerLoss });
            let disk = current.disk();
            let steps = current.steps() + 1 + current.random(600);
            current.block_on_until(steps, async move { move_logs(&disk, 3).await });
        }
        current = current.crash(if kill { Crash::Kill } else { Crash::PowerLoss });
        let disk = current.disk();
        current.block_on(async move {
            move_logs(&disk, 3).await;
            let (store, log) = open_cleaning(&disk, 1).await;
            assert_eq!((keys_of(&read_all(&log).await), log.cleaned_offset()), before, "seed {seed}");
            let mut now_ms = 3000;
            settle(&store, &disk, &mut now_ms).await;
            assert!(log.cleaned_offset() > before.1, "seed {seed}: cleaned on");
            let keys = keys_of(&read_all(&log).await);
            assert!(keys.len() < before.0.len() && keys.last() == before.0.last(), "seed {seed}: {keys:?}");
            assert!(before.0.iter().all(|(_, key)| keys.iter().any(|(_, left)| left == key)));
            store.close().await.unwrap();
            assert_eq!(segment_files(&disk, 1, "four").await.len(), log.segment_count(), "seed {seed}");
            move_logs(&disk, 2).await;
            let (store, log) = open_cleaning(&disk, 0).await;
            assert_eq!(keys_of(&read_all(&log).await), keys, "seed {seed}: back again");
            store.close().await.unwrap();
        });
    }
}
