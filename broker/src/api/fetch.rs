//! Fetch (1), versions 4-18: KIP-74 (limits), KIP-98 (4), KIP-227 (sessions, 7), KIP-320 (epochs, 9), KIP-392 (11),
//! KIP-595 (diverging epochs, 12), KIP-516 (topic ids, 13), KIP-903 (15), KIP-951 (16), KIP-853 (17), KIP-1166 (18).
//!
//! A fetch reads all its partitions, on all shards that own them. If that is less than it wants and there is time, it
//! leaves signals with the partitions, waits, and goes on reading where it stopped: what it found stays found.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use penstock_core::fetch_session::{FetchAnswer, PartitionName};
use penstock_core::partition::fetch::{FetchLimits, FetchPlan, PartOutcome, PartitionData, ShardReads};
use penstock_core::partition::{Isolation, PartitionFailure, ReadBudget};
use penstock_protocol::messages::fetch_request::FetchPartition;
use penstock_protocol::messages::fetch_response::{self, FetchableTopicResponse};
use penstock_protocol::messages::{FetchRequest, FetchResponse};
use penstock_protocol::{ApiKey, ErrorCode};

use super::{RequestContext, fetch_answer};
use crate::network::pipeline::{Answer, Begun, CloseReason};
use crate::runtime::semaphore::Permit;
use crate::runtime::task;
use crate::shard::{
    Course, PartitionKey, ReadRequest, Shard, ShardReply, ShardRequest, Signal, Step, first_signal,
};

/// The version from which topics are named by their ids alone.
const TOPIC_ID_VERSION: i16 = 13;
/// Pause after a wake-up that brought too little, so that a stream of small appends is read in larger pieces.
const GATHER: Duration = Duration::from_millis(1);

pub(super) async fn begin(mut context: RequestContext, request: FetchRequest) -> Result<Begun, CloseReason> {
    context.decoded();
    Ok(Begun::Later(Box::pin(fetch(context, request))))
}

async fn fetch(context: RequestContext, request: FetchRequest) -> Result<Answer, CloseReason> {
    let shard = &context.shard;
    let isolation = match Isolation::of(request.isolation_level) {
        Ok(isolation) => isolation,
        Err(error) => return context.encode(ApiKey::Fetch, &refused(&request, error)),
    };
    let begun = shard.fetch_sessions.borrow_mut().begin(&request, context.version, task::now_ms());
    let session = match begun {
        Ok(session) => session,
        Err(error) => {
            let response = FetchResponse { error_code: error.code(), ..FetchResponse::default() };
            return context.encode(ApiKey::Fetch, &response);
        }
    };
    let mut fetch = Fetch::new(&context, &request, isolation, &session.partitions);
    fetch.run().await;
    let (held, course) = (fetch.held.take(), fetch.course);
    let outcomes = session.partitions.iter().zip(fetch.plan.finish());
    let answered = |((_, asked), outcome): (&(PartitionName, FetchPartition), PartOutcome)| {
        fetch_answer::respond(asked.partition, outcome, isolation)
    };
    let data: Vec<_> = outcomes.map(answered).collect();
    let told = shard.fetch_sessions.borrow_mut().finish(&session, &data, task::now_ms());
    let answer = context.encode(ApiKey::Fetch, &respond(session.partitions, data, &told))?;
    Ok(Answer { held, course, ..answer })
}

/// A fetch under way: the plan, and what carries it out.
struct Fetch {
    shard: Rc<Shard>,
    course: Course,
    plan: FetchPlan,
    isolation: Isolation,
    /// By place in the request; `None` where it was refused.
    keys: Vec<Option<PartitionKey>>,
    /// By group of the plan: the shard, and the signal left there.
    groups: Vec<(usize, Arc<Signal>)>,
    deadline: Instant,
    /// The share of what was found in the bytes of answers.
    held: Option<Permit>,
}

impl Fetch {
    fn new(
        context: &RequestContext,
        request: &FetchRequest,
        isolation: Isolation,
        partitions: &[(PartitionName, FetchPartition)],
    ) -> Fetch {
        let shard = context.shard.clone();
        let image = shard.shared.image.load_full();
        let by_id = context.version >= TOPIC_ID_VERSION;
        let (mut keys, mut asked) = (Vec::new(), Vec::new());
        for (name, partition) in partitions {
            let topic = fetch_answer::find_topic(&image, by_id, name);
            let located = fetch_answer::locate(&shard, topic, partition);
            keys.push(located.as_ref().ok().map(|(key, ..)| *key));
            asked.push(located.map(|(_, to, read)| (to, read)));
        }
        let limits = FetchLimits::new(request, shard.shared.config.fetch_max_bytes);
        let deadline = Instant::now() + Duration::from_millis(limits.wait_ms);
        let plan = FetchPlan::new(limits, asked);
        let groups = plan.shards().map(|by| (by, shard.signal_by(by))).collect();
        Fetch { shard, course: context.course, plan, isolation, keys, groups, deadline, held: None }
    }

