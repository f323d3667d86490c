//! How long a start takes after the broker was killed under load: until the first record is acknowledged and the first
//! one read, for several amounts of stored data. What a start replays is bounded by the broker's checkpoints, so that the amounts
//! must make no difference.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use penstock_format::{BatchBuilder, NewRecord};
use penstock_loadgen::client::{ClientError, Cluster};
use penstock_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::messages::{FetchRequest, ProduceRequest};
use penstock_protocol::{ErrorCode, Request, WireString};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::figures::{Bench, FiguresArgs, prepare};
use crate::load::{Load, LoadSpec};
use crate::work_dir;

const TOPIC: &str = "main";
/// Produce and Fetch at versions that name topics, which every broker of today serves.
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
/// How long a load runs at a time while data is stored.
const TURN: Duration = Duration::from_secs(20);
/// How long the load has run when the broker is killed.
const UNDER_LOAD: Duration = Duration::from_secs(8);

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct RecoveryArgs {
    /// GiB that are stored when the broker is killed, one measurement for each, rising
    #[arg(long, value_delimiter = ',', default_values_t = [2, 10])]
    gib: Vec<u64>,
    /// Partitions
    #[arg(long, default_value_t = 1000)]
    partitions: usize,
    /// Shards of the broker, all on one core
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// MiB of each segment. A partition has up to two of them made ahead, which the disk has to hold beside what is stored
    #[arg(long, default_value_t = 16)]
    segment_mib: u64,
    /// Longest time to the first answers, in seconds
    #[arg(long, default_value_t = 2.0)]
    bound_s: f64,
    /// Directory for data
    #[arg(long, default_value = "penstock-perf-data")]
    data_dir: PathBuf,
}

/// Measures, prints a line of JSON for each amount; an error if one took longer than the bound.
pub(crate) fn run(args: &RecoveryArgs) -> io::Result<()> {
    let bench = prepare(&FiguresArgs { shards: args.shards, ..FiguresArgs::on(&args.data_dir, 0, 1) })?;
    let mut broker = Broker::start(&bench.broker)?;
    let mut stored = 0;
    let mut longest = 0f64;
    for gib in &args.gib {
        while stored < gib << 30 {
            stored += produce(&bench, &broker, args, TURN)?;
        }
        // It goes on to ask for answers that never come: it ends with this measurement.
        let load = start_load(&bench, &broker, args, 10 * TURN)?;
        thread::sleep(UNDER_LOAD);
        let killed = Instant::now();
        broker.kill_and_keep()?;
        let kill_s = killed.elapsed().as_secs_f64();
        drop(load);
        let starting = Instant::now();
        broker = Broker::start_again(&bench.broker)?;
        let ready_s = starting.elapsed().as_secs_f64();
        block_on(first_produce(&broker))?;
        let produced_s = starting.elapsed().as_secs_f64();
        block_on(first_fetch(&broker, args.partitions as i32 / 2))?;
        let fetched_s = starting.elapsed().as_secs_f64();
        longest = longest.max(fetched_s);
        let figures: Value = json!({
            "stored_gib_before_the_last_load": stored as f64 / f64::from(1 << 30),
            "partitions": args.partitions,
            "kill_s": kill_s,
            "ready_s": ready_s,
            "first_produce_s": produced_s,
            "first_fetch_s": fetched_s,
        });
        println!("{figures}");
    }
    broker.stop()?;
    work_dir::remove(&bench.work_dir)?;
    match longest <= args.bound_s {
        true => Ok(()),
        false => Err(io::Error::other(format!("a start took {longest:.2} s until the first answers"))),
    }
}

/// Produces for as long; bytes that were acknowledged.
fn produce(bench: &Bench, broker: &Broker, args: &RecoveryArgs, duration: Duration) -> io::Result<u64> {
    let found = start_load(bench, broker, args, duration)?.finish()?;
    match found[0]["bytes"].as_u64() {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(io::Error::other("the broker takes nothing in")),
    }
}

