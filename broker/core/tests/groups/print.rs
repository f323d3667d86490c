//! Answers and records as transcripts show them.

use penstock_core::group::{GroupRecord, GroupResponse};
use penstock_protocol::{ErrorCode, WireString};

fn error(code: i16) -> &'static str {
    if code == 0 { "ok" } else { ErrorCode::from_code(code).name() }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn or_dash(text: Option<&WireString>) -> String {
    text.filter(|text| !text.is_empty()).map_or("-".to_owned(), ToString::to_string)
}

pub(crate) fn response(response: &GroupResponse) -> String {
    match response {
        GroupResponse::Join(join) if join.error_code != 0 => {
            format!("join {} member={}", error(join.error_code), or_dash(Some(&join.member_id)))
        }
        GroupResponse::Join(join) => {
            let members: Vec<_> = join.members.iter().map(|member| member.member_id.to_string()).collect();
            let skip = if join.skip_assignment { " skip-assignment" } else { "" };
            format!(
                "join ok generation={} protocol={} leader={} member={} members=[{}]{skip}",
                join.generation_id,
                or_dash(join.protocol_name.as_ref()),
                join.leader,
                join.member_id,
                members.join(" ")
            )
        }
        GroupResponse::Sync(sync) => {
            format!("sync {} assignment={:?}", error(sync.error_code), shown(&sync.assignment))
        }
        GroupResponse::Heartbeat(heartbeat) => format!("heartbeat {}", error(heartbeat.error_code)),
        GroupResponse::Leave(leave) => {
            let member = |member: &penstock_protocol::messages::leave_group_response::MemberResponse| {
                let instance = or_dash(member.group_instance_id.as_ref());
                format!("{}/{instance}:{}", or_dash(Some(&member.member_id)), error(member.error_code))
            };
            let members: Vec<_> = leave.members.iter().map(member).collect();
            format!("leave {} [{}]", error(leave.error_code), members.join(" "))
        }
        GroupResponse::Describe(group) => {
            let member =
                |member: &penstock_protocol::messages::describe_groups_response::DescribedGroupMember| {
                    format!("{}:{:?}", member.member_id, shown(&member.member_assignment))
                };
            let members: Vec<_> = group.members.iter().map(member).collect();
            format!(
                "describe {} {} type={} protocol={} [{}]",
                error(group.error_code),
                group.group_state,
                or_dash(Some(&group.protocol_type)),
                or_dash(Some(&group.protocol_data)),
                members.join(" ")
            )
        }
        GroupResponse::List(list) => {
            let group = |group: &penstock_protocol::messages::list_groups_response::ListedGroup| {
                format!(
                    "{}:{}:{}:{}",
                    group.group_id,
                    or_dash(Some(&group.protocol_type)),
                    group.group_state,
                    group.group_type
                )
            };
            let groups: Vec<_> = list.groups.iter().map(group).collect();
            format!("list {} [{}]", error(list.error_code), groups.join(" "))
        }
        GroupResponse::Delete(result) => format!("delete {}", error(result.error_code)),
        GroupResponse::TopicsDeleted(code) => format!("topic-deleted {}", error(code.code())),
        offsets => offsets_response(offsets),
    }
}

fn offsets_response(response: &GroupResponse) -> String {
    let mut words = Vec::new();
    match response {
        GroupResponse::CommitOffsets(commit) => {
            words.push("commit".to_owned());
            for topic in &commit.topics {
                let partitions = topic.partitions.iter();
                words.extend(
                    partitions
                        .map(|p| format!("{}-{}:{}", topic.name, p.partition_index, error(p.error_code))),
                );
            }
        }
        GroupResponse::FetchOffsets(group) => {
            words.push(format!("fetch {}", error(group.error_code)));
            for topic in &group.topics {
                words.extend(topic.partitions.iter().map(|p| {
                    let metadata = p.metadata.as_deref().unwrap_or_default();
                    format!("{}-{}={}/{metadata}", topic.name, p.partition_index, p.committed_offset)
                }));
            }
        }
        GroupResponse::DeleteOffsets(delete) => {
            words.push(format!("delete-offsets {}", error(delete.error_code)));
            for topic in &delete.topics {
                let partitions = topic.partitions.iter();
                words.extend(
                    partitions
                        .map(|p| format!("{}-{}:{}", topic.name, p.partition_index, error(p.error_code))),
                );
            }
        }
        other => words.push(format!("{other:?}")),
    }
    words.join(" ")
}

pub(crate) fn record(record: &GroupRecord) -> String {
    match record {
        GroupRecord::Offset(key, Some(value)) => {
            let expires =
                if value.expire_ms == -1 { String::new() } else { format!(" expires={}", value.expire_ms) };
            let (group, topic, partition) = (&key.group, &key.topic, key.partition);
            format!(
                "offset {group} {topic}-{partition}={}/{} at={}{expires}",
                value.offset, value.metadata, value.commit_ms
            )
        }
        GroupRecord::Offset(key, None) => {
            format!("offset {} {}-{} removed", key.group, key.topic, key.partition)
        }
        GroupRecord::Group(group, Some(value)) => {
            let member = |member: &penstock_core::group::MemberValue| {
                format!("{}:{:?}", member.member_id, shown(&member.assignment))
            };
            let members: Vec<_> = value.members.iter().map(member).collect();
            format!(
                "group {group} generation={} type={} protocol={} leader={} since={} [{}]",
                value.generation,
                or_dash(Some(&value.protocol_type)),
                or_dash(value.protocol.as_ref()),
                or_dash(value.leader.as_ref()),
                value.since_ms,
                members.join(" ")
            )
        }
        GroupRecord::Group(group, None) => format!("group {group} removed"),
    }
}
