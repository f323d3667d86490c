//! `/histograms`: each stage is counted on the shard that carries it out, exactly once for each request that went through.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use penstock_protocol::messages::ApiVersionsRequest;
use serde_json::Value;

use crate::broker::{Broker, PATIENCE, directory};
use crate::client::{Client, FETCH, PRODUCE, fetch, produce};
use crate::limits::json_of;

const STAGES: [&str; 9] =
    ["receive", "decode", "mailbox", "append", "journal_write", "flush", "respond", "produce", "fetch"];
/// What a distribution tells, from the least to the greatest.
const RISING: [&str; 7] = ["min_ns", "p50_ns", "p90_ns", "p99_ns", "p99_9_ns", "p99_99_ns", "max_ns"];

/// Counts since the start, by shard and stage, without those that are 0.
type Counts = BTreeMap<(usize, &'static str), u64>;

fn counts(page: &Value) -> Counts {
    let mut counts = Counts::new();
    for (shard, told) in page["shards"].as_array().unwrap().iter().enumerate() {
        assert_eq!(told["shard"], shard);
        for stage in STAGES {
            let count = told["stages"][stage]["since_start"]["count"].as_u64().unwrap();
            if count > 0 {
                counts.insert((shard, stage), count);
            }
        }
    }
    counts
}

/// What a page holds whatever happened.
fn check(page: &Value) {
    let shards = page["shards"].as_array().unwrap();
    assert!(page["recent_s"].as_f64().unwrap() <= page["since_start_s"].as_f64().unwrap());
    for stage in STAGES {
        for span in ["since_start", "recent"] {
            let all = &page["stages"][stage][span];
            let of_shards = shards.iter().map(|shard| &shard["stages"][stage][span]);
            let sum: u64 = of_shards.clone().map(|told| told["count"].as_u64().unwrap()).sum();
            assert_eq!(all["count"], sum, "{stage}, {span}: all shards together");
            of_shards.chain([all]).for_each(check_distribution);
        }
    }
}

fn check_distribution(told: &Value) {
    let buckets = told["buckets"].as_array().unwrap();
    let sum: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
    assert_eq!(told["count"], sum, "{told}");
    assert!(buckets.is_sorted_by_key(|bucket| bucket["le_ns"].as_u64().unwrap()));
    if sum == 0 {
        assert!(RISING.iter().all(|name| told[name].is_null()) && told["mean_ns"].is_null(), "{told}");
        return;
    }
    let values: Vec<u64> = RISING.iter().map(|name| told[name].as_u64().unwrap()).collect();
    assert!(values.is_sorted(), "{told}");
    let (least, greatest) = (values[0], values[6]);
    assert!((least..=greatest).contains(&told["mean_ns"].as_u64().unwrap()), "{told}");
}

/// Whether these counts are those. Commits may be more: a shard vouches for its last one with an empty one.
fn are(counts: &Counts, wanted: &Counts) -> bool {
    let same = |(key, count): (&(usize, &str), &u64)| {
        let told = counts.get(key).copied().unwrap_or_default();
        if ["journal_write", "flush"].contains(&key.1) { told >= *count } else { told == *count }
    };
    counts.len() == wanted.len() && wanted.iter().all(same)
}

/// The page once it counts what is wanted, however long that takes.
fn until(broker: &Broker, wanted: &Counts) -> Value {
    let since = Instant::now();
    loop {
        let page = json_of(broker, "/histograms");
        check(&page);
        let counts = counts(&page);
        if are(&counts, wanted) {
            return page;
        }
        assert!(since.elapsed() < PATIENCE, "{counts:?}\nwanted {wanted:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What is counted when all that has happened up to now is: every shard has handed over twice since.
fn at_rest(broker: &Broker) -> Counts {
    let rounds = |page: &Value| -> Vec<u64> {
        page["shards"].as_array().unwrap().iter().map(|shard| shard["rounds"].as_u64().unwrap()).collect()
    };
    let before = rounds(&json_of(broker, "/histograms"));
    let since = Instant::now();
    loop {
        let page = json_of(broker, "/histograms");
        if rounds(&page).iter().zip(&before).all(|(now, before)| *now >= before + 2) {
            check(&page);
            return counts(&page);
        }
        assert!(since.elapsed() < PATIENCE, "{page}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_stage_counts_its_requests_on_its_shard() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 4);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("t", 4);
    client.create_topic("one", 1);
    let home = json_of(&broker, "/connections")["connections"][0]["shard"].as_u64().unwrap();
    let home = usize::try_from(home).unwrap();
    let mut wanted = at_rest(&broker);
    assert_eq!(wanted[&(home, "receive")], 2, "two requests so far");
    let mut expect = |shard, stage, count| *wanted.entry((shard, stage)).or_default() += count;

    // Which shard a partition is on shows in where its first append is.
    let before = at_rest(&broker);
    client.produce("one", 0, "first");
    let after = at_rest(&broker);
    let one = (0..4).find(|shard| after.get(&(*shard, "append")) != before.get(&(*shard, "append"))).unwrap();

    // One after the other: each is a commit of its own. To all four partitions, of which each shard has one.
    for round in 0..10 {
        for partition in 0..4 {
            client.produce("t", partition, &format!("{round}"));
        }
    }
    for _ in 0..5 {
        client.call(FETCH, &fetch("t", &[(0, 0), (1, 0), (2, 0), (3, 0)], 0));
    }
    let produced = 1 + 40;
    for shard in 0..4 {
        let appends = 10 + u64::from(shard == one);
        for stage in ["append", "journal_write", "flush"] {
            expect(shard, stage, appends);
        }
        if shard != home {
            expect(shard, "mailbox", appends + 5);
        }
    }
    expect(home, "produce", produced);
    expect(home, "fetch", 5);
    for stage in ["receive", "decode", "respond"] {
        expect(home, stage, produced + 5);
    }
    until(&broker, &wanted);

    // Without an answer there is no end to measure.
    client.send(PRODUCE, &produce("one", 0, "no answer", 0));
    client.call(3, &ApiVersionsRequest::default());
    let mut expect = |shard, stage, count| *wanted.entry((shard, stage)).or_default() += count;
    expect(home, "receive", 2);
    expect(home, "decode", 2);
    expect(home, "respond", 1);
    for stage in ["append", "journal_write", "flush"] {
        expect(one, stage, 1);
    }
    if one != home {
        expect(one, "mailbox", 1);
    }
    let page = until(&broker, &wanted);
    let rest = at_rest(&broker);
    assert!(are(&rest, &wanted), "and no more comes: {rest:?}");
    let flush = &page["stages"]["flush"]["since_start"];
    assert!(flush["min_ns"].as_u64().unwrap() > 1_000, "no disk flushes in a microsecond: {flush}");
}

#[test]
fn a_shard_that_did_nothing_has_nothing() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 3);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("t", 1);
    for _ in 0..3 {
        client.produce("t", 0, "value");
    }
    let counts = at_rest(&broker);
    let appends: Vec<usize> = (0..3).filter(|shard| counts.contains_key(&(*shard, "append"))).collect();
    let received: Vec<usize> = (0..3).filter(|shard| counts.contains_key(&(*shard, "receive"))).collect();
    assert_eq!((appends.len(), received.len()), (1, 1), "one partition, one connection: {counts:?}");
    let sent = appends != received;
    let mailboxes =
        counts.iter().filter(|((_, stage), _)| *stage == "mailbox").map(|((shard, _), n)| (*shard, *n));
    let wanted = if sent { vec![(appends[0], 3)] } else { vec![] };
    assert_eq!(mailboxes.collect::<Vec<_>>(), wanted, "only what another shard sent comes by mailbox");
    // Shard 0 has the metadata.
    for idle in (1..3).filter(|shard| !appends.contains(shard) && !received.contains(shard)) {
        assert!(counts.keys().all(|(shard, _)| *shard != idle), "shard {idle}: {counts:?}");
    }
}

#[test]
fn how_long_a_stage_takes_is_told() {
    const WAIT_MS: i32 = 700;
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("t", 1);
    // Nothing is there: it waits until its time is up, which is its own doing and no stage's.
    client.call(FETCH, &fetch("t", &[(0, 0)], WAIT_MS));
    let counts = at_rest(&broker);
    assert_eq!(counts[&(0, "fetch")], 1);
    let page = json_of(&broker, "/histograms");
    let told = |stage: &str, name: &str| page["stages"][stage]["since_start"][name].as_u64().unwrap();
    let wait_ns = u64::try_from(WAIT_MS).unwrap() * 1_000_000;
    // The least that a waiting fetch takes, by a clock of milliseconds and a histogram of two digits.
    assert!(told("fetch", "min_ns") >= wait_ns * 98 / 100, "{page}");
    assert!(told("respond", "min_ns") < wait_ns && told("decode", "min_ns") < wait_ns, "{page}");
}
