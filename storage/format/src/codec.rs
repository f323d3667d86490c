//! Compression of a batch's records, with a bound on what decompression may produce.
//!
//! Readers accept what Kafka's clients write: gzip with several members, snappy raw or in xerial's framing,
//! LZ4 frames of independent or linked blocks, zstd with several frames. Output grows as it is produced, so a
//! small input that claims a large output gets an error, not memory. Checksums inside the codecs' own
//! frames are not what protects a batch (its crc32c is); LZ4's are skipped.

use std::io::{Read, Write};

use crate::header::Compression;

mod lz4;
mod snappy;

/// Why compressed bytes could not be read, or bytes not be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not of this codec, or end too early.
    #[error("malformed {} data", .0.name())]
    Malformed(Compression),
    /// More output than the caller allows.
    #[error("decompresses to more than {max} bytes")]
    TooLarge {
        /// The caller's bound in bytes.
        max: usize,
    },
    /// The codec refused to compress, as for a level it does not have.
    #[error("{} compression failed", .0.name())]
    Compress(Compression),
}

/// Largest window (as a power of two) that a zstd frame may ask for; that of Kafka's own reader.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Level of gzip and zstd where none is configured, as Kafka has it.
const GZIP_LEVEL_DEFAULT: u32 = 6;
const ZSTD_LEVEL_DEFAULT: i32 = 3;

/// Decompresses `input` to at most `max` bytes.
pub fn decompress(compression: Compression, input: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
    let malformed = CodecError::Malformed(compression);
    match compression {
        Compression::None if input.len() > max => Err(CodecError::TooLarge { max }),
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(input), input.len(), max)
            .map_err(|fault| fault.unwrap_or(malformed)),
        Compression::Snappy => snappy::decompress(input, max),
        Compression::Lz4 => lz4::decompress(input, max),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(|_| malformed)?;
            decoder.window_log_max(window_log_max(max)).map_err(|_| malformed)?;
            read_bounded(decoder, input.len(), max).map_err(|fault| fault.unwrap_or(malformed))
        }
    }
}

/// Compresses `input`. `level` is the codec's own scale, `None` its default in Kafka; snappy and LZ4 have one
/// level here and ignore it.
pub fn compress(compression: Compression, input: &[u8], level: Option<i32>) -> Result<Vec<u8>, CodecError> {
    let failed = CodecError::Compress(compression);
    match compression {
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => {
            let level =
                level.and_then(|level| u32::try_from(level).ok()).unwrap_or(GZIP_LEVEL_DEFAULT).min(9);
            let out = Vec::with_capacity(input.len() / 2 + 64);
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(level));
            encoder.write_all(input).and_then(|()| encoder.finish()).map_err(|_| failed)
        }
        Compression::Snappy => snappy::compress(input).ok_or(failed),
        Compression::Lz4 => lz4::compress(input).ok_or(failed),
        Compression::Zstd => {
            zstd::bulk::compress(input, level.unwrap_or(ZSTD_LEVEL_DEFAULT)).map_err(|_| failed)
        }
    }
}

/// Reads to the end, or to one byte past `max`. `Err(None)` is the reader's own failure.
fn read_bounded(reader: impl Read, input_len: usize, max: usize) -> Result<Vec<u8>, Option<CodecError>> {
    let mut out = Vec::with_capacity(input_len.saturating_mul(2).min(max));
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(limit).read_to_end(&mut out).map_err(|_| None)?;
    if out.len() > max { Err(Some(CodecError::TooLarge { max })) } else { Ok(out) }
}

/// A window larger than the whole output is of no use, so a frame may ask for the next power of two and,
/// since writers choose the window before they know the length, never less than 8 MiB.
fn window_log_max(max: usize) -> u32 {
    let needed = usize::BITS - max.leading_zeros();
    needed.clamp(23, ZSTD_WINDOW_LOG_MAX)
}

#[cfg(test)]
mod tests;
