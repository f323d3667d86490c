//! Fetch (1), versions 4-18: KIP-74 (limits), KIP-98 (4), KIP-227 (sessions, 7), KIP-320 (epochs, 9), KIP-392 (11),
//! KIP-595 (diverging epochs, 12), KIP-516 (topic ids, 13), KIP-903 (15), KIP-951 (16), KIP-853 (17), KIP-1166 (18).
//!
//! A fetch reads all its partitions, on all shards that own them. If that is less than it wants and there is time, it
//! leaves signals with the partitions, waits, and goes on reading where it stopped: what it found stays found.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use penstock_core::fetch_session::{FetchAnswer, PartitionName};
use penstock_protocol::ApiKey;
use penstock_protocol::messages::fetch_request::FetchPartition;
use penstock_protocol::messages::fetch_response::{self, FetchableTopicResponse};
use penstock_protocol::messages::{FetchRequest, FetchResponse};

use super::RequestContext;
use super::fetch_plan::{Part, State, find_topic};
use crate::network::pipeline::{Answer, Begun, CloseReason};
use crate::runtime::task;
use crate::shard::{
    PartitionData, ReadFailure, ReadRequest, Shard, ShardReply, ShardRequest, Signal, first_signal,
};

/// The version from which topics are named by their ids alone.
const TOPIC_ID_VERSION: i16 = 13;
/// The isolation level that asks for settled transactions alone.
const READ_COMMITTED: i8 = 1;
/// Bytes that a fetch may give however many answers wait to be sent, so that every consumer gets on.
const BYTES_MAX_LEAST: usize = 64 << 10;
/// Pause after a wake-up that brought too little, so that a stream of small appends is read in larger pieces.
const GATHER: Duration = Duration::from_millis(1);

pub(super) async fn begin(context: RequestContext, request: FetchRequest) -> Result<Begun, CloseReason> {
    Ok(Begun::Later(Box::pin(fetch(context, request))))
}

async fn fetch(context: RequestContext, request: FetchRequest) -> Result<Answer, CloseReason> {
    let shard = &context.shard;
    let begun = shard.fetch_sessions.borrow_mut().begin(&request, context.version, task::now_ms());
    let session = match begun {
        Ok(session) => session,
        Err(error) => {
            let response = FetchResponse { error_code: error.code(), ..FetchResponse::default() };
            return context.encode(ApiKey::Fetch, &response);
        }
    };
    let mut fetch = Fetch::new(&context, &request, &session.partitions);
    fetch.run().await;
    let bytes = fetch.bytes();
    let budget = &shard.answer_budget;
    let held = budget.try_acquire(bytes.min(budget.free()));
    let read_committed = request.isolation_level == READ_COMMITTED;
    let data: Vec<_> = fetch.parts.into_iter().map(|part| part.respond(read_committed)).collect();
    let told = shard.fetch_sessions.borrow_mut().finish(&session, &data, task::now_ms());
    let answer = context.encode(ApiKey::Fetch, &respond(session.partitions, data, &told))?;
    Ok(Answer { held, ..answer })
}

/// A fetch under way.
struct Fetch {
    shard: Rc<Shard>,
    parts: Vec<Part>,
    bytes_max: usize,
    bytes_min: usize,
    deadline: Instant,
}

/// The parts of one shard: their places, and the signal left there.
struct Group {
    shard: usize,
    places: Vec<usize>,
    signal: Arc<Signal>,
}

