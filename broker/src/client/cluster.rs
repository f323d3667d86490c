//! The cluster as a client sees it: its brokers, who leads which partition, who coordinates which group.

use std::collections::{BTreeMap, BTreeSet};

use penstock_protocol::messages::metadata_request::MetadataRequestTopic;
use penstock_protocol::messages::metadata_response::MetadataResponseTopic;
use penstock_protocol::messages::{FindCoordinatorRequest, MetadataRequest, MetadataResponse};
use penstock_protocol::{ErrorCode, Request, Uuid, WireString};

use super::{ClientError, Connection, check, retry};

/// From this version on FindCoordinator takes several keys (KIP-699).
const COORDINATOR_KEYS_VERSION: i16 = 4;

/// Connections to a cluster's brokers, each made when it is needed.
#[derive(Debug)]
pub(crate) struct Cluster {
    bootstrap: Vec<String>,
    /// The bootstrap address that answered.
    home: Option<String>,
    connections: BTreeMap<String, Connection>,
}

/// A topic at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// Zero from brokers that know no ids.
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
    /// By index, rising.
    pub(crate) partitions: Vec<Partition>,
}

/// A partition at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    /// Node id of the leader, -1 for none.
    pub(crate) leader: i32,
    /// `HOST:PORT` of the leader, if there is one.
    pub(crate) leader_address: Option<String>,
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: Vec<i32>,
}

impl Cluster {
    /// `bootstrap` is one `HOST:PORT` or several with commas between; nothing is connected yet.
    pub(crate) fn new(bootstrap: &str) -> Result<Cluster, ClientError> {
        let addresses = bootstrap.split(',').map(|address| {
            let address = address.trim();
            let port = address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
            match port {
                Some((host, Ok(_))) if !host.is_empty() => Ok(address.to_owned()),
                _ => Err(ClientError::Address(address.to_owned())),
            }
        });
        let bootstrap = addresses.collect::<Result<Vec<_>, _>>()?;
        Ok(Cluster { bootstrap, home: None, connections: BTreeMap::new() })
    }

    /// The first of the bootstrap addresses that answers.
    pub(crate) fn home(&mut self) -> Result<String, ClientError> {
        if let Some(home) = &self.home {
            return Ok(home.clone());
        }
        let mut last = None;
        for address in self.bootstrap.clone() {
            match self.connection(&address) {
                Ok(_) => {
                    self.home = Some(address.clone());
                    return Ok(address);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Address(String::new())))
    }

    /// The connection to the broker at `address`.
    pub(crate) fn connection(&mut self, address: &str) -> Result<&mut Connection, ClientError> {
        if !self.connections.contains_key(address) {
            let opened = Connection::open(address);
            // Another bootstrap address may answer.
            if opened.is_err() && self.home.as_deref() == Some(address) {
                self.home = None;
            }
            let connection = opened?;
            self.connections.insert(address.to_owned(), connection);
        }
        Ok(self.connections.get_mut(address).unwrap_or_else(|| unreachable!("it was just put there")))
    }

    /// The highest version of `R` that the broker at `address` and this client speak.
    pub(crate) fn version<R: Request>(&mut self, address: &str) -> Result<i16, ClientError> {
        self.connection(address)?.version::<R>()
    }

    /// Asks any broker.
    pub(crate) fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        let home = self.home()?;
        self.call_at(&home, request)
    }

    /// Asks the broker at `address`.
    pub(crate) fn call_at<R: Request>(
        &mut self,
        address: &str,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let version = self.version::<R>(address)?;
        self.call_version(address, version, request)
    }

    /// Asks the broker at `address` in a version that the caller has chosen.
    pub(crate) fn call_version<R: Request>(
        &mut self,
        address: &str,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let answer = self.connection(address)?.call_version(version, request);
        if answer.as_ref().is_err_and(ClientError::ends_connection) {
            self.connections.remove(address);
        }
        answer
    }

    /// Node ids and addresses of the cluster's brokers.
    pub(crate) fn brokers(&mut self) -> Result<BTreeMap<i32, String>, ClientError> {
        let request = MetadataRequest {
            topics: Some(Vec::new()),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        Ok(addresses(&self.call(&request)?))
    }

    /// All topics, by name.
    pub(crate) fn topics(&mut self) -> Result<Vec<Topic>, ClientError> {
        let request =
            MetadataRequest { topics: None, allow_auto_topic_creation: false, ..MetadataRequest::default() };
        let response = self.call(&request)?;
        let brokers = addresses(&response);
        let there = response.topics.iter().filter(|topic| !is_unknown_topic(topic.error_code));
        let mut topics =
            there.map(|topic| topic_of(topic, &brokers)).collect::<Result<Vec<_>, ClientError>>()?;
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic, which must exist; it is not made by asking.
    pub(crate) fn topic(&mut self, name: &str) -> Result<Topic, ClientError> {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(WireString::from(name)),
                ..MetadataRequestTopic::default()
            }]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let response = self.call(&request)?;
        let brokers = addresses(&response);
        match response.topics.first() {
            Some(topic) => topic_of(topic, &brokers),
            None => Err(ClientError::Refused {
                what: format!("topic {name}"),
                code: ErrorCode::UnknownTopicOrPartition,
                message: None,
            }),
        }
    }

