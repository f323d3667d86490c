//! Commands in, records and answers out; records in, state out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ConfigRecord, CreatePartitionsRequest,
    CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    PartitionChangeRecord, PartitionRecord, ProducerIdsRecord, RemoveTopicRecord, TopicRecord,
};
use penstock_protocol::{Uuid, WireString};

use super::image::{MetadataImage, PartitionImage, TopicImage};
use super::names::collision_form;
use super::record::MetadataRecord;
use super::{configs, deletion, partitions, resource_type, shards, topics};
use crate::config::{BrokerConfig, ConfigError, Overrides};

/// Producer ids that are handed out at once, as in Apache Kafka.
pub const PRODUCER_ID_BLOCK_LEN: i64 = 1000;

/// Something that changes the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Creates topics; Metadata's auto-creation comes in this form too.
    CreateTopics(CreateTopicsRequest),
    /// Deletes topics; the request's version decides how a disabled deletion is answered.
    DeleteTopics(DeleteTopicsRequest, i16),
    /// Adds partitions to topics.
    CreatePartitions(CreatePartitionsRequest),
    /// Replaces all configs of resources.
    AlterConfigs(AlterConfigsRequest),
    /// Changes single configs of resources.
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
    /// Hands out a block of producer ids.
    AllocateProducerIds,
    /// Spreads the partitions over another number of shards.
    AssignShards,
}

/// What a command is answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Command::CreateTopics`].
    CreateTopics(CreateTopicsResponse),
    /// To [`Command::DeleteTopics`].
    DeleteTopics(DeleteTopicsResponse),
    /// To [`Command::CreatePartitions`].
    CreatePartitions(CreatePartitionsResponse),
    /// To [`Command::AlterConfigs`].
    AlterConfigs(AlterConfigsResponse),
    /// To [`Command::IncrementalAlterConfigs`].
    IncrementalAlterConfigs(IncrementalAlterConfigsResponse),
    /// To [`Command::AllocateProducerIds`]: the first of [`PRODUCER_ID_BLOCK_LEN`] ids, `None` when none are left.
    ProducerIds(Option<i64>),
    /// To [`Command::AssignShards`]: the records alone say what moves.
    ShardsAssigned,
}

/// A record that cannot follow the ones before it: the log is damaged, or not ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A topic of this name or id exists already.
    #[error("metadata log creates topic {0} ({1}) twice")]
    TopicTwice(WireString, Uuid),
    /// No topic has this id.
    #[error("metadata log speaks of topic id {0}, which it never created")]
    UnknownTopic(Uuid),
    /// Partitions come in rising order without gaps, and change only once they exist.
    #[error("metadata log speaks of partition {1} of topic id {0} out of order")]
    PartitionOrder(Uuid, i32),
    /// A shard is never negative.
    #[error("metadata log puts a partition on shard {0}")]
    Shard(i32),
    /// Only topics and brokers have configs.
    #[error("metadata log sets a config of resource type {0} named {1}")]
    ConfigResource(i8, WireString),
    /// A config that this release refuses.
    #[error("metadata log sets a config that this release refuses: {0}")]
    Config(#[from] ConfigError),
}

/// The metadata of a cluster. A clone is a snapshot and cheap: it shares what neither changes.
#[derive(Clone, Debug)]
pub struct MetadataMachine {
    pub(super) image: MetadataImage,
    /// Names that metrics cannot tell apart, by their common form.
    pub(super) collisions: Arc<BTreeMap<String, BTreeSet<WireString>>>,
    /// Partitions on each shard.
    pub(super) shard_loads: Vec<usize>,
    shards: usize,
}

impl MetadataMachine {
    /// A machine before any record, for a node that runs `shards` shards.
    ///
    /// # Panics
    /// If there is no shard.
    pub fn new(cluster_id: WireString, broker: BrokerConfig, shards: usize) -> MetadataMachine {
        assert!(shards > 0, "a node has at least one shard");
        MetadataMachine {
            image: MetadataImage::empty(cluster_id, broker),
            collisions: Arc::default(),
            shard_loads: vec![0; shards],
            shards,
        }
    }