fn start_load(bench: &Bench, broker: &Broker, args: &RecoveryArgs, duration: Duration) -> io::Result<Load> {
    let create = format!("--create-partitions={}", args.partitions);
    let segments = format!("--config=segment.bytes={}", args.segment_mib << 20);
    let load =
        ["produce", "--acks=all", "--connections=16", "--in-flight=16", "--topic=main", &segments, &create];
    Load::start(LoadSpec {
        program: bench.loadgen.clone(),
        args: load.map(str::to_owned).to_vec(),
        address: Some(broker.address.clone()),
        core: Some(bench.client_core),
        warm_up: Duration::ZERO,
        duration,
        json_file: bench.work_dir.join("load.json"),
    })
}

/// One record, acknowledged.
async fn first_produce(broker: &Broker) -> Result<(), ClientError> {
    let mut batch = BatchBuilder::new();
    let record = NewRecord { value: Some(b"first after a kill"), ..NewRecord::default() };
    let built = batch.append(&record).and_then(|()| batch.finish());
    let built = built.map_err(|error| ClientError::Protocol(error.to_string()))?;
    let data = PartitionProduceData { index: 0, records: Some(built.to_bytes().into()) };
    let topic = TopicProduceData {
        name: WireString::from_static(TOPIC),
        partition_data: vec![data],
        ..TopicProduceData::default()
    };
    let request =
        ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() };
    let response = call(broker, PRODUCE_VERSION, &request).await?;
    let code = response.responses.iter().flat_map(|topic| &topic.partition_responses).map(|p| p.error_code);
    check(code.collect())
}

/// The first records of a partition.
async fn first_fetch(broker: &Broker, partition: i32) -> Result<(), ClientError> {
    let partition = FetchPartition { partition, partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let topic = FetchTopic {
        topic: WireString::from_static(TOPIC),
        partitions: vec![partition],
        ..FetchTopic::default()
    };
    let request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![topic],
        ..FetchRequest::default()
    };
    let response = call(broker, FETCH_VERSION, &request).await?;
    let found = response.responses.iter().flat_map(|topic| &topic.partitions);
    if !found.clone().any(|partition| partition.records.as_ref().is_some_and(|records| !records.is_empty())) {
        return Err(ClientError::Protocol("a partition with records gave none".to_owned()));
    }
    check(found.map(|partition| partition.error_code).collect())
}

async fn call<R: Request>(broker: &Broker, version: i16, request: &R) -> Result<R::Response, ClientError> {
    let cluster = Cluster::new(&broker.address, "penstock-perf");
    cluster.connect_any().await?.call_version(request, version).await
}

fn check(codes: Vec<i16>) -> Result<(), ClientError> {
    let [code] = codes[..] else {
        return Err(ClientError::Protocol(format!(
            "{} partitions answered where one was asked",
            codes.len()
        )));
    };
    match ErrorCode::known(code) {
        Some(ErrorCode::None) => Ok(()),
        Some(ErrorCode::KafkaStorageError) => Err(ClientError::Protocol(
            "the broker cannot store (KAFKA_STORAGE_ERROR): where the disk is full, ask for less with --gib"
                .to_owned(),
        )),
        Some(code) => {
            Err(ClientError::Protocol(format!("the broker answered {}: {}", code.name(), code.message())))
        }
        None => Err(ClientError::Protocol(format!("the broker answered with the unknown code {code}"))),
    }
}

fn block_on(work: impl Future<Output = Result<(), ClientError>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_name() {
        assert!(check(vec![0]).is_ok());
        let said = |codes: &[i16]| check(codes.to_vec()).unwrap_err().to_string();
        assert!(said(&[56]).contains("disk is full"), "{}", said(&[56]));
        assert!(said(&[6]).contains("NOT_LEADER_OR_FOLLOWER"), "{}", said(&[6]));
        assert!(said(&[9999]).contains("9999"), "{}", said(&[9999]));
        assert!(said(&[]).contains("0 partitions"), "{}", said(&[]));
    }
}
