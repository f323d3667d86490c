//! ListOffsets (2), versions 1-11: KIP-79 (by time), KIP-207, KIP-320 (epochs), KIP-734 (max timestamp, 7+),
//! KIP-405 (earliest local, 8+), KIP-1005 (latest tiered, 9+), KIP-1075 (timeout, 10+), KIP-1023 (earliest pending
//! upload, 11+).

use std::collections::BTreeMap;

use penstock_core::metadata::MetadataImage;
use penstock_core::partition::{Isolation, OffsetQuestion, WantedOffset, claimed_epoch, offset_error};
use penstock_protocol::messages::list_offsets_request::ListOffsetsPartition;
use penstock_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use penstock_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::{RequestContext, scatter};
use crate::runtime::pace::Pace;
use crate::shard::{PartitionQuery, Query, QueryAnswer};

/// The first version whose answer has leader epochs.
const EPOCH_VERSION: i16 = 4;

pub(super) async fn handle(context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let shard = &context.shard;
    let image = shard.shared.image.load_full();
    let isolation = Isolation::of(request.isolation_level)
        .map(|level| OffsetQuestion::isolation_of(request.replica_id, level));
    let mut counts: BTreeMap<(&WireString, i32), usize> = BTreeMap::new();
    let mut pace = Pace::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            pace.step(1).await;
            *counts.entry((&topic.name, partition.partition_index)).or_default() += 1;
        }
    }
    let mut queries = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            pace.step(1).await;
            queries.push(match isolation {
                Err(error) => Err(error),
                // A partition named twice is refused each time.
                Ok(_) if counts[&(&topic.name, partition.partition_index)] > 1 => {
                    Err(ErrorCode::InvalidRequest)
                }
                Ok(isolation) => plan(&context, &image, isolation, &topic.name, partition),
            });
        }
    }
    let mut outcomes = scatter::query(shard, queries).await.into_iter();
    let topics = request.topics.into_iter().map(|topic| ListOffsetsTopicResponse {
        partitions: topic
            .partitions
            .iter()
            .zip(&mut outcomes)
            .map(|(partition, outcome)| respond(context.version, partition, outcome))
            .collect(),
        name: topic.name,
    });
    ListOffsetsResponse { topics: topics.collect(), ..ListOffsetsResponse::default() }
}

fn plan(
    context: &RequestContext,
    image: &MetadataImage,
    isolation: Option<Isolation>,
    topic: &str,
    partition: &ListOffsetsPartition,
) -> Result<(usize, PartitionQuery), ErrorCode> {
    let wanted = WantedOffset::of(partition.timestamp, context.version)?;
    let (key, to) = scatter::locate_by_name(&context.shard, image, topic, partition.partition_index)?;
    let claimed_epoch = claimed_epoch(partition.current_leader_epoch);
    let query = Query::Offset(OffsetQuestion { wanted, isolation, claimed_epoch });
    Ok((to, PartitionQuery { key, query }))
}

fn respond(
    version: i16,
    partition: &ListOffsetsPartition,
    outcome: Result<QueryAnswer, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let none = ListOffsetsPartitionResponse {
        partition_index: partition.partition_index,
        ..ListOffsetsPartitionResponse::default()
    };
    match outcome {
        Ok(found) => ListOffsetsPartitionResponse {
            timestamp: found.timestamp,
            offset: found.offset,
            leader_epoch: if version >= EPOCH_VERSION { found.leader_epoch } else { -1 },
            ..none
        },
        Err(error) => {
            ListOffsetsPartitionResponse { error_code: offset_error(error, version).code(), ..none }
        }
    }
}
