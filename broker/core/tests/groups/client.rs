//! A consumer as simple as can be: it joins, assigns if it leads, syncs, sends heartbeats, and begins anew where it is told.

use bytes::Bytes;
use penstock_core::group::{Caller, GroupCall, GroupRequest, GroupResponse};
use penstock_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use penstock_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use penstock_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use penstock_protocol::{ErrorCode, Uuid, WireString};

/// Partitions that a leader deals out.
pub(crate) const PARTITIONS: u8 = 12;
pub(crate) const SESSION_TIMEOUT_MS: i32 = 10_000;
pub(crate) const REBALANCE_TIMEOUT_MS: i32 = 20_000;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stage {
    /// It has to send JoinGroup.
    Joining,
    /// It has to send SyncGroup, with this assignment if it leads.
    Syncing(Vec<SyncGroupRequestAssignment>),
    /// It owns partitions.
    Stable(Bytes),
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) instance_id: Option<WireString>,
    pub(crate) version: i16,
    pub(crate) up: bool,
    pub(crate) member_id: WireString,
    pub(crate) generation: i32,
    pub(crate) stage: Stage,
    /// The request it waits for, and until when.
    pub(crate) waits: Option<(u64, i64)>,
    pub(crate) heartbeat_due_ms: i64,
}

impl Client {
    pub(crate) fn new(name: &str, is_static: bool, version: i16) -> Client {
        Client {
            name: name.to_owned(),
            instance_id: is_static.then(|| WireString::from(name)),
            version,
            up: true,
            member_id: WireString::default(),
            generation: -1,
            stage: Stage::Joining,
            waits: None,
            heartbeat_due_ms: 0,
        }
    }

    /// The process dies and knows nothing afterwards.
    pub(crate) fn crash(&mut self) {
        *self = Client { up: false, ..Client::new(&self.name, self.instance_id.is_some(), self.version) };
    }

    /// Who owns what this client owns: a static member's lives are one.
    pub(crate) fn owner(&self) -> String {
        match &self.instance_id {
            Some(instance_id) => instance_id.to_string(),
            None => self.member_id.to_string(),
        }
    }

    pub(crate) fn call(&self, request: GroupRequest, fresh_id: Uuid) -> GroupCall {
        let client_id = WireString::from(self.name.as_str());
        let client_host = WireString::from("/127.0.0.1");
        // JoinGroup's versions stand for all of this client's.
        let version = match &request {
            GroupRequest::Sync(_) | GroupRequest::Leave(_) => self.version.min(5),
            GroupRequest::Heartbeat(_) => self.version.min(4),
            _ => self.version,
        };
        GroupCall { caller: Caller { version, client_id, client_host, fresh_id }, request }
    }

    /// What the client sends next, and how long it waits for the answer.
    pub(crate) fn next_request(&self, group: &str, now_ms: i64) -> Option<(GroupRequest, i64)> {
        let group_id = WireString::from(group);
        let (member_id, group_instance_id) = (self.member_id.clone(), self.instance_id.clone());
        match &self.stage {
            Stage::Joining => {
                let protocol = |name: &str| JoinGroupRequestProtocol {
                    name: WireString::from(name),
                    metadata: Bytes::from_static(&[0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 0]),
                };
                let request = JoinGroupRequest {
                    group_id,
                    session_timeout_ms: SESSION_TIMEOUT_MS,
                    rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
                    member_id,
                    group_instance_id,
                    protocol_type: WireString::from("consumer"),
                    protocols: vec![protocol("range"), protocol("roundrobin")],
                    ..Default::default()
                };
                // Impatient where it cannot leave a member behind: then it asks again while the first request is parked.
                let patience_ms = if self.member_id.is_empty() { 6 * 60_000 } else { 15_000 };
                Some((GroupRequest::Join(request), patience_ms))
            }
            Stage::Syncing(assignments) => {
                let request = SyncGroupRequest {
                    group_id,
                    generation_id: self.generation,
                    member_id,
                    group_instance_id,
                    protocol_type: Some(WireString::from("consumer")),
                    protocol_name: Some(WireString::from("range")),
                    assignments: assignments.clone(),
                };
                Some((GroupRequest::Sync(request), 30_000))
            }
            Stage::Stable(_) if now_ms >= self.heartbeat_due_ms => {
                let generation_id = self.generation;
                let request = HeartbeatRequest { group_id, generation_id, member_id, group_instance_id };
                Some((GroupRequest::Heartbeat(request), 30_000))
            }
            Stage::Stable(_) => None,
        }
    }

    pub(crate) fn leave_request(&self, group: &str) -> GroupRequest {
        use penstock_protocol::messages::leave_group_request::MemberIdentity;
        let member = MemberIdentity {
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            reason: Some(WireString::from("the consumer is being closed")),
        };
        let group_id = WireString::from(group);
        GroupRequest::Leave(LeaveGroupRequest { group_id, members: vec![member], ..Default::default() })
    }

    /// Takes an answer. True if it brought an assignment.
    pub(crate) fn take(&mut self, response: GroupResponse, now_ms: i64) -> bool {
        match response {
            GroupResponse::Join(response) => self.take_join(response),
            GroupResponse::Sync(response) => {
                let code = ErrorCode::from_code(response.error_code);
                if code == ErrorCode::None {
                    self.stage = Stage::Stable(response.assignment);
                    self.heartbeat_due_ms = now_ms + 3_000;
                    return true;
                }
                self.begin_anew(code);
            }
            GroupResponse::Heartbeat(response) => {
                let code = ErrorCode::from_code(response.error_code);
                self.heartbeat_due_ms = now_ms + 3_000;
                if code != ErrorCode::None && !code.is_retriable() || code == ErrorCode::RebalanceInProgress {
                    self.begin_anew(code);
                }
            }
            _ => {}
        }
        false
    }

    fn take_join(&mut self, response: JoinGroupResponse) {
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                self.generation = response.generation_id;
                let leads = response.leader == response.member_id;
                self.member_id = response.member_id;
                let members: Vec<_> = response.members.into_iter().map(|member| member.member_id).collect();
                let deal = leads && !response.skip_assignment;
                assert!(!deal || members.contains(&self.member_id), "a leader is told of all members");
                self.stage = Stage::Syncing(if deal { dealt(&members) } else { Vec::new() });
            }
            ErrorCode::MemberIdRequired => self.member_id = response.member_id,
            code => self.begin_anew(code),
        }
    }

    fn begin_anew(&mut self, code: ErrorCode) {
        // Real clients give up then, for good. A former life of this client never asks again.
        assert_ne!(code, ErrorCode::FencedInstanceId, "{} is fenced, and has no rival", self.name);
        if code == ErrorCode::UnknownMemberId {
            self.member_id = WireString::default();
        }
        if !matches!(code, ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable)
            || !matches!(self.stage, Stage::Stable(_))
        {
            self.generation = -1;
            self.stage = Stage::Joining;
        }
    }
}

/// Deals the partitions out, one to each member in turn.
fn dealt(members: &[WireString]) -> Vec<SyncGroupRequestAssignment> {
    let of = |at: usize| {
        (0..PARTITIONS).filter(|partition| usize::from(*partition) % members.len() == at).collect()
    };
    let assigned = |(at, member_id): (usize, &WireString)| SyncGroupRequestAssignment {
        member_id: member_id.clone(),
        assignment: of(at),
    };
    members.iter().enumerate().map(assigned).collect()
}
