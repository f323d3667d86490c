//! Snappy: raw blocks, and the framing of xerial's snappy-java that Kafka's Java client writes.
//!
//! Xerial: 8 bytes of magic, version and lowest compatible version (4 bytes each, big-endian), then blocks,
//! each with its 4-byte big-endian length. A further header may stand between blocks.

use super::CodecError;
use crate::header::Compression;

const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const XERIAL_HEADER_LEN: usize = 16;
/// Plain bytes in a block, as snappy-java writes them.
const BLOCK_LEN: usize = 32 * 1024;
/// No snappy element gives more than 64 bytes for 3; a block that claims more than this is lying.
const EXPANSION_MAX: usize = 32;

const MALFORMED: CodecError = CodecError::Malformed(Compression::Snappy);

/// Reads both forms.
pub(super) fn decompress(input: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    let Some(mut rest) = strip_header(input) else {
        append_block(input, &mut out, max)?;
        return Ok(out);
    };
    while !rest.is_empty() {
        if let Some(after) = strip_header(rest) {
            rest = after;
            continue;
        }
        let (len, after) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
        let len = u32::from_be_bytes(*len) as usize;
        let block = after.get(..len).ok_or(MALFORMED)?;
        append_block(block, &mut out, max)?;
        rest = &after[len..];
    }
    Ok(out)
}

/// Writes xerial's form. `None` only if a block's compressor fails, which its lengths rule out.
pub(super) fn compress(input: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_LEN + input.len() / 2 + 64);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&1u32.to_be_bytes());
    out.extend_from_slice(&1u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for plain in input.chunks(BLOCK_LEN) {
        let block = encoder.compress_vec(plain).ok()?;
        out.extend_from_slice(&u32::try_from(block.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&block);
    }
    Some(out)
}

fn strip_header(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(&XERIAL_MAGIC)?.get(XERIAL_HEADER_LEN - XERIAL_MAGIC.len()..)
}

fn append_block(block: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), CodecError> {
    let claimed = snap::raw::decompress_len(block).map_err(|_| MALFORMED)?;
    if claimed > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(MALFORMED);
    }
    if claimed > max - out.len() {
        return Err(CodecError::TooLarge { max });
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|_| MALFORMED)?;
    if written == claimed { Ok(()) } else { Err(MALFORMED) }
}
