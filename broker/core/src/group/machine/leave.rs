//! LeaveGroup (13), versions 0-5: KIP-345 (several members, by instance id too, 3), 800 (reasons, 5).

use penstock_protocol::messages::leave_group_request::MemberIdentity;
use penstock_protocol::messages::leave_group_response::MemberResponse;
use penstock_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::super::classic::State;
use super::super::request::{Caller, GroupResponse};
use super::{GroupMachine, Outbox, Turn};
use crate::coordinator::RequestId;

/// From this version on a request names several members, and the answer tells of each.
const MEMBERS_FROM: i16 = 3;

impl GroupMachine {
    pub(super) fn leave(
        &mut self,
        caller: &Caller,
        request: LeaveGroupRequest,
        to: RequestId,
        (now_ms, out): (i64, &mut Outbox),
    ) {
        if request.group_id.is_empty() {
            let error_code = ErrorCode::InvalidGroupId.code();
            let response = LeaveGroupResponse { error_code, ..Default::default() };
            return out.answer(to, GroupResponse::Leave(response));
        }
        let members = if caller.version < MEMBERS_FROM {
            vec![MemberIdentity { member_id: request.member_id, ..Default::default() }]
        } else {
            request.members
        };
        let mut responses = Vec::with_capacity(members.len());
        match self.turn(&request.group_id, now_ms, out) {
            Some(mut turn) => {
                responses.extend(members.iter().map(|member| left(member, turn.leave(member))));
                if responses.iter().any(|response| response.error_code == 0) {
                    turn.go_on_without_them();
                }
            }
            None => {
                let unknown = Err(ErrorCode::UnknownMemberId);
                responses.extend(members.iter().map(|member| left(member, unknown)));
            }
        }
        let response = if caller.version < MEMBERS_FROM {
            let error_code = responses.first().map_or(0, |response| response.error_code);
            LeaveGroupResponse { error_code, ..Default::default() }
        } else {
            LeaveGroupResponse { members: responses, ..Default::default() }
        };
        let response = GroupResponse::Leave(response);
        if out.has_writes() { out.answer_when_durable(to, response) } else { out.answer(to, response) }
    }
}

fn left(member: &MemberIdentity, result: Result<(), ErrorCode>) -> MemberResponse {
    MemberResponse {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        error_code: result.err().unwrap_or(ErrorCode::None).code(),
    }
}

impl Turn<'_> {
    /// Removes one member; an operator names a static one by its instance id alone.
    fn leave(&mut self, member: &MemberIdentity) -> Result<(), ErrorCode> {
        let id: WireString = if member.member_id.is_empty() {
            let instance_id = member.group_instance_id.as_ref().ok_or(ErrorCode::UnknownMemberId)?;
            self.group.static_members.get(instance_id).cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else {
            member.member_id.clone()
        };
        if !self.group.pending_joins.contains(&id) {
            self.group.validate(&id, member.group_instance_id.as_ref())?;
        }
        self.remove(&id);
        Ok(())
    }

    fn go_on_without_them(&mut self) {
        match self.group.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(),
            State::PreparingRebalance => self.maybe_complete_join(),
            State::Empty => {}
        }
    }
}
