//! Heartbeat (12), versions 0-4: KIP-345 (static members, 3).

use penstock_protocol::ErrorCode;
use penstock_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::super::classic::State;
use super::super::request::GroupResponse;
use super::{GroupMachine, Outbox, Turn};
use crate::coordinator::RequestId;

impl GroupMachine {
    pub(super) fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        to: RequestId,
        (now_ms, out): (i64, &mut Outbox),
    ) {
        let code = if request.group_id.is_empty() {
            ErrorCode::InvalidGroupId
        } else {
            match self.turn(&request.group_id, now_ms, out) {
                Some(mut turn) => turn.heartbeat(request).err().unwrap_or(ErrorCode::None),
                None => ErrorCode::UnknownMemberId,
            }
        };
        let response = HeartbeatResponse { error_code: code.code(), ..Default::default() };
        out.answer(to, GroupResponse::Heartbeat(response));
    }
}

impl Turn<'_> {
    fn heartbeat(&mut self, request: &HeartbeatRequest) -> Result<(), ErrorCode> {
        self.group.validate(&request.member_id, request.group_instance_id.as_ref())?;
        self.group.note_alive(&request.member_id);
        if request.generation_id != self.group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        self.heard_of(&request.member_id);
        match self.group.state {
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }
}
