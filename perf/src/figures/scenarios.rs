//! The broker under the load generator.

use std::io;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use penstock_loadgen::client::{Cluster, TopicSpec};
use penstock_loadgen::workers::block_on;

use super::ceilings::{client, echo, loopback, raw_writer, raw_writer_at, raw_writer_keyed, send_large};
use super::cleaning::cleaning;
use super::cold::fetch_cold;
use super::seconds::{p99s, summary};
use super::{Bench, Measurement, targets};
use crate::broker::Broker;
use crate::load::{Load, LoadSpec};

/// In this order: a disk drifts within minutes, so each figure that it bounds stands between two looks at the disk.
pub(crate) const ALL: &[Measurement] = &[
    ("loopback", |bench, _| loopback(bench)),
    ("client_produce", |bench, _| client(bench, &["produce"])),
    ("client_consume", |bench, _| client(bench, &["consume"])),
    ("raw_writer_16_files", |bench, _| raw_writer(bench, 16, 64 << 20)),
    ("produce_16_partitions", |bench, _| produce(bench, 16, None)),
    ("raw_writer_16_files_after", |bench, _| raw_writer(bench, 16, 64 << 20)),
    ("raw_writer_1000_files", |bench, _| raw_writer(bench, 1000, 4 << 20)),
    ("produce_1000_partitions", |bench, _| produce(bench, 1000, None)),
    ("raw_writer_1000_files_after", |bench, _| raw_writer(bench, 1000, 4 << 20)),
    ("produce_half_load", half_load),
    ("raw_writer_half_load", raw_writer_half_load),
    ("cleaning", cleaning),
    ("raw_writer_1000_files_16_kib", |bench, _| raw_writer_keyed(bench, 1000, 4 << 20)),
    ("produce_keyed_1000_partitions", |bench, _| targets::keyed(bench, 1000)),
    ("produce_keyed_10000_partitions", |bench, _| targets::keyed(bench, 10_000)),
    ("touch_1000_partitions", |bench, _| targets::touch(bench, 1000)),
    ("touch_10000_partitions", |bench, _| targets::touch(bench, 10_000)),
    ("echo_100_connections", |bench, _| echo(bench, 100)),
    ("produce_small_100_connections", |bench, _| targets::small(bench, 100)),
    ("echo_1000_connections", |bench, _| echo(bench, 1000)),
    ("produce_small_1000_connections", |bench, _| targets::small(bench, 1000)),
    ("send_large", |bench, _| send_large(bench)),
    ("fetch_tail", |bench, _| fetch(bench)),
    ("fetch_cold", fetch_cold),
    ("idle", |bench, _| idle(bench)),
    ("memory", |bench, _| targets::idle(bench)),
];

/// Connections and requests in flight on each: 16 MiB in flight, so that a flush of some milliseconds does not starve the
/// pipeline.
pub(super) const LOAD: [&str; 4] = ["--connections", "16", "--in-flight", "16"];
/// How long a topic of a thousand partitions may take to be ready.
const TOPIC_PATIENCE: Duration = Duration::from_secs(120);

/// Runs the load generator against `address` (none: against nothing) and gives its figures.
pub(crate) fn loadgen(bench: &Bench, address: Option<&str>, args: Vec<String>) -> io::Result<Value> {
    let mut figures = Load::start(load_spec(bench, address, args))?.finish()?;
    Ok(figures.swap_remove(0))
}

pub(crate) fn load_spec(bench: &Bench, address: Option<&str>, args: Vec<String>) -> LoadSpec {
    LoadSpec {
        program: bench.loadgen.clone(),
        args,
        address: address.map(str::to_owned),
        core: address.map(|_| bench.client_core),
        warm_up: bench.warm_up,
        duration: bench.duration,
        json_file: bench.work_dir.join("loadgen.json"),
    }
}

/// Records of 1 KiB in batches of 64 KiB, each batch acknowledged when it is on stable storage.
pub(super) fn produce_args(partitions: i32, rate_mb: Option<f64>) -> Vec<String> {
    // As much as fits a disk of moderate size: old segments go within a second.
    let (segment, retained) = if partitions > 100 { (8 << 20, 8 << 20) } else { (64 << 20, 256 << 20) };
    let mut args: Vec<String> = vec!["produce".to_owned(), "--acks".to_owned(), "all".to_owned()];
    args.extend(LOAD.map(str::to_owned));
    args.extend([
        format!("--create-partitions={partitions}"),
        format!("--config=segment.bytes={segment}"),
        format!("--config=retention.bytes={retained}"),
    ]);
    args.extend(rate_mb.map(|rate| format!("--rate={rate:.0}MB/s")));
    args
}

