//! ElectLeaders (43), versions 0-2: KIP-183, KIP-460 (unclean elections, 1). A partition of a single node is led by its
//! preferred replica, so that no election is ever needed.

use penstock_protocol::messages::elect_leaders_request::TopicPartitions;
use penstock_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use penstock_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use penstock_protocol::{ErrorCode, WireString};

use crate::metadata::{ApiError, MetadataImage, PartitionImage, TopicImage};

/// What is to lead.
#[derive(Clone, Copy)]
enum Election {
    /// The first replica.
    Preferred,
    /// Any replica that is alive, even if it lacks records.
    Unclean,
}

/// Says of each partition named why its leader stays. If all are asked for, those whose leader stays are not named.
pub fn elect_leaders(request: &ElectLeadersRequest, image: &MetadataImage) -> ElectLeadersResponse {
    let election = match request.election_type {
        0 => Ok(Election::Preferred),
        1 => Ok(Election::Unclean),
        other => Err(ApiError::new(ErrorCode::InvalidRequest, format!("Unknown election type {other}"))),
    };
    let results = match (&request.topic_partitions, &election) {
        (Some(topics), _) => topics.iter().map(|topic| of_topic(topic, &election, image)).collect(),
        (None, Ok(election)) => image.topics().map(|topic| of_all(topic, *election)).collect(),
        (None, Err(_)) => Vec::new(),
    };
    ElectLeadersResponse {
        error_code: election.err().map_or(ErrorCode::None, |error| error.code).code(),
        replica_election_results: results,
        ..ElectLeadersResponse::default()
    }
}

fn of_topic(
    asked: &TopicPartitions,
    election: &Result<Election, ApiError>,
    image: &MetadataImage,
) -> ReplicaElectionResult {
    let topic = image.topic(&asked.topic);
    let results = asked.partitions.iter().enumerate().map(|(place, number)| {
        let error = match (election, topic) {
            (Err(error), _) => error.clone(),
            (Ok(_), None) if place > 0 => ErrorCode::UnknownTopicOrPartition.into(),
            (Ok(_), None) => {
                let message = format!("There is no topic {}", asked.topic);
                ApiError::new(ErrorCode::UnknownTopicOrPartition, message)
            }
            (Ok(election), Some(topic)) => match topic.partition(*number) {
                Some(partition) => outcome(partition, *election).into(),
                None => ErrorCode::UnknownTopicOrPartition.into(),
            },
        };
        PartitionResult {
            partition_id: *number,
            error_code: error.code.code(),
            // Said with each, it could make the answer many times its request.
            error_message: if place == 0 { error.wire_message() } else { None },
        }
    });
    ReplicaElectionResult { topic: asked.topic.clone(), partition_result: results.collect() }
}

fn of_all(topic: &TopicImage, election: Election) -> ReplicaElectionResult {
    let outcomes = (0..).zip(&topic.partitions).map(|(id, partition)| (id, outcome(partition, election)));
    let told = outcomes.filter(|(_, error)| *error != ErrorCode::ElectionNotNeeded);
    let results = told.map(|(partition_id, error)| PartitionResult {
        partition_id,
        error_code: error.code(),
        error_message: Some(WireString::from_static(error.message())),
    });
    ReplicaElectionResult { topic: topic.name.clone(), partition_result: results.collect() }
}

/// Why the leader stays who it is.
fn outcome(partition: &PartitionImage, election: Election) -> ErrorCode {
    let led = partition.leader >= 0;
    match election {
        Election::Preferred if led && partition.replicas.first() == Some(&partition.leader) => {
            ErrorCode::ElectionNotNeeded
        }
        Election::Preferred => ErrorCode::PreferredLeaderNotAvailable,
        Election::Unclean if led => ErrorCode::ElectionNotNeeded,
        Election::Unclean => ErrorCode::EligibleLeadersNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(leader: i32) -> PartitionImage {
        let (replicas, isr) = (vec![1, 2], vec![2]);
        PartitionImage { shard: 0, leader, leader_epoch: 0, partition_epoch: 0, replicas, isr }
    }

    #[test]
    fn a_leader_stays_for_a_reason() {
        assert_eq!(outcome(&partition(1), Election::Preferred), ErrorCode::ElectionNotNeeded);
        assert_eq!(outcome(&partition(2), Election::Preferred), ErrorCode::PreferredLeaderNotAvailable);
        assert_eq!(outcome(&partition(-1), Election::Preferred), ErrorCode::PreferredLeaderNotAvailable);
        assert_eq!(outcome(&partition(2), Election::Unclean), ErrorCode::ElectionNotNeeded);
        assert_eq!(outcome(&partition(-1), Election::Unclean), ErrorCode::EligibleLeadersNotAvailable);
    }
}
