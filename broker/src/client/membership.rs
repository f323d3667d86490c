//! A member of a classic consumer group (the protocol of before KIP-848): joining, the assignment, heartbeats, commits,
//! leaving.
//!
//! The member speaks for one topic and shares partitions out by ranges, as Kafka's consumers do by default, so that it
//! can be in one group with them. It never commits by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use penstock_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use penstock_protocol::messages::leave_group_request::MemberIdentity;
use penstock_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use penstock_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest, consumer_protocol_assignment,
};
use penstock_protocol::{Decoder, Encoder, ErrorCode, Message, WireString};

use super::group_offsets::{Committer, Offsets, commit};
use super::{ClientError, Cluster, check, retry};

/// What members of consumer groups call their protocol.
const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";
/// Version of subscriptions and assignments: whoever shares partitions out by ranges knows it.
const PROTOCOL_VERSION: i16 = 0;
/// How long the group goes without a sign of this member.
const SESSION_TIMEOUT_MS: i32 = 30_000;
/// How long the group waits for this member when partitions are shared out anew.
const REBALANCE_TIMEOUT_MS: i32 = 30_000;
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
/// Attempts to join before giving up. An answer may take as long as the slowest member.
const JOINS_MAX: usize = 10;
/// From this version on several members leave at once (KIP-345).
const LEAVE_MEMBERS_VERSION: i16 = 3;

/// See the module.
#[derive(Debug)]
pub(crate) struct Membership {
    group: String,
    topic: String,
    /// Empty until the coordinator gave one.
    member_id: String,
    generation: i32,
    /// When the coordinator last answered that this member belongs to it: on joining, or to a heartbeat. A commit does not
    /// count: its answer says nothing of a rebalance that began.
    heard: Instant,
}

/// What the group says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The assignment holds.
    Member,
    /// Partitions are shared out anew: join again.
    Rejoin,
}

impl Membership {
    pub(crate) fn new(group: &str, topic: &str) -> Membership {
        Membership {
            group: group.to_owned(),
            topic: topic.to_owned(),
            member_id: String::new(),
            generation: -1,
            heard: Instant::now(),
        }
    }

    /// Joins the group, again if it was left or thrown out; gives the partitions of the topic that this member has.
    pub(crate) fn join(&mut self, cluster: &mut Cluster) -> Result<BTreeSet<i32>, ClientError> {
        let mut last = None;
        for _ in 0..JOINS_MAX {
            let assigned = retry(|| self.join_once(cluster));
            match assigned {
                Err(error) if self.stands(&error) == Some(Standing::Rejoin) => last = Some(error),
                // The coordinator keeps the answer until the slowest member is there.
                Err(error @ ClientError::Timeout { .. }) => last = Some(error),
                assigned => return assigned,
            }
        }
        Err(last.unwrap_or_else(|| unreachable!("there was an attempt")))
    }

    fn join_once(&mut self, cluster: &mut Cluster) -> Result<BTreeSet<i32>, ClientError> {
        let coordinator = cluster.coordinator(&self.group)?;
        let joined = self.ask_to_join(cluster, &coordinator)?;
        self.generation = joined.generation_id;
        let assignments =
            if joined.leader == *self.member_id { share_out(cluster, &joined)? } else { BTreeMap::new() };
        let assignment = |(member, assignment): (String, Bytes)| SyncGroupRequestAssignment {
            member_id: WireString::from(member.as_str()),
            assignment,
        };
        let request = SyncGroupRequest {
            group_id: WireString::from(self.group.as_str()),
            generation_id: self.generation,
            member_id: WireString::from(self.member_id.as_str()),
            protocol_type: Some(WireString::from_static(PROTOCOL_TYPE)),
            protocol_name: Some(WireString::from_static(ASSIGNOR)),
            assignments: assignments.into_iter().map(assignment).collect(),
            ..SyncGroupRequest::default()
        };
        let synced = cluster.call_at(&coordinator, &request)?;
        check(synced.error_code, None, || format!("joining group {}", self.group))?;
        self.heard = Instant::now();
        let assigned = decode_assignment(synced.assignment);
        Ok(assigned.into_iter().filter(|(topic, _)| *topic == self.topic).map(|(_, index)| index).collect())
    }

