//! Bytes of a metadata snapshot: pure encoding and bounded decoding. Layout: the storage package's `docs/format.md`,
//! "Metadata snapshot".
//!
//! A snapshot holds the records that lead from nothing to the image at one offset of the metadata log, and so stands
//! for everything below that offset.

use bytes::Bytes;
use penstock_protocol::EncodeError;

use super::image::MetadataImage;

const MAGIC: [u8; 4] = *b"PSMS";
/// Version of the snapshot format.
const SNAPSHOT_VERSION: u16 = 1;
const HEADER_LEN: usize = 40;
const CRC_LEN: usize = 4;

/// Longest snapshot that is written or read: five times what a million partitions with long replica lists take.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// A decoded snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Offset of the first record of the metadata log that is not part of it.
    pub offset: i64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub written_ms: i64,
    /// Its records, each as [`super::MetadataRecord::decode`] takes it.
    pub records: Vec<Bytes>,
}

/// Why an image cannot be made a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeSnapshotError {
    /// A string is longer than the protocol can carry.
    #[error(transparent)]
    Record(#[from] EncodeError),
    /// The image is too large.
    #[error("the metadata snapshot would be longer than {SNAPSHOT_BYTES_MAX} bytes")]
    TooLong,
}

/// Why bytes are not a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It is whole, and in a version that this release does not know.
    #[error("it is of version {0}, and this release reads up to {SNAPSHOT_VERSION}")]
    NewerVersion(u16),
    /// It is torn, or not what was written.
    #[error("it is damaged")]
    Damaged,
}

