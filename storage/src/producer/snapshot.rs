//! Bytes of a producer snapshot.

use std::collections::BTreeMap;

use super::{BATCHES_KEPT, ProducedBatch, Producer, ProducerTable};
use crate::bytes_io::{Reader, crc_around};

/// Version of the snapshot format.
pub const SNAPSHOT_VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"PSPR";
const CRC_POSITION: usize = 20;
const HEADER_LEN: usize = 24;
const PRODUCER_LEN_MIN: usize = 36;
const BATCH_LEN: usize = 24;
/// Most bytes that one producer takes.
pub(crate) const ENCODED_BYTES_MAX: usize = PRODUCER_LEN_MIN + BATCHES_KEPT * BATCH_LEN;
const NO_TRANSACTION: i64 = -1;

/// Why a snapshot cannot be used. It is part of a checkpoint, which is then refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Written by a newer version of this software.
    #[error("producer snapshot has format version {0}")]
    NewerVersion(u16),
    /// Crc, lengths or values are wrong.
    #[error("producer snapshot is damaged")]
    Damaged,
}

impl ProducerTable {
    /// The table as bytes; `end_offset` is the offset after the last batch recorded.
    pub fn encode(&self, end_offset: i64) -> Vec<u8> {
        encode(&self.producers, end_offset)
    }

    /// Reads a snapshot; gives the table and its end offset. If `producers_max` has come down since, those idle for
    /// longest are forgotten.
    pub fn decode(bytes: &[u8], producers_max: usize) -> Result<(ProducerTable, i64), SnapshotError> {
        let mut reader = Reader::new(bytes);
        let damaged = SnapshotError::Damaged;
        if reader.bytes(MAGIC.len()) != Some(&MAGIC) {
            return Err(damaged);
        }
        let version = reader.u16().ok_or(damaged)?;
        if version > SNAPSHOT_VERSION {
            return Err(SnapshotError::NewerVersion(version));
        }
        let mut table = ProducerTable::new(producers_max);
        let (producers, end_offset) = read_rest(&mut reader, bytes).filter(|_| version > 0).ok_or(damaged)?;
        table.producers = producers.into();
        if table.producers.len() > table.producers_max {
            table.make_room();
        }
        Ok((table, end_offset))
    }
}

/// See [`ProducerTable::encode`].
pub(super) fn encode(producers: &BTreeMap<i64, Producer>, end_offset: i64) -> Vec<u8> {
    let batches = producers.values().map(|producer| producer.batches.len()).sum::<usize>();
    let len = HEADER_LEN + producers.len() * PRODUCER_LEN_MIN + batches * BATCH_LEN;
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&end_offset.to_le_bytes());
    let count = u32::try_from(producers.len()).expect("bounded by configuration");
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for (&id, producer) in producers {
        put_producer(&mut out, id, producer);
    }
    assert_eq!(out.len(), len);
    let crc = crc_around(&out, CRC_POSITION);
    out[CRC_POSITION..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    out
}

fn read_rest(reader: &mut Reader<'_>, bytes: &[u8]) -> Option<(BTreeMap<i64, Producer>, i64)> {
    reader.u16()?;
    let end_offset = reader.i64()?;
    let count = reader.u32()?;
    if reader.u32()? != crc_around(bytes, CRC_POSITION) {
        return None;
    }
    let mut producers = BTreeMap::new();
    for _ in 0..count {
        let (id, producer) = read_producer(reader)?;
        let ascending = producers.last_key_value().is_none_or(|(&last, _)| last < id);
        if id < 0 || !ascending {
            return None;
        }
        producers.insert(id, producer);
    }
    (reader.remaining() == 0).then_some((producers, end_offset))
}

/// Appends a producer.
pub(crate) fn put_producer(out: &mut Vec<u8>, id: i64, producer: &Producer) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&producer.last_timestamp.to_le_bytes());
    out.extend_from_slice(&producer.last_seen_ms.to_le_bytes());
    out.extend_from_slice(&producer.transaction_first_offset.unwrap_or(NO_TRANSACTION).to_le_bytes());
    out.extend_from_slice(&producer.epoch.to_le_bytes());
    out.extend_from_slice(&[producer.batches.len() as u8, 0]);
    for batch in &producer.batches {
        out.extend_from_slice(&batch.last_sequence.to_le_bytes());
        out.extend_from_slice(&batch.offset_delta.to_le_bytes());
        out.extend_from_slice(&batch.last_offset.to_le_bytes());
        out.extend_from_slice(&batch.timestamp.to_le_bytes());
    }
}

/// Reads a producer with its id.
pub(crate) fn read_producer(reader: &mut Reader<'_>) -> Option<(i64, Producer)> {
    let id = reader.i64()?;
    let last_timestamp = reader.i64()?;
    let last_seen_ms = reader.i64()?;
    let transaction_first_offset = Some(reader.i64()?).filter(|&offset| offset != NO_TRANSACTION);
    let epoch = reader.u16()? as i16;
    let count = usize::from(reader.u8()?);
    reader.u8()?;
    if count > BATCHES_KEPT {
        return None;
    }
    let mut batches = Vec::with_capacity(count);
    for _ in 0..count {
        batches.push(ProducedBatch {
            last_sequence: reader.i32()?,
            offset_delta: reader.i32()?,
            last_offset: reader.i64()?,
            timestamp: reader.i64()?,
        });
    }
    let plausible = batches.iter().all(|batch| batch.offset_delta >= 0 && batch.last_offset >= 0);
    plausible
        .then_some((id, Producer { epoch, last_timestamp, last_seen_ms, transaction_first_offset, batches }))
}
