//! The whole way of a batch from client to log: validate, compress anew where `compression.type` asks for
//! it, patch timestamps.

use bytes::Bytes;

use crate::batch::Batch;
use crate::codec;
use crate::header::Compression;
use crate::records::{Records, RecordsError};
use crate::validate::{ValidateError, ValidateRules, Validated, check_len, validate};

/// A topic's `compression.type` with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetCompression {
    /// `producer`: stored as sent.
    #[default]
    Producer,
    /// A codec (`uncompressed` is [`Compression::None`]) and its level, `None` for the codec's default.
    Codec(Compression, Option<i32>),
}

impl TargetCompression {
    /// The codec that `batch` has to be rewritten with, if any. Control batches written plain stay plain.
    fn change_for(self, batch: &Batch) -> Option<(Compression, Option<i32>)> {
        match self {
            TargetCompression::Producer => None,
            TargetCompression::Codec(codec, level) => {
                let source = batch.header.compression().ok()?;
                let keep = source == codec || (batch.header.is_control() && source == Compression::None);
                (!keep).then_some((codec, level))
            }
        }
    }
}

/// A batch fit for the log, but for offset and leader epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The batch.
    pub batch: Batch,
    /// What validation found.
    pub validated: Validated,
}

/// Whether [`prepare`] has to compress or decompress, which belongs on a worker thread.
pub fn needs_codec(batch: &Batch, target: TargetCompression) -> bool {
    batch.header.compression() != Ok(Compression::None) || target.change_for(batch).is_some()
}

/// Validates a batch and brings it into the form that the topic stores.
pub fn prepare(
    mut batch: Batch,
    rules: &ValidateRules,
    target: TargetCompression,
    now_ms: i64,
) -> Result<Prepared, ValidateError> {
    let validated = validate(&batch, rules, now_ms)?;
    if let Some((codec, level)) = target.change_for(&batch) {
        batch =
            recompress(&batch, codec, level, rules.decompressed_bytes_max).map_err(ValidateError::Records)?;
        check_len(&batch, rules)?;
    }
    validated.apply(&mut batch);
    Ok(Prepared { batch, validated })
}

/// The same records in another codec: header fields stay, codec bits, length and crc change. `bytes_max`
/// bounds the records uncompressed.
pub fn recompress(
    batch: &Batch,
    target: Compression,
    level: Option<i32>,
    bytes_max: usize,
) -> Result<Batch, RecordsError> {
    let records = Records::open(batch, bytes_max)?;
    let body = match target {
        Compression::None => records.bytes().clone(),
        _ => Bytes::from(codec::compress(target, records.bytes(), level)?),
    };
    let mut header = batch.header;
    header.set_compression(target);
    Ok(Batch::seal(header, body).ok_or(codec::CodecError::Compress(target))?)
}
