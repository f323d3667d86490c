//! Offsets, epochs and refusals, each answer as Apache Kafka 4.3.1 gave it to the same request after the same writes.

use penstock_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use penstock_protocol::messages::fetch_response::PartitionData;
use penstock_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use penstock_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use penstock_protocol::messages::{FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use penstock_protocol::{ErrorCode, WireString};

use crate::broker::{Broker, directory};
use crate::client::Client;

const LIST_OFFSETS: i16 = 11;
/// Topics by name, and epochs of what was fetched last.
const FETCH: i16 = 12;
const OFFSET_FOR_LEADER_EPOCH: i16 = 4;

/// A broker with a topic of two partitions, three records in the first of them.
fn serve() -> (tempfile::TempDir, Broker, Client) {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("t", 2);
    for value in ["a", "b", "c"] {
        client.produce("t", 0, value);
    }
    (dir, broker, client)
}

fn partition(index: i32, timestamp: i64, current_leader_epoch: i32) -> ListOffsetsPartition {
    ListOffsetsPartition { partition_index: index, timestamp, current_leader_epoch }
}

/// Error, offset and leader epoch of each partition asked for.
fn list(client: &mut Client, request: ListOffsetsRequest) -> Vec<(ErrorCode, i64, i32)> {
    let response = client.call(LIST_OFFSETS, &request);
    let partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
    partitions.map(|told| (ErrorCode::from_code(told.error_code), told.offset, told.leader_epoch)).collect()
}

fn of_topic(topic: &str, partitions: Vec<ListOffsetsPartition>) -> ListOffsetsRequest {
    let name = WireString::from(topic);
    let topics = vec![ListOffsetsTopic { name, partitions }];
    ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() }
}

