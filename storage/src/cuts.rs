//! Cuts of a log, as its spilled producers know them. Pure.
//!
//! A cut at an offset makes false what a producer's entry in a run tells, if that run was written before the cut and the
//! entry reaches the offset or lies behind it. Runs are not written anew for it: the log remembers the cut until a merge has
//! held all older entries against it. Runs are numbered in the order in which they are written.
//!
//! Bound: [`CUTS_MAX`]; beyond it the two oldest become one that makes as much void as both, or more.

use crate::producer::Producer;

/// Most cuts that a log remembers.
const CUTS_MAX: usize = 8;
/// Every entry reaches it.
const EVERYTHING: i64 = i64::MIN;

/// A cut: entries first written in a run with a number below `before` are void if they reach `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CutRecord {
    pub before: u64,
    pub offset: i64,
}

/// Those of one log, oldest first; offsets grow with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cuts(Vec<CutRecord>);

impl Cuts {
    pub(crate) fn from_records(records: &[CutRecord]) -> Cuts {
        let mut cuts = Cuts::default();
        records.iter().for_each(|cut| cuts.add(cut.before, cut.offset));
        cuts
    }

    pub(crate) fn records(&self) -> &[CutRecord] {
        &self.0
    }

    /// The log was cut at `offset`, and runs written from now on have numbers from `before` on.
    pub(crate) fn add(&mut self, before: u64, offset: i64) {
        // What reaches a later offset reaches this one.
        self.0.retain(|cut| cut.offset < offset);
        self.0.push(CutRecord { before, offset });
        if self.0.len() > CUTS_MAX {
            self.0[1].offset = self.0[0].offset;
            self.0.remove(0);
        }
    }

    /// Nothing that runs with numbers below `before` tell of this log counts any more.
    pub(crate) fn void_all(&mut self, before: u64) {
        self.add(before, EVERYTHING);
    }

    /// Whether an entry that was first written in this run is void.
    pub(crate) fn void(&self, run: u64, producer: &Producer) -> bool {
        self.0.iter().any(|cut| run < cut.before && producer.reaches(cut.offset))
    }

    /// A merge has held all entries of runs with numbers below `before` against the cuts.
    pub(crate) fn merged(&mut self, before: u64) {
        self.0.retain(|cut| cut.before > before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::ProducerTable;
    use penstock_format::BatchHeader;

    fn at(offset: i64) -> Producer {
        let mut table = ProducerTable::new(1);
        let header =
            BatchHeader { producer_id: 1, producer_epoch: 0, base_offset: offset, ..BatchHeader::default() };
        table.record(&header, 0);
        table.get(1).cloned().unwrap()
    }

    #[test]
    fn void_is_what_is_older_than_a_cut_and_reaches_it() {
        let mut cuts = Cuts::default();
        cuts.add(5, 100);
        assert!(cuts.void(4, &at(100)) && !cuts.void(4, &at(99)) && !cuts.void(5, &at(100)));
        cuts.add(9, 120);
        assert_eq!(cuts.records().len(), 2);
        assert!(cuts.void(8, &at(120)) && !cuts.void(8, &at(119)) && cuts.void(4, &at(119)));
        cuts.add(12, 110);
        assert_eq!(cuts.records().len(), 2, "that at 120 says nothing more");
        assert!(cuts.void(8, &at(110)) && !cuts.void(8, &at(109)) && cuts.void(4, &at(100)));
        assert_eq!(Cuts::from_records(cuts.records()), cuts);
        cuts.merged(5);
        assert_eq!(cuts.records(), [CutRecord { before: 12, offset: 110 }]);
        cuts.void_all(13);
        assert_eq!(cuts.records().len(), 1);
        assert!(cuts.void(12, &at(0)) && !cuts.void(13, &at(500)));
    }

    #[test]
    fn many_cuts_are_bounded_and_forget_none() {
        let mut cuts = Cuts::default();
        for n in 1..100 {
            cuts.add(n, n as i64 * 10);
            assert!(cuts.records().len() <= CUTS_MAX);
            assert!((1..=n).all(|cut| cuts.void(cut - 1, &at(cut as i64 * 10))));
            assert!(!cuts.void(n, &at(5000)));
        }
    }
}
