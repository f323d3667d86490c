//! Kafka's record batch format v2 as pure bytes: headers, batches, records, codecs and the checks a
//! broker makes before it appends a batch.
//!
//! Nothing here reads a clock, a file or a socket; times are passed in as milliseconds since the Unix
//! epoch. All input is taken to be hostile: every function that reads bytes gives a value or an error,
//! never a panic, and never allocates more than its input or an explicit bound justifies.
//!
//! Source of the layout: Apache Kafka protocol guide, "Record Batch"; KIP-98 (format v2).

mod batch;
mod builder;
pub mod codec;
mod control;
mod crc;
mod error;
mod filter;
mod header;
mod recompress;
mod records;
mod validate;
pub mod varint;

pub use batch::{Batch, split_batches};
pub use builder::{BatchBuilder, BuildError, NewRecord};
pub use codec::CodecError;
pub use control::{ControlRecord, ControlRecordError, EndTransactionMarker};
pub use error::BatchError;
pub use filter::{FilterRules, Filtered, filter};
pub use header::{
    BATCH_HEADER_LEN, BATCH_LENGTH_MIN, BATCH_LOG_OVERHEAD, BatchHeader, CRC_START, Compression, MAGIC_V2,
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType, add_sequence,
};
pub use recompress::{Prepared, TargetCompression, needs_codec, prepare, recompress};
pub use records::{
    DECOMPRESSED_BYTES_MAX, Headers, RecordFault, RecordIter, RecordRef, Records, RecordsError,
};
pub use validate::{
    ErrorKind, Origin, RECORD_ERRORS_MAX, RecordReject, RejectReason, ValidateError, ValidateRules,
    Validated, validate,
};
