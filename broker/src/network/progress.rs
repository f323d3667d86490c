//! Whether a peer goes on with a request that it began.
//!
//! An incomplete request holds its share of the bytes in flight, so a peer has to bring at least [`PROGRESS_BYTES`] of it,
//! or what is left, in each [`STALL_MAX`]: about 2 KiB per second. What counts is what the kernel has received, because one
//! operation takes up to a mebibyte before it says anything.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Time in which a peer has to go on with a request. A mark is made when the sweep first sees the request, so that it takes
/// up to one sweep longer.
pub(super) const STALL_MAX: Duration = Duration::from_secs(30);
/// Bytes that count as going on.
pub(super) const PROGRESS_BYTES: u64 = 64 << 10;

/// Where the peer was when it last went on.
#[derive(Default)]
pub(super) struct Progress(Cell<Option<(Instant, u64)>>);

impl Progress {
    /// A request begins, or is complete.
    pub(super) fn restart(&self) {
        self.0.set(None);
    }

    /// Whether the peer has stalled, if it has sent `received` bytes in all by `now`.
    pub(super) fn is_stalled(&self, now: Instant, received: u64) -> bool {
        match self.0.get() {
            Some((at, before)) if received < before + PROGRESS_BYTES => {
                now.saturating_duration_since(at) > STALL_MAX
            }
            _ => {
                self.0.set(Some((now, received)));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looked at every ten seconds; the seconds after which a peer of so many bytes per second is found to stall.
    fn stalls_after(bytes_per_second: u64) -> Option<u64> {
        let (progress, start) = (Progress::default(), Instant::now());
        let mut looks = (0..100).map(|look| look * 10);
        looks.find(|s| progress.is_stalled(start + Duration::from_secs(*s), s * bytes_per_second))
    }

    #[test]
    fn slow_peers_go_on_and_silent_ones_do_not() {
        assert_eq!(stalls_after(0), Some(40));
        assert_eq!(stalls_after(1000), Some(40));
        assert_eq!(stalls_after(2200), None);
        // A mebibyte takes it five minutes.
        assert_eq!(stalls_after(3500), None);
    }

    #[test]
    fn the_next_request_has_time_of_its_own() {
        let (progress, start) = (Progress::default(), Instant::now());
        assert!(!progress.is_stalled(start, 10));
        progress.restart();
        assert!(!progress.is_stalled(start + 2 * STALL_MAX, 10));
        assert!(progress.is_stalled(start + 4 * STALL_MAX, 10));
    }
}
