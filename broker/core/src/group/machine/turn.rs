//! One group at work: its state, the timers, and where answers go.

use penstock_protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::super::classic::ClassicGroup;
use super::super::config::GroupConfig;
use super::super::member::{Member, Parked};
use super::super::request::{GroupResponse, join_refused};
use super::{Outbox, Timer};
use crate::coordinator::Timers;

/// How long a member's first JoinGroup may be parked: its client cannot send heartbeats before the answer, so that a
/// member that is gone would stay for good. As in Apache Kafka.
pub(super) const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;

pub(super) struct Turn<'a> {
    pub(super) group: &'a mut ClassicGroup,
    pub(super) timers: &'a mut Timers<Timer>,
    pub(super) config: &'a GroupConfig,
    pub(super) now_ms: i64,
    pub(super) out: &'a mut Outbox,
}

impl Turn<'_> {
    pub(super) fn answer_join(&mut self, parked: Parked, response: JoinGroupResponse) {
        self.out.answer(parked.to, GroupResponse::Join(response));
    }

    pub(super) fn refuse_join(&mut self, parked: Parked, member_id: &WireString, code: ErrorCode) {
        self.answer_join(parked, join_refused(parked.version, member_id.clone(), code));
    }

    pub(super) fn refuse_sync(&mut self, parked: Parked, code: ErrorCode) {
        let response = SyncGroupResponse { error_code: code.code(), ..Default::default() };
        self.out.answer(parked.to, GroupResponse::Sync(response));
    }

    /// Parks a join. One that waited already belongs to a connection that is gone.
    pub(super) fn park_join(&mut self, member_id: &WireString, parked: Parked) {
        if let Some(old) = self.group.park_join(member_id, parked) {
            self.refuse_join(old, member_id, ErrorCode::RebalanceInProgress);
        }
    }

    /// Parks a sync, as [`Turn::park_join`] does.
    pub(super) fn park_sync(&mut self, member_id: &WireString, parked: Parked) {
        let Some(member) = self.group.members.get_mut(member_id) else { return };
        if let Some(old) = member.parked_sync.replace(parked) {
            self.refuse_sync(old, ErrorCode::RebalanceInProgress);
        }
    }

    /// Removes a member or a given id, its timer, and answers what it had parked with UNKNOWN_MEMBER_ID, so that a client
    /// that is still there joins anew.
    pub(super) fn remove(&mut self, member_id: &WireString) -> Option<Member> {
        self.timers.cancel(&self.session(member_id));
        let member = self.group.remove(member_id)?;
        if let Some(parked) = member.parked_join {
            self.refuse_join(parked, &WireString::default(), ErrorCode::UnknownMemberId);
        }
        if let Some(parked) = member.parked_sync {
            self.refuse_sync(parked, ErrorCode::UnknownMemberId);
        }
        Some(member)
    }

    /// The member's timer. It takes the id from the group: a request's would keep the request's buffer alive.
    fn session(&self, member_id: &WireString) -> Timer {
        let own = self.group.members.get_key_value(member_id).map(|(own, _)| own);
        Timer::Session { group: self.group.id.clone(), member: own.unwrap_or(member_id).clone() }
    }

    /// The member has to be heard of within `timeout_ms`.
    pub(super) fn expect_within(&mut self, member_id: &WireString, timeout_ms: i64) {
        self.timers.set(self.session(member_id), self.now_ms.saturating_add(timeout_ms));
    }

    /// The member was heard of: its session begins anew.
    pub(super) fn heard_of(&mut self, member_id: &WireString) {
        if let Some(member) = self.group.members.get(member_id) {
            let timeout_ms = i64::from(member.offer.session_timeout_ms);
            self.expect_within(member_id, timeout_ms);
        }
    }

    pub(super) fn set_join_timer(&mut self, timeout_ms: i64) {
        let timer = Timer::Join { group: self.group.id.clone() };
        self.timers.set(timer, self.now_ms.saturating_add(timeout_ms.max(1)));
    }

    pub(super) fn set_sync_timer(&mut self, timeout_ms: i64) {
        let timer = Timer::Sync { group: self.group.id.clone() };
        self.timers.set(timer, self.now_ms.saturating_add(timeout_ms.max(1)));
    }

    pub(super) fn cancel_join_timer(&mut self) {
        self.timers.cancel(&Timer::Join { group: self.group.id.clone() });
    }

    pub(super) fn cancel_sync_timer(&mut self) {
        self.timers.cancel(&Timer::Sync { group: self.group.id.clone() });
    }
}
