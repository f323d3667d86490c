//! The order of appends: each log takes them in the order in which they came.
//!
//! An append may wait, for a segment's file if its batch is larger than a journal frame, or for its producer if that is on
//! disk. Who came later to the same logs waits too, as does what its own connection sent behind it, and who came behind these
//! to others of their logs.
//!
//! Invariant: a request takes its places in all lines in one step. So whoever came first of those that are not done stands
//! first in all its lines, and no requests wait for each other in a circle. Who appends to a log in one step takes no place, and
//! does so only while its line is free.

use super::PerPartition;
use crate::runtime::semaphore::{Acquire, Permit, Semaphore};

/// The line of one log.
pub(crate) struct AppendLine(Semaphore);

/// Places that a request has in the lines of its logs.
pub(super) struct AppendPlaces(PerPartition<Acquire>);

/// All turns of a request: nobody else appends to its logs until this is dropped.
#[must_use = "the turn is over when this is dropped"]
pub(super) struct AppendTurn {
    _turns: PerPartition<Permit>,
}

impl AppendLine {
    pub(crate) fn new() -> AppendLine {
        AppendLine(Semaphore::new(1))
    }

    /// Whether nobody appends to the log or waits to.
    pub(super) fn is_free(&self) -> bool {
        self.0.free() > 0
    }
}

impl AppendPlaces {
    /// Takes the places, each line once.
    pub(super) fn take<'a>(lines: impl Iterator<Item = &'a AppendLine>) -> AppendPlaces {
        AppendPlaces(lines.map(|line| line.0.acquire(1)).collect())
    }

    /// Waits until it is the request's turn in all its lines.
    pub(super) async fn turn(self) -> AppendTurn {
        let mut turns = PerPartition::with_capacity(self.0.len());
        for place in self.0 {
            turns.push(place.await);
        }
        AppendTurn { _turns: turns }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_waits_holds_up_its_own_logs_alone_and_all_keep_their_order() {
        let [a, b, c] = [AppendLine::new(), AppendLine::new(), AppendLine::new()];
        let waiting = AppendPlaces::take([&a].into_iter()).turn().now_or_never().unwrap();
        let mut second = pin!(AppendPlaces::take([&a, &b].into_iter()).turn());
        assert!(second.as_mut().now_or_never().is_none(), "behind it in one log");
        let other = AppendPlaces::take([&c].into_iter()).turn().now_or_never();
        assert!(other.is_some(), "of another log");
        // Its place was taken when the second came, though nobody asked yet whether it is its turn.
        let mut third = pin!(AppendPlaces::take([&b].into_iter()).turn());
        assert!(third.as_mut().now_or_never().is_none());
        drop(waiting);
        assert!(third.as_mut().now_or_never().is_none());
        let turn = second.now_or_never().unwrap();
        assert!(third.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(third.now_or_never().is_some());
    }

    #[test]
    fn a_line_is_free_where_nobody_has_the_turn_or_is_given_it() {
        let line = AppendLine::new();
        assert!(line.is_free());
        let first = AppendPlaces::take([&line].into_iter()).turn().now_or_never().unwrap();
        let second = AppendPlaces::take([&line].into_iter());
        let third = AppendPlaces::take([&line].into_iter());
        assert!(!line.is_free());
        drop(first);
        assert!(!line.is_free(), "the second has the turn, though it does not know yet");
        drop(third);
        drop(second.turn().now_or_never().unwrap());
        assert!(line.is_free());
    }

    #[test]
    fn requests_for_the_same_logs_in_any_order_never_wait_for_each_other() {
        let [a, b] = [AppendLine::new(), AppendLine::new()];
        let mut first = pin!(AppendPlaces::take([&a, &b].into_iter()).turn());
        let mut second = pin!(AppendPlaces::take([&b, &a].into_iter()).turn());
        // The later one is asked first.
        assert!(second.as_mut().now_or_never().is_none());
        drop(first.as_mut().now_or_never().unwrap());
        assert!(second.now_or_never().is_some());
    }

    #[test]
    fn a_request_that_is_given_up_leaves_all_its_lines() {
        let [a, b] = [AppendLine::new(), AppendLine::new()];
        let waiting = AppendPlaces::take([&a].into_iter()).turn().now_or_never().unwrap();
        let mut given_up = Box::pin(AppendPlaces::take([&a, &b].into_iter()).turn());
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(given_up);
        assert!(AppendPlaces::take([&b].into_iter()).turn().now_or_never().is_some());
        drop(waiting);
        assert!(AppendPlaces::take([&a].into_iter()).turn().now_or_never().is_some());
    }
}
