//! FindCoordinator (10), versions 0-6: KIP-98 (key types, 1), 699 (several keys, 4).

use penstock_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use penstock_protocol::messages::find_coordinator_response::Coordinator;
use penstock_protocol::messages::{CreateTopicsRequest, FindCoordinatorRequest, FindCoordinatorResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::super::{GroupConfig, OFFSETS_TOPIC, partition_for};
use crate::metadata::MetadataImage;

/// The key names a group.
const GROUP: i8 = 0;
/// From this version on a request has several keys.
const KEYS_FROM: i16 = 4;

/// Where clients reach a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: WireString,
    /// Port.
    pub port: i32,
}

/// Whether the topic that keeps groups has to be made first.
pub fn lacks_topic(request: &FindCoordinatorRequest, image: &MetadataImage) -> bool {
    request.key_type == GROUP && image.topic(OFFSETS_TOPIC).is_none()
}

/// The request that makes the topic: compacted, with as many replicas as asked for or as there are brokers.
pub fn offsets_topic(config: &GroupConfig, brokers: i16) -> CreateTopicsRequest {
    let set = |name: &'static str, value: String| CreatableTopicConfig {
        name: WireString::from_static(name),
        value: Some(WireString::from(value)),
    };
    let topic = CreatableTopic {
        name: WireString::from_static(OFFSETS_TOPIC),
        num_partitions: config.offsets_topic_partitions,
        replication_factor: config.offsets_topic_replication_factor.min(brokers),
        configs: vec![
            set("cleanup.policy", "compact".to_owned()),
            set("compression.type", "producer".to_owned()),
            set("segment.bytes", config.offsets_topic_segment_bytes.to_string()),
        ],
        ..CreatableTopic::default()
    };
    CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() }
}

/// Says which node coordinates each group: the leader of its partition. `endpoint_of` gives the addresses of nodes that
/// are alive. Other key types have no coordinator here and are refused with INVALID_REQUEST.
pub fn answer(
    request: &FindCoordinatorRequest,
    version: i16,
    image: &MetadataImage,
    endpoint_of: impl Fn(i32) -> Option<Endpoint>,
) -> FindCoordinatorResponse {
    let find = |key: &WireString| {
        let found = leader_of(request.key_type, key, image)
            .and_then(|node| Ok((node, endpoint_of(node).ok_or(ErrorCode::CoordinatorNotAvailable)?)));
        match found {
            Ok((node_id, Endpoint { host, port })) => {
                Coordinator { key: key.clone(), node_id, host, port, ..Coordinator::default() }
            }
            Err(code) => Coordinator {
                key: key.clone(),
                node_id: -1,
                port: -1,
                error_code: code.code(),
                error_message: Some(WireString::from_static(code.message())),
                ..Coordinator::default()
            },
        }
    };
    if version >= KEYS_FROM {
        let coordinators = request.coordinator_keys.iter().map(find).collect();
        return FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() };
    }
    let one = find(&request.key);
    FindCoordinatorResponse {
        error_code: one.error_code,
        error_message: Some(WireString::from_static(ErrorCode::from_code(one.error_code).message())),
        node_id: one.node_id,
        host: one.host,
        port: one.port,
        ..FindCoordinatorResponse::default()
    }
}

fn leader_of(key_type: i8, key: &str, image: &MetadataImage) -> Result<i32, ErrorCode> {
    if key_type != GROUP {
        return Err(ErrorCode::InvalidRequest);
    }
    let topic = image.topic(OFFSETS_TOPIC).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let partitions = i32::try_from(topic.partitions.len()).ok().filter(|partitions| *partitions > 0);
    let partition = partition_for(key, partitions.ok_or(ErrorCode::CoordinatorNotAvailable)?);
    let leader = topic.partition(partition).map(|partition| partition.leader);
    leader.filter(|leader| *leader >= 0).ok_or(ErrorCode::CoordinatorNotAvailable)
}
