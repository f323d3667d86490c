//! The commands of transcripts: a name, plain words, and `name=value` words.

use bytes::Bytes;
use penstock_core::group::GroupRequest;
use penstock_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use penstock_protocol::messages::leave_group_request::MemberIdentity;
use penstock_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use penstock_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use penstock_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use penstock_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use penstock_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, SyncGroupRequest,
};
use penstock_protocol::{Uuid, WireString};

pub(crate) struct Words {
    pub(crate) command: String,
    words: Vec<String>,
}

/// A subscription of the consumer protocol to these topics, joined by `+`.
fn subscription(topics: &str) -> Bytes {
    let topics: Vec<&str> = topics.split('+').filter(|topic| !topic.is_empty()).collect();
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as u32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as u16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    Bytes::from(bytes)
}

impl Words {
    pub(crate) fn of(line: &str) -> Words {
        let mut words = line.split_whitespace().map(str::to_owned);
        Words { command: words.next().unwrap(), words: words.collect() }
    }

    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        self.words.iter().filter_map(|word| word.split_once('='))
    }

    fn plain_words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().filter(|word| !word.contains('=')).map(String::as_str)
    }

    pub(crate) fn plain(&self, at: usize) -> &str {
        self.plain_words().nth(at).unwrap()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.named().find(|(named, _)| *named == name).map(|(_, value)| value)
    }

    pub(crate) fn number(&self, name: &str, default: i64) -> i64 {
        self.value(name).map_or(default, |value| value.parse().unwrap())
    }

    fn text(&self, name: &str, default: &str) -> WireString {
        WireString::from(self.value(name).unwrap_or(default))
    }

    fn optional(&self, name: &str) -> Option<WireString> {
        self.value(name).map(WireString::from)
    }

    fn list(&self, name: &str) -> Vec<&str> {
        self.value(name).unwrap_or_default().split(',').filter(|part| !part.is_empty()).collect()
    }

    fn generation(&self) -> i32 {
        self.number("generation", -1) as i32
    }

    /// The newest version of the API asked.
    pub(crate) fn newest(&self) -> i64 {
        match self.command.as_str() {
            "join" => 9,
            "sync" | "leave" | "list" => 5,
            "heartbeat" => 4,
            "describe" => 6,
            "delete" => 3,
            "commit" | "fetch" => 9,
            _ => 0,
        }
    }

    pub(crate) fn request(&self) -> GroupRequest {
        let group_id = self.text("group", "g");
        let (member_id, group_instance_id) = (self.text("member", ""), self.optional("instance"));
        let generation_id = self.generation();
        match self.command.as_str() {
            "join" => GroupRequest::Join(self.join()),
            "sync" => GroupRequest::Sync(self.sync()),
            "heartbeat" => GroupRequest::Heartbeat(HeartbeatRequest {
                group_id,
                generation_id,
                member_id,
                group_instance_id,
            }),
            "leave" => GroupRequest::Leave(self.leave()),
            "describe" => GroupRequest::Describe(group_id),
            "list" => {
                let texts = |name: &str| self.list(name).into_iter().map(WireString::from).collect();
                GroupRequest::List(ListGroupsRequest {
                    states_filter: texts("states"),
                    types_filter: texts("types"),
                })
            }
            "delete" => GroupRequest::Delete(group_id),
            "commit" => GroupRequest::CommitOffsets(self.commit()),
            "fetch" => GroupRequest::FetchOffsets { group: self.fetch(), require_stable: false },
            "delete-offsets" => GroupRequest::DeleteOffsets(self.delete_offsets()),
            "topic-deleted" => GroupRequest::TopicsDeleted(vec![(self.plain(0).into(), Uuid::ZERO)]),
            other => panic!("no command {other}"),
        }
    }

    fn join(&self) -> JoinGroupRequest {
        let protocols = self.value("protocols").unwrap_or("range:t");
        let protocol = |text: &str| {
            let (name, topics) = text.split_once(':').unwrap();
            JoinGroupRequestProtocol { name: name.into(), metadata: subscription(topics) }
        };
        JoinGroupRequest {
            group_id: self.text("group", "g"),
            session_timeout_ms: self.number("session", 10_000) as i32,
            rebalance_timeout_ms: self.number("rebalance", 60_000) as i32,
            member_id: self.text("member", ""),
            group_instance_id: self.optional("instance"),
            protocol_type: self.text("type", "consumer"),
            protocols: protocols.split(',').filter(|text| !text.is_empty()).map(protocol).collect(),
            reason: self.optional("reason"),
        }
    }

    fn sync(&self) -> SyncGroupRequest {
        let assigned = |text: &str| {
            let (member_id, assignment) = text.split_once(':').unwrap();
            let assignment = Bytes::copy_from_slice(assignment.as_bytes());
            SyncGroupRequestAssignment { member_id: member_id.into(), assignment }
        };
        SyncGroupRequest {
            group_id: self.text("group", "g"),
            generation_id: self.generation(),
            member_id: self.text("member", ""),
            group_instance_id: self.optional("instance"),
            protocol_type: Some(self.text("type", "consumer")),
            protocol_name: Some(self.text("protocol", "range")),
            assignments: self.list("assign").into_iter().map(assigned).collect(),
        }
    }

    fn leave(&self) -> LeaveGroupRequest {
        let member_id = self.text("member", "");
        let member = |text: &str| {
            let (member_id, instance) = text.split_once('/').unwrap_or((text, ""));
            let group_instance_id = Some(instance).filter(|text| !text.is_empty()).map(WireString::from);
            MemberIdentity { member_id: member_id.into(), group_instance_id, reason: self.optional("reason") }
        };
        let members = self.list("members").into_iter().map(member).collect();
        LeaveGroupRequest { group_id: self.text("group", "g"), member_id, members }
    }

    /// `t-0=5` commits offset 5, `t-0=5/note` with metadata.
    fn commit(&self) -> OffsetCommitRequest {
        let offsets = self.named().filter(|(name, _)| name.contains('-') && !name.starts_with("member"));
        let topic = |(name, value): (&str, &str)| {
            let (topic, partition) = name.rsplit_once('-').unwrap();
            let (offset, metadata) = value.split_once('/').unwrap_or((value, ""));
            let partition = OffsetCommitRequestPartition {
                partition_index: partition.parse().unwrap(),
                committed_offset: offset.parse().unwrap(),
                committed_metadata: Some(metadata.into()),
                ..Default::default()
            };
            OffsetCommitRequestTopic { name: topic.into(), partitions: vec![partition], ..Default::default() }
        };
        OffsetCommitRequest {
            group_id: self.text("group", "g"),
            generation_id_or_member_epoch: self.generation(),
            member_id: self.text("member", ""),
            group_instance_id: self.optional("instance"),
            retention_time_ms: self.number("retention", -1),
            topics: offsets.map(topic).collect(),
        }
    }

    fn partitions(&self) -> impl Iterator<Item = (WireString, i32)> {
        self.plain_words().map(|word| {
            let (topic, partition) = word.rsplit_once('-').unwrap();
            (WireString::from(topic), partition.parse().unwrap())
        })
    }

    fn fetch(&self) -> OffsetFetchRequestGroup {
        let topics: Vec<_> = self
            .partitions()
            .map(|(name, partition)| OffsetFetchRequestTopics {
                name,
                partition_indexes: vec![partition],
                ..Default::default()
            })
            .collect();
        let topics = Some(topics).filter(|topics| !topics.is_empty());
        OffsetFetchRequestGroup { group_id: self.text("group", "g"), topics, ..Default::default() }
    }

    fn delete_offsets(&self) -> OffsetDeleteRequest {
        let topic = |(name, partition_index)| OffsetDeleteRequestTopic {
            name,
            partitions: vec![OffsetDeleteRequestPartition { partition_index }],
        };
        OffsetDeleteRequest {
            group_id: self.text("group", "g"),
            topics: self.partitions().map(topic).collect(),
        }
    }
}