    fn ask_to_join(
        &mut self,
        cluster: &mut Cluster,
        coordinator: &str,
    ) -> Result<JoinGroupResponse, ClientError> {
        let subscription = ConsumerProtocolSubscription {
            topics: vec![WireString::from(self.topic.as_str())],
            ..ConsumerProtocolSubscription::default()
        };
        let protocol = JoinGroupRequestProtocol {
            name: WireString::from_static(ASSIGNOR),
            metadata: encode(&subscription)?,
        };
        let mut request = JoinGroupRequest {
            group_id: WireString::from(self.group.as_str()),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: WireString::from(self.member_id.as_str()),
            protocol_type: WireString::from_static(PROTOCOL_TYPE),
            protocols: vec![protocol],
            ..JoinGroupRequest::default()
        };
        let mut response = cluster.call_at(coordinator, &request)?;
        // A newcomer is given an id first, and comes again with it (KIP-394).
        if response.error_code == ErrorCode::MemberIdRequired.code() {
            self.member_id = response.member_id.to_string();
            request.member_id = response.member_id;
            response = cluster.call_at(coordinator, &request)?;
        }
        check(response.error_code, None, || format!("joining group {}", self.group))?;
        self.member_id = response.member_id.to_string();
        Ok(response)
    }

    /// Tells the coordinator of this member, if it is time to.
    pub(crate) fn heartbeat(&mut self, cluster: &mut Cluster) -> Result<Standing, ClientError> {
        if self.heard.elapsed() < HEARTBEAT_INTERVAL {
            return Ok(Standing::Member);
        }
        let request = HeartbeatRequest {
            group_id: WireString::from(self.group.as_str()),
            generation_id: self.generation,
            member_id: WireString::from(self.member_id.as_str()),
            ..HeartbeatRequest::default()
        };
        let beat = retry(|| {
            let coordinator = cluster.coordinator(&self.group)?;
            let response = cluster.call_at(&coordinator, &request)?;
            check(response.error_code, None, || format!("staying in group {}", self.group))
        });
        if beat.is_ok() {
            self.heard = Instant::now();
        }
        self.settle(beat)
    }

