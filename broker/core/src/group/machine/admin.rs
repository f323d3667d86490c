//! DescribeGroups (15), ListGroups (16) and DeleteGroups (42), one group or partition at a time.
//!
//! Sources: KIP-229 (DeleteGroups), 518 (states), 848 (types), 1043 (GROUP_ID_NOT_FOUND from DescribeGroups 6).

use penstock_protocol::messages::delete_groups_response::DeletableGroupResult;
use penstock_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use penstock_protocol::messages::list_groups_response::ListedGroup;
use penstock_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::super::classic::{ClassicGroup, State};
use super::super::member::Member;
use super::super::records::GroupRecord;
use super::super::request::{Caller, GroupResponse};
use super::{GroupMachine, Outbox};
use crate::coordinator::RequestId;

/// From this version on a group that is not there is an error and not merely dead.
const NOT_FOUND_FROM: i16 = 6;
/// Groups of the protocol that [`ClassicGroup`] speaks.
const CLASSIC: &str = "Classic";

impl GroupMachine {
    pub(super) fn describe(&self, caller: &Caller, group_id: WireString, to: RequestId, out: &mut Outbox) {
        let described = match self.groups.get(&group_id) {
            Some(group) => describe_group(group),
            None => {
                let mut dead = DescribedGroup { group_state: "Dead".into(), ..Default::default() };
                if caller.version >= NOT_FOUND_FROM {
                    dead.error_code = ErrorCode::GroupIdNotFound.code();
                    dead.error_message = Some(WireString::from(format!("Group {group_id} not found.")));
                }
                DescribedGroup { group_id, ..dead }
            }
        };
        out.answer_when_durable(to, GroupResponse::Describe(described));
    }

    pub(super) fn list(&self, request: &ListGroupsRequest, to: RequestId, out: &mut Outbox) {
        let wanted = |filter: &[WireString], name: &str| {
            filter.is_empty() || filter.iter().any(|one| one.trim().eq_ignore_ascii_case(name))
        };
        let groups = self.groups.values();
        let groups = groups.filter(|group| wanted(&request.states_filter, &group.state.name()));
        let groups = groups.filter(|_| wanted(&request.types_filter, CLASSIC)).map(|group| ListedGroup {
            group_id: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            group_state: group.state.name(),
            group_type: WireString::from_static(CLASSIC),
        });
        let response = ListGroupsResponse { groups: groups.collect(), ..Default::default() };
        out.answer_when_durable(to, GroupResponse::List(response));
    }

    pub(super) fn delete(&self, group_id: &WireString, to: RequestId, out: &mut Outbox) {
        let code = match self.groups.get(group_id) {
            None => ErrorCode::GroupIdNotFound,
            Some(group) if group.state != State::Empty => ErrorCode::NonEmptyGroup,
            Some(_) => ErrorCode::None,
        };
        let result = DeletableGroupResult {
            group_id: group_id.clone(),
            error_code: code.code(),
            ..Default::default()
        };
        let answer = (to, GroupResponse::Delete(result));
        if code != ErrorCode::None {
            return out.answer_when_durable(answer.0, answer.1);
        }
        let mut records = self.offsets.tombstones(group_id);
        records.push(GroupRecord::Group(group_id.detached(), None));
        super::offsets::write_in_parts(records, Some(answer), out);
    }
}

fn describe_group(group: &ClassicGroup) -> DescribedGroup {
    let stable = group.state == State::Stable;
    let metadata = |member: &Member| {
        let protocol = group.protocol.as_deref().filter(|_| stable)?;
        member.offer.metadata(protocol).cloned()
    };
    let member = |(id, member): (&WireString, &Member)| DescribedGroupMember {
        member_id: id.clone(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: metadata(member).unwrap_or_default(),
        member_assignment: member.assignment.clone(),
    };
    DescribedGroup {
        group_id: group.id.clone(),
        group_state: group.state.name(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        protocol_data: group.protocol.clone().filter(|_| stable).unwrap_or_default(),
        members: group.members.iter().map(member).collect(),
        ..DescribedGroup::default()
    }
}
