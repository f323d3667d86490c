//! `penstock group describe`.

use std::collections::{BTreeMap, BTreeSet};

use penstock_protocol::messages::{ConsumerGroupDescribeRequest, DescribeGroupsRequest};
use penstock_protocol::{ErrorCode, WireString};
use serde_json::json;

use crate::client::{
    ClientError, Cluster, OffsetAt, check, check_served, committed, decode_assignment, retry,
};
use crate::command::Failure;
use crate::command::output::{Output, Table, counted};

/// The state of a classic group that is not there, from brokers that say nothing else of it.
const DEAD: &str = "Dead";

/// A group at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) kind: &'static str,
    pub(super) state: String,
    /// How partitions are shared out; empty if nothing was.
    assignor: String,
    coordinator: String,
    pub(super) members: Vec<Member>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    id: String,
    /// The name that it keeps when it comes back (KIP-345).
    instance_id: Option<String>,
    client_id: String,
    host: String,
    /// Topics and partitions.
    assignment: BTreeSet<(String, i32)>,
}

pub(super) fn run(cluster: &mut Cluster, out: &mut Output, name: &str) -> Result<(), Failure> {
    check_served(cluster)?;
    let group = describe(cluster, name)?.ok_or_else(|| ClientError::Refused {
        what: format!("group {name}"),
        code: ErrorCode::GroupIdNotFound,
        message: None,
    })?;
    let committed = committed(cluster, name)?;
    let assigned = group.members.iter().flat_map(|member| &member.assignment);
    let partitions: BTreeSet<_> = committed.keys().chain(assigned).cloned().collect();
    let ends = ends(cluster, &partitions)?;
    let rows: Vec<Row<'_>> = partitions
        .iter()
        .map(|partition| Row {
            topic: &partition.0,
            partition: partition.1,
            offset: committed.get(partition).copied(),
            end: ends.get(partition).copied(),
            member: group.members.iter().find(|member| member.assignment.contains(partition)),
        })
        .collect();
    match out.is_json() {
        true => Ok(out.document(&document(name, &group, &rows))?),
        false => print(out, name, &group, &rows),
    }
}

/// What is known of one partition.
struct Row<'a> {
    topic: &'a str,
    partition: i32,
    offset: Option<i64>,
    end: Option<i64>,
    member: Option<&'a Member>,
}

impl Row<'_> {
    fn lag(&self) -> Option<i64> {
        Some(self.end?.saturating_sub(self.offset?).max(0))
    }
}

