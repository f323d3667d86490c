//! Records of the metadata log as bytes.
//!
//! A record is: the frame's version (1), the record's number, its version, each an unsigned varint, then the body in the
//! protocol's own encoding. Numbers and fields stand in the protocol package's `schema/metadata.schema`. A node refuses
//! a frame version, a number or a record version that it does not know: to skip a change would be to disagree about the
//! state. Fields added later are tagged, and skipped by those who do not know them.

use bytes::{BufMut, Bytes, BytesMut};
use penstock_protocol::messages::{
    ConfigRecord, FeatureLevelRecord, PartitionChangeRecord, PartitionRecord, ProducerIdsRecord,
    RemoveTopicRecord, TopicRecord,
};
use penstock_protocol::{DecodeError, Decoder, EncodeError, Encoder, Message};

const FRAME_VERSION: u32 = 1;

/// Version in which each record is written.
const RECORD_VERSION: i16 = 0;

/// One change of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataRecord {
    /// A topic comes into being.
    Topic(TopicRecord),
    /// A partition comes into being.
    Partition(PartitionRecord),
    /// What changed of a partition.
    PartitionChange(PartitionChangeRecord),
    /// A config is set or goes back to its default.
    Config(ConfigRecord),
    /// A topic goes.
    RemoveTopic(RemoveTopicRecord),
    /// A block of producer ids was handed out.
    ProducerIds(ProducerIdsRecord),
    /// A feature is finalized at a level.
    FeatureLevel(FeatureLevelRecord),
}

/// Why bytes are not a metadata record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer release: a frame, record number or version that this one does not know.
    #[error(
        "metadata record of frame version {frame}, number {number}, version {version} is from a newer release"
    )]
    Unknown {
        /// Version of the frame.
        frame: u32,
        /// Number of the record.
        number: u32,
        /// Version of the record.
        version: u32,
    },
    /// The bytes end inside the frame's head.
    #[error("metadata record ends inside its head")]
    Torn,
    /// The body is damaged.
    #[error("metadata record is damaged: {0}")]
    Body(#[from] DecodeError),
}

impl MetadataRecord {
    /// The record as bytes.
    ///
    /// # Errors
    /// If a string is longer than the protocol can carry (32,767 bytes).
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        match self {
            MetadataRecord::Topic(body) => frame(body),
            MetadataRecord::Partition(body) => frame(body),
            MetadataRecord::PartitionChange(body) => frame(body),
            MetadataRecord::Config(body) => frame(body),
            MetadataRecord::RemoveTopic(body) => frame(body),
            MetadataRecord::ProducerIds(body) => frame(body),
            MetadataRecord::FeatureLevel(body) => frame(body),
        }
    }

    /// The record in `bytes`, which it must fill.
    ///
    /// # Errors
    /// If it is from a newer release, or damaged.
    pub fn decode(mut bytes: Bytes) -> Result<MetadataRecord, RecordError> {
        let frame = take_varint(&mut bytes)?;
        let number = take_varint(&mut bytes)?;
        let version = take_varint(&mut bytes)?;
        let unknown = || RecordError::Unknown { frame, number, version };
        let version = i16::try_from(version).map_err(|_| unknown())?;
        if frame != FRAME_VERSION {
            return Err(unknown());
        }
        let is = |key: i16| u32::try_from(key) == Ok(number);
        Ok(match () {
            () if is(TopicRecord::API_KEY) => MetadataRecord::Topic(body(bytes, version, unknown)?),
            () if is(PartitionRecord::API_KEY) => MetadataRecord::Partition(body(bytes, version, unknown)?),
            () if is(PartitionChangeRecord::API_KEY) => {
                MetadataRecord::PartitionChange(body(bytes, version, unknown)?)
            }
            () if is(ConfigRecord::API_KEY) => MetadataRecord::Config(body(bytes, version, unknown)?),
            () if is(RemoveTopicRecord::API_KEY) => {
                MetadataRecord::RemoveTopic(body(bytes, version, unknown)?)
            }
            () if is(ProducerIdsRecord::API_KEY) => {
                MetadataRecord::ProducerIds(body(bytes, version, unknown)?)
            }
            () if is(FeatureLevelRecord::API_KEY) => {
                MetadataRecord::FeatureLevel(body(bytes, version, unknown)?)
            }
            () => return Err(unknown()),
        })
    }
}

