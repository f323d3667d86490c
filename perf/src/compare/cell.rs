//! One cell of the comparison: a scenario on one peer, from an empty data directory to the end of its process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use penstock_loadgen::client::{Cluster, OffsetSpec, TopicSpec};
use penstock_loadgen::workers::block_on;

use super::peer::{PeerKind, Peers};
use super::scenario::{Fill, LoadTable, Scenario, Tool};
use super::tools::{self, ToolRun};
use crate::broker::Broker;
use crate::device::Device;
use crate::load::{Load, LoadSpec};
use crate::process;

/// The topic of every scenario.
const TOPIC: &str = "main";
/// How long a topic may take to be ready, also on a broker that has only just begun to serve.
const TOPIC_PATIENCE: Duration = Duration::from_secs(120);
const RETRY_BACKOFF: Duration = Duration::from_millis(200);
/// A fill asks for so many bytes a second at most; who is slower is asked again for the rest.
const FILL_RATE_MAX: u64 = 1_000_000_000;
/// What a turn of a fill may lack.
const FILL_STEP_MIN: u64 = 1 << 20;
/// Turns that bring nothing, a second each and a little more.
const FILL_IDLE_TURNS_MAX: u32 = 30;
/// Kafka's own tools start anew beside a broker that is warm: as much as their own compiler needs at least.
const TOOL_WARM_MAX: Duration = Duration::from_secs(15);

/// A last third that is faster than the first by more than this part says that the peer was not warm.
pub(super) const RISE_MAX: f64 = 0.1;

/// What all cells need.
#[derive(Debug, Clone)]
pub(super) struct Bench {
    pub(super) peers: Peers,
    pub(super) loadgen: PathBuf,
    pub(super) client_core: usize,
    pub(super) work_dir: PathBuf,
    pub(super) warm: Duration,
    /// Who still rises is measured again, until it was under load for so long.
    pub(super) warm_max: Duration,
    pub(super) duration: Duration,
    /// Overrules the scenarios' own.
    pub(super) fill_bytes: Option<u64>,
    pub(super) device: Option<Device>,
    /// Whether Kafka's own tools run as well.
    pub(super) kafka_tools: bool,
}

/// Records a second of open loops, found earlier in the run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) load: Option<f64>,
    pub(super) background: Option<f64>,
    pub(super) kafka_client: Option<f64>,
}

/// What a cell found.
#[derive(Debug)]
pub(super) struct Cell {
    /// Numbers, for medians and goals.
    pub(super) figures: Value,
    /// The load generator's whole figures, for charts.
    pub(super) runs: Vec<Value>,
}

/// Runs a scenario on one peer, which is started for it and ended behind it.
pub(super) fn measure(bench: &Bench, scenario: &Scenario, kind: PeerKind, rates: Rates) -> io::Result<Cell> {
    let broker = bench.peers.start(kind)?;
    create_topic(&broker, scenario)?;
    if scenario.restart {
        return Ok(Cell { figures: restart(bench, scenario, kind, broker)?, runs: Vec::new() });
    }
    let filled_records = match &scenario.fill {
        Some(fill) => self::fill(bench, fill, &broker)?,
        None => 0,
    };
    let mut figures = Map::new();
    let mut runs = Vec::new();
    if let Some(load) = &scenario.load {
        let is_cold = forget(bench, scenario, kind)?;
        let background = scenario.background.as_ref();
        let background =
            background.map(|load| Load::start(spec(bench, load, &broker, rates.background))).transpose()?;
        let mut measured = spec(bench, load, &broker, rates.load);
        if is_cold {
            // What is read cold is cold only once: the load beside it warms the peer up, and it waits for that.
            thread::sleep(if background.is_some() { bench.warm } else { Duration::ZERO });
            measured.warm_up = Duration::ZERO;
        }
        let mut loaded = Duration::ZERO;
        let (found, cost) = loop {
            loaded += measured.warm_up + measured.duration;
            let found = Load::start(measured.clone())?.finish_watching(&broker, bench.device.as_ref())?;
            // What runs beside it was started for one measurement, and what is read cold is cold only once.
            let may_repeat = background.is_none() && !is_cold && loaded < bench.warm_max;
            if !may_repeat || !still_rises(&found.0) {
                break found;
            }
        };
        figures.insert("loaded_seconds".to_owned(), json!(loaded.as_secs()));
        figures.insert("loadgen".to_owned(), by_name(&found));
        figures.insert("broker".to_owned(), cost);
        if let Some(background) = background {
            figures.insert("background".to_owned(), by_name(&background.finish()?));
        }
        runs = found;
    }
    if bench.kafka_tools
        && let (Some(client), Some(kafka)) = (&scenario.kafka_client, &bench.peers.kafka)
    {
        if client.tool == Tool::Consumer {
            forget(bench, scenario, kind)?;
        }
        let found = tools::run(&ToolRun {
            kafka,
            client,
            core: bench.client_core,
            address: &broker.address,
            topic: TOPIC,
            warm: bench.warm.min(TOOL_WARM_MAX),
            duration: bench.duration,
            rate: rates.kafka_client,
            filled_records,
        });
        // One that fails must not take what was measured with it.
        let found = found.unwrap_or_else(|error| json!({ "failed": error.to_string() }));
        figures.insert("kafka-client".to_owned(), found);
    }
    broker.stop()?;
    Ok(Cell { figures: Value::Object(figures), runs })
}

