//! Producing load: lanes of pre-encoded requests, at a rate or at the maximum.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use penstock_format::{Batch, BuildError};
use penstock_protocol::WireString;
use penstock_protocol::messages::ProduceRequest;

use crate::client::{ClientError, Cluster, Session, Topic, TopicSpec, by_leader};
use crate::meter::{Meter, Timeline};
use crate::pace::Pace;
use crate::payload::{Payload, PayloadSpec};
use crate::quantity::Rate;
use crate::report::Totals;
use crate::template::{RequestSpec, RequestTemplate};
use crate::workers::{Kind, Run, block_on, run_lanes};

mod batches;
mod pipeline;

use batches::Numbering;
pub use batches::{STAMP_LEN, stamp_of};
use pipeline::{Pipeline, Template};

/// How long is waited for a topic to have leaders, and between two attempts after a failure.
pub const TOPIC_PATIENCE: Duration = Duration::from_secs(30);
const RETRY_BACKOFF: Duration = Duration::from_millis(100);
/// Between setting up and sending, so that all lanes are connected when the run begins.
pub const SETUP_TIME: Duration = Duration::from_millis(300);

/// A load to produce.
#[derive(Debug, Clone)]
pub struct ProduceSpec {
    /// Where.
    pub cluster: Cluster,
    /// The topic's name.
    pub topic: String,
    /// Made first, if it does not exist.
    pub create: Option<TopicSpec>,
    /// Only these partitions.
    pub partitions: Option<Vec<i32>>,
    /// What the records look like.
    pub payload: PayloadSpec,
    /// Independent producers, each writing to every partition.
    pub producers: usize,
    /// Connections of each producer to each broker; the partitions are spread over them.
    pub connections: usize,
    /// 0, 1, or -1 for all.
    pub acks: i16,
    /// With a producer id and sequences.
    pub idempotent: bool,
    /// Open loop; none for the maximum.
    pub rate: Option<Rate>,
    /// Requests in flight on each connection.
    pub in_flight: usize,
    /// Batches, each of another partition, in a request.
    pub batches_per_request: usize,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub duration: Duration,
    /// Worker threads.
    pub threads: usize,
    /// A line each second.
    pub progress: bool,
}

/// Why a load could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cluster did not let itself be prepared.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The records do not fit a batch.
    #[error("the batch cannot be encoded: {0}")]
    Build(#[from] BuildError),
    /// Threads, files.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Options that contradict each other.
    #[error("{0}")]
    Options(String),
}

/// What all lanes of a run share; immutable.
pub(crate) struct Shared {
    pub(crate) spec: ProduceSpec,
    pub(crate) payload: Payload,
    pub(crate) timeline: Timeline,
    /// Stamps count from here; none for batches without a stamp.
    pub(crate) stamp_epoch: Option<Instant>,
    /// What lanes send that send the same: a hundred producers of ten thousand partitions would take longer to encode than to
    /// run. At most one for each set of partitions that lanes have. Producer ids differ, so idempotent lanes have their own.
    templates: Mutex<BTreeMap<TemplateKey, Arc<[Template]>>>,
}

/// Version, topic and partitions of requests.
type TemplateKey = (i16, [u8; 16], Vec<i32>);

/// One connection's work (one for each broker that leads some of its partitions).
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    partitions: Vec<i32>,
    /// None for the maximum.
    requests_per_second: Option<f64>,
    phase: f64,
}

/// Runs the load.
pub fn run(spec: ProduceSpec) -> Result<Totals, RunError> {
    let topic = block_on(prepare(&spec))??;
    let (shared, lanes) = plan(spec, &topic, None)?;
    let shared = Arc::new(shared);
    let kinds =
        [Kind { name: "produce", latency_of: "request to answer, from the time it was meant to leave" }];
    let (timeline, spec) = (shared.timeline, &shared.spec);
    let run = Run { threads: spec.threads, timeline, kinds: &kinds, progress: spec.progress };
    let work = {
        let shared = Arc::clone(&shared);
        move |lane, meters| lane_work(Arc::clone(&shared), lane, meters)
    };
    let totals = run_lanes(&run, lanes, work)?;
    totals.into_iter().next().ok_or_else(|| RunError::Options("nothing was measured".to_owned()))
}

/// Makes the topic where asked, and waits until it has leaders.
pub(crate) async fn prepare(spec: &ProduceSpec) -> Result<Topic, ClientError> {
    match &spec.create {
        Some(create) => spec.cluster.create_topic(create, TOPIC_PATIENCE).await,
        None => spec.cluster.topic_ready(&spec.topic, TOPIC_PATIENCE).await,
    }
}

