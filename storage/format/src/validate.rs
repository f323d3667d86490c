//! What a leader checks before it appends a client's batch: the rules of Apache Kafka 4's log validator.
//!
//! Where this differs from Kafka it is stricter, never laxer, and no client known writes such batches:
//! offset deltas must be 0, 1, 2, ... (Kafka lets uncompressed ones pass and renumbers compressed ones); a
//! batch may not claim log append time (Kafka lets it pass on topics of create time); a producer id needs
//! an epoch, and a transactional batch a producer id; decompression is bounded.
//!
//! An uncompressed batch is walked by its lengths alone, without allocation.

use std::fmt;

use crate::batch::Batch;
use crate::codec::CodecError;
use crate::error::BatchError;
use crate::header::{BatchHeader, Compression, NO_PRODUCER_ID, NO_TIMESTAMP, TimestampType};
use crate::records::{DECOMPRESSED_BYTES_MAX, RawRecord, Reader, Records, RecordsError};

/// Most rejected records that an error names one by one.
pub const RECORD_ERRORS_MAX: usize = 1000;

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// A Produce request: everything is checked.
    #[default]
    Client,
    /// A coordinator of this broker: control batches, unset sequences and given offsets are its right.
    Coordinator,
}

/// A topic's rules, in the terms of its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidateRules {
    /// Who appends.
    pub origin: Origin,
    /// `cleanup.policy` contains `compact`: every record needs a key.
    pub compacted: bool,
    /// `max.message.bytes`: bound on the whole batch as it is stored.
    pub message_bytes_max: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub after_max_ms: i64,
    /// Whether zstd may be used; not in Produce requests before version 7.
    pub zstd_allowed: bool,
    /// Bound on what a batch's records may decompress to, in bytes.
    pub decompressed_bytes_max: usize,
}

impl Default for ValidateRules {
    /// Kafka's defaults, and [`DECOMPRESSED_BYTES_MAX`].
    fn default() -> Self {
        ValidateRules {
            origin: Origin::Client,
            compacted: false,
            message_bytes_max: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
            zstd_allowed: true,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        }
    }
}

/// What validation found out about a good batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validated {
    /// Largest record timestamp in milliseconds, or the append time; -1 if the records have none.
    pub max_timestamp: i64,
    /// Offset delta of the first record with that timestamp.
    pub max_timestamp_offset_delta: i32,
    /// `max_timestamp` is the append time, `now_ms`.
    pub log_append_time: bool,
}

impl Validated {
    /// Writes timestamp type and max timestamp into the header where it says otherwise.
    pub fn apply(&self, batch: &mut Batch) {
        if self.log_append_time {
            batch.set_log_append_time(self.max_timestamp);
        } else if batch.header.max_timestamp != self.max_timestamp {
            batch.patch_header(|header| header.max_timestamp = self.max_timestamp);
        }
    }
}

/// Why a batch is refused. Always the fault of the client, see [`ValidateError::kind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidateError {
    /// The crc does not match.
    #[error("batch is corrupt: crc {stored:#010x} in the header, {computed:#010x} over the bytes")]
    Crc {
        /// In the header.
        stored: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// Larger than `max.message.bytes`.
    #[error("batch of {len} bytes exceeds the maximum of {max}")]
    TooLarge {
        /// Bytes of the batch.
        len: usize,
        /// The topic's bound.
        max: usize,
    },
    /// Clients write base offset 0.
    #[error("base offset should be 0, but is {0}")]
    BaseOffset(i64),
    /// No records, or as many as the offsets do not say.
    #[error("last offset delta {last_offset_delta} does not fit record count {record_count}")]
    Count {
        /// From the header.
        last_offset_delta: i32,
        /// From the header.
        record_count: i32,
    },
    /// Clients may not write control records.
    #[error("clients are not allowed to write control records")]
    Control,
    /// Producer id, epoch, sequence and transactional flag contradict each other.
    #[error("invalid producer fields: id {producer_id}, epoch {producer_epoch}, sequence {base_sequence}")]
    Producer {
        /// From the header.
        producer_id: i64,
        /// From the header.
        producer_epoch: i16,
        /// From the header.
        base_sequence: i32,
    },
    /// Zstd in a request whose version does not have it.
    #[error("zstd needs Produce version 7")]
    ZstdNotAllowed,
    /// A codec that does not exist.
    #[error(transparent)]
    Header(#[from] BatchError),
    /// Records that cannot be read.
    #[error("invalid records: {0}")]
    Records(RecordsError),
    /// Well-formed records that the rules refuse, one by one.
    #[error("{count} records rejected, the first: {}", FirstOf(.errors))]
    Rejected {
        /// How many.
        count: usize,
        /// The first of them, at most [`RECORD_ERRORS_MAX`].
        errors: Vec<RecordReject>,
        /// Whether one of all was refused for its timestamp.
        timestamp: bool,
    },
}

/// The few things that a refusal means to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// CORRUPT_MESSAGE.
    Corrupt,
    /// MESSAGE_TOO_LARGE.
    TooLarge,
    /// INVALID_RECORD.
    InvalidRecord,
    /// INVALID_TIMESTAMP.
    InvalidTimestamp,
    /// UNSUPPORTED_COMPRESSION_TYPE.
    UnsupportedCompression,
    /// UNSUPPORTED_FOR_MESSAGE_FORMAT.
    UnsupportedFormat,
}

