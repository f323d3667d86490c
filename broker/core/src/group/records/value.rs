//! Values: a committed offset, and the metadata of a classic group.

use bytes::Bytes;
use penstock_protocol::{Uuid, WireString};

use super::RecordError;
use super::wire::{Reader, Writer};

/// A committed offset (OffsetCommitValue, versions 0-4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    /// The next record to read.
    pub offset: i64,
    /// Leader epoch of the record before it; -1 is unknown.
    pub leader_epoch: i32,
    /// What the client adds, often nothing.
    pub metadata: WireString,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub commit_ms: i64,
    /// When it expires, where the commit said so (OffsetCommit 2-4); -1 follows `offsets.retention.minutes`.
    pub expire_ms: i64,
    /// The topic's id (version 4); zero where it is not known.
    pub topic_id: Uuid,
}

impl OffsetValue {
    const EXPIRING: i16 = 1;
    const WRITTEN: i16 = 4;

    pub(super) fn encode(&self) -> Bytes {
        let version = if self.expire_ms == -1 { OffsetValue::WRITTEN } else { OffsetValue::EXPIRING };
        self.encode_as(version)
    }

    pub(super) fn encode_as(&self, version: i16) -> Bytes {
        let mut writer = Writer::new(version, version >= 4);
        writer.i64(self.offset);
        if version >= 3 {
            writer.i32(self.leader_epoch);
        }
        writer.string(&self.metadata);
        writer.i64(self.commit_ms);
        if version == OffsetValue::EXPIRING {
            writer.i64(self.expire_ms);
        }
        writer.tags(Some(self.topic_id));
        writer.finish()
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<OffsetValue, RecordError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=4).contains(&version) {
            return Err(RecordError::Version(version));
        }
        reader.set_flexible(version >= 4);
        Ok(OffsetValue {
            offset: reader.i64()?,
            leader_epoch: if version >= 3 { reader.i32()? } else { -1 },
            metadata: reader.string()?,
            commit_ms: reader.i64()?,
            expire_ms: if version == OffsetValue::EXPIRING { reader.i64()? } else { -1 },
            topic_id: reader.tags()?,
        })
    }
}

/// A classic group at one generation (GroupMetadataValue, versions 0-4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupValue {
    /// What kind of clients: `consumer`, `connect`; empty before the first member.
    pub protocol_type: WireString,
    /// The generation.
    pub generation: i32,
    /// The protocol that all members have in common, an assignor for consumers.
    pub protocol: Option<WireString>,
    /// The member that assigns.
    pub leader: Option<WireString>,
    /// Since when the group is in its state, in milliseconds since the Unix epoch; -1 is unknown (versions 0 and 1).
    pub since_ms: i64,
    /// Its members; none make the group empty.
    pub members: Vec<MemberValue>,
}

/// A member of a [`GroupValue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    /// Its id.
    pub member_id: WireString,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<WireString>,
    /// Client id.
    pub client_id: WireString,
    /// Address, with a slash before it as Java prints it.
    pub client_host: WireString,
    /// Time to join a rebalance; -1 is unknown (version 0).
    pub rebalance_timeout_ms: i32,
    /// Time without heartbeat after which the member is gone.
    pub session_timeout_ms: i32,
    /// What the member said with the group's protocol.
    pub subscription: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}

impl GroupValue {
    const WRITTEN: i16 = 3;

    pub(super) fn encode(&self) -> Bytes {
        self.encode_as(GroupValue::WRITTEN)
    }

    pub(super) fn encode_as(&self, version: i16) -> Bytes {
        let mut writer = Writer::new(version, version >= 4);
        writer.string(&self.protocol_type);
        writer.i32(self.generation);
        writer.nullable_string(self.protocol.as_ref());
        writer.nullable_string(self.leader.as_ref());
        if version >= 2 {
            writer.i64(self.since_ms);
        }
        writer.count(self.members.len());
        for member in &self.members {
            writer.string(&member.member_id);
            if version >= 3 {
                writer.nullable_string(member.instance_id.as_ref());
            }
            writer.string(&member.client_id);
            writer.string(&member.client_host);
            if version >= 1 {
                writer.i32(member.rebalance_timeout_ms);
            }
            writer.i32(member.session_timeout_ms);
            writer.bytes(&member.subscription);
            writer.bytes(&member.assignment);
            writer.tags(None);
        }
        writer.tags(None);
        writer.finish()
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<GroupValue, RecordError> {
        const MEMBER_LEN_MIN: usize = 9;
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=4).contains(&version) {
            return Err(RecordError::Version(version));
        }
        reader.set_flexible(version >= 4);
        let protocol_type = reader.string()?;
        let generation = reader.i32()?;
        let protocol = reader.nullable_string()?;
        let leader = reader.nullable_string()?;
        let since_ms = if version >= 2 { reader.i64()? } else { -1 };
        let mut members = Vec::with_capacity(reader.count(MEMBER_LEN_MIN)?);
        for _ in 0..members.capacity() {
            members.push(MemberValue {
                member_id: reader.string()?,
                instance_id: if version >= 3 { reader.nullable_string()? } else { None },
                client_id: reader.string()?,
                client_host: reader.string()?,
                rebalance_timeout_ms: if version >= 1 { reader.i32()? } else { -1 },
                session_timeout_ms: reader.i32()?,
                subscription: reader.bytes()?,
                assignment: reader.bytes()?,
            });
            reader.tags()?;
        }
        reader.tags()?;
        Ok(GroupValue { protocol_type, generation, protocol, leader, since_ms, members })
    }
}