    /// The state now.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Shards over which partitions are spread.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// Decides on a command: the records to append as one batch, and the answer to give once they are replayed. State
    /// does not change. `new_id` gives a fresh random id each time.
    pub fn handle(
        &self,
        command: &Command,
        new_id: &mut dyn FnMut() -> Uuid,
    ) -> (Vec<MetadataRecord>, Answer) {
        match command {
            Command::CreateTopics(request) => {
                let (records, response) = topics::create_topics(self, request, new_id);
                (records, Answer::CreateTopics(response))
            }
            Command::DeleteTopics(request, version) => {
                let (records, response) = deletion::delete_topics(self, request, *version);
                (records, Answer::DeleteTopics(response))
            }
            Command::CreatePartitions(request) => {
                let (records, response) = partitions::create_partitions(self, request);
                (records, Answer::CreatePartitions(response))
            }
            Command::AlterConfigs(request) => {
                let (records, response) = configs::alter(self, request);
                (records, Answer::AlterConfigs(response))
            }
            Command::IncrementalAlterConfigs(request) => {
                let (records, response) = configs::alter_incrementally(self, request);
                (records, Answer::IncrementalAlterConfigs(response))
            }
            Command::AllocateProducerIds => self.allocate_producer_ids(),
            Command::AssignShards => (shards::assign(self), Answer::ShardsAssigned),
        }
    }

    fn allocate_producer_ids(&self) -> (Vec<MetadataRecord>, Answer) {
        let first = self.image.next_producer_id;
        let Some(next_producer_id) = first.checked_add(PRODUCER_ID_BLOCK_LEN) else {
            return (Vec::new(), Answer::ProducerIds(None));
        };
        let broker_id = self.image.broker.node_id;
        let record = ProducerIdsRecord { broker_id, broker_epoch: -1, next_producer_id };
        (vec![MetadataRecord::ProducerIds(record)], Answer::ProducerIds(Some(first)))
    }

