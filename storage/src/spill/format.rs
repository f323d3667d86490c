//! Bytes of a run. Pure. Layout: `docs/format.md`, "Spilled producers".

use super::Key;
use super::filter;
use crate::bytes_io::{Reader, crc_around};
use crate::disk::BLOCK;
use crate::producer::{ENCODED_BYTES_MAX, Producer, put_producer, read_producer};

/// Version of the format.
pub(super) const VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"PSRN";
const HEADER_CRC: usize = BLOCK - 4;
const BLOCK_HEADER_LEN: usize = 24;
/// Log id and run number before a producer.
const PREFIX_LEN: usize = 16;
const ENTRY_LEN_MIN: usize = PREFIX_LEN + 36;
const ENTRY_LEN_MAX: usize = PREFIX_LEN + ENCODED_BYTES_MAX;
/// Longest file of a run, for some 800 million producers: what one takes of memory is bounded by its length.
pub(super) const FILE_LEN_MAX: u64 = 64 << 30;
/// Most entries of a block.
const ENTRIES_MAX: u64 = ((BLOCK - BLOCK_HEADER_LEN) / ENTRY_LEN_MIN) as u64;
/// Keys in a block of the index.
pub(super) const KEYS_PER_BLOCK: usize = BLOCK / 16;
/// Words in a block of the filter.
pub(super) const WORDS_PER_BLOCK: usize = BLOCK / 8;

/// What the first block of a run tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    /// Entries.
    pub(super) producers: u64,
    /// Blocks of entries, which follow this one.
    pub(super) blocks: u64,
    /// Words of the filter, which ends the file behind the index.
    pub(super) words: u64,
    /// Key of the last entry.
    pub(super) last: Key,
    pub(super) index_crc: u32,
    pub(super) filter_crc: u32,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    NewerVersion(u16),
    Damaged,
}

impl Header {
    /// Bytes of the file.
    pub(super) fn file_len(&self) -> u64 {
        self.filter_position() + self.words.div_ceil(WORDS_PER_BLOCK as u64) * BLOCK as u64
    }

    pub(super) fn index_position(&self) -> u64 {
        block_position(self.blocks)
    }

    pub(super) fn filter_position(&self) -> u64 {
        self.index_position() + self.blocks.div_ceil(KEYS_PER_BLOCK as u64) * BLOCK as u64
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        for value in [self.number, self.producers, self.blocks, self.words, self.file_len()] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        put_key(&mut out, self.last);
        out.extend_from_slice(&self.index_crc.to_le_bytes());
        out.extend_from_slice(&self.filter_crc.to_le_bytes());
        out.resize(HEADER_CRC, 0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header of a file of `len` bytes. What it counts takes no more than these.
    pub(super) fn decode(block: &[u8], len: u64) -> Result<Header, HeaderError> {
        let sound = block.len() == BLOCK
            && block[..4] == MAGIC
            && block[HEADER_CRC..] == crc32c::crc32c(&block[..HEADER_CRC]).to_le_bytes();
        let mut reader = Reader::new(&block[4.min(block.len())..]);
        match reader.u16() {
            Some(version) if sound && version > VERSION => Err(HeaderError::NewerVersion(version)),
            Some(VERSION) if sound => read_header(&mut reader, len).ok_or(HeaderError::Damaged),
            _ => Err(HeaderError::Damaged),
        }
    }
}

fn read_header(reader: &mut Reader<'_>, len: u64) -> Option<Header> {
    reader.u16()?;
    let header = Header {
        number: reader.u64()?,
        producers: reader.u64()?,
        blocks: reader.u64()?,
        words: reader.u64()?,
        last: {
            (reader.u64()? == len).then_some(())?;
            read_key(reader)?
        },
        index_crc: reader.u32()?,
        filter_crc: reader.u32()?,
    };
    let blocks_max = len / BLOCK as u64;
    let bounded = len <= FILE_LEN_MAX
        && header.blocks <= blocks_max
        && header.words <= blocks_max * WORDS_PER_BLOCK as u64
        && (header.blocks..=header.blocks * ENTRIES_MAX).contains(&header.producers)
        && (1..=filter::words_max(header.producers)).contains(&header.words);
    (bounded && header.blocks > 0 && header.file_len() == len).then_some(header)
}

/// File position of a block of entries.
pub(super) fn block_position(ordinal: u64) -> u64 {
    (1 + ordinal) * BLOCK as u64
}

/// One producer as a run has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    /// The run that it was first written in.
    pub(super) first: u64,
    pub(super) producer: Producer,
}

/// A block of entries in the making.
pub(super) struct BlockBuilder {
    number: u64,
    bytes: Vec<u8>,
    count: u16,
}

impl BlockBuilder {
    /// A builder for the blocks of a run.
    pub(super) fn new(number: u64) -> BlockBuilder {
        let mut bytes = Vec::with_capacity(BLOCK);
        bytes.resize(BLOCK_HEADER_LEN, 0);
        BlockBuilder { number, bytes, count: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether any entry fits.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() + ENTRY_LEN_MAX <= BLOCK
    }

    /// Adds an entry, for which there is room.
    pub(super) fn push(&mut self, (log, id): Key, first: u64, producer: &Producer) {
        self.bytes.extend_from_slice(&log.to_le_bytes());
        self.bytes.extend_from_slice(&first.to_le_bytes());
        put_producer(&mut self.bytes, id, producer);
        self.count += 1;
        assert!(self.bytes.len() <= BLOCK, "a block was given more than it has room for");
    }

    /// Gives the block to `take`, for this place in the file, and begins the next.
    pub(super) fn finish(&mut self, ordinal: u64, take: impl FnOnce(&[u8])) {
        self.bytes.resize(BLOCK, 0);
        self.bytes[4..6].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&block_position(ordinal).to_le_bytes());
        let crc = crc_around(&self.bytes, 0);
        self.bytes[..4].copy_from_slice(&crc.to_le_bytes());
        take(&self.bytes);
        self.bytes.truncate(BLOCK_HEADER_LEN);
        self.count = 0;
    }
}

/// The entries of a block, if it is the one of this run and place, and as it was written.
pub(super) fn decode_block(block: &[u8], number: u64, ordinal: u64) -> Option<Vec<Entry>> {
    if block.len() != BLOCK {
        return None;
    }
    let mut reader = Reader::new(block);
    if reader.u32()? != crc_around(block, 0) {
        return None;
    }
    let count = reader.u16()?;
    reader.u16()?;
    if reader.u64()? != number || reader.u64()? != block_position(ordinal) {
        return None;
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(usize::from(count).min(ENTRIES_MAX as usize));
    for _ in 0..count {
        let log = reader.u64()?;
        let first = reader.u64()?;
        let (id, producer) = read_producer(&mut reader)?;
        let key = (log, id);
        let ascending = entries.last().is_none_or(|last| last.key < key);
        if !ascending || first > number {
            return None;
        }
        entries.push(Entry { key, first, producer });
    }
    (!entries.is_empty()).then_some(entries)
}

pub(super) fn put_key(out: &mut Vec<u8>, (log, id): Key) {
    out.extend_from_slice(&log.to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
}

pub(super) fn read_key(reader: &mut Reader<'_>) -> Option<Key> {
    Some((reader.u64()?, reader.i64()?))
}
