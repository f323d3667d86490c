//! The broker under the load generator.

use std::io;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use penstock_loadgen::client::{Cluster, TopicSpec};
use penstock_loadgen::workers::block_on;

use super::ceilings::{client, loopback, raw_writer};
use super::{Bench, Measurement};
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
    ("fetch_tail", |bench, _| fetch(bench)),
    ("idle", |bench, _| idle(bench)),
    ("memory", |bench, _| memory(bench)),
];

/// Connections and requests in flight on each: 16 MiB in flight, so that a flush of some milliseconds does not starve the
/// pipeline.
const LOAD: [&str; 4] = ["--connections", "16", "--in-flight", "16"];
const MEMORY_TOPICS: i32 = 10;
const MEMORY_PARTITIONS_PER_TOPIC: i32 = 1000;
/// How long a topic of a thousand partitions may take to be ready.
const TOPIC_PATIENCE: Duration = Duration::from_secs(120);

/// Runs the load generator against `address` (none: against nothing) and gives its figures.
pub(crate) fn loadgen(bench: &Bench, address: Option<&str>, args: Vec<String>) -> io::Result<Value> {
    let mut figures = Load::start(load_spec(bench, address, args))?.finish()?;
    Ok(figures.swap_remove(0))
}

fn load_spec(bench: &Bench, address: Option<&str>, args: Vec<String>) -> LoadSpec {
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
fn produce(bench: &Bench, partitions: i32, rate_mb: Option<f64>) -> io::Result<Value> {
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
    let broker = Broker::start(&bench.broker)?;
    let load = Load::start(load_spec(bench, Some(&broker.address), args))?;
    let (mut figures, cost) = load.finish_watching(&broker, bench.device.as_ref())?;
    let mut figures = figures.swap_remove(0);
    figures["broker"] = cost;
    broker.stop()?;
    Ok(figures)
}

/// Half of what went through at the maximum, for its latencies.
fn half_load(bench: &Bench, before: &Map<String, Value>) -> io::Result<Value> {
    let full =
        before.get("produce_16_partitions").and_then(|figures| figures["megabytes_per_second"].as_f64());
    let full = full.ok_or_else(|| io::Error::other("needs produce_16_partitions in the same run"))?;
    // The load generator's rate counts values, its figures whole batches; within 1% of each other here.
    produce(bench, 16, Some(full / 2.0))
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

/// Memory that each of 10,000 empty partitions takes.
fn memory(bench: &Bench) -> io::Result<Value> {
    let broker = Broker::start(&bench.broker)?;
    thread::sleep(Duration::from_secs(2));
    let before = broker.resident_bytes()?;
    for number in 0..MEMORY_TOPICS {
        create(&broker, &format!("memory-{number}"), MEMORY_PARTITIONS_PER_TOPIC)?;
    }
    thread::sleep(bench.warm_up);
    let after = broker.resident_bytes()?;
    let partitions = (MEMORY_TOPICS * MEMORY_PARTITIONS_PER_TOPIC) as u64;
    broker.stop()?;
    Ok(json!({
        "partitions": partitions,
        "resident_mib_before": before >> 20,
        "resident_mib_after": after >> 20,
        "bytes_per_partition": after.saturating_sub(before) / partitions,
    }))
}

fn create(broker: &Broker, name: &str, partitions: i32) -> io::Result<()> {
    let cluster = Cluster::new(&broker.address, "penstock-perf");
    let spec = TopicSpec { name: name.to_owned(), partitions, replication: -1, configs: Vec::new() };
    block_on(cluster.create_topic(&spec, TOPIC_PATIENCE))?.map(|_| ()).map_err(io::Error::other)
}
