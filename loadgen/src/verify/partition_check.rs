//! Holds one partition's log against what was acknowledged. Pure: batches in, violations out.

use std::collections::BTreeMap;

use penstock_format::{Batch, Records};

use super::content::RecordName;
use super::ranges::RangeSet;
use super::state::{Delivery, Run};
use super::violations::{Violation, Violations};

/// The most that a batch may be when decompressed.
const UNCOMPRESSED_MAX: usize = 256 << 20;

/// The check of one partition under way.
#[derive(Debug)]
pub struct PartitionCheck {
    partition: i32,
    runs: BTreeMap<u64, RunCheck>,
    /// (first offset, last offset, run, sequence of the first), by offset: where acknowledged records must be.
    acknowledged: Vec<(i64, i64, u64, u64)>,
    next_offset: i64,
    end_offset: i64,
    found: Found,
    scratch: Vec<u8>,
}

/// How far one run's records were followed.
#[derive(Debug)]
struct RunCheck {
    record_size: usize,
    delivery: Delivery,
    acked: RangeSet,
    seen: RangeSet,
    next: u64,
}

/// What one partition holds.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Records of the runs in question.
    pub records: u64,
    /// Of these, records that are there again, as at-least-once delivery allows.
    pub repeated: u64,
    /// Of these, records that were never acknowledged; they may be there or not.
    pub unacknowledged: u64,
    /// Records of others.
    pub foreign: u64,
    /// What must not be.
    pub violations: Violations,
}

impl PartitionCheck {
    /// A check of the log from `log_start_offset` to `end_offset` (exclusive) against `runs`.
    pub fn new(partition: i32, runs: &[Run], log_start_offset: i64, end_offset: i64) -> PartitionCheck {
        let (mut checks, mut acknowledged) = (BTreeMap::new(), Vec::new());
        for run in runs {
            let acked = run.acked.get(&partition).cloned().unwrap_or_default();
            acknowledged.extend(acked.offsets.iter().map(|(first, last, base_offset)| {
                (*base_offset, base_offset + (last - first) as i64, run.run_id, *first)
            }));
            let check = RunCheck {
                record_size: run.record_size,
                delivery: run.delivery,
                acked: acked.sequences,
                seen: RangeSet::default(),
                next: 0,
            };
            checks.insert(run.run_id, check);
        }
        acknowledged.sort_unstable();
        PartitionCheck {
            partition,
            runs: checks,
            acknowledged,
            next_offset: log_start_offset,
            end_offset,
            found: Found::default(),
            scratch: Vec::new(),
        }
    }

    /// The offset to read from; none when the end is reached.
    pub fn next_offset(&self) -> Option<i64> {
        (self.next_offset < self.end_offset).then_some(self.next_offset)
    }

    /// The next offset, at the end too; it only ever rises.
    pub fn position(&self) -> i64 {
        self.next_offset
    }

    /// Takes the next batch of the log. One that ends before the offset to read from is passed over.
    pub fn batch(&mut self, batch: &Batch) {
        let (partition, base_offset) = (self.partition, batch.header.base_offset);
        if batch.header.next_offset() <= self.next_offset {
            return;
        }
        // A log that was cut may begin in the middle of a batch.
        let begins_inside = self.found.records + self.found.foreign == 0 && base_offset < self.next_offset;
        if base_offset != self.next_offset && !begins_inside {
            let what = format!("a batch at {base_offset} where offset {} is next", self.next_offset);
            self.found.violations.add(Violation::Displaced { partition, offset: base_offset, what });
        }
        let from = self.next_offset;
        self.next_offset = batch.header.next_offset();
        if !batch.crc_ok() {
            let what = "the batch's crc is wrong".to_owned();
            return self.found.violations.add(Violation::Altered { partition, offset: base_offset, what });
        }
        if let Err(error) = self.records(batch, from) {
            let what = format!("the batch's records cannot be read: {error}");
            self.found.violations.add(Violation::Altered { partition, offset: base_offset, what });
        }
    }

    fn records(&mut self, batch: &Batch, from: i64) -> Result<(), penstock_format::RecordsError> {
        let records = Records::open(batch, UNCOMPRESSED_MAX)?;
        for record in &records {
            let record = record?;
            if record.offset >= from {
                self.record(record.offset, record.key, record.value.unwrap_or_default());
            }
        }
        Ok(())
    }

    fn record(&mut self, offset: i64, key: Option<&[u8]>, value: &[u8]) {
        let partition = self.partition;
        let name = RecordName::read(value).filter(|name| self.runs.contains_key(&name.run_id));
        self.place(offset, name);
        let Some(name) = name else {
            self.found.foreign += 1;
            return;
        };
        let Some(run) = self.runs.get_mut(&name.run_id) else { return };
        self.found.records += 1;
        name.write_value(run.record_size, &mut self.scratch);
        if name.partition != partition || key != Some(&name.key()) || value != self.scratch {
            let what = format!("it is not the record that it says it is ({name:?})");
            return self.found.violations.add(Violation::Altered { partition, offset, what });
        }
        let sequence = name.sequence;
        if !run.acked.contains(sequence) {
            self.found.unacknowledged += 1;
        }
        let again = run.seen.insert(sequence, sequence) > 0;
        match (again, run.delivery) {
            (true, Delivery::Exactly) => {
                self.found.violations.add(Violation::Duplicated { partition, offset, sequence });
            }
            // A retry repeats a batch, and what follows it may have been sent before: any repetition is allowed.
            (true, Delivery::AtLeast) => self.found.repeated += 1,
            (false, _) if sequence != run.next => {
                let (expected, found) = (run.next, sequence);
                self.found.violations.add(Violation::OutOfOrder { partition, offset, expected, found });
            }
            (false, _) => {}
        }
        run.next = run.next.max(sequence + 1);
    }

    /// Checks that an acknowledged offset holds the record that was acknowledged there.
    fn place(&mut self, offset: i64, name: Option<RecordName>) {
        let at = self.acknowledged.partition_point(|range| range.1 < offset);
        let Some((first_offset, _, run_id, first)) =
            self.acknowledged.get(at).filter(|range| range.0 <= offset)
        else {
            return;
        };
        let expected = (*run_id, first + (offset - first_offset) as u64);
        if name.is_none_or(|name| (name.run_id, name.sequence) != expected) {
            let what = match name {
                Some(name) => format!("sequence {} where {} was acknowledged", name.sequence, expected.1),
                None => format!("something else where sequence {} was acknowledged", expected.1),
            };
            self.found.violations.add(Violation::Displaced { partition: self.partition, offset, what });
        }
    }

    /// Ends the check: what was acknowledged and not seen is missing.
    pub fn finish(mut self) -> Found {
        for (run_id, run) in &self.runs {
            for (first, last) in run.acked.minus(&run.seen) {
                let violation =
                    Violation::Missing { partition: self.partition, run_id: *run_id, first, last };
                self.found.violations.add(violation);
            }
        }
        self.found
    }
}

#[cfg(test)]
mod tests;
