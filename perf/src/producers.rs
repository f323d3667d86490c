//! A soak of the broker's memory: idempotent producers come, write to some partitions each, and go, over very many partitions,
//! while every part of the memory budget is watched, and the memory of the process as a whole.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use penstock_format::{BatchBuilder, NewRecord};
use penstock_loadgen::client::{ClientError, Connection};
use penstock_protocol::WireString;
use penstock_protocol::messages::create_topics_request::CreatableTopic;
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::messages::{CreateTopicsRequest, InitProducerIdRequest, ProduceRequest};
use serde_json::{Value, json};

use crate::broker::metrics;
use crate::{process, work_dir};

/// Produce version at which topics are named by name.
const PRODUCE: i16 = 9;
/// Batches of each producer, each to another partition.
const BATCHES: u64 = 20;
/// Partitions created with one request.
const PARTITIONS_AT_ONCE: i32 = 2000;
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_secs(1);
/// Requests larger than their part pass alone; so much above a part is no fault.
const SLACK: u64 = 2 << 20;

/// What to run.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProducersArgs {
    /// Producers that come and go at least
    #[arg(long, default_value_t = 10_000)]
    producers: u64,
    /// Partitions
    #[arg(long, default_value_t = 10_000)]
    partitions: i32,
    /// Connections, each with one producer at a time
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// How long at least
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Shards of the broker
    #[arg(long, default_value_t = 2)]
    shards: usize,
    /// MiB given to the broker
    #[arg(long, default_value_t = 256)]
    memory: u64,
    /// The broker's binary [default: penstock beside this program]
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Directory for data
    #[arg(long, default_value = "penstock-perf-data")]
    data_dir: PathBuf,
}

