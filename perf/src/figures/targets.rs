//! What else the broker is held to: many producers, the first touch of a partition, small requests, and what it costs to do
//! nothing.

use std::io;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::Bench;
use super::scenarios::{create, load_spec, loadgen};
use crate::broker::Broker;
use crate::load::Load;

/// Requests in flight on each connection of the small requests: what Kafka's clients have.
pub(super) const SMALL_IN_FLIGHT: usize = 5;
const IDLE_TOPICS: i32 = 10;
const IDLE_PARTITIONS_PER_TOPIC: i32 = 1000;
/// Segments and retention of topics that are written at the maximum: old ones go within a second.
const SMALL_SEGMENTS: [&str; 2] = ["--config=segment.bytes=8388608", "--config=retention.bytes=8388608"];
pub(super) const LARGE_SEGMENTS: [&str; 2] =
    ["--config=segment.bytes=67108864", "--config=retention.bytes=268435456"];
/// All partitions are touched once in this time; few enough a second that none waits for another.
const TOUCH_SECONDS: u64 = 10;
const TOUCH_ROUNDS: usize = 5;

/// 100 producers, keyed, each writing to every partition in batches of 16 KiB.
pub(super) fn keyed_args(partitions: i32) -> Vec<String> {
    let args = [
        "produce",
        "--acks=all",
        "--producers=100",
        "--keyed=1000000",
        "--batch-size=16KiB",
        &format!("--create-partitions={partitions}"),
    ];
    owned(args.iter().chain(&SMALL_SEGMENTS))
}

pub(super) fn keyed(bench: &Bench, partitions: i32) -> io::Result<Value> {
    watched(bench, keyed_args(partitions))
}

/// One record of 1 KiB in each request.
pub(super) fn small_args(connections: usize) -> Vec<String> {
    let args = [
        "produce",
        "--acks=all",
        "--batch-records=1",
        "--create-partitions=16",
        &format!("--producers={connections}"),
        &format!("--in-flight={SMALL_IN_FLIGHT}"),
    ];
    owned(args.iter().chain(&LARGE_SEGMENTS))
}

pub(super) fn small(bench: &Bench, connections: usize) -> io::Result<Value> {
    watched(bench, small_args(connections))
}

fn owned<'a>(args: impl Iterator<Item = &'a &'a str>) -> Vec<String> {
    args.map(|arg| (*arg).to_owned()).collect()
}

fn watched(bench: &Bench, args: Vec<String>) -> io::Result<Value> {
    let broker = Broker::start(&bench.broker)?;
    let load = Load::start(load_spec(bench, Some(&broker.address), args))?;
    let (mut figures, cost) = load.finish_watching(&broker, bench.device.as_ref())?;
    broker.stop()?;
    let mut figures = figures.swap_remove(0);
    figures["broker"] = cost;
    Ok(figures)
}

/// Each partition once, for the first time, and then once more: what the first touch (files, segments, tables) takes. As often
/// as there are rounds, with a topic of its own each time: the p99 of 1,000 requests is that of ten.
pub(super) fn touch(bench: &Bench, partitions: i32) -> io::Result<Value> {
    let broker = Broker::start(&bench.broker)?;
    let pass =
        Bench { duration: Duration::from_secs(TOUCH_SECONDS), warm_up: Duration::ZERO, ..bench.clone() };
    let touch_all = |topic: &str| {
        let args = [
            "produce",
            &format!("--topic={topic}"),
            "--acks=all",
            "--connections=16",
            "--in-flight=64",
            "--batch-records=15",
            &format!("--create-partitions={partitions}"),
            // Lanes go round their partitions in turn: so many records a second touch each partition once.
            &format!("--rate={}", i64::from(partitions) * 15 / TOUCH_SECONDS as i64),
        ];
        loadgen(&pass, Some(&broker.address), args.map(str::to_owned).to_vec())
    };
    // What a broker takes longer for because it has just been started is not asked here.
    touch_all("before")?;
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for round in 0..TOUCH_ROUNDS {
        let topic = format!("touched-{round}");
        first.push(touch_all(&topic)?);
        later.push(touch_all(&topic)?);
    }
    broker.stop()?;
    let rounds = json!({ "first": first, "later": later });
    Ok(json!({ "first": of_median_p99(first), "later": of_median_p99(later), "rounds": rounds }))
}

/// The figures whose p99 is the median; nothing of none.
fn of_median_p99(mut figures: Vec<Value>) -> Value {
    let p99 = |figures: &Value| figures["latency_us"]["p99"].as_f64().unwrap_or(f64::INFINITY);
    figures.sort_by(|a, b| p99(a).total_cmp(&p99(b)));
    let median = figures.len() / 2;
    if figures.is_empty() { Value::Null } else { figures.swap_remove(median) }
}

/// Processor time and memory of 10,000 empty partitions that nobody talks to.
pub(super) fn idle(bench: &Bench) -> io::Result<Value> {
    let broker = Broker::start(&bench.broker)?;
    thread::sleep(Duration::from_secs(2));
    let before = broker.resident_bytes()?;
    for number in 0..IDLE_TOPICS {
        create(&broker, &format!("idle-{number}"), IDLE_PARTITIONS_PER_TOPIC)?;
    }
    thread::sleep(bench.warm_up);
    let after = broker.resident_bytes()?;
    let used = broker.cpu_time()?;
    thread::sleep(bench.duration);
    let used = broker.cpu_time()? - used;
    let partitions = (IDLE_TOPICS * IDLE_PARTITIONS_PER_TOPIC) as u64;
    broker.stop()?;
    Ok(json!({
        "partitions": partitions,
        "resident_mib_before": before >> 20,
        "resident_mib_after": after >> 20,
        "bytes_per_partition": after.saturating_sub(before) / partitions,
        "cpu_percent": used.as_secs_f64() / bench.duration.as_secs_f64() * 100.0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_rounds_the_one_of_the_median_p99_counts() {
        let of = |p99: f64| json!({ "latency_us": { "p99": p99 } });
        assert_eq!(of_median_p99(vec![of(9.0), of(1.0), of(2.0)]), of(2.0));
        assert_eq!(of_median_p99(vec![of(1.0), json!({})]), json!({}), "what has no p99 is no fast one");
        assert_eq!(of_median_p99(Vec::new()), Value::Null);
    }
}