#[test]
fn special_timestamps_check_the_claimed_epoch() {
    let (_dir, _broker, mut client) = serve();
    let told = [(-1, 3, 0), (-2, 0, 0), (-4, 0, 0), (-5, -1, -1), (-6, -1, -1), (0, 0, 0)];
    for (timestamp, offset, epoch) in told {
        for (claimed, error) in [
            (-1, ErrorCode::None),
            (0, ErrorCode::None),
            (1, ErrorCode::UnknownLeaderEpoch),
            (-2, ErrorCode::FencedLeaderEpoch),
        ] {
            let (offset, epoch) = if error == ErrorCode::None { (offset, epoch) } else { (-1, -1) };
            let asked = of_topic("t", vec![partition(0, timestamp, claimed)]);
            assert_eq!(list(&mut client, asked), [(error, offset, epoch)], "{timestamp}, epoch {claimed}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_request_comes_before_what_is_wrong_with_its_topic() {
    let (_dir, _broker, mut client) = serve();
    let mut error = |request| list(&mut client, request)[0].0;
    assert_eq!(error(of_topic("none", vec![partition(0, -7, 3)])), ErrorCode::UnsupportedVersion);
    assert_eq!(error(of_topic("none", vec![partition(0, -1, 3)])), ErrorCode::UnknownTopicOrPartition);
    let twice = of_topic("none", vec![partition(0, -7, 3), partition(0, -1, 3)]);
    assert_eq!(error(twice), ErrorCode::InvalidRequest);
    let level = ListOffsetsRequest { isolation_level: 5, ..of_topic("t", vec![partition(0, -1, -1)]) };
    assert_eq!(error(level), ErrorCode::UnknownServerError);
}

#[test]
fn epochs_end_where_the_next_begins() {
    let (_dir, _broker, mut client) = serve();
    let cases = [
        // Partition, claimed epoch, epoch asked for; error, epoch told, end told.
        (0, -1, 0, ErrorCode::None, 0, 3),
        (1, -1, 0, ErrorCode::None, 0, 0),
        (0, 0, 1, ErrorCode::None, -1, -1),
        (0, -1, -1, ErrorCode::None, -1, -1),
        (0, -1, -2, ErrorCode::None, -2, 0),
        (0, 1, 0, ErrorCode::UnknownLeaderEpoch, -1, -1),
        (0, -2, 0, ErrorCode::FencedLeaderEpoch, -1, -1),
        (7, -2, 0, ErrorCode::UnknownTopicOrPartition, -1, -1),
    ];
    for (partition, current_leader_epoch, leader_epoch, error, epoch, end) in cases {
        let partitions = vec![OffsetForLeaderPartition { partition, current_leader_epoch, leader_epoch }];
        let topic = WireString::from_static("t");
        let topics = vec![OffsetForLeaderTopic { topic, partitions }];
        let request = OffsetForLeaderEpochRequest { topics, ..OffsetForLeaderEpochRequest::default() };
        let response = client.call(OFFSET_FOR_LEADER_EPOCH, &request);
        let told = &response.topics[0].partitions[0];
        let told = (ErrorCode::from_code(told.error_code), told.leader_epoch, told.end_offset);
        assert_eq!(told, (error, epoch, end), "partition {partition}, epoch {leader_epoch}");
    }
}

/// Fetches one partition under an isolation level.
fn fetch(client: &mut Client, isolation_level: i8, asked: FetchPartition) -> PartitionData {
    let topic = WireString::from_static("t");
    let partitions = vec![FetchPartition { partition_max_bytes: 1 << 20, ..asked }];
    let topics = vec![FetchTopic { topic, partitions, ..FetchTopic::default() }];
    let request = FetchRequest { max_bytes: 1 << 20, isolation_level, topics, ..FetchRequest::default() };
    client.call(FETCH, &request).responses.remove(0).partitions.remove(0)
}

#[test]
fn logs_that_parted_are_told_where() {
    let (_dir, _broker, mut client) = serve();
    let cases = [
        // Partition, offset, epoch fetched last; error, where the logs parted.
        (0, 3, 0, ErrorCode::None, (-1, -1)),
        (0, 4, 0, ErrorCode::None, (0, 3)),
        (1, 0, 0, ErrorCode::None, (-1, -1)),
        (1, 5, 0, ErrorCode::None, (0, 0)),
        (0, 0, 1, ErrorCode::OffsetOutOfRange, (-1, -1)),
        (0, -1, 0, ErrorCode::OffsetOutOfRange, (-1, -1)),
        (0, 4, -1, ErrorCode::OffsetOutOfRange, (-1, -1)),
    ];
    for (partition, fetch_offset, last_fetched_epoch, error, parted) in cases {
        let asked =
            FetchPartition { partition, fetch_offset, last_fetched_epoch, ..FetchPartition::default() };
        let told = fetch(&mut client, 0, asked);
        let diverging = (told.diverging_epoch.epoch, told.diverging_epoch.end_offset);
        assert_eq!(
            (ErrorCode::from_code(told.error_code), diverging),
            (error, parted),
            "partition {partition} from {fetch_offset} in epoch {last_fetched_epoch}"
        );
    }
}

#[test]
fn aborted_transactions_are_listed_for_who_wants_them_settled() {
    let (_dir, _broker, mut client) = serve();
    let mut told = |isolation, partition, fetch_offset| {
        let asked = FetchPartition { partition, fetch_offset, ..FetchPartition::default() };
        let data = fetch(&mut client, isolation, asked);
        (ErrorCode::from_code(data.error_code), data.aborted_transactions.map(|aborted| aborted.len()))
    };
    assert_eq!(told(0, 0, 0), (ErrorCode::None, None));
    assert_eq!(told(1, 0, 0), (ErrorCode::None, Some(0)));
    assert_eq!(told(1, 0, 9), (ErrorCode::OffsetOutOfRange, None));
    assert_eq!(told(0, 7, 0), (ErrorCode::UnknownTopicOrPartition, Some(0)));
    assert_eq!(told(5, 0, 0), (ErrorCode::UnknownServerError, Some(0)));
}
