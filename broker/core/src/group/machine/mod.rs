//! The groups and offsets of one partition of `__consumer_offsets`.
//!
//! Each API has a file. [`turn`] holds what they share: one group at a time, with the timers and the outbox.

mod admin;
mod heartbeat;
mod join;
mod leave;
mod load;
mod offsets;
mod rebalance;
mod returned;
mod sync;
mod turn;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use penstock_protocol::{ErrorCode, WireString};

use super::classic::ClassicGroup;
use super::config::GroupConfig;
use super::records::{GroupRecord, OffsetKey, OffsetValue};
use super::request::{GroupCall, GroupRequest, GroupResponse};
use crate::coordinator::{Machine, Origin, RequestId, Timers};
use offsets::Offsets;
use returned::Returned;
use turn::Turn;

pub(super) type Outbox = crate::coordinator::Outbox<GroupMachine>;

/// A machine under [`crate::coordinator`] for the groups of one partition.
#[derive(Clone, Debug)]
pub struct GroupMachine {
    config: Arc<GroupConfig>,
    groups: BTreeMap<WireString, ClassicGroup>,
    offsets: Offsets,
    timers: Timers<Timer>,
    /// Where the look for expired offsets goes on; `None` between two looks.
    expiry_cursor: Option<WireString>,
}

/// Everything that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A member, or one that was given an id, has not been heard of.
    Session { group: WireString, member: WireString },
    /// The join phase ends.
    Join { group: WireString },
    /// Members of a new generation have not asked for their assignment.
    Sync { group: WireString },
    /// The next look for expired offsets.
    Expiry,
}

/// Takes back the replay of a record of our own.
#[derive(Clone, Debug)]
pub enum Undo {
    /// The offset was this before. A group that exists because of it alone goes again.
    Offset {
        /// Which offset.
        key: OffsetKey,
        /// What it was.
        previous: Option<OffsetValue>,
        /// The record made the group.
        made_group: bool,
    },
    /// The group was removed.
    Group(Box<RemovedGroup>),
}

/// A removed group, kept until its removal is durable.
#[derive(Clone, Debug)]
pub struct RemovedGroup(ClassicGroup);

/// How to go on after an append.
#[derive(Clone, Debug)]
pub enum Resume {
    /// An empty group was written for the first time.
    Created(WireString),
    /// A leader's assignment was written.
    Assigned {
        /// The group.
        group: WireString,
        /// The generation it is meant for.
        generation: i32,
        /// Assignments by member id.
        assignments: BTreeMap<WireString, Bytes>,
    },
    /// A static member came back under another id.
    Returned(Box<ReturnedMember>),
}

/// A static member's return that is not durable yet.
#[derive(Clone, Debug)]
pub struct ReturnedMember(Returned);

impl GroupMachine {
    /// A machine before any record.
    pub fn new(config: Arc<GroupConfig>) -> GroupMachine {
        GroupMachine {
            config,
            groups: BTreeMap::new(),
            offsets: Offsets::default(),
            timers: Timers::default(),
            expiry_cursor: None,
        }
    }

    /// Groups, by state name: for metrics.
    pub fn group_states(&self) -> BTreeMap<WireString, usize> {
        let mut counts = BTreeMap::new();
        for group in self.groups.values() {
            *counts.entry(group.state.name()).or_insert(0) += 1;
        }
        counts
    }

    /// Committed offsets of all groups.
    pub fn offsets_len(&self) -> usize {
        self.offsets.len()
    }

    /// The committed offset, durable or on its way.
    pub fn offset(&self, key: &OffsetKey) -> Option<&OffsetValue> {
        self.offsets.get(key)
    }

    /// One group with what it needs to act.
    fn turn<'a>(&'a mut self, group: &WireString, now_ms: i64, out: &'a mut Outbox) -> Option<Turn<'a>> {
        let group = self.groups.get_mut(group)?;
        Some(Turn { group, timers: &mut self.timers, config: &self.config, now_ms, out })
    }

    /// Removes a group with no members, and its timers. Ids that it has given out are void.
    fn remove_group(&mut self, id: &WireString) -> Option<ClassicGroup> {
        let mut group = self.groups.remove(id)?;
        for member in std::mem::take(&mut group.pending_joins) {
            self.timers.cancel(&Timer::Session { group: id.clone(), member });
        }
        self.timers.cancel(&Timer::Join { group: id.clone() });
        self.timers.cancel(&Timer::Sync { group: id.clone() });
        Some(group)
    }

    /// Removes a group of which nothing was written and which nobody has joined.
    fn remove_if_void(&mut self, id: &WireString) {
        let Some(group) = self.groups.get(id) else { return };
        if group.members.is_empty() && group.generation == 0 && self.offsets.of_group(id).is_none() {
            self.remove_group(id);
        }
    }
}

