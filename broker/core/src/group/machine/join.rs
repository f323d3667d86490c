//! JoinGroup (11), versions 0-9: KIP-62 (rebalance timeout, 1), 345 (static members, 5), 394 (MEMBER_ID_REQUIRED, 4),
//! 800 (reasons, 8), 814 (skipped assignment, 9).

use bytes::Bytes;
use penstock_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use super::super::classic::{ClassicGroup, State};
use super::super::member::{Member, Offer, Parked};
use super::super::records::{GroupRecord, GroupValue, NAME_LEN_MAX};
use super::super::request::{Caller, GroupResponse, join_refused};
use super::turn::NEW_MEMBER_JOIN_TIMEOUT_MS;
use super::{GroupMachine, Outbox, Resume, Turn};
use crate::coordinator::RequestId;

/// From this version on a new member gets an id and has to come back with it (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// A hyphen and a UUID, which make a member id of a client id.
const MEMBER_ID_SUFFIX_LEN: usize = 37;

impl GroupMachine {
    pub(super) fn join(
        &mut self,
        caller: &Caller,
        request: &JoinGroupRequest,
        to: RequestId,
        (now_ms, out): (i64, &mut Outbox),
    ) {
        let parked = Parked { to, version: caller.version };
        let mut refuse = |code| {
            let response = join_refused(caller.version, request.member_id.clone(), code);
            out.answer(to, GroupResponse::Join(response));
        };
        if let Err(code) = self.admit(caller, request) {
            return refuse(code);
        }
        let group_id = &request.group_id;
        let offer = Offer::of(request, caller.version);
        let is_new = !self.groups.contains_key(group_id);
        if is_new {
            let group = ClassicGroup::new(group_id.detached(), now_ms);
            if !request.member_id.is_empty() {
                return refuse(ErrorCode::UnknownMemberId);
            }
            if self.groups.len() >= self.config.groups_max {
                return refuse(ErrorCode::PolicyViolation);
            }
            if !group.supports(&request.protocol_type, &offer) {
                return refuse(ErrorCode::InconsistentGroupProtocol);
            }
            self.groups.insert(group.id.clone(), group);
        }
        let Some(mut turn) = self.turn(group_id, now_ms, out) else { return };
        if request.member_id.is_empty() {
            turn.join_new(caller, request, offer, parked);
        } else {
            turn.join_existing(caller, request, offer, parked);
        }
        if is_new && !turn.out.has_writes() {
            let record = GroupRecord::Group(turn.group.id.clone(), Some(void_group(now_ms)));
            let resume = Resume::Created(turn.group.id.clone());
            turn.out.write(vec![record], None, Some(resume));
        }
    }

    /// What is wrong with a request whatever the group.
    fn admit(&self, caller: &Caller, request: &JoinGroupRequest) -> Result<(), ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let range = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        if !range.contains(&request.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let instance_id = request.group_instance_id.as_deref().unwrap_or_default();
        let names = [&*request.group_id, &*request.protocol_type, instance_id, &*caller.client_id];
        let protocols = request.protocols.iter().map(|protocol| protocol.name.len());
        let longest = names.iter().map(|name| name.len()).chain(protocols).max().unwrap_or(0);
        if longest + MEMBER_ID_SUFFIX_LEN > NAME_LEN_MAX || caller.client_host.len() > NAME_LEN_MAX {
            return Err(ErrorCode::PolicyViolation);
        }
        // A protocol costs memory even where it says nothing.
        const PROTOCOL_LEN: usize = 64;
        let names_len = instance_id.len() + caller.client_id.len() + caller.client_host.len();
        let protocols = request.protocols.iter();
        let offered = protocols.map(|offer| PROTOCOL_LEN + offer.name.len() + offer.metadata.len());
        if names_len + offered.sum::<usize>() > self.config.member_bytes_max {
            return Err(ErrorCode::PolicyViolation);
        }
        Ok(())
    }
}

/// A group of which nothing is known but that it exists.
fn void_group(now_ms: i64) -> GroupValue {
    GroupValue {
        protocol_type: WireString::default(),
        generation: 0,
        protocol: None,
        leader: None,
        since_ms: now_ms,
        members: Vec::new(),
    }
}

