//! The work of cleaning on bytes: reading keys into the map, and leaving of a log's batches what the map says. Pure, and
//! free to run on another thread: what it needs travels with it.
//!
//! Every batch is checked (crc) before anything is believed of it. A fault ends the cleaning of the log.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use penstock_format::{Batch, BatchHeader, FilterRules, Filtered, RecordRef, Records, filter};

use super::key_map::KeyMap;
use super::transactions::{Marker, Transactions};
use crate::disk::{AlignedBuf, BLOCK};
use crate::index::{AppendedBatch, SegmentIndex};
use crate::plan::block_floor;
use crate::segment::DATA_START;

/// Why a log cannot be cleaned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Bytes into the piece.
    pub at: usize,
    pub reason: String,
}

impl Fault {
    fn new(at: usize, reason: impl fmt::Display) -> Fault {
        Fault { at, reason: reason.to_string() }
    }
}

/// How far a piece was worked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bytes of whole batches done with.
    pub consumed: usize,
    /// Bytes of the batch after them, as far as it is known, if the piece ends within it.
    pub needed: usize,
    pub end: StepEnd,
}

/// Why a piece was not worked through any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepEnd {
    /// It ends here.
    Piece,
    /// The map is full, or what follows may not be looked at.
    Full,
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

/// The whole batch at `at`; `None` and the bytes it takes, as far as known, if the piece ends before it does.
fn batch_at(piece: &Bytes, at: usize) -> Result<Result<Batch, usize>, Fault> {
    let rest = piece.slice(at..);
    if rest.len() < penstock_format::BATCH_HEADER_LEN {
        return Ok(Err(penstock_format::BATCH_HEADER_LEN));
    }
    let header = BatchHeader::parse(&rest).map_err(|error| Fault::new(at, error))?;
    if header.base_offset < 0 || header.last_offset_delta < 0 {
        return Err(Fault::new(at, "offsets of a batch are negative"));
    }
    if header.total_len() > rest.len() {
        return Ok(Err(header.total_len()));
    }
    let (batch, _) = Batch::parse(&rest).map_err(|error| Fault::new(at, error))?;
    if !batch.crc_ok() {
        return Err(Fault::new(at, "a batch does not match its crc"));
    }
    Ok(Ok(batch))
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
    /// Reads the keys of a piece.
    pub(crate) fn piece(&mut self, piece: &Bytes) -> Result<(Step, Option<Blocks>), Fault> {
        let mut at = 0;
        loop {
            let stop = |needed, end| Ok((Step { consumed: at, needed, end }, None));
            if at == piece.len() {
                return stop(0, StepEnd::Piece);
            }
            let batch = match batch_at(piece, at)? {
                Ok(batch) => batch,
                Err(needed) => return stop(needed, StepEnd::Piece),
            };
            let header = batch.header;
            if header.base_offset >= self.limit {
                return stop(0, StepEnd::Full);
            }
            let transactional = header.is_control() || header.is_transactional();
            if transactional && header.last_offset() >= self.from {
                let Some(transactions) = &mut self.transactions else {
                    return stop(0, StepEnd::Transaction(header.base_offset));
                };
                if header.is_control() {
                    transactions.marks_nothing(&header, Marker::of(&batch));
                } else if transactions.is_aborted(&header) {
                    self.latest = self.latest.max(header.last_offset());
                    at += batch.len();
                    continue;
                }
            }
            if !header.is_control() && !self.keys(&batch).map_err(|reason| Fault::new(at, reason))? {
                return stop(0, StepEnd::Full);
            }
            self.latest = self.latest.max(header.last_offset());
            at += batch.len();
        }
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
    /// Filters a piece; gives what of the output can be written in whole blocks, and where.
    pub(crate) fn piece(&mut self, piece: &Bytes) -> Result<(Step, Option<Blocks>), Fault> {
        let mut at = 0;
        let needed = loop {
            if at == piece.len() {
                break 0;
            }
            let batch = match batch_at(piece, at)? {
                Ok(batch) => batch,
                Err(needed) => break needed,
            };
            let left = self.batch(&batch).map_err(|reason| Fault::new(at, reason))?;
            if let Some((left, waits)) = left {
                self.output.push(&left, waits);
            }
            at += batch.len();
        };
        Ok((Step { consumed: at, needed, end: StepEnd::Piece }, self.output.take_blocks()))
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
    /// Largest timestamp of the first batch.
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
