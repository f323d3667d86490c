//! Around OffsetFetch (9): one group at a time, whatever the version, with topic names for ids.

use penstock_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use penstock_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use penstock_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use penstock_protocol::{ErrorCode, WireString};

use crate::metadata::MetadataImage;

/// From this version on errors of a whole group have a field.
const GROUP_ERROR_FROM: i16 = 2;
/// From this version on a request names several groups.
const GROUPS_FROM: i16 = 8;
/// From this version on topics are named by id.
const TOPIC_IDS_FROM: i16 = 10;

/// One group of a request, to be asked of its coordinator, and what is wrong with it already.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupAsked {
    /// What to ask.
    pub group: OffsetFetchRequestGroup,
    /// Topics whose ids are unknown.
    pub errors: Vec<OffsetFetchResponseTopics>,
}

/// The groups of a request.
pub fn groups_of(request: OffsetFetchRequest, version: i16, image: &MetadataImage) -> Vec<GroupAsked> {
    if version < GROUPS_FROM {
        let topics = request.topics.map(|topics| {
            let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
                name: topic.name,
                partition_indexes: topic.partition_indexes,
                ..OffsetFetchRequestTopics::default()
            });
            topics.collect()
        });
        let group_id = request.group_id;
        let group = OffsetFetchRequestGroup { group_id, topics, ..OffsetFetchRequestGroup::default() };
        return vec![GroupAsked { group, errors: Vec::new() }];
    }
    let resolved = |mut group: OffsetFetchRequestGroup| {
        let mut errors = Vec::new();
        if let Some(topics) = group.topics.as_mut().filter(|_| version >= TOPIC_IDS_FROM) {
            topics.retain_mut(|topic| match image.topic_by_id(topic.topic_id) {
                Some(known) => {
                    topic.name = known.name.clone();
                    true
                }
                None => {
                    errors.push(failed(topic, ErrorCode::UnknownTopicId));
                    false
                }
            });
        }
        GroupAsked { group, errors }
    };
    request.groups.into_iter().map(resolved).collect()
}

/// The coordinator's answer about one group, with `errors` from [`GroupAsked`], and ids where all topics were asked for.
pub fn complete(
    mut answered: OffsetFetchResponseGroup,
    errors: Vec<OffsetFetchResponseTopics>,
    version: i16,
    image: &MetadataImage,
) -> OffsetFetchResponseGroup {
    if answered.error_code != 0 {
        if version >= GROUP_ERROR_FROM {
            answered.topics.clear();
        }
        return answered;
    }
    if version >= TOPIC_IDS_FROM {
        answered.topics.retain_mut(|topic| {
            if topic.topic_id.is_zero() {
                topic.topic_id = image.topic(&topic.name).map(|known| known.id).unwrap_or_default();
            }
            !topic.topic_id.is_zero()
        });
    }
    answered.topics.extend(errors);
    answered
}

/// The answer to the whole request.
pub fn answer(groups: Vec<OffsetFetchResponseGroup>, version: i16) -> OffsetFetchResponse {
    if version >= GROUPS_FROM {
        return OffsetFetchResponse { groups, ..OffsetFetchResponse::default() };
    }
    let Some(group) = groups.into_iter().next() else { return OffsetFetchResponse::default() };
    let partition = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    };
    let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: group.error_code,
        ..OffsetFetchResponse::default()
    }
}

/// The answer that refuses a group: in version 1 partition by partition.
pub(in super::super) fn refused(
    group: &OffsetFetchRequestGroup,
    version: i16,
    code: ErrorCode,
) -> OffsetFetchResponseGroup {
    let code = known_to_old_consumers(code);
    let topics = group.topics.iter().flatten().filter(|_| version < GROUP_ERROR_FROM);
    let topics = topics.map(|topic| failed(topic, code)).collect();
    OffsetFetchResponseGroup { group_id: group.group_id.clone(), topics, error_code: code.code() }
}

/// An answer that became a refusal.
pub(in super::super) fn answer_refused(
    mut group: OffsetFetchResponseGroup,
    code: ErrorCode,
) -> OffsetFetchResponseGroup {
    let code = known_to_old_consumers(code).code();
    group.error_code = code;
    for partition in group.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        *partition = failed_partition(partition.partition_index, code);
    }
    group
}

/// Consumers before 3.9 do not repeat a fetch after COORDINATOR_NOT_AVAILABLE.
fn known_to_old_consumers(code: ErrorCode) -> ErrorCode {
    if code == ErrorCode::CoordinatorNotAvailable { ErrorCode::NotCoordinator } else { code }
}

fn failed(topic: &OffsetFetchRequestTopics, code: ErrorCode) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter();
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.map(|partition| failed_partition(*partition, code.code())).collect(),
    }
}

fn failed_partition(partition_index: i32, error_code: i16) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(WireString::default()),
        error_code,
    }
}
