//! The producing half: lanes that keep records in flight, and send again whatever is not acknowledged.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use penstock_format::Compression;
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::messages::produce_response::PartitionProduceResponse;
use penstock_protocol::messages::{ProduceRequest, ProduceResponse};
use penstock_protocol::{ErrorCode, Records, frame};

use super::VerifyError;
use super::pending::{BatchSpec, Pending};
use super::state::{Delivery, Run, StateWriter};
use crate::client::{
    ANSWER_TIMEOUT, ClientError, Cluster, Connection, Session, Topic, TopicSpec, by_leader, check, retry,
};
use crate::workers::block_on;

/// Between two attempts after a failure.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);

/// What to produce for a check.
#[derive(Debug, Clone)]
pub struct VerifySpec {
    /// Where.
    pub cluster: Cluster,
    /// The topic's name.
    pub topic: String,
    /// Made first, if it does not exist.
    pub create: Option<TopicSpec>,
    /// Largest value; lengths vary up to it.
    pub record_size: usize,
    /// Largest batch in records; counts vary up to it.
    pub batch_records: u64,
    /// Partitions that share a connection and their requests.
    pub partitions_per_connection: usize,
    /// Requests in flight on a connection. At most 5 with [`Delivery::Exactly`], as brokers remember no more batches;
    /// [`Delivery::AtLeast`] always has one, since more could come out of order.
    pub in_flight: usize,
    /// Exactly once by an idempotent producer, or at least once.
    pub delivery: Delivery,
    /// 1, or -1 for all.
    pub acks: i16,
    /// Codec of the batches.
    pub compression: Compression,
    /// A pause between two requests of a connection.
    pub pause: Duration,
    /// How long the broker may be away, at the start and while producing.
    pub patience: Duration,
    /// Where to remember what was acknowledged.
    pub state: Option<PathBuf>,
}

/// What the lanes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    /// Nothing new; what is pending is still sent.
    Finish,
    /// Leave everything as it is.
    Abandon,
}

/// A producing half at work, in a thread of its own.
#[derive(Debug)]
pub struct Verifier {
    orders: watch::Sender<Order>,
    acknowledged: Arc<AtomicU64>,
    thread: thread::JoinHandle<Result<Finished, VerifyError>>,
}

/// What a producing half leaves behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What was acknowledged.
    pub run: Run,
    /// Records that were sent and not acknowledged when the run was abandoned; they may be in the log or not.
    pub unacknowledged: u64,
    /// How often a session ended with a failure that may pass, and was begun anew.
    pub retries: u64,
}

impl Verifier {
    /// Begins to produce.
    pub fn start(spec: VerifySpec) -> Verifier {
        let (orders, received) = watch::channel(Order::Run);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&acknowledged);
        let thread = thread::spawn(move || block_on(produce(spec, received, counter))?);
        Verifier { orders, acknowledged, thread }
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether producing ended by itself, which only a failure does.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops making records, and waits until all that were made are acknowledged, at most for `patience`.
    pub fn stop(self, patience: Duration) -> Result<Finished, VerifyError> {
        self.orders.send_replace(Order::Finish);
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.orders.send_replace(Order::Abandon);
        self.thread.join().map_err(|_| std::io::Error::other("the producing thread panicked"))?
    }
}

/// What all lanes share; they run on one thread.
struct Shared {
    spec: VerifySpec,
    batches: BatchSpec,
    ledger: RefCell<Ledger>,
    pending: RefCell<BTreeMap<i32, Pending>>,
    orders: watch::Receiver<Order>,
    acknowledged: Arc<AtomicU64>,
}

struct Ledger {
    run: Run,
    file: Option<StateWriter>,
    retries: u64,
    last_progress: Instant,
}

async fn produce(
    spec: VerifySpec,
    orders: watch::Receiver<Order>,
    acknowledged: Arc<AtomicU64>,
) -> Result<Finished, VerifyError> {
    let topic = prepare(&spec).await?;
    let producer = match spec.delivery {
        Delivery::Exactly => Some(retry(spec.patience, || spec.cluster.producer_id()).await?),
        Delivery::AtLeast => None,
    };
    let partitions: Vec<i32> = topic.partitions.keys().copied().collect();
    let run = Run::new(new_run_id(), &spec.topic, partitions.len() as i32, spec.record_size, spec.delivery);
    let file = spec.state.as_deref().map(|path| StateWriter::begin(path, &run)).transpose()?;
    let batches = BatchSpec {
        run_id: run.run_id,
        record_size: spec.record_size,
        records_max: spec.batch_records,
        compression: spec.compression,
        producer,
    };
    let pending = partitions.iter().map(|index| (*index, Pending::new(*index))).collect();
    let per_lane = spec.partitions_per_connection.max(1);
    let shared = Rc::new(Shared {
        spec,
        batches,
        ledger: RefCell::new(Ledger { run, file, retries: 0, last_progress: Instant::now() }),
        pending: RefCell::new(pending),
        orders,
        acknowledged,
    });
    let mut lanes = tokio::task::JoinSet::new();
    for group in partitions.chunks(per_lane) {
        lanes.spawn_local(lane(Rc::clone(&shared), group.to_vec()));
    }
    while let Some(ended) = lanes.join_next().await {
        ended.map_err(std::io::Error::other)??;
    }
    let unacknowledged = shared.pending.borrow().values().map(Pending::records).sum();
    let ledger = shared.ledger.borrow();
    Ok(Finished { run: ledger.run.clone(), unacknowledged, retries: ledger.retries })
}

