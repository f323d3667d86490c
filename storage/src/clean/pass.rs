//! The work of cleaning on bytes: reading keys into the map, and leaving of a log's batches what the map says. Pure, and
//! free to run on another thread: what it needs travels with it.
//!
//! Every batch is checked before anything is believed of it, as reads do: its crc, its place in the chain of offsets and its
//! leader epoch, which the crc does not cover. A fault ends the cleaning of the log.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use penstock_format::{
    BATCH_HEADER_LEN, Batch, BatchHeader, FilterRules, Filtered, RecordRef, Records, filter,
};

use super::key_map::KeyMap;
use super::transactions::{Marker, Transactions};
use crate::cold::Known;
use crate::disk::{AlignedBuf, BLOCK};
use crate::epochs::LeaderEpochs;
use crate::index::{AppendedBatch, SegmentIndex};
use crate::plan::block_floor;
use crate::segment::DATA_START;
use crate::walk::Walk;

/// Why a log cannot be cleaned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Position in the segment.
    pub at: u64,
    pub reason: String,
}

impl Fault {
    fn new(at: u64, reason: impl fmt::Display) -> Fault {
        Fault { at, reason: reason.to_string() }
    }
}

/// Bytes of a segment, and what is known of them from elsewhere.
#[derive(Debug)]
pub(crate) struct Piece {
    pub bytes: Bytes,
    /// Where it begins, which is where a batch does.
    pub walk: Walk,
    /// Where the segment ends, and the offset of what follows it.
    pub limit: (u64, i64),
    pub epochs: LeaderEpochs,
    pub start_offset: i64,
}

/// A batch and its position.
pub(crate) type Placed = (u64, Batch);

impl Piece {
    /// The whole batches that are found right, and where the one behind them ends, if that is known.
    pub(crate) fn batches(&mut self) -> Result<(Vec<Placed>, Option<Walk>), Fault> {
        let from = self.walk.position;
        let known = Known::new(&self.epochs, self.start_offset, self.limit);
        let walked = self.walk.piece(&self.bytes, &known);
        let (walked, cut) = walked.map_err(|at| Fault::new(at, "a batch is damaged"))?;
        let place = |(position, header): (u64, BatchHeader)| {
            let at = (position - from) as usize;
            let body = self.bytes.slice(at + BATCH_HEADER_LEN..at + header.total_len());
            (position, Batch { header, body })
        };
        Ok((walked.into_iter().map(place).collect(), cut))
    }

    /// Whether a batch that goes beyond the piece ends where another begins, or the segment ends. `head` is what stands
    /// there.
    pub(crate) fn may_end(&self, cut: &Walk, head: &[u8]) -> bool {
        let known = Known::new(&self.epochs, self.start_offset, self.limit);
        let next = BatchHeader::parse(head);
        cut.is_over() || next.is_ok_and(|next| known.fits(&next, cut.position, cut.due))
    }
}

/// How far batches were worked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Batches done with.
    pub done: usize,
    pub end: StepEnd,
}

/// Why batches were not worked through any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepEnd {
    /// These were all.
    All,
    /// The map is full.
    Full,
    /// What follows may not be looked at.
    Limit,
    /// The batch at this offset belongs to a transaction, and it is not known which were aborted.
    Transaction(i64),
}

/// Whole blocks to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub data: Bytes,
    /// Position in the new segment's file.
    pub position: u64,
}

/// Reads keys into the map.
#[derive(Debug)]
pub(crate) struct Indexing {
    pub map: KeyMap,
    /// Records before were cleaned.
    pub from: i64,
    /// No batch from here on is looked at.
    pub limit: i64,
    /// The last offset that the map tells all of.
    pub latest: i64,
    /// Which transactions were aborted, once that has to be known.
    pub transactions: Option<Transactions>,
    pub decompressed_bytes_max: usize,
    pub records: u64,
}

impl Indexing {
    /// Reads the keys of batches.
    pub(crate) fn batches(&mut self, batches: &[Placed]) -> Result<(Step, Option<Blocks>), Fault> {
        for (done, (position, batch)) in batches.iter().enumerate() {
            let end = self.batch(batch).map_err(|reason| Fault::new(*position, reason))?;
            if end != StepEnd::All {
                return Ok((Step { done, end }, None));
            }
            self.latest = self.latest.max(batch.header.last_offset());
        }
        Ok((Step { done: batches.len(), end: StepEnd::All }, None))
    }

