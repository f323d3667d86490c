//! What happens around a machine's life: after loading, and at its end.

use penstock_protocol::{ErrorCode, WireString};

use super::super::classic::{ClassicGroup, State};
use super::{GroupMachine, Outbox, Timer};

impl GroupMachine {
    /// Timers start: every member gets a whole session to be heard of.
    pub(super) fn start(&mut self, now_ms: i64, out: &mut Outbox) {
        for id in self.offsets.groups().cloned().collect::<Vec<WireString>>() {
            let group = || ClassicGroup::new(id.clone(), now_ms);
            self.groups.entry(id.clone()).or_insert_with(group);
        }
        for id in self.groups.keys().cloned().collect::<Vec<WireString>>() {
            let Some(mut turn) = self.turn(&id, now_ms, out) else { continue };
            for member in turn.group.members.keys().cloned().collect::<Vec<WireString>>() {
                turn.heard_of(&member);
            }
            // The largest size allowed may have become smaller: the last ones to join again have to go.
            if turn.group.members.len() > turn.config.members_max && turn.group.state == State::Stable {
                turn.prepare_rebalance();
            }
        }
        self.timers.set(Timer::Expiry, now_ms.saturating_add(self.config.offsets_check_interval_ms));
    }

    /// Answers every parked request.
    pub(super) fn stop(&mut self, code: ErrorCode, out: &mut Outbox) {
        for id in self.groups.keys().cloned().collect::<Vec<WireString>>() {
            let Some(mut turn) = self.turn(&id, 0, out) else { continue };
            for member in turn.group.members.keys().cloned().collect::<Vec<WireString>>() {
                if let Some(parked) = turn.group.take_join(&member) {
                    turn.refuse_join(parked, &member, code);
                }
                if let Some(parked) = turn.group.take_sync(&member) {
                    turn.refuse_sync(parked, code);
                }
            }
        }
    }
}
