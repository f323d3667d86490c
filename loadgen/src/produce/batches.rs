//! Batches that change from one sending to the next: sequences of an idempotent producer, stamps of the intended time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use penstock_format::{BATCH_HEADER_LEN, Batch, add_sequence, varint};

/// Bytes of a stamp: nanoseconds since the run's epoch, at the start of the first record's value.
pub const STAMP_LEN: usize = 8;

/// The sequences of one idempotent producer.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// By partition; 0 when nothing was sent.
    next_sequence: BTreeMap<i32, i32>,
}

impl Numbering {
    /// Gives `batch` the next sequences of `partition`.
    pub(super) fn number(&mut self, partition: i32, batch: &mut Batch) {
        let next = self.next_sequence.entry(partition).or_default();
        let base_sequence = *next;
        *next = add_sequence(base_sequence, batch.header.record_count);
        batch.patch_header(|header| header.base_sequence = base_sequence);
    }
}

/// Writes `due` into an uncompressed batch, in memory of its own.
pub(super) fn stamp(batch: &mut Batch, due: Instant, epoch: Instant) {
    if let Some(at) = first_value_at(&batch.body) {
        let nanos = u64::try_from(due.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX);
        let mut body = BytesMut::from(&batch.body[..]);
        if let Some(place) = body.get_mut(at..at + STAMP_LEN) {
            place.copy_from_slice(&nanos.to_be_bytes());
        }
        batch.body = body.freeze();
        batch.header.crc = batch.compute_crc();
    }
}

/// The intended time that a batch of ours carries, since the run's epoch; `bytes` begins with the batch's header.
pub fn stamp_of(bytes: &[u8]) -> Option<Duration> {
    let body = bytes.get(BATCH_HEADER_LEN..)?;
    let stamp = body.get(first_value_at(body)?..)?.first_chunk::<STAMP_LEN>()?;
    Some(Duration::from_nanos(u64::from_be_bytes(*stamp)))
}

/// Where the first record's value begins in an uncompressed body.
fn first_value_at(body: &[u8]) -> Option<usize> {
    let mut at = varint::read_i32(body)?.1;
    at += 1; // attributes
    at += varint::read_i64(body.get(at..)?)?.1; // timestamp delta
    at += varint::read_i32(body.get(at..)?)?.1; // offset delta
    let (key_len, len) = varint::read_i32(body.get(at..)?)?;
    at += len + usize::try_from(key_len).unwrap_or(0);
    let (value_len, len) = varint::read_i32(body.get(at..)?)?;
    (value_len as i64 >= STAMP_LEN as i64).then_some(at + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use penstock_format::{BatchBuilder, NewRecord};

    fn batch(key: Option<&[u8]>) -> Batch {
        let mut builder = BatchBuilder::new();
        for _ in 0..3 {
            builder.append(&NewRecord { key, value: Some(&[1; 300]), ..NewRecord::default() }).unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn stamps_read_back_and_the_crc_holds() {
        for key in [None, Some(&b"some key"[..])] {
            let mut batch = batch(key);
            let epoch = Instant::now();
            stamp(&mut batch, epoch + Duration::from_micros(1234), epoch);
            assert!(batch.crc_ok());
            assert_eq!(stamp_of(&batch.to_bytes()), Some(Duration::from_micros(1234)));
        }
        assert_eq!(stamp_of(&Bytes::from_static(&[0; 70])), None);
    }

    #[test]
    fn sequences_follow_each_other_by_partition() {
        let mut numbering = Numbering::default();
        let mut batch = batch(None);
        let mut sequences = Vec::new();
        for partition in [1, 1, 2, 1] {
            numbering.number(partition, &mut batch);
            assert!(batch.crc_ok());
            sequences.push(batch.header.base_sequence);
        }
        assert_eq!(sequences, [0, 3, 0, 6]);
    }
}
