//! What a run counts: per worker thread an interval under way, handed to the reporter once a second.
//!
//! Each worker owns its `Meter` (no locks, no atomics on the data path). The reporter merges the intervals of all workers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The longest latency told apart; a longer one is recorded as this.
pub const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// A latency histogram in nanoseconds, 3 significant digits, of bounded size (about 270 KiB).
pub fn new_histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("constant bounds: {error}"),
    }
}

/// Records `latency` in nanoseconds, at most [`LATENCY_MAX`].
pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    histogram.saturating_record(nanos.max(1));
}

/// Counts of one interval of one worker, or the sum of many.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Requests answered without an error (or, with acks=0, written).
    pub requests: u64,
    /// Records acknowledged, or received.
    pub records: u64,
    /// Bytes of whole record batches acknowledged, or received.
    pub bytes: u64,
    /// Error answers and connection failures by their name. Bounded by the number of Kafka error codes.
    pub errors: BTreeMap<String, u64>,
    /// Latency of produce requests from their intended time, of fetches from their sending, or of records end to end.
    pub latency: Histogram<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts { requests: 0, records: 0, bytes: 0, errors: BTreeMap::new(), latency: new_histogram() }
    }
}

impl Counts {
    /// Adds `other` to this.
    pub fn merge(&mut self, other: &Counts) {
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
        // Both have the same bounds, so this cannot fail.
        let added = self.latency.add(&other.latency);
        debug_assert!(added.is_ok());
    }

    /// Errors of every kind together.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Which part of a run an interval belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before measuring began: reported as progress, not in the totals.
    WarmUp,
    /// Measured.
    Measured,
    /// After the last request was sent: answers still to come. Their latencies belong to the totals, their counts do not.
    Drain,
}

/// One worker's counts between two ticks.
#[derive(Debug)]
pub struct Interval {
    /// The tick that ended it, counted from the start of the run.
    pub tick: u64,
    /// What part of the run it is.
    pub phase: Phase,
    /// From the start of the run.
    pub start: Duration,
    /// From the start of the run.
    pub end: Duration,
    /// What happened in it.
    pub counts: Counts,
}

/// The times that a run is divided by.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    /// When sending begins.
    pub start: Instant,
    /// How long nothing is measured.
    pub warm_up: Duration,
    /// How long is measured after that.
    pub duration: Duration,
}

impl Timeline {
    /// When measuring begins.
    pub fn measure_from(&self) -> Instant {
        self.start + self.warm_up
    }

    /// When sending ends.
    pub fn end(&self) -> Instant {
        self.start + self.warm_up + self.duration
    }

    /// The first boundary after `now`: a whole second, the end of the warm-up, or the end of the run.
    pub fn next_boundary(&self, now: Instant) -> Instant {
        let seconds = now.saturating_duration_since(self.start).as_secs() + 1;
        let mut next = self.start + Duration::from_secs(seconds);
        for edge in [self.measure_from(), self.end()] {
            if edge > now {
                next = next.min(edge);
            }
        }
        next
    }
}

/// A worker's counts under way.
#[derive(Debug)]
pub struct Meter {
    timeline: Timeline,
    current: RefCell<Counts>,
    reporter: SyncSender<Interval>,
}

impl Meter {
    /// A meter that hands its intervals to `reporter`.
    pub fn new(timeline: Timeline, reporter: SyncSender<Interval>) -> Meter {
        Meter { timeline, current: RefCell::default(), reporter }
    }

    /// The run's times.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Counts a request that was answered, with its latency.
    pub fn request_done(&self, records: u64, bytes: u64, latency: Duration) {
        let mut current = self.current.borrow_mut();
        current.requests += 1;
        current.records += records;
        current.bytes += bytes;
        record(&mut current.latency, latency);
    }

    /// Counts a request without a latency (acks=0, or an end-to-end fetch).
    pub fn count(&self, requests: u64, records: u64, bytes: u64) {
        let mut current = self.current.borrow_mut();
        current.requests += requests;
        current.records += records;
        current.bytes += bytes;
    }

    /// Records only a latency.
    pub fn latency(&self, latency: Duration) {
        record(&mut self.current.borrow_mut().latency, latency);
    }

    /// Counts an error under its name.
    pub fn error(&self, name: &str) {
        let mut current = self.current.borrow_mut();
        match current.errors.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                current.errors.insert(name.to_owned(), 1);
            }
        }
    }

    /// Ends the interval under way and hands it over. `start` and `end` since the start of the run.
    pub fn flush(&self, tick: u64, phase: Phase, start: Duration, end: Duration) {
        let counts = self.current.take();
        // A reporter that is gone means that the run is over: nobody wants the counts.
        let _ = self.reporter.send(Interval { tick, phase, start, end, counts });
    }

    /// Flushes at every boundary until the run's end. The drain is flushed by the caller, when it is over.
    pub async fn tick_until_end(&self) {
        let (mut tick, mut last) = (0, self.timeline.start);
        while last < self.timeline.end() {
            let next = self.timeline.next_boundary(last);
            tokio::time::sleep_until(next.into()).await;
            let phase = if last < self.timeline.measure_from() { Phase::WarmUp } else { Phase::Measured };
            self.flush(tick, phase, last - self.timeline.start, next - self.timeline.start);
            (tick, last) = (tick + 1, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_seconds_and_edges() {
        let start = Instant::now();
        let timeline =
            Timeline { start, warm_up: Duration::from_millis(500), duration: Duration::from_secs(2) };
        let mut edges = Vec::new();
        let mut now = start;
        while now < timeline.end() {
            now = timeline.next_boundary(now);
            edges.push((now - start).as_millis());
        }
        assert_eq!(edges, [500, 1000, 2000, 2500]);
    }

    #[test]
    fn intervals_add_up() {
        let (sender, receiver) = std::sync::mpsc::sync_channel(8);
        let timeline =
            Timeline { start: Instant::now(), warm_up: Duration::ZERO, duration: Duration::from_secs(1) };
        let meter = Meter::new(timeline, sender);
        meter.request_done(3, 300, Duration::from_millis(2));
        meter.error("NOT_LEADER_OR_FOLLOWER");
        meter.flush(0, Phase::Measured, Duration::ZERO, Duration::from_secs(1));
        meter.request_done(4, 400, LATENCY_MAX * 2);
        meter.flush(1, Phase::Measured, Duration::from_secs(1), Duration::from_secs(2));
        let mut sum = Counts::default();
        for interval in receiver.try_iter() {
            sum.merge(&interval.counts);
        }
        assert_eq!((sum.requests, sum.records, sum.bytes, sum.error_count()), (2, 7, 700, 1));
        assert_eq!(sum.latency.len(), 2);
        assert!(sum.latency.max() >= LATENCY_MAX.as_nanos() as u64);
    }
}
