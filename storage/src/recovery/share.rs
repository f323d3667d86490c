//! What a share is held against, and the bytes of it that are to be written: decisions only.

use std::ops::Range;

use bytes::Bytes;
use penstock_format::{BATCH_HEADER_LEN, Batch, BatchHeader};

use crate::frame::AppendEntry;
use crate::plan::block_floor;

/// Checks that the bytes are the batches that the entry names.
pub(super) fn check_batches(append: &AppendEntry, bytes: &Bytes) -> Result<Vec<BatchHeader>, String> {
    let mut batches = Vec::new();
    let mut digest = 0;
    let mut rest = bytes.clone();
    let mut next_offset = append.first_offset;
    while !rest.is_empty() {
        let at = append.end() - rest.len() as u64;
        let (batch, len) = Batch::parse(&rest).map_err(|error| format!("at position {at}: {error}"))?;
        if !batch.crc_ok() {
            return Err(format!("at position {at}: batch does not match its crc"));
        }
        if batch.header.base_offset < next_offset {
            return Err(format!("at position {at}: offset {} goes back", batch.header.base_offset));
        }
        digest = crc32c::crc32c_append(digest, &rest[..BATCH_HEADER_LEN]);
        next_offset = batch.header.next_offset();
        batches.push(batch.header);
        rest = rest.slice(len..);
    }
    let first = batches.first().map(|header| header.base_offset);
    let named = (append.digest, append.batch_count as usize, append.next_offset, Some(append.first_offset));
    if (digest, batches.len(), next_offset, first) != named {
        return Err("batches are not those of the journal's entry".into());
    }
    Ok(batches)
}

/// The block of the segment's end, after a share: what was known of it, the repeated prefix, and the share's bytes.
pub(super) fn tail_of(known: Option<Vec<u8>>, prefix: &[u8], bytes: &[u8], entry: &AppendEntry) -> Vec<u8> {
    let block = block_floor(entry.end());
    if block >= entry.position {
        return bytes[(block - entry.position) as usize..].to_vec();
    }
    let mut tail = if prefix.is_empty() { known.unwrap_or_default() } else { prefix.to_vec() };
    tail.truncate((entry.position - block) as usize);
    tail.extend_from_slice(bytes);
    tail
}

/// A part of a share's bytes, of its own where it would keep much more than itself in memory.
pub(super) fn part_of(bytes: &Bytes, at: Range<usize>) -> Bytes {
    if at.len() < bytes.len() / 2 { Bytes::copy_from_slice(&bytes[at]) } else { bytes.slice(at) }
}

pub(super) fn pieces_bytes(pieces: &[(u64, Bytes)]) -> usize {
    pieces.iter().map(|(_, bytes)| bytes.len()).sum()
}

/// Drops what lies at or after `position`.
pub(super) fn cut_pieces(pieces: &mut Vec<(u64, Bytes)>, position: u64) {
    while let Some((from, bytes)) = pieces.last_mut() {
        let keep = position.saturating_sub(*from) as usize;
        if keep >= bytes.len() {
            return;
        }
        if keep > 0 {
            bytes.truncate(keep);
            return;
        }
        pieces.pop();
    }
}
