//! The reporter: merges the workers' intervals, shows progress, and sums up the measured part.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use crate::meter::{Counts, Interval, Phase};
use crate::report::Totals;
use crate::series::MeasuredInterval;

/// Merges the intervals of `workers` workers of one kind of work, until all of them are gone.
pub struct Reporter {
    /// What is measured: `produce`, `consume`, `end-to-end`.
    pub name: &'static str,
    /// What the latencies mean, in words.
    pub latency_of: &'static str,
    /// How many workers hand over each tick.
    pub workers: usize,
    /// A line each tick to stderr.
    pub progress: bool,
    /// When measuring begins.
    pub measured_from: SystemTime,
}

struct Tick {
    arrived: usize,
    phase: Phase,
    start: Duration,
    end: Duration,
    counts: Counts,
}

impl Reporter {
    /// Runs until every worker has dropped its meter; returns the totals of the measured part.
    pub fn run(&self, intervals: Receiver<Interval>) -> Totals {
        let mut totals = Totals {
            name: self.name,
            latency_of: self.latency_of,
            measured_from: self.measured_from,
            elapsed: Duration::ZERO,
            counts: Counts::default(),
            unanswered: 0,
            intervals: Vec::new(),
        };
        // Ticks under way: at most as many as workers are apart from each other, which the bounded channel limits.
        let mut ticks: BTreeMap<u64, Tick> = BTreeMap::new();
        let mut drained = Counts::default();
        for interval in intervals {
            if interval.phase == Phase::Drain {
                drained.merge(&interval.counts);
                continue;
            }
            let tick = ticks.entry(interval.tick).or_insert_with(|| Tick {
                arrived: 0,
                phase: interval.phase,
                start: interval.start,
                end: interval.end,
                counts: Counts::default(),
            });
            tick.arrived += 1;
            tick.counts.merge(&interval.counts);
            if tick.arrived == self.workers
                && let Some(tick) = ticks.remove(&interval.tick)
            {
                self.take(tick, &mut totals);
            }
        }
        // A worker that failed leaves ticks that are not whole: what the others did still counts.
        for tick in ticks.into_values() {
            self.take(tick, &mut totals);
        }
        // The drain's latencies were caused by requests of the measured part, and its errors too.
        let late = Counts { requests: 0, records: 0, bytes: 0, ..drained };
        totals.counts.merge(&late);
        totals
    }

    fn take(&self, tick: Tick, totals: &mut Totals) {
        if self.progress {
            self.show(&tick);
        }
        if tick.phase == Phase::Measured {
            totals.elapsed += tick.end - tick.start;
            totals.counts.merge(&tick.counts);
            totals.intervals.push(MeasuredInterval {
                start: tick.start,
                end: tick.end,
                records: tick.counts.records,
                bytes: tick.counts.bytes,
                latency: shrink(&tick.counts.latency),
            });
        }
    }

    fn show(&self, tick: &Tick) {
        let seconds = (tick.end - tick.start).as_secs_f64().max(1e-9);
        let at = |quantile: f64| tick.counts.latency.value_at_quantile(quantile) as f64 / 1e6;
        let note = if tick.phase == Phase::WarmUp { "  (warm-up)" } else { "" };
        let errors = match tick.counts.error_count() {
            0 => String::new(),
            count => format!("  {count} errors"),
        };
        let _ = writeln!(
            std::io::stderr(),
            "{:>6.1} s  {:<10} {:>10.0} records/s {:>8.1} MB/s   p50 {:.3}  p99 {:.3}  max {:.3} ms{errors}{note}",
            tick.end.as_secs_f64(),
            self.name,
            tick.counts.records as f64 / seconds,
            tick.counts.bytes as f64 / 1e6 / seconds,
            at(0.5),
            at(0.99),
            at(1.0),
        );
    }
}

/// A copy that holds no more counters than its values need: a long run keeps one for each second.
fn shrink(histogram: &Histogram<u64>) -> Histogram<u64> {
    let high = histogram.max().max(2);
    match Histogram::new_with_bounds(1, high, 3) {
        Ok(mut small) => {
            let added = small.add(histogram);
            debug_assert!(added.is_ok());
            small
        }
        Err(_) => histogram.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    fn interval(tick: u64, phase: Phase, records: u64, latency_ms: u64) -> Interval {
        let mut counts = Counts { records, requests: 1, bytes: records, ..Counts::default() };
        crate::meter::record(&mut counts.latency, Duration::from_millis(latency_ms));
        let start = Duration::from_secs(tick);
        Interval { tick, phase, start, end: start + Duration::from_secs(1), counts }
    }

    #[test]
    fn totals_hold_the_measured_part_and_the_latencies_of_the_drain() {
        let (sender, receiver) = sync_channel(16);
        for worker in 0..2 {
            sender.send(interval(0, Phase::WarmUp, 1000, 9000)).unwrap();
            sender.send(interval(1, Phase::Measured, 10 + worker, 5)).unwrap();
            sender.send(interval(2, Phase::Measured, 20, 5)).unwrap();
            sender.send(interval(3, Phase::Drain, 500, 800)).unwrap();
        }
        drop(sender);
        let reporter = Reporter {
            name: "produce",
            latency_of: "",
            workers: 2,
            progress: false,
            measured_from: SystemTime::UNIX_EPOCH,
        };
        let totals = reporter.run(receiver);
        assert_eq!(totals.counts.records, 61);
        assert_eq!(totals.elapsed, Duration::from_secs(2));
        assert_eq!(totals.counts.latency.len(), 6);
        assert!(totals.counts.latency.max() >= 800_000_000);
        assert!(totals.counts.latency.max() < 9_000_000_000);
        let records: Vec<u64> = totals.intervals.iter().map(|interval| interval.records).collect();
        assert_eq!(records, [21, 40]);
    }

    #[test]
    fn a_worker_that_is_gone_does_not_take_the_others_counts() {
        let (sender, receiver) = sync_channel(16);
        sender.send(interval(0, Phase::Measured, 7, 1)).unwrap();
        drop(sender);
        let reporter = Reporter {
            name: "produce",
            latency_of: "",
            workers: 2,
            progress: false,
            measured_from: SystemTime::UNIX_EPOCH,
        };
        assert_eq!(reporter.run(receiver).counts.records, 7);
    }
}
