//! How much work a shard does at a stretch.
//!
//! A shard runs one task at a time, and a task runs until it waits. A request may name hundreds of thousands of topics or
//! partitions; worked through at a stretch it would hold up everything else on its core for as long. So a loop over
//! entries takes a [`Pace`] along and yields whenever it has used up its stretch, and work that cannot pause (decoding, a
//! decision over one state, encoding) goes to a thread beside the shards where it is about more than one stretch.

use super::task;

/// Entries (topics, partitions, configs) that a shard works through at a stretch: about a millisecond of work.
pub(crate) const STRETCH_ENTRIES: usize = 1000;

/// Counts the entries of a loop and says when to let others have their turn.
pub(crate) struct Pace {
    left: usize,
}

impl Pace {
    /// A loop that begins.
    pub(crate) fn new() -> Pace {
        Pace { left: STRETCH_ENTRIES }
    }

    /// Counts entries that are done, and yields to the shard's other tasks where the stretch is used up.
    pub(crate) async fn step(&mut self, entries: usize) {
        if self.spend(entries) {
            task::yield_now().await;
        }
    }

    /// Counts entries; true when the stretch is used up, and the next one begins.
    fn spend(&mut self, entries: usize) -> bool {
        if entries < self.left {
            self.left -= entries;
            return false;
        }
        self.left = STRETCH_ENTRIES;
        true
    }
}

/// The sum of `parts`, or some number above a stretch if it is above: what comes after that is not looked at.
pub(crate) fn weigh(parts: impl IntoIterator<Item = usize>) -> usize {
    let mut sum = 0usize;
    for part in parts {
        sum = sum.saturating_add(part);
        if sum > STRETCH_ENTRIES {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries between two yields of a loop over items of these sizes.
    fn stretches(sizes: &[usize]) -> Vec<usize> {
        let mut pace = Pace::new();
        let (mut stretches, mut stretch) = (Vec::new(), 0);
        for size in sizes {
            stretch += size;
            if pace.spend(*size) {
                stretches.push(stretch);
                stretch = 0;
            }
        }
        stretches.push(stretch);
        stretches
    }

    #[test]
    fn no_stretch_is_longer_than_allowed_by_more_than_its_last_item() {
        assert_eq!(stretches(&[1; 999]), [999]);
        assert_eq!(stretches(&[1; 2500]), [1000, 1000, 500]);
        assert_eq!(stretches(&[0; 5000]), [0], "what costs nothing never yields");
        assert_eq!(stretches(&[600, 600, 600, 600, 1]), [1200, 1200, 1]);
        assert_eq!(stretches(&[5000, 1, 999, 3]), [5000, 1000, 3]);
        for size in 1..50 {
            let stretches = stretches(&vec![size; 10_000]);
            assert_eq!(stretches.iter().sum::<usize>(), size * 10_000);
            assert!(stretches.iter().all(|stretch| *stretch < STRETCH_ENTRIES + size), "{size}");
        }
    }

    #[test]
    fn weighing_ends_where_the_answer_is_known() {
        assert_eq!(weigh([]), 0);
        assert_eq!(weigh([400, 600]), 1000);
        assert_eq!(weigh([usize::MAX, 1]), usize::MAX);
        let mut looked_at = 0;
        let endless = std::iter::from_fn(|| {
            looked_at += 1;
            Some(10)
        });
        assert_eq!(weigh(endless), 1010);
        assert_eq!(looked_at, 101);
    }
}
