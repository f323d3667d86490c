//! Creating topics. Codes, order of checks and sentences are those of Apache Kafka's
//! controller, seen from a cluster of one broker.

use std::collections::{BTreeMap, BTreeSet};

use penstock_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use penstock_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use penstock_protocol::messages::{ConfigRecord, CreateTopicsRequest, CreateTopicsResponse, TopicRecord};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use super::image::PartitionImage;
use super::machine::MetadataMachine;
use super::names::{collision_form, validate_topic_name};
use super::record::MetadataRecord;
use super::shards::ShardChooser;
use super::{ApiError, PARTITIONS_PER_REQUEST_MAX, configs, resource_type};
use crate::config::{Overrides, describe};

/// Kafka keeps its metadata log under this name and lets nobody create it.
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(super) fn create_topics(
    machine: &MetadataMachine,
    request: &CreateTopicsRequest,
    new_id: &mut dyn FnMut() -> Uuid,
) -> (Vec<MetadataRecord>, CreateTopicsResponse) {
    let twice = named_twice(request.topics.iter().map(|topic| &topic.name));
    let mut creation = Creation {
        machine,
        chooser: ShardChooser::new(machine),
        defaults: told_configs(machine, &Overrides::new()),
        partitions: 0,
        records: Vec::new(),
    };
    let mut results = Vec::new();
    for topic in request.topics.iter().filter(|topic| !twice.contains(&topic.name)) {
        let result = creation.create(topic, new_id);
        results.push(result.unwrap_or_else(|error| refused_topic(&topic.name, &error)));
    }
    for name in twice {
        let error = ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name.");
        results.push(refused_topic(name, &error));
    }
    let records = if request.validate_only { Vec::new() } else { creation.records };
    (records, CreateTopicsResponse { topics: results, ..CreateTopicsResponse::default() })
}

fn refused_topic(name: &WireString, error: &ApiError) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.clone(),
        error_code: error.code.code(),
        error_message: error.wire_message(),
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}

/// One CreateTopics request on its way: what it created so far.
struct Creation<'a> {
    machine: &'a MetadataMachine,
    chooser: ShardChooser,
    /// What is told of the configs of a topic that sets none: worked out once for all topics of the request.
    defaults: Vec<CreatableTopicConfigs>,
    partitions: usize,
    records: Vec<MetadataRecord>,
}