/// A UUID as Java prints it.
fn member_id(prefix: &str, id: Uuid) -> WireString {
    let bits = u128::from_be_bytes(*id.as_bytes());
    let part = |shift: u32, digits: u32| (bits >> shift) & ((1 << (4 * digits)) - 1);
    WireString::from(format!(
        "{prefix}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    ))
}

impl Turn<'_> {
    fn join_new(&mut self, caller: &Caller, request: &JoinGroupRequest, offer: Offer, parked: Parked) {
        if !self.has_room(&WireString::default()) {
            return self.refuse_join(parked, &WireString::default(), ErrorCode::GroupMaxSizeReached);
        }
        if !self.group.supports(&request.protocol_type, &offer) {
            return self.refuse_join(parked, &WireString::default(), ErrorCode::InconsistentGroupProtocol);
        }
        if let Some(instance_id) = &request.group_instance_id {
            let id = member_id(instance_id, caller.fresh_id);
            match self.group.static_members.get(instance_id).cloned() {
                Some(existing) => self.static_member_returns(&existing, id, offer, parked),
                None => self.add_member(caller, request, (id, offer), parked),
            }
            return;
        }
        let id = member_id(&caller.client_id, caller.fresh_id);
        if caller.version < MEMBER_ID_REQUIRED_FROM {
            return self.add_member(caller, request, (id, offer), parked);
        }
        if self.group.pending_joins.len() >= self.config.pending_members_max {
            return self.refuse_join(parked, &WireString::default(), ErrorCode::GroupMaxSizeReached);
        }
        self.group.pending_joins.insert(id.clone());
        self.expect_within(&id, i64::from(request.session_timeout_ms));
        self.refuse_join(parked, &id, ErrorCode::MemberIdRequired);
    }

    fn join_existing(&mut self, caller: &Caller, request: &JoinGroupRequest, offer: Offer, parked: Parked) {
        let id = &request.member_id;
        if !self.has_room(id) {
            self.remove(id);
            self.refuse_join(parked, &WireString::default(), ErrorCode::GroupMaxSizeReached);
            return self.maybe_complete_join();
        }
        if !self.group.supports(&request.protocol_type, &offer) {
            return self.refuse_join(parked, id, ErrorCode::InconsistentGroupProtocol);
        }
        if self.group.pending_joins.contains(id) {
            if request.group_instance_id.is_some() {
                // Ids are given out to dynamic members alone.
                return self.refuse_join(parked, id, ErrorCode::UnknownMemberId);
            }
            return self.add_member(caller, request, (id.detached(), offer), parked);
        }
        if let Err(code) = self.group.validate(id, request.group_instance_id.as_ref()) {
            return self.refuse_join(parked, id, code);
        }
        self.group.note_alive(id);
        let same = self.group.members.get(id).is_some_and(|member| member.offer.protocols == offer.protocols);
        match self.group.state {
            State::PreparingRebalance => self.rejoin(id, offer, parked),
            // The answer to its last JoinGroup may have been lost.
            State::CompletingRebalance if same => self.tell_generation(id, parked),
            State::CompletingRebalance => self.rejoin(id, offer, parked),
            // A leader joins again when what it assigns has changed, for example the number of partitions.
            State::Stable if self.group.is_leader(id) || !same => self.rejoin(id, offer, parked),
            State::Stable => self.tell_generation(id, parked),
            State::Empty => self.refuse_join(parked, id, ErrorCode::UnknownMemberId),
        }
    }

    /// Whether the member may join as far as `group.max.size` goes. While a rebalance gathers members, the ones that have
    /// joined count: the group may be too large already, and then the last ones to join have to go.
    fn has_room(&self, id: &WireString) -> bool {
        let group = &*self.group;
        match group.state {
            State::Empty => true,
            State::PreparingRebalance => {
                let joined = group.members.get(id).is_some_and(|member| member.parked_join.is_some());
                joined || group.joins_parked() < self.config.members_max
            }
            State::CompletingRebalance | State::Stable => {
                group.members.contains_key(id) || group.members.len() < self.config.members_max
            }
        }
    }

    fn add_member(
        &mut self,
        caller: &Caller,
        request: &JoinGroupRequest,
        (id, offer): (WireString, Offer),
        parked: Parked,
    ) {
        let member = Member {
            instance_id: request.group_instance_id.as_ref().map(WireString::detached),
            client_id: caller.client_id.detached(),
            client_host: caller.client_host.detached(),
            offer,
            assignment: Bytes::new(),
            parked_join: None,
            parked_sync: None,
            is_new: true,
            is_hearsay: false,
        };
        if self.group.state == State::PreparingRebalance && self.group.previous == State::Empty {
            self.group.new_member_added = true;
        }
        if self.group.members.is_empty() {
            self.group.protocol_type = Some(request.protocol_type.detached());
        }
        self.group.add(id.clone(), member);
        self.park_join(&id, parked);
        self.expect_within(&id, NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.rebalance();
    }

    fn rejoin(&mut self, id: &WireString, offer: Offer, parked: Parked) {
        self.group.set_offer(id, offer);
        self.park_join(id, parked);
        self.rebalance();
    }

    /// Answers with the generation as it is.
    fn tell_generation(&mut self, id: &WireString, parked: Parked) {
        let leads = self.group.state == State::CompletingRebalance && self.group.is_leader(id);
        let response = self.joined(id, leads);
        self.answer_join(parked, response);
    }

    /// What a member of the generation is told.
    pub(super) fn joined(&self, id: &WireString, with_members: bool) -> JoinGroupResponse {
        JoinGroupResponse {
            generation_id: self.group.generation,
            protocol_type: self.group.protocol_type.clone(),
            protocol_name: Some(self.group.protocol.clone().unwrap_or_default()),
            leader: self.group.leader.clone().unwrap_or_default(),
            member_id: id.clone(),
            members: if with_members { self.group.members_for_leader() } else { Vec::new() },
            ..JoinGroupResponse::default()
        }
    }
}
