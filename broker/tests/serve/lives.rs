//! Ends and new beginnings: what was acknowledged is there, whatever ended the broker and however many shards come next.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{Broker, PATIENCE, directory};
use crate::client::{Client, PRODUCE, produce};

const PARTITIONS: i32 = 5;

/// Writes `count` records to each partition, beginning with number `from`.
fn write(broker: &Broker, from: usize, count: usize) {
    let mut client = Client::connect(&broker.kafka);
    if from == 0 {
        client.create_topic("lives", PARTITIONS);
    }
    for number in from..from + count {
        for partition in 0..PARTITIONS {
            let offset = client.produce("lives", partition, &format!("{partition}-{number}"));
            assert_eq!(offset, i64::try_from(number).unwrap());
        }
    }
}

/// Checks that each partition has exactly the records 0 to `count`.
fn check(broker: &Broker, count: usize) {
    let mut client = Client::connect(&broker.kafka);
    for partition in 0..PARTITIONS {
        let expected: Vec<String> = (0..count).map(|number| format!("{partition}-{number}")).collect();
        assert_eq!(client.consume("lives", partition), expected);
    }
}

#[test]
fn an_orderly_stop_needs_no_recovery() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    assert!(broker.ready.starts_with("ready kafka=127.0.0.1:"), "{}", broker.ready);
    assert!(broker.ready.ends_with(" shards=2\n"), "{}", broker.ready);
    write(&broker, 0, 20);
    assert_eq!(broker.stop().code(), Some(0));
    let broker = Broker::start(dir.path(), 2);
    check(&broker, 20);
    assert!(!broker.logged().contains("recovered from the journal"), "{}", broker.logged());
    write(&broker, 20, 1);
    broker.signal("INT");
    let mut broker = broker;
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn a_kill_loses_nothing_acknowledged() {
    let dir = directory();
    let mut written = 0;
    for _ in 0..3 {
        let broker = Broker::start(dir.path(), 2);
        check_if_any(&broker, written);
        write(&broker, written, 10);
        written += 10;
        broker.kill();
    }
    let broker = Broker::start(dir.path(), 2);
    check(&broker, written);
    assert!(broker.logged().contains("recovered from the journal"), "{}", broker.logged());
    assert!(broker.stop().success());
}

fn check_if_any(broker: &Broker, written: usize) {
    if written > 0 {
        check(broker, written);
    }
}

#[test]
fn another_number_of_shards_keeps_all_data() {
    let dir = directory();
    let mut written = 0;
    for (shards, killed) in [(2, false), (4, true), (1, false), (3, true), (3, false)] {
        let broker = Broker::start(dir.path(), shards);
        assert!(broker.ready.ends_with(&format!(" shards={shards}\n")), "{}", broker.ready);
        check_if_any(&broker, written);
        write(&broker, written, 4);
        written += 4;
        check(&broker, written);
        match killed {
            true => broker.kill(),
            false => assert!(broker.stop().success()),
        }
    }
}

/// Names of the metadata snapshots, the oldest first.
fn snapshots(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("data/metadata")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".snapshot")).collect();
    names.sort();
    names
}

#[test]
fn metadata_survives_by_snapshots() {
    let dir = directory();
    let bound = ["metadata.log.max.record.bytes.between.snapshots=1"];
    let broker = Broker::start_with(dir.path(), 2, &bound);
    write(&broker, 0, 3);
    let mut client = Client::connect(&broker.kafka);
    let since = Instant::now();
    for number in 0.. {
        // The log loses its beginning with the third.
        let seen = snapshots(dir.path());
        if number > 2 && seen.len() == 2 && !seen[0].starts_with("0000000000000000000") {
            break;
        }
        client.create_topic(&format!("further-{number}"), 2);
        thread::sleep(Duration::from_millis(300));
        assert!(since.elapsed() < PATIENCE, "{seen:?}");
    }
    broker.kill();
    let broker = Broker::start_with(dir.path(), 2, &bound);
    check(&broker, 3);
    broker.kill();
    // The newest is damaged: the one before it leads to the same.
    let newest = dir.path().join("data/metadata").join(snapshots(dir.path()).pop().unwrap());
    fs::write(&newest, "torn").unwrap();
    let broker = Broker::start_with(dir.path(), 2, &bound);
    assert!(broker.logged().contains("a metadata snapshot is of no use"), "{}", broker.logged());
    check(&broker, 3);
    write(&broker, 3, 1);
    check(&broker, 4);
    assert!(broker.stop().success());
}

#[test]
fn a_batch_larger_than_a_journal_frame_survives_a_kill() {
    let dir = directory();
    let settings = ["message.max.bytes=67108864", "log.segment.bytes=50331648"];
    let broker = Broker::start_with(dir.path(), 2, &settings);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("large", 1);
    let large = "0123456789abcdef".repeat(2 << 20);
    assert_eq!(client.produce("large", 0, "small"), 0);
    assert_eq!(client.produce("large", 0, &large), 1);
    assert_eq!(client.produce("large", 0, "small again"), 2);
    // As in Apache Kafka, a batch has to fit a segment.
    let response = client.call(PRODUCE, &produce("large", 0, &large.repeat(2)[..50 << 20], -1));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 18, "RECORD_LIST_TOO_LARGE");
    broker.kill();
    let broker = Broker::start_with(dir.path(), 2, &settings);
    let mut client = Client::connect(&broker.kafka);
    let found = client.consume("large", 0);
    assert!(
        found == ["small", &large, "small again"],
        "{:?}",
        found.iter().map(String::len).collect::<Vec<_>>()
    );
    assert!(broker.stop().success());
}