impl Machine for GroupMachine {
    type Request = GroupCall;
    type Response = GroupResponse;
    type Record = GroupRecord;
    type Undo = Undo;
    type Resume = Resume;

    fn handle(&mut self, call: GroupCall, to: RequestId, now_ms: i64, out: &mut Outbox) {
        let GroupCall { caller, request } = call;
        match request {
            GroupRequest::Join(request) => self.join(&caller, &request, to, (now_ms, out)),
            GroupRequest::Sync(request) => self.sync(&caller, request, to, (now_ms, out)),
            GroupRequest::Heartbeat(request) => self.heartbeat(&request, to, (now_ms, out)),
            GroupRequest::Leave(request) => self.leave(&caller, request, to, (now_ms, out)),
            GroupRequest::Describe(group_id) => self.describe(&caller, group_id, to, out),
            GroupRequest::List(request) => self.list(&request, to, out),
            GroupRequest::Delete(group_id) => self.delete(&group_id, to, out),
            GroupRequest::CommitOffsets(request) => self.commit_offsets(&caller, &request, to, (now_ms, out)),
            GroupRequest::FetchOffsets { group, .. } => self.fetch_offsets(group, to, out),
            GroupRequest::DeleteOffsets(request) => self.delete_offsets(&request, to, out),
            GroupRequest::TopicsDeleted(topics) => self.topics_deleted(&topics, to, out),
        }
    }

    fn refuse(call: &GroupCall, code: ErrorCode) -> GroupResponse {
        call.request.refuse(&call.caller, code)
    }

    fn replay(&mut self, record: &GroupRecord, origin: Origin, now_ms: i64) -> Option<Undo> {
        match record {
            GroupRecord::Offset(key, value) => Some(self.replay_offset(key, value.as_ref(), now_ms)),
            GroupRecord::Group(id, None) => {
                let removed = self.remove_group(id)?;
                Some(Undo::Group(Box::new(RemovedGroup(removed))))
            }
            GroupRecord::Group(id, Some(value)) => {
                // What we write ourselves is what the group's soft state is already.
                if origin == Origin::Log {
                    let id = id.detached();
                    self.groups.insert(id.clone(), ClassicGroup::from_record(id, value));
                }
                None
            }
        }
    }

    fn revert(&mut self, undo: Undo) {
        match undo {
            Undo::Offset { key, previous, made_group } => {
                self.offsets.set(&key, previous);
                if made_group {
                    self.remove_if_void(&key.group);
                }
            }
            Undo::Group(removed) => {
                let RemovedGroup(mut group) = *removed;
                match self.groups.get_mut(&group.id) {
                    // Members have joined meanwhile under this name: their group stays.
                    Some(later) if !later.members.is_empty() => {}
                    Some(later) => {
                        std::mem::swap(&mut group.pending_joins, &mut later.pending_joins);
                        *later = group;
                    }
                    None => {
                        self.groups.insert(group.id.clone(), group);
                    }
                }
            }
        }
    }

    fn resume(&mut self, resume: Resume, result: Result<(), ErrorCode>, now_ms: i64, out: &mut Outbox) {
        match resume {
            Resume::Created(group) => {
                if result.is_err() {
                    self.remove_if_void(&group);
                }
            }
            Resume::Assigned { group, generation, assignments } => {
                if let Some(mut turn) = self.turn(&group, now_ms, out) {
                    turn.assigned(generation, &assignments, result);
                }
            }
            Resume::Returned(member) => {
                let ReturnedMember(returned) = *member;
                if let Some(mut turn) = self.turn(&returned.group.clone(), now_ms, out) {
                    turn.returned(returned, result);
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<i64> {
        self.timers.next()
    }

    fn handle_timeout(&mut self, now_ms: i64, out: &mut Outbox) {
        while let Some(timer) = self.timers.take_due(now_ms) {
            match timer {
                Timer::Session { group, member } => {
                    if let Some(mut turn) = self.turn(&group, now_ms, out) {
                        turn.session_expired(&member);
                    }
                }
                Timer::Join { group } => {
                    if let Some(mut turn) = self.turn(&group, now_ms, out) {
                        turn.join_timer_ended();
                    }
                }
                Timer::Sync { group } => {
                    if let Some(mut turn) = self.turn(&group, now_ms, out) {
                        turn.sync_timer_ended();
                    }
                }
                Timer::Expiry => {
                    self.expire_offsets(now_ms, out);
                    // The next step is due at once or much later: either way it gets a turn of its own.
                    return;
                }
            }
        }
    }

    fn loaded(&mut self, now_ms: i64, out: &mut Outbox) {
        self.start(now_ms, out);
    }

    fn unload(&mut self, code: ErrorCode, out: &mut Outbox) {
        self.stop(code, out);
    }
}
