//! Metadata (3), versions 0-13: KIP-4, KIP-430 (authorized operations, 8), KIP-516 (topic ids, 10 and 12), KIP-700 (no
//! cluster operations from 11), KIP-1102 (top-level error, 13).
//!
//! A topic that is created on demand is there when the answer leaves, so that a client needs no second request. What is
//! about many topics or partitions is worked through beside the shard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_core::metadata::{
    Command, MetadataImage, PartitionImage, TopicImage, is_internal, validate_topic_name,
};
use penstock_protocol::messages::create_topics_request::CreatableTopic;
use penstock_protocol::messages::metadata_request::MetadataRequestTopic;
use penstock_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use penstock_protocol::messages::{CreateTopicsRequest, MetadataRequest, MetadataResponse};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use super::RequestContext;
use super::operations::{CLUSTER_OPERATIONS, NOT_ASKED, TOPIC_OPERATIONS};
use super::submit::submit;
use crate::runtime::pace::weigh;
use crate::shard::Shared;

pub(super) async fn handle(context: RequestContext, request: MetadataRequest) -> MetadataResponse {
    let shared = context.shard.shared.clone();
    let operations = Operations {
        topic: if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { NOT_ASKED },
        cluster: if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { NOT_ASKED },
    };
    let before = shared.image.load_full();
    let may_create = request.allow_auto_topic_creation && before.broker().auto_create_topics;
    let (named, version) = (request.topics.as_ref().map_or(0, Vec::len), context.version);
    let read = move || {
        let asked = Asked::of(request, version);
        let missing = if may_create { asked.missing(&before) } else { Vec::new() };
        (asked, missing)
    };
    let (asked, missing) = context.by_size(named, read).await;
    let refusals = match missing.is_empty() {
        true => Refusals::Of(BTreeMap::new()),
        false => create(&context, missing).await,
    };
    // With what was created.
    let image = shared.image.load_full();
    let entries = asked.entries(&image);
    context.by_size(entries, move || respond(&shared, &image, asked, &refusals, operations)).await
}

/// Operations to tell.
#[derive(Clone, Copy)]
struct Operations {
    topic: i32,
    cluster: i32,
}

/// What a request asks for, each topic once.
enum Asked {
    All,
    Ids(BTreeSet<Uuid>),
    Names(BTreeSet<WireString>),
    /// Nothing that its version can ask.
    Refused(Vec<MetadataRequestTopic>),
}

impl Asked {
    fn of(request: MetadataRequest, version: i16) -> Asked {
        let topics = match request.topics {
            None => return Asked::All,
            // Version 0 cannot say null.
            Some(topics) if version == 0 && topics.is_empty() => return Asked::All,
            Some(topics) => topics,
        };
        let by_id = |topic_id: Uuid| !topic_id.is_zero();
        if version < 12 && topics.iter().any(|topic| topic.name.is_none() || by_id(topic.topic_id)) {
            return Asked::Refused(topics);
        }
        if topics.iter().any(|topic| by_id(topic.topic_id)) {
            return Asked::Ids(topics.iter().map(|topic| topic.topic_id).filter(|id| by_id(*id)).collect());
        }
        if topics.iter().any(|topic| topic.name.is_none()) {
            return Asked::Refused(topics);
        }
        Asked::Names(topics.into_iter().filter_map(|topic| topic.name).collect())
    }

    /// Topics named that are not there and may be created on demand.
    fn missing(&self, image: &MetadataImage) -> Vec<CreatableTopic> {
        let Asked::Names(names) = self else { return Vec::new() };
        let missing = names.iter().filter(|name| image.topic(name).is_none() && is_creatable(name));
        let topics = missing.map(|name| CreatableTopic {
            name: name.clone(),
            num_partitions: -1,
            replication_factor: -1,
            ..CreatableTopic::default()
        });
        topics.collect()
    }

    /// Topics and partitions of the answer; some number above a stretch if they are more.
    fn entries(&self, image: &MetadataImage) -> usize {
        let known = |topic: Option<&Arc<TopicImage>>| 1 + topic.map_or(0, |topic| topic.partitions.len());
        match self {
            Asked::All => image.topics().len() + image.partitions_len(),
            Asked::Ids(ids) => weigh(ids.iter().map(|id| known(image.topic_by_id(*id)))),
            Asked::Names(names) => weigh(names.iter().map(|name| known(image.topic(name)))),
            Asked::Refused(topics) => topics.len(),
        }
    }
}

/// What belongs to the broker itself is created by who needs it, with the configs that it needs.
fn is_creatable(name: &str) -> bool {
    validate_topic_name(name).is_ok() && !is_internal(name)
}

/// Why topics could not be created.
enum Refusals {
    /// Each for its own reason; those that are not named were, or were not tried.
    Of(BTreeMap<WireString, ErrorCode>),
    /// None could.
    All(ErrorCode),
}