fn produce(bench: &Bench, partitions: i32, rate_mb: Option<f64>) -> io::Result<Value> {
    let broker = Broker::start(&bench.broker)?;
    let args = produce_args(partitions, rate_mb);
    let load = Load::start(load_spec(bench, Some(&broker.address), args))?;
    let (mut figures, cost) = load.finish_watching(&broker, bench.device.as_ref())?;
    let mut figures = figures.swap_remove(0);
    figures["broker"] = cost;
    broker.stop()?;
    Ok(figures)
}

/// Half of what went through at the maximum, for its latencies.
fn half_load(bench: &Bench, before: &Map<String, Value>) -> io::Result<Value> {
    // The load generator's rate counts values, its figures whole batches; within 1% of each other here.
    let mut figures = produce(bench, 16, Some(half_rate(before)?))?;
    figures["p99_us_of_seconds"] = summary(p99s(&figures));
    Ok(figures)
}

/// Half of what went through at the maximum, in millions of bytes a second.
pub(super) fn half_rate(before: &Map<String, Value>) -> io::Result<f64> {
    let full =
        before.get("produce_16_partitions").and_then(|figures| figures["megabytes_per_second"].as_f64());
    let full = full.ok_or_else(|| io::Error::other("needs produce_16_partitions in the same run"))?;
    Ok(full / 2.0)
}

/// A load of so many millions of bytes a second beside something else that is measured, with figures of its own file.
pub(super) fn beside(bench: &Bench, broker: &Broker, rate_mb: f64) -> LoadSpec {
    let mut args = vec!["produce".to_owned(), "--topic=beside".to_owned(), "--acks=all".to_owned()];
    args.extend(LOAD.map(str::to_owned));
    args.extend(["--create-partitions=16".to_owned(), format!("--rate={rate_mb:.0}MB/s")]);
    args.extend(targets::LARGE_SEGMENTS.map(str::to_owned));
    LoadSpec {
        json_file: bench.work_dir.join("beside.json"),
        ..load_spec(bench, Some(&broker.address), args)
    }
}

/// The disk under the same bytes a second, with nothing around it.
fn raw_writer_half_load(bench: &Bench, before: &Map<String, Value>) -> io::Result<Value> {
    let rate = before.get("produce_half_load").and_then(|found| found["megabytes_per_second"].as_f64());
    let rate = rate.ok_or_else(|| io::Error::other("needs produce_half_load in the same run"))?;
    raw_writer_at(bench, 16, 64 << 20, rate)
}

/// Readers at the tail: the last 64 MB of 16 partitions, read over and over from the broker's cache.
fn fetch(bench: &Bench) -> io::Result<Value> {
    let broker = Broker::start(&bench.broker)?;
    let fill = Bench { duration: Duration::from_secs(1), warm_up: Duration::ZERO, ..bench.clone() };
    let args = ["produce", "--create-partitions=16", "--rate=64MB/s", "--connections=4"];
    loadgen(&fill, Some(&broker.address), args.map(str::to_owned).to_vec())?;
    let mut figures = Map::new();
    for readers in [1, 5] {
        let args = vec!["consume".to_owned(), "--cycle".to_owned(), format!("--readers={readers}")];
        figures.insert(format!("readers_{readers}"), loadgen(bench, Some(&broker.address), args)?);
    }
    broker.stop()?;
    Ok(Value::Object(figures))
}

/// Processor time of a broker with topics and no clients.
fn idle(bench: &Bench) -> io::Result<Value> {
    let broker = Broker::start(&bench.broker)?;
    create(&broker, "idle", 16)?;
    thread::sleep(bench.warm_up);
    let before = broker.cpu_time()?;
    thread::sleep(bench.duration);
    let used = broker.cpu_time()? - before;
    broker.stop()?;
    Ok(json!({ "cpu_percent": used.as_secs_f64() / bench.duration.as_secs_f64() * 100.0 }))
}

/// Makes a topic and waits until it is led.
pub(super) fn create(broker: &Broker, name: &str, partitions: i32) -> io::Result<()> {
    let cluster = Cluster::new(&broker.address, "penstock-perf");
    let spec = TopicSpec { name: name.to_owned(), partitions, replication: -1, configs: Vec::new() };
    block_on(cluster.create_topic(&spec, TOPIC_PATIENCE))?.map(|_| ()).map_err(io::Error::other)
}
