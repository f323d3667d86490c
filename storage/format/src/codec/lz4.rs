//! The LZ4 frame format, version 1.6. Written as Kafka's Java client does: independent blocks of 64 KiB, no
//! checksums, no content size. Read with any flags but a dictionary; one frame, then the input's end.
//!
//! The frame is walked here rather than by the library's reader because that one sets aside up to three
//! blocks of 4 MiB as soon as it has seen a seven-byte header.

use std::io::Write;

use lz4_flex::block::{decompress_into, decompress_into_with_dict};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::CodecError;
use crate::header::Compression;

const MAGIC: [u8; 4] = 0x184d_2204u32.to_le_bytes();
const FLAG_VERSION_MASK: u8 = 0xc0;
const FLAG_VERSION: u8 = 0x40;
const FLAG_INDEPENDENT: u8 = 0x20;
const FLAG_BLOCK_CHECKSUM: u8 = 0x10;
const FLAG_CONTENT_SIZE: u8 = 0x08;
const FLAG_CONTENT_CHECKSUM: u8 = 0x04;
const FLAG_DICTIONARY: u8 = 0x01;
const BLOCK_UNCOMPRESSED: u32 = 1 << 31;
/// A byte of an LZ4 block adds at most 255 bytes of output.
const EXPANSION_MAX: usize = 255;
/// How far back linked blocks reach.
const WINDOW_LEN: usize = 64 * 1024;

const MALFORMED: CodecError = CodecError::Malformed(Compression::Lz4);

/// What the frame header says of the blocks.
struct Frame {
    block_len_max: usize,
    independent: bool,
    block_checksum: bool,
    content_checksum: bool,
}

/// Reads one frame.
pub(super) fn decompress(input: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
    let mut rest = input;
    let frame = read_header(&mut rest)?;
    let mut out = Vec::new();
    loop {
        let word = u32::from_le_bytes(take_chunk(&mut rest)?);
        if word == 0 {
            break;
        }
        let block = take(&mut rest, (word & !BLOCK_UNCOMPRESSED) as usize)?;
        if block.len() > frame.block_len_max {
            return Err(MALFORMED);
        }
        if word & BLOCK_UNCOMPRESSED != 0 {
            if block.len() > max - out.len() {
                return Err(CodecError::TooLarge { max });
            }
            out.extend_from_slice(block);
        } else {
            append_block(block, &frame, &mut out, max)?;
        }
        if frame.block_checksum {
            take(&mut rest, 4)?;
        }
    }
    if frame.content_checksum {
        take(&mut rest, 4)?;
    }
    if rest.is_empty() { Ok(out) } else { Err(MALFORMED) }
}

/// Writes one frame. `None` only if writing to memory fails.
pub(super) fn compress(input: &[u8]) -> Option<Vec<u8>> {
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(input.len() / 2 + 64));
    encoder.write_all(input).ok()?;
    encoder.finish().ok()
}

fn read_header(rest: &mut &[u8]) -> Result<Frame, CodecError> {
    if take_chunk::<4>(rest)? != MAGIC {
        return Err(MALFORMED);
    }
    let [flags, block_descriptor] = take_chunk(rest)?;
    let block_size_id = (block_descriptor >> 4) & 7;
    if flags & FLAG_VERSION_MASK != FLAG_VERSION || flags & FLAG_DICTIONARY != 0 || block_size_id < 4 {
        return Err(MALFORMED);
    }
    if flags & FLAG_CONTENT_SIZE != 0 {
        take(rest, 8)?;
    }
    take(rest, 1)?; // header checksum
    Ok(Frame {
        block_len_max: 1 << (8 + 2 * block_size_id),
        independent: flags & FLAG_INDEPENDENT != 0,
        block_checksum: flags & FLAG_BLOCK_CHECKSUM != 0,
        content_checksum: flags & FLAG_CONTENT_CHECKSUM != 0,
    })
}

fn append_block(block: &[u8], frame: &Frame, out: &mut Vec<u8>, max: usize) -> Result<(), CodecError> {
    let start = out.len();
    let room = max - start;
    let room_wanted = frame.block_len_max.min(block.len().saturating_mul(EXPANSION_MAX));
    out.resize(start + room_wanted.min(room), 0);
    let (before, target) = out.split_at_mut(start);
    let written = if frame.independent || before.is_empty() {
        decompress_into(block, target)
    } else {
        decompress_into_with_dict(block, target, &before[start.saturating_sub(WINDOW_LEN)..])
    };
    match written {
        Ok(written) => {
            out.truncate(start + written);
            Ok(())
        }
        Err(_) if room < room_wanted => Err(CodecError::TooLarge { max }),
        Err(_) => Err(MALFORMED),
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], CodecError> {
    let (taken, after) = rest.split_at_checked(len).ok_or(MALFORMED)?;
    *rest = after;
    Ok(taken)
}

fn take_chunk<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(MALFORMED)?;
    *rest = after;
    Ok(*taken)
}
