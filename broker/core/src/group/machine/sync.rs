//! SyncGroup (14), versions 0-5: KIP-345 (static members, 3), 559 (protocol type and name, 5).

use std::collections::BTreeMap;

use bytes::Bytes;
use penstock_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::super::classic::State;
use super::super::member::Parked;
use super::super::records::GroupRecord;
use super::super::request::{Caller, GroupResponse, append_error};
use super::{GroupMachine, Outbox, Resume, Turn};
use crate::coordinator::RequestId;

/// From this version on a member has to name protocol type and protocol.
const PROTOCOL_NAMED_FROM: i16 = 5;

impl GroupMachine {
    pub(super) fn sync(
        &mut self,
        caller: &Caller,
        request: SyncGroupRequest,
        to: RequestId,
        (now_ms, out): (i64, &mut Outbox),
    ) {
        let parked = Parked { to, version: caller.version };
        let named = request.protocol_type.is_some() && request.protocol_name.is_some();
        let code = if caller.version >= PROTOCOL_NAMED_FROM && !named {
            ErrorCode::InconsistentGroupProtocol
        } else if request.group_id.is_empty() {
            ErrorCode::InvalidGroupId
        } else if let Some(mut turn) = self.turn(&request.group_id, now_ms, out) {
            return turn.sync(request, parked);
        } else {
            ErrorCode::UnknownMemberId
        };
        let response = SyncGroupResponse { error_code: code.code(), ..Default::default() };
        out.answer(to, GroupResponse::Sync(response));
    }
}

impl Turn<'_> {
    fn sync(&mut self, request: SyncGroupRequest, parked: Parked) {
        if let Err(code) = self.may_sync(&request) {
            return self.refuse_sync(parked, code);
        }
        let id = &request.member_id;
        self.group.note_alive(id);
        match self.group.state {
            State::Empty => self.refuse_sync(parked, ErrorCode::UnknownMemberId),
            State::PreparingRebalance => self.refuse_sync(parked, ErrorCode::RebalanceInProgress),
            State::CompletingRebalance => {
                self.has_synced(id);
                self.park_sync(id, parked);
                // A leader that repeats its SyncGroup waits for the first one's record.
                if self.group.is_leader(id) && self.group.assigning.is_none() {
                    self.write_assignment(&request);
                }
            }
            State::Stable => {
                self.has_synced(id);
                self.tell_assignment(id, parked);
            }
        }
    }

    fn may_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.group.validate(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |named: &Option<WireString>, own: &Option<WireString>| {
            named.is_some() && own.is_some() && named != own
        };
        if differs(&request.protocol_type, &self.group.protocol_type)
            || differs(&request.protocol_name, &self.group.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let too_large = |assignment: &Bytes| assignment.len() > self.config.member_bytes_max;
        if request.assignments.iter().any(|assigned| too_large(&assigned.assignment)) {
            return Err(ErrorCode::PolicyViolation);
        }
        Ok(())
    }

    fn has_synced(&mut self, id: &WireString) {
        self.group.pending_syncs.remove(id);
        if self.group.pending_syncs.is_empty() {
            self.cancel_sync_timer();
        }
    }

    fn tell_assignment(&mut self, id: &WireString, parked: Parked) {
        let assignment = self.group.members.get(id).map(|member| member.assignment.clone());
        let response = SyncGroupResponse {
            protocol_type: self.group.protocol_type.clone(),
            protocol_name: self.group.protocol.clone(),
            assignment: assignment.unwrap_or_default(),
            ..SyncGroupResponse::default()
        };
        self.out.answer(parked.to, GroupResponse::Sync(response));
    }

    /// Writes what the leader assigned. Members get it once it is durable; who is left out gets nothing to read.
    fn write_assignment(&mut self, request: &SyncGroupRequest) {
        let assigned = request.assignments.iter();
        let assigned = assigned.filter(|assigned| self.group.members.contains_key(&assigned.member_id));
        let assignments: BTreeMap<WireString, Bytes> = assigned
            .map(|assigned| (assigned.member_id.detached(), Bytes::copy_from_slice(&assigned.assignment)))
            .collect();
        let value = self.group.to_record(|id, _| assignments.get(id).cloned().unwrap_or_default());
        let group = self.group.id.clone();
        let generation = self.group.generation;
        self.group.assigning = Some(generation);
        let record = GroupRecord::Group(group.clone(), Some(value));
        self.out.write(vec![record], None, Some(Resume::Assigned { group, generation, assignments }));
    }

    /// The assignment is written, or it is not and all join anew. If the group has gone on meanwhile, neither matters.
    pub(super) fn assigned(
        &mut self,
        generation: i32,
        assignments: &BTreeMap<WireString, Bytes>,
        result: Result<(), ErrorCode>,
    ) {
        if self.group.state != State::CompletingRebalance || self.group.assigning != Some(generation) {
            return;
        }
        self.group.assigning = None;
        if let Err(code) = result {
            self.end_syncs(append_error(code));
            return self.prepare_rebalance();
        }
        for (id, member) in &mut self.group.members {
            member.assignment = assignments.get(id).cloned().unwrap_or_default();
        }
        self.group.transition(State::Stable, self.now_ms);
        let ids: Vec<WireString> = self.group.members.keys().cloned().collect();
        for id in &ids {
            if let Some(parked) = self.group.take_sync(id) {
                self.tell_assignment(id, parked);
                // A session that ended while the member waited was let pass.
                self.heard_of(id);
            }
        }
    }

    /// Answers all parked syncs with an error; assignments are void.
    pub(super) fn end_syncs(&mut self, code: ErrorCode) {
        let ids: Vec<WireString> = self.group.members.keys().cloned().collect();
        for id in &ids {
            if let Some(parked) = self.group.take_sync(id) {
                self.refuse_sync(parked, code);
                self.heard_of(id);
            }
            if let Some(member) = self.group.members.get_mut(id) {
                member.assignment = Bytes::new();
            }
        }
    }
}