impl ValidateError {
    /// What the refusal means to the client.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ValidateError::Crc { .. } => ErrorKind::Corrupt,
            ValidateError::TooLarge { .. } => ErrorKind::TooLarge,
            ValidateError::ZstdNotAllowed => ErrorKind::UnsupportedCompression,
            ValidateError::Header(error) => error.kind(),
            ValidateError::Records(RecordsError::Batch(error)) => error.kind(),
            ValidateError::Records(RecordsError::Codec(CodecError::TooLarge { .. })) => ErrorKind::TooLarge,
            ValidateError::Rejected { timestamp: true, .. } => ErrorKind::InvalidTimestamp,
            ValidateError::Rejected { timestamp: false, .. }
            | ValidateError::BaseOffset(_)
            | ValidateError::Count { .. }
            | ValidateError::Control
            | ValidateError::Producer { .. }
            | ValidateError::Records(_) => ErrorKind::InvalidRecord,
        }
    }
}

impl BatchError {
    /// What the refusal means to a client that sent these bytes.
    pub fn kind(&self) -> ErrorKind {
        match self {
            BatchError::UnsupportedMagic(0 | 1) => ErrorKind::UnsupportedFormat,
            BatchError::UnsupportedMagic(_) | BatchError::Truncated { .. } | BatchError::InvalidLength(_) => {
                ErrorKind::Corrupt
            }
            BatchError::UnknownCompression(_) => ErrorKind::UnsupportedCompression,
            BatchError::TooManyBatches { .. } => ErrorKind::InvalidRecord,
        }
    }
}

/// A refused record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordReject {
    /// Index in the batch, `batch_index` in Kafka's response.
    pub batch_index: i32,
    /// Why; its display is the message for the client.
    pub reason: RejectReason,
}

/// Why a record is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// A compacted topic needs keys.
    #[error("compacted topic cannot accept message without key")]
    NoKey,
    /// The offset delta is not the record's index.
    #[error("offset delta should be {expected}, but is {found}")]
    OffsetDelta {
        /// Its index.
        expected: i32,
        /// In the record.
        found: i32,
    },
    /// The timestamp is out of bounds.
    #[error("timestamp {timestamp} is out of range [{low}, {high}]")]
    Timestamp {
        /// The record's.
        timestamp: i64,
        /// First allowed.
        low: i64,
        /// Last allowed.
        high: i64,
    },
    /// Producers may not set log append time.
    #[error("producer should not set timestamp type to LogAppendTime")]
    LogAppendTime,
}

/// Checks a batch against a topic's rules. `now_ms` is the wall clock. The batch is not changed; see
/// [`Validated::apply`].
///
/// Checks run in Kafka's order, so that a batch wrong in several ways gets Kafka's error.
pub fn validate(batch: &Batch, rules: &ValidateRules, now_ms: i64) -> Result<Validated, ValidateError> {
    let header = &batch.header;
    let compression = header.compression()?;
    if compression == Compression::Zstd && !rules.zstd_allowed {
        return Err(ValidateError::ZstdNotAllowed);
    }
    if rules.origin == Origin::Client && header.base_offset != 0 {
        return Err(ValidateError::BaseOffset(header.base_offset));
    }
    check_len(batch, rules)?;
    let computed = batch.compute_crc();
    if computed != header.crc {
        return Err(ValidateError::Crc { stored: header.crc, computed });
    }
    check_header(header, rules.origin)?;
    let walked = if compression == Compression::None {
        Walk::new(header, rules, now_ms).run(&batch.body)?
    } else {
        let records = Records::open(batch, rules.decompressed_bytes_max).map_err(ValidateError::Records)?;
        Walk::new(header, rules, now_ms).run(records.bytes())?
    };
    Ok(match rules.timestamp_type {
        TimestampType::CreateTime => walked,
        TimestampType::LogAppendTime => {
            Validated { max_timestamp: now_ms, max_timestamp_offset_delta: 0, log_append_time: true }
        }
    })
}

