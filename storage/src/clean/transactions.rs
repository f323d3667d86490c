//! Whether the data of a transaction, and its marker, may go. Pure.
//!
//! Rules of Apache Kafka (KIP-98): records of an aborted transaction go at once; a marker only when a cleaning finds no
//! batch of its transaction any more. Markers stand behind what they are about, so the aborted transactions of the range
//! have to be known before; [`Scan`] finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_format::{Batch, BatchHeader, ControlRecord, Records};

/// Largest marker read: it has one small record.
const MARKER_BYTES_MAX: usize = 64 << 10;
/// Aborted transactions known at once, besides those open when there were as many; a log with more of them is cleaned in
/// several rounds.
const ABORTED_MAX: usize = 100_000;

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub producer_id: i64,
    /// Its first offset.
    pub first: i64,
    /// Offset of its marker.
    pub marker: i64,
}

/// What a control batch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    Abort,
    Commit,
    /// It was cleaned before.
    Empty,
    /// Of another type, or not to be understood.
    Other,
}

impl Marker {
    pub(crate) fn of(batch: &Batch) -> Marker {
        let Ok(records) = Records::open(batch, MARKER_BYTES_MAX) else { return Marker::Other };
        match records.iter().next() {
            None => Marker::Empty,
            Some(record) => match record.map(|record| ControlRecord::parse(&record)) {
                Ok(Ok(ControlRecord::EndTransaction { committed: true, .. })) => Marker::Commit,
                Ok(Ok(ControlRecord::EndTransaction { committed: false, .. })) => Marker::Abort,
                _ => Marker::Other,
            },
        }
    }
}

/// Looks for aborted transactions, batch by batch.
#[derive(Debug)]
pub(crate) struct Scan {
    /// First offsets of transactions whose marker was not seen yet, by producer.
    open: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
    /// Transactions that begin here or later are not looked at: enough are known.
    ends_at: Option<i64>,
    aborted_max: usize,
}

impl Default for Scan {
    fn default() -> Scan {
        let (open, aborted) = (BTreeMap::new(), Vec::new());
        Scan { open, aborted, ends_at: None, aborted_max: ABORTED_MAX }
    }
}

impl Scan {
    /// Takes note of the next batch.
    pub(crate) fn note(&mut self, header: &BatchHeader, marker: impl FnOnce() -> Marker) {
        if header.is_control() {
            let first = self.open.remove(&header.producer_id);
            if let (Some(first), Marker::Abort) = (first, marker()) {
                let (producer_id, marker) = (header.producer_id, header.base_offset);
                self.aborted.push(Aborted { producer_id, first, marker });
            }
        } else if header.is_transactional() && header.record_count > 0 {
            if self.aborted.len() >= self.aborted_max && !self.open.contains_key(&header.producer_id) {
                self.ends_at.get_or_insert(header.base_offset);
            }
            if self.ends_at.is_none() {
                self.open.entry(header.producer_id).or_insert(header.base_offset);
            }
        }
    }

    /// Whether a scan up to `position` tells of all transactions that begin before `end`, or before there are too many.
    pub(crate) fn is_done(&self, position: i64, end: i64) -> bool {
        let end = self.ends_at.map_or(end, |ends_at| ends_at.min(end));
        position >= end && self.open.values().all(|first| *first >= end)
    }

    /// What was found of the range up to `position`, and up to where it can be told which transactions were aborted.
    pub(crate) fn finish(mut self, position: i64) -> (Arc<[Aborted]>, i64) {
        let unknown = self.open.values().copied().chain(self.ends_at).min();
        let known_to = unknown.unwrap_or(position).min(position);
        self.aborted.sort_unstable_by_key(|aborted| aborted.first);
        (self.aborted.into(), known_to)
    }
}

/// Follows the transactions of a log from its start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transactions {
    /// By first offset; those before `next` were met.
    aborted: Arc<[Aborted]>,
    next: usize,
    /// Aborted ones that are open, by producer: whether a batch of them was met.
    open_aborted: BTreeMap<i64, bool>,
    /// Producers of others of which a batch was met.
    open_committed: BTreeSet<i64>,
}

impl Transactions {
    /// With the aborted ones, by first offset.
    pub(crate) fn new(aborted: Arc<[Aborted]>) -> Transactions {
        Transactions { aborted, ..Transactions::default() }
    }

    /// The same from the log's start again.
    pub(crate) fn restarted(&self) -> Transactions {
        Transactions::new(self.aborted.clone())
    }

