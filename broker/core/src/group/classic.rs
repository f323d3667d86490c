//! The state of one classic group, and the rules that concern nothing else.
//!
//! Invariants: `supported` counts members by protocol they offer; `joins_parked` counts members with a parked join; a
//! leader is a member; `static_members` names members that have this instance id.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use penstock_protocol::messages::ConsumerProtocolSubscription;
use penstock_protocol::messages::join_group_response::JoinGroupResponseMember;
use penstock_protocol::{Decoder, ErrorCode, Message, WireString};

use super::member::{Member, Offer, Parked};
use super::records::{GroupValue, MemberValue};

/// The protocol type of Kafka's consumers.
const CONSUMER: &str = "consumer";

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Members are to join anew.
    PreparingRebalance,
    /// All have joined; the leader's assignment is awaited.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
}

impl State {
    /// As DescribeGroups and ListGroups tell it.
    pub(super) fn name(self) -> WireString {
        WireString::from_static(match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        })
    }
}

/// What the timer of the join phase stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinTimer {
    /// The end of the phase.
    Deadline,
    /// The end of a delay before the first rebalance, and what may be waited besides if more members come (KIP-134).
    Initial { delay_ms: i64, remaining_ms: i64 },
}

#[derive(Clone, Debug)]
pub(super) struct ClassicGroup {
    pub(super) id: WireString,
    pub(super) state: State,
    pub(super) previous: State,
    pub(super) since_ms: Option<i64>,
    pub(super) protocol_type: Option<WireString>,
    pub(super) protocol: Option<WireString>,
    pub(super) generation: i32,
    pub(super) leader: Option<WireString>,
    pub(super) members: BTreeMap<WireString, Member>,
    /// Member ids by instance id.
    pub(super) static_members: BTreeMap<WireString, WireString>,
    /// Ids given out with MEMBER_ID_REQUIRED that have not come back (KIP-394).
    pub(super) pending_joins: BTreeSet<WireString>,
    /// Members of this generation that have not sent SyncGroup.
    pub(super) pending_syncs: BTreeSet<WireString>,
    /// Topics of all members; `None` where that is not known.
    pub(super) subscribed: Option<BTreeSet<WireString>>,
    pub(super) new_member_added: bool,
    pub(super) join_timer: JoinTimer,
    /// The generation whose assignment is on its way to the log.
    pub(super) assigning: Option<i32>,
    joins_parked: usize,
    supported: BTreeMap<WireString, usize>,
}

impl ClassicGroup {
    pub(super) fn new(id: WireString, now_ms: i64) -> ClassicGroup {
        ClassicGroup {
            id,
            state: State::Empty,
            previous: State::Empty,
            since_ms: Some(now_ms),
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            subscribed: None,
            new_member_added: false,
            join_timer: JoinTimer::Deadline,
            assigning: None,
            joins_parked: 0,
            supported: BTreeMap::new(),
        }
    }

    /// The group that a record tells of: stable with members, empty without.
    pub(super) fn from_record(id: WireString, value: &GroupValue) -> ClassicGroup {
        let mut group = ClassicGroup::new(id, value.since_ms);
        group.since_ms = Some(value.since_ms).filter(|since_ms| *since_ms != -1);
        group.generation = value.generation;
        group.protocol_type =
            Some(value.protocol_type.detached()).filter(|protocol_type| !protocol_type.is_empty());
        group.protocol = value.protocol.as_ref().map(WireString::detached);
        for member in &value.members {
            group.add_recorded(member);
        }
        let leader = value.leader.as_ref().map(WireString::detached);
        if let Some(leader) = leader.filter(|leader| group.members.contains_key(leader)) {
            group.leader = Some(leader);
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        group.subscribed = group.subscriptions();
        group
    }

    fn add_recorded(&mut self, value: &MemberValue) {
        let session_timeout_ms = value.session_timeout_ms;
        let rebalance_timeout_ms =
            if value.rebalance_timeout_ms == -1 { session_timeout_ms } else { value.rebalance_timeout_ms };
        let metadata = Bytes::copy_from_slice(&value.subscription);
        let name = self.protocol.clone().unwrap_or_default();
        let protocols = vec![super::member::Protocol { name, metadata }];
        let member = Member {
            instance_id: value.instance_id.as_ref().map(WireString::detached),
            client_id: value.client_id.detached(),
            client_host: value.client_host.detached(),
            offer: Offer { rebalance_timeout_ms, session_timeout_ms, protocols },
            assignment: Bytes::copy_from_slice(&value.assignment),
            parked_join: None,
            parked_sync: None,
            is_new: false,
            is_hearsay: true,
        };
        self.remove(&value.member_id);
        self.add(value.member_id.detached(), member);
    }

    /// What is written of the group. `assignment_of` gives each member's, because a leader's assignment is written
    /// before members have it.
    pub(super) fn to_record(&self, assignment_of: impl Fn(&WireString, &Member) -> Bytes) -> GroupValue {
        let member = |(id, member): (&WireString, &Member)| MemberValue {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.offer.rebalance_timeout_ms,
            session_timeout_ms: member.offer.session_timeout_ms,
            subscription: self.metadata(member),
            assignment: assignment_of(id, member),
        };
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since_ms: self.since_ms.unwrap_or(-1),
            members: self.members.iter().map(member).collect(),
        }
    }

