//! Changing configs of topics and brokers, all at once (AlterConfigs) or one by one (IncrementalAlterConfigs, KIP-339).
//! Codes and sentences are Apache Kafka's, but that keys unknown to this broker are refused for brokers too.

use std::collections::BTreeSet;

use penstock_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ConfigRecord, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_request, alter_configs_response,
    incremental_alter_configs_request, incremental_alter_configs_response,
};
use penstock_protocol::{ErrorCode, WireString};

use super::machine::MetadataMachine;
use super::names::validate_topic_name;
use super::record::MetadataRecord;
use super::{ApiError, resource_type};
use crate::config::broker::validate_dynamic_configs;
use crate::config::definition::find;
use crate::config::topic::validate_topic_configs;
use crate::config::{ConfigError, Kind, Overrides, Scope};

/// Longest config value in bytes, as the protocol's strings allow.
const VALUE_LEN_MAX: usize = 32_767;

const RECORDS_PER_REQUEST_MAX: usize = 10_000;

/// Largest number of configs that one resource may be given at once: more than there are keys.
const CONFIGS_PER_RESOURCE_MAX: usize = 1_000;

pub(super) fn alter(
    machine: &MetadataMachine,
    request: &AlterConfigsRequest,
) -> (Vec<MetadataRecord>, AlterConfigsResponse) {
    let wanted = request
        .resources
        .iter()
        .map(|resource| ((resource.resource_type, &resource.resource_name), replaced(machine, resource)));
    let (records, told) = decided(machine, wanted.collect(), request.validate_only);
    let responses = told.into_iter().map(|(error_code, error_message, (resource_type, resource_name))| {
        alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type,
            resource_name: resource_name.clone(),
        }
    });
    (records, AlterConfigsResponse { responses: responses.collect(), ..AlterConfigsResponse::default() })
}

pub(super) fn alter_incrementally(
    machine: &MetadataMachine,
    request: &IncrementalAlterConfigsRequest,
) -> (Vec<MetadataRecord>, IncrementalAlterConfigsResponse) {
    let wanted = request
        .resources
        .iter()
        .map(|resource| ((resource.resource_type, &resource.resource_name), edited(machine, resource)));
    let (records, told) = decided(machine, wanted.collect(), request.validate_only);
    let responses = told.into_iter().map(|(error_code, error_message, (resource_type, resource_name))| {
        incremental_alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type,
            resource_name: resource_name.clone(),
        }
    });
    let responses = responses.collect();
    (records, IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() })
}

type ResourceKey<'a> = (i8, &'a WireString);
/// What an answer says of a resource: code, message, and which one it is.
type Told<'a> = (i16, Option<WireString>, ResourceKey<'a>);

/// The records that bring the resources to what is wanted of them, none of which depends on another's.
fn decided<'a>(
    machine: &MetadataMachine,
    wanted: Vec<(ResourceKey<'a>, Result<Overrides, ApiError>)>,
    validate_only: bool,
) -> (Vec<MetadataRecord>, Vec<Told<'a>>) {
    // This broker is one resource, however its number is written.
    let identity = |(kind, name): ResourceKey<'a>| {
        let this_broker = kind == resource_type::BROKER && machine.image.is_this_broker(name);
        (kind, (!this_broker).then_some(name))
    };
    let twice = named_twice(wanted.iter().map(|(key, _)| identity(*key)));
    let mut records = Vec::new();
    let mut answers = Vec::with_capacity(wanted.len());
    for (key, wanted) in wanted {
        let wanted = if twice.contains(&identity(key)) { Err(once_only()) } else { wanted };
        let outcome = wanted.and_then(|wanted| changes(machine, key, &wanted));
        let outcome = outcome.and_then(|changes| within_bound(records.len(), changes));
        let (error_code, error_message) = told(&outcome);
        records.extend(outcome.unwrap_or_default());
        answers.push((error_code, error_message, key));
    }
    (if validate_only { Vec::new() } else { records }, answers)
}

fn named_twice<K: Ord + Copy>(keys: impl Iterator<Item = K>) -> BTreeSet<K> {
    let mut seen = BTreeSet::new();
    keys.filter(|key| !seen.insert(*key)).collect()
}

fn once_only() -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, "Each resource must appear at most once.")
}

