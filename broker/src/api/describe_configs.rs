//! DescribeConfigs (32), versions 1-4: KIP-133, KIP-226 (synonyms), KIP-569 (types and documentation, 3).

use std::collections::BTreeSet;

use penstock_core::config::describe::{ConfigEntry, broker_entries, cluster_entries, topic_entries};
use penstock_core::metadata::{ApiError, MetadataImage, resource_type, validate_topic_name};
use penstock_protocol::messages::describe_configs_request::DescribeConfigsResource;
use penstock_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use penstock_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::RequestContext;
use crate::runtime::task;

/// Resources in one request: each may be answered with hundreds of configs.
const RESOURCES_MAX: usize = 10_000;
/// Resources described before other tasks of the shard get their turn.
const TURN: usize = 64;

pub(super) async fn handle(
    context: RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let image = context.shard.shared.image.load_full();
    let mut seen = BTreeSet::new();
    let mut results = Vec::new();
    for (at, resource) in request.resources.iter().enumerate() {
        let once = seen.insert((resource.resource_type, &resource.resource_name));
        let entries = match once && seen.len() <= RESOURCES_MAX {
            true => entries(&image, resource),
            // A few bytes more of a request must not be worth many kilobytes more of an answer.
            false => {
                Err(invalid(format!("A request names each resource once, and at most {RESOURCES_MAX}.")))
            }
        };
        results.push(describe(entries, resource, &request));
        if at % TURN == TURN - 1 {
            task::yield_now().await;
        }
    }
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

fn describe(
    entries: Result<Vec<ConfigEntry>, ApiError>,
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResult {
    let (error, message, configs) = match entries {
        Ok(entries) => (ErrorCode::None, None, told(entries, resource, request)),
        Err(error) => (error.code, error.message, Vec::new()),
    };
    DescribeConfigsResult {
        error_code: error.code(),
        // Empty rather than null where there is none, as in Kafka.
        error_message: Some(message.map_or_else(WireString::default, WireString::from)),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        configs,
    }
}

fn invalid(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

fn entries(image: &MetadataImage, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, ApiError> {
    let (name, broker) = (resource.resource_name.as_str(), image.broker());
    match resource.resource_type {
        resource_type::TOPIC => {
            validate_topic_name(name)
                .map_err(|message| ApiError::new(ErrorCode::InvalidTopicException, message))?;
            let topic = image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
            Ok(topic_entries(broker, &topic.overrides))
        }
        resource_type::BROKER if name.is_empty() => Ok(cluster_entries(broker)),
        resource_type::BROKER if image.is_this_broker(name) => Ok(broker_entries(broker)),
        resource_type::BROKER => match name.parse::<i32>() {
            Ok(id) => Err(invalid(format!(
                "Unexpected broker id, expected {} or empty string, but received {id}",
                broker.node_id
            ))),
            Err(_) => Err(invalid(format!("Broker id must be an integer, but it is: {name}"))),
        },
        // None can be set yet, so none is told.
        resource_type::CLIENT_METRICS | resource_type::GROUP if name.is_empty() => {
            Err(invalid("Groups and client metrics have names that are not empty.".to_owned()))
        }
        resource_type::CLIENT_METRICS | resource_type::GROUP => Ok(Vec::new()),
        other => Err(invalid(format!("Unsupported resource type: {other}"))),
    }
}

fn told(
    entries: Vec<ConfigEntry>,
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> Vec<DescribeConfigsResourceResult> {
    let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    let keys: Option<BTreeSet<&str>> = keys.map(|keys| keys.iter().map(|key| key.as_str()).collect());
    let wanted =
        entries.into_iter().filter(|entry| keys.as_ref().is_none_or(|keys| keys.contains(entry.def.0.name)));
    wanted.map(|entry| about(entry, request)).collect()
}

fn about(entry: ConfigEntry, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let def = entry.def.0;
    let synonyms = entry.synonyms.into_iter().filter(|_| request.include_synonyms);
    let synonyms = synonyms.map(|synonym| DescribeConfigsSynonym {
        name: WireString::from_static(synonym.name),
        value: synonym.value.map(WireString::from),
        source: synonym.source as i8,
    });
    DescribeConfigsResourceResult {
        name: WireString::from_static(def.name),
        value: entry.value.map(WireString::from),
        read_only: entry.read_only,
        config_source: entry.source as i8,
        is_sensitive: def.is_sensitive(),
        synonyms: synonyms.collect(),
        config_type: def.kind as i8,
        documentation: request.include_documentation.then(|| WireString::from(def.documentation())),
    }
}