impl Creation<'_> {
    fn create(
        &mut self,
        topic: &CreatableTopic,
        new_id: &mut dyn FnMut() -> Uuid,
    ) -> Result<CreatableTopicResult, ApiError> {
        let name = topic.name.as_str();
        self.check_name(name)?;
        let overrides = creation_overrides(topic)?;
        configs::check_topic(self.machine, &overrides)?;
        let replicas = self.replicas(topic)?;
        self.take_room(replicas.len())?;
        let shards = self.chooser.choose(std::iter::empty(), replicas.len());
        // A refused topic costs no random number.
        let id = new_id();
        self.records.push(MetadataRecord::Topic(TopicRecord { name: topic.name.detached(), topic_id: id }));
        self.records.extend(overrides.iter().map(|(key, value)| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: resource_type::TOPIC,
                resource_name: topic.name.detached(),
                name: WireString::from(key.as_str()),
                value: Some(WireString::from(value.as_str())),
            })
        }));
        let replication_factor = replicas.first().map_or(1, Vec::len);
        let partitions = replicas.len();
        for (index, (replicas, shard)) in replicas.into_iter().zip(shards).enumerate() {
            self.records.push(new_partition(replicas, shard).to_record(id, index));
        }
        Ok(CreatableTopicResult {
            name: topic.name.clone(),
            topic_id: id,
            error_message: None,
            num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication_factor: i16::try_from(replication_factor).unwrap_or(i16::MAX),
            configs: Some(match overrides.is_empty() {
                true => self.defaults.clone(),
                false => told_configs(self.machine, &overrides),
            }),
            ..CreatableTopicResult::default()
        })
    }

    fn check_name(&self, name: &str) -> Result<(), ApiError> {
        let invalid = |message: String| ApiError::new(ErrorCode::InvalidTopicException, message);
        if self.machine.image.topic(name).is_some() {
            return Err(ApiError::new(
                ErrorCode::TopicAlreadyExists,
                format!("Topic '{name}' already exists."),
            ));
        }
        if name == METADATA_TOPIC {
            let message = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        validate_topic_name(name).map_err(invalid)?;
        let same = collision_form(name).and_then(|form| self.machine.collisions.get(&form)?.first());
        match same {
            Some(other) => Err(invalid(format!("Topic '{name}' collides with existing topic: {other}"))),
            None => Ok(()),
        }
    }

    /// Replicas of each partition.
    fn replicas(&self, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, ApiError> {
        if !topic.assignments.is_empty() {
            return self.manual_replicas(topic);
        }
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            return Err(ApiError::new(
                ErrorCode::InvalidReplicationFactor,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            ));
        }
        if topic.num_partitions < -1 || topic.num_partitions == 0 {
            return Err(ApiError::new(
                ErrorCode::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.",
            ));
        }
        let broker = &self.machine.image.broker;
        let default = broker.default_replication_factor;
        let factor = if topic.replication_factor == -1 { default } else { topic.replication_factor };
        check_replication_factor(factor)?;
        let partitions =
            if topic.num_partitions == -1 { broker.num_partitions } else { topic.num_partitions };
        let partitions = usize::try_from(partitions).unwrap_or(0);
        if partitions > PARTITIONS_PER_REQUEST_MAX {
            return Err(excessive());
        }
        Ok(vec![vec![broker.node_id]; partitions])
    }

    fn manual_replicas(&self, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, ApiError> {
        let invalid = |message: &str| Err(ApiError::new(ErrorCode::InvalidRequest, message));
        if topic.replication_factor != -1 {
            return invalid(
                "A manual partition assignment was specified, but replication factor was not set to -1.",
            );
        }
        if topic.num_partitions != -1 {
            return invalid(
                "A manual partition assignment was specified, but numPartitions was not set to -1.",
            );
        }
        let wrong = |message: String| ApiError::new(ErrorCode::InvalidReplicaAssignment, message);
        let mut partitions = BTreeMap::new();
        let mut factor = None;
        for CreatableReplicaAssignment { partition_index, broker_ids } in &topic.assignments {
            if partitions.contains_key(partition_index) {
                return Err(wrong(format!(
                    "Found multiple manual partition assignments for partition {partition_index}"
                )));
            }
            check_assignment(self.machine.image.broker.node_id, broker_ids, factor)?;
            factor = Some(broker_ids.len());
            partitions.insert(*partition_index, broker_ids.clone());
        }
        let consecutive = partitions.keys().zip(0..).all(|(index, expected)| *index == expected);
        if !consecutive {
            return Err(wrong("partitions should be a consecutive 0-based integer sequence".to_owned()));
        }
        Ok(partitions.into_values().collect())
    }

    fn take_room(&mut self, partitions: usize) -> Result<(), ApiError> {
        check_room(self.machine, self.partitions, partitions)?;
        self.partitions += partitions;
        Ok(())
    }
}

fn told_configs(machine: &MetadataMachine, overrides: &Overrides) -> Vec<CreatableTopicConfigs> {
    let entries = describe::creation_entries(&machine.image.broker, overrides);
    let told = entries.into_iter().map(|entry| CreatableTopicConfigs {
        name: WireString::from_static(entry.def.0.name),
        value: entry.value.map(WireString::from),
        read_only: entry.read_only,
        config_source: entry.source as i8,
        is_sensitive: entry.def.0.is_sensitive(),
    });
    told.collect()
}

pub(super) fn excessive() -> ApiError {
    ApiError::new(ErrorCode::PolicyViolation, "Excessively large number of partitions per request.")
}

/// Room for `more` partitions beside those that the request has taken already.
pub(super) fn check_room(machine: &MetadataMachine, taken: usize, more: usize) -> Result<(), ApiError> {
    if taken + more > PARTITIONS_PER_REQUEST_MAX {
        return Err(excessive());
    }
    let (total, max) =
        (machine.image.partitions_len() + taken + more, machine.image.broker.limits.partitions);
    if total > max {
        let message =
            format!("This broker would have {total} partitions, but penstock.partitions.max is {max}.");
        return Err(ApiError::new(ErrorCode::PolicyViolation, message));
    }
    Ok(())
}

fn check_replication_factor(factor: i16) -> Result<(), ApiError> {
    if factor <= 1 {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::InvalidReplicationFactor,
        format!(
            "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be \
             reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned."
        ),
    ))
}

/// A manual assignment names this broker once and nothing else.
pub(super) fn check_assignment(node_id: i32, brokers: &[i32], factor: Option<usize>) -> Result<(), ApiError> {
    let message = if brokers.is_empty() {
        "The manual partition assignment includes an empty replica list.".to_owned()
    } else if let Some(other) = brokers.iter().filter(|broker| **broker != node_id).min() {
        format!("The manual partition assignment includes broker {other}, but no such broker is registered.")
    } else if brokers.len() > 1 {
        format!("The manual partition assignment includes the broker {node_id} more than once.")
    } else if let Some(factor) = factor.filter(|factor| *factor != brokers.len()) {
        format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
             previous partitions, which have {factor} replica(s).",
            brokers.len()
        )
    } else {
        return Ok(());
    };
    Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message))
}

pub(super) fn new_partition(replicas: Vec<i32>, shard: usize) -> PartitionImage {
    PartitionImage {
        shard,
        leader: replicas.first().copied().unwrap_or(-1),
        leader_epoch: 0,
        partition_epoch: 0,
        isr: replicas.clone(),
        replicas,
    }
}

fn creation_overrides(topic: &CreatableTopic) -> Result<Overrides, ApiError> {
    let nulls: Vec<&str> = topic
        .configs
        .iter()
        .filter(|config| config.value.is_none())
        .map(|config| config.name.as_str())
        .collect();
    if !nulls.is_empty() {
        let message = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    }
    let set =
        topic.configs.iter().filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?)));
    Ok(set.map(|(name, value)| (name, value.to_string())).collect())
}

pub(super) fn named_twice<'a>(names: impl Iterator<Item = &'a WireString>) -> BTreeSet<&'a WireString> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}
