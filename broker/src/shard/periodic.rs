//! What a shard does by the clock.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use penstock_core::config::CleanerLimits;
use penstock_core::config::memory::MemoryPart;
use penstock_storage::CleanerConfig;

use super::Shard;
use crate::runtime::{heap, task};

/// Time between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rounds between two looks for memory to give back.
const GIVE_BACK_ROUNDS: u64 = 15;

/// Runs once a second for as long as the shard does: retention and its like in the store, snapshots of the metadata, levels
/// and latencies for the admin port, another try at partitions that could not be opened or removed, and now and then free
/// memory back to the system.
pub(crate) async fn periodic(shard: Rc<Shard>) {
    for round in 1_u64.. {
        task::sleep(INTERVAL).await;
        if shard.draining() {
            return;
        }
        if round % GIVE_BACK_ROUNDS == 0 {
            heap::give_back();
        }
        shard.follow_cleaner_limits();
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

impl Shard {
    /// The cleaner's limits may change at run time.
    fn follow_cleaner_limits(&self) {
        let limits = self.shared.image.load().broker().cleaner;
        if self.cleaner_limits.replace(limits) != limits {
            let memory = self.shared.memory.bytes(MemoryPart::Cleaner);
            self.store.set_cleaner(cleaner_config(
                &limits,
                memory,
                self.shared.shards,
                self.cleaner_hash_key,
            ));
        }
    }
}

/// A shard's part of the broker's limits, and of its memory budget.
pub(crate) fn cleaner_config(
    limits: &CleanerLimits,
    memory: u64,
    shards: usize,
    hash_key: [u64; 2],
) -> CleanerConfig {
    let share = |of_all: u64| of_all / (shards as u64).max(1);
    CleanerConfig {
        enabled: limits.enabled,
        map_bytes_max: usize::try_from(share(limits.map_bytes).min(memory)).unwrap_or(usize::MAX),
        map_load_percent: limits.map_load_percent,
        io_bytes: limits.io_bytes,
        io_bytes_per_second: share(limits.io_bytes_per_second),
        backoff_ms: limits.backoff_ms,
        hash_key,
        ..CleanerConfig::default()
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
    set(&levels.spilled_producers, stats.spilled_producers);
    set(&levels.spilled_bytes, stats.spilled_bytes);
    set(&levels.spilled_memory_bytes, stats.spilled_memory_bytes as u64);
    set(&levels.producers_brought_back, stats.producers_brought_back);
    set(&levels.producers_forgotten, stats.producers_forgotten);
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
    set(&levels.cleaner_rounds, stats.cleaner_rounds);
    set(&levels.read_ahead_bytes, stats.read_ahead_bytes);
    set(&levels.read_ahead_taken_bytes, stats.read_ahead_taken_bytes);
    set(&levels.read_ahead_unused_bytes, stats.read_ahead_unused_bytes);
    set(&levels.read_ahead_held_bytes, stats.read_ahead_held_bytes as u64);
    set(&levels.cleaner_read_bytes, stats.cleaner_read_bytes);
    set(&levels.cleaner_written_bytes, stats.cleaner_written_bytes);
    set(&levels.cleaner_dropped_records, stats.cleaner_dropped_records);
    set(&levels.cleaner_dirty_millionths_max, u64::from(stats.cleaner_dirty_millionths_max));
    set(&levels.cleaner_uncleanable_logs, stats.cleaner_uncleanable_logs as u64);
}