/// The snapshot of an image that holds all records below `offset`.
///
/// # Errors
/// If the image is larger than [`SNAPSHOT_BYTES_MAX`] or holds what cannot be written.
pub fn encode_snapshot(
    image: &MetadataImage,
    offset: i64,
    now_ms: i64,
) -> Result<Vec<u8>, EncodeSnapshotError> {
    let mut out = vec![0; HEADER_LEN];
    let mut count: u32 = 0;
    for record in image.records() {
        let record = record.encode()?;
        if out.len() + 4 + record.len() + CRC_LEN > SNAPSHOT_BYTES_MAX {
            return Err(EncodeSnapshotError::TooLong);
        }
        let len = u32::try_from(record.len()).map_err(|_| EncodeSnapshotError::TooLong)?;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&record);
        count += 1;
    }
    let len = (out.len() + CRC_LEN) as u64;
    out[..4].copy_from_slice(&MAGIC);
    out[4..6].copy_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
    out[8..16].copy_from_slice(&offset.to_le_bytes());
    out[16..24].copy_from_slice(&now_ms.to_le_bytes());
    out[24..32].copy_from_slice(&len.to_le_bytes());
    out[32..36].copy_from_slice(&count.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// Reads a snapshot. The records share `bytes` and are not yet decoded.
///
/// # Errors
/// If it is damaged, or from a newer release.
pub fn decode_snapshot(bytes: &Bytes) -> Result<Snapshot, SnapshotError> {
    read(bytes).unwrap_or(Err(SnapshotError::Damaged))
}

/// `None` where the bytes end before what they should hold.
fn read(bytes: &Bytes) -> Option<Result<Snapshot, SnapshotError>> {
    let (content, crc) = bytes.split_last_chunk::<CRC_LEN>()?;
    // Magic, version and the last four bytes mean the same in every version, so that a damaged one is not taken for a
    // newer one.
    if *content.first_chunk::<4>()? != MAGIC || crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
        return Some(Err(SnapshotError::Damaged));
    }
    let version = u16::from_le_bytes(*content.get(4..)?.first_chunk()?);
    if version > SNAPSHOT_VERSION {
        return Some(Err(SnapshotError::NewerVersion(version)));
    }
    let number = |at: usize| Some(i64::from_le_bytes(*content.get(at..)?.first_chunk()?));
    let (offset, written_ms, len) = (number(8)?, number(16)?, number(24)?);
    let count = u32::from_le_bytes(*content.get(32..)?.first_chunk()?) as usize;
    if version != SNAPSHOT_VERSION || offset < 0 || usize::try_from(len) != Ok(bytes.len()) {
        return Some(Err(SnapshotError::Damaged));
    }
    let mut rest = bytes.slice(HEADER_LEN..content.len());
    let mut records = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_le_bytes(*rest.first_chunk()?) as usize;
        let end = len.checked_add(4).filter(|end| *end <= rest.len())?;
        records.push(rest.split_to(end).slice(4..));
    }
    let whole = records.len() == count;
    Some(whole.then_some(Snapshot { offset, written_ms, records }).ok_or(SnapshotError::Damaged))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use penstock_protocol::messages::{
        ConfigRecord, FeatureLevelRecord, PartitionRecord, ProducerIdsRecord, TopicRecord,
    };
    use penstock_protocol::{Uuid, WireString};

    use super::*;
    use crate::config::{BrokerConfig, StaticConfig};
    use crate::metadata::{MetadataMachine, MetadataRecord, resource_type};

    fn machine() -> MetadataMachine {
        let broker = BrokerConfig::from_static(StaticConfig::default()).unwrap();
        MetadataMachine::new(WireString::from("cluster"), broker, 2)
    }

    /// One of each record that a snapshot can hold.
    fn sample() -> MetadataMachine {
        let mut machine = machine();
        let topic_id = Uuid::from_bytes([7; 16]);
        let config = |resource_type, resource: &str, name: &str, value: &str| {
            MetadataRecord::Config(ConfigRecord {
                resource_type,
                resource_name: WireString::from(resource),
                name: WireString::from(name),
                value: Some(WireString::from(value)),
            })
        };
        let partition = |partition_id, shard| {
            MetadataRecord::Partition(PartitionRecord {
                topic_id,
                partition_id,
                shard,
                replicas: vec![1],
                isr: vec![1],
                leader: 1,
                leader_epoch: 3,
                partition_epoch: 5,
            })
        };
        let records = [
            config(resource_type::BROKER, "", "log.retention.ms", "5000"),
            config(resource_type::BROKER, "1", "message.max.bytes", "2000"),
            MetadataRecord::FeatureLevel(FeatureLevelRecord { name: WireString::from("level"), level: 4 }),
            MetadataRecord::ProducerIds(ProducerIdsRecord {
                broker_id: 1,
                broker_epoch: -1,
                next_producer_id: 3000,
            }),
            MetadataRecord::Topic(TopicRecord { name: WireString::from("t"), topic_id }),
            config(resource_type::TOPIC, "t", "cleanup.policy", "compact"),
            partition(0, 0),
            partition(1, 1),
        ];
        records.iter().for_each(|record| machine.replay(record).unwrap());
        machine
    }

    fn bytes() -> Bytes {
        encode_snapshot(sample().image(), 42, 1_700_000_000_000).unwrap().into()
    }

    #[test]
    fn golden_bytes() {
        let hex: String = bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = include_str!("../../tests/golden/metadata-snapshot-v1.hex");
        assert_eq!(hex, golden.split_whitespace().collect::<String>());
    }

    #[test]
    fn leads_to_the_same_image() {
        let snapshot = decode_snapshot(&bytes()).unwrap();
        assert_eq!((snapshot.offset, snapshot.written_ms), (42, 1_700_000_000_000));
        let mut again = machine();
        for record in snapshot.records {
            again.replay(&MetadataRecord::decode(record).unwrap()).unwrap();
        }
        assert_eq!(again.image(), sample().image());
    }

    #[test]
    fn any_change_and_any_end_is_noticed() {
        let bytes = bytes();
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            assert_eq!(decode_snapshot(&bad.into()), Err(SnapshotError::Damaged), "byte {at}");
            assert_eq!(decode_snapshot(&bytes.slice(..at)), Err(SnapshotError::Damaged), "{at} bytes");
        }
        // Right crcs over wrong content: lengths beyond the end, and counts that are not what follows.
        for at in [24, 32, HEADER_LEN] {
            for value in [0, 1, 255] {
                let mut bad = bytes[..bytes.len() - CRC_LEN].to_vec();
                if std::mem::replace(&mut bad[at], value) == value {
                    continue;
                }
                let crc = crc32c::crc32c(&bad);
                bad.extend_from_slice(&crc.to_le_bytes());
                assert_eq!(decode_snapshot(&bad.into()), Err(SnapshotError::Damaged), "{value} at {at}");
            }
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut newer = bytes()[..100].to_vec();
        newer[4] = 2;
        let crc = crc32c::crc32c(&newer);
        newer.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_snapshot(&newer.into()), Err(SnapshotError::NewerVersion(2)));
    }
}
