//! Produce (0), versions 3-13: KIP-98 (3), KIP-107 (log start, 5), KIP-110 (zstd, 7), KIP-467 (record errors, 8),
//! KIP-951 (10), KIP-516 (topic ids, 13). Version 0 is advertised and not served, see KAFKA-18659.
//!
//! A request begins with its checks and ends with its appends made, in memory and in order; then the connection's
//! next request may begin while this one waits until its records count as written.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use penstock_core::metadata::{MetadataImage, TopicImage, is_internal};
use penstock_core::partition::enough_in_sync;
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use penstock_protocol::messages::{ProduceRequest, ProduceResponse};
use penstock_protocol::{ApiKey, ErrorCode, Uuid, WireString};

use super::produce_batches::{Demands, Refusal, parse, unpinned};
use super::registry::FirstStep;
use super::{RequestContext, scatter};
use crate::network::pipeline::{Answer, Begun, CloseReason};
use crate::runtime::mailbox::Reply;
use crate::runtime::task;
use crate::shard::{
    AppendOutcomes, BegunAppends, PartitionAppend, PartitionAppended, PerPartition, Shard, ShardReply,
    ShardRequest,
};

/// Client id that may write to internal topics, as in Apache Kafka.
const ADMIN_CLIENT_ID: &str = "__admin_client";
/// The version from which topics are named by their ids alone.
const TOPIC_ID_VERSION: i16 = 13;

/// A topic of the request, for its answer.
struct Named {
    name: WireString,
    topic_id: Uuid,
    partitions: usize,
}

/// A partition of the request on its way to the log. All of them stand in the request's order.
struct Place {
    index: i32,
    state: PlaceState,
}

/// How far a partition is.
enum PlaceState {
    /// Its batch goes through a codec first, then to this shard.
    Packing(Demands, usize, PartitionAppend),
    /// To be appended by this shard.
    Ready(usize, PartitionAppend),
    Refused(Refusal),
}

/// A partition of the request on its way to the answer, in the same order. Thousands may wait at once: it holds no more
/// than the answer needs.
struct Outcome {
    index: i32,
    state: OutcomeState,
}

enum OutcomeState {
    /// This shard appends it.
    Appending(usize),
    Done(Result<PartitionAppended, Refusal>),
}

pub(super) fn begin(mut context: RequestContext, request: ProduceRequest) -> FirstStep {
    let ProduceRequest { acks, topic_data, .. } = request;
    let now_ms = task::now_ms();
    let (topics, mut places) = check_all(&context, acks, topic_data, now_ms);
    let mut decoded = None;
    if let [Place { index, state: PlaceState::Ready(to, _) }] = places[..]
        && to == context.shard.index
        && let Some(Place { state: PlaceState::Ready(_, append), .. }) = places.pop()
    {
        let now = context.decoded();
        decoded = Some(now);
        match context.shard.append_now(append, (now, now_ms)) {
            Ok(begun) => {
                let outcomes =
                    PerPartition::from_buf([Outcome { index, state: OutcomeState::Appending(to) }]);
                let appending = Appending { here: Some(begun), elsewhere: Vec::new() };
                return FirstStep::Now(Ok(go_on(context, acks, topics, (outcomes, appending))));
            }
            Err(append) => places.push(Place { index, state: PlaceState::Ready(to, append) }),
        }
    }
    FirstStep::Later(Box::pin(begin_waiting(context, acks, topics, places, decoded)))
}

/// Begins a request that may have to wait first. `decoded` is the end of its decoding; `None` where that is not recorded yet.
async fn begin_waiting(
    mut context: RequestContext,
    acks: i16,
    topics: PerPartition<Named>,
    mut places: PerPartition<Place>,
    decoded: Option<Instant>,
) -> Result<Begun, CloseReason> {
    pack(&context, &mut places).await;
    let decoded = decoded.unwrap_or_else(|| context.decoded());
    let appended = append(&context.shard, places, decoded).await;
    Ok(go_on(context, acks, topics, appended))
}