    pub(super) fn transition(&mut self, to: State, now_ms: i64) {
        let allowed = match to {
            State::Empty | State::CompletingRebalance => self.state == State::PreparingRebalance,
            State::PreparingRebalance => self.state != State::PreparingRebalance,
            State::Stable => self.state == State::CompletingRebalance,
        };
        assert!(allowed, "a group never goes from {:?} to {to:?}", self.state);
        self.previous = self.state;
        self.state = to;
        self.since_ms = Some(now_ms);
    }

    pub(super) fn is_leader(&self, member_id: &WireString) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    /// Adds a member. The first of a group gives it its protocol type.
    pub(super) fn add(&mut self, id: WireString, member: Member) {
        assert!(member.parked_join.is_none(), "joins are parked once the member is there");
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.count_protocols(&member.offer, true);
        self.pending_joins.remove(&id);
        let old = self.members.insert(id, member);
        assert!(old.is_none(), "a member is added once");
    }

    /// Removes a member, or an id that was given out. The caller answers what the member had parked.
    pub(super) fn remove(&mut self, id: &WireString) -> Option<Member> {
        self.pending_joins.remove(id);
        self.pending_syncs.remove(id);
        let member = self.members.remove(id)?;
        self.count_protocols(&member.offer, false);
        self.joins_parked -= usize::from(member.parked_join.is_some());
        if let Some(instance_id) = &member.instance_id
            && self.static_members.get(instance_id) == Some(id)
        {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Gives a static member another id. It keeps its place and, if it leads, the lead (KIP-345, KIP-814).
    pub(super) fn rename(&mut self, old_id: &WireString, new_id: &WireString) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        member.is_hearsay = false;
        if self.pending_syncs.remove(old_id) {
            self.pending_syncs.insert(new_id.clone());
        }
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), new_id.clone());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        self.members.insert(new_id.clone(), member);
    }

    /// Replaces what a member offers, and says what it offered before.
    pub(super) fn set_offer(&mut self, id: &WireString, offer: Offer) -> Option<Offer> {
        self.count_protocols(&offer, true);
        let old = std::mem::replace(&mut self.members.get_mut(id)?.offer, offer);
        self.count_protocols(&old, false);
        Some(old)
    }

    fn count_protocols(&mut self, offer: &Offer, more: bool) {
        let names: BTreeSet<&WireString> = offer.protocols.iter().map(|protocol| &protocol.name).collect();
        for name in names {
            if more {
                *self.supported.entry(name.clone()).or_insert(0) += 1;
            } else if let Some(count) = self.supported.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.supported.remove(name);
                }
            }
        }
    }

    /// Parks a member's join and gives back one that waited already.
    pub(super) fn park_join(&mut self, id: &WireString, parked: Parked) -> Option<Parked> {
        let member = self.members.get_mut(id)?;
        let old = member.parked_join.replace(parked);
        self.joins_parked += usize::from(old.is_none());
        old
    }

    pub(super) fn take_join(&mut self, id: &WireString) -> Option<Parked> {
        let parked = self.members.get_mut(id)?.parked_join.take()?;
        self.joins_parked -= 1;
        Some(parked)
    }

    pub(super) fn take_sync(&mut self, id: &WireString) -> Option<Parked> {
        self.members.get_mut(id)?.parked_sync.take()
    }

    pub(super) fn joins_parked(&self) -> usize {
        self.joins_parked
    }

    pub(super) fn has_all_joined(&self) -> bool {
        self.joins_parked == self.members.len() && self.pending_joins.is_empty()
    }

    /// The longest rebalance timeout of a member.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        let longest = self.members.values().map(|member| member.offer.rebalance_timeout_ms).max();
        i64::from(longest.unwrap_or(0).max(0))
    }

    /// Whether a member with this offer fits: it shares the type and a protocol with all members.
    pub(super) fn supports(&self, protocol_type: &str, offer: &Offer) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !offer.protocols.is_empty();
        }
        let shared = |name: &WireString| self.supported.get(name).copied().unwrap_or(0) == self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type)
            && offer.protocols.iter().any(|protocol| shared(&protocol.name))
    }

    /// The protocol that most members like best among those they all have; of equals, the first by name.
    pub(super) fn select_protocol(&self) -> Option<WireString> {
        let shared = |name: &WireString| self.supported.get(name) == Some(&self.members.len());
        let mut votes: BTreeMap<&WireString, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.offer.protocols.iter().map(|protocol| &protocol.name).find(|name| shared(name));
            *votes.entry(vote?).or_insert(0) += 1;
        }
        let most = *votes.values().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    /// Makes sure the leader is a member that has joined. False where none has.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let joined = |member: &Member| member.parked_join.is_some();
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        if leader.is_some_and(joined) {
            return true;
        }
        match self.members.iter().find(|(_, member)| joined(member)) {
            Some((id, _)) => {
                self.leader = Some(id.clone());
                true
            }
            None => false,
        }
    }

    /// The next generation begins; without members the group is empty.
    pub(super) fn next_generation(&mut self, now_ms: i64) {
        self.generation = self.generation.wrapping_add(1).max(0);
        self.protocol = self.select_protocol();
        self.subscribed = self.subscriptions();
        let state = if self.members.is_empty() { State::Empty } else { State::CompletingRebalance };
        self.transition(state, now_ms);
        self.pending_syncs.clear();
    }

    fn metadata(&self, member: &Member) -> Bytes {
        let protocol = self.protocol.as_deref();
        protocol.and_then(|protocol| member.offer.metadata(protocol)).cloned().unwrap_or_default()
    }

    /// What a leader is told of the members.
    pub(super) fn members_for_leader(&self) -> Vec<JoinGroupResponseMember> {
        let told = |(id, member): (&WireString, &Member)| JoinGroupResponseMember {
            member_id: id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: self.metadata(member),
        };
        self.members.iter().map(told).collect()
    }

    /// Checks that a member is who it says (KIP-345).
    ///
    /// A static member is told its new id before the rebalance that it came back in is written. If the coordinator is lost
    /// in between, the log names the former id, and nobody has taken the place of who asks with the newer one. Fenced, a
    /// consumer gives up for good; unknown, it joins anew, and its instance id makes it who it was. So, until the member
    /// that the log names is heard of, nobody is fenced for it.
    pub(super) fn validate(
        &self,
        member_id: &WireString,
        instance_id: Option<&WireString>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(existing) if existing != member_id => {
                    let is_hearsay = self.members.get(existing).is_some_and(|member| member.is_hearsay);
                    let code =
                        if is_hearsay { ErrorCode::UnknownMemberId } else { ErrorCode::FencedInstanceId };
                    return Err(code);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// The member asked for something under its id.
    pub(super) fn note_alive(&mut self, member_id: &WireString) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.is_hearsay = false;
        }
    }

    pub(super) fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// Whether a member reads the topic. Where that is not known, consumers might.
    pub(super) fn is_subscribed(&self, topic: &WireString) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer(),
        }
    }

    /// Topics in the subscriptions of a consumer group, in the form that every version of them begins with.
    fn subscriptions(&self) -> Option<BTreeSet<WireString>> {
        if !self.is_consumer() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        self.protocol.as_ref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let metadata = self.metadata(member);
            if metadata.len() < 2 {
                return None;
            }
            let mut decoder = Decoder::new(metadata.slice(2..));
            let subscription = ConsumerProtocolSubscription::decode(&mut decoder, 0).ok()?;
            topics.extend(subscription.topics.iter().map(WireString::detached));
        }
        Some(topics)
    }
}
