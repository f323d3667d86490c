//! OffsetFetch (9), one group of it: KIP-320 (leader epochs, 5), 447 (require stable, 7), 709 (several groups, 8),
//! topic ids (10).

use std::collections::BTreeMap;

use penstock_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use penstock_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use penstock_protocol::{Uuid, WireString};

use super::super::super::records::OffsetValue;
use super::super::super::request::GroupResponse;
use super::super::{GroupMachine, Outbox};
use crate::coordinator::RequestId;

/// Stands for no committed offset.
const NO_OFFSET: i64 = -1;

impl GroupMachine {
    /// Answers once all commits under way are durable, so that no offset is shown that could be lost: that is also all
    /// that a stable answer asks for, as long as there are no transactions.
    pub(in super::super) fn fetch_offsets(
        &self,
        group: OffsetFetchRequestGroup,
        to: RequestId,
        out: &mut Outbox,
    ) {
        let offsets = self.offsets.of_group(&group.group_id);
        let topics = match group.topics {
            None => offsets.into_iter().flat_map(super::GroupOffsets::topics).map(all_of).collect(),
            Some(topics) => topics
                .into_iter()
                .map(|topic| OffsetFetchResponseTopics {
                    partitions: topic
                        .partition_indexes
                        .iter()
                        .map(|partition| {
                            let value = offsets.and_then(|offsets| offsets.get(&topic.name, *partition));
                            told(*partition, value.filter(|value| same_topic(value, topic.topic_id)))
                        })
                        .collect(),
                    name: topic.name,
                    topic_id: topic.topic_id,
                })
                .collect(),
        };
        let response = OffsetFetchResponseGroup { group_id: group.group_id, topics, error_code: 0 };
        out.answer_when_durable(to, GroupResponse::FetchOffsets(response));
    }
}

fn all_of((name, partitions): (&WireString, &BTreeMap<i32, OffsetValue>)) -> OffsetFetchResponseTopics {
    let partitions = partitions.iter().map(|(partition, value)| told(*partition, Some(value))).collect();
    OffsetFetchResponseTopics { name: name.clone(), topic_id: Uuid::ZERO, partitions }
}

/// Whether the offset is of the topic meant, and not of one that had its name before.
fn same_topic(value: &OffsetValue, asked: Uuid) -> bool {
    asked.is_zero() || value.topic_id.is_zero() || value.topic_id == asked
}

fn told(partition_index: i32, value: Option<&OffsetValue>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: value.map_or(NO_OFFSET, |value| value.offset),
        committed_leader_epoch: value.map_or(-1, |value| value.leader_epoch),
        metadata: Some(value.map(|value| value.metadata.clone()).unwrap_or_default()),
        error_code: 0,
    }
}
