//! OffsetCommit (8), versions 2-10: KIP-211 (no retention time, 5), 320 (leader epochs, 6), 345 (static members, 7),
//! 848 (GROUP_ID_NOT_FOUND, 9), topic ids (10).

use std::collections::BTreeSet;

use penstock_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use penstock_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use penstock_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::super::super::api::offset_commit::refused;
use super::super::super::classic::{ClassicGroup, State};
use super::super::super::records::{GroupRecord, NAME_LEN_MAX, OffsetKey, OffsetValue};
use super::super::super::request::{Caller, GroupResponse};
use super::super::{GroupMachine, Outbox};
use crate::coordinator::RequestId;

/// From this version on a group that is not there has an error of its own.
const NOT_FOUND_FROM: i16 = 9;

impl GroupMachine {
    pub(in super::super) fn commit_offsets(
        &mut self,
        caller: &Caller,
        request: &OffsetCommitRequest,
        to: RequestId,
        (now_ms, out): (i64, &mut Outbox),
    ) {
        if let Err(code) = self.may_commit(caller, request) {
            return out.answer(to, GroupResponse::CommitOffsets(refused(request, code)));
        }
        if let Some(mut turn) = self.turn(&request.group_id, now_ms, out)
            && matches!(turn.group.state, State::Stable | State::PreparingRebalance)
        {
            // A commit is as good as a heartbeat.
            turn.heard_of(&request.member_id);
            turn.group.note_alive(&request.member_id);
        }
        let mut records = Vec::new();
        let mut added = BTreeSet::new();
        let mut response = OffsetCommitResponse::default();
        for topic in &request.topics {
            let mut answered = OffsetCommitResponseTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                ..Default::default()
            };
            for partition in &topic.partitions {
                let key = OffsetKey {
                    group: request.group_id.clone(),
                    topic: topic.name.clone(),
                    partition: partition.partition_index,
                };
                let error = self.may_keep(&key, partition, &mut added).err();
                if error.is_none() {
                    let value = value(request, topic, partition, now_ms);
                    records.push(GroupRecord::Offset(key, Some(value)));
                }
                answered.partitions.push(OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: error.unwrap_or(ErrorCode::None).code(),
                });
            }
            response.topics.push(answered);
        }
        let response = GroupResponse::CommitOffsets(response);
        if records.is_empty() {
            out.answer(to, response)
        } else {
            out.write(records, Some((to, response)), None)
        }
    }

    fn may_commit(&self, caller: &Caller, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        match self.groups.get(&request.group_id) {
            Some(group) => may_commit_to(group, request),
            // The admin client, or a consumer that does without a group: the commit makes one.
            None if generation < 0 => {
                let has_room = self.groups.len() < self.config.groups_max;
                let fits = request.group_id.len() <= NAME_LEN_MAX;
                if has_room && fits { Ok(()) } else { Err(ErrorCode::PolicyViolation) }
            }
            None if caller.version >= NOT_FOUND_FROM => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
        }
    }

    fn may_keep(
        &self,
        key: &OffsetKey,
        partition: &OffsetCommitRequestPartition,
        added: &mut BTreeSet<(WireString, i32)>,
    ) -> Result<(), ErrorCode> {
        let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
        let units = metadata.encode_utf16().count();
        if units > self.config.offset_metadata_max || metadata.len() > NAME_LEN_MAX {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        if self.offsets.get(key).is_some() {
            return Ok(());
        }
        let kept = self.offsets.of_group(&key.group).map_or(0, super::GroupOffsets::len);
        added.insert((key.topic.clone(), key.partition));
        if kept + added.len() > self.config.offsets_max || key.topic.len() > NAME_LEN_MAX {
            added.remove(&(key.topic.clone(), key.partition));
            return Err(ErrorCode::PolicyViolation);
        }
        Ok(())
    }
}

fn may_commit_to(group: &ClassicGroup, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    let generation = request.generation_id_or_member_epoch;
    if generation < 0 && group.state == State::Empty {
        return Ok(());
    }
    let is_member = generation >= 0 || !request.member_id.is_empty() || request.group_instance_id.is_some();
    if !is_member {
        // A group with members keeps others out.
        return if group.state == State::Empty { Ok(()) } else { Err(ErrorCode::UnknownMemberId) };
    }
    group.validate(&request.member_id, request.group_instance_id.as_ref())?;
    if generation != group.generation {
        return Err(ErrorCode::IllegalGeneration);
    }
    if group.state == State::CompletingRebalance {
        return Err(ErrorCode::RebalanceInProgress);
    }
    Ok(())
}

fn value(
    request: &OffsetCommitRequest,
    topic: &OffsetCommitRequestTopic,
    partition: &OffsetCommitRequestPartition,
    now_ms: i64,
) -> OffsetValue {
    let retention_ms = request.retention_time_ms;
    OffsetValue {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch.max(-1),
        metadata: partition.committed_metadata.clone().unwrap_or_default(),
        commit_ms: now_ms,
        expire_ms: if retention_ms == -1 { -1 } else { now_ms.saturating_add(retention_ms).max(0) },
        topic_id: topic.topic_id,
    }
}
