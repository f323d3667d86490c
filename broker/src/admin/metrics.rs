//! Metrics in Prometheus' text format. Labels are shards and kinds of requests, never topics or clients: their number
//! does not grow with use.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use penstock_core::config::memory::{MemoryPart, PRODUCER_BYTES};

use crate::shard::{KINDS, LATENCY_BOUNDS_US, ShardMetrics, Shared};

type Read = fn(&ShardMetrics) -> &AtomicU64;

/// Counters and levels per shard: name, type, help, where it stands.
const PER_SHARD: [(&str, &str, &str, Read); 41] = [
    ("connections_accepted_total", "counter", "Connections accepted.", |m| &m.accepted),
    ("connections_refused_total", "counter", "Connections refused or closed for a fault of the peer.", |m| {
        &m.refused
    }),
    ("received_bytes_total", "counter", "Bytes of requests received.", |m| &m.received_bytes),
    ("appended_bytes_total", "counter", "Bytes of record batches appended.", |m| &m.appended_bytes),
    ("fetched_bytes_total", "counter", "Bytes of record batches read for consumers.", |m| &m.fetched_bytes),
    ("slow_requests_total", "counter", "Requests that took `penstock.slow.request.ms` or longer.", |m| {
        &m.slow_requests
    }),
    ("connections", "gauge", "Connections open.", |m| &m.levels.connections),
    ("request_bytes", "gauge", "Bytes of requests held in memory.", |m| &m.levels.request_bytes),
    ("answer_bytes", "gauge", "Bytes of fetched records waiting to be sent.", |m| &m.levels.answer_bytes),
    ("partitions", "gauge", "Partitions open.", |m| &m.levels.partitions),
    ("commits_total", "counter", "Group commits made stable.", |m| &m.levels.commits),
    ("journal_bytes_total", "counter", "Bytes written to the journal.", |m| &m.levels.journal_bytes),
    ("direct_bytes_total", "counter", "Bytes written straight to segments.", |m| &m.levels.direct_bytes),
    ("writeback_bytes_total", "counter", "Bytes written behind to segments.", |m| &m.levels.writeback_bytes),
    ("unsettled_bytes", "gauge", "Bytes appended and not yet in their segments.", |m| {
        &m.levels.unsettled_bytes
    }),
    ("cache_bytes", "gauge", "Bytes of record batches in memory.", |m| &m.levels.cache_bytes),
    ("open_files", "gauge", "Segment files open.", |m| &m.levels.open_files),
    ("scrub_batches_total", "counter", "Batches read again to find damage.", |m| &m.levels.scrub_batches),
    ("scrub_bytes_total", "counter", "Bytes of batches read again to find damage.", |m| {
        &m.levels.scrub_bytes
    }),
    ("scrub_passes_total", "counter", "Times that all settled was read again.", |m| &m.levels.scrub_passes),
    ("scrub_damaged_total", "counter", "Damaged places that reading again found.", |m| {
        &m.levels.scrub_damaged
    }),
    ("scrub_mended_total", "counter", "Headers, indexes and checkpoints written anew.", |m| {
        &m.levels.scrub_mended
    }),
    ("offline_partitions", "gauge", "Logs that are offline after a failure of the disk.", |m| {
        &m.levels.offline_partitions
    }),
    (
        "producers",
        "gauge",
        "Idempotent producers in memory, once for each partition that they wrote to.",
        |m| &m.levels.producers,
    ),
    ("spilled_producers", "gauge", "The same on disk, with what is superseded there.", |m| {
        &m.levels.spilled_producers
    }),
    ("spilled_bytes", "gauge", "Bytes of the files of producers on disk.", |m| &m.levels.spilled_bytes),
    ("producers_brought_back_total", "counter", "Producers that came back from disk to write.", |m| {
        &m.levels.producers_brought_back
    }),
    ("producers_forgotten_total", "counter", "Producers forgotten before their time.", |m| {
        &m.levels.producers_forgotten
    }),
    ("disk_full", "gauge", "1 while appends of clients are refused for want of space.", |m| {
        &m.levels.disk_full
    }),
    ("disk_free_bytes", "gauge", "Bytes free on the file system of the data.", |m| &m.levels.disk_free_bytes),
    ("disk_reserve_bytes", "gauge", "Bytes that have to be free for appends of clients to be taken.", |m| {
        &m.levels.disk_reserve_bytes
    }),
    ("read_ahead_bytes_total", "counter", "Bytes read ahead of consumers.", |m| &m.levels.read_ahead_bytes),
    ("read_ahead_taken_bytes_total", "counter", "Bytes read ahead of which a consumer took.", |m| {
        &m.levels.read_ahead_taken_bytes
    }),
    ("read_ahead_unused_bytes_total", "counter", "Bytes read ahead of which nobody took.", |m| {
        &m.levels.read_ahead_unused_bytes
    }),
    ("read_ahead_held_bytes", "gauge", "Memory of what is read ahead.", |m| &m.levels.read_ahead_held_bytes),
    ("cleaner_rounds_total", "counter", "Times that a compacted log was cleaned.", |m| {
        &m.levels.cleaner_rounds
    }),
    ("cleaner_read_bytes_total", "counter", "Bytes that cleaning read.", |m| &m.levels.cleaner_read_bytes),
    ("cleaner_written_bytes_total", "counter", "Bytes that cleaning wrote.", |m| {
        &m.levels.cleaner_written_bytes
    }),
    ("cleaner_dropped_records_total", "counter", "Records that cleaning dropped.", |m| {
        &m.levels.cleaner_dropped_records
    }),
    (
        "cleaner_dirty_millionths_max",
        "gauge",
        "Largest part of a compacted log that was not cleaned yet, in millionths.",
        |m| &m.levels.cleaner_dirty_millionths_max,
    ),
    (
        "cleaner_uncleanable_logs",
        "gauge",
        "Compacted logs that are not cleaned for damage or a failing disk.",
        |m| &m.levels.cleaner_uncleanable_logs,
    ),
];

