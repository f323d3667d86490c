//! DescribeProducers (61), version 0: KIP-664. The idempotent producers that a partition's log has in memory: those
//! silent for longest may be on disk, and are not listed.

use std::collections::BTreeSet;

use penstock_core::metadata::{MetadataImage, validate_topic_name};
use penstock_core::partition::PartitionFailure;
use penstock_protocol::messages::describe_producers_request::TopicRequest;
use penstock_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState as Told, TopicResponse,
};
use penstock_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};
use penstock_protocol::{ErrorCode, WireString};
use penstock_storage::ProducerState;

use super::{RequestContext, scatter};
use crate::runtime::pace::{Pace, weigh};
use crate::shard::{PartitionKey, Shard, ShardReply, ShardRequest};

pub(super) async fn handle(
    context: RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let shard = &context.shard;
    let image = shard.shared.image.load_full();
    let (mut located, mut seen) = (Vec::new(), BTreeSet::new());
    let mut pace = Pace::new();
    for topic in &request.topics {
        for partition in &topic.partition_indexes {
            pace.step(1).await;
            located.push(locate(shard, &image, topic, *partition, &mut seen));
        }
    }
    let outcomes = scatter::ask(shard, located, ShardRequest::Producers, |reply| match reply {
        ShardReply::Producers(producers) => producers,
        _ => unreachable!("a reply has the name of its request"),
    });
    let outcomes = outcomes.await;
    let producers = |outcome: &Outcome| match outcome {
        Ok(Ok(producers)) => 1 + producers.len(),
        _ => 1,
    };
    let producers = weigh(outcomes.iter().map(producers));
    context.by_size(producers, move || respond(request.topics, outcomes)).await
}

/// Where the partition is. Each is told once: a few bytes more of a request must not be worth a table more of an answer.
fn locate(
    shard: &Shard,
    image: &MetadataImage,
    topic: &TopicRequest,
    partition: i32,
    seen: &mut BTreeSet<PartitionKey>,
) -> Result<(usize, PartitionKey), ErrorCode> {
    if validate_topic_name(&topic.name).is_err() {
        return Err(ErrorCode::InvalidTopicException);
    }
    let (key, to) = scatter::locate_by_name(shard, image, &topic.name, partition)?;
    if seen.insert(key) { Ok((to, key)) } else { Err(ErrorCode::InvalidRequest) }
}

/// What is known of one partition, from here and from its shard.
type Outcome = Result<Result<Vec<ProducerState>, PartitionFailure>, ErrorCode>;

fn respond(topics: Vec<TopicRequest>, outcomes: Vec<Outcome>) -> DescribeProducersResponse {
    let mut outcomes = outcomes.into_iter();
    let topics = topics.into_iter().map(|topic| {
        let mut said = false;
        let partitions = topic.partition_indexes.iter().zip(&mut outcomes).map(|(index, outcome)| {
            let none = PartitionResponse { partition_index: *index, ..PartitionResponse::default() };
            match outcome.and_then(|told| told.map_err(PartitionFailure::code)) {
                Ok(producers) => {
                    PartitionResponse { active_producers: producers.iter().map(about).collect(), ..none }
                }
                Err(error) => PartitionResponse {
                    error_code: error.code(),
                    // Said with each, it could make the answer many times its request.
                    error_message: (!std::mem::replace(&mut said, true))
                        .then(|| WireString::from_static(error.message())),
                    ..none
                },
            }
        });
        TopicResponse { partitions: partitions.collect(), name: topic.name }
    });
    DescribeProducersResponse { topics: topics.collect(), ..DescribeProducersResponse::default() }
}

fn about(producer: &ProducerState) -> Told {
    Told {
        producer_id: producer.producer_id,
        producer_epoch: i32::from(producer.producer_epoch),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        // No marker of a transaction coordinator has been seen.
        coordinator_epoch: -1,
        current_txn_start_offset: producer.transaction_first_offset.unwrap_or(-1),
    }
}
