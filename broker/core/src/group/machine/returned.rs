//! A static member that comes back without its id: another life of the same instance (KIP-345, KIP-814).

use penstock_protocol::{ErrorCode, WireString};

use super::super::classic::State;
use super::super::member::{Offer, Parked};
use super::super::records::GroupRecord;
use super::super::request::append_error;
use super::{Resume, ReturnedMember, Turn};

/// From this version on a leader can be told that it need not assign.
const SKIP_ASSIGNMENT_FROM: i16 = 9;

/// A return whose record is on its way to the log.
#[derive(Clone, Debug)]
pub(super) struct Returned {
    pub(super) group: WireString,
    old_id: WireString,
    new_id: WireString,
    old_offer: Offer,
    old_leader: WireString,
    parked: Parked,
}

impl Turn<'_> {
    /// Gives the member its new id and fences the old one. In a stable group whose protocol stays the same, nothing else
    /// changes: the new id is written, and the member goes on with the old one's assignment.
    pub(super) fn static_member_returns(
        &mut self,
        old_id: &WireString,
        new_id: WireString,
        offer: Offer,
        parked: Parked,
    ) {
        if let Some(old) = self.group.take_join(old_id) {
            self.refuse_join(old, old_id, ErrorCode::FencedInstanceId);
        }
        if let Some(old) = self.group.take_sync(old_id) {
            self.refuse_sync(old, ErrorCode::FencedInstanceId);
        }
        let old_leader = self.group.leader.clone().unwrap_or_default();
        self.rename(old_id, &new_id);
        let Some(old_offer) = self.group.set_offer(&new_id, offer) else { return };
        self.park_join(&new_id, parked);
        match self.group.state {
            State::Stable if self.group.select_protocol() == self.group.protocol => {
                let value = self.group.to_record(|_, member| member.assignment.clone());
                let group = self.group.id.clone();
                let record = GroupRecord::Group(group.clone(), Some(value));
                let old_id = old_id.clone();
                let returned = Returned { group, old_id, new_id, old_offer, old_leader, parked };
                let resume = Resume::Returned(Box::new(ReturnedMember(returned)));
                self.out.write(vec![record], None, Some(resume));
            }
            // In CompletingRebalance the leader may have assigned to the old id already.
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(),
            State::PreparingRebalance | State::Empty => self.maybe_complete_join(),
        }
    }

    fn rename(&mut self, old_id: &WireString, new_id: &WireString) {
        self.timers.cancel(&super::Timer::Session { group: self.group.id.clone(), member: old_id.clone() });
        self.group.rename(old_id, new_id);
        self.heard_of(new_id);
    }

    /// The new id is written, or it is not and the old one holds again.
    pub(super) fn returned(&mut self, returned: Returned, result: Result<(), ErrorCode>) {
        let Returned { new_id, old_id, old_offer, old_leader, parked, .. } = returned;
        let waits = self.group.members.get(&new_id).is_some_and(|member| member.parked_join == Some(parked));
        if !waits {
            // Gone meanwhile, or come back once more: that one's record decides.
            return;
        }
        match result {
            // A rebalance that began meanwhile answers this join.
            Ok(()) if self.group.state != State::Stable => {}
            Ok(()) => {
                self.group.take_join(&new_id);
                let skips = parked.version >= SKIP_ASSIGNMENT_FROM && self.group.is_leader(&new_id);
                let mut response = self.joined(&new_id, skips);
                response.skip_assignment = skips;
                if parked.version < SKIP_ASSIGNMENT_FROM {
                    // Told the old leader's id, a leader takes itself for a follower and does not assign.
                    response.leader = old_leader;
                }
                self.answer_join(parked, response);
                self.heard_of(&new_id);
            }
            Err(code) => {
                self.group.take_join(&new_id);
                self.refuse_join(parked, &WireString::default(), append_error(code));
                self.group.set_offer(&new_id, old_offer);
                self.rename(&new_id, &old_id);
                self.maybe_complete_join();
            }
        }
    }
}
