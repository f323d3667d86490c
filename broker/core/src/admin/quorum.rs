//! DescribeQuorum (55), versions 0-2: KIP-595, KIP-836 (times of replicas, 1), KIP-853 (directories and endpoints, 2). The
//! metadata of a single node is a quorum of one.

use penstock_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use penstock_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use penstock_protocol::{ErrorCode, WireString};

/// Topic by which clients name the metadata log.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// The quorum's one node, and how far its log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// The node.
    pub node_id: i32,
    /// Epoch under which it writes the metadata log.
    pub leader_epoch: i32,
    /// Exclusive end of what is stable, and so part of the metadata.
    pub high_watermark: i64,
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Name, host and port of the listener where it is reached.
    pub listener: (WireString, WireString, u16),
}

/// Tells of the metadata log; a request about anything else, or about more, is answered that it is not there.
pub fn describe_quorum(
    request: &DescribeQuorumRequest,
    version: i16,
    quorum: &Quorum,
) -> DescribeQuorumResponse {
    let is_log = match request.topics.as_slice() {
        [topic] => {
            topic.topic_name == METADATA_TOPIC
                && topic.partitions.len() == 1
                && topic.partitions[0].partition_index == 0
        }
        _ => false,
    };
    let error = ErrorCode::UnknownTopicOrPartition;
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().enumerate().map(|(place, partition)| match is_log {
            true => about_log(quorum),
            false => PartitionData {
                partition_index: partition.partition_index,
                error_code: error.code(),
                // Said with each, it could make the answer many times its request.
                error_message: (place == 0).then(|| WireString::from_static(error.message())),
                ..PartitionData::default()
            },
        });
        TopicData { topic_name: topic.topic_name.clone(), partitions: partitions.collect() }
    });
    let (name, host, port) = quorum.listener.clone();
    let node = || Node { node_id: quorum.node_id, listeners: vec![Listener { name, host, port }] };
    DescribeQuorumResponse {
        topics: topics.collect(),
        // Endpoints came with version 2.
        nodes: if is_log && version >= 2 { vec![node()] } else { Vec::new() },
        ..DescribeQuorumResponse::default()
    }
}

fn about_log(quorum: &Quorum) -> PartitionData {
    let voter = ReplicaState {
        replica_id: quorum.node_id,
        log_end_offset: quorum.high_watermark,
        last_fetch_timestamp: quorum.now_ms,
        last_caught_up_timestamp: quorum.now_ms,
        ..ReplicaState::default()
    };
    PartitionData {
        leader_id: quorum.node_id,
        leader_epoch: quorum.leader_epoch,
        high_watermark: quorum.high_watermark,
        current_voters: vec![voter],
        ..PartitionData::default()
    }
}

#[cfg(test)]
mod tests {
    use penstock_protocol::messages::describe_quorum_request::{
        PartitionData as AskedPartition, TopicData as Asked,
    };

    use super::*;

    fn asked(topics: &[(&'static str, &[i32])], version: i16) -> DescribeQuorumResponse {
        let topics = topics.iter().map(|(name, partitions)| Asked {
            topic_name: WireString::from_static(name),
            partitions: partitions.iter().map(|index| AskedPartition { partition_index: *index }).collect(),
        });
        let listener = (WireString::from_static("PLAINTEXT"), WireString::from_static("host"), 9092);
        let quorum = Quorum { node_id: 3, leader_epoch: 0, high_watermark: 17, now_ms: 1000, listener };
        describe_quorum(&DescribeQuorumRequest { topics: topics.collect() }, version, &quorum)
    }

    #[test]
    fn one_node_is_the_quorum() {
        let told = asked(&[(METADATA_TOPIC, &[0])], 2);
        let log = &told.topics[0].partitions[0];
        assert_eq!((log.error_code, log.leader_id, log.high_watermark), (0, 3, 17));
        assert_eq!((log.current_voters.len(), log.current_voters[0].log_end_offset), (1, 17));
        assert_eq!((told.nodes[0].node_id, told.nodes[0].listeners[0].port), (3, 9092));
        assert!(asked(&[(METADATA_TOPIC, &[0])], 1).nodes.is_empty());
    }

    #[test]
    fn nothing_else_has_a_quorum() {
        let log = (METADATA_TOPIC, &[0][..]);
        for topics in
            [&[("t", &[0][..])][..], &[(METADATA_TOPIC, &[0, 1])], &[(METADATA_TOPIC, &[1])], &[log, log]]
        {
            let told = asked(topics, 2);
            let partitions = told.topics.iter().flat_map(|topic| &topic.partitions);
            let codes: Vec<_> = partitions.map(|one| ErrorCode::from_code(one.error_code)).collect();
            assert!(!codes.is_empty() && told.nodes.is_empty(), "{topics:?}");
            assert!(codes.iter().all(|code| *code == ErrorCode::UnknownTopicOrPartition), "{topics:?}");
        }
    }
}
