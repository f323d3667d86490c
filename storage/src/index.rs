//! Sparse index of one segment, by offset and by time. Pure.
//!
//! At most one entry per `interval_bytes` of the segment names a batch: where it lies, and the largest timestamp of
//! all batches before it. A lookup gives the last entry known to lie at or before what is sought; the reader goes on
//! from there, batch by batch, for about an interval. Both lookups bear entries missing, so the index may be
//! incomplete (as after a bound was met) without being wrong. File layout: `docs/format.md`, "Segment index".
//!
//! Bound: [`ENTRIES_MAX`] entries of 16 bytes.

use crate::bytes_io::{Reader, crc_around};

/// Version of the index format.
pub const INDEX_VERSION: u16 = 1;
/// Most entries of an index, 10 MiB of them (the default of Kafka's `segment.index.bytes`).
pub const ENTRIES_MAX: usize = 10 * 1024 * 1024 / ENTRY_LEN;

const MAGIC: [u8; 4] = *b"PSIX";
const HEADER_LEN: usize = 48;
const CRC_POSITION: usize = 44;
const ENTRY_LEN: usize = 16;

/// A batch that an entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedBatch {
    /// Its base offset.
    pub base_offset: i64,
    /// Its position in the segment file, in bytes.
    pub position: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    relative_offset: u32,
    position: u32,
    /// Of all batches before this one.
    max_timestamp_before: i64,
}

/// A batch as the index has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendedBatch {
    /// Its base offset.
    pub base_offset: i64,
    /// Its position in the segment file, in bytes.
    pub position: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Its largest timestamp in milliseconds, -1 if it has none.
    pub max_timestamp: i64,
}

/// The index of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentIndex {
    base_offset: i64,
    entries: Vec<Entry>,
    /// Of all batches.
    max_timestamp: i64,
    /// Position after the last batch.
    end_position: u64,
    /// Position of the last entry's batch, or where the first batch of the segment began.
    indexed_position: u64,
}

/// Why an index file cannot be used; the index is then rebuilt from the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Written by a newer version of this software.
    #[error("segment index has format version {0}")]
    NewerVersion(u16),
    /// Written for another segment, or another life or end of this one.
    #[error("index belongs to another segment")]
    OtherSegment,
    /// Crc, lengths or values are wrong.
    #[error("segment index is damaged")]
    Damaged,
}

/// What a segment is known by; an index file counts only if it names the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentIdentity {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Life of the recycled file that holds it.
    pub life: u64,
    /// Position after its last batch.
    pub end_position: u64,
}

impl SegmentIndex {
    /// The index of a segment without batches, whose first one will stand at `start_position`.
    pub fn new(base_offset: i64, start_position: u64) -> SegmentIndex {
        SegmentIndex {
            base_offset,
            entries: Vec::new(),
            max_timestamp: -1,
            end_position: start_position,
            indexed_position: start_position,
        }
    }

