//! The byte ranges of a segment that are not yet settled in its file, in order and disjoint.
//!
//! A range is *inline* (its bytes are in a journal frame, and a write behind has still to bring them here) or
//! *direct* (the commit itself writes them here). Every batch that touches a range stays in memory until then.

use std::collections::VecDeque;
use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unsettled {
    from: u64,
    to: u64,
    /// Commit that makes it stable.
    seq: u64,
    direct: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    ranges: VecDeque<Unsettled>,
}

impl Pending {
    /// Adds a share behind all others.
    pub(crate) fn append(&mut self, from: u64, to: u64, seq: u64) {
        if let Some(last) = self.ranges.back_mut() {
            assert!(last.to <= from, "appends go on where the segment ends");
            if last.seq == seq && last.to == from && !last.direct {
                last.to = to;
                return;
            }
        }
        self.ranges.push_back(Unsettled { from, to, seq, direct: false });
    }

    /// Turns `direct`, part of the share `from..` of commit `seq` and perhaps of the block before it, into a
    /// direct range.
    pub(crate) fn place_direct(&mut self, from: u64, direct: Range<u64>, seq: u64) {
        let at = self.ranges.partition_point(|range| range.from < from);
        let Some(share) = self.ranges.get(at).copied() else { return };
        assert!(share.from == from && share.seq == seq && direct.end <= share.to, "the share is pending");
        self.ranges.remove(at);
        let (mut at, mut unsettled_from) = (at, direct.start.max(from));
        while at > 0 && self.ranges[at - 1].to > direct.start {
            let before = &mut self.ranges[at - 1];
            assert!(!before.direct, "direct ranges never overlap");
            if before.from >= direct.start {
                unsettled_from = before.from;
                self.ranges.remove(at - 1);
                at -= 1;
            } else {
                unsettled_from = direct.start;
                before.to = direct.start;
            }
        }
        let head = Unsettled { from, to: direct.start.max(from), seq, direct: false };
        // What of the first block is settled already is written again, and does not become unsettled by it.
        let middle = Unsettled { from: unsettled_from, to: direct.end, seq, direct: true };
        let tail = Unsettled { from: direct.end, to: share.to, seq, direct: false };
        for part in [tail, middle, head] {
            if part.from < part.to {
                self.ranges.insert(at, part);
            }
        }
    }

    /// Commits up to `durable_seq` are stable: their direct ranges are settled, their inline ones joined up, but for those
    /// of commits before `redo_floor` with those from it on. Gives the bytes settled.
    pub(crate) fn commit(&mut self, durable_seq: u64, redo_floor: u64) -> usize {
        let before = self.bytes();
        let mut kept: VecDeque<Unsettled> = VecDeque::with_capacity(self.ranges.len());
        for range in self.ranges.drain(..) {
            if range.seq <= durable_seq {
                if range.direct {
                    continue;
                }
                if let Some(last) = kept.back_mut()
                    && last.seq <= durable_seq
                    && !last.direct
                    && last.to == range.from
                    && (last.seq < redo_floor) == (range.seq < redo_floor)
                {
                    last.to = range.to; // and the older number stands: the next checkpoint waits for it, and none before
                    continue;
                }
            }
            kept.push_back(range);
        }
        self.ranges = kept;
        before - self.bytes()
    }

    /// First inline range at or after `position` that is stable in the journal, so that it may be written behind.
    pub(crate) fn next_writable(&self, position: u64, durable_seq: u64) -> Option<Range<u64>> {
        let fit = |range: &&Unsettled| !range.direct && range.seq <= durable_seq && range.to > position;
        self.ranges.iter().find(fit).map(|range| range.from.max(position)..range.to)
    }

    /// `written` reached the file. Gives the bytes settled.
    pub(crate) fn settle(&mut self, written: Range<u64>) -> usize {
        let before = self.bytes();
        for range in &mut self.ranges {
            if !range.direct && range.from >= written.start && range.from < written.end {
                range.from = range.to.min(written.end);
            }
        }
        self.ranges.retain(|range| range.from < range.to);
        before - self.bytes()
    }

