//! The log of slow requests.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use penstock_protocol::WireString;
use penstock_protocol::frame::encode_request;
use penstock_protocol::messages::ProduceRequest;

use crate::broker::{Broker, PATIENCE, directory};
use crate::client::{Client, PRODUCE, produce};
use crate::limits::json_of;

/// A request whose second half comes late is slow in its first stage for certain, and goes through all others.
#[test]
fn a_slow_request_is_logged_with_the_time_of_each_stage() {
    const LATE: Duration = Duration::from_millis(60);
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 1, &["penstock.slow.request.ms=50"]);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("t", 1);
    // A busy machine may have made the first requests slow.
    broker.forget_log();
    let request = produce("t", 0, "value", -1);
    let name = WireString::from_static("slow-test");
    let slices = encode_request(7, Some(&name), PRODUCE, &request).unwrap();
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
    let received = || {
        let page = json_of(&broker, "/connections");
        page["connections"].as_array().unwrap().iter().map(|c| c["bytes_in"].as_u64().unwrap()).sum::<u64>()
    };
    let before = received();
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    client.stream.write_all(head).unwrap();
    let since = Instant::now();
    while received() < before + head.len() as u64 {
        assert!(since.elapsed() < PATIENCE, "half a request was not received");
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(LATE);
    client.stream.write_all(tail).unwrap();
    client.receive::<ProduceRequest>(PRODUCE, 7);
    let line = loop {
        let log = broker.logged();
        match log.lines().find(|line| line.contains("slow request") && line.contains("Produce")) {
            Some(line) => break line.to_owned(),
            None => assert!(since.elapsed() < PATIENCE, "{log}"),
        }
        thread::sleep(Duration::from_millis(1));
    };
    let steps =
        line.split_once("steps=\"").and_then(|(_, rest)| rest.split_once('"')).map(|(steps, _)| steps);
    let steps: Vec<(&str, f64)> = steps
        .unwrap_or_else(|| panic!("{line}"))
        .split(", ")
        .map(|step| step.split_once(' ').map(|(name, ms)| (name, ms.parse().unwrap())).unwrap())
        .collect();
    let of = |name: &str| steps.iter().find(|(step, _)| *step == name).map_or(0.0, |(_, ms)| *ms);
    assert!(of("receive") >= LATE.as_secs_f64() * 1000.0, "{line}");
    assert!(of("journal_write") > 0.0 && of("flush") > 0.0, "it is durable: {line}");
    assert_eq!((of("read"), of("records")), (0.0, 0.0), "it read nothing: {line}");
    let longest = steps.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
    assert!(line.contains(&format!("longest=\"{longest}\"")), "{line}");
    let slow = broker.get("/metrics");
    let slow = slow.lines().find_map(|line| line.strip_prefix("penstock_slow_requests_total{shard=\"0\"} "));
    assert!(slow.unwrap().parse::<u64>().unwrap() > 0);
}
