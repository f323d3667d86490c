//! Produce (0), versions 3-13: KIP-98 (3), KIP-107 (log start, 5), KIP-110 (zstd, 7), KIP-467 (record errors, 8),
//! KIP-951 (10), KIP-516 (topic ids, 13). Version 0 is advertised and not served, see KAFKA-18659.
//!
//! A request begins with its checks and ends with its appends made, in memory and in order; then the connection's
//! next request may begin while this one waits until its records count as written.

use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, join_all};
use penstock_core::metadata::{MetadataImage, TopicImage, is_internal};
use penstock_core::partition::enough_in_sync;
use penstock_format::Batch;
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use penstock_protocol::messages::{ProduceRequest, ProduceResponse};
use penstock_protocol::{ApiKey, ErrorCode, Uuid, WireString};

use super::produce_batches::{Demands, Refusal, parse, unpinned};
use super::{RequestContext, scatter};
use crate::network::pipeline::{Answer, Begun, CloseReason};
use crate::shard::{AppendOutcomes, PartitionAppend, PartitionAppended, Shard, ShardReply, ShardRequest};

/// Client id that may write to internal topics, as in Apache Kafka.
const ADMIN_CLIENT_ID: &str = "__admin_client";
/// The version from which topics are named by their ids alone.
const TOPIC_ID_VERSION: i16 = 13;

pub(super) async fn begin(context: RequestContext, request: ProduceRequest) -> Result<Begun, CloseReason> {
    let ProduceRequest { acks, topic_data, .. } = request;
    let outline = outline(&topic_data);
    let appends = prepare(&context, acks, topic_data).await;
    context.decoded();
    let mut outcomes: Vec<Option<Refusal>> = Vec::with_capacity(appends.len());
    let mut ready = Vec::with_capacity(appends.len());
    for (place, append) in appends.into_iter().enumerate() {
        match append {
            Ok((to, append)) => {
                ready.push((place, to, append));
                outcomes.push(None);
            }
            Err(refusal) => outcomes.push(Some(refusal)),
        }
    }
    let pending = append(&context.shard, ready).await;
    Ok(Begun::Later(Box::pin(finish(context, acks, outline, outcomes, pending))))
}

/// Topics and partitions of a request, for its answer.
type Outline = Vec<(WireString, Uuid, Vec<i32>)>;

fn outline(topics: &[TopicProduceData]) -> Outline {
    let partitions = |topic: &TopicProduceData| topic.partition_data.iter().map(|data| data.index).collect();
    topics.iter().map(|topic| (topic.name.clone(), topic.topic_id, partitions(topic))).collect()
}

type Ready = Result<(usize, PartitionAppend), Refusal>;

/// Checks every partition and prepares its batch; those for the worker pool go side by side.
async fn prepare(context: &RequestContext, acks: i16, topics: Vec<TopicProduceData>) -> Vec<Ready> {
    let shard = &context.shard;
    let image = shard.shared.image.load_full();
    let mut prepared = Vec::new();
    for topic in topics {
        let found = find_topic(context, &image, &topic);
        let demands = found.as_ref().ok().map(|topic| Demands::new(shard, &topic.config, context.version));
        for data in topic.partition_data {
            let located = match &found {
                Ok(topic) => check(context, topic, acks, &data),
                Err(error) => Err((*error).into()),
            };
            prepared.push(async move {
                let (to, mut append, batch) = located?;
                if let Some(demands) = demands {
                    let prepared = demands.prepare(batch, &shard.workers).await?;
                    append.batches.push(unpinned(prepared, context.course.request_bytes));
                }
                Ok((to, append))
            });
        }
    }
    join_all(prepared).await
}

