//! Spreads work over the shards that own the partitions, and puts the outcomes back in order.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::join_all;
use penstock_core::metadata::{MetadataImage, TopicImage};
use penstock_core::partition::PartitionFailure;
use penstock_protocol::ErrorCode;

use crate::runtime::pace::Pace;
use crate::shard::{PartitionKey, PartitionQuery, QueryAnswer, Shard, ShardReply, ShardRequest};

/// A partition of a topic as a request names it, resolved: its key and its shard.
pub(super) fn locate(
    shard: &Shard,
    topic: &TopicImage,
    partition: i32,
) -> Result<(PartitionKey, usize), ErrorCode> {
    let image = topic.partition(partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let key = PartitionKey { topic_id: topic.id, partition };
    Ok((key, shard.shared.shard_of(&key, image.shard)))
}

/// As [`locate`], by the topic's name.
pub(super) fn locate_by_name(
    shard: &Shard,
    image: &MetadataImage,
    topic: &str,
    partition: i32,
) -> Result<(PartitionKey, usize), ErrorCode> {
    let topic = image.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    locate(shard, topic, partition)
}

/// Items by the shard they go to, each with its place in the request.
type ByShard<T> = BTreeMap<usize, (Vec<usize>, Vec<T>)>;

/// Asks all queries of the shards that own their partitions; the answers stand in the order of the queries. What could
/// not be located keeps its error.
pub(super) async fn query(
    shard: &Rc<Shard>,
    queries: Vec<Result<(usize, PartitionQuery), ErrorCode>>,
) -> Vec<Result<QueryAnswer, ErrorCode>> {
    let outcomes = ask(shard, queries, ShardRequest::Query, |reply| match reply {
        ShardReply::Query(answers) => answers,
        _ => unreachable!("a reply has the name of its request"),
    });
    outcomes.await.into_iter().map(|outcome| outcome?.map_err(PartitionFailure::code)).collect()
}

/// Asks each shard, this one included, about the items that are located on it, by one request; the answers stand in the
/// order of the items. What could not be located keeps its error.
pub(super) async fn ask<T, A>(
    shard: &Rc<Shard>,
    items: Vec<Result<(usize, T), ErrorCode>>,
    request: impl Fn(Vec<T>) -> ShardRequest,
    answers: impl Fn(ShardReply) -> Vec<A>,
) -> Vec<Result<A, ErrorCode>> {
    let mut pace = Pace::new();
    let mut outcomes: Vec<Result<A, ErrorCode>> = Vec::with_capacity(items.len());
    let mut groups: ByShard<T> = ByShard::new();
    for (place, item) in items.into_iter().enumerate() {
        pace.step(1).await;
        outcomes.push(Err(item.as_ref().err().copied().unwrap_or(ErrorCode::None)));
        if let Ok((shard, item)) = item {
            let (places, items) = groups.entry(shard).or_default();
            places.push(place);
            items.push(item);
        }
    }
    let asked = groups.into_iter().map(|(to, (places, items))| {
        let reply = shard.ask(to, request(items));
        async move { (places, reply.await) }
    });
    for (places, reply) in join_all(asked).await {
        for (place, answer) in places.into_iter().zip(answers(reply)) {
            pace.step(1).await;
            outcomes[place] = Ok(answer);
        }
    }
    outcomes
}