    /// Commits offsets of the topic's partitions. Where partitions are shared out anew already, they may not have been
    /// taken: whoever has the partitions next then reads these records again.
    pub(crate) fn commit(
        &mut self,
        cluster: &mut Cluster,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<Standing, ClientError> {
        let by = Committer { member_id: self.member_id.clone(), generation: self.generation };
        let named = |(index, offset): (&i32, &i64)| ((self.topic.clone(), *index), *offset);
        let offsets: Offsets = offsets.iter().map(named).collect();
        let committed = commit(cluster, &self.group, &by, &offsets);
        self.settle(committed)
    }

    /// Leaves the group, so that the others have its partitions at once.
    pub(crate) fn leave(&mut self, cluster: &mut Cluster) -> Result<(), ClientError> {
        if self.member_id.is_empty() {
            return Ok(());
        }
        let member_id = WireString::from(self.member_id.as_str());
        let coordinator = cluster.coordinator(&self.group)?;
        let version = cluster.version::<LeaveGroupRequest>(&coordinator)?;
        let mut request = LeaveGroupRequest {
            group_id: WireString::from(self.group.as_str()),
            ..LeaveGroupRequest::default()
        };
        if version >= LEAVE_MEMBERS_VERSION {
            request.members = vec![MemberIdentity { member_id, ..MemberIdentity::default() }];
        } else {
            request.member_id = member_id;
        }
        let response = cluster.call_version(&coordinator, version, &request)?;
        check(response.error_code, None, || format!("leaving group {}", self.group))
    }

    /// What an answer of the coordinator says of this member.
    fn settle(&mut self, answer: Result<(), ClientError>) -> Result<Standing, ClientError> {
        match answer {
            Ok(()) => Ok(Standing::Member),
            Err(error) => self.stands(&error).ok_or(error),
        }
    }

    /// The standing that an error means; none if it has nothing to do with that.
    fn stands(&mut self, error: &ClientError) -> Option<Standing> {
        let ClientError::Refused { code, .. } = error else { return None };
        match code {
            ErrorCode::RebalanceInProgress => {}
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => self.member_id.clear(),
            _ => return None,
        }
        Some(Standing::Rejoin)
    }
}

/// The assignment of each member, by ranges of each topic: the first members by id have one partition more where they
/// do not come out even. Topics that are not there have no partitions.
fn share_out(
    cluster: &mut Cluster,
    joined: &JoinGroupResponse,
) -> Result<BTreeMap<String, Bytes>, ClientError> {
    let subscribed = |bytes: &Bytes| {
        let decoded = decode::<ConsumerProtocolSubscription>(bytes).unwrap_or_default();
        decoded.topics.iter().map(|topic| topic.to_string()).collect()
    };
    let members: BTreeMap<String, BTreeSet<String>> = joined
        .members
        .iter()
        .map(|member| (member.member_id.to_string(), subscribed(&member.metadata)))
        .collect();
    let mut topics = BTreeMap::new();
    for topic in members.values().flatten().collect::<BTreeSet<_>>() {
        match cluster.topic(topic) {
            Ok(found) => drop(topics.insert(topic.clone(), found.select(&[])?)),
            Err(ClientError::Refused { code: ErrorCode::UnknownTopicOrPartition, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let shares = ranges(&members, &topics);
    shares.into_iter().map(|(member, share)| Ok((member, encode(&assignment_of(share))?))).collect()
}

/// Partitions by topic.
type Share = BTreeMap<String, Vec<i32>>;

fn ranges(members: &BTreeMap<String, BTreeSet<String>>, topics: &Share) -> BTreeMap<String, Share> {
    let mut shares: BTreeMap<String, Share> =
        members.keys().map(|member| (member.clone(), Share::new())).collect();
    for (topic, partitions) in topics {
        let takers: Vec<&String> =
            members.iter().filter(|(_, subscribed)| subscribed.contains(topic)).map(|(id, _)| id).collect();
        let mut rest = partitions.as_slice();
        for (at, taker) in takers.iter().enumerate() {
            let (share, after) = rest.split_at(rest.len().div_ceil(takers.len() - at));
            rest = after;
            if let Some(mine) = shares.get_mut(*taker).filter(|_| !share.is_empty()) {
                mine.insert(topic.clone(), share.to_vec());
            }
        }
    }
    shares
}

fn assignment_of(share: Share) -> ConsumerProtocolAssignment {
    let topic = |(topic, partitions): (String, Vec<i32>)| consumer_protocol_assignment::TopicPartition {
        topic: WireString::from(topic.as_str()),
        partitions,
    };
    ConsumerProtocolAssignment {
        assigned_partitions: share.into_iter().map(topic).collect(),
        ..ConsumerProtocolAssignment::default()
    }
}

/// What members tell each other: a version, then the message.
fn encode<M: Message>(message: &M) -> Result<Bytes, ClientError> {
    let mut encoder = Encoder::new();
    let encoded = message.encode(&mut encoder, PROTOCOL_VERSION);
    encoded.map_err(|error| ClientError::Request(M::NAME, error))?;
    let mut bytes = BytesMut::new();
    bytes.put_i16(PROTOCOL_VERSION);
    encoder.finish().iter().for_each(|slice| bytes.put_slice(slice));
    Ok(bytes.freeze())
}

/// What another member told; none if it does not keep to this protocol. A newer version begins as the newest known one
/// does.
fn decode<M: Message>(bytes: &Bytes) -> Option<M> {
    let version = i16::from_be_bytes(*bytes.first_chunk::<2>()?).clamp(M::VERSIONS.min, M::VERSIONS.max);
    M::decode(&mut Decoder::new(bytes.slice(2..)), version).ok()
}

/// The partitions in a member's assignment. Members of other protocols than "consumer" have bytes of their own: those
/// are nothing.
pub(crate) fn decode_assignment(bytes: Bytes) -> BTreeSet<(String, i32)> {
    let topics = decode::<ConsumerProtocolAssignment>(&bytes).unwrap_or_default().assigned_partitions;
    let partitions = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic.to_string(), *partition)));
    partitions.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn assignments_of_classic_members() {
        // Version 1, one topic "ab" with partitions 0 and 3, no user data.
        let bytes = b"\0\x01\0\0\0\x01\0\x02ab\0\0\0\x02\0\0\0\0\0\0\0\x03\xff\xff\xff\xff";
        let expected = BTreeSet::from([("ab".to_owned(), 0), ("ab".to_owned(), 3)]);
        assert_eq!(decode_assignment(Bytes::from_static(bytes)), expected);
        assert_eq!(decode_assignment(Bytes::from_static(&bytes[..10])), BTreeSet::new());
        assert_eq!(decode_assignment(Bytes::new()), BTreeSet::new());
        let share = Share::from([("ab".to_owned(), vec![0, 3])]);
        let ours = encode(&assignment_of(share)).unwrap();
        assert_eq!((&ours[..2], &ours[2..]), (&[0, 0][..], &bytes[2..]));
    }

    #[test]
    fn partitions_are_shared_out_by_ranges() {
        let topics = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let members = BTreeMap::from([
            ("a".to_owned(), topics(&["t"])),
            ("b".to_owned(), topics(&["t", "u"])),
            ("c".to_owned(), topics(&["t", "gone"])),
        ]);
        let there = Share::from([("t".to_owned(), (0..5).collect()), ("u".to_owned(), vec![0])]);
        let shares = ranges(&members, &there);
        assert_eq!(shares["a"], Share::from([("t".to_owned(), vec![0, 1])]));
        assert_eq!(shares["b"], Share::from([("t".to_owned(), vec![2, 3]), ("u".to_owned(), vec![0])]));
        assert_eq!(shares["c"], Share::from([("t".to_owned(), vec![4])]));
        let few = ranges(&members, &Share::from([("t".to_owned(), vec![0])]));
        assert_eq!((few["a"].len(), few["b"].len(), few["c"].len()), (1, 0, 0));
    }
}