/// What follows once all took effect here, or is on its way to other shards.
fn go_on(
    context: RequestContext,
    acks: i16,
    topics: PerPartition<Named>,
    (outcomes, appending): (PerPartition<Outcome>, Appending),
) -> Begun {
    if let (Some(here), []) = (&appending.here, &appending.elsewhere[..]) {
        context.connection.begun(here.appended);
    }
    Begun::Later(Box::pin(finish(context, acks, topics, outcomes, appending)))
}

/// Checks every partition, and brings its batch into the form that the topic stores where that needs no codec.
fn check_all(
    context: &RequestContext,
    acks: i16,
    topics: Vec<TopicProduceData>,
    now_ms: i64,
) -> (PerPartition<Named>, PerPartition<Place>) {
    let image = context.shard.shared.image.load();
    let mut named = PerPartition::with_capacity(topics.len());
    let mut places = PerPartition::with_capacity(topics.iter().map(|topic| topic.partition_data.len()).sum());
    for topic in topics {
        let found = find_topic(context, &image, &topic)
            .map(|found| (found, Demands::new(&context.shard, &found.config, context.version)));
        let (name, topic_id, partitions) = (topic.name, topic.topic_id, topic.partition_data.len());
        for data in topic.partition_data {
            let state = match &found {
                Ok((topic, demands)) => check(context, topic, acks, &data)
                    .and_then(|(to, append)| prepare(context, (*demands, now_ms), to, append))
                    .unwrap_or_else(PlaceState::Refused),
                Err(error) => PlaceState::Refused((*error).into()),
            };
            places.push(Place { index: data.index, state });
        }
        named.push(Named { name, topic_id, partitions });
    }
    (named, places)
}

fn prepare(
    context: &RequestContext,
    (demands, now_ms): (Demands, i64),
    to: usize,
    append: PartitionAppend,
) -> Result<PlaceState, Refusal> {
    if demands.needs_codec(&append.batch) {
        return Ok(PlaceState::Packing(demands, to, append));
    }
    let batch = unpinned(demands.prepare(append.batch, now_ms)?, context.piece_bytes);
    Ok(PlaceState::Ready(to, PartitionAppend { batch, ..append }))
}

/// Has the worker pool do what needs a codec, side by side.
async fn pack(context: &RequestContext, places: &mut [Place]) {
    let packing = places.iter_mut().filter(|place| matches!(place.state, PlaceState::Packing(..)));
    let packed = packing.map(async |place| {
        let placeholder = PlaceState::Refused(ErrorCode::UnknownServerError.into());
        let PlaceState::Packing(demands, to, append) = std::mem::replace(&mut place.state, placeholder)
        else {
            unreachable!("chosen for it")
        };
        let batch = demands.prepare_beside(append.batch, &context.shard.workers).await;
        place.state = match batch {
            Ok(batch) => {
                let batch = unpinned(batch, context.piece_bytes);
                PlaceState::Ready(to, PartitionAppend { batch, ..append })
            }
            Err(refusal) => PlaceState::Refused(refusal),
        };
    });
    let mut packed = packed.peekable();
    if packed.peek().is_some() {
        join_all(packed).await;
    }
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
) -> Result<(usize, PartitionAppend), Refusal> {
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
    Ok((to, PartitionAppend { key, batch, wait: acks != 0 }))
}

/// What becomes of the appends: those of this shard, and those of others.
struct Appending {
    here: Option<BegunAppends>,
    elsewhere: Vec<(usize, Reply<ShardRequest, ShardReply>)>,
}

