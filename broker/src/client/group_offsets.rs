//! Committed offsets of a group: reading and writing them.

use std::collections::BTreeMap;

use penstock_protocol::WireString;
use penstock_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use penstock_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use penstock_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest};

use super::{ClientError, Cluster, check, retry};

/// The last version of OffsetFetch and OffsetCommit that names topics by name; later ones have ids (KIP-848).
const NAMES_VERSION_MAX: i16 = 9;
/// From this version on OffsetFetch asks for several groups (KIP-709).
const GROUPS_VERSION: i16 = 8;

/// Offsets by topic and partition.
pub(crate) type Offsets = BTreeMap<(String, i32), i64>;

/// In whose name offsets are committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committer {
    pub(crate) member_id: String,
    pub(crate) generation: i32,
}

impl Committer {
    /// Nobody: for groups without members.
    pub(crate) fn outsider() -> Committer {
        Committer { member_id: String::new(), generation: -1 }
    }
}

/// Fails at once where groups are not served at all, rather than after waiting for a coordinator.
pub(crate) fn check_served(cluster: &mut Cluster) -> Result<(), ClientError> {
    let home = cluster.home()?;
    cluster.version::<OffsetFetchRequest>(&home).map(drop)
}

/// All offsets that the group has committed.
pub(crate) fn committed(cluster: &mut Cluster, group: &str) -> Result<Offsets, ClientError> {
    retry(|| fetch(cluster, group))
}

fn fetch(cluster: &mut Cluster, group: &str) -> Result<Offsets, ClientError> {
    let address = cluster.coordinator(group)?;
    let version = cluster.version::<OffsetFetchRequest>(&address)?.min(NAMES_VERSION_MAX);
    let mut request = OffsetFetchRequest::default();
    if version >= GROUPS_VERSION {
        request.groups = vec![OffsetFetchRequestGroup {
            group_id: WireString::from(group),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        }];
    } else {
        request.group_id = WireString::from(group);
        request.topics = None;
    }
    let response = cluster.call_version(&address, version, &request)?;
    let what = || format!("offsets of group {group}");
    check(response.error_code, None, what)?;
    let mut offsets = Offsets::new();
    for topic in &response.topics {
        for partition in &topic.partitions {
            check(partition.error_code, None, what)?;
            offsets.insert((topic.name.to_string(), partition.partition_index), partition.committed_offset);
        }
    }
    for answer in &response.groups {
        check(answer.error_code, None, what)?;
        for topic in &answer.topics {
            for partition in &topic.partitions {
                check(partition.error_code, None, what)?;
                offsets
                    .insert((topic.name.to_string(), partition.partition_index), partition.committed_offset);
            }
        }
    }
    // -1: nothing was committed.
    offsets.retain(|_, offset| *offset >= 0);
    Ok(offsets)
}

/// Commits offsets of a group.
pub(crate) fn commit(
    cluster: &mut Cluster,
    group: &str,
    by: &Committer,
    offsets: &Offsets,
) -> Result<(), ClientError> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition_index), committed_offset) in offsets {
        topics.entry(topic).or_default().push(OffsetCommitRequestPartition {
            partition_index: *partition_index,
            committed_offset: *committed_offset,
            committed_metadata: Some(WireString::default()),
            ..OffsetCommitRequestPartition::default()
        });
    }
    let topic = |(name, partitions)| OffsetCommitRequestTopic {
        name: WireString::from(name),
        partitions,
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: WireString::from(group),
        generation_id_or_member_epoch: by.generation,
        member_id: WireString::from(by.member_id.as_str()),
        topics: topics.into_iter().map(topic).collect(),
        ..OffsetCommitRequest::default()
    };
    retry(|| {
        let address = cluster.coordinator(group)?;
        let version = cluster.version::<OffsetCommitRequest>(&address)?.min(NAMES_VERSION_MAX);
        let response = cluster.call_version(&address, version, &request)?;
        for topic in &response.topics {
            for partition in &topic.partitions {
                check(partition.error_code, None, || {
                    let (topic, partition) = (&topic.name, partition.partition_index);
                    format!("setting the offset of group {group} on partition {partition} of topic {topic}")
                })?;
            }
        }
        Ok(())
    })
}