fn create_topic(broker: &Broker, scenario: &Scenario) -> io::Result<()> {
    let spec = TopicSpec {
        name: TOPIC.to_owned(),
        partitions: scenario.topic.partitions,
        replication: 1,
        configs: scenario.topic.config.clone().into_iter().collect(),
    };
    let cluster = Cluster::new(&broker.address, "penstock-perf");
    let deadline = Instant::now() + RETRY_BACKOFF * 100;
    loop {
        match block_on(cluster.create_topic(&spec, TOPIC_PATIENCE))? {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(io::Error::other(error)),
            // A broker that has only just begun to serve refuses topics for reasons that pass.
            Err(_) => thread::sleep(RETRY_BACKOFF),
        }
    }
}

/// A load as the scenario has it, on its topic unless it names another.
fn spec(bench: &Bench, load: &LoadTable, broker: &Broker, rate: Option<f64>) -> LoadSpec {
    let mut args = load.args.clone();
    let names_topic = args.iter().any(|arg| arg == "--topic" || arg.starts_with("--topic="));
    if !names_topic {
        args.push(format!("--topic={TOPIC}"));
    }
    args.extend(rate.map(|rate| format!("--rate={rate:.0}")));
    LoadSpec {
        program: bench.loadgen.clone(),
        json_file: bench.work_dir.join(if names_topic { "beside.json" } else { "load.json" }),
        args,
        address: Some(broker.address.clone()),
        core: Some(bench.client_core),
        warm_up: bench.warm,
        duration: bench.duration,
    }
}

/// Writes as much as the scenario wants, at least; gives how many records were acknowledged.
fn fill(bench: &Bench, fill: &Fill, broker: &Broker) -> io::Result<u64> {
    let (mut left, mut records, mut idle_turns) = (bench.fill_bytes.unwrap_or(fill.bytes), 0, 0);
    while left > 0 {
        let seconds = left.div_ceil(FILL_RATE_MAX).max(1);
        let args = ["produce", "--acks=all", "--connections=16", "--in-flight=16"].map(str::to_owned);
        let mut args = args.to_vec();
        args.push(format!("--rate={}MB/s", left.div_ceil(seconds).div_ceil(1_000_000)));
        let load = LoadTable { args, rate: None };
        let mut turn = spec(bench, &load, broker, None);
        turn.warm_up = Duration::ZERO;
        turn.duration = Duration::from_secs(seconds);
        let found = Load::start(turn)?.finish();
        let number = |name: &str| found.as_ref().map_or(0, |found| found[0][name].as_u64().unwrap_or(0));
        if number("bytes") == 0 {
            // The partitions of a new topic may need a moment to have leaders that know of it.
            idle_turns += 1;
            if idle_turns > FILL_IDLE_TURNS_MAX {
                return Err(found.err().unwrap_or_else(|| io::Error::other("the broker takes nothing in")));
            }
            continue;
        }
        // A little is acknowledged only behind the turn's end: the last step is not asked for again.
        left = left.saturating_sub(number("bytes") + FILL_STEP_MIN.min(left / 16));
        records += number("records");
    }
    Ok(records)
}

/// Drops what the peer wrote from the page cache, where the scenario says so; whether it does.
fn forget(bench: &Bench, scenario: &Scenario, kind: PeerKind) -> io::Result<bool> {
    let is_cold = scenario.fill.as_ref().is_some_and(|fill| fill.forget);
    if is_cold {
        forget_all(&bench.peers.data_dir(kind)?)?;
    }
    Ok(is_cold)
}

