//! The 61-byte header of a record batch.
//!
//! All integers are big-endian. `crc` is CRC-32C over everything from `attributes` to the batch's end,
//! so base offset, length, leader epoch and magic may be patched without touching it.
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 8 | base offset |
//! | 8 | 4 | batch length: bytes after this field |
//! | 12 | 4 | partition leader epoch |
//! | 16 | 1 | magic, 2 |
//! | 17 | 4 | crc |
//! | 21 | 2 | attributes: 0-2 codec, 3 log append time, 4 transactional, 5 control, 6 delete horizon |
//! | 23 | 4 | last offset delta |
//! | 27 | 8 | base timestamp (the delete horizon where attribute bit 6 is set) |
//! | 35 | 8 | max timestamp |
//! | 43 | 8 | producer id |
//! | 51 | 2 | producer epoch |
//! | 53 | 4 | base sequence |
//! | 57 | 4 | record count |

use crate::error::BatchError;

/// Bytes of a batch header.
pub const BATCH_HEADER_LEN: usize = 61;
/// Bytes of base offset and length field, which `batch_length` does not count.
pub const BATCH_LOG_OVERHEAD: usize = 12;
/// Smallest valid `batch_length`: a header and no records.
pub const BATCH_LENGTH_MIN: i32 = (BATCH_HEADER_LEN - BATCH_LOG_OVERHEAD) as i32;
/// Position of the first byte that the crc covers.
pub const CRC_START: usize = 21;
/// The magic of format v2.
pub const MAGIC_V2: i8 = 2;
/// Timestamp of a batch or record that has none.
pub const NO_TIMESTAMP: i64 = -1;
/// Producer id of a batch without idempotence.
pub const NO_PRODUCER_ID: i64 = -1;
/// Producer epoch of a batch without idempotence.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Base sequence of a batch without idempotence.
pub const NO_SEQUENCE: i32 = -1;

const MAGIC_POSITION: usize = 16;
const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// Codec of a batch's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Compression {
    /// Records as they are.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks, with or without xerial's framing.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

impl Compression {
    /// All codecs, in the order of their ids.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The codec with this id in the attribute bits.
    pub fn from_id(id: u8) -> Option<Compression> {
        Compression::ALL.get(usize::from(id)).copied()
    }

    /// The id in the attribute bits.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// The name that Kafka's configuration uses.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// Who gave a batch its timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// The producer, record by record.
    #[default]
    CreateTime,
    /// The broker at append; every record then has the batch's max timestamp.
    LogAppendTime,
}

/// A batch header, field by field. See the module text for layout and meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes after this field.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch; -1 from clients.
    pub partition_leader_epoch: i32,
    /// Always [`MAGIC_V2`] in a parsed header.
    pub magic: i8,
    /// CRC-32C from the attributes to the end.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: i16,
    /// Offset of the last record less the base offset; survives compaction.
    pub last_offset_delta: i32,
    /// Milliseconds; base of the records' timestamp deltas.
    pub base_timestamp: i64,
    /// Milliseconds; largest timestamp of the records, or the append time.
    pub max_timestamp: i64,
    /// -1 without idempotence.
    pub producer_id: i64,
    /// -1 without idempotence.
    pub producer_epoch: i16,
    /// Sequence of the first record; -1 without idempotence.
    pub base_sequence: i32,
    /// Records in the batch; fewer than `last_offset_delta + 1` after compaction.
    pub record_count: i32,
}

impl Default for BatchHeader {
    /// An empty uncompressed batch of no producer at offset 0.
    fn default() -> Self {
        BatchHeader {
            base_offset: 0,
            batch_length: BATCH_LENGTH_MIN,
            partition_leader_epoch: -1,
            magic: MAGIC_V2,
            crc: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            record_count: 0,
        }
    }
}