    fn batch(&mut self, batch: &Batch) -> Result<StepEnd, penstock_format::RecordsError> {
        let header = &batch.header;
        if header.base_offset >= self.limit {
            return Ok(StepEnd::Limit);
        }
        if (header.is_control() || header.is_transactional()) && header.last_offset() >= self.from {
            let Some(transactions) = &mut self.transactions else {
                return Ok(StepEnd::Transaction(header.base_offset));
            };
            if header.is_control() {
                transactions.marks_nothing(header, Marker::of(batch));
            } else if transactions.is_aborted(header) {
                return Ok(StepEnd::All);
            }
        }
        if !header.is_control() && !self.keys(batch)? {
            return Ok(StepEnd::Full);
        }
        Ok(StepEnd::All)
    }

    /// Notes the keys of a batch; says no if the map is full.
    fn keys(&mut self, batch: &Batch) -> Result<bool, penstock_format::RecordsError> {
        if batch.header.last_offset() < self.from {
            return Ok(true);
        }
        let records = Records::open(batch, self.decompressed_bytes_max)?;
        for record in &records {
            let record = record?;
            let Some(key) = record.key.filter(|_| record.offset >= self.from) else { continue };
            if !self.map.insert(key, record.offset) {
                return Ok(false);
            }
            self.records += 1;
        }
        Ok(true)
    }
}

/// The last that a producer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastWritten {
    /// Offset of its last record; `None` if its last word was a marker.
    pub offset: Option<i64>,
    pub epoch: i16,
}

/// Leaves of batches what the map says.
#[derive(Debug)]
pub(crate) struct Filtering {
    pub map: KeyMap,
    /// The last offset that the map tells all of; batches behind it stay as they are.
    pub latest: i64,
    /// Where the first segment begins that must not be cleaned.
    pub end: i64,
    pub now_ms: i64,
    pub delete_retention_ms: i64,
    pub decompressed_bytes_max: usize,
    pub last_written: HashMap<i64, LastWritten>,
    pub transactions: Transactions,
    pub output: Output,
    /// Records dropped.
    pub dropped: u64,
}

impl Filtering {
    /// Filters batches; gives what of the output can be written in whole blocks, and where.
    pub(crate) fn batches(&mut self, batches: &[Placed]) -> Result<(Step, Option<Blocks>), Fault> {
        for (position, batch) in batches {
            let left = self.batch(batch).map_err(|reason| Fault::new(*position, reason))?;
            if let Some((left, waits)) = left {
                self.output.push(&left, waits);
            }
        }
        Ok((Step { done: batches.len(), end: StepEnd::All }, self.output.take_blocks()))
    }

    /// What is left of one batch, and whether there is something in it that goes when its delete horizon passes.
    fn batch(&mut self, batch: &Batch) -> Result<Option<(Batch, bool)>, penstock_format::RecordsError> {
        let header = batch.header;
        if header.base_offset > self.latest {
            return Ok(Some((batch.clone(), false)));
        }
        let horizon = header.has_delete_horizon().then_some(header.base_timestamp);
        let passed = horizon.is_some_and(|horizon| horizon <= self.now_ms);
        let (discard, marks_nothing) = if header.is_control() {
            let nothing = self.transactions.marks_nothing(&header, Marker::of(batch));
            (nothing && passed, nothing)
        } else {
            (self.transactions.is_aborted(&header), false)
        };
        let rules = FilterRules {
            keep_empty: self.is_last_of_producer(&header) || header.next_offset() == self.end,
            marks_nothing,
            delete_horizon_ms: self.now_ms.saturating_add(self.delete_retention_ms),
            decompressed_bytes_max: self.decompressed_bytes_max,
        };
        let (map, latest) = (&self.map, self.latest);
        let (mut dropped, mut waits) = (0, marks_nothing);
        let keep = |record: &RecordRef<'_>| {
            let keeps = if discard {
                false
            } else {
                header.is_control() || record.offset > latest || is_newest(map, record, passed)
            };
            dropped += u64::from(!keeps);
            waits |= keeps && record.value.is_none() && record.offset <= latest;
            keeps
        };
        let filtered = filter(batch, &rules, keep)?;
        self.dropped += dropped;
        Ok(match filtered {
            Filtered::Whole => Some((batch.clone(), waits)),
            Filtered::Rebuilt(left) | Filtered::Empty(left) => Some((left, waits)),
            Filtered::Nothing => None,
        })
    }

    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        let last = self.last_written.get(&header.producer_id).filter(|_| header.has_producer_id());
        last.is_some_and(|last| match last.offset {
            Some(offset) => header.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.epoch,
        })
    }
}

