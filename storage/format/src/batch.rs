//! A whole batch: parsed header and the bytes of its records, sliced and never copied.

use bytes::{Bytes, BytesMut};

use crate::crc;
use crate::error::BatchError;
use crate::header::{BATCH_HEADER_LEN, BATCH_LENGTH_MIN, BatchHeader, CRC_START, TimestampType};

/// A batch. Invariant: `header.batch_length` counts the header's rest and `body` exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The header; offset and leader epoch may be patched freely, the crc does not cover them.
    pub header: BatchHeader,
    /// The bytes after the header: records, compressed or not.
    pub body: Bytes,
}

impl Batch {
    /// Reads the batch at the start of `bytes`; gives it and the bytes it took. The crc is not checked.
    pub fn parse(bytes: &Bytes) -> Result<(Batch, usize), BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.total_len();
        if bytes.len() < needed {
            return Err(BatchError::Truncated { needed, available: bytes.len() });
        }
        Ok((Batch { header, body: bytes.slice(BATCH_HEADER_LEN..needed) }, needed))
    }

    /// Reads the one batch that `bytes` are. The crc is not checked.
    pub fn parse_only(bytes: &Bytes) -> Result<Batch, BatchError> {
        let (batch, taken) = Batch::parse(bytes)?;
        if taken < bytes.len() {
            return Err(BatchError::TooManyBatches { max: 1 });
        }
        Ok(batch)
    }

    /// Joins a header and a body, setting length and crc in the header. `None` if the length field cannot
    /// hold the body's length.
    pub fn seal(header: BatchHeader, body: Bytes) -> Option<Batch> {
        let body_len = i32::try_from(body.len()).ok()?;
        let batch_length = BATCH_LENGTH_MIN.checked_add(body_len)?;
        let mut batch = Batch { header: BatchHeader { batch_length, ..header }, body };
        batch.header.crc = batch.compute_crc();
        Some(batch)
    }

    /// Bytes of the whole batch.
    #[allow(clippy::len_without_is_empty)] // never empty: a batch has its header
    pub fn len(&self) -> usize {
        BATCH_HEADER_LEN + self.body.len()
    }

    /// The crc that belongs to header and body as they stand.
    pub fn compute_crc(&self) -> u32 {
        crc32c::crc32c_append(header_crc(&self.header), &self.body)
    }

    /// Whether the header's crc is right.
    pub fn crc_ok(&self) -> bool {
        self.header.crc == self.compute_crc()
    }

    /// Makes the batch one of log append time: flag, max timestamp and crc.
    pub fn set_log_append_time(&mut self, now_ms: i64) {
        self.patch_header(|header| {
            header.set_timestamp_type(TimestampType::LogAppendTime);
            header.max_timestamp = now_ms;
        });
    }

    /// Changes header fields that the crc covers, and the crc with them, without reading the body: a
    /// right crc stays right and a wrong one wrong.
    pub fn patch_header(&mut self, change: impl FnOnce(&mut BatchHeader)) {
        let before = header_crc(&self.header);
        change(&mut self.header);
        let after = header_crc(&self.header);
        // A crc is linear: crc(head ++ body) = shift(crc(head), len(body)) ^ crc(body).
        self.header.crc ^= crc::shift(before ^ after, self.body.len());
    }

    /// Header and body in one new buffer.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len());
        out.extend_from_slice(&self.header.to_array());
        out.extend_from_slice(&self.body);
        out.freeze()
    }

    /// Header and body as two slices; only the 61 header bytes are new.
    pub fn to_slices(&self) -> [Bytes; 2] {
        [Bytes::copy_from_slice(&self.header.to_array()), self.body.clone()]
    }
}

/// Cuts `bytes` into whole batches, at most `max` of them; a partial one at the end is an error. This is
/// the records field of a Produce request. No bytes, no batches.
pub fn split_batches(bytes: &Bytes, max: usize) -> Result<Vec<Batch>, BatchError> {
    let mut batches = Vec::new();
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        if batches.len() == max {
            return Err(BatchError::TooManyBatches { max });
        }
        let (batch, consumed) = Batch::parse(&rest)?;
        batches.push(batch);
        rest = rest.slice(consumed..);
    }
    Ok(batches)
}

fn header_crc(header: &BatchHeader) -> u32 {
    crc32c::crc32c(&header.to_array()[CRC_START..])
}

#[cfg(test)]
mod tests;
