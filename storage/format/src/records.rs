//! Records of a batch: read in place, nothing copied but by decompression.
//!
//! A record: length (varint), attributes (1 byte, none defined), timestamp delta (varlong), offset delta
//! (varint), key and value (varint length, negative for none, then bytes), header count (varint), headers
//! (key: varint length and UTF-8; value: as the record's). Varints are zigzag, see [`crate::varint`].

use bytes::Bytes;

use crate::batch::Batch;
use crate::codec::{self, CodecError};
use crate::error::BatchError;
use crate::header::{BatchHeader, Compression, TimestampType};
use crate::varint;

/// Bound on what the records of one batch may take decompressed, in bytes, where no config says another: that of
/// Kafka's `socket.request.max.bytes`, since what could not have been sent plain is not taken packed.
pub const DECOMPRESSED_BYTES_MAX: usize = 100 << 20;

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Bytes end within the record, or a length reaches beyond it.
    #[error("record ends too early")]
    Truncated,
    /// A variable-length integer that does not end.
    #[error("malformed varint")]
    Varint,
    /// The length field says more than the fields take.
    #[error("record size does not match its fields")]
    Size,
    /// A negative count, or one beyond the bytes left.
    #[error("invalid header count")]
    HeaderCount,
    /// A header without a key.
    #[error("invalid header key")]
    HeaderKey,
}

/// Why a batch's records cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// A malformed record.
    #[error("record {index}: {fault}")]
    Record {
        /// Index in the batch.
        index: i32,
        /// What is wrong.
        fault: RecordFault,
    },
    /// A negative record count.
    #[error("record count {0} is negative")]
    Count(i32),
    /// Bytes after the last record.
    #[error("{bytes} bytes after the last record")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// Compressed data that cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// An unknown codec.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// A record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Offset in the log.
    pub offset: i64,
    /// Milliseconds; the batch's max timestamp under log append time.
    pub timestamp: i64,
    /// Key, or none.
    pub key: Option<&'a [u8]>,
    /// Value, or none (a tombstone).
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: Headers<'a>,
}

/// The headers of a record; an iterator over key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    count: i32,
}

impl Headers<'_> {
    /// Headers left.
    pub fn count_left(&self) -> usize {
        self.count.max(0) as usize
    }
}

impl<'a> Iterator for Headers<'a> {
    /// Key (UTF-8 by convention, not checked) and value.
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.count <= 0 {
            return None;
        }
        self.count -= 1;
        // The whole record was walked when it was read, so these cannot fail.
        let mut reader = Reader { rest: self.rest };
        let key = reader.nullable().ok()??;
        let value = reader.nullable().ok()?;
        self.rest = reader.rest;
        Some((key, value))
    }
}

/// The records of one batch, decompressed.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    bytes: Bytes,
}

impl Records {
    /// Decompresses a batch's records to at most `bytes_max`; an uncompressed batch is taken as it is.
    pub fn open(batch: &Batch, bytes_max: usize) -> Result<Records, RecordsError> {
        let header = batch.header;
        if header.record_count < 0 {
            return Err(RecordsError::Count(header.record_count));
        }
        let bytes = match header.compression()? {
            Compression::None => batch.body.clone(),
            // Compaction may leave a batch of no records, with no compressed frame either.
            _ if batch.body.is_empty() && header.record_count == 0 => Bytes::new(),
            compression => Bytes::from(codec::decompress(compression, &batch.body, bytes_max)?),
        };
        Ok(Records { header, bytes })
    }

    /// The records in order. After an error the iterator ends.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { header: &self.header, reader: Reader { rest: &self.bytes }, index: 0, ended: false }
    }

    /// The records with their fields as they stand.
    pub(crate) fn raw(&self) -> impl Iterator<Item = Result<(RawRecord<'_>, RecordRef<'_>), RecordsError>> {
        let mut records = self.iter();
        std::iter::from_fn(move || records.next_raw())
    }

    /// The records' bytes, uncompressed.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// A key or value of one of these records as a shared slice, without copying.
    ///
    /// # Panics
    /// If `part` is not a slice of these records.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordRef<'a>, RecordsError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// Iterator over [`Records`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    header: &'a BatchHeader,
    reader: Reader<'a>,
    index: i32,
    ended: bool,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordRef<'a>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_raw()?.map(|(_, record)| record))
    }
}