/// Refuses a batch larger than the topic allows.
pub(crate) fn check_len(batch: &Batch, rules: &ValidateRules) -> Result<(), ValidateError> {
    let (len, max) = (batch.len(), rules.message_bytes_max);
    if len > max { Err(ValidateError::TooLarge { len, max }) } else { Ok(()) }
}

fn check_header(header: &BatchHeader, origin: Origin) -> Result<(), ValidateError> {
    let BatchHeader { last_offset_delta, record_count, producer_id, producer_epoch, base_sequence, .. } =
        *header;
    if record_count <= 0 || last_offset_delta != record_count - 1 {
        return Err(ValidateError::Count { last_offset_delta, record_count });
    }
    if origin == Origin::Coordinator {
        return Ok(());
    }
    if header.is_control() {
        return Err(ValidateError::Control);
    }
    let consistent = if header.has_producer_id() {
        producer_epoch >= 0 && base_sequence >= 0
    } else {
        producer_id == NO_PRODUCER_ID && !header.is_transactional()
    };
    if consistent {
        Ok(())
    } else {
        Err(ValidateError::Producer { producer_id, producer_epoch, base_sequence })
    }
}

/// One pass over the records of a batch.
struct Walk<'a> {
    header: &'a BatchHeader,
    client: bool,
    compacted: bool,
    /// Whether record timestamps must lie in `low..=high`.
    check_timestamps: bool,
    low: i64,
    high: i64,
    max_timestamp: i64,
    max_timestamp_offset_delta: i32,
    rejected: usize,
    rejected_timestamp: bool,
    errors: Vec<RecordReject>,
}

impl<'a> Walk<'a> {
    fn new(header: &'a BatchHeader, rules: &ValidateRules, now_ms: i64) -> Walk<'a> {
        Walk {
            header,
            client: rules.origin == Origin::Client,
            compacted: rules.compacted,
            check_timestamps: rules.timestamp_type == TimestampType::CreateTime,
            low: now_ms.saturating_sub(rules.before_max_ms),
            high: now_ms.saturating_add(rules.after_max_ms),
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_offset_delta: 0,
            rejected: 0,
            rejected_timestamp: false,
            errors: Vec::new(),
        }
    }

    fn run(mut self, bytes: &[u8]) -> Result<Validated, ValidateError> {
        let mut reader = Reader { rest: bytes };
        for index in 0..self.header.record_count {
            let record = reader
                .record()
                .map_err(|fault| ValidateError::Records(RecordsError::Record { index, fault }))?;
            self.record(index, &record);
        }
        if !reader.rest.is_empty() {
            return Err(ValidateError::Records(RecordsError::Trailing { bytes: reader.rest.len() }));
        }
        if self.rejected > 0 {
            let Walk { rejected: count, rejected_timestamp: timestamp, errors, .. } = self;
            return Err(ValidateError::Rejected { count, errors, timestamp });
        }
        Ok(Validated {
            max_timestamp: self.max_timestamp,
            max_timestamp_offset_delta: self.max_timestamp_offset_delta,
            log_append_time: false,
        })
    }

    #[inline]
    fn record(&mut self, index: i32, record: &RawRecord<'_>) {
        let timestamp = self.header.base_timestamp.wrapping_add(record.timestamp_delta);
        if self.client && record.offset_delta != index {
            self.reject(index, RejectReason::OffsetDelta { expected: index, found: record.offset_delta });
        } else if self.compacted && record.key.is_none() {
            self.reject(index, RejectReason::NoKey);
        } else if self.header.timestamp_type() == TimestampType::LogAppendTime && self.client {
            self.reject(index, RejectReason::LogAppendTime);
        } else if self.check_timestamps
            && timestamp != NO_TIMESTAMP
            && !(self.low..=self.high).contains(&timestamp)
        {
            self.reject(index, RejectReason::Timestamp { timestamp, low: self.low, high: self.high });
        }
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.max_timestamp_offset_delta = record.offset_delta;
        }
    }

    #[cold]
    fn reject(&mut self, batch_index: i32, reason: RejectReason) {
        self.rejected += 1;
        self.rejected_timestamp |=
            matches!(reason, RejectReason::Timestamp { .. } | RejectReason::LogAppendTime);
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push(RecordReject { batch_index, reason });
        }
    }
}

/// Shows the first rejected record.
struct FirstOf<'a>(&'a [RecordReject]);

impl fmt::Display for FirstOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.first() {
            Some(error) => write!(f, "record {}: {}", error.batch_index, error.reason),
            None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests;
