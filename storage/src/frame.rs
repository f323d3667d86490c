//! Bytes of a journal frame: pure encoding and bounded decoding. Layout: `docs/format.md`, "Journal".
//!
//! The frame's crc covers header and entries, not the inline record bytes: those are covered by each entry's
//! digest over its batch headers, which carry the crc of their bodies. No byte is summed twice.

use std::ops::Range;

use crate::bytes_io::{Reader, put_string};
use crate::disk::BLOCK;

/// First four bytes of a frame.
pub(crate) const MAGIC: [u8; 4] = *b"PSJF";
/// Version of the frame format.
pub(crate) const VERSION: u16 = 1;
/// Bytes of the frame header.
pub(crate) const HEADER_LEN: usize = 48;
/// Bytes of an append entry, without its inline bytes.
pub(crate) const APPEND_ENTRY_LEN: usize = 88;
/// Largest entry of another kind: a creation with a name of 249 bytes.
pub(crate) const OTHER_ENTRY_LEN_MAX: usize = 9 + 2 + 249;
const META_LEN_AT: usize = 36;
const CRC_AT: usize = 44;

const KIND_APPEND: u8 = 1;
const KIND_CREATE: u8 = 2;
const KIND_REMOVE: u8 = 3;
const KIND_START_OFFSET: u8 = 4;

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// The run of the store that wrote it: frames of other runs are stale.
    pub run: u64,
    /// Number of the frame, without gaps within a run.
    pub seq: u64,
    /// Highest frame known stable when this one was written.
    pub durable_seq: u64,
    /// Bytes of the frame without the padding to whole blocks.
    pub len: u32,
    /// Bytes of header and entries.
    pub meta_len: u32,
    /// Entries in it.
    pub entry_count: u32,
}

/// One change to one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Batches appended.
    Append(AppendEntry),
    /// A log came into being, empty at offset 0.
    Create {
        /// Never used before.
        log_id: u64,
        /// Its name.
        name: String,
    },
    /// A log was removed.
    Remove {
        /// Which.
        log_id: u64,
    },
    /// The first readable offset moved.
    StartOffset {
        /// Which log.
        log_id: u64,
        /// New start.
        offset: i64,
    },
}

/// A share: consecutive batches of one log in one segment, and where their bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppendEntry {
    pub log_id: u64,
    /// Base offset of the segment.
    pub segment_base: i64,
    /// Life of the segment's file.
    pub life: u64,
    /// File position of the first batch.
    pub position: u64,
    /// Bytes of the batches.
    pub len: u32,
    pub batch_count: u32,
    /// crc32c over the headers of the batches, in order.
    pub digest: u32,
    pub first_offset: i64,
    pub next_offset: i64,
    /// File position of the first byte written straight to the segment; may lie up to a block before `position`.
    pub direct_from: u64,
    /// Bytes written straight to the segment; 0 if everything is inline.
    pub direct_len: u32,
    /// Inline bytes before `position`: the settled beginning of its block, so that the block may be rewritten.
    pub prefix_len: u32,
    /// crc32c over those.
    pub prefix_crc: u32,
    /// Place of the inline bytes in the frame: prefix, head piece, tail piece.
    pub inline_at: u32,
}

impl AppendEntry {
    /// File position after the last batch.
    pub(crate) fn end(&self) -> u64 {
        self.position + u64::from(self.len)
    }

    /// File range written straight to the segment.
    pub(crate) fn direct(&self) -> Range<u64> {
        self.direct_from..self.direct_from + u64::from(self.direct_len)
    }

    /// File range of the inline bytes before the direct ones (all, if nothing is direct).
    pub(crate) fn head(&self) -> Range<u64> {
        let to = if self.direct_len == 0 { self.end() } else { self.direct_from.max(self.position) };
        self.position..to
    }

    /// File range of the inline bytes after the direct ones.
    pub(crate) fn tail(&self) -> Range<u64> {
        if self.direct_len == 0 { self.end()..self.end() } else { self.direct().end..self.end() }
    }

