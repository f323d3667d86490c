//! `GET /load`: what each shard does and holds. Counters count from the start: who wants rates takes two answers and
//! divides by the difference of their `uptime_s`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
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
    let (ran_ns, waited_ns) = metrics.thread.get().and_then(|thread| core_ns(thread)).unzip();
    let answers = metrics.latency.iter().map(|latency| latency.buckets.iter().map(get).sum::<u64>());
    json!({
        "shard": shard,
        "cpu_ns": ran_ns,
        "cpu_wait_ns": waited_ns,
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

/// Nanoseconds that a thread has run, and those for which it could have and something else had its core; none where the
/// kernel does not tell.
fn core_ns(thread: &Path) -> Option<(u64, u64)> {
    let told = fs::read_to_string(thread.join("schedstat")).ok()?;
    let mut numbers = told.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::runtime::os;

    #[test]
    fn a_thread_that_works_uses_its_core() {
        let thread = os::this_thread().unwrap();
        let (before, _) = core_ns(&thread).unwrap();
        let mut last = before;
        // Its own work is what makes the number rise.
        while last < before + 5_000_000 {
            (last, _) = core_ns(&thread).unwrap();
        }
        assert_eq!(core_ns(Path::new("/proc/none")), None);
    }
}
