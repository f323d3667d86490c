//! The bytes of requests that a shard holds at once, in classes by the length of the request.
//!
//! A request above [`SMALL_BYTES`] takes its share when its length is known, before its body came: what is received has its
//! room, and a request holds one permit from one semaphore and never waits for another while it holds it, so that nothing
//! can deadlock. A peer can therefore hold a share by announcing a request that it does not send, for as long as
//! [`super::progress`] lets it. That is why the classes are apart: whoever announces large requests keeps others of its
//! class waiting, and no smaller ones. Small requests take their share only when all of them is there (until then they are
//! in their connection's own buffer), so that they wait for work and never for a peer.

use crate::runtime::semaphore::{Permit, Semaphore};

/// Longest request of the small class, in bytes; it fits the buffer that each connection has.
pub(crate) const SMALL_BYTES: usize = 16 << 10;
/// Longest request of the middle class, in bytes: the most that Kafka's producers send unless told otherwise.
const MIDDLE_BYTES: usize = 1 << 20;

/// The budgets of one shard.
pub(crate) struct RequestBudget {
    small: Semaphore,
    middle: Semaphore,
    large: Semaphore,
}

impl RequestBudget {
    /// Shares out `bytes`: half of them to the middle class, a quarter to each of the others. A request longer than its
    /// class has bytes passes alone, so that what is held is bounded by `bytes` and one longest request.
    pub(crate) fn new(bytes: usize) -> RequestBudget {
        let quarter = bytes / 4;
        RequestBudget {
            small: Semaphore::new(quarter),
            middle: Semaphore::new(bytes - 2 * quarter),
            large: Semaphore::new(quarter),
        }
    }

    /// The share of a request of so many bytes, when it is its turn among those of its class.
    pub(crate) fn acquire(&self, bytes: usize) -> impl Future<Output = Permit> + use<> {
        let class = if bytes <= SMALL_BYTES {
            &self.small
        } else if bytes <= MIDDLE_BYTES {
            &self.middle
        } else {
            &self.large
        };
        class.acquire(bytes)
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.small.used() + self.middle.used() + self.large.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn larger_requests_keep_no_smaller_ones_waiting() {
        let budget = RequestBudget::new(64 << 20);
        let mut held = Vec::new();
        for bytes in [100 << 20, MIDDLE_BYTES, SMALL_BYTES] {
            // All of its class, and then one more.
            while let Some(permit) = budget.acquire(bytes).now_or_never() {
                held.push(permit);
            }
        }
        assert_eq!(held.len(), 1 + 32 + 1024);
        assert_eq!(budget.used(), 64 << 20);
        drop(held);
        assert_eq!(budget.used(), 0);
    }
}