/// Runs the soak; an error if any part of the memory, or all of it, went over its budget, or a batch was refused.
pub(crate) fn run(args: &ProducersArgs) -> io::Result<()> {
    let beside = || Ok::<_, io::Error>(std::env::current_exe()?.with_file_name("penstock"));
    let binary = args.broker.clone().map_or_else(beside, Ok)?;
    let own = work_dir::make(&args.data_dir)?;
    let mut broker = Watched::start(&binary, &own.join("broker"), args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let soaked = tokio::task::LocalSet::new().block_on(&runtime, soak(&broker, args));
    process::terminate(&broker.child)?;
    broker.child.wait()?;
    let figures = soaked?;
    println!("{figures:#}");
    work_dir::remove(&own)?;
    match figures["over"].as_array().is_some_and(Vec::is_empty) {
        true => Ok(()),
        false => Err(io::Error::other(format!("over the budget: {}", figures["over"]))),
    }
}

/// The broker under the soak.
struct Watched {
    child: Child,
    kafka: String,
    admin: String,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watched {
    fn start(binary: &Path, data_dir: &Path, args: &ProducersArgs) -> io::Result<Watched> {
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards"]);
        command.arg(args.shards.to_string()).arg("--data-dir").arg(data_dir);
        command.args(["--memory", &args.memory.to_string(), "--set", "penstock.journal.bytes=134217728"]);
        let mut child = process::spawn_pinned(command.stdout(Stdio::piped()), None)?;
        let mut ready = String::new();
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the broker has no output"))?;
        BufReader::new(stdout).read_line(&mut ready)?;
        let named = |name: &str| ready.split_whitespace().find_map(|word| word.strip_prefix(name));
        let (kafka, admin) = (named("kafka=").unwrap_or_default(), named("admin=").unwrap_or_default());
        if kafka.is_empty() || admin.is_empty() {
            return Err(io::Error::other(format!("the broker said {ready:?}")));
        }
        Ok(Watched { kafka: kafka.to_owned(), admin: admin.to_owned(), child })
    }

    /// Bytes of memory that the process holds.
    fn resident(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>();
        kib.map(|kib| kib << 10).map_err(io::Error::other)
    }

    /// Budget and use of each part of each shard: name, budget, used.
    fn parts(&self) -> io::Result<Vec<(String, u64, u64)>> {
        let page = metrics(&self.admin)?;
        let values = |name: &str| -> Vec<(String, u64)> {
            let lines = page.lines().filter_map(|line| line.strip_prefix(name));
            lines
                .filter_map(|line| line.rsplit_once(' '))
                .filter_map(|(labels, value)| Some((labels.to_owned(), value.parse().ok()?)))
                .collect()
        };
        let budgets = values("penstock_memory_budget_bytes");
        let used = values("penstock_memory_used_bytes").into_iter().filter_map(|(labels, used)| {
            let budget = budgets.iter().find(|(part, _)| *part == labels)?.1;
            Some((labels, budget, used))
        });
        Ok(used.collect())
    }
}

/// What the producers share.
struct Progress {
    next: Cell<u64>,
    batches: Cell<u64>,
    stop: Cell<bool>,
}

fn failed(error: ClientError) -> io::Error {
    io::Error::other(error.to_string())
}

async fn soak(broker: &Watched, args: &ProducersArgs) -> io::Result<Value> {
    let mut admin = Connection::open(&broker.kafka, "producers").await.map_err(failed)?;
    let mut topics = 0;
    while topics * PARTITIONS_AT_ONCE < args.partitions {
        let topic = CreatableTopic {
            name: WireString::from(format!("producers-{topics}")),
            num_partitions: PARTITIONS_AT_ONCE.min(args.partitions - topics * PARTITIONS_AT_ONCE),
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 60_000, ..CreateTopicsRequest::default() };
        let response = admin.call(&request).await.map_err(failed)?;
        if response.topics.iter().any(|topic| topic.error_code != 0) {
            return Err(io::Error::other(format!("{response:?}")));
        }
        topics += 1;
    }
    let before = broker.resident()?;
    let progress = Rc::new(Progress { next: Cell::new(0), batches: Cell::new(0), stop: Cell::new(false) });
    let workers: Vec<_> = (0..args.connections)
        .map(|_| tokio::task::spawn_local(produce(broker.kafka.clone(), args.partitions, progress.clone())))
        .collect();
    let began = Instant::now();
    let (mut over, mut resident_max) = (Vec::new(), before);
    let mut used_max: Vec<(String, u64, u64)> = Vec::new();
    let goes_on = || began.elapsed().as_secs() < args.seconds || progress.next.get() < args.producers;
    while goes_on() && !workers.iter().any(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(LOOK).await;
        resident_max = resident_max.max(broker.resident()?);
        for (part, budget, used) in broker.parts()? {
            if used > budget + SLACK {
                over.push(format!("{part}: {used} of {budget}"));
            }
            match used_max.iter_mut().find(|(known, ..)| *known == part) {
                Some(known) => known.2 = known.2.max(used),
                None => used_max.push((part, budget, used)),
            }
        }
    }
    progress.stop.set(true);
    for worker in workers {
        worker.await.map_err(io::Error::other)?.map_err(failed)?;
    }
    if !used_max.iter().any(|(part, _, used)| part.contains("producers") && *used > 0) {
        return Err(io::Error::other("the broker knows of no producer"));
    }
    let bound = before + (args.memory << 20);
    if resident_max > bound {
        over.push(format!("the process: {resident_max} of {bound}"));
    }
    let parts =
        used_max.iter().map(|(part, budget, used)| json!({ "part": part, "budget": budget, "used": used }));
    Ok(json!({
        "producers": progress.next.get(), "batches": progress.batches.get(),
        "partitions": args.partitions, "seconds": began.elapsed().as_secs(),
        "resident_before": before, "resident_max": resident_max, "resident_bound": bound,
        "parts": parts.collect::<Vec<_>>(), "over": over,
    }))
}

/// One producer after the other, each with an id of its own and batches to partitions far apart.
async fn produce(address: String, partitions: i32, progress: Rc<Progress>) -> Result<(), ClientError> {
    let mut connection = Connection::open(&address, "producers").await?;
    while !progress.stop.get() {
        let number = progress.next.get();
        progress.next.set(number + 1);
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let id = connection.call(&request).await?;
        if id.error_code != 0 {
            return Err(ClientError::Protocol(format!("no producer id: error {}", id.error_code)));
        }
        for batch in 0..BATCHES {
            // A large prime spreads them without a source of randomness.
            let at =
                (number * BATCHES + batch).wrapping_mul(2_654_435_761) % u64::from(partitions.unsigned_abs());
            let request = one_batch(at as i32, (id.producer_id, id.producer_epoch), number);
            let response = connection.call_version(&request, PRODUCE).await?;
            let code = response.responses[0].partition_responses[0].error_code;
            if code != 0 {
                return Err(ClientError::Protocol(format!(
                    "batch {batch} of producer {number}: error {code}"
                )));
            }
            progress.batches.set(progress.batches.get() + 1);
        }
    }
    Ok(())
}

fn one_batch(partition: i32, (id, epoch): (i64, i16), number: u64) -> ProduceRequest {
    let mut batch = BatchBuilder::new().producer(id, epoch, 0);
    let value = number.to_string().into_bytes().repeat(20);
    let record = NewRecord { timestamp: 1, value: Some(&value), ..NewRecord::default() };
    // One record without a key always fits a batch.
    let appended = batch.append(&record).and_then(|_| batch.finish());
    let records = appended.ok().map(|batch| batch.to_bytes().into());
    let data = PartitionProduceData { index: partition % PARTITIONS_AT_ONCE, records };
    let topic = TopicProduceData {
        name: WireString::from(format!("producers-{}", partition / PARTITIONS_AT_ONCE)),
        partition_data: vec![data],
        ..TopicProduceData::default()
    };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
}
