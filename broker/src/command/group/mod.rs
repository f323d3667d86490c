//! `penstock group`: consumer groups, their members, offsets and lag.

mod describe;
mod reset;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use penstock_protocol::WireString;
use penstock_protocol::messages::{DeleteGroupsRequest, ListGroupsRequest};
use serde_json::json;

use super::output::{Output, Table};
use super::topic::nothing_said;
use super::{Failure, Remote};
use crate::client::{Cluster, check, check_served, retry};
use reset::ResetArgs;

/// What `group` takes.
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// List groups with their state and type.
    List,
    /// Show members, and per partition the committed offset, the log's end and the lag.
    Describe {
        /// The group.
        group: String,
    },
    /// Move a group's offsets. Shows what would be done; --execute does it. The group must have no members.
    ResetOffsets(ResetArgs),
    /// Delete groups and their offsets. They must have no members.
    Delete {
        /// Groups.
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

pub(crate) fn run(args: &GroupArgs) -> Result<(), Failure> {
    let mut cluster = args.remote.cluster()?;
    let mut out = args.remote.output();
    match &args.command {
        GroupCommand::List => list(&mut cluster, &mut out)?,
        GroupCommand::Describe { group } => describe::run(&mut cluster, &mut out, group)?,
        GroupCommand::ResetOffsets(args) => reset::run(&mut cluster, &mut out, args)?,
        GroupCommand::Delete { groups } => delete(&mut cluster, &mut out, groups)?,
    }
    Ok(out.finish()?)
}

fn list(cluster: &mut Cluster, out: &mut Output) -> Result<(), Failure> {
    let mut groups = BTreeMap::new();
    // Each broker knows the groups that it coordinates.
    for address in cluster.brokers()?.into_values() {
        let response = retry(|| {
            let response = cluster.call_at(&address, &ListGroupsRequest::default())?;
            check(response.error_code, None, || format!("listing the groups of {address}"))?;
            Ok(response)
        })?;
        groups.extend(response.groups.into_iter().map(|group| (group.group_id.to_string(), group)));
    }
    if out.is_json() {
        let group =
            |(id, group): (&String, &penstock_protocol::messages::list_groups_response::ListedGroup)| {
                json!({
                    "group": id, "type": group.group_type.as_str(), "state": group.group_state.as_str(),
                    "protocol": group.protocol_type.as_str(),
                })
            };
        return Ok(out.document(&groups.iter().map(group).collect())?);
    }
    let mut table = Table::new(&["GROUP", "TYPE", "STATE", "PROTOCOL"]);
    for (id, group) in &groups {
        let cells = [id.as_str(), &group.group_type, &group.group_state, &group.protocol_type];
        // A broker that is too old to tell, or a group that never had members.
        let shown = |cell: &str| if cell.is_empty() { "-".to_owned() } else { cell.to_owned() };
        table.row(cells.map(shown).to_vec());
    }
    Ok(out.table(&table)?)
}

fn delete(cluster: &mut Cluster, out: &mut Output, groups: &[String]) -> Result<(), Failure> {
    check_served(cluster)?;
    let mut deleted = Vec::new();
    let mut failed = Vec::new();
    for group in groups {
        match delete_one(cluster, group) {
            Ok(()) => deleted.push(group),
            Err(error) => failed.push(error.to_string()),
        }
    }
    let told = match out.is_json() {
        true => out.document(&json!({ "deleted": deleted })),
        false => deleted.iter().try_for_each(|group| out.line(format!("deleted group {group}"))),
    };
    let told = told.and_then(|()| out.finish());
    // All that failed is told, a line each.
    if failed.is_empty() { Ok(told?) } else { Err(Failure::Failed(failed.join("\npenstock: "))) }
}

fn delete_one(cluster: &mut Cluster, group: &str) -> Result<(), Failure> {
    let request = DeleteGroupsRequest { groups_names: vec![WireString::from(group)] };
    let result = retry(|| {
        let address = cluster.coordinator(group)?;
        let response = cluster.call_at(&address, &request)?;
        let Some(result) = response.results.into_iter().next() else { return Ok(None) };
        let message = result.error_message.as_deref();
        check(result.error_code, message, || format!("deleting group {group}"))?;
        Ok(Some(result))
    })?;
    result.map(drop).ok_or_else(|| nothing_said("DeleteGroups"))
}
