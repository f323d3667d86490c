//! DescribeTopicPartitions (75), version 0: KIP-966. Topics come by name, so many partitions at a time, and a cursor says
//! where the next request goes on.

use std::collections::BTreeSet;

use penstock_core::metadata::{MetadataImage, TopicImage, is_internal, validate_topic_name};
use penstock_protocol::messages::describe_topic_partitions_request::Cursor as Asked;
use penstock_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use penstock_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::RequestContext;
use super::operations::TOPIC_OPERATIONS;

pub(super) async fn handle(
    context: RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = context.shard.shared.image.load_full();
    let asked = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let room = asked.min(image.broker().describe_partitions_max).max(1);
    let entries = request.topics.len().max(room.min(image.partitions_len()));
    context.by_size(entries, move || describe(&image, &request, room)).await
}

fn describe(
    image: &MetadataImage,
    request: &DescribeTopicPartitionsRequest,
    room: usize,
) -> DescribeTopicPartitionsResponse {
    let from = request.cursor.as_ref().map_or("", |cursor| cursor.topic_name.as_str());
    if request.topics.is_empty() {
        if request.cursor.as_ref().is_some_and(|cursor| cursor.partition_index < 0) {
            return refused(request);
        }
        let topics = image.topics_from(from).map(|topic| (&topic.name, Some(&**topic)));
        return page(topics, request.cursor.as_ref(), room);
    }
    let names: BTreeSet<&WireString> =
        request.topics.iter().map(|topic| &topic.name).filter(|name| name.as_str() >= from).collect();
    // A cursor goes on where an earlier answer stopped, so it names one of the topics that are asked for.
    let fits = |cursor: &Asked| cursor.partition_index >= 0 && names.contains(&cursor.topic_name);
    if request.cursor.as_ref().is_some_and(|cursor| !fits(cursor)) {
        return refused(request);
    }
    let topics = names.into_iter().map(|name| (name, image_topic(image, name)));
    page(topics, request.cursor.as_ref(), room)
}

fn image_topic<'a>(image: &'a MetadataImage, name: &str) -> Option<&'a TopicImage> {
    image.topic(name).map(|topic| &**topic)
}

fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.clone()),
        ..DescribeTopicPartitionsResponseTopic::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..DescribeTopicPartitionsResponse::default() }
}

/// One answer: topics in order, up to `room` partitions, beginning at the cursor's partition of its topic.
fn page<'a>(
    topics: impl Iterator<Item = (&'a WireString, Option<&'a TopicImage>)>,
    cursor: Option<&Asked>,
    room: usize,
) -> DescribeTopicPartitionsResponse {
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = room;
    let next = |name: &WireString, partition: usize| {
        let partition_index = i32::try_from(partition).unwrap_or(i32::MAX);
        Some(Cursor { topic_name: name.clone(), partition_index })
    };
    for (name, topic) in topics {
        if left == 0 {
            response.next_cursor = next(name, 0);
            break;
        }
        let Some(topic) = topic else {
            response.topics.push(unknown(name));
            continue;
        };
        let first =
            cursor.filter(|cursor| cursor.topic_name == *name).map_or(0, |cursor| cursor.partition_index);
        let first = usize::try_from(first).unwrap_or(0);
        let shown = topic.partitions.len().saturating_sub(first).min(left);
        response.topics.push(about(topic, first, shown));
        if first + shown < topic.partitions.len() {
            response.next_cursor = next(name, first + shown);
            break;
        }
        left -= shown;
    }
    response
}

fn unknown(name: &WireString) -> DescribeTopicPartitionsResponseTopic {
    let error = match validate_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.clone()),
        is_internal: is_internal(name),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn about(topic: &TopicImage, first: usize, count: usize) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.partitions.iter().enumerate().skip(first).take(count).map(|(index, partition)| {
        DescribeTopicPartitionsResponsePartition {
            partition_index: i32::try_from(index).unwrap_or(i32::MAX),
            leader_id: partition.leader,
            leader_epoch: partition.leader_epoch,
            replica_nodes: partition.replicas.clone(),
            isr_nodes: partition.isr.clone(),
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            ..DescribeTopicPartitionsResponsePartition::default()
        }
    });
    DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: is_internal(&topic.name),
        partitions: partitions.collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}
