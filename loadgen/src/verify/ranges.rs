//! Sets of sequence numbers as sorted, disjoint, inclusive ranges.

/// A set of `u64`. What a run acknowledges is nearly one range, so this stays tiny.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Sorted, disjoint, not adjacent: (first, last), both in the set.
    ranges: Vec<(u64, u64)>,
}

impl RangeSet {
    /// Adds `first..=last`; returns how many of them were already there.
    pub fn insert(&mut self, first: u64, last: u64) -> u64 {
        assert!(first <= last);
        // The common case: the set grows at its end.
        if let Some(end) = self.ranges.last_mut()
            && end.1.checked_add(1) == Some(first)
        {
            end.1 = last;
            return 0;
        }
        let from = self.ranges.partition_point(|range| range.1.saturating_add(1) < first);
        let to = self.ranges.partition_point(|range| range.0 <= last.saturating_add(1));
        let touched = &self.ranges[from..to.max(from)];
        let already = touched.iter().map(|range| overlap(*range, (first, last))).sum();
        let merged = match (touched.first(), touched.last()) {
            (Some(head), Some(tail)) => (head.0.min(first), tail.1.max(last)),
            _ => (first, last),
        };
        self.ranges.splice(from..to.max(from), [merged]);
        already
    }

    /// Whether `value` is in the set.
    pub fn contains(&self, value: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < value);
        self.ranges.get(at).is_some_and(|range| range.0 <= value)
    }

    /// How many numbers are in the set.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.1 - range.0 + 1).sum()
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The largest number, if any.
    pub fn last(&self) -> Option<u64> {
        self.ranges.last().map(|range| range.1)
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().copied()
    }

    /// What is in `self` and not in `other`, as ranges.
    pub fn minus(&self, other: &RangeSet) -> Vec<(u64, u64)> {
        let mut left = Vec::new();
        for (first, last) in self.iter() {
            let mut from = first;
            let mut covered = false;
            for (other_first, other_last) in other.iter().filter(|range| range.1 >= first && range.0 <= last)
            {
                if other_first > from {
                    left.push((from, other_first - 1));
                }
                match other_last.checked_add(1) {
                    Some(next) if other_last < last => from = next,
                    _ => {
                        covered = true;
                        break;
                    }
                }
            }
            if !covered {
                left.push((from, last));
            }
        }
        left
    }
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    let (first, last) = (a.0.max(b.0), a.1.min(b.1));
    if first > last { 0 } else { last - first + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_plain_set() {
        let mut state = 42u64;
        let mut random = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..200 {
            let (mut ranges, mut plain) = (RangeSet::default(), BTreeSet::new());
            let (mut other, mut other_plain) = (RangeSet::default(), BTreeSet::new());
            for _ in 0..30 {
                let first = random(100);
                let last = first + random(8);
                let already = (first..=last).filter(|value| !plain.insert(*value)).count();
                assert_eq!(ranges.insert(first, last), already as u64);
                let first = random(100);
                other.insert(first, first + 3);
                other_plain.extend(first..=first + 3);
            }
            assert_eq!(ranges.len(), plain.len() as u64);
            assert_eq!(ranges.last(), plain.last().copied());
            for value in 0..120 {
                assert_eq!(ranges.contains(value), plain.contains(&value));
            }
            assert!(ranges.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let difference: BTreeSet<u64> =
                ranges.minus(&other).into_iter().flat_map(|(first, last)| first..=last).collect();
            assert_eq!(difference, plain.difference(&other_plain).copied().collect());
        }
    }
}
