//! Records of `__consumer_offsets`, byte for byte as Apache Kafka writes them: a key says what the value is about.
//!
//! A key begins with a version that is really its kind: 0 and 1 name a committed offset, 2 names a group's metadata.
//! Other kinds belong to newer group types and are passed over while loading, as in Kafka. A record without a value is a
//! tombstone.

mod key;
mod value;
mod wire;

#[cfg(test)]
mod tests;

pub(super) use wire::NAME_LEN_MAX;

pub use value::{GroupValue, MemberValue, OffsetValue};

use bytes::Bytes;
use penstock_protocol::WireString;

/// Names the partition whose offset a group committed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetKey {
    /// The group.
    pub group: WireString,
    /// The topic's name.
    pub topic: WireString,
    /// The partition.
    pub partition: i32,
}

/// A record of `__consumer_offsets`; without a value it removes what the key names.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRecord {
    /// A committed offset.
    Offset(OffsetKey, Option<OffsetValue>),
    /// A classic group's members and their assignments, by group id.
    Group(WireString, Option<GroupValue>),
}

/// A record that cannot be read: the log is damaged, or a newer broker wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Every record of this topic has a key.
    #[error("a record without a key")]
    NoKey,
    /// The value's version is none that this release reads.
    #[error("value version {0} is unknown")]
    Version(i16),
    /// The bytes end early, hold no text where text is due, or a negative length.
    #[error("malformed at byte {0}")]
    Malformed(usize),
}

/// A record's key and value as they stand in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl GroupRecord {
    /// The bytes: key version 1 or 2, offsets in version 4 (1 where they carry an expiry of their own), groups in
    /// version 3, as Apache Kafka 4.3 writes them.
    ///
    /// # Panics
    /// If a name is longer than 32,767 bytes; the machine lets none in.
    pub fn encode(&self) -> KeyValue {
        match self {
            GroupRecord::Offset(key, value) => {
                KeyValue { key: key::encode_offset(key), value: value.as_ref().map(OffsetValue::encode) }
            }
            GroupRecord::Group(group, value) => {
                KeyValue { key: key::encode_group(group), value: value.as_ref().map(GroupValue::encode) }
            }
        }
    }

    /// Reads a record; `None` is of a kind that is not ours. Strings and bytes share the input's buffers.
    ///
    /// # Errors
    /// What makes the record unreadable.
    pub fn decode(key: Option<&Bytes>, value: Option<&Bytes>) -> Result<Option<GroupRecord>, RecordError> {
        let key = key.ok_or(RecordError::NoKey)?;
        Ok(match key::decode(key)? {
            Some(key::Key::Offset(key)) => {
                Some(GroupRecord::Offset(key, value.map(OffsetValue::decode).transpose()?))
            }
            Some(key::Key::Group(group)) => {
                Some(GroupRecord::Group(group, value.map(GroupValue::decode).transpose()?))
            }
            None => None,
        })
    }

    /// About as many bytes as the record takes in a batch.
    pub(super) fn len_estimate(&self) -> usize {
        const FIXED: usize = 64;
        match self {
            GroupRecord::Offset(key, value) => {
                let metadata = value.as_ref().map_or(0, |value| value.metadata.len());
                FIXED + key.group.len() + key.topic.len() + metadata
            }
            GroupRecord::Group(group, value) => {
                let members = value.iter().flat_map(|value| &value.members);
                let bytes = members.map(|member| FIXED + member.subscription.len() + member.assignment.len());
                FIXED + group.len() + bytes.sum::<usize>()
            }
        }
    }
}
