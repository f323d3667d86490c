//! Incremental fetch sessions (KIP-227): a client names its partitions once, then only what changes; it is told only of
//! partitions that have something new.
//!
//! [`FetchSessions::begin`] turns a request into the partitions that are to be read, [`FetchSessions::finish`] turns what
//! was read into what is told. Each shard has its own sessions: a client that comes back on another shard's connection is
//! told that its session is unknown, and begins a new one, as after a restart.
//!
//! Bounds: sessions (slots) and partitions over all sessions. At the bound a fetch is answered in full, without session,
//! unless an older session may be evicted by Kafka's rules.

mod cache;
mod session;

use std::collections::BTreeMap;

use penstock_protocol::messages::FetchRequest;
use penstock_protocol::messages::fetch_request::FetchPartition;
use penstock_protocol::messages::fetch_response::PartitionData;
use penstock_protocol::{ErrorCode, Uuid, WireString};

pub use cache::FetchSessions;

/// The version from which topics are named by id.
const TOPIC_IDS_FROM: i16 = 13;
const NO_SESSION: i32 = 0;
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// Partitions over all sessions of one cache: about 200 bytes each.
const PARTITIONS_MAX: usize = 250_000;

/// The epoch after `epoch`: 0 comes only once, and the final one is followed by nothing.
fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        i32::MIN..0 => FINAL_EPOCH,
        i32::MAX => 1,
        _ => epoch + 1,
    }
}

/// A partition as a request names it: by name up to version 12, by id from 13; the other one is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionName {
    /// Id of the topic.
    pub topic_id: Uuid,
    /// Name of the topic.
    pub topic: WireString,
    /// Number of the partition.
    pub partition: i32,
}

impl PartitionName {
    fn detached(&self) -> PartitionName {
        PartitionName { topic: self.topic.detached(), ..*self }
    }
}

/// What a fetch reads, in the order in which it is to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchContext {
    /// Each partition once, as the client last asked for it.
    pub partitions: Vec<(PartitionName, FetchPartition)>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No session, before or after.
    Sessionless,
    /// A session begins with the answer, if there is room.
    Full { by_id: bool, from_follower: bool },
    /// A session goes on; `epoch` is the one that the next request carries.
    Incremental { id: i32, epoch: i32 },
}

/// What the answer says of the session and which partitions it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchAnswer {
    /// Session to go on with; 0 is none.
    pub session_id: i32,
    /// The whole answer's error; no partition is told then.
    pub error: ErrorCode,
    /// For each partition of the context, whether it is told.
    pub told: Vec<bool>,
}

impl FetchSessions {
    /// What a request reads.
    ///
    /// # Errors
    /// The whole answer's error when the session is not what the client thinks it is.
    pub fn begin(
        &mut self,
        request: &FetchRequest,
        version: i16,
        now_ms: i64,
    ) -> Result<FetchContext, ErrorCode> {
        let by_id = version >= TOPIC_IDS_FROM;
        let asked = asked(request, by_id);
        match request.session_epoch {
            INITIAL_EPOCH | FINAL_EPOCH => {
                // A full request ends the session that it names.
                self.remove(request.session_id);
                let from_follower = request.replica_id >= 0 || request.replica_state.replica_id >= 0;
                let kind = match request.session_epoch {
                    FINAL_EPOCH => Kind::Sessionless,
                    _ => Kind::Full { by_id, from_follower },
                };
                Ok(FetchContext { partitions: asked, kind })
            }
            epoch => self.go_on(request, (epoch, by_id), asked, now_ms),
        }
    }

    fn go_on(
        &mut self,
        request: &FetchRequest,
        (epoch, by_id): (i32, bool),
        asked: Vec<(PartitionName, FetchPartition)>,
        now_ms: i64,
    ) -> Result<FetchContext, ErrorCode> {
        let id = request.session_id;
        let session = self.get_mut(id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.update(&asked, forgotten(request, by_id));
        if session.is_empty() {
            self.remove(id);
            return Ok(FetchContext { partitions: asked, kind: Kind::Sessionless });
        }
        session.epoch = next_epoch(epoch);
        let kind = Kind::Incremental { id, epoch: session.epoch };
        let partitions = session.partitions();
        self.touch(id, now_ms);
        if self.partitions_len() > PARTITIONS_MAX {
            self.remove(id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        Ok(FetchContext { partitions, kind })
    }

    /// What the answer tells. `data` stands in the order of the context's partitions.
    ///
    /// # Panics
    /// If there is not exactly one entry of `data` for each partition.
    pub fn finish(&mut self, context: &FetchContext, data: &[PartitionData], now_ms: i64) -> FetchAnswer {
        assert_eq!(context.partitions.len(), data.len(), "each partition was read");
        let all =
            |session_id| FetchAnswer { session_id, error: ErrorCode::None, told: vec![true; data.len()] };
        match context.kind {
            Kind::Sessionless => all(NO_SESSION),
            Kind::Full { by_id, from_follower } => {
                let session =
                    session::Session::new(by_id, from_follower, now_ms, (&context.partitions, data));
                all(self.insert(session, now_ms).unwrap_or(NO_SESSION))
            }
            Kind::Incremental { id, epoch } => match self.get_mut(id) {
                // Evicted since: the client is told everything now, and learns of it with its next request.
                None => all(id),
                Some(session) if session.epoch != epoch => FetchAnswer {
                    session_id: id,
                    error: ErrorCode::InvalidFetchSessionEpoch,
                    told: vec![false; data.len()],
                },
                Some(session) => {
                    let named = context.partitions.iter().zip(data);
                    let told = named.map(|((name, _), data)| session.tell(name, data)).collect();
                    FetchAnswer { session_id: id, error: ErrorCode::None, told }
                }
            },
        }
    }
}

/// The partitions of a request, each once: what is said last holds, at the place where it came first.
fn asked(request: &FetchRequest, by_id: bool) -> Vec<(PartitionName, FetchPartition)> {
    let mut places = BTreeMap::new();
    let mut asked = Vec::<(PartitionName, FetchPartition)>::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let name = name(&topic.topic, topic.topic_id, partition.partition, by_id);
            let place = *places.entry(name.clone()).or_insert(asked.len());
            match asked.get_mut(place) {
                Some(earlier) => earlier.1 = partition.clone(),
                None => asked.push((name, partition.clone())),
            }
        }
    }
    asked
}

fn forgotten(request: &FetchRequest, by_id: bool) -> impl Iterator<Item = PartitionName> {
    let topics = request.forgotten_topics_data.iter();
    topics.flat_map(move |topic| {
        topic.partitions.iter().map(move |partition| name(&topic.topic, topic.topic_id, *partition, by_id))
    })
}

fn name(topic: &WireString, topic_id: Uuid, partition: i32, by_id: bool) -> PartitionName {
    match by_id {
        true => PartitionName { topic_id, topic: WireString::default(), partition },
        false => PartitionName { topic_id: Uuid::ZERO, topic: topic.clone(), partition },
    }
}

#[cfg(test)]
mod tests;
