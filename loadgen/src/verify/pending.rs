//! One partition's records that are not acknowledged yet, kept so that they can be sent again exactly as they were.

use std::collections::VecDeque;

use penstock_format::{Batch, BatchBuilder, BuildError, Compression, NewRecord};

use super::content::RecordName;
use crate::payload::wall_clock_ms;

/// How a run's batches are made.
#[derive(Debug, Clone)]
pub(super) struct BatchSpec {
    pub(super) run_id: u64,
    pub(super) record_size: usize,
    /// Each batch has from one to so many records.
    pub(super) records_max: u64,
    pub(super) compression: Compression,
    /// Id and epoch of an idempotent producer.
    pub(super) producer: Option<(i64, i16)>,
}

/// A batch that was made and not acknowledged.
#[derive(Debug)]
pub(super) struct PendingBatch {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) batch: Batch,
}

/// One partition. At most as many batches are pending as requests may be in flight.
#[derive(Debug)]
pub(super) struct Pending {
    partition: i32,
    next: u64,
    /// In order; the front was sent first.
    batches: VecDeque<PendingBatch>,
    /// How many of `batches` were sent on the connection at hand.
    sent: usize,
    /// Whether the broker has acknowledged anything. Until then one batch is in flight: a broker takes any sequence from a
    /// producer that it does not know, so a second batch could be written though the first was refused.
    known: bool,
}

impl Pending {
    pub(super) fn new(partition: i32) -> Pending {
        Pending { partition, next: 0, batches: VecDeque::new(), sent: 0, known: false }
    }

    /// A new connection: nothing was sent on it yet.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Records without an acknowledgement.
    pub(super) fn records(&self) -> u64 {
        self.batches.iter().map(|pending| pending.last - pending.first + 1).sum()
    }

    /// The batch to send next: one that an earlier connection lost, or, if `more`, a new one.
    pub(super) fn next_batch(&mut self, spec: &BatchSpec, more: bool) -> Result<Option<&Batch>, BuildError> {
        if self.sent > 0 && !self.known {
            return Ok(None);
        }
        if self.sent == self.batches.len() {
            if !more {
                return Ok(None);
            }
            let made = self.make(spec)?;
            self.batches.push_back(made);
        }
        self.sent += 1;
        Ok(Some(&self.batches[self.sent - 1].batch))
    }

    /// The oldest batch was acknowledged.
    pub(super) fn acknowledged(&mut self) -> Option<PendingBatch> {
        self.sent = self.sent.checked_sub(1)?;
        self.known = true;
        self.batches.pop_front()
    }

    fn make(&mut self, spec: &BatchSpec) -> Result<PendingBatch, BuildError> {
        let first = self.next;
        let name = |sequence| RecordName { run_id: spec.run_id, partition: self.partition, sequence };
        let last = first + name(first).batch_records(spec.records_max) - 1;
        let mut builder = BatchBuilder::new().compression(spec.compression, None);
        if let Some((producer_id, producer_epoch)) = spec.producer {
            // A producer's sequences wrap to 0 after 2^31 - 1.
            builder = builder.producer(producer_id, producer_epoch, (first & 0x7fff_ffff) as i32);
        }
        let (timestamp, mut value) = (wall_clock_ms(), Vec::new());
        for sequence in first..=last {
            let name = name(sequence);
            name.write_value(spec.record_size, &mut value);
            builder.append(&NewRecord {
                timestamp,
                key: Some(&name.key()),
                value: Some(&value),
                headers: &[],
            })?;
        }
        self.next = last + 1;
        Ok(PendingBatch { first, last, batch: builder.finish()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_sent_again_as_it_was_and_in_order() {
        let spec = BatchSpec {
            run_id: 1,
            record_size: 100,
            records_max: 10,
            compression: Compression::None,
            producer: Some((9, 0)),
        };
        let mut pending = Pending::new(4);
        let mut sent = vec![pending.next_batch(&spec, true).unwrap().unwrap().clone()];
        assert_eq!(pending.next_batch(&spec, true).unwrap(), None, "the first is alone in flight");
        let first = pending.acknowledged().unwrap();
        assert_eq!((first.first, &first.batch), (0, &sent[0]));
        for _ in 0..2 {
            sent.push(pending.next_batch(&spec, true).unwrap().unwrap().clone());
        }
        pending.rewind();
        assert!(pending.acknowledged().is_none(), "nothing was sent on this connection");
        assert_eq!(pending.next_batch(&spec, false).unwrap(), Some(&sent[1]));
        assert_eq!(pending.next_batch(&spec, false).unwrap(), Some(&sent[2]));
        assert_eq!(pending.next_batch(&spec, false).unwrap(), None);
        assert_eq!(sent[1].header.base_sequence, sent[0].header.record_count);
        assert_eq!(pending.records(), (sent[1].header.record_count + sent[2].header.record_count) as u64);
    }
}
