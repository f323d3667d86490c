//! Around OffsetCommit (8): topics by id (from version 10) or name, and which of them exist.

use penstock_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use penstock_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use penstock_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use crate::metadata::MetadataImage;

/// From this version on topics are named by id.
const TOPIC_IDS_FROM: i16 = 10;

/// Leaves in the request what exists, with names and ids, and says what is wrong with the rest. Where nothing is left, the
/// coordinator need not be asked.
pub fn resolve(
    request: &mut OffsetCommitRequest,
    version: i16,
    image: &MetadataImage,
) -> OffsetCommitResponse {
    let mut errors = OffsetCommitResponse::default();
    for mut topic in std::mem::take(&mut request.topics) {
        let by_id = version >= TOPIC_IDS_FROM;
        let known = if by_id { image.topic_by_id(topic.topic_id) } else { image.topic(&topic.name) };
        let Some(known) = known else {
            let code = if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
            errors.topics.push(failed(&topic, &topic.partitions, code));
            continue;
        };
        (topic.name, topic.topic_id) = (known.name.clone(), known.id);
        let exists =
            |partition: &OffsetCommitRequestPartition| known.partition(partition.partition_index).is_some();
        let (good, bad): (Vec<_>, Vec<_>) =
            std::mem::take(&mut topic.partitions).into_iter().partition(exists);
        if !bad.is_empty() {
            errors.topics.push(failed(&topic, &bad, ErrorCode::UnknownTopicOrPartition));
        }
        if !good.is_empty() {
            request.topics.push(OffsetCommitRequestTopic { partitions: good, ..topic });
        }
    }
    errors
}

/// Puts the coordinator's answer and what was wrong before together.
pub fn merge(mut errors: OffsetCommitResponse, answered: OffsetCommitResponse) -> OffsetCommitResponse {
    for topic in answered.topics {
        let same = |other: &OffsetCommitResponseTopic| {
            other.name == topic.name && (other.topic_id == topic.topic_id || topic.topic_id == Uuid::ZERO)
        };
        match errors.topics.iter_mut().find(|other| same(other)) {
            Some(other) => other.partitions.extend(topic.partitions),
            None => errors.topics.push(topic),
        }
    }
    errors
}

/// The answer that refuses every partition.
pub fn refused(request: &OffsetCommitRequest, code: ErrorCode) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| failed(topic, &topic.partitions, code)).collect();
    OffsetCommitResponse { topics, ..OffsetCommitResponse::default() }
}

fn failed(
    topic: &OffsetCommitRequestTopic,
    partitions: &[OffsetCommitRequestPartition],
    code: ErrorCode,
) -> OffsetCommitResponseTopic {
    let partition = |partition: &OffsetCommitRequestPartition| OffsetCommitResponsePartition {
        partition_index: partition.partition_index,
        error_code: code.code(),
    };
    let name: WireString = topic.name.clone();
    let partitions = partitions.iter().map(partition).collect();
    OffsetCommitResponseTopic { name, topic_id: topic.topic_id, partitions }
}
