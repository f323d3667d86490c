//! What the coordinator is asked, one group at a time, and what it answers.

use penstock_protocol::messages::delete_groups_response::DeletableGroupResult;
use penstock_protocol::messages::describe_groups_response::DescribedGroup;
use penstock_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use penstock_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use penstock_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use super::api::offset_fetch;
use crate::coordinator::Refusable;

/// Who asks, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// Version of the request.
    pub version: i16,
    /// Client id; empty where there is none.
    pub client_id: WireString,
    /// The client's address as Java prints it: `/127.0.0.1`.
    pub client_host: WireString,
    /// A fresh random id, from which a new member's id is made.
    pub fresh_id: Uuid,
}

/// A request with who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupCall {
    /// Who asks.
    pub caller: Caller,
    /// What for.
    pub request: GroupRequest,
}

/// What the coordinator of a partition is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRequest {
    /// JoinGroup.
    Join(JoinGroupRequest),
    /// SyncGroup.
    Sync(SyncGroupRequest),
    /// Heartbeat.
    Heartbeat(HeartbeatRequest),
    /// LeaveGroup.
    Leave(LeaveGroupRequest),
    /// One group of DescribeGroups.
    Describe(WireString),
    /// ListGroups, for the groups of this partition.
    List(ListGroupsRequest),
    /// One group of DeleteGroups.
    Delete(WireString),
    /// OffsetCommit; every topic has its name, and its id where one is known.
    CommitOffsets(OffsetCommitRequest),
    /// One group of OffsetFetch.
    FetchOffsets {
        /// The group and its topics, with names; no topics at all ask for every one.
        group: OffsetFetchRequestGroup,
        /// Answers are the same without transactions.
        require_stable: bool,
    },
    /// OffsetDelete, for topics that exist.
    DeleteOffsets(OffsetDeleteRequest),
    /// These topics, by name and id, were deleted: their offsets go.
    TopicsDeleted(Vec<(WireString, Uuid)>),
}

/// What a [`GroupRequest`] of the same name is answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupResponse {
    /// To JoinGroup.
    Join(JoinGroupResponse),
    /// To SyncGroup.
    Sync(SyncGroupResponse),
    /// To Heartbeat.
    Heartbeat(HeartbeatResponse),
    /// To LeaveGroup.
    Leave(LeaveGroupResponse),
    /// To one group of DescribeGroups.
    Describe(DescribedGroup),
    /// To ListGroups.
    List(ListGroupsResponse),
    /// To one group of DeleteGroups.
    Delete(DeletableGroupResult),
    /// To OffsetCommit.
    CommitOffsets(OffsetCommitResponse),
    /// To one group of OffsetFetch.
    FetchOffsets(OffsetFetchResponseGroup),
    /// To OffsetDelete.
    DeleteOffsets(OffsetDeleteResponse),
    /// The offsets of deleted topics are gone, or there is an error and they may not be.
    TopicsDeleted(ErrorCode),
}

impl GroupRequest {
    /// The answer that refuses all of it.
    pub(super) fn refuse(&self, caller: &Caller, code: ErrorCode) -> GroupResponse {
        let error_code = code.code();
        match self {
            GroupRequest::Join(request) => {
                GroupResponse::Join(join_refused(caller.version, request.member_id.clone(), code))
            }
            GroupRequest::Sync(_) => {
                GroupResponse::Sync(SyncGroupResponse { error_code, ..Default::default() })
            }
            // A group that is still loading keeps its members: their heartbeats count as heard.
            GroupRequest::Heartbeat(_) if code == ErrorCode::CoordinatorLoadInProgress => {
                GroupResponse::Heartbeat(HeartbeatResponse::default())
            }
            GroupRequest::Heartbeat(_) => {
                GroupResponse::Heartbeat(HeartbeatResponse { error_code, ..Default::default() })
            }
            GroupRequest::Leave(_) => {
                GroupResponse::Leave(LeaveGroupResponse { error_code, ..Default::default() })
            }
            GroupRequest::Describe(group_id) => GroupResponse::Describe(DescribedGroup {
                error_code,
                group_id: group_id.clone(),
                ..Default::default()
            }),
            GroupRequest::List(_) => {
                GroupResponse::List(ListGroupsResponse { error_code, ..Default::default() })
            }
            GroupRequest::Delete(group_id) => GroupResponse::Delete(DeletableGroupResult {
                error_code,
                group_id: group_id.clone(),
                ..Default::default()
            }),
            GroupRequest::CommitOffsets(request) => {
                GroupResponse::CommitOffsets(super::api::offset_commit::refused(request, code))
            }
            GroupRequest::FetchOffsets { group, .. } => {
                GroupResponse::FetchOffsets(offset_fetch::refused(group, caller.version, code))
            }
            GroupRequest::DeleteOffsets(_) => {
                GroupResponse::DeleteOffsets(OffsetDeleteResponse { error_code, ..Default::default() })
            }
            GroupRequest::TopicsDeleted(_) => GroupResponse::TopicsDeleted(code),
        }
    }
}

/// A refused JoinGroup. Its protocol name may be null only from version 7.
pub(super) fn join_refused(version: i16, member_id: WireString, code: ErrorCode) -> JoinGroupResponse {
    let protocol_name = if version < 7 { Some(WireString::default()) } else { None };
    JoinGroupResponse { error_code: code.code(), member_id, protocol_name, ..Default::default() }
}

/// Appending failed for a reason of the log's: what a client of the coordinator makes of it.
pub(super) fn append_error(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::NotEnoughReplicas | ErrorCode::RequestTimedOut => {
            ErrorCode::CoordinatorNotAvailable
        }
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}

impl Refusable for GroupResponse {
    fn refused(self, code: ErrorCode) -> GroupResponse {
        let code = append_error(code);
        let error_code = code.code();
        match self {
            GroupResponse::Join(response) => GroupResponse::Join(JoinGroupResponse {
                error_code,
                generation_id: -1,
                protocol_name: response.protocol_name.map(|_| WireString::default()),
                member_id: response.member_id,
                ..Default::default()
            }),
            GroupResponse::Sync(_) => {
                GroupResponse::Sync(SyncGroupResponse { error_code, ..Default::default() })
            }
            GroupResponse::Heartbeat(_) => {
                GroupResponse::Heartbeat(HeartbeatResponse { error_code, ..Default::default() })
            }
            GroupResponse::Leave(_) => {
                GroupResponse::Leave(LeaveGroupResponse { error_code, ..Default::default() })
            }
            GroupResponse::Describe(group) => GroupResponse::Describe(DescribedGroup {
                error_code,
                group_id: group.group_id,
                ..Default::default()
            }),
            GroupResponse::List(_) => {
                GroupResponse::List(ListGroupsResponse { error_code, ..Default::default() })
            }
            GroupResponse::Delete(result) => {
                GroupResponse::Delete(DeletableGroupResult { error_code, error_message: None, ..result })
            }
            GroupResponse::CommitOffsets(mut response) => {
                let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                for partition in partitions.filter(|partition| partition.error_code == 0) {
                    partition.error_code = error_code;
                }
                GroupResponse::CommitOffsets(response)
            }
            GroupResponse::FetchOffsets(group) => {
                GroupResponse::FetchOffsets(offset_fetch::answer_refused(group, code))
            }
            GroupResponse::DeleteOffsets(_) => {
                GroupResponse::DeleteOffsets(OffsetDeleteResponse { error_code, ..Default::default() })
            }
            GroupResponse::TopicsDeleted(_) => GroupResponse::TopicsDeleted(code),
        }
    }
}