/// Whether the record is the newest of its key, and no tombstone whose horizon `passed`. One without a key goes.
fn is_newest(map: &KeyMap, record: &RecordRef<'_>, passed: bool) -> bool {
    let Some(key) = record.key else { return false };
    let newest = map.get(key).is_none_or(|newest| record.offset >= newest);
    newest && (record.value.is_some() || !passed)
}

/// The segment that is being made.
#[derive(Debug)]
pub(crate) struct Output {
    /// Bytes not given out yet, from `position` of the file on.
    bytes: Vec<u8>,
    position: u64,
    interval: u32,
    pub index: SegmentIndex,
    /// Largest timestamp and the base offset of the first batch that has it; -1 if none.
    pub max_timestamp: (i64, i64),
    /// Largest timestamp of the first batch; -1 where there are records and none has a timestamp.
    pub first_timestamp: i64,
    /// Earliest delete horizon of a batch that something goes from when it passes, -1 if none.
    pub horizon_ms: i64,
}

impl Output {
    /// Of a segment that begins at `base`, with an index entry each `interval` bytes.
    pub(crate) fn new(base: i64, interval: u32) -> Output {
        Output {
            bytes: Vec::new(),
            position: DATA_START,
            interval,
            index: SegmentIndex::new(base, DATA_START),
            max_timestamp: (-1, -1),
            first_timestamp: -1,
            horizon_ms: -1,
        }
    }

    /// File position after the last batch.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    fn push(&mut self, batch: &Batch, waits: bool) {
        let header = &batch.header;
        // A batch without records has a timestamp, and no record that has it.
        let newest = if header.record_count > 0 { header.max_timestamp } else { -1 };
        let (base_offset, position, len) = (header.base_offset, self.end(), batch.len() as u64);
        self.index.note(&AppendedBatch { base_offset, position, len, max_timestamp: newest }, self.interval);
        if position == DATA_START {
            self.first_timestamp = header.max_timestamp;
        }
        if newest > self.max_timestamp.0 {
            self.max_timestamp = (newest, base_offset);
        } else if header.record_count > 0 && self.max_timestamp.0 < 0 {
            // Else the segment would seem to be as old as a batch without records before them.
            self.first_timestamp = -1;
        }
        let has_horizon = waits && header.has_delete_horizon();
        if has_horizon && (self.horizon_ms < 0 || header.base_timestamp < self.horizon_ms) {
            self.horizon_ms = header.base_timestamp;
        }
        self.bytes.extend_from_slice(&header.to_array());
        self.bytes.extend_from_slice(&batch.body);
    }

    /// Takes the whole blocks out, with their position; `None` if there are none.
    fn take_blocks(&mut self) -> Option<Blocks> {
        let len = block_floor(self.bytes.len() as u64) as usize;
        self.take(len)
    }

    /// Takes what is left, padded to a whole block.
    pub(crate) fn take_rest(&mut self) -> Option<Blocks> {
        self.take(self.bytes.len())
    }

    fn take(&mut self, len: usize) -> Option<Blocks> {
        if len == 0 {
            return None;
        }
        let mut block = AlignedBuf::with_capacity(len.next_multiple_of(BLOCK));
        block.extend_from_slice(&self.bytes[..len]);
        block.pad_to_block();
        self.bytes.drain(..len);
        let position = self.position;
        self.position += len as u64;
        Some(Blocks { data: block.freeze(), position })
    }
}

#[cfg(test)]
mod tests;