fn find_topic<'a>(
    context: &RequestContext,
    image: &'a MetadataImage,
    topic: &TopicProduceData,
) -> Result<&'a Arc<TopicImage>, ErrorCode> {
    if context.version >= TOPIC_ID_VERSION {
        return image.topic_by_id(topic.topic_id).ok_or(ErrorCode::UnknownTopicId);
    }
    image.topic(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// Everything that can be said of a partition before its records are looked into.
fn check(
    context: &RequestContext,
    topic: &TopicImage,
    acks: i16,
    data: &PartitionProduceData,
) -> Result<(usize, PartitionAppend, Batch), Refusal> {
    let (key, to) = scatter::locate(&context.shard, topic, data.index)?;
    if !(-1..=1).contains(&acks) {
        return Err(ErrorCode::InvalidRequiredAcks.into());
    }
    let is_admin = context.client_id.as_deref() == Some(ADMIN_CLIENT_ID);
    if is_internal(&topic.name) && !is_admin {
        return Err(ErrorCode::InvalidTopicException.into());
    }
    let partition = topic.partition(data.index);
    let (in_sync, replicas) = partition.map_or((0, 0), |found| (found.isr.len(), found.replicas.len()));
    if acks == -1 && !enough_in_sync(in_sync, replicas, topic.config.min_insync_replicas) {
        return Err(ErrorCode::NotEnoughReplicas.into());
    }
    let batch = parse(data.records.as_ref())?;
    Ok((to, PartitionAppend { key, batches: Vec::new(), wait: acks != 0 }, batch))
}

/// Places in the request, and what becomes of the appends there.
type Pending = (Vec<usize>, LocalBoxFuture<'static, AppendOutcomes>);

/// Hands the appends to their shards, in order; the outcomes come later.
async fn append(shard: &Rc<Shard>, ready: Vec<(usize, usize, PartitionAppend)>) -> Vec<Pending> {
    let mut pending: Vec<Pending> = Vec::new();
    for (to, (places, appends)) in scatter::group(ready) {
        if to == shard.index {
            let begun = shard.append(appends, None).await;
            pending.push((places, Box::pin(begun.finish())));
        } else {
            let reply = shard.post.send(to, ShardRequest::Append(appends)).await;
            let outcomes = async move {
                match reply.await {
                    ShardReply::Append(outcomes) => outcomes,
                    _ => unreachable!("a reply has the name of its request"),
                }
            };
            pending.push((places, Box::pin(outcomes)));
        }
    }
    pending
}

/// Waits for the appends and makes the answer. Without acknowledgement there is none: a failure then ends the
/// connection, which is the only way to tell the client.
async fn finish(
    context: RequestContext,
    acks: i16,
    outline: Outline,
    mut refusals: Vec<Option<Refusal>>,
    pending: Vec<Pending>,
) -> Result<Answer, CloseReason> {
    let mut appended: Vec<Option<PartitionAppended>> = vec![None; refusals.len()];
    for (places, outcomes) in pending {
        let AppendOutcomes { outcomes, times } = outcomes.await;
        context.course.note_append(&times);
        for (place, outcome) in places.into_iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => appended[place] = Some(outcome),
                Err(failure) => refusals[place] = Some(failure.code().into()),
            }
        }
    }
    if acks == 0 {
        return match refusals.into_iter().flatten().next() {
            None => Ok(Answer::default()),
            Some(refusal) => {
                Err(CloseReason(format!("produce without acknowledgement failed: {}", refusal.error)))
            }
        };
    }
    let mut outcomes = appended.into_iter().zip(refusals);
    let responses = outline.into_iter().map(|(name, topic_id, partitions)| TopicProduceResponse {
        partition_responses: partitions.into_iter().zip(&mut outcomes).map(respond).collect(),
        name: if context.version >= TOPIC_ID_VERSION { WireString::default() } else { name },
        topic_id,
    });
    let response = ProduceResponse { responses: responses.collect(), ..ProduceResponse::default() };
    context.encode(ApiKey::Produce, &response)
}

fn respond(
    (index, (appended, refusal)): (i32, (Option<PartitionAppended>, Option<Refusal>)),
) -> PartitionProduceResponse {
    match (appended, refusal) {
        (Some(appended), None) => PartitionProduceResponse {
            index,
            base_offset: appended.base_offset,
            log_append_time_ms: appended.append_time_ms,
            log_start_offset: appended.log_start_offset,
            ..PartitionProduceResponse::default()
        },
        (_, Some(refusal)) => refusal.respond(index),
        (None, None) => unreachable!("each partition has an outcome"),
    }
}