    /// Takes note of a batch of records; says whether it was aborted.
    pub(crate) fn is_aborted(&mut self, header: &BatchHeader) -> bool {
        self.meet(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.open_aborted.get_mut(&header.producer_id) {
            Some(met) => {
                *met = true;
                true
            }
            None => {
                self.open_committed.insert(header.producer_id);
                false
            }
        }
    }

    /// Takes note of a marker; says whether nothing is left of what it is about.
    pub(crate) fn marks_nothing(&mut self, header: &BatchHeader, marker: Marker) -> bool {
        self.meet(header.last_offset());
        match marker {
            // Of one that was cleaned before, a batch without records may be left: it was met as if committed.
            Marker::Abort => {
                let met = self.open_aborted.remove(&header.producer_id) == Some(true);
                !(self.open_committed.remove(&header.producer_id) || met)
            }
            Marker::Commit => !self.open_committed.remove(&header.producer_id),
            Marker::Empty => true,
            Marker::Other => false,
        }
    }

    fn meet(&mut self, offset: i64) {
        while let Some(aborted) = self.aborted.get(self.next).filter(|aborted| aborted.first <= offset) {
            self.open_aborted.entry(aborted.producer_id).or_insert(false);
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use penstock_format::EndTransactionMarker;

    use super::*;

    fn data(producer_id: i64, base_offset: i64) -> BatchHeader {
        let mut header = BatchHeader { producer_id, base_offset, record_count: 1, ..BatchHeader::default() };
        header.set_transactional(true);
        header
    }

    fn control(producer_id: i64, base_offset: i64) -> BatchHeader {
        let mut header = data(producer_id, base_offset);
        header.set_control(true);
        header
    }

    #[test]
    fn markers_are_read() {
        let marker = |committed| EndTransactionMarker {
            producer_id: 1,
            producer_epoch: 0,
            coordinator_epoch: 0,
            committed,
            timestamp: 0,
        };
        assert_eq!(Marker::of(&marker(true).to_batch().unwrap()), Marker::Commit);
        assert_eq!(Marker::of(&marker(false).to_batch().unwrap()), Marker::Abort);
        let empty = BatchHeader { record_count: 0, ..control(1, 0) };
        let empty = Batch::seal(empty, bytes::Bytes::new()).unwrap();
        assert_eq!(Marker::of(&empty), Marker::Empty);
    }

    #[test]
    fn aborted_data_goes_first_and_its_marker_when_nothing_is_left() {
        let mut scan = Scan::default();
        scan.note(&data(1, 0), || unreachable!());
        scan.note(&data(2, 1), || unreachable!());
        scan.note(&control(1, 2), || Marker::Abort);
        assert!(!scan.is_done(3, 3) && scan.is_done(3, 1) && !scan.is_done(0, 1));
        scan.note(&control(2, 3), || Marker::Commit);
        scan.note(&data(1, 4), || unreachable!());
        assert!(scan.is_done(5, 4) && !scan.is_done(5, 5));
        let (aborted, known_to) = scan.finish(5);
        assert_eq!((&aborted[..], known_to), (&[Aborted { producer_id: 1, first: 0, marker: 2 }][..], 4));
        let mut first = Transactions::new(aborted.clone());
        assert!(first.is_aborted(&data(1, 0)) && !first.is_aborted(&data(2, 1)));
        assert!(!first.marks_nothing(&control(1, 2), Marker::Abort));
        assert!(!first.marks_nothing(&control(2, 3), Marker::Commit));
        assert!(!first.is_aborted(&data(1, 4)), "another transaction");
        // The data of both went.
        let mut second = Transactions::new(aborted);
        assert!(second.marks_nothing(&control(1, 2), Marker::Abort));
        assert!(second.marks_nothing(&control(2, 3), Marker::Commit));
        assert!(!second.marks_nothing(&control(2, 9), Marker::Other));
        assert!(second.marks_nothing(&control(2, 9), Marker::Empty));
    }

    #[test]
    fn a_marker_stays_while_a_batch_of_its_transaction_does_although_that_is_empty() {
        let empty = BatchHeader { record_count: 0, ..data(1, 0) };
        let mut scan = Scan::default();
        scan.note(&empty, || unreachable!());
        scan.note(&control(1, 1), || Marker::Abort);
        let (aborted, known_to) = scan.finish(2);
        assert_eq!((&aborted[..], known_to), (&[][..], 2), "what is cleaned opens no transaction");
        let mut next = Transactions::new(aborted);
        assert!(!next.is_aborted(&empty));
        assert!(!next.marks_nothing(&control(1, 1), Marker::Abort));
        assert!(!next.is_aborted(&data(1, 2)), "another");
        assert!(!next.marks_nothing(&control(1, 3), Marker::Commit));
    }

    #[test]
    fn of_too_many_only_the_first_are_known() {
        let mut scan = Scan { aborted_max: 1, ..Scan::default() };
        scan.note(&data(1, 0), || unreachable!());
        scan.note(&data(2, 1), || unreachable!());
        scan.note(&control(1, 2), || Marker::Abort);
        scan.note(&data(2, 3), || unreachable!());
        assert!(!scan.is_done(4, 9));
        scan.note(&data(1, 4), || unreachable!());
        assert!(!scan.is_done(5, 9), "one from before is open");
        scan.note(&control(2, 5), || Marker::Abort);
        assert!(scan.is_done(6, 9));
        let (aborted, known_to) = scan.finish(6);
        assert_eq!((aborted.len(), known_to), (2, 4));
    }
}