/// Hands the appends to their shards, in order; the outcomes come later.
async fn append(
    shard: &Rc<Shard>,
    places: PerPartition<Place>,
    now: Instant,
) -> (PerPartition<Outcome>, Appending) {
    let mut own = PerPartition::with_capacity(places.len());
    let mut others = BTreeMap::<usize, Vec<PartitionAppend>>::new();
    let outcomes = places.into_iter().map(|Place { index, state }| {
        let state = match state {
            PlaceState::Ready(to, append) => {
                if to == shard.index {
                    own.push(append);
                } else {
                    others.entry(to).or_default().push(append);
                }
                OutcomeState::Appending(to)
            }
            PlaceState::Refused(refusal) => OutcomeState::Done(Err(refusal)),
            PlaceState::Packing(..) => unreachable!("packed before"),
        };
        Outcome { index, state }
    });
    let outcomes = outcomes.collect();
    let here = if own.is_empty() { None } else { Some(shard.append(own, None, now).await) };
    let mut elsewhere = Vec::new();
    for (to, appends) in others {
        elsewhere.push((to, shard.post.send(to, ShardRequest::Append(appends)).await));
    }
    (outcomes, Appending { here, elsewhere })
}

/// Waits for the appends and makes the answer. Without acknowledgement there is none: a failure then ends the
/// connection, which is the only way to tell the client.
// Not an `async fn`: that would hold all of this twice, once as it came and once as it is worked on.
#[allow(clippy::manual_async_fn)]
fn finish(
    mut context: RequestContext,
    acks: i16,
    topics: PerPartition<Named>,
    mut outcomes: PerPartition<Outcome>,
    mut appending: Appending,
) -> impl Future<Output = Result<Answer, CloseReason>> {
    async move {
        if let Some(begun) = &mut appending.here {
            let appended = begun.finish().await;
            let own = context.shard.index;
            note(&mut context, &mut outcomes, own, appended);
        }
        for (to, reply) in &mut appending.elsewhere {
            let ShardReply::Append(appended) = reply.await else {
                unreachable!("a reply has the name of its request")
            };
            note(&mut context, &mut outcomes, *to, appended);
        }
        answer(&context, acks, topics, outcomes)
    }
}

/// The answer, once each partition has its outcome.
fn answer(
    context: &RequestContext,
    acks: i16,
    topics: PerPartition<Named>,
    outcomes: PerPartition<Outcome>,
) -> Result<Answer, CloseReason> {
    let mut outcomes = outcomes.into_iter().map(|Outcome { index, state }| match state {
        OutcomeState::Done(outcome) => (index, outcome),
        OutcomeState::Appending(_) => unreachable!("each partition has an outcome"),
    });
    if acks == 0 {
        return match outcomes.find_map(|(_, outcome)| outcome.err()) {
            None => Ok(context.answer(Vec::new())),
            Some(refusal) => {
                Err(CloseReason(format!("produce without acknowledgement failed: {}", refusal.error)))
            }
        };
    }
    let mut responses = Vec::with_capacity(topics.len());
    for Named { name, topic_id, partitions } in topics {
        // Collected, a vector of one would get the room of four.
        let mut partition_responses = Vec::with_capacity(partitions);
        partition_responses.extend(outcomes.by_ref().take(partitions).map(respond));
        responses.push(TopicProduceResponse {
            partition_responses,
            name: if context.version >= TOPIC_ID_VERSION { WireString::default() } else { name },
            topic_id,
        });
    }
    context.encode(ApiKey::Produce, &ProduceResponse { responses, ..ProduceResponse::default() })
}

/// Puts what a shard's appends came to where they stand in the request.
fn note(context: &mut RequestContext, outcomes: &mut [Outcome], shard: usize, appended: AppendOutcomes) {
    context.course.note_append(&appended.times);
    let of_shard = outcomes
        .iter_mut()
        .filter(|outcome| matches!(outcome.state, OutcomeState::Appending(to) if to == shard));
    for (outcome, appended) in of_shard.zip(appended.outcomes) {
        outcome.state = OutcomeState::Done(appended.map_err(|failure| failure.code().into()));
    }
}

fn respond((index, outcome): (i32, Result<PartitionAppended, Refusal>)) -> PartitionProduceResponse {
    match outcome {
        Ok(appended) => PartitionProduceResponse {
            index,
            base_offset: appended.base_offset,
            log_append_time_ms: appended.append_time_ms,
            log_start_offset: appended.log_start_offset,
            ..PartitionProduceResponse::default()
        },
        Err(refusal) => refusal.respond(index),
    }
}
