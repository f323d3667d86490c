//! From one generation to the next: who has joined, how long is waited for the others, who leads.

use bytes::Bytes;
use penstock_protocol::{ErrorCode, WireString};

use super::super::classic::{JoinTimer, State};
use super::super::records::GroupRecord;
use super::Turn;

/// How soon at the earliest a group whose members are all absent is looked at again.
const ABSENT_RETRY_MS_MIN: i64 = 1_000;

impl Turn<'_> {
    /// Something changed: a rebalance begins, or the one under way may be complete.
    pub(super) fn rebalance(&mut self) {
        if self.group.state == State::PreparingRebalance {
            self.maybe_complete_join();
        } else {
            self.prepare_rebalance();
        }
    }

    /// Has all members join anew. An empty group waits for a while first: members of an application start together
    /// (KIP-134).
    pub(super) fn prepare_rebalance(&mut self) {
        if self.group.state == State::CompletingRebalance {
            self.end_syncs(ErrorCode::RebalanceInProgress);
        }
        self.group.assigning = None;
        self.group.pending_syncs.clear();
        self.cancel_sync_timer();
        let is_first = self.group.state == State::Empty;
        self.group.transition(State::PreparingRebalance, self.now_ms);
        if is_first {
            let delay_ms = self.config.initial_rebalance_delay_ms;
            let remaining_ms = (self.group.rebalance_timeout_ms() - delay_ms).max(0);
            self.group.new_member_added = false;
            self.group.join_timer = JoinTimer::Initial { delay_ms, remaining_ms };
            self.set_join_timer(delay_ms);
        } else if self.group.has_all_joined() {
            self.complete_join();
        } else {
            self.await_joins();
        }
    }

    fn await_joins(&mut self) {
        self.group.join_timer = JoinTimer::Deadline;
        self.set_join_timer(self.group.rebalance_timeout_ms());
    }

    /// Ends the join phase if nobody is missing; a first rebalance ends by its timer alone.
    pub(super) fn maybe_complete_join(&mut self) {
        let gathers = self.group.state == State::PreparingRebalance && self.group.previous != State::Empty;
        if gathers && self.group.has_all_joined() {
            self.complete_join();
        }
    }

    pub(super) fn join_timer_ended(&mut self) {
        match self.group.join_timer {
            JoinTimer::Initial { delay_ms, remaining_ms }
                if self.group.new_member_added && remaining_ms > 0 =>
            {
                self.group.new_member_added = false;
                let next_ms = self.config.initial_rebalance_delay_ms.min(remaining_ms);
                let remaining_ms = (remaining_ms - delay_ms).max(0);
                self.group.join_timer = JoinTimer::Initial { delay_ms: next_ms, remaining_ms };
                self.set_join_timer(next_ms);
            }
            JoinTimer::Initial { .. } | JoinTimer::Deadline => self.complete_join(),
        }
    }

    /// Ends the join phase: dynamic members that have not joined are out, static ones stay until their session ends, and
    /// those that have joined are told of the generation.
    fn complete_join(&mut self) {
        if self.group.state != State::PreparingRebalance {
            return;
        }
        self.cancel_join_timer();
        let absent = self.group.members.iter().filter(|(_, member)| member.parked_join.is_none());
        let absent: Vec<WireString> =
            absent.filter(|(_, member)| member.instance_id.is_none()).map(|(id, _)| id.clone()).collect();
        for id in &absent {
            self.remove(id);
        }
        if !self.group.elect_joined_leader() && !self.group.members.is_empty() {
            // Static members alone, none of which has joined: their sessions end, or they come back.
            return self.set_join_timer(self.group.rebalance_timeout_ms().max(ABSENT_RETRY_MS_MIN));
        }
        self.group.next_generation(self.now_ms);
        if self.group.state == State::Empty {
            let value = self.group.to_record(|_, _| Bytes::new());
            let record = GroupRecord::Group(self.group.id.clone(), Some(value));
            // If this cannot be written, the members of the last generation come back when the log is loaded, and their
            // sessions end soon after.
            return self.out.write(vec![record], None, None);
        }
        let ids: Vec<WireString> = self.group.members.keys().cloned().collect();
        for id in &ids {
            if let Some(parked) = self.group.take_join(id) {
                let response = self.joined(id, self.group.is_leader(id));
                self.answer_join(parked, response);
            }
            if let Some(member) = self.group.members.get_mut(id) {
                member.is_new = false;
            }
            self.heard_of(id);
            self.group.pending_syncs.insert(id.clone());
        }
        self.set_sync_timer(self.group.rebalance_timeout_ms());
    }

    /// Members that did not ask for their assignment in time are out.
    pub(super) fn sync_timer_ended(&mut self) {
        if !matches!(self.group.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        let absent = std::mem::take(&mut self.group.pending_syncs);
        if absent.is_empty() {
            return;
        }
        for id in &absent {
            self.remove(id);
        }
        self.prepare_rebalance();
    }

    /// A member, or one that was given an id, was not heard of in time.
    pub(super) fn session_expired(&mut self, id: &WireString) {
        if self.group.pending_joins.contains(id) {
            self.remove(id);
            if self.group.state == State::PreparingRebalance && self.group.has_all_joined() {
                self.complete_join();
            }
            return;
        }
        let Some(member) = self.group.members.get(id) else { return };
        if member.waits_for_us() {
            // Its session begins anew with the answer.
            return;
        }
        self.remove(id);
        match self.group.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(),
            State::PreparingRebalance if self.group.has_all_joined() => self.complete_join(),
            State::PreparingRebalance | State::Empty => {}
        }
    }
}
