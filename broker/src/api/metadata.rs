//! Metadata (3), versions 0-13: KIP-4, KIP-430 (authorized operations, 8), KIP-516 (topic ids, 10 and 12), KIP-700 (no
//! cluster operations from 11), KIP-1102 (top-level error, 13).
//!
//! A topic that is created on demand is there when the answer leaves, so that a client needs no second request.

use std::collections::{BTreeMap, BTreeSet};

use penstock_core::metadata::{
    Answer, Command, MetadataImage, PartitionImage, TopicImage, is_internal, validate_topic_name,
};
use penstock_protocol::messages::create_topics_request::CreatableTopic;
use penstock_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use penstock_protocol::messages::{CreateTopicsRequest, MetadataRequest, MetadataResponse};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use super::RequestContext;
use super::operations::{CLUSTER_OPERATIONS, NOT_ASKED, TOPIC_OPERATIONS};

pub(super) async fn handle(context: RequestContext, request: MetadataRequest) -> MetadataResponse {
    let image = context.shard.shared.image.load_full();
    let mut response = about_cluster(&context, &image);
    let asked = match Asked::of(&request, context.version) {
        Ok(asked) => asked,
        Err(error) => return refused(response, &request, error),
    };
    let operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { NOT_ASKED };
    match asked {
        Asked::All => response.topics = image.topics().map(|topic| about_topic(topic)).collect(),
        Asked::Ids(ids) => response.topics = ids.into_iter().map(|id| by_id(&image, id)).collect(),
        Asked::Names(names) => {
            let missing = names.iter().filter(|name| image.topic(name).is_none());
            let refusals = create_missing(&context, &request, missing).await;
            let image = context.shard.shared.image.load_full();
            let topics = names.into_iter().map(|name| {
                let refusal = refusals.get(&name).copied();
                by_name(&image, name, refusal)
            });
            response.topics = topics.collect();
        }
    }
    for topic in &mut response.topics {
        topic.topic_authorized_operations = operations;
    }
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// What a request asks for, each topic once.
enum Asked {
    All,
    Ids(BTreeSet<Uuid>),
    Names(BTreeSet<WireString>),
}

impl Asked {
    fn of(request: &MetadataRequest, version: i16) -> Result<Asked, ErrorCode> {
        let topics = match &request.topics {
            None => return Ok(Asked::All),
            // Version 0 cannot say null.
            Some(topics) if version == 0 && topics.is_empty() => return Ok(Asked::All),
            Some(topics) => topics,
        };
        let by_id = |topic_id: Uuid| !topic_id.is_zero();
        if version < 12 && topics.iter().any(|topic| topic.name.is_none() || by_id(topic.topic_id)) {
            return Err(ErrorCode::InvalidRequest);
        }
        if topics.iter().any(|topic| by_id(topic.topic_id)) {
            return Ok(Asked::Ids(
                topics.iter().map(|topic| topic.topic_id).filter(|id| by_id(*id)).collect(),
            ));
        }
        let names = topics.iter().map(|topic| topic.name.clone().ok_or(ErrorCode::InvalidRequest));
        Ok(Asked::Names(names.collect::<Result<_, _>>()?))
    }
}

/// Creates what may be created of `missing`; gives the topics that could not be, with the reason.
async fn create_missing(
    context: &RequestContext,
    request: &MetadataRequest,
    missing: impl Iterator<Item = &WireString>,
) -> BTreeMap<WireString, ErrorCode> {
    let broker = context.shard.shared.image.load().broker().clone();
    if !request.allow_auto_topic_creation || !broker.auto_create_topics {
        return BTreeMap::new();
    }
    // What belongs to the broker itself is created by who needs it, with the configs that it needs.
    let creatable = missing.filter(|name| validate_topic_name(name).is_ok() && !is_internal(name));
    let topics = creatable.map(|name| CreatableTopic {
        name: name.clone(),
        num_partitions: -1,
        replication_factor: -1,
        ..CreatableTopic::default()
    });
    let topics: Vec<CreatableTopic> = topics.collect();
    if topics.is_empty() {
        return BTreeMap::new();
    }
    let names: Vec<WireString> = topics.iter().map(|topic| topic.name.clone()).collect();
    let command = Command::CreateTopics(CreateTopicsRequest { topics, ..CreateTopicsRequest::default() });
    match context.shard.metadata(command).await {
        Ok(Answer::CreateTopics(response)) => {
            let results = response.topics.into_iter();
            let told = results.map(|topic| (topic.name, ErrorCode::from_code(topic.error_code)));
            // Another request may have been quicker: then the topic is there.
            told.filter(|(_, error)| !matches!(error, ErrorCode::None | ErrorCode::TopicAlreadyExists))
                .collect()
        }
        Ok(_) => unreachable!("an answer has the name of its command"),
        Err(error) => names.into_iter().map(|name| (name, error)).collect(),
    }
}

fn about_cluster(context: &RequestContext, image: &MetadataImage) -> MetadataResponse {
    let (host, port) = &context.shard.shared.advertised;
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

fn refused(response: MetadataResponse, request: &MetadataRequest, error: ErrorCode) -> MetadataResponse {
    let topics = request.topics.iter().flatten().map(|topic| MetadataResponseTopic {
        error_code: error.code(),
        // Null cannot be said in the versions that are refused.
        name: Some(topic.name.clone().unwrap_or_default()),
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
