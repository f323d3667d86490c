//! The cluster as a client sees it: which broker leads which partition, topics made and removed, offsets, producer ids.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use penstock_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use penstock_protocol::messages::delete_topics_request::DeleteTopicState;
use penstock_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use penstock_protocol::messages::metadata_request::MetadataRequestTopic;
use penstock_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    MetadataResponse,
};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use super::{ClientError, Connection, check};

/// How long the broker may take to make or remove a topic.
const ADMIN_TIMEOUT_MS: i32 = 30_000;
/// Between two looks at metadata that is not as it will be.
const METADATA_BACKOFF: Duration = Duration::from_millis(50);

/// Where to find a cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    bootstrap: Vec<String>,
    client_id: String,
}

/// A topic's partitions and who leads them, at one moment.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Its name.
    pub name: WireString,
    /// Its id; zero from brokers that know none.
    pub id: Uuid,
    /// By index.
    pub partitions: BTreeMap<i32, Partition>,
}

/// A partition at one moment.
#[derive(Debug, Clone)]
pub struct Partition {
    /// `host:port` of the leader; none at the moment.
    pub leader: Option<String>,
    /// Epoch of that leader; -1 when unknown.
    pub leader_epoch: i32,
}

/// A topic to be made.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// Copies of each; -1 for the broker's default.
    pub replication: i16,
    /// Topic configs by name.
    pub configs: Vec<(String, String)>,
}

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first record there is.
    Earliest,
    /// After the last record there is.
    Latest,
}

impl Cluster {
    /// `bootstrap`: `host:port`, several separated by commas.
    pub fn new(bootstrap: &str, client_id: &str) -> Cluster {
        let bootstrap = bootstrap.split(',').map(|address| address.trim().to_owned()).collect();
        Cluster { bootstrap, client_id: client_id.to_owned() }
    }

    /// Connects to one broker.
    pub async fn connect(&self, address: &str) -> Result<Connection, ClientError> {
        Connection::open(address, &self.client_id).await
    }

    /// Connects to the first of the bootstrap brokers that answers.
    pub async fn connect_any(&self) -> Result<Connection, ClientError> {
        let mut last = ClientError::Protocol("no bootstrap address was given".to_owned());
        for address in &self.bootstrap {
            match self.connect(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks for a topic; it is not made by asking.
    pub async fn topic(&self, name: &str) -> Result<Topic, ClientError> {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(WireString::from(name)),
                ..MetadataRequestTopic::default()
            }]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let response = self.connect_any().await?.call(&request).await?;
        topic_of(name, &response)
    }

    /// Asks for a topic until it exists and each of its partitions has a leader, at most for `patience`.
    pub async fn topic_ready(&self, name: &str, patience: Duration) -> Result<Topic, ClientError> {
        let deadline = Instant::now() + patience;
        loop {
            let error = match self.topic(name).await {
                Ok(topic) => {
                    match topic.partitions.iter().find(|(_, partition)| partition.leader.is_none()) {
                        None => return Ok(topic),
                        Some((index, _)) => ClientError::NoLeader(*index),
                    }
                }
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(METADATA_BACKOFF).await;
        }
    }

    /// Makes a topic. One that exists already is taken if it has as many partitions.
    pub async fn create_topic(&self, spec: &TopicSpec, patience: Duration) -> Result<Topic, ClientError> {
        let config = |(name, value): &(String, String)| CreatableTopicConfig {
            name: WireString::from(name.as_str()),
            value: Some(WireString::from(value.as_str())),
        };
        let topic = CreatableTopic {
            name: WireString::from(spec.name.as_str()),
            num_partitions: spec.partitions,
            replication_factor: spec.replication,
            configs: spec.configs.iter().map(config).collect(),
            ..CreatableTopic::default()
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: ADMIN_TIMEOUT_MS, ..Default::default() };
        let response = self.connect_any().await?.call(&request).await?;
        let result = response.topics.first().ok_or_else(|| missing("CreateTopics"))?;
        if result.error_code != ErrorCode::TopicAlreadyExists as i16 {
            check(result.error_code, || {
                let message = result.error_message.as_deref().unwrap_or_default();
                format!("creating topic {}: {message}", spec.name)
            })?;
        }
        let topic = self.topic_ready(&spec.name, patience).await?;
        if topic.partitions.len() != spec.partitions as usize {
            let have = topic.partitions.len();
            return Err(ClientError::Protocol(format!(
                "topic {} has {have} partitions, not {}",
                spec.name, spec.partitions
            )));
        }
        Ok(topic)
    }

    /// Removes a topic.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let mut connection = self.connect_any().await?;
        let mut request = DeleteTopicsRequest { timeout_ms: ADMIN_TIMEOUT_MS, ..Default::default() };
        // Version 6 names topics in another field, so that they can also be named by id.
        if connection.version::<DeleteTopicsRequest>()? >= 6 {
            let state = DeleteTopicState { name: Some(WireString::from(name)), ..Default::default() };
            request.topics = vec![state];
        } else {
            request.topic_names = vec![WireString::from(name)];
        }
        let response = connection.call(&request).await?;
        let result = response.responses.first().ok_or_else(|| missing("DeleteTopics"))?;
        check(result.error_code, || format!("deleting topic {name}"))
    }

    /// A new producer id and its epoch, for idempotent producing.
    pub async fn producer_id(&self) -> Result<(i64, i16), ClientError> {
        // The timeout is not used without a transactional id, but must be above 0.
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: ADMIN_TIMEOUT_MS,
            ..InitProducerIdRequest::default()
        };
        let response = self.connect_any().await?.call(&request).await?;
        check(response.error_code, || "asking for a producer id".to_owned())?;
        Ok((response.producer_id, response.producer_epoch))
    }

