//! `GET /load`: what each shard does and holds. Counters count from the start: who wants rates takes two answers and
//! divides by the difference of their `uptime_s`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::shard::{KINDS, ShardMetrics, Shared};

/// The page, after `uptime` of serving.
pub(super) fn render(shared: &Shared, uptime: Duration) -> String {
    let (host, port) = &shared.advertised;
    let shards = shared.metrics.iter().enumerate();
    let mut page = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "address": format!("{host}:{port}"),
        "uptime_s": uptime.as_secs_f64(),
        "connections": shared.admission.open(),
        "topics": shared.image.load().topics().len(),
        "shards": shards.map(|(shard, metrics)| entry(shared, shard, metrics)).collect::<Vec<_>>(),
    })
    .to_string();
    page.push('\n');
    page
}

fn entry(shared: &Shared, shard: usize, metrics: &ShardMetrics) -> Value {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let levels = &metrics.levels;
    let pulse = &shared.pulses[shard];
    let core = pulse.core_times();
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let answers = metrics.latency.iter().map(|latency| latency.buckets.iter().map(get).sum::<u64>());
    json!({
        "shard": shard,
        "cpu_ns": core.map(|core| ns(core.ran)),
        "cpu_wait_ns": core.map(|core| ns(core.waited)),
        "requests": get(&metrics.requests),
        "answers": KINDS.into_iter().zip(answers).collect::<BTreeMap<_, _>>(),
        "in_flight": get(&metrics.in_flight),
        "mailbox": shared.mailboxes.waiting(shard),
        "received_bytes": get(&metrics.received_bytes),
        "appended_bytes": get(&metrics.appended_bytes),
        "fetched_bytes": get(&metrics.fetched_bytes),
        "connections": get(&levels.connections),
        "partitions": get(&levels.partitions),
        "request_bytes": get(&levels.request_bytes),
        "answer_bytes": get(&levels.answer_bytes),
        "unsettled_bytes": get(&levels.unsettled_bytes),
        "cache_bytes": get(&levels.cache_bytes),
        "disk_full": get(&levels.disk_full) > 0,
    })
}
