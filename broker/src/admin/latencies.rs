//! `GET /histograms`: how long each stage of a request takes, for each shard and for all of them, since the start and
//! recently.
//!
//! Shards hand their readings over about once a second (`shard::stages`); here they are added up. Bounds: for each shard
//! one set of 64-bit histograms and [`SLOTS`] sets of 32-bit ones, whatever is recorded.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::shard::{Readings, Shared, Stage};

/// Parts of the recent past. It is told whole: between [`SLOTS`] - 1 and [`SLOTS`] times [`SLOT`], once so much is over.
const SLOTS: usize = 5;
const SLOT: Duration = Duration::from_secs(2);
/// Buckets that are told, for each factor of ten in time.
const BUCKETS_PER_DECADE: i32 = 10;
/// Upper end of the first bucket, in nanoseconds.
const FIRST_BUCKET_NS: f64 = 100.0;
/// What is told of each distribution besides count, minimum, mean and maximum.
const PERCENTILES: [(&str, f64); 5] =
    [("p50_ns", 0.5), ("p90_ns", 0.9), ("p99_ns", 0.99), ("p99_9_ns", 0.999), ("p99_99_ns", 0.9999)];

/// What all shards handed over.
pub(super) struct Latencies {
    started: Instant,
    /// By shard.
    totals: Vec<Readings<u64>>,
    /// By shard: how often it had handed over everything up to then.
    rounds: Vec<u64>,
    /// Oldest first; never empty.
    slots: VecDeque<Slot>,
}

struct Slot {
    began: Instant,
    /// By shard.
    readings: Vec<Readings<u32>>,
}

impl Slot {
    fn new(shards: usize, began: Instant) -> Slot {
        Slot { began, readings: (0..shards).map(|_| Readings::default()).collect() }
    }
}

impl Latencies {
    pub(super) fn new(shards: usize, now: Instant) -> Latencies {
        Latencies {
            started: now,
            totals: (0..shards).map(|_| Readings::default()).collect(),
            rounds: vec![0; shards],
            slots: VecDeque::from([Slot::new(shards, now)]),
        }
    }

    /// Adds what the shards have handed over since this was last called.
    pub(super) fn collect(&mut self, shared: &Shared, now: Instant) {
        self.turn(now);
        for (shard, metrics) in shared.metrics.iter().enumerate() {
            let (readings, rounds) = metrics.handover.take();
            self.rounds[shard] = rounds;
            if let Some(readings) = readings {
                self.add(shard, &readings);
                metrics.handover.give_back(readings);
            }
        }
    }

    fn add(&mut self, shard: usize, readings: &Readings) {
        self.totals[shard].add(readings);
        if let Some(slot) = self.slots.back_mut() {
            slot.readings[shard].add(readings);
        }
    }

    /// Begins a new slot where the newest is full.
    fn turn(&mut self, now: Instant) {
        if self.slots.back().is_some_and(|slot| now.saturating_duration_since(slot.began) < SLOT) {
            return;
        }
        let slot = match self.slots.pop_front() {
            Some(mut oldest) if self.slots.len() + 1 == SLOTS => {
                oldest.readings.iter_mut().for_each(Readings::clear);
                Slot { began: now, ..oldest }
            }
            oldest => {
                if let Some(oldest) = oldest {
                    self.slots.push_front(oldest);
                }
                Slot::new(self.totals.len(), now)
            }
        };
        self.slots.push_back(slot);
    }

    /// How long this has been collecting.
    pub(super) fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// The page.
    pub(super) fn render(&self, now: Instant) -> String {
        let shards = 0..self.totals.len();
        let recent: Vec<Readings<u64>> = shards.map(|shard| self.recent(shard)).collect();
        let (mut all, mut all_recent) = (Readings::<u64>::default(), Readings::<u64>::default());
        self.totals.iter().for_each(|total| all.add(total));
        recent.iter().for_each(|recent| all_recent.add(recent));
        let of_shard = |(shard, (total, recent))| json!({ "shard": shard, "rounds": self.rounds[shard], "stages": stages(total, recent) });
        let recent_since = self.slots.front().map_or(now, |slot| slot.began);
        let mut page = json!({
            "since_start_s": self.uptime(now).as_secs_f64(),
            "recent_s": now.saturating_duration_since(recent_since).as_secs_f64(),
            "stages": stages(&all, &all_recent),
            "shards": self.totals.iter().zip(&recent).enumerate().map(of_shard).collect::<Vec<_>>(),
        })
        .to_string();
        page.push('\n');
        page
    }

    /// What a shard handed over recently.
    pub(super) fn recent(&self, shard: usize) -> Readings<u64> {
        let mut recent = Readings::default();
        self.slots.iter().for_each(|slot| recent.add(&slot.readings[shard]));
        recent
    }
}

fn stages(total: &Readings<u64>, recent: &Readings<u64>) -> Value {
    let stage = |(stage, name): (Stage, &str)| {
        let told = json!({
            "since_start": distribution(total.of(stage)),
            "recent": distribution(recent.of(stage)),
        });
        (name.to_owned(), told)
    };
    Value::Object(Stage::ALL.into_iter().map(stage).collect())
}

/// A distribution in numbers; where nothing was recorded, durations are null.
fn distribution(histogram: &Histogram<u64>) -> Value {
    let mut told = Map::new();
    let mut tell = |name: &str, value: Value| told.insert(name.to_owned(), value);
    let some = !histogram.is_empty();
    tell("count", json!(histogram.len()));
    tell("min_ns", json!(some.then(|| histogram.min())));
    tell("mean_ns", json!(some.then(|| histogram.mean().round() as u64)));
    for (name, quantile) in PERCENTILES {
        tell(name, json!(some.then(|| histogram.value_at_quantile(quantile))));
    }
    tell("max_ns", json!(some.then(|| histogram.max())));
    tell("buckets", buckets(histogram));
    Value::Object(told)
}

/// Counts by duration, ten buckets to a factor of ten, those that are not empty: each ends at `le_ns` and begins where the
/// one before it ends, whether that is told or not.
fn buckets(histogram: &Histogram<u64>) -> Value {
    let mut buckets: Vec<(u64, u64)> = Vec::new();
    for cell in histogram.iter_recorded() {
        let le_ns = bucket_end(cell.value_iterated_to());
        match buckets.last_mut() {
            Some((last, count)) if *last == le_ns => *count += cell.count_at_value(),
            _ => buckets.push((le_ns, cell.count_at_value())),
        }
    }
    buckets.into_iter().map(|(le_ns, count)| json!({ "le_ns": le_ns, "count": count })).collect()
}

/// The upper end of a duration's bucket.
fn bucket_end(ns: u64) -> u64 {
    let end = |at: i32| (FIRST_BUCKET_NS * 10f64.powf(f64::from(at) / f64::from(BUCKETS_PER_DECADE))).round();
    let ns = ns as f64;
    let at = ((ns / FIRST_BUCKET_NS).log10() * f64::from(BUCKETS_PER_DECADE)).ceil().max(0.0) as i32;
    // Rounding may put a duration at the very end of a bucket into the next one.
    (if at > 0 && ns <= end(at - 1) { end(at - 1) } else { end(at) }) as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
