//! OffsetForLeaderEpoch (23), versions 2-4: KIP-101, KIP-279, KIP-320.

use penstock_core::partition::claimed_epoch;
use penstock_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use penstock_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::{RequestContext, scatter};
use crate::runtime::pace::Pace;
use crate::shard::{PartitionQuery, Query};

pub(super) async fn handle(
    context: RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let shard = &context.shard;
    let image = shard.shared.image.load_full();
    let mut queries = Vec::new();
    let mut pace = Pace::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            pace.step(1).await;
            let located = scatter::locate_by_name(shard, &image, &topic.topic, partition.partition);
            queries.push(located.map(|(key, to)| {
                let claimed_epoch = claimed_epoch(partition.current_leader_epoch);
                let query = Query::EpochEnd { epoch: partition.leader_epoch, claimed_epoch };
                (to, PartitionQuery { key, query })
            }));
        }
    }
    let mut outcomes = scatter::query(shard, queries).await.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(&mut outcomes).map(|(partition, outcome)| {
            let none = EpochEndOffset { partition: partition.partition, ..EpochEndOffset::default() };
            match outcome {
                Ok(end) => EpochEndOffset { leader_epoch: end.leader_epoch, end_offset: end.offset, ..none },
                Err(error) => EpochEndOffset { error_code: error.code(), ..none },
            }
        });
        OffsetForLeaderTopicResult { partitions: partitions.collect(), topic: topic.topic }
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..OffsetForLeaderEpochResponse::default() }
}
