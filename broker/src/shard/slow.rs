//! The log of slow requests: one line for each, with the step that took longest and all others.
//!
//! Bound: [`LINES_MAX`] lines in [`INTERVAL`] and shard; the next line says how many were left out.

use std::cell::Cell;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::ShardMetrics;
use super::course::{Course, Step};
use crate::api::registry;
use crate::network::connection::Connection;

const LINES_MAX: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(10);

/// JoinGroup and SyncGroup wait for other members for as long as their clients allow: that is not slow.
const PATIENT: [i16; 2] = [11, 14];

/// See the module.
pub(crate) struct SlowLog {
    /// `penstock.slow.request.ms` in microseconds; `None` where it is switched off.
    slow_us: Option<u64>,
    metrics: Arc<ShardMetrics>,
    quota: Quota,
}

impl SlowLog {
    /// `slow_ms` is the least time of a slow request, 0 for none.
    pub(crate) fn new(slow_ms: u64, metrics: Arc<ShardMetrics>) -> SlowLog {
        let slow_us = (slow_ms > 0).then(|| slow_ms.saturating_mul(1000));
        SlowLog { slow_us, metrics, quota: Quota::new(Instant::now()) }
    }

    /// Looks at a request that was answered so long after it had arrived, and whose answer took so long to send.
    pub(crate) fn look(
        &self,
        connection: &Connection,
        api_key: i16,
        mut course: Course,
        (answered, sending): (Duration, Duration),
    ) {
        // Its steps are looked at only where they can be slow together: they are no longer than the whole.
        let whole_us = course.whole_us(answered + sending);
        if self.slow_us.is_none_or(|slow_us| whole_us < slow_us) || PATIENT.contains(&api_key) {
            return;
        }
        course.end(answered, sending);
        let busy_us = course.busy_us();
        if self.slow_us.is_none_or(|slow_us| busy_us < slow_us) {
            return;
        }
        self.metrics.slow_requests.fetch_add(1, Ordering::Relaxed);
        let Some(left_out) = self.quota.line(Instant::now()) else { return };
        let (_, longest) = course.longest();
        let api = registry::name_of_note(registry::note_of(api_key));
        let (name, version) = connection.entry().software();
        tracing::warn!(
            shard = connection.entry().shard(),
            api,
            peer = %connection.peer(),
            client = %format_args!("{name} {version}"),
            bytes = course.request_bytes,
            longest,
            steps = steps(&course),
            left_out,
            "slow request: {} ms, the longest part was {longest}",
            busy_us / 1000
        );
    }
}

/// Every step that took something, in order, in milliseconds.
fn steps(course: &Course) -> String {
    let mut text = String::new();
    for (step, name) in Step::ALL {
        let us = course.of(step);
        if us > 0 {
            let separator = if text.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{name} {}.{:03}", us / 1000, us % 1000);
        }
    }
    text
}

/// How many lines may be written.
struct Quota {
    since: Cell<Instant>,
    written: Cell<u32>,
    left_out: Cell<u64>,
}

impl Quota {
    fn new(now: Instant) -> Quota {
        Quota { since: Cell::new(now), written: Cell::new(0), left_out: Cell::new(0) }
    }

    /// Whether a line may be written at `now`: with how many were left out before it.
    fn line(&self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since.get()) >= INTERVAL {
            self.since.set(now);
            self.written.set(0);
        }
        if self.written.get() >= LINES_MAX {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.written.set(self.written.get() + 1);
        Some(self.left_out.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few_and_say_what_is_missing() {
        let start = Instant::now();
        let quota = Quota::new(start);
        let early: Vec<_> = (0..LINES_MAX + 5).map(|_| quota.line(start)).collect();
        assert!(early[..LINES_MAX as usize].iter().all(|line| *line == Some(0)));
        assert!(early[LINES_MAX as usize..].iter().all(Option::is_none));
        assert_eq!(quota.line(start + INTERVAL), Some(5));
        assert_eq!(quota.line(start + INTERVAL), Some(0));
    }

    #[test]
    fn steps_are_told_in_milliseconds() {
        let now = Instant::now();
        let mut course = Course::new(now, Duration::from_micros(1_234), 10);
        course.note(Step::Flush, Duration::from_millis(800));
        assert_eq!(steps(&course), "receive 1.234, flush 800.000");
    }
}