fn print(out: &mut Output, name: &str, group: &Group, rows: &[Row<'_>]) -> Result<(), Failure> {
    let members = counted(group.members.len() as u64, "member");
    let assignor = match group.assignor.as_str() {
        "" => String::new(),
        assignor => format!(", assignor {assignor}"),
    };
    let (kind, state, coordinator) = (group.kind, &group.state, &group.coordinator);
    out.line(format!("group {name}: {state}, type {kind}{assignor}, {members}, coordinator {coordinator}"))?;
    let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    let mut table = Table::new(&["TOPIC", "PARTITION", "OFFSET", "END", "LAG", "MEMBER"]);
    for row in rows {
        let member = row.member.map_or("-".to_owned(), |member| member.id.clone());
        let cells =
            [row.partition.to_string(), number(row.offset), number(row.end), number(row.lag()), member];
        table.row(std::iter::once(row.topic.to_owned()).chain(cells).collect());
    }
    if !rows.is_empty() {
        out.line("")?;
        out.table(&table)?;
    }
    if !group.members.is_empty() {
        let mut table = Table::new(&["MEMBER", "CLIENT", "HOST", "INSTANCE", "PARTITIONS"]);
        for member in &group.members {
            let instance = member.instance_id.as_deref().unwrap_or("-");
            let partitions = member.assignment.len().to_string();
            let cells = [member.id.as_str(), &member.client_id, &member.host, instance, &partitions];
            table.row(cells.map(str::to_owned).to_vec());
        }
        out.line("")?;
        out.table(&table)?;
    }
    Ok(())
}

fn document(name: &str, group: &Group, rows: &[Row<'_>]) -> serde_json::Value {
    let partition = |row: &Row<'_>| {
        json!({
            "topic": row.topic, "partition": row.partition, "offset": row.offset, "end": row.end,
            "lag": row.lag(), "member": row.member.map(|member| &member.id),
        })
    };
    let member = |member: &Member| {
        let assigned = |(topic, partition): &(String, i32)| json!({ "topic": topic, "partition": partition });
        json!({
            "member": member.id, "instance": member.instance_id, "client": member.client_id,
            "host": member.host, "partitions": member.assignment.iter().map(assigned).collect::<Vec<_>>(),
        })
    };
    json!({
        "group": name, "type": group.kind, "state": group.state, "assignor": group.assignor,
        "coordinator": group.coordinator,
        "partitions": rows.iter().map(partition).collect::<Vec<_>>(),
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
    })
}

/// Ends of the partitions' logs. Partitions of topics deleted since have none.
fn ends(
    cluster: &mut Cluster,
    partitions: &BTreeSet<(String, i32)>,
) -> Result<BTreeMap<(String, i32), i64>, Failure> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        by_topic.entry(topic).or_default().push(*partition);
    }
    let mut ends = BTreeMap::new();
    for (topic, partitions) in by_topic {
        match cluster.offsets(topic, &partitions, OffsetAt::Latest) {
            Ok(found) => {
                ends.extend(found.into_iter().map(|(index, end)| ((topic.to_owned(), index), end)));
            }
            Err(ClientError::Refused { code: ErrorCode::UnknownTopicOrPartition, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ends)
}

/// The group, asked for first as one of the new kind (KIP-848), then as a classic one; `None` if there is none.
pub(super) fn describe(cluster: &mut Cluster, name: &str) -> Result<Option<Group>, Failure> {
    let found = retry(|| consumer_group(cluster, name))?;
    Ok(match found {
        Some(group) => Some(group),
        None => retry(|| classic_group(cluster, name))?,
    })
}

fn consumer_group(cluster: &mut Cluster, name: &str) -> Result<Option<Group>, ClientError> {
    let coordinator = cluster.coordinator(name)?;
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![WireString::from(name)],
        ..ConsumerGroupDescribeRequest::default()
    };
    let response = match cluster.call_at(&coordinator, &request) {
        Err(ClientError::NotServed { .. }) => return Ok(None),
        response => response?,
    };
    let Some(group) = response.groups.into_iter().next() else { return Ok(None) };
    // Brokers before Kafka 4 may announce the request and refuse it for each group.
    let not_that_kind = [ErrorCode::GroupIdNotFound, ErrorCode::UnsupportedVersion].map(ErrorCode::code);
    if not_that_kind.contains(&group.error_code) {
        return Ok(None);
    }
    check(group.error_code, group.error_message.as_deref(), || format!("describing group {name}"))?;
    let members = group.members.into_iter().map(|member| {
        let topics = member.assignment.topic_partitions.into_iter();
        let assigned = topics.flat_map(|topic| {
            let name = topic.topic_name.to_string();
            topic.partitions.into_iter().map(move |partition| (name.clone(), partition))
        });
        Member {
            id: member.member_id.to_string(),
            instance_id: member.instance_id.map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            assignment: assigned.collect(),
        }
    });
    Ok(Some(Group {
        kind: "consumer",
        state: group.group_state.to_string(),
        assignor: group.assignor_name.to_string(),
        coordinator,
        members: members.collect(),
    }))
}

fn classic_group(cluster: &mut Cluster, name: &str) -> Result<Option<Group>, ClientError> {
    let coordinator = cluster.coordinator(name)?;
    let request =
        DescribeGroupsRequest { groups: vec![WireString::from(name)], ..DescribeGroupsRequest::default() };
    let response = cluster.call_at(&coordinator, &request)?;
    let Some(group) = response.groups.into_iter().next() else { return Ok(None) };
    if group.error_code == ErrorCode::GroupIdNotFound.code() || group.group_state == DEAD {
        return Ok(None);
    }
    check(group.error_code, group.error_message.as_deref(), || format!("describing group {name}"))?;
    let members = group.members.into_iter().map(|member| Member {
        id: member.member_id.to_string(),
        instance_id: member.group_instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assignment: decode_assignment(member.member_assignment),
    });
    Ok(Some(Group {
        kind: "classic",
        state: group.group_state.to_string(),
        assignor: group.protocol_data.to_string(),
        coordinator,
        members: members.collect(),
    }))
}