impl Fetch {
    fn new(
        context: &RequestContext,
        request: &FetchRequest,
        partitions: &[(PartitionName, FetchPartition)],
    ) -> Fetch {
        let shard = context.shard.clone();
        let image = shard.shared.image.load_full();
        let by_id = context.version >= TOPIC_ID_VERSION;
        let parts = partitions.iter().map(|(name, asked)| {
            let topic = find_topic(&image, by_id, name);
            Part::new(&shard, topic, asked)
        });
        let parts = parts.collect();
        let room = shard.answer_budget.free().max(BYTES_MAX_LEAST);
        let asked = usize::try_from(request.max_bytes).unwrap_or(0);
        let bytes_max = asked.min(shard.shared.config.fetch_max_bytes).min(room);
        let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max);
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let deadline = Instant::now() + wait;
        Fetch { shard, parts, bytes_max, bytes_min, deadline }
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(Part::bytes).sum()
    }

    /// Reads until there is enough, or time is over, or there is something the client should hear at once.
    async fn run(&mut self) {
        let mut groups = self.groups();
        let all: Vec<usize> = (0..groups.len()).collect();
        self.read(&groups, &all).await;
        while !self.is_satisfied() {
            let signals: Vec<Arc<Signal>> = groups.iter().map(|group| group.signal.clone()).collect();
            if task::until(self.deadline, first_signal(&signals)).await.is_none() {
                return;
            }
            let fired: Vec<usize> = (0..groups.len()).filter(|at| groups[*at].signal.fired()).collect();
            for at in &fired {
                groups[*at].signal = Arc::default();
            }
            self.read(&groups, &fired).await;
            if !self.is_satisfied() {
                task::sleep_until(self.deadline.min(Instant::now() + GATHER)).await;
            }
        }
    }

    fn is_satisfied(&self) -> bool {
        self.parts.is_empty()
            || self.bytes() >= self.bytes_min
            || self.parts.iter().any(Part::is_urgent)
            || Instant::now() >= self.deadline
            || self.shard.draining()
    }

    /// The parts by shard, in order of the request within each.
    fn groups(&self) -> Vec<Group> {
        let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, part) in self.parts.iter().enumerate() {
            if let State::Reading { shard, .. } = &part.state {
                places.entry(*shard).or_default().push(place);
            }
        }
        let group = |(shard, places)| Group { shard, places, signal: Arc::default() };
        places.into_iter().map(group).collect()
    }

    /// Reads on in the groups at `which`: side by side if the limits of all parts together fit the fetch's, else
    /// one after the other, so that none reads what there is no room for.
    async fn read(&mut self, groups: &[Group], which: &[usize]) {
        let left = self.bytes_max.saturating_sub(self.bytes());
        let wanted = which.iter().flat_map(|at| &groups[*at].places).map(|place| self.parts[*place].wanted());
        if wanted.fold(0usize, usize::saturating_add) <= left {
            let reads = which.iter().map(|at| self.read_group(&groups[*at], left));
            for (at, outcomes) in which.iter().zip(join_all(reads).await) {
                self.take(&groups[*at], outcomes);
            }
            return;
        }
        for at in which {
            let left = self.bytes_max.saturating_sub(self.bytes());
            let outcomes = self.read_group(&groups[*at], left).await;
            self.take(&groups[*at], outcomes);
        }
    }

    async fn read_group(&self, group: &Group, left: usize) -> Vec<Result<PartitionData, ReadFailure>> {
        let found = self.bytes();
        let reads = group.places.iter().filter_map(|place| self.parts[*place].read()).collect();
        let watch = (self.bytes_min > found).then(|| group.signal.clone());
        let request = ReadRequest { reads, bytes_max: left, at_least_one: found == 0, watch };
        if group.shard == self.shard.index {
            return self.shard.read(request).await;
        }
        match self.shard.ask(group.shard, ShardRequest::Read(request)).await {
            ShardReply::Read(outcomes) => outcomes,
            _ => unreachable!("a reply has the name of its request"),
        }
    }

    fn take(&mut self, group: &Group, outcomes: Vec<Result<PartitionData, ReadFailure>>) {
        let read: Vec<usize> =
            group.places.iter().copied().filter(|place| self.parts[*place].read().is_some()).collect();
        for (place, outcome) in read.into_iter().zip(outcomes) {
            let first = self.bytes() == 0;
            self.parts[place].take(outcome, first);
        }
    }
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
