//! Producing beside the cleaner: the p99 of a load's seconds while compacted logs are cleaned, to that of its seconds while
//! they may not be, in turn. Records are written to the compacted logs all the time.

use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::Bench;
use super::scenarios::{beside, half_rate, load_spec};
use super::seconds::{STRETCH, p99s_between, summary};
use crate::broker::Broker;
use crate::load::{Load, LoadSpec};

/// The compacted topic.
const TOPIC: &str = "compacted";
/// What is written to it a second, keyed, so that the cleaner never runs out of work.
const DIRTY_MB_PER_SECOND: u64 = 30;
const KEYS: u64 = 100_000;
/// `min.compaction.lag.ms` of records that may not be cleaned yet, and of those that may.
const LAGS_MS: [u64; 2] = [7 * 24 * 3600 * 1000, 0];

/// Not counted behind a change: what was being cleaned already is cleaned to its end.
const SETTLE: Duration = Duration::from_secs(3);

/// A stretch with the cleaner at work, or held back.
struct Stretch {
    cleaned: bool,
    /// What counts of it.
    from: SystemTime,
    to: SystemTime,
    /// What the cleaner read meanwhile.
    read_bytes: u64,
}

/// Half of what went through at the maximum, with the cleaner at work and held back in turn.
pub(super) fn cleaning(bench: &Bench, before: &Map<String, Value>) -> io::Result<Value> {
    let rate_mb = half_rate(before)?;
    let broker = Broker::start_with(&bench.broker, &["log.cleaner.backoff.ms=100"])?;
    let pairs = (bench.duration.as_secs() / STRETCH.as_secs()).max(1) as u32;
    let measured = Bench { duration: STRETCH * 2 * pairs, ..bench.clone() };
    let dirtying = Load::start(dirty(&measured, &broker))?;
    // Its topic is there when its load runs.
    thread::sleep(bench.warm_up / 2);
    let load = Load::start(beside(&measured, &broker, rate_mb))?;
    thread::sleep(bench.warm_up);
    let mut stretches = Vec::new();
    for number in 0..pairs * 2 {
        stretches.push(stretch(bench, &broker, number % 2 == 1)?);
    }
    let produced = load.finish()?.swap_remove(0);
    dirtying.finish()?;
    broker.stop()?;
    let mut figures = Map::new();
    for (name, cleaned) in [("not_cleaned", false), ("cleaned", true)] {
        let (mut p99s, mut read_bytes, mut seconds) = (Vec::new(), 0, 0.0);
        for stretch in stretches.iter().filter(|stretch| stretch.cleaned == cleaned) {
            p99s.extend(p99s_between(&produced, stretch.from, stretch.to));
            read_bytes += stretch.read_bytes;
            seconds += stretch.to.duration_since(stretch.from).unwrap_or_default().as_secs_f64();
        }
        if cleaned && read_bytes == 0 {
            return Err(io::Error::other("nothing was cleaned"));
        }
        figures.insert(
            name.to_owned(),
            json!({
                "cleaner_megabytes_per_second": read_bytes as f64 / 1e6 / seconds,
                "p99_us_of_seconds": summary(p99s),
            }),
        );
    }
    figures.insert("produce".to_owned(), produced);
    Ok(Value::Object(figures))
}

/// Lets the cleaner at the topic's records, or holds it back, for a stretch.
fn stretch(bench: &Bench, broker: &Broker, cleaned: bool) -> io::Result<Stretch> {
    let begun = Instant::now();
    set_lag(bench, broker, LAGS_MS[usize::from(cleaned)])?;
    thread::sleep(SETTLE);
    let read = || broker.metric("penstock_cleaner_read_bytes_total");
    let (from, before) = (SystemTime::now(), read()?);
    thread::sleep(STRETCH.saturating_sub(begun.elapsed()));
    Ok(Stretch { cleaned, from, to: SystemTime::now(), read_bytes: read()?.saturating_sub(before) })
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
        format!("--config=min.compaction.lag.ms={}", LAGS_MS[0]),
        "--acks=all".to_owned(),
        format!("--keyed={KEYS}"),
        format!("--rate={DIRTY_MB_PER_SECOND}MB/s"),
    ];
    let mut spec = load_spec(bench, Some(&broker.address), args.to_vec());
    spec.json_file = bench.work_dir.join("dirty.json");
    spec.duration += bench.warm_up;
    spec
}

/// Lets the cleaner at the topic's records, or not yet.
fn set_lag(bench: &Bench, broker: &Broker, lag_ms: u64) -> io::Result<()> {
    let mut command = Command::new(&bench.broker.binary);
    command.args(["config", "--bootstrap", &broker.address, "set", "topic", TOPIC]);
    let status = command.arg(format!("min.compaction.lag.ms={lag_ms}")).stdout(Stdio::null()).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("the topic cannot be configured: {status}"))),
    }
}
