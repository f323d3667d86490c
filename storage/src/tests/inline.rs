//! Which commits leave all they have to the journal and write behind.

use std::time::Duration;

use super::*;
use crate::disk::Disk;
use crate::disk::sim::Crash;
use crate::inline::TICKS_MIN;
use crate::state::add;

const LEN: usize = 20_000;

/// A commit of `count` batches of different logs; gives the bytes that went straight to segments.
async fn commit(store: &Store<SimDisk>, logs: &[Log<SimDisk>], fill: u64) -> u64 {
    let before = store.stats().direct_bytes;
    let append = |log: &Log<SimDisk>| log.append(vec![batch(1, LEN, fill, 1)], client(0)).unwrap();
    let tickets: Vec<_> = logs.iter().map(append).collect();
    for (log, appended) in logs.iter().zip(tickets) {
        log.durable(appended.ticket).await.unwrap();
    }
    store.stats().direct_bytes - before
}

#[test]
fn a_small_commit_goes_inline_while_write_behind_keeps_up() {
    let world = world(90);
    let disk = world.disk();
    world.block_on(async move {
        let config = StoreConfig {
            inline_commit_bytes_max: 2 * LEN,
            unsettled_bytes_max: 1 << 20,
            cache_bytes_max: 1 << 20,
            open_files_max: 64,
            // All of the test in one segment: a new one has no file yet, so that its commits go inline anyway.
            segment_bytes_max: 512 << 10,
            ..small()
        };
        let (store, _) = open(disk.clone(), config).await;
        let mut logs = Vec::new();
        for name in ["a-0", "b-0", "c-0"] {
            logs.push(store.create_log(name, log_config()).await.unwrap());
        }
        commit(&store, &logs, 0).await;
        // Only a segment whose file is there, and long enough, can be written to directly.
        let ready = |log: &Log<SimDisk>| {
            let active = log.inner.state.borrow().segments.back().unwrap().clone();
            active.prepared_to.get() >= active.end.get() + LEN as u64
        };
        let all_ready = async || {
            while !logs.iter().all(ready) {
                disk.sleep(Duration::from_millis(5)).await;
            }
        };
        all_ready().await;
        let direct = (LEN - 2 * 4096) as u64;
        assert_eq!(commit(&store, &logs[..2], 1).await, 0, "small enough");
        assert!(commit(&store, &logs, 2).await >= 3 * direct, "too much for a frame");
        let waiters = &logs[0].store.levels.room_waiters;
        add(waiters, 1);
        assert!(commit(&store, &logs[..1], 3).await >= direct, "write behind is waited for");
        waiters.set(0);
        assert!(commit(&store, &logs[..1], 4).await >= direct, "a moment ago it was");
        for _ in 0..TICKS_MIN - 1 {
            logs[0].store.writeback.inline.note(100 * LEN);
            store.tick(0).await;
        }
        all_ready().await;
        assert!(commit(&store, &logs[..1], 5).await >= direct, "still a moment ago");
        store.tick(0).await;
        all_ready().await;
        assert_eq!(commit(&store, &logs[..1], 6).await, 0, "long enough ago");
    });
    let world = world.crash(Crash::PowerLoss);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, small()).await;
        for (name, fills) in [("a-0", &[0, 1, 2, 3, 4, 5, 6][..]), ("b-0", &[0, 1, 2]), ("c-0", &[0, 2])] {
            let found = read_all(&store.log(name).unwrap()).await;
            let bodies: Vec<_> = found.into_iter().map(|batch| batch.body).collect();
            let sent: Vec<_> = fills.iter().map(|fill| batch(1, LEN, *fill, 1).body).collect();
            assert!(bodies == sent, "{name}");
        }
    });
}
