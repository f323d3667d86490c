//! Leader epochs of one log and the offsets where they begin. Pure.
//!
//! An entry is made when the first record of an epoch is appended; epochs and offsets both grow. A follower or a
//! client that knows up to some epoch learns here where that epoch ended, and so where logs parted ways (KIP-101,
//! KIP-279, KIP-320). Bound: one entry of 16 bytes for each change of leader that wrote something still in the log.

/// Where an epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: i32,
    /// Offset of its first record.
    pub start_offset: i64,
}

/// The leader epochs of a log, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

impl LeaderEpochs {
    /// No epochs: an empty log.
    pub fn new() -> LeaderEpochs {
        LeaderEpochs::default()
    }

    /// Epochs as they were stored. `None` unless both epochs and offsets grow from 0 or more: then the bytes are
    /// not ours.
    pub fn from_entries(entries: Vec<EpochStart>) -> Option<LeaderEpochs> {
        let first_fits = entries.first().is_none_or(|first| first.epoch >= 0 && first.start_offset >= 0);
        let growing = entries
            .windows(2)
            .all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start_offset < pair[1].start_offset);
        (first_fits && growing).then_some(LeaderEpochs { entries })
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The newest epoch that has records.
    pub fn latest(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// Notes that the record at `start_offset` has `epoch`; gives whether that began a new entry. Entries that
    /// contradict it (an epoch as new, an offset as late) belong to records since cut off and are dropped.
    ///
    /// # Panics
    /// If `epoch` or `start_offset` is negative, which no appended batch has.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        assert!(epoch >= 0 && start_offset >= 0, "epoch {epoch} at offset {start_offset}");
        if self.latest().is_some_and(|last| last.epoch == epoch && last.start_offset <= start_offset) {
            return false;
        }
        while self.latest().is_some_and(|last| last.epoch >= epoch || last.start_offset >= start_offset) {
            self.entries.pop();
        }
        self.entries.push(EpochStart { epoch, start_offset });
        true
    }