impl BatchHeader {
    /// Reads a header from the start of `bytes`. Checks magic and length field and nothing else; `bytes`
    /// need not hold the records.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        // Magic comes first: a small message of format 0 or 1 is shorter than a header of format 2.
        let magic = *bytes
            .get(MAGIC_POSITION)
            .ok_or(BatchError::Truncated { needed: BATCH_HEADER_LEN, available: bytes.len() })?
            as i8;
        if magic != MAGIC_V2 {
            return Err(BatchError::UnsupportedMagic(magic));
        }
        let header = bytes
            .first_chunk::<BATCH_HEADER_LEN>()
            .ok_or(BatchError::Truncated { needed: BATCH_HEADER_LEN, available: bytes.len() })?;
        let batch_length = i32::from_be_bytes(field(header, 8));
        if batch_length < BATCH_LENGTH_MIN {
            return Err(BatchError::InvalidLength(batch_length));
        }
        Ok(BatchHeader {
            base_offset: i64::from_be_bytes(field(header, 0)),
            batch_length,
            partition_leader_epoch: i32::from_be_bytes(field(header, 12)),
            magic,
            crc: u32::from_be_bytes(field(header, 17)),
            attributes: i16::from_be_bytes(field(header, 21)),
            last_offset_delta: i32::from_be_bytes(field(header, 23)),
            base_timestamp: i64::from_be_bytes(field(header, 27)),
            max_timestamp: i64::from_be_bytes(field(header, 35)),
            producer_id: i64::from_be_bytes(field(header, 43)),
            producer_epoch: i16::from_be_bytes(field(header, 51)),
            base_sequence: i32::from_be_bytes(field(header, 53)),
            record_count: i32::from_be_bytes(field(header, 57)),
        })
    }

    /// Writes the header as it stands; the crc is not computed.
    pub fn write_to(&self, out: &mut [u8; BATCH_HEADER_LEN]) {
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out[16] = self.magic as u8;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
    }

    /// The header's bytes.
    pub fn to_array(&self) -> [u8; BATCH_HEADER_LEN] {
        let mut out = [0; BATCH_HEADER_LEN];
        self.write_to(&mut out);
        out
    }

    /// Bytes of the whole batch.
    pub fn total_len(&self) -> usize {
        BATCH_LOG_OVERHEAD + self.batch_length.max(BATCH_LENGTH_MIN) as usize
    }

    /// Offset of the last record (as first written; compaction may have removed it).
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset after the last record.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Codec of the records.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let id = (self.attributes & COMPRESSION_MASK) as u8;
        Compression::from_id(id).ok_or(BatchError::UnknownCompression(id))
    }

    /// Names another codec; the body has to match.
    pub fn set_compression(&mut self, compression: Compression) {
        self.attributes = (self.attributes & !COMPRESSION_MASK) | i16::from(compression.id());
    }

    /// Who gave the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Sets or clears the log-append-time flag.
    pub fn set_timestamp_type(&mut self, timestamp_type: TimestampType) {
        self.set_flag(LOG_APPEND_TIME, timestamp_type == TimestampType::LogAppendTime);
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Sets or clears the transactional flag.
    pub fn set_transactional(&mut self, on: bool) {
        self.set_flag(TRANSACTIONAL, on);
    }

    /// Whether the batch holds control records, which consumers never see.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Sets or clears the control flag.
    pub fn set_control(&mut self, on: bool) {
        self.set_flag(CONTROL, on);
    }

    /// Whether `base_timestamp` is a delete horizon (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// Sets or clears the delete-horizon flag.
    pub fn set_has_delete_horizon(&mut self, on: bool) {
        self.set_flag(DELETE_HORIZON, on);
    }

    /// Whether a producer id stands in the batch.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Sequence of the last record, wrapping to 0 after `i32::MAX`; -1 without sequences.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            NO_SEQUENCE
        } else {
            add_sequence(self.base_sequence, self.last_offset_delta)
        }
    }

    fn set_flag(&mut self, flag: i16, on: bool) {
        if on {
            self.attributes |= flag;
        } else {
            self.attributes &= !flag;
        }
    }
}

/// `sequence + increment` in the ring 0..=`i32::MAX`, as producers count.
pub fn add_sequence(sequence: i32, increment: i32) -> i32 {
    (i64::from(sequence) + i64::from(increment)).rem_euclid(1 << 31) as i32
}

/// The `N` bytes at `at`; positions are constants within the header.
fn field<const N: usize>(header: &[u8; BATCH_HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[at..at + N]);
    out
}
