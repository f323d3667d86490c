//! The immutable snapshot that everybody reads.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use penstock_protocol::messages::{
    ConfigRecord, FeatureLevelRecord, PartitionRecord, ProducerIdsRecord, TopicRecord,
};
use penstock_protocol::{Uuid, WireString};

use super::record::MetadataRecord;
use super::resource_type;
use crate::config::{BrokerConfig, Overrides, TopicConfig};

/// Everything known of the cluster after some number of records. Clones share all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataImage {
    pub(super) cluster_id: WireString,
    pub(super) broker: Arc<BrokerConfig>,
    pub(super) cluster_overrides: Arc<Overrides>,
    pub(super) node_overrides: Arc<Overrides>,
    pub(super) topics: Arc<BTreeMap<WireString, Arc<TopicImage>>>,
    pub(super) names: Arc<BTreeMap<Uuid, WireString>>,
    pub(super) features: Arc<BTreeMap<WireString, i16>>,
    pub(super) partitions_len: usize,
    pub(super) next_producer_id: i64,
    pub(super) revision: u64,
}

/// A topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicImage {
    /// Its name.
    pub name: WireString,
    /// Its id: another topic of the same name has another id.
    pub id: Uuid,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionImage>,
    /// Configs set on it.
    pub overrides: Overrides,
    /// All its configs, resolved.
    pub config: Arc<TopicConfig>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    /// Shard of the leader's host that owns it.
    pub shard: usize,
    /// Node that leads it; -1 is none.
    pub leader: i32,
    /// Rises with every change of leadership.
    pub leader_epoch: i32,
    /// Rises with every change.
    pub partition_epoch: i32,
    /// Nodes that keep it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub isr: Vec<i32>,
}

impl MetadataImage {
    /// The state before any record.
    pub(super) fn empty(cluster_id: WireString, broker: BrokerConfig) -> MetadataImage {
        MetadataImage {
            cluster_id,
            broker: Arc::new(broker),
            cluster_overrides: Arc::default(),
            node_overrides: Arc::default(),
            topics: Arc::default(),
            names: Arc::default(),
            features: Arc::default(),
            partitions_len: 0,
            next_producer_id: 0,
            revision: 0,
        }
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> &WireString {
        &self.cluster_id
    }

    /// This broker's configs, dynamic ones included.
    pub fn broker(&self) -> &Arc<BrokerConfig> {
        &self.broker
    }

    /// Records replayed to get here: a later image has a higher number.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name.as_bytes())
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(&id)?.as_bytes())
    }

    /// The partition, if there is one.
    pub fn partition(&self, topic: &str, partition: i32) -> Option<&PartitionImage> {
        self.topic(topic)?.partition(partition)
    }

    /// All topics by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    /// Topics by name, beginning with `first` or what follows it.
    pub fn topics_from(&self, first: &str) -> impl Iterator<Item = &Arc<TopicImage>> {
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(first.as_bytes()), Bound::Unbounded);
        self.topics.range::<[u8], _>(range).map(|(_, topic)| topic)
    }

    /// Partitions of all topics.
    pub fn partitions_len(&self) -> usize {
        self.partitions_len
    }

    /// First producer id of the block that is handed out next.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Whether a broker resource of this name is this broker: the name is a number, however it is written.
    pub fn is_this_broker(&self, name: &str) -> bool {
        name.parse() == Ok(self.broker.node_id)
    }

    /// Configs set on a resource: a topic, this broker (by its number) or all brokers (no name). `None` if there is no
    /// such resource.
    pub fn overrides(&self, kind: i8, name: &str) -> Option<&Overrides> {
        match kind {
            resource_type::TOPIC => self.topic(name).map(|topic| &topic.overrides),
            resource_type::BROKER if name.is_empty() => Some(&self.cluster_overrides),
            resource_type::BROKER if self.is_this_broker(name) => Some(&self.node_overrides),
            _ => None,
        }
    }

    /// Records that lead from nothing to this image: what a snapshot holds.
    pub fn records(&self) -> impl Iterator<Item = MetadataRecord> {
        let node = WireString::from(self.broker.node_id.to_string());
        let cluster = configs(resource_type::BROKER, WireString::default(), &self.cluster_overrides);
        let node = configs(resource_type::BROKER, node, &self.node_overrides);
        let features = self.features.iter().map(|(name, level)| {
            MetadataRecord::FeatureLevel(FeatureLevelRecord { name: name.clone(), level: *level })
        });
        let producer_ids = (self.next_producer_id > 0).then(|| {
            MetadataRecord::ProducerIds(ProducerIdsRecord {
                broker_id: self.broker.node_id,
                broker_epoch: -1,
                next_producer_id: self.next_producer_id,
            })
        });
        let topics = self.topics().flat_map(|topic| topic.records());
        cluster.chain(node).chain(features).chain(producer_ids).chain(topics)
    }
}

impl TopicImage {
    fn records(&self) -> impl Iterator<Item = MetadataRecord> {
        let topic = TopicRecord { name: self.name.clone(), topic_id: self.id };
        let configs = configs(resource_type::TOPIC, self.name.clone(), &self.overrides);
        let partitions = self.partitions.iter().enumerate();
        let partitions = partitions.map(|(index, partition)| partition.to_record(self.id, index));
        std::iter::once(MetadataRecord::Topic(topic)).chain(configs).chain(partitions)
    }

    /// The partition of this number.
    pub fn partition(&self, partition: i32) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }
}

impl PartitionImage {
    pub(super) fn to_record(&self, topic_id: Uuid, index: usize) -> MetadataRecord {
        MetadataRecord::Partition(PartitionRecord {
            topic_id,
            partition_id: i32::try_from(index).expect("partitions are counted in i32"),
            shard: i32::try_from(self.shard).expect("shards are few"),
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            leader: self.leader,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
        })
    }
}

fn configs(kind: i8, resource: WireString, overrides: &Overrides) -> impl Iterator<Item = MetadataRecord> {
    overrides.iter().map(move |(name, value)| {
        MetadataRecord::Config(ConfigRecord {
            resource_type: kind,
            resource_name: resource.clone(),
            name: WireString::from(name.as_str()),
            value: Some(WireString::from(value.as_str())),
        })
    })
}
