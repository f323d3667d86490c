//! Committed offsets: what is kept, and the APIs over it.

mod commit;
mod delete;
mod expire;
mod fetch;

use std::collections::BTreeMap;

use penstock_protocol::WireString;

use super::super::classic::ClassicGroup;
use super::super::records::{GroupRecord, OffsetKey, OffsetValue};
use super::super::request::GroupResponse;
use super::{GroupMachine, Outbox, Undo};
use crate::coordinator::RequestId;

/// Bytes of tombstones in one append, about: far below the smallest sensible `max.message.bytes`.
const PART_BYTES: usize = 256 * 1024;

/// Offsets of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupOffsets {
    topics: BTreeMap<WireString, BTreeMap<i32, OffsetValue>>,
    len: usize,
}

impl GroupOffsets {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = (&WireString, &BTreeMap<i32, OffsetValue>)> {
        self.topics.iter()
    }

    pub(super) fn get(&self, topic: &WireString, partition: i32) -> Option<&OffsetValue> {
        self.topics.get(topic)?.get(&partition)
    }
}

/// Offsets of all groups of a partition. Only replay and its reversal change them.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets {
    groups: BTreeMap<WireString, GroupOffsets>,
}

impl Offsets {
    pub(super) fn groups(&self) -> impl Iterator<Item = &WireString> {
        self.groups.keys()
    }

    pub(super) fn of_group(&self, group: &WireString) -> Option<&GroupOffsets> {
        self.groups.get(group)
    }

    pub(super) fn len(&self) -> usize {
        self.groups.values().map(GroupOffsets::len).sum()
    }

    pub(super) fn get(&self, key: &OffsetKey) -> Option<&OffsetValue> {
        self.groups.get(&key.group)?.get(&key.topic, key.partition)
    }

    /// Sets or removes an offset and gives back what it was.
    pub(super) fn set(&mut self, key: &OffsetKey, value: Option<OffsetValue>) -> Option<OffsetValue> {
        match value {
            Some(value) => self.put(key, value),
            None => self.remove(key),
        }
    }

    fn put(&mut self, key: &OffsetKey, value: OffsetValue) -> Option<OffsetValue> {
        if !self.groups.contains_key(&key.group) {
            self.groups.insert(key.group.detached(), GroupOffsets::default());
        }
        let group = self.groups.get_mut(&key.group)?;
        if !group.topics.contains_key(&key.topic) {
            group.topics.insert(key.topic.detached(), BTreeMap::new());
        }
        let old = group.topics.get_mut(&key.topic)?.insert(key.partition, value);
        group.len += usize::from(old.is_none());
        old
    }

    fn remove(&mut self, key: &OffsetKey) -> Option<OffsetValue> {
        let group = self.groups.get_mut(&key.group)?;
        let topic = group.topics.get_mut(&key.topic)?;
        let old = topic.remove(&key.partition)?;
        if topic.is_empty() {
            group.topics.remove(&key.topic);
        }
        group.len -= 1;
        if group.len == 0 {
            self.groups.remove(&key.group);
        }
        Some(old)
    }

    /// Records that remove all offsets of a group.
    pub(super) fn tombstones(&self, group: &WireString) -> Vec<GroupRecord> {
        let topics = self.groups.get(group).into_iter().flat_map(GroupOffsets::topics);
        let keys = topics.flat_map(|(topic, partitions)| {
            partitions.keys().map(|partition| tombstone(group, topic, *partition))
        });
        keys.collect()
    }
}

pub(super) fn tombstone(group: &WireString, topic: &WireString, partition: i32) -> GroupRecord {
    GroupRecord::Offset(OffsetKey { group: group.clone(), topic: topic.clone(), partition }, None)
}

/// Appends tombstones in batches that fit; the answer waits for the last. A crash between two of them leaves some undone,
/// which a repetition finishes.
pub(super) fn write_in_parts(
    records: Vec<GroupRecord>,
    answer: Option<(RequestId, GroupResponse)>,
    out: &mut Outbox,
) {
    let mut part = Vec::new();
    let mut part_len = 0;
    for record in records {
        let len = record.len_estimate();
        if part_len + len > PART_BYTES && !part.is_empty() {
            out.write(std::mem::take(&mut part), None, None);
            part_len = 0;
        }
        part_len += len;
        part.push(record);
    }
    match answer {
        Some((to, response)) if part.is_empty() => out.answer_when_durable(to, response),
        answer if !part.is_empty() => out.write(part, answer, None),
        _ => {}
    }
}

impl GroupMachine {
    pub(super) fn replay_offset(
        &mut self,
        key: &OffsetKey,
        value: Option<&OffsetValue>,
        now_ms: i64,
    ) -> Undo {
        let made_group = value.is_some() && !self.groups.contains_key(&key.group);
        if made_group {
            // A consumer without a group commits under a group id: a simple group, which has offsets and nothing else.
            let group = ClassicGroup::new(key.group.detached(), now_ms);
            self.groups.insert(group.id.clone(), group);
        }
        let own = |value: &OffsetValue| OffsetValue { metadata: value.metadata.detached(), ..value.clone() };
        let previous = self.offsets.set(key, value.map(own));
        Undo::Offset { key: key.clone(), previous, made_group }
    }
}