    /// Reads until there is enough, or time is over, or there is something the client should hear at once.
    async fn run(&mut self) {
        let mut since = Instant::now();
        self.read().await;
        self.note(Step::Read, &mut since);
        let mut drain: Option<Arc<Signal>> = None;
        while !self.is_complete() {
            // This shard's own: partitions of other shards say nothing when it drains.
            let drain = drain.get_or_insert_with(|| self.shard.drain_signal());
            let groups = self.groups.iter().map(|(_, signal)| signal.clone());
            let signals: Vec<Arc<Signal>> = groups.chain([drain.clone()]).collect();
            let woken = task::until(self.deadline, first_signal(&signals)).await;
            self.note(Step::Records, &mut since);
            if woken.is_none() {
                return;
            }
            for (group, (by, signal)) in self.groups.iter_mut().enumerate() {
                if signal.fired() {
                    *signal = self.shard.signal_by(*by);
                    self.plan.wake(group);
                }
            }
            self.read().await;
            self.note(Step::Read, &mut since);
            if !self.is_complete() {
                let left = self.deadline.saturating_duration_since(Instant::now());
                self.shard.ring.sleep(left.min(GATHER)).await;
            }
        }
    }

    /// Notes what took the time since then, and begins anew.
    fn note(&mut self, step: Step, since: &mut Instant) {
        let now = Instant::now();
        self.course.note(step, now.saturating_duration_since(*since));
        *since = now;
    }

    fn is_complete(&self) -> bool {
        self.plan.is_complete(Instant::now() >= self.deadline || self.shard.draining())
    }

    /// Makes all reads that are due. Their memory is taken before them; what they did not need goes back.
    async fn read(&mut self) {
        let before = self.plan.bytes();
        let budget = &self.shard.answer_budget;
        let room = self.plan.make_room(budget.free());
        // None where hardly anything is free: the least that every fetch may have is bounded by the connections.
        let taken = budget.try_acquire(room);
        self.read_due().await;
        let Some(mut taken) = taken else { return };
        taken.shrink(self.plan.bytes() - before);
        match &mut self.held {
            Some(held) => held.join(taken),
            None => self.held = Some(taken),
        }
    }

    async fn read_due(&mut self) {
        loop {
            let reads = self.plan.next_reads();
            if reads.is_empty() {
                return;
            }
            let outcomes = join_all(reads.iter().map(|reads| self.read_shard(reads))).await;
            for (reads, outcomes) in reads.iter().zip(outcomes) {
                self.plan.take(reads, outcomes);
            }
        }
    }

    async fn read_shard(&self, reads: &ShardReads) -> Vec<Result<PartitionData, PartitionFailure>> {
        let (to, signal) = &self.groups[reads.group];
        let keyed =
            |(place, read): &(usize, _)| (self.keys[*place].expect("refused parts are not read"), *read);
        let request = ReadRequest {
            reads: reads.reads.iter().map(keyed).collect(),
            isolation: self.isolation,
            budget: ReadBudget { bytes_left: reads.bytes_max, at_least_one: reads.at_least_one },
            watch: reads.watch.then(|| signal.clone()),
        };
        if *to == self.shard.index {
            return self.shard.read(request).await;
        }
        match self.shard.ask(*to, ShardRequest::Read(request)).await {
            ShardReply::Read(outcomes) => outcomes,
            _ => unreachable!("a reply has the name of its request"),
        }
    }
}

/// The answer to a request that is refused as a whole: each partition says so, for versions without a word for it.
fn refused(request: &FetchRequest, error: ErrorCode) -> FetchResponse {
    let topics = request.topics.iter().map(|topic| FetchableTopicResponse {
        topic: topic.topic.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|asked| {
                fetch_answer::respond(
                    asked.partition,
                    PartOutcome::Refused(error),
                    Isolation::ReadUncommitted,
                )
            })
            .collect(),
    });
    FetchResponse { error_code: error.code(), responses: topics.collect(), ..FetchResponse::default() }
}

/// The partitions that are told, by topic.
fn respond(
    partitions: Vec<(PartitionName, FetchPartition)>,
    data: Vec<fetch_response::PartitionData>,
    told: &FetchAnswer,
) -> FetchResponse {
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let named = partitions.into_iter().zip(data).zip(&told.told);
    for (((name, _), data), _) in named.filter(|(_, told)| **told) {
        match responses.last_mut() {
            Some(last) if last.topic_id == name.topic_id && last.topic == name.topic => {
                last.partitions.push(data)
            }
            _ => responses.push(FetchableTopicResponse {
                topic: name.topic,
                topic_id: name.topic_id,
                partitions: vec![data],
            }),
        }
    }
    let (error_code, session_id) = (told.error.code(), told.session_id);
    FetchResponse { error_code, session_id, responses, ..FetchResponse::default() }
}
