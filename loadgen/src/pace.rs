//! Open-loop pacing: when each request was meant to leave.
//!
//! Latency is counted from the intended time, so a stalled broker cannot hide the requests that it kept from being
//! sent (coordinated omission). The maximum (no rate) has no intended times: a request is due as soon as it can leave.

use std::time::{Duration, Instant};

/// The intended times of one sender's requests.
#[derive(Debug, Clone)]
pub struct Pace {
    start: Instant,
    /// Seconds between two requests; `None` for the maximum.
    interval_seconds: Option<f64>,
    sent: u64,
}

impl Pace {
    /// `requests_per_second` none for the maximum. `phase` in [0, 1) moves this sender's schedule by a part of its
    /// interval, so that many senders do not all send in the same instant.
    pub fn new(start: Instant, requests_per_second: Option<f64>, phase: f64) -> Pace {
        debug_assert!((0.0..1.0).contains(&phase));
        let interval_seconds = requests_per_second.map(|rate| 1.0 / rate.max(1e-9));
        let start = start + Duration::from_secs_f64(interval_seconds.unwrap_or(0.0).min(1e6) * phase);
        Pace { start, interval_seconds, sent: 0 }
    }

    /// True when there is no rate.
    pub fn is_maximum(&self) -> bool {
        self.interval_seconds.is_none()
    }

    /// When the next request is meant to leave; `now` itself at the maximum.
    pub fn next_due(&self, now: Instant) -> Instant {
        match self.interval_seconds {
            None => now,
            // A product, not a sum of rounded steps: the schedule does not drift.
            Some(interval) => self.start + Duration::from_secs_f64(interval * self.sent as f64),
        }
    }

    /// The next request has left (or was put in the queue to leave).
    pub fn advance(&mut self) {
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_does_not_move_when_the_sender_is_late() {
        let start = Instant::now();
        let mut pace = Pace::new(start, Some(1000.0), 0.0);
        let late = start + Duration::from_secs(1);
        for request in 0..1000u64 {
            assert_eq!(pace.next_due(late), start + Duration::from_secs_f64(request as f64 / 1000.0));
            pace.advance();
        }
        assert_eq!(pace.next_due(late), late);
    }

    #[test]
    fn maximum_is_always_due() {
        let start = Instant::now();
        let pace = Pace::new(start, None, 0.5);
        assert!(pace.is_maximum());
        let now = start + Duration::from_secs(3);
        assert_eq!(pace.next_due(now), now);
    }

    #[test]
    fn phase_spreads_senders() {
        let start = Instant::now();
        let pace = Pace::new(start, Some(10.0), 0.5);
        assert_eq!(pace.next_due(start), start + Duration::from_millis(50));
    }
}
