//! Moving logs between shards, with crashes in between.

use super::*;
use crate::disk::Disk;
use crate::disk::sim::Crash;
use crate::{Resharding, reshard, reshard_plan_path, shard_dir};

const DATA: &str = "/data";

fn config(shard: usize) -> StoreConfig {
    StoreConfig { id_space: shard as u16, ..small() }
}

async fn open_shard(disk: &SimDisk, shard: usize) -> Store<SimDisk> {
    let dir = shard_dir(Path::new(DATA), shard);
    let (store, report) = Store::open(disk.clone(), &dir, config(shard), 0).await.unwrap();
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