/// One request leads to no more records than Apache Kafka lets it.
fn within_bound(records: usize, changes: Vec<MetadataRecord>) -> Result<Vec<MetadataRecord>, ApiError> {
    if records + changes.len() <= RECORDS_PER_REQUEST_MAX {
        return Ok(changes);
    }
    let message = format!("At most {RECORDS_PER_REQUEST_MAX} configs may change in one request.");
    Err(ApiError::new(ErrorCode::PolicyViolation, message))
}

fn told(outcome: &Result<Vec<MetadataRecord>, ApiError>) -> (i16, Option<WireString>) {
    match outcome {
        Ok(_) => (ErrorCode::None.code(), None),
        Err(error) => (error.code.code(), error.wire_message()),
    }
}

/// What the resource's configs would be once all are replaced.
fn replaced(
    machine: &MetadataMachine,
    resource: &alter_configs_request::AlterConfigsResource,
) -> Result<Overrides, ApiError> {
    let pairs: Vec<_> = resource.configs.iter().map(|config| (&config.name, config.value.as_ref())).collect();
    check_shape(&pairs, |_| true)?;
    check_resource(machine, (resource.resource_type, &resource.resource_name))?;
    let set = pairs.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?.to_string())));
    Ok(set.collect())
}

/// What the resource's configs would be after each operation.
fn edited(
    machine: &MetadataMachine,
    resource: &incremental_alter_configs_request::AlterConfigsResource,
) -> Result<Overrides, ApiError> {
    const DELETE: i8 = 1;
    let pairs: Vec<_> = resource.configs.iter().map(|config| (&config.name, config.value.as_ref())).collect();
    check_shape(&pairs, |at| resource.configs[at].config_operation != DELETE)?;
    let key = (resource.resource_type, &resource.resource_name);
    check_resource(machine, key)?;
    let current = machine.image.overrides(resource.resource_type, &resource.resource_name);
    let mut wanted = current.cloned().unwrap_or_default();
    for config in &resource.configs {
        let name = config.name.as_str();
        let value = config.value.as_deref().unwrap_or_default();
        match config.config_operation {
            0 => _ = wanted.insert(name.to_owned(), value.to_owned()),
            DELETE => _ = wanted.remove(name),
            2 | 3 => {
                let edited = edit_list(machine, key, &wanted, (name, value, config.config_operation == 2))?;
                wanted.insert(name.to_owned(), edited);
            }
            other => {
                let message = format!("Unknown operations type {other}");
                return Err(ApiError::new(ErrorCode::InvalidRequest, message));
            }
        }
    }
    Ok(wanted)
}

/// A list with elements added that it lacks, or with elements taken away.
fn edit_list(
    machine: &MetadataMachine,
    (kind, _): ResourceKey<'_>,
    wanted: &Overrides,
    (name, value, add): (&str, &str, bool),
) -> Result<String, ApiError> {
    let scope = if kind == resource_type::TOPIC { Scope::Topic } else { Scope::Broker };
    let def = find(scope, name).map_err(|error| refused(&error))?;
    if def.kind != Kind::List {
        let operation = if add { "APPEND" } else { "SUBTRACT" };
        let message = format!("Can't {operation} to key {name} because its type is not LIST.");
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    }
    let now = match (wanted.get(name), scope) {
        (Some(text), _) => text.clone(),
        (None, Scope::Topic) => machine.image.broker.topic_default(def).to_string(),
        (None, Scope::Broker) => def.default.unwrap_or_default().to_owned(),
    };
    let mut elements: Vec<&str> =
        now.split(',').map(str::trim).filter(|element| !element.is_empty()).collect();
    for element in value.split(',').map(str::trim) {
        if !add {
            elements.retain(|other| *other != element);
        } else if !elements.contains(&element) {
            elements.push(element);
        }
    }
    Ok(elements.join(","))
}

/// Keys come once, and with a value where one is needed.
fn check_shape(
    pairs: &[(&WireString, Option<&WireString>)],
    needs_value: impl Fn(usize) -> bool,
) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    if pairs.len() > CONFIGS_PER_RESOURCE_MAX {
        return invalid(format!(
            "At most {CONFIGS_PER_RESOURCE_MAX} configs of a resource may change at once."
        ));
    }
    let mut seen = BTreeSet::new();
    if !pairs.iter().all(|(name, _)| seen.insert(*name)) {
        return invalid("Error due to duplicate config keys".to_owned());
    }
    let nulls = pairs.iter().enumerate().filter(|(at, (_, value))| value.is_none() && needs_value(*at));
    let nulls: Vec<&str> = nulls.map(|(_, (name, _))| name.as_str()).collect();
    if !nulls.is_empty() {
        return invalid(format!("Null value not supported for : {}", nulls.join(", ")));
    }
    Ok(())
}