/// Makes the topic where asked. The broker may be away for a while.
async fn prepare(spec: &VerifySpec) -> Result<Topic, ClientError> {
    let patience = spec.patience;
    match &spec.create {
        Some(create) => retry(patience, || spec.cluster.create_topic(create, patience)).await,
        None => spec.cluster.topic_ready(&spec.topic, patience).await,
    }
}

/// Works until it is told to end, beginning anew after failures that may pass.
async fn lane(shared: Rc<Shared>, partitions: Vec<i32>) -> Result<(), VerifyError> {
    let mut orders = shared.orders.clone();
    loop {
        let work = by_leader(&shared.spec.cluster, &shared.spec.topic, &partitions, |session| {
            run_session(Rc::clone(&shared), session)
        });
        let result = tokio::select! {
            result = work => result,
            _ = orders.wait_for(|order| *order == Order::Abandon) => return Ok(()),
        };
        match result {
            Ok(()) => return Ok(()),
            Err(error) if error.may_pass() => {
                let mut ledger = shared.ledger.borrow_mut();
                ledger.retries += 1;
                if ledger.last_progress.elapsed() > shared.spec.patience {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(RETRY_BACKOFF).await;
    }
}

/// One connection to one leader, until nothing is left to send or something fails.
async fn run_session(shared: Rc<Shared>, session: Session) -> Result<(), ClientError> {
    let connection: Connection = shared.spec.cluster.connect(&session.address).await?;
    let version = connection.version::<ProduceRequest>()?;
    let (mut sender, mut receiver) = connection.split();
    for partition in &session.partitions {
        if let Some(pending) = shared.pending.borrow_mut().get_mut(partition) {
            pending.rewind();
        }
    }
    let depth = match shared.spec.delivery {
        Delivery::Exactly => shared.spec.in_flight.clamp(1, 5),
        Delivery::AtLeast => 1,
    };
    let mut in_flight: VecDeque<i32> = VecDeque::new();
    loop {
        while in_flight.len() < depth {
            let more = *shared.orders.borrow() == Order::Run;
            let Some(request) = shared.request(&session, more)? else { break };
            let (correlation_id, segments) = sender.encode(&request, version)?;
            sender.write(segments).await?;
            in_flight.push_back(correlation_id);
            if !shared.spec.pause.is_zero() {
                tokio::time::sleep(shared.spec.pause).await;
            }
        }
        let Some(expected) = in_flight.pop_front() else {
            return Ok(());
        };
        let after = ANSWER_TIMEOUT;
        let answer = tokio::time::timeout(after, receiver.frame())
            .await
            .map_err(|_| ClientError::Timeout { what: "Produce", after })??;
        let (correlation_id, response) = frame::decode_response::<ProduceRequest>(answer, version)?;
        if correlation_id != expected {
            return Err(ClientError::Protocol(format!("answer {correlation_id} to request {expected}")));
        }
        shared.answered(&response)?;
    }
}

impl Shared {
    /// A request with the next batch of each partition that has one.
    fn request(&self, session: &Session, more: bool) -> Result<Option<ProduceRequest>, ClientError> {
        let mut pending = self.pending.borrow_mut();
        let mut partition_data = Vec::new();
        for index in &session.partitions {
            let Some(pending) = pending.get_mut(index) else { continue };
            let next = pending.next_batch(&self.batches, more);
            let next =
                next.map_err(|error| ClientError::Protocol(format!("a batch cannot be made: {error}")))?;
            if let Some(batch) = next {
                let records = Some(Records::from(batch.to_slices().to_vec()));
                partition_data.push(PartitionProduceData { index: *index, records });
            }
        }
        if partition_data.is_empty() {
            return Ok(None);
        }
        let (name, topic_id) = (session.topic.name.clone(), session.topic.id);
        Ok(Some(ProduceRequest {
            transactional_id: None,
            acks: self.spec.acks,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData { name, topic_id, partition_data }],
        }))
    }

    /// Remembers what was acknowledged; the first refusal is the session's end.
    fn answered(&self, response: &ProduceResponse) -> Result<(), ClientError> {
        let mut refused = Ok(());
        for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
            let duplicate = partition.error_code == ErrorCode::DuplicateSequenceNumber as i16;
            let code = if duplicate { 0 } else { partition.error_code };
            match check(code, || format!("producing to partition {}", partition.index)) {
                Ok(()) => self.acknowledge(partition, duplicate)?,
                // A refusal that will not pass outweighs one that may.
                Err(error) if refused.is_ok() || !error.may_pass() => refused = Err(error),
                Err(_) => {}
            }
        }
        refused
    }

    fn acknowledge(&self, partition: &PartitionProduceResponse, duplicate: bool) -> Result<(), ClientError> {
        let index = partition.index;
        let acknowledged = self.pending.borrow_mut().get_mut(&index).and_then(Pending::acknowledged);
        let Some(batch) = acknowledged else {
            return Err(ClientError::Protocol(format!(
                "an answer for partition {index}, of which nothing was sent"
            )));
        };
        let base_offset = if duplicate { -1 } else { partition.base_offset };
        let mut ledger = self.ledger.borrow_mut();
        ledger.run.acked.entry(index).or_default().add(batch.first, batch.last, base_offset);
        ledger.last_progress = Instant::now();
        if let Some(file) = &mut ledger.file {
            file.ack(index, batch.first, batch.last, base_offset)?;
        }
        self.acknowledged.fetch_add(batch.last - batch.first + 1, Ordering::Relaxed);
        Ok(())
    }
}

/// A number that no other run has, in all likelihood.
fn new_run_id() -> u64 {
    RandomState::new().hash_one(crate::payload::wall_clock_ms())
}