fn frame<M: Message>(record: &M) -> Result<Bytes, EncodeError> {
    let mut encoder = Encoder::new();
    record.encode(&mut encoder, RECORD_VERSION)?;
    let body = encoder.finish_contiguous();
    let mut bytes = BytesMut::with_capacity(body.len() + 3);
    put_varint(&mut bytes, FRAME_VERSION);
    put_varint(&mut bytes, u32::from(M::API_KEY.unsigned_abs()));
    put_varint(&mut bytes, u32::from(RECORD_VERSION.unsigned_abs()));
    bytes.put_slice(&body);
    Ok(bytes.freeze())
}

fn body<M: Message>(bytes: Bytes, version: i16, unknown: impl Fn() -> RecordError) -> Result<M, RecordError> {
    if !M::VERSIONS.contains(version) {
        return Err(unknown());
    }
    let mut decoder = Decoder::new(bytes);
    let record = M::decode(&mut decoder, version)?;
    decoder.finish()?;
    Ok(record)
}

fn put_varint(bytes: &mut BytesMut, value: u32) {
    let mut rest = value;
    while rest >= 0x80 {
        bytes.put_u8(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    bytes.put_u8(rest.to_le_bytes()[0]);
}

fn take_varint(bytes: &mut Bytes) -> Result<u32, RecordError> {
    let mut value = 0u32;
    for shift in [0, 7, 14, 21] {
        if bytes.is_empty() {
            return Err(RecordError::Torn);
        }
        let byte = bytes.split_to(1)[0];
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(RecordError::Torn)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use penstock_protocol::{Uuid, WireString};

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn examples() -> Vec<(MetadataRecord, &'static str)> {
        let id = Uuid([7; 16]);
        let name = WireString::from_static;
        vec![
            (
                MetadataRecord::Topic(TopicRecord { name: name("abc"), topic_id: id }),
                "010100046162630707070707070707070707070707070700",
            ),
            (
                MetadataRecord::Partition(PartitionRecord {
                    topic_id: id,
                    partition_id: 2,
                    shard: 1,
                    replicas: vec![1],
                    isr: vec![1],
                    leader: 1,
                    leader_epoch: 0,
                    partition_epoch: 3,
                }),
                "010200070707070707070707070707070707070000000200000001020000000102000000010000000100000000000000\
                 0300",
            ),
            (
                MetadataRecord::PartitionChange(PartitionChangeRecord {
                    topic_id: id,
                    partition_id: 2,
                    shard: 5,
                    ..PartitionChangeRecord::default()
                }),
                "0103000707070707070707070707070707070700000002010004\
                 00000005",
            ),
            (
                MetadataRecord::Config(ConfigRecord {
                    resource_type: 2,
                    resource_name: name("abc"),
                    name: name("flush.ms"),
                    value: Some(name("5")),
                }),
                "010400020461626309666c7573682e6d73023500",
            ),
            (
                MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: id }),
                "0105000707070707070707070707070707070700",
            ),
            (
                MetadataRecord::ProducerIds(ProducerIdsRecord {
                    broker_id: 1,
                    broker_epoch: -1,
                    next_producer_id: 1000,
                }),
                "01060000000001ffffffffffffffff00000000000003e800",
            ),
            (
                MetadataRecord::FeatureLevel(FeatureLevelRecord { name: name("f"), level: 2 }),
                "0107000266000200",
            ),
        ]
    }

    /// These bytes are on disks: a change here needs a new version of the record.
    #[test]
    fn golden_bytes() {
        for (record, bytes) in examples() {
            let encoded = record.encode().unwrap();
            assert_eq!(hex(&encoded), bytes, "{record:?}");
            assert_eq!(MetadataRecord::decode(encoded), Ok(record));
        }
    }

    #[test]
    fn damage_and_the_future_are_refused() {
        for (record, _) in examples() {
            let bytes = record.encode().unwrap();
            for len in 0..bytes.len() {
                assert!(MetadataRecord::decode(bytes.slice(..len)).is_err());
            }
        }
        let newer = [
            Bytes::from_static(&[2, 1, 0]),
            Bytes::from_static(&[1, 99, 0]),
            Bytes::from_static(&[1, 1, 9]),
            Bytes::from_static(&[1, 1, 0xff, 0xff, 3]),
        ];
        for bytes in newer {
            assert!(matches!(MetadataRecord::decode(bytes), Err(RecordError::Unknown { .. })));
        }
    }
}
