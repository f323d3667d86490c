//! AlterPartitionReassignments: a single node has no other node to move a partition to, so that what is asked for is
//! either what stands already, or refused as Apache Kafka refuses it.

use penstock_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use penstock_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use penstock_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::topics::check_assignment;
use super::{ApiError, MetadataImage, TopicImage};

/// Says of each partition named whether it may stand where it is asked to; there it stands already.
pub fn alter_partition_reassignments(
    request: &AlterPartitionReassignmentsRequest,
    image: &MetadataImage,
) -> AlterPartitionReassignmentsResponse {
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses: request.topics.iter().map(|topic| of_topic(topic, image)).collect(),
        ..AlterPartitionReassignmentsResponse::default()
    }
}

fn of_topic(asked: &ReassignableTopic, image: &MetadataImage) -> ReassignableTopicResponse {
    let topic = image.topic(&asked.name).map(|topic| &**topic);
    let mut said = false;
    let partitions = asked.partitions.iter().map(|partition| {
        // The sentences name the topic, whose name may be long; they are made only to be said.
        let name = (!said).then_some(&asked.name);
        let error = of_partition(name, topic, partition, image.broker.node_id).err();
        // Said with each, it could make the answer many times its request.
        let error_message = error.as_ref().filter(|_| !said).and_then(ApiError::wire_message);
        said |= error.is_some();
        ReassignablePartitionResponse {
            partition_index: partition.partition_index,
            error_code: error.map_or(ErrorCode::None, |error| error.code).code(),
            error_message,
        }
    });
    ReassignableTopicResponse { partitions: partitions.collect(), name: asked.name.clone() }
}

fn of_partition(
    name: Option<&WireString>,
    topic: Option<&TopicImage>,
    asked: &ReassignablePartition,
    node_id: i32,
) -> Result<(), ApiError> {
    let unknown = |sentence: &dyn Fn(&WireString) -> String| match name {
        Some(name) => ApiError::new(ErrorCode::UnknownTopicOrPartition, sentence(name)),
        None => ErrorCode::UnknownTopicOrPartition.into(),
    };
    let topic = topic.ok_or_else(|| unknown(&|name| format!("Unable to find a topic named {name}.")))?;
    let index = asked.partition_index;
    let found = topic.partition(index);
    found.ok_or_else(|| unknown(&|name| format!("Unable to find partition {name}:{index}.")))?;
    match &asked.replicas {
        None => Err(ErrorCode::NoReassignmentInProgress.into()),
        Some(replicas) => check_assignment(node_id, replicas, None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use penstock_protocol::messages::CreateTopicsRequest;
    use penstock_protocol::messages::create_topics_request::CreatableTopic;

    use super::*;
    use crate::config::{BrokerConfig, StaticConfig};
    use crate::metadata::{Command, MetadataMachine};

    /// A node 7 with a topic `there` of one partition.
    fn machine() -> MetadataMachine {
        let told = StaticConfig::new([("node.id".to_owned(), "7".to_owned())].into()).unwrap();
        let broker = BrokerConfig::from_static(told).unwrap();
        let mut machine = MetadataMachine::new(WireString::from("cluster"), broker, 1);
        let topic = CreatableTopic {
            name: WireString::from("there"),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let (records, _) =
            machine.handle(&Command::CreateTopics(request), &mut || penstock_protocol::Uuid([1; 16]));
        for record in &records {
            machine.replay(record).unwrap();
        }
        machine
    }

    fn ask(topic: &str, partitions: &[(i32, Option<&[i32]>)]) -> Vec<(i32, i16, Option<String>)> {
        let partitions = partitions.iter().map(|(index, replicas)| ReassignablePartition {
            partition_index: *index,
            replicas: replicas.map(<[i32]>::to_vec),
        });
        let topic = ReassignableTopic { name: WireString::from(topic), partitions: partitions.collect() };
        let request = AlterPartitionReassignmentsRequest {
            topics: vec![topic],
            ..AlterPartitionReassignmentsRequest::default()
        };
        let response = alter_partition_reassignments(&request, machine().image());
        assert_eq!((response.error_code, response.responses.len()), (0, 1));
        let partitions = response.responses[0].partitions.iter();
        partitions
            .map(|told| {
                (told.partition_index, told.error_code, told.error_message.as_ref().map(ToString::to_string))
            })
            .collect()
    }

    fn refused(topic: &str, index: i32, replicas: Option<&[i32]>) -> String {
        let told = ask(topic, &[(index, replicas)]).remove(0);
        format!("{} {}", told.1, told.2.unwrap())
    }

    #[test]
    fn a_partition_may_stay_where_it_is() {
        assert_eq!(ask("there", &[(0, Some(&[7]))]), [(0, 0, None)]);
    }

    #[test]
    fn all_else_is_refused() {
        assert_eq!(refused("not", 0, Some(&[7])), "3 Unable to find a topic named not.");
        assert_eq!(refused("there", 1, Some(&[7])), "3 Unable to find partition there:1.");
        assert_eq!(refused("there", -1, None), "3 Unable to find partition there:-1.");
        assert!(refused("there", 0, None).starts_with("85 "));
        let assignment = "39 The manual partition assignment includes";
        assert_eq!(refused("there", 0, Some(&[])), format!("{assignment} an empty replica list."));
        assert_eq!(
            refused("there", 0, Some(&[7, 8])),
            format!("{assignment} broker 8, but no such broker is registered.")
        );
        assert_eq!(refused("there", 0, Some(&[7, 7])), format!("{assignment} the broker 7 more than once."));
    }

    #[test]
    fn the_reason_stands_with_the_first_partition_refused() {
        let told = ask("there", &[(0, Some(&[7])), (1, None), (2, None)]);
        let messages: Vec<_> = told.iter().map(|(_, code, message)| (*code, message.is_some())).collect();
        assert_eq!(messages, [(0, false), (3, true), (3, false)]);
    }
}
