//! Offsets that nobody needs any more, and groups that are left with nothing (KIP-211).
//!
//! An offset expires `offsets.retention.minutes` after the group became empty, or, where the group has no members of its
//! own or does not read the topic, after the commit. Commits that named a retention time expire by it.

use std::ops::Bound;

use penstock_protocol::WireString;

use super::super::super::classic::{ClassicGroup, State};
use super::super::super::records::{GroupRecord, OffsetValue};
use super::super::{GroupMachine, Outbox, Timer};
use super::{tombstone, write_in_parts};

/// Groups looked at in one step, so that a look over many does not hold up requests.
const GROUPS_PER_STEP: usize = 1_000;

/// Since when an offset's retention runs.
enum Since {
    Commit,
    Moment(i64),
}

impl GroupMachine {
    /// One step of a look over all groups; the next one is due at once, or in the next interval.
    pub(in super::super) fn expire_offsets(&mut self, now_ms: i64, out: &mut Outbox) {
        let from = self.expiry_cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut records = Vec::new();
        let mut last = None;
        for (id, group) in self.groups.range((from, Bound::Unbounded)).take(GROUPS_PER_STEP) {
            let nothing_left = self.expire_of(group, now_ms, &mut records);
            if nothing_left && group.state == State::Empty && group.pending_joins.is_empty() {
                records.push(GroupRecord::Group(id.clone(), None));
            }
            last = Some(id.clone());
        }
        let more = last.filter(|last| {
            self.groups.range::<WireString, _>((Bound::Excluded(last), Bound::Unbounded)).next().is_some()
        });
        let pause_ms = if more.is_some() { 1 } else { self.config.offsets_check_interval_ms };
        self.expiry_cursor = more;
        self.timers.set(Timer::Expiry, now_ms.saturating_add(pause_ms));
        write_in_parts(records, None, out);
    }

    /// Adds tombstones for a group's expired offsets, and says whether none are left.
    fn expire_of(&self, group: &ClassicGroup, now_ms: i64, records: &mut Vec<GroupRecord>) -> bool {
        let Some(offsets) = self.offsets.of_group(&group.id) else { return true };
        let Some(since) = retention_since(group) else { return false };
        let mut nothing_left = true;
        for (topic, partitions) in offsets.topics() {
            let subscribed = group.is_subscribed(topic);
            for (partition, value) in partitions {
                if !subscribed && self.is_expired(value, &since, now_ms) {
                    records.push(tombstone(&group.id, topic, *partition));
                } else {
                    nothing_left = false;
                }
            }
        }
        nothing_left
    }

    fn is_expired(&self, value: &OffsetValue, since: &Since, now_ms: i64) -> bool {
        if value.expire_ms != -1 {
            return now_ms >= value.expire_ms;
        }
        let since_ms = match since {
            Since::Commit => value.commit_ms,
            Since::Moment(since_ms) => *since_ms,
        };
        now_ms.saturating_sub(since_ms) >= self.config.offsets_retention_ms
    }
}

/// From when on a group's offsets may expire; `None` keeps them all.
fn retention_since(group: &ClassicGroup) -> Option<Since> {
    if group.protocol_type.is_none() {
        return Some(Since::Commit);
    }
    match group.state {
        State::Empty => Some(group.since_ms.map_or(Since::Commit, Since::Moment)),
        State::Stable if group.is_consumer() && group.subscribed.is_some() => Some(Since::Commit),
        State::Stable | State::PreparingRebalance | State::CompletingRebalance => None,
    }
}
