//! One connection: answers in order however many requests are under way, waiting fetches, requests that end a connection.

use std::io::Read;

use penstock_protocol::messages::delete_topics_request::DeleteTopicState;
use penstock_protocol::messages::{ApiVersionsRequest, DeleteTopicsRequest, FetchRequest, ProduceRequest};
use penstock_protocol::{ErrorCode, WireString};

use crate::broker::{Broker, directory};
use crate::client::{Client, FETCH, PRODUCE, fetch, produce, values_of};

#[test]
fn pipelined_requests_are_answered_in_order() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 4);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("order", 8);
    // More than the pipeline holds, over all shards, with other APIs in between.
    let mut sent = Vec::new();
    for number in 0..300 {
        sent.push(client.send(PRODUCE, &produce("order", number % 8, &number.to_string(), -1)));
        sent.push(client.send(0, &ApiVersionsRequest::default()));
    }
    for (number, pair) in (0..300).zip(sent.chunks(2)) {
        let response = client.receive::<ProduceRequest>(PRODUCE, pair[0]);
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(number / 8)));
        assert_eq!(client.receive::<ApiVersionsRequest>(0, pair[1]).error_code, 0);
    }
    for partition in 0..8 {
        let expected: Vec<String> =
            (partition..300).step_by(8).map(|number: i32| number.to_string()).collect();
        assert_eq!(client.consume("order", partition), expected);
    }
}

/// Requests that come together, of lengths that share a piece of memory and lengths that do not, keep what they hold apart.
#[test]
fn requests_of_all_lengths_that_come_together_keep_their_records() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("lengths", 3);
    let lengths = [1000, 1000, 1000, 1000, 1, 900, 4000, 1100, 1100, 14_000, 1000, 20_000, 1000, 1000];
    let value = |number: usize| format!("{number:03}").repeat(lengths[number % lengths.len()]);
    let sent: Vec<i32> = (0..140)
        .map(|number| client.send(PRODUCE, &produce("lengths", (number % 3) as i32, &value(number), -1)))
        .collect();
    for id in sent {
        let response = client.receive::<ProduceRequest>(PRODUCE, id);
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
    for partition in 0..3 {
        let expected: Vec<String> = (partition..140).step_by(3).map(value).collect();
        assert!(client.consume("lengths", partition as i32) == expected);
    }
}

#[test]
fn a_waiting_fetch_is_completed_by_an_append_on_any_shard() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 4);
    let mut writer = Client::connect(&broker.kafka);
    let mut reader = Client::connect(&broker.kafka);
    writer.create_topic("wait", 8);
    for partition in 0..8 {
        // Far longer than the test may take: only the append can end it.
        let all: Vec<(i32, i64)> = (0..8).map(|each| (each, i64::from(each < partition))).collect();
        let id = reader.send(FETCH, &fetch("wait", &all, 600_000));
        writer.produce("wait", partition, "here");
        assert_eq!(values_of(&reader.receive::<FetchRequest>(FETCH, id)), ["here"]);
    }
}

#[test]
fn acks_0_has_no_answer_and_its_failure_ends_the_connection() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("quiet", 2);
    client.send(PRODUCE, &produce("quiet", 0, "a", 0));
    client.send(PRODUCE, &produce("quiet", 1, "b", 0));
    let id = client.send(PRODUCE, &produce("quiet", 0, "c", 1));
    assert_eq!(
        client.receive::<ProduceRequest>(PRODUCE, id).responses[0].partition_responses[0].base_offset,
        1
    );
    client.send(PRODUCE, &produce("quiet", 7, "no such partition", 0));
    assert_eq!(client.stream.read(&mut [0; 16]).unwrap(), 0);
    let mut client = Client::connect(&broker.kafka);
    let response = client.call(PRODUCE, &produce("quiet", 0, "d", 2));
    let invalid_required_acks = 21;
    assert_eq!(response.responses[0].partition_responses[0].error_code, invalid_required_acks);
    assert_eq!(client.consume("quiet", 0), ["a", "c"]);
}

#[test]
fn answers_reach_a_peer_that_closed_its_sending_half() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("half", 1);
    let ids: Vec<i32> =
        (0..10).map(|number| client.send(PRODUCE, &produce("half", 0, &number.to_string(), -1))).collect();
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    for (offset, id) in (0..).zip(ids) {
        let response = client.receive::<ProduceRequest>(PRODUCE, id);
        assert_eq!(response.responses[0].partition_responses[0].base_offset, offset);
    }
    assert_eq!(client.stream.read(&mut [0; 1]).unwrap(), 0);
}

/// A batch larger than a frame waits for its segment's file, and what came behind it to the same log waits in its line. However
/// far they are when the topic goes, each is answered, and nothing of them is in the next topic of that name.
#[test]
fn a_topic_deleted_beneath_appends_that_wait_leaves_none_without_an_answer() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 2, &["message.max.bytes=16777216"]);
    let connect = || Client::connect(&broker.kafka);
    let mut writers: [Client; 3] = std::array::from_fn(|_| connect());
    let mut other = connect();
    let large = "0123456789abcdef".repeat(9 << 16);
    let name = Some(WireString::from_static("gone"));
    let topics = vec![DeleteTopicState { name, ..DeleteTopicState::default() }];
    let delete = DeleteTopicsRequest { topics, timeout_ms: 60_000, ..DeleteTopicsRequest::default() };
    let gone = [ErrorCode::UnknownTopicOrPartition, ErrorCode::NotLeaderOrFollower].map(|error| error.code());
    for round in 0..6 {
        other.create_topic("gone", 1);
        let mut sent = Vec::new();
        for number in 0..8 {
            for writer in &mut writers {
                let value = if number % 4 == 0 && sent.len() % 3 == 0 { large.as_str() } else { "small" };
                sent.push(writer.send(PRODUCE, &produce("gone", 0, value, -1)));
                if sent.len() == 1 + 4 * round {
                    assert_eq!(other.call(6, &delete).responses[0].error_code, 0);
                }
            }
        }
        let mut offsets = Vec::new();
        for (number, id) in sent.iter().enumerate() {
            let response = writers[number % 3].receive::<ProduceRequest>(PRODUCE, *id);
            let answer = &response.responses[0].partition_responses[0];
            match answer.error_code {
                0 => {
                    assert!(number <= 4 * round, "sent when the topic was gone: {answer:?}");
                    offsets.push(answer.base_offset);
                }
                error => assert!(gone.contains(&error), "{answer:?}"),
            }
        }
        // What was acknowledged stood in the log without a gap.
        offsets.sort_unstable();
        assert_eq!(offsets, (0..).take(offsets.len()).collect::<Vec<i64>>());
        other.create_topic("gone", 1);
        assert_eq!(other.consume("gone", 0), [] as [&str; 0]);
        assert_eq!(other.produce("gone", 0, "anew"), 0);
        assert_eq!(other.call(6, &delete).responses[0].error_code, 0);
    }
}
