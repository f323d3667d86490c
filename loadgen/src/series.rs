//! A run over time, and its latencies by percentile, as bounded lists: what `--json` keeps and what charts are drawn from.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Points over time of one run, at most; longer runs have several seconds in each.
pub const POINTS_MAX: usize = 600;
/// Points of a percentile curve in each tenth of what is above it: from 90 % to 99 %, from 99 % to 99.9 %.
const STEPS_PER_DECADE: u32 = 20;
/// Quantiles that people ask for and that are no such step, as what is above them.
const ABOVE_ASKED: [f64; 3] = [0.5, 0.25, 0.05];
/// The curve's last decade: up to 99.99999 %.
const DECADES: u32 = 7;

/// What was measured between two ticks.
#[derive(Debug, Clone)]
pub struct MeasuredInterval {
    /// From the start of the run, its warm-up included.
    pub start: Duration,
    /// From the start of the run.
    pub end: Duration,
    /// Records acknowledged, or received.
    pub records: u64,
    /// Bytes of record batches.
    pub bytes: u64,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
}

/// A stretch of a run: one second, or more of a long run.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Where it begins, in seconds from the start of measuring.
    pub from_s: f64,
    /// Where it ends.
    pub to_s: f64,
    /// Records in a second.
    pub records_per_second: f64,
    /// A million bytes in a second.
    pub megabytes_per_second: f64,
    /// The median latency in microseconds.
    pub p50_us: f64,
    /// 99 % of the latencies are at most this, in microseconds.
    pub p99_us: f64,
    /// 99.9 % are.
    pub p999_us: f64,
    /// The highest.
    pub max_us: f64,
}

/// The intervals as points, at most [`POINTS_MAX`]: neighbours are added up where there are more.
pub fn over_time(intervals: &[MeasuredInterval]) -> Vec<Point> {
    let Some(first) = intervals.first() else { return Vec::new() };
    let width = intervals.len().div_ceil(POINTS_MAX);
    intervals.chunks(width).map(|chunk| point(chunk, first.start)).collect()
}

fn point(chunk: &[MeasuredInterval], zero: Duration) -> Point {
    let from = chunk.first().map_or(zero, |interval| interval.start);
    let to = chunk.last().map_or(zero, |interval| interval.end);
    let seconds = to.saturating_sub(from).as_secs_f64().max(1e-9);
    let mut latency = crate::meter::new_histogram();
    for interval in chunk {
        // Their bounds are within the new one's.
        let added = latency.add(&interval.latency);
        debug_assert!(added.is_ok());
    }
    let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
    Point {
        from_s: from.saturating_sub(zero).as_secs_f64(),
        to_s: to.saturating_sub(zero).as_secs_f64(),
        records_per_second: chunk.iter().map(|interval| interval.records).sum::<u64>() as f64 / seconds,
        megabytes_per_second: chunk.iter().map(|interval| interval.bytes).sum::<u64>() as f64 / 1e6 / seconds,
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: at(1.0),
    }
}

/// Quantiles, ever closer to 1, and the latency at each in microseconds, as HdrHistogram plots them; the last is the
/// highest latency, at 1. Ends where fewer than one latency is above.
pub fn percentiles(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    if latency.is_empty() {
        return Vec::new();
    }
    let at = |quantile: f64| (quantile, latency.value_at_quantile(quantile) as f64 / 1e3);
    let above = |step: u32| 10f64.powf(-f64::from(step) / f64::from(STEPS_PER_DECADE));
    let mut steps: Vec<f64> = (0..=STEPS_PER_DECADE * DECADES).map(above).chain(ABOVE_ASKED).collect();
    steps.sort_by(|a, b| b.total_cmp(a));
    let told = steps.into_iter().take_while(|above| above * latency.len() as f64 >= 1.0);
    told.map(|above| at(1.0 - above)).chain([at(1.0)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::{new_histogram, record};

    fn interval(second: u64, millis: u64) -> MeasuredInterval {
        let mut latency = new_histogram();
        record(&mut latency, Duration::from_millis(millis));
        let start = Duration::from_secs(second);
        MeasuredInterval {
            start,
            end: start + Duration::from_secs(1),
            records: 10,
            bytes: 2_000_000,
            latency,
        }
    }

    #[test]
    fn each_second_is_a_point_from_the_start_of_measuring() {
        let points = over_time(&[interval(5, 2), interval(6, 4)]);
        assert_eq!((points[0].from_s, points[0].to_s, points[1].from_s), (0.0, 1.0, 1.0));
        assert_eq!((points[1].records_per_second, points[1].megabytes_per_second), (10.0, 2.0));
        assert!((3_990.0..4_010.0).contains(&points[1].p99_us), "{points:?}");
        assert_eq!(over_time(&[]), []);
    }

    #[test]
    fn long_runs_have_no_more_points_and_lose_nothing() {
        let intervals: Vec<_> = (0..1_301).map(|second| interval(second, 1 + second / 1_300 * 99)).collect();
        let points = over_time(&intervals);
        assert!(points.len() <= POINTS_MAX && points.len() > POINTS_MAX / 2, "{}", points.len());
        assert_eq!(points.last().unwrap().to_s, 1_301.0);
        let records: f64 = points.iter().map(|p| p.records_per_second * (p.to_s - p.from_s)).sum();
        assert_eq!(records.round(), 13_010.0);
        assert!(points.last().unwrap().max_us >= 99_900.0, "the highest of those added up");
    }

    #[test]
    fn percentiles_rise_to_the_highest() {
        let mut latency = new_histogram();
        for millis in 1..=1_000 {
            record(&mut latency, Duration::from_millis(millis));
        }
        let curve = percentiles(&latency);
        assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{curve:?}");
        let (quantile, highest) = curve[curve.len() - 1];
        assert!(quantile == 1.0 && (999_000.0..1_001_000.0).contains(&highest));
        let median = curve.iter().find(|(quantile, _)| *quantile == 0.5).unwrap().1;
        assert!((499_000.0..501_000.0).contains(&median), "{median}");
        let before = curve[curve.len() - 2].0;
        assert!((before - 0.999).abs() < 1e-9, "one of a thousand is above: {before}");
        assert_eq!(percentiles(&new_histogram()), []);
    }
}