    /// The offsets at `spec` of `partitions`, asked of each one's leader.
    pub async fn offsets(
        &self,
        topic: &Topic,
        partitions: &[i32],
        spec: OffsetSpec,
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        let timestamp = match spec {
            OffsetSpec::Latest => -1,
            OffsetSpec::Earliest => -2,
        };
        let mut offsets = BTreeMap::new();
        for (address, partitions) in topic.by_leader(partitions)? {
            let ask = |partition: &i32| ListOffsetsPartition {
                partition_index: *partition,
                current_leader_epoch: -1,
                timestamp,
            };
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![ListOffsetsTopic {
                    name: topic.name.clone(),
                    partitions: partitions.iter().map(ask).collect(),
                }],
                ..ListOffsetsRequest::default()
            };
            let response = self.connect(&address).await?.call(&request).await?;
            for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
                check(partition.error_code, || format!("offset of partition {}", partition.partition_index))?;
                offsets.insert(partition.partition_index, partition.offset);
            }
        }
        if let Some(partition) = partitions.iter().find(|partition| !offsets.contains_key(partition)) {
            return Err(ClientError::Protocol(format!("no offset of partition {partition} in the answer")));
        }
        Ok(offsets)
    }
}

impl Topic {
    /// All partition indexes, or those of `subset`, which must exist.
    pub fn select(&self, subset: Option<&[i32]>) -> Result<Vec<i32>, ClientError> {
        let Some(subset) = subset else {
            return Ok(self.partitions.keys().copied().collect());
        };
        match subset.iter().find(|index| !self.partitions.contains_key(index)) {
            Some(index) => {
                Err(ClientError::Protocol(format!("topic {} has no partition {index}", self.name)))
            }
            None => Ok(subset.to_vec()),
        }
    }

    /// `partitions` by the address of their leader.
    pub fn by_leader(&self, partitions: &[i32]) -> Result<BTreeMap<String, Vec<i32>>, ClientError> {
        let mut groups: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for index in partitions {
            let partition = self.partitions.get(index);
            let leader = partition.and_then(|p| p.leader.clone()).ok_or(ClientError::NoLeader(*index))?;
            groups.entry(leader).or_default().push(*index);
        }
        Ok(groups)
    }
}

fn topic_of(name: &str, response: &MetadataResponse) -> Result<Topic, ClientError> {
    let topic = response.topics.first().ok_or_else(|| missing("Metadata"))?;
    check(topic.error_code, || format!("metadata of topic {name}"))?;
    let brokers: BTreeMap<i32, String> =
        response.brokers.iter().map(|b| (b.node_id, format!("{}:{}", b.host, b.port))).collect();
    let partitions = topic.partitions.iter().map(|partition| {
        let leader = brokers.get(&partition.leader_id).cloned();
        (partition.partition_index, Partition { leader, leader_epoch: partition.leader_epoch })
    });
    Ok(Topic { name: WireString::from(name), id: topic.topic_id, partitions: partitions.collect() })
}

fn missing(api: &str) -> ClientError {
    ClientError::Protocol(format!("the answer to {api} lacks what was asked for"))
}