    /// Applies one record.
    ///
    /// # Errors
    /// If the record cannot follow those before it; nothing has changed then.
    pub fn replay(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::Topic(record) => self.replay_topic(record)?,
            MetadataRecord::Partition(record) => self.replay_partition(record)?,
            MetadataRecord::PartitionChange(record) => self.replay_partition_change(record)?,
            MetadataRecord::Config(record) => self.replay_config(record)?,
            MetadataRecord::RemoveTopic(record) => self.replay_remove_topic(record)?,
            MetadataRecord::ProducerIds(record) => self.image.next_producer_id = record.next_producer_id,
            MetadataRecord::FeatureLevel(record) => {
                Arc::make_mut(&mut self.image.features).insert(record.name.detached(), record.level);
            }
        }
        self.image.revision += 1;
        Ok(())
    }

    fn replay_topic(&mut self, record: &TopicRecord) -> Result<(), ReplayError> {
        let name = record.name.detached();
        if self.image.topic(&name).is_some() || self.image.names.contains_key(&record.topic_id) {
            return Err(ReplayError::TopicTwice(name, record.topic_id));
        }
        let overrides = Overrides::new();
        let config = Arc::new(self.image.broker.topic(&overrides));
        let topic =
            TopicImage { name: name.clone(), id: record.topic_id, partitions: Vec::new(), overrides, config };
        if let Some(form) = collision_form(&name) {
            Arc::make_mut(&mut self.collisions).entry(form).or_default().insert(name.clone());
        }
        Arc::make_mut(&mut self.image.names).insert(record.topic_id, name.clone());
        Arc::make_mut(&mut self.image.topics).insert(name, Arc::new(topic));
        Ok(())
    }

    fn replay_partition(&mut self, record: &PartitionRecord) -> Result<(), ReplayError> {
        let out_of_order = ReplayError::PartitionOrder(record.topic_id, record.partition_id);
        let shard = shard_of(record.shard)?;
        let topic = self.topic_mut(record.topic_id)?;
        if usize::try_from(record.partition_id) != Ok(topic.partitions.len()) {
            return Err(out_of_order);
        }
        topic.partitions.push(PartitionImage {
            shard,
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
        });
        self.image.partitions_len += 1;
        *self.load_of(shard) += 1;
        Ok(())
    }

    fn replay_partition_change(&mut self, record: &PartitionChangeRecord) -> Result<(), ReplayError> {
        let out_of_order = ReplayError::PartitionOrder(record.topic_id, record.partition_id);
        let shard = if record.shard == -1 { None } else { Some(shard_of(record.shard)?) };
        let index = usize::try_from(record.partition_id).map_err(|_| out_of_order.clone())?;
        let topic = self.topic_mut(record.topic_id)?;
        let partition = topic.partitions.get_mut(index).ok_or(out_of_order)?;
        let old_shard = partition.shard;
        partition.shard = shard.unwrap_or(old_shard);
        if record.leader != -2 {
            partition.leader = record.leader;
        }
        if record.leader_epoch != -1 {
            partition.leader_epoch = record.leader_epoch;
        }
        if let Some(isr) = &record.isr {
            partition.isr.clone_from(isr);
        }
        if let Some(replicas) = &record.replicas {
            partition.replicas.clone_from(replicas);
        }
        partition.partition_epoch += 1;
        if let Some(shard) = shard {
            *self.load_of(old_shard) -= 1;
            *self.load_of(shard) += 1;
        }
        Ok(())
    }

    fn replay_config(&mut self, record: &ConfigRecord) -> Result<(), ReplayError> {
        let broker = Arc::clone(&self.image.broker);
        let set = |overrides: &mut Overrides| {
            match &record.value {
                Some(value) => overrides.insert(record.name.to_string(), value.to_string()),
                None => overrides.remove(record.name.as_str()),
            };
        };
        let of_node = self.image.is_this_broker(&record.resource_name);
        match record.resource_type {
            resource_type::TOPIC => {
                let unknown =
                    || ReplayError::ConfigResource(record.resource_type, record.resource_name.detached());
                let name = record.resource_name.as_bytes();
                let topics = Arc::make_mut(&mut self.image.topics);
                let topic = Arc::make_mut(topics.get_mut(name).ok_or_else(unknown)?);
                let mut overrides = topic.overrides.clone();
                set(&mut overrides);
                crate::config::topic::validate_topic_configs_alone(&overrides)?;
                topic.config = Arc::new(broker.topic(&overrides));
                topic.overrides = overrides;
            }
            resource_type::BROKER if record.resource_name.is_empty() || of_node => {
                let mut cluster = (*self.image.cluster_overrides).clone();
                let mut node = (*self.image.node_overrides).clone();
                set(if of_node { &mut node } else { &mut cluster });
                let changed = broker.with_dynamic(cluster.clone(), node.clone())?;
                self.image.cluster_overrides = Arc::new(cluster);
                self.image.node_overrides = Arc::new(node);
                self.set_broker(changed);
            }
            kind => return Err(ReplayError::ConfigResource(kind, record.resource_name.detached())),
        }
        Ok(())
    }

    /// New broker configs are new defaults of every topic.
    fn set_broker(&mut self, broker: BrokerConfig) {
        for topic in Arc::make_mut(&mut self.image.topics).values_mut() {
            let config = broker.topic(&topic.overrides);
            if config != *topic.config {
                Arc::make_mut(topic).config = Arc::new(config);
            }
        }
        self.image.broker = Arc::new(broker);
    }

    fn replay_remove_topic(&mut self, record: &RemoveTopicRecord) -> Result<(), ReplayError> {
        let names = Arc::make_mut(&mut self.image.names);
        let name = names.remove(&record.topic_id).ok_or(ReplayError::UnknownTopic(record.topic_id))?;
        let topics = Arc::make_mut(&mut self.image.topics);
        let topic = topics.remove(name.as_bytes()).expect("each id names a topic");
        if let Some(form) = collision_form(&name) {
            let collisions = Arc::make_mut(&mut self.collisions);
            if let Some(same) = collisions.get_mut(&form) {
                same.remove(name.as_bytes());
                if same.is_empty() {
                    collisions.remove(&form);
                }
            }
        }
        self.image.partitions_len -= topic.partitions.len();
        for partition in &topic.partitions {
            *self.load_of(partition.shard) -= 1;
        }
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut TopicImage, ReplayError> {
        let name = self.image.names.get(&id).ok_or(ReplayError::UnknownTopic(id))?;
        let topics = Arc::make_mut(&mut self.image.topics);
        Ok(Arc::make_mut(topics.get_mut(name.as_bytes()).expect("each id names a topic")))
    }

    fn load_of(&mut self, shard: usize) -> &mut usize {
        if shard >= self.shard_loads.len() {
            self.shard_loads.resize(shard + 1, 0);
        }
        &mut self.shard_loads[shard]
    }
}

/// No node has more shards than this: a larger number is damage, not a reason to allocate.
const SHARD_MAX: usize = 65_535;

fn shard_of(shard: i32) -> Result<usize, ReplayError> {
    usize::try_from(shard).ok().filter(|shard| *shard <= SHARD_MAX).ok_or(ReplayError::Shard(shard))
}

#[cfg(test)]
mod tests;