    /// First position that is not settled.
    pub(crate) fn first(&self) -> Option<u64> {
        self.ranges.front().map(|range| range.from)
    }

    /// Whether anything of commits before `seq` is unsettled.
    pub(crate) fn any_before(&self, seq: u64) -> bool {
        self.ranges.iter().any(|range| range.seq < seq)
    }

    /// Whether anything of commits after `seq` is there.
    pub(crate) fn any_after(&self, seq: u64) -> bool {
        self.ranges.iter().any(|range| range.seq > seq)
    }

    /// Whether any inline range could be written behind.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Forgets everything (the segment goes). Gives the bytes that were unsettled.
    pub(crate) fn clear(&mut self) -> usize {
        let bytes = self.bytes();
        self.ranges = VecDeque::new();
        bytes
    }

    /// Unsettled bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.ranges.iter().map(|range| (range.to - range.from) as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pending: &Pending) -> Vec<(u64, u64, u64, bool)> {
        pending.ranges.iter().map(|r| (r.from, r.to, r.seq, r.direct)).collect()
    }

    #[test]
    fn a_large_share_takes_the_block_it_begins_in() {
        let mut pending = Pending::default();
        pending.append(4096, 5000, 1);
        pending.append(5000, 70_000, 2);
        pending.append(70_000, 70_100, 3);
        pending.place_direct(5000, 4096..69_632, 2);
        assert_eq!(
            ranges(&pending),
            [(4096, 69_632, 2, true), (69_632, 70_000, 2, false), (70_000, 70_100, 3, false)]
        );
        assert_eq!(pending.commit(1, 1), 0);
        assert_eq!(pending.commit(3, 1), 65_536);
        assert_eq!(ranges(&pending), [(69_632, 70_100, 2, false)]);
        assert_eq!(pending.next_writable(0, 3), Some(69_632..70_100));
        assert_eq!(pending.settle(69_632..70_000), 368);
        assert_eq!(pending.first(), Some(70_000));
    }

    #[test]
    fn what_a_checkpoint_waits_for_does_not_grow() {
        let mut pending = Pending::default();
        for (from, seq) in [(4096, 1), (5096, 2), (6096, 3), (7096, 4)] {
            pending.append(from, from + 1000, seq);
            assert_eq!(pending.commit(seq, 3), 0);
        }
        assert_eq!(ranges(&pending), [(4096, 6096, 1, false), (6096, 8096, 3, false)]);
        assert_eq!(pending.settle(4096..6096), 2000);
        assert!(!pending.any_before(3));
    }

    #[test]
    fn what_was_settled_before_stays_so() {
        let mut pending = Pending::default();
        pending.append(4166, 5000, 1);
        pending.append(5000, 70_000, 2);
        pending.place_direct(5000, 4096..69_632, 2);
        assert_eq!(ranges(&pending), [(4166, 69_632, 2, true), (69_632, 70_000, 2, false)]);
        assert_eq!(pending.commit(2, 1), 69_632 - 4166);
    }

    #[test]
    fn the_head_stays_inline_where_the_seam_may_not_be_touched() {
        let mut pending = Pending::default();
        pending.append(4096, 5000, 1);
        pending.append(5000, 70_000, 2);
        pending.place_direct(5000, 8192..69_632, 2);
        assert_eq!(pending.next_writable(0, 1), Some(4096..5000));
        assert_eq!(pending.commit(2, 1), 61_440);
        assert_eq!(ranges(&pending), [(4096, 8192, 1, false), (69_632, 70_000, 2, false)]);
        assert_eq!(pending.next_writable(8192, 2), Some(69_632..70_000));
        assert!(pending.any_before(2) && !pending.any_before(1));
        assert_eq!(pending.clear(), 4096 + 368);
        assert!(pending.is_empty());
    }
}
