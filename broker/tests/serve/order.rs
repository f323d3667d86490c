//! One connection: answers in order however many requests are under way, waiting fetches, requests that end a connection.

use std::io::Read;

use penstock_protocol::messages::{ApiVersionsRequest, FetchRequest, ProduceRequest};

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
