//! `/load` and the page over it.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE, directory};
use crate::client::{Client, FETCH, fetch};
use crate::limits::json_of;

/// `/load` once it is as wanted, however long that takes.
fn until(broker: &Broker, wanted: impl Fn(&Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let page = json_of(broker, "/load");
        if wanted(&page) {
            return page;
        }
        assert!(since.elapsed() < PATIENCE, "{page}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The sum of one field over all shards.
fn sum(page: &Value, field: &str) -> u64 {
    page["shards"].as_array().unwrap().iter().map(|shard| shard[field].as_u64().unwrap()).sum()
}

#[test]
fn requests_are_in_flight_until_they_are_answered_or_given_up() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("t", 2);
    client.produce("t", 0, "value");
    let idle = until(&broker, |page| sum(page, "in_flight") == 0);
    assert_eq!((sum(&idle, "requests"), &idle["topics"]), (2, &json!(1)));
    let answers = |kind: &str| {
        idle["shards"]
            .as_array()
            .unwrap()
            .iter()
            .map(|shard| shard["answers"][kind].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!((answers("produce"), answers("fetch"), answers("other")), (1, 0, 1));
    // Two that wait for records which never come: one is given up with its connection, one by its own time.
    let mut other = Client::connect(&broker.kafka);
    client.send(FETCH, &fetch("t", &[(1, 0)], i32::MAX));
    let id = other.send(FETCH, &fetch("t", &[(1, 0)], 100));
    until(&broker, |page| sum(page, "requests") == 4);
    other.receive::<penstock_protocol::messages::FetchRequest>(FETCH, id);
    let waiting = until(&broker, |page| sum(page, "in_flight") == 1);
    drop(client);
    let after = until(&broker, |page| sum(page, "in_flight") == 0);
    assert!(after["uptime_s"].as_f64().unwrap() > waiting["uptime_s"].as_f64().unwrap());
    assert!(sum(&after, "cpu_ns") > 0, "each shard's thread has run: {after}");
    assert_eq!((sum(&after, "mailbox"), sum(&after, "appended_bytes") > 0), (0, true));
}

#[test]
fn the_page_stands_alone() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let answer = broker.get("/");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(
        head.starts_with("http/1.1 200 ok\r\n") && head.contains("content-type: text/html; charset=utf-8"),
        "{head}"
    );
    assert!(head.contains("content-security-policy: default-src 'none';"), "{head}");
    assert!(!head.contains("http:") && !head.contains("https:") && !head.contains('*'), "{head}");
    // Whatever is named with a scheme is the name of a namespace, which nobody asks.
    let named: Vec<&str> = page.match_indices("http").map(|(at, _)| &page[at..at + 26]).collect();
    assert_eq!(named, ["http://www.w3.org/2000/svg"]);
    for loads in ["<link rel=\"stylesheet", "<script src", "@import", "url(", "<img", "<iframe"] {
        assert!(!page.contains(loads), "{loads}");
    }
}
