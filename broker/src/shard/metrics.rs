//! Counters of one shard: written by its thread alone, read by the admin thread.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::course::microseconds;
use super::stages::Handover;

/// Upper bounds of the latency buckets in microseconds; the last bucket has none.
pub(crate) const LATENCY_BOUNDS_US: [u32; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_500_000];

/// Kinds of requests that are counted apart: a bounded set, whatever clients send.
pub(crate) const KINDS: [&str; 3] = ["produce", "fetch", "other"];

/// Latency of one kind of request.
#[derive(Default)]
pub(crate) struct Latency {
    pub(crate) buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    pub(crate) sum_us: AtomicU64,
}

/// Levels copied from what the shard alone can see, by its periodic task.
#[derive(Default)]
pub(crate) struct Levels {
    pub(crate) connections: AtomicU64,
    pub(crate) request_bytes: AtomicU64,
    pub(crate) answer_bytes: AtomicU64,
    pub(crate) partitions: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
    pub(crate) direct_bytes: AtomicU64,
    pub(crate) writeback_bytes: AtomicU64,
    pub(crate) unsettled_bytes: AtomicU64,
    pub(crate) cache_bytes: AtomicU64,
    pub(crate) frame_bytes: AtomicU64,
    pub(crate) index_bytes: AtomicU64,
    pub(crate) producers: AtomicU64,
    pub(crate) spilled_producers: AtomicU64,
    pub(crate) spilled_bytes: AtomicU64,
    pub(crate) spilled_memory_bytes: AtomicU64,
    pub(crate) producers_brought_back: AtomicU64,
    pub(crate) producers_forgotten: AtomicU64,
    pub(crate) open_files: AtomicU64,
    pub(crate) offline_partitions: AtomicU64,
    pub(crate) disk_full: AtomicU64,
    pub(crate) scrub_batches: AtomicU64,
    pub(crate) scrub_bytes: AtomicU64,
    pub(crate) scrub_passes: AtomicU64,
    pub(crate) scrub_damaged: AtomicU64,
    pub(crate) scrub_mended: AtomicU64,
    pub(crate) disk_free_bytes: AtomicU64,
    pub(crate) disk_reserve_bytes: AtomicU64,
    pub(crate) cleaner_rounds: AtomicU64,
    pub(crate) read_ahead_bytes: AtomicU64,
    pub(crate) read_ahead_taken_bytes: AtomicU64,
    pub(crate) read_ahead_unused_bytes: AtomicU64,
    pub(crate) read_ahead_held_bytes: AtomicU64,
    pub(crate) cleaner_read_bytes: AtomicU64,
    pub(crate) cleaner_written_bytes: AtomicU64,
    pub(crate) cleaner_dropped_records: AtomicU64,
    pub(crate) cleaner_dirty_millionths_max: AtomicU64,
    pub(crate) cleaner_uncleanable_logs: AtomicU64,
}

/// All counters of a shard.
#[derive(Default)]
pub(crate) struct ShardMetrics {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) requests: AtomicU64,
    /// Requests received, and neither answered nor given up.
    pub(crate) in_flight: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) fetched_bytes: AtomicU64,
    pub(crate) slow_requests: AtomicU64,
    pub(crate) latency: [Latency; KINDS.len()],
    pub(crate) levels: Levels,
    /// Latency of the stages, on its way out.
    pub(crate) handover: Handover,
}

/// A request in flight, for as long as this lives: on the shard's thread, which alone writes its counters.
pub(crate) struct InFlight(Arc<ShardMetrics>, PhantomData<*const ()>);

impl Drop for InFlight {
    fn drop(&mut self) {
        add(&self.0.in_flight, 1_u64.wrapping_neg());
    }
}

/// Adds to a counter of this thread's. Nobody else writes it, so that it need not be locked between reading and writing.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

impl ShardMetrics {
    pub(crate) fn connection_accepted(&self) {
        add(&self.accepted, 1);
    }

    pub(crate) fn connection_refused(&self) {
        add(&self.refused, 1);
    }

    pub(crate) fn request_received(self: &Arc<ShardMetrics>, bytes: usize) -> InFlight {
        add(&self.requests, 1);
        add(&self.received_bytes, bytes as u64);
        add(&self.in_flight, 1);
        InFlight(self.clone(), PhantomData)
    }

    pub(crate) fn appended(&self, bytes: usize) {
        add(&self.appended_bytes, bytes as u64);
    }

    pub(crate) fn read(&self, bytes: usize) {
        add(&self.fetched_bytes, bytes as u64);
    }

    /// Counts a request by the time from its last byte's arrival to its answer being ready to send.
    pub(crate) fn request_answered(&self, api_key: i16, latency: Duration) {
        let us = microseconds(latency);
        let kind =
            &self.latency[usize::try_from(api_key).map_or(KINDS.len() - 1, |k| k.min(KINDS.len() - 1))];
        // All of them: fewer instructions than a search takes.
        add(&kind.buckets[LATENCY_BOUNDS_US.iter().filter(|bound| **bound < us).count()], 1);
        add(&kind.sum_us, u64::from(us));
    }
}