impl Refusals {
    fn get(&self, name: &WireString) -> Option<ErrorCode> {
        match self {
            Refusals::Of(refusals) => refusals.get(name).copied(),
            Refusals::All(error) => is_creatable(name).then_some(*error),
        }
    }
}

async fn create(context: &RequestContext, topics: Vec<CreatableTopic>) -> Refusals {
    let request = CreateTopicsRequest { topics, ..CreateTopicsRequest::default() };
    let command = Command::CreateTopics(request);
    let entries = command.entries(&context.shard.shared.image.load());
    match submit!(context, CreateTopics, command) {
        Ok(response) => {
            let read = move || {
                let results = response.topics.into_iter();
                let told = results.map(|topic| (topic.name, ErrorCode::from_code(topic.error_code)));
                // Another request may have been quicker: then the topic is there.
                told.filter(|(_, error)| !matches!(error, ErrorCode::None | ErrorCode::TopicAlreadyExists))
                    .collect()
            };
            Refusals::Of(context.by_size(entries, read).await)
        }
        Err(error) => Refusals::All(error.code),
    }
}

fn respond(
    shared: &Shared,
    image: &MetadataImage,
    asked: Asked,
    refusals: &Refusals,
    operations: Operations,
) -> MetadataResponse {
    let mut response = about_cluster(shared, image);
    match asked {
        Asked::All => response.topics = image.topics().map(|topic| about_topic(topic)).collect(),
        Asked::Ids(ids) => response.topics = ids.into_iter().map(|id| by_id(image, id)).collect(),
        Asked::Names(names) => {
            let topics = names.into_iter().map(|name| {
                let refusal = refusals.get(&name);
                by_name(image, name, refusal)
            });
            response.topics = topics.collect();
        }
        Asked::Refused(topics) => return refused(response, topics),
    }
    for topic in &mut response.topics {
        topic.topic_authorized_operations = operations.topic;
    }
    response.cluster_authorized_operations = operations.cluster;
    response
}

fn about_cluster(shared: &Shared, image: &MetadataImage) -> MetadataResponse {
    let (host, port) = &shared.advertised;
    let broker = image.broker();
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: broker.node_id,
            host: WireString::from(host.as_str()),
            port: i32::from(*port),
            rack: broker.rack.as_deref().map(WireString::from),
        }],
        cluster_id: Some(image.cluster_id().clone()),
        controller_id: broker.node_id,
        ..MetadataResponse::default()
    }
}

fn refused(response: MetadataResponse, topics: Vec<MetadataRequestTopic>) -> MetadataResponse {
    let error = ErrorCode::InvalidRequest;
    let topics = topics.into_iter().map(|topic| MetadataResponseTopic {
        error_code: error.code(),
        // Null cannot be said in the versions that are refused.
        name: Some(topic.name.unwrap_or_default()),
        topic_id: topic.topic_id,
        ..MetadataResponseTopic::default()
    });
    MetadataResponse { topics: topics.collect(), error_code: error.code(), ..response }
}

fn by_id(image: &MetadataImage, id: Uuid) -> MetadataResponseTopic {
    image.topic_by_id(id).map_or_else(
        || MetadataResponseTopic {
            error_code: ErrorCode::UnknownTopicId.code(),
            name: None,
            topic_id: id,
            ..MetadataResponseTopic::default()
        },
        |topic| about_topic(topic),
    )
}

fn by_name(image: &MetadataImage, name: WireString, refusal: Option<ErrorCode>) -> MetadataResponseTopic {
    if let Some(topic) = image.topic(&name) {
        return about_topic(topic);
    }
    let error = match (validate_topic_name(&name), refusal) {
        (Err(_), _) => ErrorCode::InvalidTopicException,
        (Ok(()), Some(error)) => error,
        (Ok(()), None) => ErrorCode::UnknownTopicOrPartition,
    };
    MetadataResponseTopic {
        error_code: error.code(),
        is_internal: is_internal(&name),
        name: Some(name),
        ..MetadataResponseTopic::default()
    }
}

fn about_topic(topic: &TopicImage) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| about_partition(index, partition));
    MetadataResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: is_internal(&topic.name),
        partitions: partitions.collect(),
        ..MetadataResponseTopic::default()
    }
}

fn about_partition(index: i32, partition: &PartitionImage) -> MetadataResponsePartition {
    let error = if partition.leader < 0 { ErrorCode::LeaderNotAvailable } else { ErrorCode::None };
    MetadataResponsePartition {
        error_code: error.code(),
        partition_index: index,
        leader_id: partition.leader,
        leader_epoch: partition.leader_epoch,
        replica_nodes: partition.replicas.clone(),
        isr_nodes: partition.isr.clone(),
        offline_replicas: Vec::new(),
    }
}
