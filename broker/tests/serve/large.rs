//! Requests about thousands of things, which are worked through in pieces or beside the shard: the answers are those that
//! many small requests would have had, in order, and complete.

use std::collections::BTreeSet;

use penstock_protocol::messages::create_topics_request::CreatableTopic;
use penstock_protocol::messages::delete_topics_request::DeleteTopicState;
use penstock_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use penstock_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use penstock_protocol::messages::metadata_request::MetadataRequestTopic;
use penstock_protocol::messages::metadata_response::MetadataResponseTopic;
use penstock_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeTopicPartitionsRequest,
    ListOffsetsRequest, MetadataRequest,
};
use penstock_protocol::{ErrorCode, WireString};

use crate::broker::{Broker, directory};
use crate::client::Client;

/// Far more entries than a shard works through at a stretch, in topics that are few or small.
const TOPICS: usize = 300;
const PARTITIONS_OF_ONE: i32 = 1500;
const METADATA: i16 = 12;
const CREATE_TOPICS: i16 = 7;

fn name(number: usize) -> WireString {
    WireString::from(format!("topic-{number:04}"))
}

fn creation(name: WireString, num_partitions: i32) -> CreatableTopic {
    CreatableTopic { name, num_partitions, replication_factor: 1, ..CreatableTopic::default() }
}

fn create(client: &mut Client, topics: Vec<CreatableTopic>) {
    let count = topics.len();
    let request = CreateTopicsRequest { topics, timeout_ms: 60_000, ..CreateTopicsRequest::default() };
    let created = client.call(CREATE_TOPICS, &request).topics;
    let ids: BTreeSet<_> = created.iter().map(|topic| topic.topic_id).collect();
    assert_eq!((created.len(), ids.len()), (count, count));
    assert!(created.iter().all(|topic| topic.error_code == 0), "{created:?}");
}

fn named(names: impl Iterator<Item = WireString>) -> MetadataRequest {
    let topics =
        names.map(|name| MetadataRequestTopic { name: Some(name), ..MetadataRequestTopic::default() });
    let topics = Some(topics.collect());
    MetadataRequest { topics, allow_auto_topic_creation: false, ..MetadataRequest::default() }
}

#[test]
fn large_answers_are_as_the_small_ones() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let mut client = Client::connect(&broker.kafka);
    let mut topics: Vec<_> = (0..TOPICS).map(|number| creation(name(number), 2)).collect();
    topics.push(creation(WireString::from_static("one"), PARTITIONS_OF_ONE));
    create(&mut client, topics);

    // One by one, then all at once, by null and by name, with what comes behind on the same connection.
    let names: Vec<WireString> = (0..TOPICS).map(name).chain([WireString::from_static("one")]).collect();
    let mut told: Vec<MetadataResponseTopic> = Vec::new();
    for name in &names[..TOPICS] {
        told.extend(client.call(METADATA, &named([name.clone()].into_iter())).topics);
    }
    assert!(told.iter().all(|topic| topic.error_code == 0 && topic.partitions.len() == 2));
    let all = client.send(METADATA, &MetadataRequest { topics: None, ..MetadataRequest::default() });
    let unknown = (0..2000).map(|number| WireString::from(format!("unknown-{number:04}")));
    let mixed = client.send(METADATA, &named(names.iter().cloned().chain(unknown)));
    let behind = client.send(0, &ApiVersionsRequest::default());
    let all = client.receive::<MetadataRequest>(METADATA, all).topics;
    let mixed = client.receive::<MetadataRequest>(METADATA, mixed).topics;
    assert_eq!(client.receive::<ApiVersionsRequest>(0, behind).error_code, 0);
    let (one, small) = all.split_first().unwrap();
    assert_eq!(small, told);
    assert_eq!(one.name.as_deref(), Some("one"));
    let numbers: Vec<i32> = one.partitions.iter().map(|partition| partition.partition_index).collect();
    assert_eq!(numbers, (0..PARTITIONS_OF_ONE).collect::<Vec<_>>());
    let (known, unknown) = mixed.split_at(names.len());
    assert_eq!(known, all);
    assert_eq!(unknown.len(), 2000);
    let error = ErrorCode::UnknownTopicOrPartition.code();
    assert!(unknown.iter().all(|topic| topic.error_code == error && topic.partitions.is_empty()));

    describe(&mut client, &names);
    list_offsets(&mut client);
    delete(&mut client, &names);
}

/// Walks through all partitions by pages, with thousands of unknown names among them.
fn describe(client: &mut Client, names: &[WireString]) {
    let unknown = (0..1500).map(|number| WireString::from(format!("unknown-{number:04}")));
    let topics = names.iter().cloned().chain(unknown).map(|name| TopicRequest { name }).collect();
    let mut request = DescribeTopicPartitionsRequest {
        topics,
        response_partition_limit: 1200,
        ..DescribeTopicPartitionsRequest::default()
    };
    let (mut partitions, mut unknown) = (BTreeSet::new(), 0);
    loop {
        let response = client.call(0, &request);
        for topic in &response.topics {
            unknown += usize::from(topic.error_code != 0);
            let name = topic.name.as_ref().unwrap().to_string();
            for partition in &topic.partitions {
                assert!(partitions.insert((name.clone(), partition.partition_index)), "told once");
            }
        }
        let Some(next) = response.next_cursor else { break };
        let cursor = Cursor { topic_name: next.topic_name, partition_index: next.partition_index };
        request.cursor = Some(cursor);
    }
    assert_eq!((partitions.len(), unknown), (2 * TOPICS + 1500, 1500));
}

fn list_offsets(client: &mut Client) {
    let partitions = (0..PARTITIONS_OF_ONE + 500).map(|partition_index| ListOffsetsPartition {
        partition_index,
        current_leader_epoch: -1,
        timestamp: -1,
    });
    let name = WireString::from_static("one");
    let topics = vec![ListOffsetsTopic { name, partitions: partitions.collect() }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() };
    let told = client.call(7, &request).topics.remove(0).partitions;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    for (number, told) in (0..PARTITIONS_OF_ONE + 500).zip(&told) {
        let (error, offset) = if number < PARTITIONS_OF_ONE { (0, 0) } else { (unknown, -1) };
        assert_eq!((told.partition_index, told.error_code, told.offset), (number, error, offset));
    }
    assert_eq!(told.len(), usize::try_from(PARTITIONS_OF_ONE).unwrap() + 500);
}

/// Deletes everything, and names that never were, in one request.
fn delete(client: &mut Client, names: &[WireString]) {
    let unknown = (0..1500).map(|number| WireString::from(format!("unknown-{number:04}")));
    let topics = names
        .iter()
        .cloned()
        .chain(unknown)
        .map(|name| DeleteTopicState { name: Some(name), ..DeleteTopicState::default() });
    let topics = topics.collect();
    let request = DeleteTopicsRequest { topics, timeout_ms: 60_000, ..DeleteTopicsRequest::default() };
    let told = client.call(6, &request).responses;
    let deleted = told.iter().filter(|topic| topic.error_code == 0).count();
    assert_eq!((deleted, told.len()), (names.len(), names.len() + 1500));
    let left = client.call(METADATA, &MetadataRequest { topics: None, ..MetadataRequest::default() });
    assert_eq!(left.topics, []);
}
