//! Around OffsetDelete (47): which topics exist.

use penstock_protocol::ErrorCode;
use penstock_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use penstock_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use penstock_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::metadata::MetadataImage;

/// Leaves in the request what exists and says of the rest that it does not. The coordinator is asked in any case: it checks
/// the group.
pub fn resolve(request: &mut OffsetDeleteRequest, image: &MetadataImage) -> OffsetDeleteResponse {
    let mut errors = OffsetDeleteResponse::default();
    for topic in std::mem::take(&mut request.topics) {
        let exists = |partition: &OffsetDeleteRequestPartition| {
            image.partition(&topic.name, partition.partition_index).is_some()
        };
        let (good, bad): (Vec<_>, Vec<_>) = topic.partitions.into_iter().partition(exists);
        let unknown = |partition: OffsetDeleteRequestPartition| OffsetDeleteResponsePartition {
            partition_index: partition.partition_index,
            error_code: ErrorCode::UnknownTopicOrPartition.code(),
        };
        if !bad.is_empty() {
            let partitions = bad.into_iter().map(unknown).collect();
            errors.topics.push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions });
        }
        if !good.is_empty() {
            request.topics.push(OffsetDeleteRequestTopic { name: topic.name, partitions: good });
        }
    }
    errors
}

/// Puts the coordinator's answer and what was wrong before together. An error of the whole request stands alone.
pub fn merge(mut errors: OffsetDeleteResponse, answered: OffsetDeleteResponse) -> OffsetDeleteResponse {
    if answered.error_code != 0 {
        return answered;
    }
    for topic in answered.topics {
        match errors.topics.iter_mut().find(|other| other.name == topic.name) {
            Some(other) => other.partitions.extend(topic.partitions),
            None => errors.topics.push(topic),
        }
    }
    errors
}