    /// Inline bytes in the frame.
    pub(crate) fn inline_len(&self) -> u64 {
        let (head, tail) = (self.head(), self.tail());
        u64::from(self.prefix_len) + (head.end - head.start) + (tail.end - tail.start)
    }

    /// Whether positions and lengths fit each other, the frame, and a segment.
    fn is_sound(&self, frame: &FrameHeader) -> bool {
        let block = BLOCK as u64;
        let direct = self.direct_from.checked_add(u64::from(self.direct_len));
        let Some(direct_end) = direct else { return false };
        if self.position < block || self.position.checked_add(u64::from(self.len)).is_none() {
            return false;
        }
        if u64::from(self.prefix_len) >= block
            || (self.prefix_len > 0 && u64::from(self.prefix_len) != self.position % block)
        {
            return false;
        }
        if self.direct_len > 0 {
            let aligned = self.direct_from.is_multiple_of(block) && direct_end.is_multiple_of(block);
            let near = self.direct_from + block > self.position && self.direct_from >= block;
            let within = direct_end <= self.end() && direct_end > self.position;
            let head = self.direct_from < self.end();
            if !(aligned && near && within && head) {
                return false;
            }
        }
        let inline_end = u64::from(self.inline_at).checked_add(self.inline_len());
        self.batch_count > 0
            && self.next_offset > self.first_offset
            && self.first_offset >= 0
            && self.segment_base >= 0
            && self.segment_base <= self.first_offset
            && self.inline_at >= frame.meta_len
            && inline_end.is_some_and(|end| end <= u64::from(frame.len))
    }
}

/// Bytes of the entry in the frame.
pub(crate) fn entry_len(entry: &Entry) -> usize {
    match entry {
        Entry::Append(_) => APPEND_ENTRY_LEN,
        Entry::Create { name, .. } => 9 + 2 + name.len(),
        Entry::Remove { .. } => 9,
        Entry::StartOffset { .. } => 17,
    }
}

/// Header and entries as bytes; the inline bytes follow at `meta_len`.
pub(crate) fn encode_meta(header: &FrameHeader, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.meta_len as usize);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    for field in [header.run, header.seq, header.durable_seq] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for field in [header.len, header.meta_len, header.entry_count, 0] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for entry in entries {
        put_entry(&mut out, entry);
    }
    assert_eq!(out.len(), header.meta_len as usize, "frame entries take what was planned");
    let crc = meta_crc(&out);
    out[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    out
}

fn meta_crc(meta: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&meta[..CRC_AT]), &meta[HEADER_LEN..])
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::Append(append) => {
            out.extend_from_slice(&[KIND_APPEND, 0, 0, 0]);
            out.extend_from_slice(&append.batch_count.to_le_bytes());
            out.extend_from_slice(&append.log_id.to_le_bytes());
            out.extend_from_slice(&append.segment_base.to_le_bytes());
            out.extend_from_slice(&append.life.to_le_bytes());
            out.extend_from_slice(&append.position.to_le_bytes());
            out.extend_from_slice(&append.len.to_le_bytes());
            out.extend_from_slice(&append.digest.to_le_bytes());
            out.extend_from_slice(&append.first_offset.to_le_bytes());
            out.extend_from_slice(&append.next_offset.to_le_bytes());
            out.extend_from_slice(&append.direct_from.to_le_bytes());
            for field in [append.direct_len, append.prefix_len, append.prefix_crc, append.inline_at] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        Entry::Create { log_id, name } => {
            out.push(KIND_CREATE);
            out.extend_from_slice(&log_id.to_le_bytes());
            put_string(out, name);
        }
        Entry::Remove { log_id } => {
            out.push(KIND_REMOVE);
            out.extend_from_slice(&log_id.to_le_bytes());
        }
        Entry::StartOffset { log_id, offset } => {
            out.push(KIND_START_OFFSET);
            out.extend_from_slice(&log_id.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
        }
    }
}

