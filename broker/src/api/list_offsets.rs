//! ListOffsets (2), versions 1-11: KIP-79 (by time), KIP-207, KIP-320 (epochs), KIP-734 (max timestamp, 7+),
//! KIP-405 (earliest local, 8+), KIP-1005 (latest tiered, 9+), KIP-1075 (timeout, 10+), KIP-1023 (earliest pending
//! upload, 11+). Without tiered storage the earliest local offset is the earliest, and there is nothing tiered.

use std::collections::BTreeMap;

use penstock_core::metadata::MetadataImage;
use penstock_protocol::messages::list_offsets_request::ListOffsetsPartition;
use penstock_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use penstock_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::{RequestContext, scatter};
use crate::shard::{PartitionQuery, Query, QueryAnswer, Shard};

/// The first version whose answer has leader epochs.
const EPOCH_VERSION: i16 = 4;

/// Timestamps with a meaning of their own, and the version that brought each.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

pub(super) async fn handle(context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let shard = &context.shard;
    let image = shard.shared.image.load_full();
    let mut counts: BTreeMap<(&WireString, i32), usize> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            *counts.entry((&topic.name, partition.partition_index)).or_default() += 1;
        }
    }
    let mut asked = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            asked.push(if counts[&(&topic.name, partition.partition_index)] > 1 {
                // A partition named twice is refused each time.
                Err(ErrorCode::InvalidRequest)
            } else {
                plan(shard, &image, &context, &topic.name, partition)
            });
        }
    }
    let nothing_tiered: Vec<bool> = asked.iter().map(|plan| matches!(plan, Ok(Plan::Nothing))).collect();
    let queries = asked.into_iter().map(|plan| match plan {
        Ok(Plan::Ask(to, query)) => Ok((to, query)),
        Ok(Plan::Nothing) => Err(ErrorCode::None),
        Err(error) => Err(error),
    });
    let outcomes = scatter::query(shard, queries.collect()).await;
    let mut outcomes = outcomes.into_iter().zip(nothing_tiered);
    let topics = request.topics.into_iter().map(|topic| ListOffsetsTopicResponse {
        partitions: topic
            .partitions
            .iter()
            .zip(&mut outcomes)
            .map(|(partition, (outcome, nothing))| respond(context.version, partition, outcome, nothing))
            .collect(),
        name: topic.name,
    });
    ListOffsetsResponse { topics: topics.collect(), ..ListOffsetsResponse::default() }
}

/// What is done for one partition.
enum Plan {
    Ask(usize, PartitionQuery),
    /// There is no such offset, and that is no error.
    Nothing,
}

fn plan(
    shard: &Shard,
    image: &MetadataImage,
    context: &RequestContext,
    topic: &str,
    partition: &ListOffsetsPartition,
) -> Result<Plan, ErrorCode> {
    let (key, to) = scatter::locate_by_name(shard, image, topic, partition.partition_index)?;
    let query = match partition.timestamp {
        LATEST => Query::Latest,
        EARLIEST => Query::Earliest,
        MAX_TIMESTAMP if context.version >= 7 => Query::MaxTimestamp,
        EARLIEST_LOCAL if context.version >= 8 => Query::Earliest,
        LATEST_TIERED if context.version >= 9 => return Ok(Plan::Nothing),
        EARLIEST_PENDING_UPLOAD if context.version >= 11 => return Ok(Plan::Nothing),
        time if time >= 0 => Query::AtTime(time),
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    Ok(Plan::Ask(to, PartitionQuery { key, current_leader_epoch: partition.current_leader_epoch, query }))
}

fn respond(
    version: i16,
    partition: &ListOffsetsPartition,
    outcome: Result<QueryAnswer, ErrorCode>,
    nothing: bool,
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
        Err(_) if nothing => none,
        Err(error) => ListOffsetsPartitionResponse { error_code: error.code(), ..none },
    }
}
