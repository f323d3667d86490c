//! What a cleaned log was told.

use std::collections::{BTreeMap, BTreeSet};

use penstock_format::Batch;

/// A record that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rec {
    pub(super) offset: i64,
    pub(super) key: Option<u8>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) timestamp: i64,
    /// Its transaction, by the offset of its first record.
    pub(super) transaction: Option<i64>,
}

/// What is being asked of the log and was not answered yet.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Append { records: Vec<Rec>, next_offset: i64, producer: Option<(i64, Batch)> },
    Marker { producer: i64, offset: i64, commit: bool },
    Truncate { to: i64 },
}

/// What the log was told.
#[derive(Debug, Default)]
pub(super) struct Twin {
    pub(super) records: Vec<Rec>,
    pub(super) end: i64,
    pub(super) asked: Option<Asked>,
    /// Each producer's last batch with its offset.
    pub(super) last: BTreeMap<i64, (Batch, i64)>,
    /// Open transactions: first offset by producer.
    pub(super) open: BTreeMap<i64, i64>,
    pub(super) aborted: BTreeSet<i64>,
    pub(super) start_asked: i64,
    /// The latest time that a store was told.
    pub(super) told_ms: i64,
    /// Where batches end.
    pub(super) ends: BTreeSet<i64>,
    /// What is below may have been cleaned for the sake of what is not: nothing there is cut off.
    pub(super) cut_from: i64,
}

impl Twin {
    /// What was asked took place.
    pub(super) fn took_place(&mut self) {
        match self.asked.take() {
            None => {}
            Some(Asked::Append { records, next_offset, producer }) => {
                let base = self.end;
                if let Some(first) = records.iter().find_map(|record| record.transaction)
                    && let Some((id, _)) = &producer
                {
                    self.open.entry(*id).or_insert(first);
                }
                if let Some((id, batch)) = producer {
                    self.last.insert(id, (batch, base));
                }
                self.records.extend(records);
                self.end = next_offset;
                self.ends.insert(next_offset);
            }
            Some(Asked::Marker { producer, offset, commit }) => {
                if let Some(first) = self.open.remove(&producer).filter(|_| !commit) {
                    self.aborted.insert(first);
                }
                self.end = offset + 1;
                self.ends.insert(self.end);
            }
            Some(Asked::Truncate { to }) => {
                self.records.retain(|record| record.offset < to);
                self.ends.retain(|end| *end <= to);
                self.end = to;
            }
        }
    }

    pub(super) fn is_aborted(&self, record: &Rec) -> bool {
        record.transaction.is_some_and(|first| self.aborted.contains(&first))
    }

    /// The newest record of each key that counts: aborted ones do not.
    pub(super) fn newest(&self) -> BTreeMap<u8, &Rec> {
        let counts = self.records.iter().filter(|record| !self.is_aborted(record));
        counts.filter_map(|record| Some((record.key?, record))).collect()
    }
}
