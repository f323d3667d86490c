//! Batches encoded before the run begins, so that sending one costs no encoding.
//!
//! Without keys one batch serves every partition. With keys each partition has its own, holding keys that Kafka's default
//! partitioner would send there. Timestamps are those of the encoding.

use std::time::{SystemTime, UNIX_EPOCH};

use penstock_format::{Batch, BatchBuilder, BuildError, Compression, NewRecord};
use penstock_protocol::partitioner::partition_of;

/// What the records look like.
#[derive(Debug, Clone)]
pub struct PayloadSpec {
    /// Bytes of each value.
    pub record_size: usize,
    /// Records of each batch.
    pub batch_records: usize,
    /// Codec of the batches.
    pub compression: Compression,
    /// How many distinct keys; none for records without keys.
    pub keys: Option<u64>,
    /// The part of each value that is random, 0 to 1; the rest compresses to nearly nothing.
    pub random: f64,
}

/// Bytes that a record of this size takes in a batch besides its value, as a lower bound: used to derive the number of
/// records from a batch size.
const RECORD_OVERHEAD: usize = 6;

impl PayloadSpec {
    /// How many records of `record_size` make a batch of about, and at most, `batch_size` bytes; at least one.
    pub fn records_in(batch_size: usize, record_size: usize) -> usize {
        // Values of 64 bytes and more have length fields of two bytes or more; a few bytes either way do not matter.
        let overhead = RECORD_OVERHEAD + if record_size >= 64 { 2 } else { 0 };
        (batch_size.saturating_sub(penstock_format::BATCH_HEADER_LEN) / (record_size + overhead)).max(1)
    }
}

/// The encoded batches of a run.
#[derive(Debug, Clone)]
pub struct Payload {
    /// One for all partitions, or one for each; none where no key falls on the partition.
    batches: Vec<Option<Batch>>,
    shared: bool,
}

impl Payload {
    /// Encodes the batches of a topic of `partitions` partitions.
    pub fn encode(spec: &PayloadSpec, partitions: i32) -> Result<Payload, BuildError> {
        let Some(keys) = spec.keys else {
            return Ok(Payload { batches: vec![Some(encode_batch(spec, &[])?)], shared: true });
        };
        let mut keys_of: Vec<Vec<Vec<u8>>> = vec![Vec::new(); partitions.max(1) as usize];
        for number in 0..keys {
            let key = key_of(number);
            let list = &mut keys_of[partition_of(&key, partitions) as usize];
            // More keys than a batch has records would never be sent.
            if list.len() < spec.batch_records {
                list.push(key);
            }
        }
        let batches = keys_of
            .iter()
            .map(|keys| if keys.is_empty() { Ok(None) } else { encode_batch(spec, keys).map(Some) })
            .collect::<Result<_, _>>()?;
        Ok(Payload { batches, shared: false })
    }

    /// The batch for a partition; none when no key belongs there.
    pub fn batch(&self, partition: i32) -> Option<&Batch> {
        let at = if self.shared { 0 } else { partition as usize };
        self.batches.get(at)?.as_ref()
    }
}

/// The bytes of key number `number`.
pub fn key_of(number: u64) -> Vec<u8> {
    format!("key-{number:010}").into_bytes()
}

/// Milliseconds since the Unix epoch.
pub fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn encode_batch(spec: &PayloadSpec, keys: &[Vec<u8>]) -> Result<Batch, BuildError> {
    let timestamp = wall_clock_ms();
    let mut builder = BatchBuilder::new().compression(spec.compression, None);
    let mut value = vec![b'p'; spec.record_size];
    let random_len = (spec.record_size as f64 * spec.random.clamp(0.0, 1.0)) as usize;
    let mut state = 0x853c_49e6_748f_ea9b_u64;
    for number in 0..spec.batch_records {
        for byte in &mut value[..random_len] {
            // xorshift64 (Marsaglia 2003): content needs to be incompressible, nothing more.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        let key = if keys.is_empty() { None } else { Some(keys[number % keys.len()].as_slice()) };
        builder.append(&NewRecord { timestamp, key, value: Some(&value), headers: &[] })?;
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> PayloadSpec {
        let compression = Compression::None;
        PayloadSpec { record_size: 1024, batch_records: 63, compression, keys: None, random: 1.0 }
    }

    #[test]
    fn batches_fill_their_size() {
        let records = PayloadSpec::records_in(64 << 10, 1024);
        assert_eq!(records, 63);
        let payload = Payload::encode(&PayloadSpec { batch_records: records, ..spec() }, 16).unwrap();
        let batch = payload.batch(15).unwrap();
        assert_eq!(batch.header.record_count, 63);
        assert!((62 << 10..=64 << 10).contains(&batch.len()), "{}", batch.len());
        assert!(batch.crc_ok());
        assert_eq!(PayloadSpec::records_in(100, 4096), 1);
    }

    #[test]
    fn keys_fall_where_the_partitioner_sends_them() {
        let payload = Payload::encode(&PayloadSpec { keys: Some(3), ..spec() }, 64).unwrap();
        let with_batch = (0..64).filter(|partition| payload.batch(*partition).is_some()).count();
        assert!((1..=3).contains(&with_batch));
        assert!(payload.batch(partition_of(&key_of(0), 64)).is_some());
    }
}
