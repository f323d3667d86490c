//! What log cleaning leaves of a batch: all of it, some of its records, its header alone, or nothing.
//!
//! A batch that loses records keeps base offset, last offset delta, producer fields, leader epoch, flags and codec, and
//! each record its offset, so that readers, sequences and lookups find what they found before. Timestamp deltas are
//! written anew: the base timestamp is that of the first record kept, or the delete horizon. Byte for byte as Apache
//! Kafka's cleaner writes them where records are not compressed. Source: KIP-98, KIP-534 (delete horizon).
//!
//! Bounds: the records decompressed ([`FilterRules::decompressed_bytes_max`]) and what is kept of them.

use bytes::Bytes;

use crate::batch::Batch;
use crate::codec::{self, CodecError};
use crate::header::{BatchHeader, Compression, NO_TIMESTAMP};
use crate::records::{RawRecord, RecordRef, Records, RecordsError};
use crate::varint;

/// How a batch is filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterRules {
    /// A batch of which no record is kept stays as a header without records: it still tells offsets and sequences.
    pub keep_empty: bool,
    /// Give the batch a delete horizon although it holds no tombstone: it is the marker of a transaction without data.
    pub marks_nothing: bool,
    /// The delete horizon, ms since the Unix epoch, for a batch that needs one and has none.
    pub delete_horizon_ms: i64,
    /// Bound on the records decompressed, in bytes.
    pub decompressed_bytes_max: usize,
}

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// All of it, as it stands.
    Whole,
    /// This batch in its place.
    Rebuilt(Batch),
    /// Its header in its place, without records.
    Empty(Batch),
    /// Nothing.
    Nothing,
}

/// Filters a batch whose crc was checked. `keep` says of each record whether it stays.
///
/// # Errors
/// If the records cannot be read, or not be compressed again.
pub fn filter(
    batch: &Batch,
    rules: &FilterRules,
    mut keep: impl FnMut(&RecordRef<'_>) -> bool,
) -> Result<Filtered, RecordsError> {
    let records = Records::open(batch, rules.decompressed_bytes_max)?;
    let (mut kept, mut all, mut has_tombstone) = (Vec::new(), true, false);
    for record in records.raw() {
        let (raw, record) = record?;
        if keep(&record) {
            has_tombstone |= record.value.is_none();
            kept.push((raw, record.timestamp));
        } else {
            all = false;
        }
    }
    if kept.is_empty() {
        return Ok(if rules.keep_empty {
            Filtered::Empty(without_records(batch)?)
        } else {
            Filtered::Nothing
        });
    }
    let needs_horizon = (has_tombstone || rules.marks_nothing) && !batch.header.has_delete_horizon();
    if all && !needs_horizon {
        return Ok(Filtered::Whole);
    }
    let horizon = match (needs_horizon, batch.header.has_delete_horizon()) {
        (true, _) => Some(rules.delete_horizon_ms),
        (false, true) => Some(batch.header.base_timestamp),
        (false, false) => None,
    };
    Ok(Filtered::Rebuilt(rebuild(batch, &kept, horizon)?))
}

/// The batch's header, as of a batch without records.
fn without_records(batch: &Batch) -> Result<Batch, RecordsError> {
    let mut header = BatchHeader { base_timestamp: NO_TIMESTAMP, record_count: 0, ..batch.header };
    header.set_compression(Compression::None);
    header.set_has_delete_horizon(false);
    sealed(header, Bytes::new())
}

/// The batch with these records alone, each with its timestamp. `horizon` is the delete horizon, if it has one.
fn rebuild(
    batch: &Batch,
    kept: &[(RawRecord<'_>, i64)],
    horizon: Option<i64>,
) -> Result<Batch, RecordsError> {
    let first = kept.first().map_or(NO_TIMESTAMP, |(_, timestamp)| *timestamp);
    let newest = kept.iter().map(|(_, timestamp)| *timestamp).max().unwrap_or(NO_TIMESTAMP);
    let mut header = BatchHeader {
        base_timestamp: horizon.unwrap_or(first),
        max_timestamp: newest.max(NO_TIMESTAMP),
        record_count: i32::try_from(kept.len()).unwrap_or(i32::MAX),
        ..batch.header
    };
    header.set_has_delete_horizon(horizon.is_some());
    let mut body = Vec::with_capacity(kept.iter().map(|(raw, _)| raw.len_max()).sum());
    let mut scratch = Vec::new();
    for (raw, timestamp) in kept {
        scratch.clear();
        raw.write(&mut scratch, timestamp.wrapping_sub(header.base_timestamp));
        // It was read from a length of 32 bits, and a timestamp delta adds at most nine bytes.
        let len = i32::try_from(scratch.len()).map_err(|_| too_large(&header))?;
        varint::write_i32(&mut body, len);
        body.extend_from_slice(&scratch);
    }
    let body = match header.compression()? {
        Compression::None => body,
        compression => codec::compress(compression, &body, None)?,
    };
    sealed(header, Bytes::from(body))
}

fn sealed(header: BatchHeader, body: Bytes) -> Result<Batch, RecordsError> {
    Batch::seal(header, body).ok_or_else(|| too_large(&header))
}

fn too_large(header: &BatchHeader) -> RecordsError {
    CodecError::Compress(header.compression().unwrap_or_default()).into()
}

#[cfg(test)]
mod tests;
