//! An orderly stop with requests under way: what was begun is answered, and nobody's patience is needed.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use penstock_protocol::messages::create_topics_request::CreatableTopic;
use penstock_protocol::messages::{CreateTopicsRequest, FetchRequest};
use penstock_protocol::{ErrorCode, WireString};
use serde_json::Value;

use crate::broker::{Broker, PATIENCE, directory};
use crate::client::{Client, FETCH, fetch, values_of};

const CREATE_TOPICS: i16 = 5;

/// Waits until something is so, however long that takes.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Requests that the broker has received on all connections.
fn requests(broker: &Broker) -> u64 {
    let answer = broker.get("/connections");
    let page: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    page["connections"].as_array().unwrap().iter().map(|entry| entry["requests"].as_u64().unwrap()).sum()
}

/// Fetches wait for partitions of their connection's shard and of others, which may begin to drain before it does. Each is
/// answered, with nothing, long before its own time.
#[test]
fn a_stop_answers_fetches_that_wait() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 4);
    let mut writer = Client::connect(&broker.kafka);
    writer.create_topic("wait", 8);
    let mut readers: Vec<_> = (0..32).map(|_| Client::connect(&broker.kafka)).collect();
    let ids: Vec<i32> = (0..)
        .zip(&mut readers)
        .map(|(number, reader)| reader.send(FETCH, &fetch("wait", &[(number % 8, 0)], 3_600_000)))
        .collect();
    wait_until("all fetches have come", || requests(&broker) == 1 + 32);
    let mut broker = broker;
    broker.signal("TERM");
    for (reader, id) in readers.iter_mut().zip(ids) {
        assert_eq!(values_of(&reader.receive::<FetchRequest>(FETCH, id)), Vec::<String>::new());
        assert_eq!(reader.stream.read(&mut [0; 1]).unwrap(), 0);
    }
    assert!(broker.wait().success());
}

fn create(name: &str) -> CreateTopicsRequest {
    let name = WireString::from(name);
    let topic =
        CreatableTopic { name, num_partitions: 1, replication_factor: -1, ..CreatableTopic::default() };
    CreateTopicsRequest { topics: vec![topic], timeout_ms: 60_000, ..CreateTopicsRequest::default() }
}

/// Creates topics one after the other until the broker is gone; how many it was told of.
fn create_until_gone(address: &str, prefix: &str) -> usize {
    let mut client = Client::connect(address);
    for number in 0.. {
        let id = client.try_send(CREATE_TOPICS, &create(&format!("{prefix}-{number}")));
        let answer = id.ok().and_then(|id| client.try_receive::<CreateTopicsRequest>(CREATE_TOPICS, id).ok());
        match answer {
            Some(response) => assert_eq!(response.topics[0].error_code, 0, "{response:?}"),
            None => return number,
        }
    }
    unreachable!("numbers have no end")
}

/// A metadata command runs before its request is in the connection's pipeline; a stop once closed the connection meanwhile.
#[test]
fn what_an_orderly_stop_lets_happen_is_answered() {
    let dir = directory();
    for life in 0..3 {
        let broker = Broker::start(dir.path(), 2);
        let address = broker.kafka.clone();
        let created: Vec<usize> = thread::scope(|scope| {
            let address = &address;
            let creators: Vec<_> = (0..6)
                .map(|creator| {
                    scope.spawn(move || create_until_gone(address, &format!("life-{life}-{creator}")))
                })
                .collect();
            wait_until("some topics are there", || requests(&broker) > 20);
            assert!(broker.stop().success());
            creators.into_iter().map(|creator| creator.join().unwrap()).collect()
        });
        let broker = Broker::start(dir.path(), 2);
        let mut client = Client::connect(&broker.kafka);
        for (creator, count) in created.into_iter().enumerate() {
            let name = format!("life-{life}-{creator}-{count}");
            let response = client.call(CREATE_TOPICS, &create(&name));
            let error = ErrorCode::from_code(response.topics[0].error_code);
            assert_eq!(error, ErrorCode::None, "{name} was made, and nobody was told");
        }
        assert!(broker.stop().success());
    }
}

/// A connection that does not read its answers holds the stop up; the second signal ends it.
#[test]
fn a_second_signal_cuts_a_stop_short_and_says_so() {
    let dir = directory();
    let mut broker = Broker::start(dir.path(), 2);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("unread", 1);
    let value = "x".repeat(900_000);
    for _ in 0..8 {
        client.produce("unread", 0, &value);
    }
    // Far more than the sockets between us hold.
    for _ in 0..20 {
        client.send(FETCH, &FetchRequest { max_bytes: 8 << 20, ..whole("unread") });
    }
    wait_until("all fetches have come", || requests(&broker) == 1 + 8 + 20);
    broker.signal("TERM");
    wait_until("it stops", || broker.logged().contains("TERM: stopping"));
    assert!(broker.is_running(), "it has answers to send");
    broker.signal("TERM");
    assert_eq!(broker.wait().code(), Some(0));
    let logged = broker.logged();
    assert!(logged.contains("TERM: no longer waiting for requests under way"), "{logged}");
}

/// A fetch of everything in partition 0.
fn whole(topic: &str) -> FetchRequest {
    let mut request = fetch(topic, &[(0, 0)], 0);
    request.topics[0].partitions[0].partition_max_bytes = i32::MAX;
    request
}
