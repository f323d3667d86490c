//! A coordinator that ends between any two steps of a rebalance, with any part of what it had written.
//!
//! One history is told over and over: two members own everything, a third comes, one that is static begins another life
//! meanwhile, commits go on, and all converge. Each time the coordinator is lost after another step, with another number of unflushed appends kept. Random histories
//! (`random.rs`) crash as well, but anywhere; here no step is left out.

use std::collections::BTreeSet;

use penstock_core::coordinator::RequestId;
use penstock_core::group::{GroupCall, GroupRequest, GroupResponse};
use penstock_protocol::messages::OffsetCommitRequest;
use penstock_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use penstock_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use penstock_protocol::{ErrorCode, Uuid};

use crate::client::{Client, PARTITIONS, Stage};
use crate::log::{Host, PARTITION, config};

const GROUP: &str = "g";
/// Steps after which a history is at rest at the latest: minutes, a second each.
const STEPS_MAX: usize = 600;

/// The step at which a static member is back.
const STATIC_BACK_AT: usize = 4;

/// What was under way when the coordinator was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    ParkedJoin,
    ParkedSync,
    UnflushedAssignment,
    UnflushedCommit,
}

enum Asked {
    Member(usize),
    Commit(i64),
}

struct Story {
    host: Host,
    now_ms: i64,
    clients: Vec<Client>,
    /// Requests without an answer, in the order of their ids.
    asked: Vec<(u64, Asked)>,
    requests: u64,
    sent: i64,
    acknowledged: i64,
}

impl Story {
    fn new(with_static_member: bool) -> Story {
        let clients = (0..3).map(|at| Client::new(&format!("c{at}"), with_static_member && at == 0, 9));
        let mut story = Story {
            host: Host::new(config(&[("group.initial.rebalance.delay.ms", "0")]), 0),
            now_ms: 0,
            clients: clients.collect(),
            asked: Vec::new(),
            requests: 0,
            sent: 0,
            acknowledged: 0,
        };
        story.clients[2].up = false;
        story.rest();
        story.clients[2].up = true;
        if with_static_member {
            story.clients[0].crash();
        }
        story
    }

    fn send(&mut self, call: GroupCall, asked: Asked) {
        self.requests += 1;
        self.asked.push((self.requests, asked));
        self.host.coordinator.handle(PARTITION, call, RequestId(self.requests), self.now_ms);
        self.take_answers();
    }

    fn take_answers(&mut self) {
        self.host.drain(self.now_ms, || None);
        for (RequestId(id), response) in std::mem::take(&mut self.host.replies) {
            let at = self.asked.iter().position(|(asked, _)| *asked == id);
            let (_, asked) = self.asked.remove(at.expect("a request is answered once"));
            match (asked, response) {
                (Asked::Member(at), response) => {
                    if self.clients[at].waits.is_some_and(|(waited, _)| waited == id) {
                        self.clients[at].waits = None;
                        self.clients[at].take(response, self.now_ms);
                    }
                }
                (Asked::Commit(offset), GroupResponse::CommitOffsets(response)) => {
                    if response.topics[0].partitions[0].error_code == ErrorCode::None.code() {
                        self.acknowledged = self.acknowledged.max(offset);
                    }
                }
                (_, other) => panic!("{other:?} answers nothing that was asked"),
            }
        }
    }

    fn act(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        if client.waits.is_some_and(|(_, until_ms)| until_ms <= self.now_ms) {
            client.waits = None;
        }
        if !client.up || client.waits.is_some() {
            return false;
        }
        let Some((request, patience_ms)) = client.next_request(GROUP, self.now_ms) else { return false };
        client.waits = Some((self.requests + 1, self.now_ms + patience_ms));
        let fresh_id = Uuid::from_bytes(u128::from(self.requests + 1).to_be_bytes());
        let call = client.call(request, fresh_id);
        self.send(call, Asked::Member(at));
        true
    }