/// The resource is of a kind that has configs, and exists.
fn check_resource(machine: &MetadataMachine, (kind, name): ResourceKey<'_>) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    match kind {
        resource_type::TOPIC => {
            if name.is_empty() {
                return invalid("Default topic resources are not allowed.".to_owned());
            }
            validate_topic_name(name)
                .map_err(|message| ApiError::new(ErrorCode::InvalidTopicException, message))
        }
        resource_type::BROKER if name.is_empty() => Ok(()),
        resource_type::BROKER => {
            let node_id = machine.image.broker.node_id;
            match name.parse::<i32>() {
                Err(_) => invalid(format!("Node id must be an integer, but it is: {name}")),
                Ok(id) if id != node_id => {
                    invalid(format!("Unexpected broker id, expected {node_id}, but received {name}"))
                }
                Ok(_) => Ok(()),
            }
        }
        other => invalid(format!("Unknown resource type {other}")),
    }
}

/// Records that lead from the resource's configs to the wanted ones, if those are allowed.
fn changes(
    machine: &MetadataMachine,
    (kind, name): ResourceKey<'_>,
    wanted: &Overrides,
) -> Result<Vec<MetadataRecord>, ApiError> {
    if kind == resource_type::TOPIC {
        check_topic(machine, wanted)?;
    } else {
        check_broker(machine, name, wanted)?;
    }
    let Some(current) = machine.image.overrides(kind, name) else {
        let message = format!("The topic '{name}' does not exist.");
        return Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, message));
    };
    let resource_name = match kind {
        resource_type::BROKER if !name.is_empty() => machine.image.broker.node_id.to_string().into(),
        _ => name.detached(),
    };
    let record = |key: &String, value: Option<&String>| {
        MetadataRecord::Config(ConfigRecord {
            resource_type: kind,
            resource_name: resource_name.clone(),
            name: WireString::from(key.as_str()),
            value: value.map(|value| WireString::from(value.as_str())),
        })
    };
    let gone = current.keys().filter(|key| !wanted.contains_key(*key)).map(|key| record(key, None));
    let set = wanted.iter().filter(|(key, value)| current.get(*key) != Some(*value));
    Ok(gone.chain(set.map(|(key, value)| record(key, Some(value)))).collect())
}

/// Checks the configs that a topic is to have.
pub(super) fn check_topic(machine: &MetadataMachine, wanted: &Overrides) -> Result<(), ApiError> {
    check_lengths(wanted)?;
    validate_topic_configs(&machine.image.broker, wanted).map_err(|error| refused(&error))
}

fn check_broker(machine: &MetadataMachine, name: &str, wanted: &Overrides) -> Result<(), ApiError> {
    check_lengths(wanted)?;
    let whole_cluster = name.is_empty();
    let image = &machine.image;
    let outcome = validate_dynamic_configs(wanted, whole_cluster).and_then(|()| {
        let (cluster, node) = if whole_cluster {
            (wanted.clone(), (*image.node_overrides).clone())
        } else {
            ((*image.cluster_overrides).clone(), wanted.clone())
        };
        image.broker.with_dynamic(cluster, node)
    });
    match outcome {
        Ok(_) => Ok(()),
        Err(error @ ConfigError::Unknown { .. }) => Err(refused(&error)),
        // Kafka answers so for brokers, and INVALID_CONFIG for topics (KAFKA-13609).
        Err(error) => Err(ApiError::new(ErrorCode::InvalidRequest, error.to_string())),
    }
}

fn check_lengths(wanted: &Overrides) -> Result<(), ApiError> {
    if wanted.values().all(|value| value.len() <= VALUE_LEN_MAX) {
        return Ok(());
    }
    let message = format!(
        "The configuration value cannot be added because it exceeds the maximum value size of {VALUE_LEN_MAX} bytes."
    );
    Err(ApiError::new(ErrorCode::InvalidConfig, message))
}

fn refused(error: &ConfigError) -> ApiError {
    ApiError::new(ErrorCode::InvalidConfig, error.to_string())
}