/// The page.
pub(super) fn render(shared: &Shared) -> String {
    let mut page = String::new();
    for (name, kind, help, read) in PER_SHARD {
        head(&mut page, name, kind, help);
        for (shard, metrics) in shared.metrics.iter().enumerate() {
            line(&mut page, name, &format!("shard=\"{shard}\""), get(read(metrics)));
        }
    }
    head(
        &mut page,
        "stalls_total",
        "counter",
        "Times that one task held the shard's core for 100 ms or longer.",
    );
    for (shard, pulse) in shared.pulses.iter().enumerate() {
        line(&mut page, "stalls_total", &format!("shard=\"{shard}\""), pulse.stalls());
    }
    memory(&mut page, shared);
    latencies(&mut page, shared);
    head(&mut page, "broker_connections", "gauge", "Connections open on all shards.");
    line(&mut page, "broker_connections", "", shared.admission.open() as u64);
    let image = shared.image.load();
    head(&mut page, "topics", "gauge", "Topics.");
    line(&mut page, "topics", "", image.topics().len() as u64);
    page
}

/// The budget of each part of a shard's memory, and what is used of it where that is counted in bytes.
fn memory(page: &mut String, shared: &Shared) {
    head(page, "memory_budget_bytes", "gauge", "Bytes that a part of the shard's memory may take.");
    for shard in 0..shared.metrics.len() {
        for part in MemoryPart::ALL {
            let labels = format!("shard=\"{shard}\",part=\"{}\"", part.name());
            line(page, "memory_budget_bytes", &labels, shared.memory.bytes(part));
        }
    }
    head(page, "memory_used_bytes", "gauge", "Bytes that a part of the shard's memory takes.");
    for (shard, metrics) in shared.metrics.iter().enumerate() {
        let levels = &metrics.levels;
        for part in MemoryPart::ALL {
            let used = match part {
                MemoryPart::Cache => {
                    let batches = get(&levels.cache_bytes).saturating_sub(get(&levels.unsettled_bytes));
                    batches + get(&levels.read_ahead_held_bytes)
                }
                MemoryPart::Unflushed => get(&levels.unsettled_bytes),
                MemoryPart::Frames => get(&levels.frame_bytes),
                MemoryPart::Requests => get(&levels.request_bytes),
                MemoryPart::Answers => get(&levels.answer_bytes),
                MemoryPart::Indexes => get(&levels.index_bytes),
                MemoryPart::Producers => {
                    get(&levels.producers) * PRODUCER_BYTES + get(&levels.spilled_memory_bytes)
                }
                // Bounded by numbers, and not counted.
                MemoryPart::Coordinators | MemoryPart::Cleaner => continue,
            };
            let labels = format!("shard=\"{shard}\",part=\"{}\"", part.name());
            line(page, "memory_used_bytes", &labels, used);
        }
    }
}

fn latencies(page: &mut String, shared: &Shared) {
    const NAME: &str = "request_seconds";
    head(page, NAME, "histogram", "Time from a request's last byte to its answer being ready.");
    for (shard, metrics) in shared.metrics.iter().enumerate() {
        for (kind, latency) in KINDS.iter().zip(&metrics.latency) {
            let labels = format!("shard=\"{shard}\",kind=\"{kind}\"");
            let mut count = 0;
            for (at, bucket) in latency.buckets.iter().enumerate() {
                count += get(bucket);
                let bound = match LATENCY_BOUNDS_US.get(at) {
                    Some(us) => format!("{}", std::time::Duration::from_micros(u64::from(*us)).as_secs_f64()),
                    None => "+Inf".to_owned(),
                };
                line(page, &format!("{NAME}_bucket"), &format!("{labels},le=\"{bound}\""), count);
            }
            let seconds = std::time::Duration::from_micros(get(&latency.sum_us)).as_secs_f64();
            // Writing to a string cannot fail.
            let _ = writeln!(page, "penstock_{NAME}_sum{{{labels}}} {seconds}");
            line(page, &format!("{NAME}_count"), &labels, count);
        }
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP penstock_{name} {help}\n# TYPE penstock_{name} {kind}");
}

fn line(page: &mut String, name: &str, labels: &str, value: u64) {
    let _ = match labels {
        "" => writeln!(page, "penstock_{name} {value}"),
        labels => writeln!(page, "penstock_{name}{{{labels}}} {value}"),
    };
}