impl<'a> RecordIter<'a> {
    fn next_raw(&mut self) -> Option<Result<(RawRecord<'a>, RecordRef<'a>), RecordsError>> {
        if self.ended {
            return None;
        }
        if self.index == self.header.record_count {
            self.ended = true;
            let bytes = self.reader.rest.len();
            return (bytes > 0).then_some(Err(RecordsError::Trailing { bytes }));
        }
        match self.reader.record() {
            Ok(raw) => {
                self.index += 1;
                Some(Ok((raw, raw.resolve(self.header))))
            }
            Err(fault) => {
                self.ended = true;
                Some(Err(RecordsError::Record { index: self.index, fault }))
            }
        }
    }
}

/// A record's fields as they stand in the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawRecord<'a> {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> RawRecord<'a> {
    /// At least the bytes that [`RawRecord::write`] and a length before them take.
    pub(crate) fn len_max(&self) -> usize {
        let parts = [self.key, self.value].into_iter().flatten().map(<[u8]>::len).sum::<usize>();
        1 + varint::VARLONG_LEN_MAX + 5 * varint::VARINT_LEN_MAX + parts + self.headers.rest.len()
    }

    /// Writes what follows a record's length field, with another timestamp delta.
    pub(crate) fn write(&self, out: &mut Vec<u8>, timestamp_delta: i64) {
        out.push(0); // attributes: none defined
        varint::write_i64(out, timestamp_delta);
        varint::write_i32(out, self.offset_delta);
        for part in [self.key, self.value] {
            // Its length was read from 32 bits.
            varint::write_i32(out, part.map_or(-1, |part| part.len() as i32));
            out.extend_from_slice(part.unwrap_or_default());
        }
        varint::write_i32(out, self.headers.count);
        out.extend_from_slice(self.headers.rest);
    }

    fn resolve(&self, header: &BatchHeader) -> RecordRef<'a> {
        let timestamp = match header.timestamp_type() {
            TimestampType::CreateTime => header.base_timestamp.wrapping_add(self.timestamp_delta),
            TimestampType::LogAppendTime => header.max_timestamp,
        };
        RecordRef {
            offset: header.base_offset.wrapping_add(i64::from(self.offset_delta)),
            timestamp,
            key: self.key,
            value: self.value,
            headers: self.headers,
        }
    }
}

/// Walks records by their lengths; allocates nothing.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Takes one record off the front.
    #[inline]
    pub(crate) fn record(&mut self) -> Result<RawRecord<'a>, RecordFault> {
        let len = usize::try_from(self.varint()?).map_err(|_| RecordFault::Truncated)?;
        let mut record = Reader { rest: self.take(len)? };
        record.take(1)?; // attributes
        let timestamp_delta = record.varlong()?;
        let offset_delta = record.varint()?;
        let key = record.nullable()?;
        let value = record.nullable()?;
        let count = record.varint()?;
        let headers = Headers { rest: record.rest, count };
        if count != 0 {
            record.skip_headers(count)?;
        }
        if !record.rest.is_empty() {
            return Err(RecordFault::Size);
        }
        Ok(RawRecord { timestamp_delta, offset_delta, key, value, headers })
    }

    fn skip_headers(&mut self, count: i32) -> Result<(), RecordFault> {
        // A header takes at least two bytes.
        if usize::try_from(count).is_ok_and(|count| count > self.rest.len()) || count < 0 {
            return Err(RecordFault::HeaderCount);
        }
        for _ in 0..count {
            self.nullable()?.ok_or(RecordFault::HeaderKey)?;
            self.nullable()?;
        }
        Ok(())
    }

    #[inline]
    fn varint(&mut self) -> Result<i32, RecordFault> {
        let (value, len) = varint::read_i32(self.rest).ok_or_else(|| self.varint_fault())?;
        self.rest = &self.rest[len..];
        Ok(value)
    }

    #[inline]
    fn varlong(&mut self) -> Result<i64, RecordFault> {
        let (value, len) = varint::read_i64(self.rest).ok_or_else(|| self.varint_fault())?;
        self.rest = &self.rest[len..];
        Ok(value)
    }

    #[cold]
    fn varint_fault(&self) -> RecordFault {
        if self.rest.iter().all(|&byte| byte >= 0x80) { RecordFault::Truncated } else { RecordFault::Varint }
    }

    /// Bytes with their length ahead; any negative length is none, as Kafka reads it.
    #[inline]
    fn nullable(&mut self) -> Result<Option<&'a [u8]>, RecordFault> {
        match usize::try_from(self.varint()?) {
            Ok(len) => Ok(Some(self.take(len)?)),
            Err(_) => Ok(None),
        }
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordFault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(RecordFault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
