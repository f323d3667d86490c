//! What a shard does by the clock.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Shard;
use crate::runtime::task;

/// Time between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs once a second for as long as the shard does: retention and its like in the store, snapshots of the metadata, levels
/// and latencies for the admin port, and another try at partitions that could not be opened or removed.
pub(crate) async fn periodic(shard: Rc<Shard>) {
    loop {
        task::sleep(INTERVAL).await;
        if shard.draining() {
            return;
        }
        shard.store.tick(task::now_ms()).await;
        publish_levels(&shard);
        shard.stages.hand_over();
        if shard.metadata.get().is_some() {
            let shard = shard.clone();
            // Beside the rounds, which it must not hold up.
            task::spawn("metadata snapshot", async move {
                if let Some(driver) = shard.metadata.get() {
                    driver.snapshot_if_due(&shard).await;
                }
            });
        }
        if shard.behind.take() {
            // An error sets `behind` again, and was logged.
            let _ = shard.open_partitions().await;
        }
    }
}

fn publish_levels(shard: &Shard) {
    let set = |level: &AtomicU64, value: u64| level.store(value, Ordering::Relaxed);
    let stats = shard.store.stats();
    let levels = &shard.metrics.levels;
    set(&levels.connections, shard.connections.len() as u64);
    set(&levels.request_bytes, shard.budget.used() as u64);
    set(&levels.answer_bytes, shard.answer_budget.used() as u64);
    set(&levels.partitions, shard.partitions.borrow().len() as u64);
    set(&levels.commits, stats.commits);
    set(&levels.journal_bytes, stats.journal_bytes);
    set(&levels.direct_bytes, stats.direct_bytes);
    set(&levels.writeback_bytes, stats.writeback_bytes);
    set(&levels.unsettled_bytes, stats.unsettled_bytes as u64);
    set(&levels.cache_bytes, stats.cache_bytes as u64);
    set(&levels.frame_bytes, stats.frame_bytes as u64);
    set(&levels.index_bytes, stats.index_bytes as u64);
    set(&levels.producers, stats.producers as u64);
    set(&levels.open_files, stats.open_files as u64);
    set(&levels.offline_partitions, stats.offline_logs as u64);
    set(&levels.disk_full, u64::from(stats.disk_full));
    set(&levels.scrub_batches, stats.scrub_batches);
    set(&levels.scrub_bytes, stats.scrub_bytes);
    set(&levels.scrub_passes, stats.scrub_passes);
    set(&levels.scrub_damaged, stats.scrub_damaged);
    set(&levels.scrub_mended, stats.scrub_mended);
    set(&levels.disk_free_bytes, stats.free_bytes);
    set(&levels.disk_reserve_bytes, stats.reserve_bytes);
}