    fn commit(&mut self) {
        self.sent += 1;
        let committed_offset = self.sent;
        let partitions = vec![OffsetCommitRequestPartition { committed_offset, ..Default::default() }];
        let client = &self.clients[1];
        let request = OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id_or_member_epoch: client.generation,
            member_id: client.member_id.clone(),
            group_instance_id: client.instance_id.clone(),
            topics: vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }],
            ..Default::default()
        };
        let call = client.call(GroupRequest::CommitOffsets(request), Uuid::ZERO);
        self.send(call, Asked::Commit(committed_offset));
    }

    fn flush(&mut self) -> bool {
        let is_any = !self.host.written.is_empty();
        if is_any {
            self.host.flush_one(self.now_ms);
            self.take_answers();
        }
        is_any
    }

    fn is_at_rest(&self) -> bool {
        let up: Vec<&Client> = self.clients.iter().filter(|client| client.up).collect();
        let stable = |client: &&Client| matches!(client.stage, Stage::Stable(_)) && client.waits.is_none();
        up.iter().all(stable)
            && up.iter().all(|client| client.generation == up[0].generation)
            && self.asked.is_empty()
    }

    /// One step after the other, each the least that can happen: a member asks, an append is flushed, or, where neither
    /// can, a second passes. Every fifth step is a commit. True at rest.
    fn go(&mut self, steps: usize) -> bool {
        for step in 0..steps {
            if self.is_at_rest() {
                return true;
            }
            // Late enough that its new id is one of a rebalance.
            self.clients[0].up |= step == STATIC_BACK_AT;
            if step % 5 == 4 && step < 60 {
                self.commit();
                continue;
            }
            let turn = step % (self.clients.len() + 1);
            let moved = (0..=self.clients.len()).any(|next| match (turn + next) % (self.clients.len() + 1) {
                0 => self.flush(),
                at => self.act(at - 1),
            });
            if !moved {
                self.now_ms += 1_000;
                self.host.coordinator.handle_timeout(self.now_ms);
                self.take_answers();
            }
        }
        self.is_at_rest()
    }

    /// To the end, and everybody owns a part of the partitions.
    fn rest(&mut self) {
        assert!(self.go(STEPS_MAX), "not at rest: {:?}", self.clients);
        let mut owned = Vec::new();
        for client in self.clients.iter().filter(|client| client.up) {
            let Stage::Stable(partitions) = &client.stage else { unreachable!("at rest") };
            assert!(!partitions.is_empty(), "{} owns nothing", client.name);
            owned.extend_from_slice(partitions);
        }
        owned.sort_unstable();
        assert_eq!(owned, (0..PARTITIONS).collect::<Vec<u8>>(), "each partition has one owner");
    }

    fn found(&self) -> BTreeSet<Found> {
        let mut found = BTreeSet::new();
        for client in self.clients.iter().filter(|client| client.waits.is_some()) {
            match client.stage {
                Stage::Joining => found.insert(Found::ParkedJoin),
                Stage::Syncing(_) => found.insert(Found::ParkedSync),
                Stage::Stable(_) => false,
            };
        }
        for record in self.host.written.iter().flat_map(|(_, records)| records) {
            // Keys begin with their version: 2 for groups, 0 and 1 for offsets.
            found.insert(if record.key[..2] == [0, 2] {
                Found::UnflushedAssignment
            } else {
                Found::UnflushedCommit
            });
        }
        found
    }

    fn committed(&mut self) -> i64 {
        let group = OffsetFetchRequestGroup { group_id: GROUP.into(), topics: None, ..Default::default() };
        let call =
            self.clients[0].call(GroupRequest::FetchOffsets { group, require_stable: true }, Uuid::ZERO);
        self.host.coordinator.handle(PARTITION, call, RequestId(0), self.now_ms);
        self.host.drain(self.now_ms, || None);
        match self.host.replies.pop() {
            Some((_, GroupResponse::FetchOffsets(response))) => {
                assert_eq!(response.error_code, 0);
                let topic = response.topics.first();
                topic.map_or(0, |topic| topic.partitions[0].committed_offset)
            }
            other => panic!("{other:?} is no answer to a fetch at rest"),
        }
    }
}

/// Tells the story with the coordinator lost after so many steps, so many of its appends kept. What was under way then, and
/// how many appends could have been kept; none if the story was over before.
fn lose(with_static_member: bool, after: usize, kept: usize) -> Option<(BTreeSet<Found>, usize)> {
    let mut story = Story::new(with_static_member);
    if story.go(after) {
        return None;
    }
    let (found, appends) = (story.found(), story.host.written.len());
    story.host.crash(kept.min(appends), story.now_ms);
    story.take_answers();
    assert!(story.asked.is_empty(), "whoever waited is told to look for another coordinator");
    // Who asks while there is none is refused.
    for at in 0..story.clients.len() {
        story.act(at);
        assert!(story.asked.is_empty(), "nobody is parked where nothing is served");
    }
    story.host.load(story.now_ms);
    let known = story.acknowledged;
    assert!((known..=story.sent).contains(&story.committed()), "{known} is lost");
    story.rest();
    let committed = story.committed();
    assert!(
        committed >= story.acknowledged,
        "{committed} of {} after {after}, {kept} kept",
        story.acknowledged
    );
    Some((found, appends))
}

#[test]
fn a_rebalance_survives_a_crash_between_any_two_of_its_steps() {
    for with_static_member in [false, true] {
        let (mut seen, mut crashes) = (BTreeSet::new(), 0);
        for after in 0..STEPS_MAX {
            let Some((found, appends)) = lose(with_static_member, after, 0) else { break };
            seen.extend(found);
            for kept in 1..=appends {
                lose(with_static_member, after, kept);
            }
            crashes += 1 + appends;
        }
        let wanted =
            [Found::ParkedJoin, Found::ParkedSync, Found::UnflushedAssignment, Found::UnflushedCommit];
        assert_eq!(seen, BTreeSet::from(wanted), "something was under way at some crash");
        assert!(crashes > 20, "only {crashes} crashes");
    }
}