/// Encodes the batches and divides partitions and rate over the lanes. The run begins a moment from now.
pub(crate) fn plan(
    spec: ProduceSpec,
    topic: &Topic,
    stamp_epoch: Option<Instant>,
) -> Result<(Shared, Vec<Lane>), RunError> {
    let payload = Payload::encode(&spec.payload, topic.partitions.len() as i32)?;
    let mut partitions = topic.select(spec.partitions.as_deref())?;
    partitions.retain(|partition| payload.batch(*partition).is_some());
    if partitions.is_empty() {
        return Err(RunError::Options("no partition has anything to receive".to_owned()));
    }
    let connections = spec.connections.clamp(1, partitions.len());
    let lane_count = (spec.producers * connections) as f64;
    let records_per_second = spec.rate.map(|rate| rate.records_per_second(spec.payload.record_size));
    let mut lanes = Vec::new();
    for producer in 0..spec.producers {
        for connection in 0..connections {
            let own: Vec<i32> = partitions.iter().copied().skip(connection).step_by(connections).collect();
            let part = own.len() as f64 / (partitions.len() * spec.producers) as f64;
            let records = spec.payload.batch_records * spec.batches_per_request.clamp(1, own.len());
            lanes.push(Lane {
                requests_per_second: records_per_second.map(|rate| rate * part / records as f64),
                phase: (producer * connections + connection) as f64 / lane_count,
                partitions: own,
            });
        }
    }
    let start = Instant::now() + SETUP_TIME;
    let timeline = Timeline { start, warm_up: spec.warm_up, duration: spec.duration };
    Ok((Shared { spec, payload, timeline, stamp_epoch, templates: Mutex::default() }, lanes))
}

/// Works until the run's end, beginning anew after failures. Gives the number of requests without an answer.
pub(crate) async fn lane_work(shared: Arc<Shared>, lane: Lane, meters: Rc<[Meter]>) -> u64 {
    let unanswered = Rc::new(RefCell::new(0));
    // One schedule for all sessions of the lane, which also outlives them: what was meant to leave during an outage leaves
    // late, with that latency.
    let pace = Rc::new(RefCell::new(Pace::new(shared.timeline.start, lane.requests_per_second, lane.phase)));
    loop {
        let result = by_leader(&shared.spec.cluster, &shared.spec.topic, &lane.partitions, |session| {
            let pipeline = Pipeline {
                shared: Arc::clone(&shared),
                pace: Rc::clone(&pace),
                meters: Rc::clone(&meters),
                unanswered: Rc::clone(&unanswered),
                phase: lane.phase,
            };
            run_session(pipeline, session)
        })
        .await;
        if let Err(error) = result {
            meters[0].error(&error_kind(&error));
        }
        if Instant::now() >= shared.timeline.end() {
            return unanswered.take();
        }
        tokio::time::sleep(RETRY_BACKOFF).await;
    }
}

async fn run_session(pipeline: Pipeline, session: Session) -> Result<(), ClientError> {
    let shared = Arc::clone(&pipeline.shared);
    let spec = &shared.spec;
    let connection = spec.cluster.connect(&session.address).await?;
    let request_spec = RequestSpec {
        acks: spec.acks,
        timeout_ms: 30_000,
        version: connection.version::<ProduceRequest>()?,
        client_id: WireString::from_static("penstock-loadgen"),
    };
    if !spec.idempotent {
        let templates = shared_templates(&shared, &request_spec, &session)?;
        return pipeline.run(connection, templates, None, request_spec.version).await;
    }
    let (producer_id, producer_epoch) = spec.cluster.producer_id().await?;
    let templates = templates(&shared, &request_spec, &session, |batch| {
        batch.patch_header(|header| {
            header.producer_id = producer_id;
            header.producer_epoch = producer_epoch;
            header.base_sequence = 0;
        });
    })?;
    pipeline.run(connection, templates.into(), Some(Numbering::default()), request_spec.version).await
}

/// The templates of a session, encoded by the first lane that needs them.
fn shared_templates(
    shared: &Shared,
    request: &RequestSpec,
    session: &Session,
) -> Result<Arc<[Template]>, ClientError> {
    let key = (request.version, session.topic.id.0, session.partitions.clone());
    // A lane that panicked while it held the lock ends the run anyway.
    let mut known = shared.templates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(templates) = known.get(&key) {
        return Ok(Arc::clone(templates));
    }
    let templates: Arc<[Template]> = templates(shared, request, session, |_| ())?.into();
    known.insert(key, Arc::clone(&templates));
    Ok(templates)
}

/// One request for each of the session's partitions, or for several together.
fn templates(
    shared: &Shared,
    request: &RequestSpec,
    session: &Session,
    mut patch: impl FnMut(&mut Batch),
) -> Result<Vec<Template>, ClientError> {
    let mut batches: BTreeMap<i32, Batch> = BTreeMap::new();
    for partition in &session.partitions {
        batches.extend(shared.payload.batch(*partition).map(|batch| (*partition, batch.clone())));
    }
    batches.values_mut().for_each(&mut patch);
    let list: Vec<(i32, Batch)> = batches.into_iter().collect();
    let groups = list.chunks(shared.spec.batches_per_request.max(1));
    groups
        .map(|group| Ok((RequestTemplate::encode(request, &session.topic, group)?, group.to_vec())))
        .collect()
}

/// What to count a failure under: error names, and not the addresses and numbers of single cases.
pub(crate) fn error_kind(error: &ClientError) -> String {
    match error {
        ClientError::Refused { code, .. } => crate::client::error_name(*code),
        ClientError::Io(error) => format!("connection lost ({:?})", error.kind()),
        ClientError::Timeout { .. } => "no answer in time".to_owned(),
        ClientError::NoLeader(_) => "no leader".to_owned(),
        other => other.to_string(),
    }
}
