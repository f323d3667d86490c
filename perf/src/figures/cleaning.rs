//! Producing beside the cleaner: the p99 of a load while compacted logs are cleaned, to that of the same load while they may
//! not be. Records are written to the compacted logs all the time, in both.

use std::io;
use std::process::Command;
use std::thread;

use serde_json::{Map, Value, json};

use super::Bench;
use super::scenarios::{LOAD, half_rate, load_spec};
use super::targets::LARGE_SEGMENTS;
use crate::broker::Broker;
use crate::load::{Load, LoadSpec};

/// The compacted topic.
const TOPIC: &str = "compacted";
/// What is written to it a second, keyed, so that the cleaner never runs out of work.
const DIRTY_MB_PER_SECOND: u64 = 30;
const KEYS: u64 = 100_000;
/// `min.compaction.lag.ms` of records that may not be cleaned yet, and of those that may.
const LAGS_MS: [(&str, u64); 2] = [("not_cleaned", 7 * 24 * 3600 * 1000), ("cleaned", 0)];

/// Half of what went through at the maximum, without and with the cleaner at work.
pub(super) fn cleaning(bench: &Bench, before: &Map<String, Value>) -> io::Result<Value> {
    let rate_mb = half_rate(before)?;
    let broker = Broker::start_with(&bench.broker, &["log.cleaner.backoff.ms=100"])?;
    let mut figures = Map::new();
    for (name, lag_ms) in LAGS_MS {
        let dirtying = Load::start(dirty(bench, &broker))?;
        // Its topic is there when its load runs.
        thread::sleep(bench.warm_up / 2);
        set_lag(bench, &broker, lag_ms)?;
        let read = || broker.metric("penstock_cleaner_read_bytes_total");
        let read_before = read()?;
        let mut produced = Load::start(beside(bench, &broker, rate_mb))?.finish()?;
        let cleaned = read()?.saturating_sub(read_before);
        dirtying.finish()?;
        // What was being cleaned already is cleaned to its end.
        if lag_ms == 0 && cleaned == 0 {
            return Err(io::Error::other("nothing was cleaned"));
        }
        let seconds = (bench.warm_up + bench.duration).as_secs_f64();
        let megabytes_per_second = cleaned as f64 / 1e6 / seconds;
        figures.insert(
            name.to_owned(),
            json!({ "produce": produced.swap_remove(0), "cleaner_megabytes_per_second": megabytes_per_second }),
        );
    }
    broker.stop()?;
    Ok(Value::Object(figures))
}

/// Keyed records for the compacted topic, for as long as all of a measurement takes.
fn dirty(bench: &Bench, broker: &Broker) -> LoadSpec {
    let args = [
        "produce".to_owned(),
        format!("--topic={TOPIC}"),
        "--create-partitions=16".to_owned(),
        "--config=cleanup.policy=compact".to_owned(),
        "--config=segment.bytes=16777216".to_owned(),
        "--config=min.cleanable.dirty.ratio=0.01".to_owned(),
        format!("--config=min.compaction.lag.ms={}", LAGS_MS[0].1),
        "--acks=all".to_owned(),
        format!("--keyed={KEYS}"),
        format!("--rate={DIRTY_MB_PER_SECOND}MB/s"),
    ];
    let mut spec = load_spec(bench, Some(&broker.address), args.to_vec());
    spec.json_file = bench.work_dir.join("dirty.json");
    spec.duration += bench.warm_up;
    spec
}

fn beside(bench: &Bench, broker: &Broker, rate_mb: f64) -> LoadSpec {
    let mut args = vec!["produce".to_owned(), "--topic=beside".to_owned(), "--acks=all".to_owned()];
    args.extend(LOAD.map(str::to_owned));
    args.extend(["--create-partitions=16".to_owned(), format!("--rate={rate_mb:.0}MB/s")]);
    args.extend(LARGE_SEGMENTS.map(str::to_owned));
    load_spec(bench, Some(&broker.address), args)
}

/// Lets the cleaner at the topic's records, or not yet.
fn set_lag(bench: &Bench, broker: &Broker, lag_ms: u64) -> io::Result<()> {
    let mut command = Command::new(&bench.broker.binary);
    command.args(["config", "--bootstrap", &broker.address, "set", "topic", TOPIC]);
    let status = command.arg(format!("min.compaction.lag.ms={lag_ms}")).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("the topic cannot be configured: {status}"))),
    }
}