    /// `HOST:PORT` of the broker that coordinates `group`. Waits while the coordinators are still being made.
    pub(crate) fn coordinator(&mut self, group: &str) -> Result<String, ClientError> {
        retry(|| self.find_coordinator(group))
    }

    fn find_coordinator(&mut self, group: &str) -> Result<String, ClientError> {
        let home = self.home()?;
        let version = self.version::<FindCoordinatorRequest>(&home)?;
        let mut request = FindCoordinatorRequest::default();
        if version >= COORDINATOR_KEYS_VERSION {
            request.coordinator_keys = vec![WireString::from(group)];
        } else {
            request.key = WireString::from(group);
        }
        let response = self.call_version(&home, version, &request)?;
        let what = || format!("looking for the coordinator of group {group}");
        if let Some(found) = response.coordinators.first() {
            check(found.error_code, found.error_message.as_deref(), what)?;
            return Ok(address(&found.host, found.port));
        }
        check(response.error_code, response.error_message.as_deref(), what)?;
        Ok(address(&response.host, response.port))
    }
}

impl Topic {
    /// All partition indexes, or those asked for, which must exist.
    pub(crate) fn select(&self, asked: &[i32]) -> Result<Vec<i32>, ClientError> {
        if asked.is_empty() {
            return Ok(self.partitions.iter().map(|partition| partition.index).collect());
        }
        match asked.iter().find(|index| self.partition(**index).is_none()) {
            Some(index) => Err(ClientError::Refused {
                what: format!("partition {index} of topic {}", self.name),
                code: ErrorCode::UnknownTopicOrPartition,
                message: Some(format!("there are {} partitions, from 0", self.partitions.len())),
            }),
            None => Ok(asked.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()),
        }
    }

    pub(crate) fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.index == index)
    }

    /// `partitions` by the address of their leader.
    pub(crate) fn by_leader(&self, partitions: &[i32]) -> Result<BTreeMap<String, Vec<i32>>, ClientError> {
        let mut leaders: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for index in partitions {
            let leader = self.partition(*index).and_then(|partition| partition.leader_address.clone());
            let leader = leader
                .ok_or_else(|| ClientError::NoLeader { topic: self.name.clone(), partition: *index })?;
            leaders.entry(leader).or_default().push(*index);
        }
        Ok(leaders)
    }
}

fn addresses(response: &MetadataResponse) -> BTreeMap<i32, String> {
    response.brokers.iter().map(|broker| (broker.node_id, address(&broker.host, broker.port))).collect()
}

/// `HOST:PORT`, with brackets around an IPv6 address.
fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn topic_of(topic: &MetadataResponseTopic, brokers: &BTreeMap<i32, String>) -> Result<Topic, ClientError> {
    let name = topic.name.as_deref().unwrap_or_default().to_owned();
    check(topic.error_code, None, || format!("topic {name}"))?;
    let mut partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| Partition {
            index: partition.partition_index,
            leader: partition.leader_id,
            leader_address: brokers.get(&partition.leader_id).cloned(),
            leader_epoch: partition.leader_epoch,
            replicas: partition.replica_nodes.clone(),
            isr: partition.isr_nodes.clone(),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    Ok(Topic { name, id: topic.topic_id, internal: topic.is_internal, partitions })
}

/// Whether the answer's code says that there is none such.
fn is_unknown_topic(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId | ErrorCode::InvalidTopicException
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_anything_is_asked() {
        for bad in ["", "host", "host:", ":9092", "host:port", "host:70000", "a:1,b"] {
            assert!(matches!(Cluster::new(bad), Err(ClientError::Address(_))), "{bad:?}");
        }
        assert_eq!(Cluster::new("a:1, [::1]:2").unwrap().bootstrap, ["a:1", "[::1]:2"]);
        assert_eq!((address("::1", 1), address("a", 2)), ("[::1]:1".to_owned(), "a:2".to_owned()));
    }
}