/// Reads a frame header from the start of a block. `None` if none is there, or one that cannot lie within
/// `room` bytes. Says nothing yet of the crc, which [`decode_entries`] checks.
pub(crate) fn decode_header(block: &[u8], room: u64) -> Option<FrameHeader> {
    let mut reader = Reader::new(block);
    if reader.bytes(4)? != MAGIC || reader.u16()? != VERSION {
        return None;
    }
    reader.u16()?;
    let (run, seq, durable_seq) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (len, meta_len, entry_count) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let header = FrameHeader { run, seq, durable_seq, len, meta_len, entry_count };
    let fits = meta_len as usize >= HEADER_LEN && len >= meta_len && u64::from(len) <= room;
    (fits && durable_seq < seq).then_some(header)
}

/// Bytes of header and entries of a frame that a newer version of this software wrote, and that version. Believed only
/// if [`crc_ok`] says so too: what a frame's crc covers, and where it stands, is the same in every version.
pub(crate) fn newer_version(block: &[u8]) -> Option<(u16, u32)> {
    let mut reader = Reader::new(block);
    let version = (reader.bytes(4)? == MAGIC).then(|| reader.u16())?.filter(|version| *version > VERSION)?;
    reader.bytes(META_LEN_AT - 6)?;
    let meta_len = reader.u32()?;
    (meta_len as usize >= HEADER_LEN).then_some((version, meta_len))
}

/// Whether header and entries match the crc.
pub(crate) fn crc_ok(meta: &[u8]) -> bool {
    let stored = meta.get(CRC_AT..HEADER_LEN).and_then(|crc| crc.first_chunk());
    stored.is_some_and(|stored| meta_crc(meta) == u32::from_le_bytes(*stored))
}

/// Checks the crc and reads the entries of a frame, of which `frame` holds header and entries at least. `None` if
/// they are not what was written.
pub(crate) fn decode_entries(frame: &[u8], header: &FrameHeader) -> Option<Vec<Entry>> {
    let meta = frame.get(..header.meta_len as usize)?;
    if !crc_ok(meta) {
        return None;
    }
    let mut reader = Reader::new(&meta[HEADER_LEN..]);
    let mut entries = Vec::new();
    for _ in 0..header.entry_count {
        entries.push(read_entry(&mut reader, header)?);
    }
    (reader.remaining() == 0).then_some(entries)
}

fn read_entry(reader: &mut Reader<'_>, frame: &FrameHeader) -> Option<Entry> {
    match reader.u8()? {
        KIND_APPEND => {
            reader.bytes(3)?;
            let batch_count = reader.u32()?;
            let (log_id, segment_base) = (reader.u64()?, reader.i64()?);
            let (life, position) = (reader.u64()?, reader.u64()?);
            let (len, digest) = (reader.u32()?, reader.u32()?);
            let (first_offset, next_offset) = (reader.i64()?, reader.i64()?);
            let direct_from = reader.u64()?;
            let (direct_len, prefix_len) = (reader.u32()?, reader.u32()?);
            let (prefix_crc, inline_at) = (reader.u32()?, reader.u32()?);
            let append = AppendEntry {
                log_id,
                segment_base,
                life,
                position,
                len,
                batch_count,
                digest,
                first_offset,
                next_offset,
                direct_from,
                direct_len,
                prefix_len,
                prefix_crc,
                inline_at,
            };
            append.is_sound(frame).then_some(Entry::Append(append))
        }
        KIND_CREATE => {
            let log_id = reader.u64()?;
            let name = reader.string()?;
            crate::store::is_valid_name(name).then(|| Entry::Create { log_id, name: name.to_owned() })
        }
        KIND_REMOVE => Some(Entry::Remove { log_id: reader.u64()? }),
        KIND_START_OFFSET => {
            let (log_id, offset) = (reader.u64()?, reader.i64()?);
            (offset >= 0).then_some(Entry::StartOffset { log_id, offset })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
