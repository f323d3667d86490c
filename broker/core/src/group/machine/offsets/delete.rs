//! OffsetDelete (47), version 0: KIP-496; and what a topic's deletion does to its offsets.

use penstock_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use penstock_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use super::super::super::classic::State;
use super::super::super::request::GroupResponse;
use super::super::{GroupMachine, Outbox};
use super::{tombstone, write_in_parts};
use crate::coordinator::RequestId;

impl GroupMachine {
    pub(in super::super) fn delete_offsets(
        &self,
        request: &OffsetDeleteRequest,
        to: RequestId,
        out: &mut Outbox,
    ) {
        let group = self.groups.get(&request.group_id);
        let code = match group {
            _ if request.group_id.is_empty() => ErrorCode::InvalidGroupId,
            None => ErrorCode::GroupIdNotFound,
            // Only of consumers is it known what they read.
            Some(group) if group.state != State::Empty && !group.is_consumer() => ErrorCode::NonEmptyGroup,
            Some(_) => ErrorCode::None,
        };
        let mut response = OffsetDeleteResponse { error_code: code.code(), ..Default::default() };
        let Some(group) = group.filter(|_| code == ErrorCode::None) else {
            return out.answer_when_durable(to, GroupResponse::DeleteOffsets(response));
        };
        let offsets = self.offsets.of_group(&request.group_id);
        let mut records = Vec::new();
        for topic in &request.topics {
            let subscribed = group.is_subscribed(&topic.name);
            let code = if subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            let partitions = topic.partitions.iter().map(|partition| partition.partition_index);
            for partition in partitions.clone().filter(|_| !subscribed) {
                if offsets.and_then(|offsets| offsets.get(&topic.name, partition)).is_some() {
                    records.push(tombstone(&request.group_id, &topic.name, partition));
                }
            }
            let told =
                |partition_index| OffsetDeleteResponsePartition { partition_index, error_code: code.code() };
            let partitions = partitions.map(told).collect();
            response.topics.push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions });
        }
        write_in_parts(records, Some((to, GroupResponse::DeleteOffsets(response))), out);
    }

    /// Removes the offsets of deleted topics. Offsets that carry another id are those of a later topic of that name.
    pub(in super::super) fn topics_deleted(
        &self,
        topics: &[(WireString, Uuid)],
        to: RequestId,
        out: &mut Outbox,
    ) {
        let mut records = Vec::new();
        for group in self.offsets.groups() {
            let Some(offsets) = self.offsets.of_group(group) else { continue };
            for (name, id) in topics {
                let Some(partitions) = offsets.topics.get(name) else { continue };
                let theirs =
                    partitions.iter().filter(|(_, value)| value.topic_id.is_zero() || value.topic_id == *id);
                records.extend(theirs.map(|(partition, _)| tombstone(group, name, *partition)));
            }
        }
        write_in_parts(records, Some((to, GroupResponse::TopicsDeleted(ErrorCode::None))), out);
    }
}