    /// Notes a batch, in the order of the segment; every `interval_bytes` makes it an entry.
    pub fn note(&mut self, batch: &AppendedBatch, interval_bytes: u32) {
        debug_assert!(batch.position >= self.end_position, "batches come in order");
        if batch.position.saturating_sub(self.indexed_position) > u64::from(interval_bytes) {
            self.push_entry(batch);
        }
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp);
        self.end_position = batch.position + batch.len;
    }

    /// Notes that a batch cannot be read which may have records as late as `max_timestamp`.
    pub fn note_damage(&mut self, max_timestamp: i64) {
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
    }

    /// Where to begin looking for the batch that holds `offset`; `None` is the segment's start.
    pub fn floor_of_offset(&self, offset: i64) -> Option<IndexedBatch> {
        let relative = offset.saturating_sub(self.base_offset);
        let above = self.entries.partition_point(|entry| i64::from(entry.relative_offset) <= relative);
        above.checked_sub(1).map(|at| self.batch_of(self.entries[at]))
    }

    /// The last batch named that begins at or before `position`.
    pub(crate) fn floor_of_position(&self, position: u64) -> Option<IndexedBatch> {
        let above = self.entries.partition_point(|entry| u64::from(entry.position) <= position);
        above.checked_sub(1).map(|at| self.batch_of(self.entries[at]))
    }

    /// The first batch named that begins behind `position`.
    pub(crate) fn first_behind(&self, position: u64) -> Option<IndexedBatch> {
        let above = self.entries.partition_point(|entry| u64::from(entry.position) <= position);
        self.entries.get(above).map(|entry| self.batch_of(*entry))
    }

    /// Where to begin looking for the first record with a timestamp of at least `timestamp`; `None` is the
    /// segment's start. All records before have smaller ones.
    pub fn floor_of_timestamp(&self, timestamp: i64) -> Option<IndexedBatch> {
        let above = self.entries.partition_point(|entry| entry.max_timestamp_before < timestamp);
        above.checked_sub(1).map(|at| self.batch_of(self.entries[at]))
    }

    /// Goes on with `tail`, an index of the same segment from some later position on. Batches between the two are known
    /// to neither.
    pub fn join(&mut self, tail: &SegmentIndex) {
        let end = self.end_position;
        let room = ENTRIES_MAX.saturating_sub(self.entries.len());
        let before = self.max_timestamp;
        let later = tail.entries.iter().filter(|entry| u64::from(entry.position) >= end).take(room);
        self.entries.extend(
            later.map(|entry| Entry {
                max_timestamp_before: entry.max_timestamp_before.max(before),
                ..*entry
            }),
        );
        self.max_timestamp = before.max(tail.max_timestamp);
        self.end_position = end.max(tail.end_position);
        if let Some(last) = self.entries.last() {
            self.indexed_position = u64::from(last.position);
        }
    }

    /// Drops about half of the entries, where they are nearest to each other: however often this is done, no gap becomes
    /// wider than four times the mean of all. At most three more than half of them stay.
    pub fn thin(&mut self) {
        let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) else { return };
        let gap_max = 4 * u64::from(last.position - first.position) / self.entries.len() as u64;
        let mut kept = vec![*first];
        let mut kept_position = first.position;
        for (at, entry) in self.entries.iter().enumerate().skip(1) {
            let next = self.entries.get(at + 1);
            if next.is_none_or(|next| u64::from(next.position - kept_position) > gap_max) {
                kept.push(*entry);
                kept_position = entry.position;
            }
        }
        kept.shrink_to_fit();
        self.entries = kept;
    }

    /// Whether no further entry fits; time to roll.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX
    }

    /// The batches that the entries name, in order.
    pub fn batches(&self) -> impl Iterator<Item = IndexedBatch> {
        self.entries.iter().map(|entry| self.batch_of(*entry))
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        size_of::<SegmentIndex>() + self.entries.capacity() * size_of::<Entry>()
    }

    /// The index as a file's bytes; `life` is that of the segment's file.
    pub fn encode(&self, life: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + self.entries.len() * ENTRY_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&INDEX_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.base_offset.to_le_bytes());
        out.extend_from_slice(&life.to_le_bytes());
        out.extend_from_slice(&self.end_position.to_le_bytes());
        out.extend_from_slice(&self.max_timestamp.to_le_bytes());
        let count = u32::try_from(self.entries.len()).expect("ENTRIES_MAX fits");
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for entry in &self.entries {
            out.extend_from_slice(&entry.relative_offset.to_le_bytes());
            out.extend_from_slice(&entry.position.to_le_bytes());
            out.extend_from_slice(&entry.max_timestamp_before.to_le_bytes());
        }
        let crc = crc_around(&out, CRC_POSITION);
        out[CRC_POSITION..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the index of `segment`, whose first batch stands at `start_position`.
    pub fn decode(
        bytes: &[u8],
        segment: SegmentIdentity,
        start_position: u64,
    ) -> Result<SegmentIndex, IndexError> {
        let (found, mut index) = SegmentIndex::decode_any(bytes)?;
        if found != segment {
            return Err(IndexError::OtherSegment);
        }
        index.indexed_position = index.entries.last().map_or(start_position, |last| u64::from(last.position));
        Ok(index)
    }

    /// Largest timestamp noted, in milliseconds, -1 if none.
    pub(crate) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Reads an index and says whose it is. Only good for looking at: nothing may be added to it.
    pub(crate) fn decode_any(bytes: &[u8]) -> Result<(SegmentIdentity, SegmentIndex), IndexError> {
        let mut reader = Reader::new(bytes);
        let damaged = IndexError::Damaged;
        if reader.bytes(MAGIC.len()) != Some(&MAGIC) {
            return Err(damaged);
        }
        let version = reader.u16().ok_or(damaged)?;
        if version > INDEX_VERSION {
            return Err(IndexError::NewerVersion(version));
        }
        read_rest(&mut reader, bytes).filter(|_| version > 0).ok_or(damaged)
    }

    /// What an index file's first bytes name; not checked.
    pub(crate) fn names(bytes: &[u8]) -> Option<SegmentIdentity> {
        let mut reader = Reader::new(bytes);
        reader.bytes(MAGIC.len())?;
        let _versions = reader.u32()?;
        Some(SegmentIdentity { base_offset: reader.i64()?, life: reader.u64()?, end_position: reader.u64()? })
    }

    fn push_entry(&mut self, batch: &AppendedBatch) {
        let relative_offset = u32::try_from(batch.base_offset - self.base_offset);
        let position = u32::try_from(batch.position);
        if let (Ok(relative_offset), Ok(position), false) = (relative_offset, position, self.is_full()) {
            self.entries.push(Entry { relative_offset, position, max_timestamp_before: self.max_timestamp });
            self.indexed_position = batch.position;
        }
    }

    fn batch_of(&self, entry: Entry) -> IndexedBatch {
        IndexedBatch {
            base_offset: self.base_offset + i64::from(entry.relative_offset),
            position: u64::from(entry.position),
        }
    }
}

fn read_rest(reader: &mut Reader<'_>, bytes: &[u8]) -> Option<(SegmentIdentity, SegmentIndex)> {
    reader.u16()?;
    let base_offset = reader.i64()?;
    let life = reader.u64()?;
    let end_position = reader.u64()?;
    let max_timestamp = reader.i64()?;
    let count = reader.u32()? as usize;
    if reader.u32()? != crc_around(bytes, CRC_POSITION)
        || count > ENTRIES_MAX
        || reader.remaining() != count * ENTRY_LEN
    {
        return None;
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = Entry {
            relative_offset: reader.u32()?,
            position: reader.u32()?,
            max_timestamp_before: reader.i64()?,
        };
        let grows = entries.last().is_none_or(|last| {
            last.relative_offset < entry.relative_offset
                && last.position < entry.position
                && last.max_timestamp_before <= entry.max_timestamp_before
        });
        if !grows || u64::from(entry.position) >= end_position || base_offset < 0 {
            return None;
        }
        entries.push(entry);
    }
    let index = SegmentIndex { base_offset, entries, max_timestamp, end_position, indexed_position: 0 };
    Some((SegmentIdentity { base_offset, life, end_position }, index))
}

#[cfg(test)]
mod tests;
