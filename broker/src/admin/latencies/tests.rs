use std::sync::Arc;

use super::*;
use crate::shard::{ShardMetrics, Stages};

/// A shard that records, and what it handed over so far.
struct Source {
    stages: Stages,
    metrics: Arc<ShardMetrics>,
}

impl Source {
    fn new() -> Source {
        let metrics: Arc<ShardMetrics> = Arc::default();
        Source { stages: Stages::new(metrics.clone()), metrics }
    }

    /// Records so many flushes and hands them over to shard 0.
    fn flushes(&self, latencies: &mut Latencies, count: u64, took: Duration) {
        (0..count).for_each(|_| self.stages.record(Stage::Flush, took));
        self.stages.hand_over();
        let readings = self.metrics.handover.take().0.unwrap();
        latencies.add(0, &readings);
        self.metrics.handover.give_back(readings);
    }
}

fn page(latencies: &Latencies, now: Instant) -> Value {
    serde_json::from_str(&latencies.render(now)).unwrap()
}

fn counts(latencies: &Latencies, now: Instant) -> (Value, Value) {
    let flush = &page(latencies, now)["shards"][0]["stages"]["flush"];
    (flush["since_start"]["count"].clone(), flush["recent"]["count"].clone())
}

#[test]
fn the_recent_past_is_forgotten_and_the_total_is_not() {
    let began = Instant::now();
    let at = |seconds| began + Duration::from_secs(seconds);
    let source = Source::new();
    let mut latencies = Latencies::new(1, began);
    for second in 0..60 {
        latencies.turn(at(second));
        source.flushes(&mut latencies, second + 1, Duration::from_micros(50));
        let total: u64 = (1..=second + 1).sum();
        let recent_s = page(&latencies, at(second))["recent_s"].as_f64().unwrap() as u64;
        // Slots begin at even seconds, and each second's flushes belong to the slot that it is in.
        let recent: u64 = (second - recent_s + 1..=second + 1).sum();
        assert_eq!(counts(&latencies, at(second)), (json!(total), json!(recent)), "{second}");
        assert!(recent_s <= 10 && (second < 8 || recent_s >= 8), "{second}: {recent_s}");
    }
    // An idle time: the slots turn as time goes by.
    for second in 60..72 {
        latencies.turn(at(second));
    }
    assert_eq!(counts(&latencies, at(72)), (json!(60 * 61 / 2), json!(0)));
}

#[test]
fn memory_does_not_grow_with_time_or_use() {
    let began = Instant::now();
    let source = Source::new();
    let mut latencies = Latencies::new(3, began);
    for second in 0..40 {
        latencies.turn(began + Duration::from_secs(second));
        source.flushes(&mut latencies, 10, Duration::from_millis(1 << (second % 16)));
    }
    let slots = latencies.slots.iter().flat_map(|slot| &slot.readings).map(Readings::bytes);
    let totals = latencies.totals.iter().map(Readings::bytes);
    // The bound that the documentation names, without the two sets that travel.
    let per_shard = (slots.sum::<usize>() + totals.sum::<usize>()) / 3;
    assert!(per_shard < 896 << 10, "{per_shard}");
    assert_eq!(latencies.slots.len(), SLOTS);
}

#[test]
fn numbers_of_a_distribution() {
    let now = Instant::now();
    let source = Source::new();
    let mut latencies = Latencies::new(2, now);
    source.flushes(&mut latencies, 900, Duration::from_micros(100));
    source.flushes(&mut latencies, 90, Duration::from_micros(1500));
    source.flushes(&mut latencies, 10, Duration::from_millis(20));
    let page = page(&latencies, now);
    let told = &page["stages"]["flush"]["since_start"];
    let near = |name: &str, ns: f64| {
        let value = told[name].as_f64().unwrap();
        assert!((value - ns).abs() <= ns * 0.01, "{name}: {value} for {ns}");
    };
    assert_eq!(told["count"], 1000);
    near("min_ns", 100e3);
    near("mean_ns", 425e3);
    near("p50_ns", 100e3);
    near("p90_ns", 100e3);
    near("p99_ns", 1500e3);
    near("p99_9_ns", 20e6);
    near("p99_99_ns", 20e6);
    near("max_ns", 20e6);
    let buckets = told["buckets"].as_array().unwrap();
    let ends: Vec<_> = buckets.iter().map(|bucket| (&bucket["le_ns"], &bucket["count"])).collect();
    assert_eq!(
        ends,
        [(&json!(125_893), &json!(900)), (&json!(1_584_893), &json!(90)), (&json!(25_118_864), &json!(10))]
    );
    // The other shard did nothing.
    let nothing = json!({
        "count": 0, "min_ns": null, "mean_ns": null, "p50_ns": null, "p90_ns": null, "p99_ns": null, "p99_9_ns": null,
        "p99_99_ns": null, "max_ns": null, "buckets": [],
    });
    assert_eq!(page["shards"][1]["stages"]["flush"]["since_start"], nothing);
    assert_eq!(page["stages"]["receive"]["recent"], nothing);
}

#[test]
fn each_duration_lies_in_its_bucket() {
    for ns in
        [0, 1, 100, 101, 1_000, 1_001, 999_999, 1_000_000, 10_000_000_000, 60_000_000_000, 68_719_476_735]
    {
        let end = bucket_end(ns);
        assert!(ns <= end, "{ns}: {end}");
        // The one before ends below it.
        let before = end as f64 / 10f64.powf(0.1) + 1.0;
        assert!(end == 100 || ns as f64 > before - 2.0, "{ns}: {before}..{end}");
    }
    assert_eq!(
        [bucket_end(1_000), bucket_end(1_000_000), bucket_end(1_000_001)],
        [1_000, 1_000_000, 1_258_925]
    );
}