fn forget_all(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        // A broker that runs removes files while they are listed.
        let forgotten = match entry.file_type()?.is_dir() {
            true => forget_all(&path),
            false => File::open(&path).and_then(|file| process::forget_pages(&file)),
        };
        match forgotten {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Stops and starts it in order, then kills it and starts it: seconds until every partition tells its offsets again.
fn restart(bench: &Bench, scenario: &Scenario, kind: PeerKind, broker: Broker) -> io::Result<Value> {
    let load = |broker: &Broker| match &scenario.fill {
        Some(fill) => self::fill(bench, fill, broker).map(|_| ()),
        None => Ok(()),
    };
    load(&broker)?;
    let stopping = Instant::now();
    broker.stop_and_keep()?;
    let stop_seconds = stopping.elapsed().as_secs_f64();
    let starting = Instant::now();
    let broker = bench.peers.start_again(kind)?;
    wait_for_offsets(&broker)?;
    let seconds_after_stop = starting.elapsed().as_secs_f64();
    load(&broker)?;
    broker.kill_and_keep()?;
    let starting = Instant::now();
    let broker = bench.peers.start_again(kind)?;
    wait_for_offsets(&broker)?;
    let seconds_after_kill = starting.elapsed().as_secs_f64();
    broker.stop()?;
    Ok(json!({ "restart": {
        "stop_seconds": stop_seconds,
        "seconds_after_stop": seconds_after_stop,
        "seconds_after_kill": seconds_after_kill,
    } }))
}

fn wait_for_offsets(broker: &Broker) -> io::Result<()> {
    let cluster = Cluster::new(&broker.address, "penstock-perf");
    let deadline = Instant::now() + TOPIC_PATIENCE;
    loop {
        let told = block_on(async {
            let topic = cluster.topic_ready(TOPIC, TOPIC_PATIENCE).await?;
            let partitions: Vec<i32> = topic.partitions.keys().copied().collect();
            cluster.offsets(&topic, &partitions, OffsetSpec::Latest).await
        })?;
        match told {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(io::Error::other(error)),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Figures by the name of the work, without what only charts need.
fn by_name(runs: &[Value]) -> Value {
    let mut named = Map::new();
    for run in runs {
        let mut run = run.clone();
        let rise = rise(&run);
        if let Some(fields) = run.as_object_mut() {
            fields.remove("percentiles");
            fields.remove("series");
            fields.insert("rise".to_owned(), json!(rise));
        }
        let name = run["name"].as_str().unwrap_or("unnamed").to_owned();
        named.insert(name, run);
    }
    Value::Object(named)
}

/// Whether one of the works went faster and faster.
fn still_rises(runs: &[Value]) -> bool {
    runs.iter().any(|run| rise(run).is_some_and(|rise| rise > RISE_MAX))
}

/// By which part the last third of a run was faster than its first: what still rises was not warm. None where nothing was
/// measured over time.
fn rise(run: &Value) -> Option<f64> {
    let series = run["series"].as_array()?;
    let rates: Vec<f64> = series.iter().filter_map(|point| point["megabytes_per_second"].as_f64()).collect();
    let third = rates.len() / 3;
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / third as f64;
    let (first, last) = (mean(rates.get(..third)?), mean(rates.get(rates.len() - third..)?));
    (third > 0 && first > 0.0).then(|| last / first - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_named_and_lose_what_charts_need() {
        let run = json!({ "name": "produce", "requests": 5, "series": [1], "percentiles": [[0.5, 1]] });
        let named = json!({ "produce": { "name": "produce", "requests": 5, "rise": null } });
        assert_eq!(by_name(&[run]), named);
    }

    #[test]
    fn what_still_rises_is_seen() {
        let series = |rates: &[f64]| {
            let points: Vec<Value> =
                rates.iter().map(|rate| json!({ "megabytes_per_second": rate })).collect();
            rise(&json!({ "series": points }))
        };
        assert_eq!(series(&[10.0, 10.0, 12.0, 3.0, 15.0, 15.0]), Some(0.5));
        assert_eq!(series(&[10.0, 10.0]), None);
        assert_eq!(series(&[0.0, 1.0, 1.0]), None);
    }

    #[test]
    fn one_work_that_rises_is_enough_to_measure_again() {
        let run = |rates: [f64; 3]| {
            let points = rates.map(|rate| json!({ "megabytes_per_second": rate }));
            json!({ "series": points })
        };
        let (warm, rising) = (run([10.0, 12.0, 10.9]), run([10.0, 10.0, 11.2]));
        assert!(!still_rises(&[]) && !still_rises(&[warm.clone(), run([10.0, 10.0, 5.0])]));
        assert!(still_rises(&[warm, rising]));
    }

    #[test]
    fn forgetting_walks_directories_and_keeps_content() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("file"), "text").unwrap();
        forget_all(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(inner.join("file")).unwrap(), "text");
        assert!(forget_all(&dir.path().join("none")).is_err());
    }
}
