//! Writes batches record by record.

use bytes::Bytes;

use crate::batch::Batch;
use crate::codec::{self, CodecError};
use crate::header::{BatchHeader, Compression};
use crate::varint;

/// A record to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewRecord<'a> {
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Key, or none.
    pub key: Option<&'a [u8]>,
    /// Value, or none (a tombstone).
    pub value: Option<&'a [u8]>,
    /// Header keys and values, in order; keys may repeat.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Why a batch cannot be written. Always a fault of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A length or delta does not fit the format's 32-bit fields.
    #[error("batch too large for the format")]
    TooLarge,
    /// An offset delta is not larger than the one before it.
    #[error("offset delta {delta} does not grow")]
    OffsetDelta {
        /// The delta refused.
        delta: i32,
    },
    /// The codec failed.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Collects records into a batch. Offsets begin at 0 and the base timestamp is the first record's, unless
/// the header is given.
#[derive(Debug, Clone, Default)]
pub struct BatchBuilder {
    header: BatchHeader,
    compression: Compression,
    level: Option<i32>,
    base_timestamp: Option<i64>,
    records: Vec<u8>,
    scratch: Vec<u8>,
}

impl BatchBuilder {
    /// An empty uncompressed batch at offset 0 of no producer.
    pub fn new() -> BatchBuilder {
        BatchBuilder::default()
    }

    /// Sets the offset of the first record.
    pub fn base_offset(mut self, base_offset: i64) -> Self {
        self.header.base_offset = base_offset;
        self
    }

    /// Sets the leader epoch, -1 otherwise.
    pub fn leader_epoch(mut self, epoch: i32) -> Self {
        self.header.partition_leader_epoch = epoch;
        self
    }

    /// Sets the codec and its level, `None` for the codec's default.
    pub fn compression(mut self, compression: Compression, level: Option<i32>) -> Self {
        self.compression = compression;
        self.level = level;
        self
    }

    /// Makes the batch idempotent.
    pub fn producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = producer_id;
        self.header.producer_epoch = producer_epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Starts from `header` where attributes, base timestamp and producer fields are to be kept, as when a
    /// batch is rewritten. Its record count, last offset delta, length and crc are written anew.
    pub fn from_header(header: &BatchHeader) -> BatchBuilder {
        let header = BatchHeader { record_count: 0, ..*header };
        BatchBuilder { header, base_timestamp: Some(header.base_timestamp), ..BatchBuilder::default() }
    }

    /// Sets the transactional flag.
    pub fn transactional(mut self, on: bool) -> Self {
        self.header.set_transactional(on);
        self
    }

    /// Sets the control flag.
    pub fn control(mut self, on: bool) -> Self {
        self.header.set_control(on);
        self
    }

    /// Records so far.
    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// Bytes of the batch so far, before compression.
    pub fn uncompressed_len(&self) -> usize {
        crate::header::BATCH_HEADER_LEN + self.records.len()
    }

    /// Adds a record at the next offset.
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<(), BuildError> {
        let delta = match self.header.record_count {
            0 => 0,
            _ => self.header.last_offset_delta.checked_add(1).ok_or(BuildError::TooLarge)?,
        };
        self.append_at(delta, record)
    }

    /// Adds a record at `base_offset + delta`, leaving a gap where compaction removed others.
    pub fn append_at(&mut self, delta: i32, record: &NewRecord<'_>) -> Result<(), BuildError> {
        let first = self.header.record_count == 0;
        if delta < 0 || (!first && delta <= self.header.last_offset_delta) {
            return Err(BuildError::OffsetDelta { delta });
        }
        if first {
            self.header.base_timestamp = self.base_timestamp.unwrap_or(record.timestamp);
            self.header.max_timestamp = record.timestamp;
        }
        let timestamp_delta = record.timestamp.wrapping_sub(self.header.base_timestamp);
        self.scratch.clear();
        write_record(&mut self.scratch, timestamp_delta, delta, record)?;
        let len = i32::try_from(self.scratch.len()).map_err(|_| BuildError::TooLarge)?;
        if self.records.len() + self.scratch.len() > BODY_LEN_MAX {
            return Err(BuildError::TooLarge);
        }
        varint::write_i32(&mut self.records, len);
        self.records.extend_from_slice(&self.scratch);
        self.header.max_timestamp = self.header.max_timestamp.max(record.timestamp);
        self.header.last_offset_delta = delta;
        self.header.record_count += 1;
        Ok(())
    }

    /// Compresses and seals the batch.
    pub fn finish(mut self) -> Result<Batch, BuildError> {
        let body = match self.compression {
            Compression::None => self.records,
            compression => codec::compress(compression, &self.records, self.level)?,
        };
        self.header.set_compression(self.compression);
        Batch::seal(self.header, Bytes::from(body)).ok_or(BuildError::TooLarge)
    }
}

/// Leaves room for header and varints below the 32-bit length field's limit.
const BODY_LEN_MAX: usize = i32::MAX as usize - 4096;

/// Writes what follows a record's length field.
fn write_record(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    record: &NewRecord<'_>,
) -> Result<(), BuildError> {
    out.push(0); // attributes: none defined
    varint::write_i64(out, timestamp_delta);
    varint::write_i32(out, offset_delta);
    write_nullable(out, record.key)?;
    write_nullable(out, record.value)?;
    let header_count = i32::try_from(record.headers.len()).map_err(|_| BuildError::TooLarge)?;
    varint::write_i32(out, header_count);
    for (key, value) in record.headers {
        write_nullable(out, Some(key.as_bytes()))?;
        write_nullable(out, *value)?;
    }
    Ok(())
}

fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) -> Result<(), BuildError> {
    let Some(bytes) = bytes else {
        varint::write_i32(out, -1);
        return Ok(());
    };
    varint::write_i32(out, i32::try_from(bytes.len()).map_err(|_| BuildError::TooLarge)?);
    out.extend_from_slice(bytes);
    Ok(())
}