    /// The largest epoch not above `epoch`, and the offset where it ends: where the next begins, or
    /// `log_end_offset` for the newest. For an epoch below all known ones it is the epoch itself, ending where the
    /// first known begins. `None` for one above all known ones, and in an empty log.
    pub fn end_offset(&self, epoch: i32, log_end_offset: i64) -> Option<(i32, i64)> {
        if epoch < 0 {
            return None;
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let found = above.checked_sub(1).map_or(epoch, |floor| self.entries[floor].epoch);
        match self.entries.get(above) {
            Some(next) => Some((found, next.start_offset)),
            None if found == epoch && above > 0 => Some((epoch, log_end_offset)),
            None => None,
        }
    }

    /// Epoch of the record at `offset`, if the log begins at or before it.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let above = self.entries.partition_point(|entry| entry.start_offset <= offset);
        above.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// The log now ends at `end_offset`: epochs that begin there or later go.
    pub fn truncate_end(&mut self, end_offset: i64) {
        let keep = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        self.entries.truncate(keep);
    }

    /// The log now begins at `start_offset`: epochs that ended there or before go, and the one in force there
    /// begins there.
    pub fn truncate_start(&mut self, start_offset: i64) {
        let above = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        if let Some(in_force) = above.checked_sub(1) {
            self.entries.drain(..in_force);
            self.entries[0].start_offset = start_offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::new();
        for &(epoch, start_offset) in entries {
            assert!(epochs.assign(epoch, start_offset));
        }
        epochs
    }

    fn pairs(epochs: &LeaderEpochs) -> Vec<(i32, i64)> {
        epochs.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let known = epochs(&[(2, 10), (5, 20), (6, 30)]);
        let cases = [
            (-1, None),
            (0, Some((0, 10))),
            (2, Some((2, 20))),
            (3, Some((2, 20))),
            (5, Some((5, 30))),
            (6, Some((6, 42))),
            (7, None),
        ];
        for (asked, wanted) in cases {
            assert_eq!(known.end_offset(asked, 42), wanted, "epoch {asked}");
        }
        assert_eq!(LeaderEpochs::new().end_offset(0, 0), None);
    }

    #[test]
    fn an_epoch_is_assigned_once_and_contradictions_go() {
        let mut known = epochs(&[(2, 10), (5, 20)]);
        assert!(!known.assign(5, 25));
        assert!(known.assign(5, 15), "earlier: the records at 20 were cut off");
        assert_eq!(pairs(&known), [(2, 10), (5, 15)]);
        assert!(known.assign(3, 12));
        assert_eq!(pairs(&known), [(2, 10), (3, 12)]);
        assert!(known.assign(9, 12), "an epoch without records leaves no entry");
        assert_eq!(pairs(&known), [(2, 10), (9, 12)]);
    }

    #[test]
    fn cuts_at_either_end() {
        let mut known = epochs(&[(2, 10), (5, 20), (6, 30)]);
        known.truncate_end(30);
        assert_eq!(pairs(&known), [(2, 10), (5, 20)]);
        known.truncate_start(9);
        assert_eq!(pairs(&known), [(2, 10), (5, 20)], "nothing below the first");
        known.truncate_start(15);
        assert_eq!(pairs(&known), [(2, 15), (5, 20)]);
        known.truncate_start(20);
        assert_eq!(pairs(&known), [(5, 20)]);
        known.truncate_start(99);
        assert_eq!(pairs(&known), [(5, 99)]);
        known.truncate_end(0);
        assert_eq!(pairs(&known), []);
    }

    #[test]
    fn stored_entries_must_grow() {
        let entry = |epoch, start_offset| EpochStart { epoch, start_offset };
        assert!(LeaderEpochs::from_entries(vec![]).is_some());
        assert!(LeaderEpochs::from_entries(vec![entry(0, 0), entry(1, 1)]).is_some());
        assert!(LeaderEpochs::from_entries(vec![entry(1, 0), entry(1, 1)]).is_none());
        assert!(LeaderEpochs::from_entries(vec![entry(0, 1), entry(1, 1)]).is_none());
        assert!(LeaderEpochs::from_entries(vec![entry(-1, 0)]).is_none());
    }

    proptest! {
        /// The twin is the log itself: the epoch of each record.
        #[test]
        fn as_the_records_say(
            runs in prop::collection::vec((1i32..4, 1usize..6), 1..8),
            cut_end: prop::sample::Index,
            cut_start: prop::sample::Index,
        ) {
            let mut records = Vec::new();
            let mut known = LeaderEpochs::new();
            let mut epoch = 0;
            for (step, count) in runs {
                epoch += step;
                for _ in 0..count {
                    known.assign(epoch, records.len() as i64);
                    records.push(epoch);
                }
            }
            let end = 1 + cut_end.index(records.len());
            let start = cut_start.index(end);
            known.truncate_end(end as i64);
            known.truncate_start(start as i64);
            prop_assert_eq!(&LeaderEpochs::from_entries(known.entries().to_vec()).unwrap(), &known);
            for (offset, &epoch) in (start as i64..).zip(&records[start..end]) {
                prop_assert_eq!(known.epoch_at(offset), Some(epoch));
            }
            prop_assert_eq!(known.epoch_at(start as i64 - 1), None);
            for asked in 0..=epoch + 1 {
                let live = &records[start..end];
                let after = live.iter().position(|&e| e > asked).map_or(end, |at| start + at);
                let floor = live.iter().rev().find(|&&e| e <= asked).copied();
                let wanted = match floor {
                    Some(floor) if floor == asked || after < end => Some((floor, after as i64)),
                    None => Some((asked, after as i64)),
                    Some(_) => None,
                };
                prop_assert_eq!(known.end_offset(asked, end as i64), wanted, "epoch {}", asked);
            }
        }
    }
}
