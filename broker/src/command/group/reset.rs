//! `penstock group reset-offsets`.

use std::collections::{BTreeMap, BTreeSet};

use clap::{ArgGroup, Args};
use serde_json::json;

use super::describe::describe;
use crate::client::{Cluster, Committer, OffsetAt, Offsets, check_served, commit, committed};
use crate::command::output::{Output, Table, counted};
use crate::command::{Failure, time};

/// What `group reset-offsets` takes.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["topic", "all_topics"]))]
#[command(group = ArgGroup::new("place").required(true).args(["to_earliest", "to_latest", "to_offset", "to_datetime", "by_duration", "shift_by"]))]
pub(super) struct ResetArgs {
    /// The group.
    group: String,
    /// A topic, or some of its partitions; may be repeated.
    #[arg(long, value_name = "TOPIC[:PARTITION,...]", value_parser = selection)]
    topic: Vec<(String, Vec<i32>)>,
    /// All partitions that the group has committed offsets of.
    #[arg(long)]
    all_topics: bool,
    /// To the first record there is.
    #[arg(long)]
    to_earliest: bool,
    /// After the last record there is.
    #[arg(long)]
    to_latest: bool,
    /// To this offset, or the nearest there is.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record of this time or later (UTC like 2026-11-21T04:55:00Z, or milliseconds since 1970).
    #[arg(long, value_name = "TIME", value_parser = time::parse_ms)]
    to_datetime: Option<i64>,
    /// To the first record of so long ago or later (P1DT2H30M is a day, two hours and a half).
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration_ms)]
    by_duration: Option<i64>,
    /// So many records forward, or back if negative, as far as there are records.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// Show what would be done; this is the default.
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// Do it.
    #[arg(long)]
    execute: bool,
}

/// Splits `TOPIC` or `TOPIC:0,1`.
fn selection(text: &str) -> Result<(String, Vec<i32>), String> {
    let (topic, partitions) = text.split_once(':').unwrap_or((text, ""));
    let partitions = match partitions {
        "" if !text.contains(':') => Ok(Vec::new()),
        list => list.split(',').map(|number| number.parse::<i32>()).collect::<Result<Vec<_>, _>>(),
    };
    match partitions {
        Ok(partitions) if !topic.is_empty() && partitions.iter().all(|partition| *partition >= 0) => {
            Ok((topic.to_owned(), partitions))
        }
        _ => Err("expected TOPIC or TOPIC:PARTITION,PARTITION".to_owned()),
    }
}

pub(super) fn run(cluster: &mut Cluster, out: &mut Output, args: &ResetArgs) -> Result<(), Failure> {
    let group = &args.group;
    check_served(cluster)?;
    if let Some(found) = describe(cluster, group)?
        && !found.members.is_empty()
    {
        let members = counted(found.members.len() as u64, "member");
        return Err(Failure::Failed(format!(
            "group {group} has {members} (state {}), which would go on from their own offsets: stop them first",
            found.state
        )));
    }
    let before = committed(cluster, group)?;
    let after = targets(cluster, args, &before)?;
    if after.is_empty() {
        return Err(Failure::Failed(format!("group {group} has no offsets to reset: name a --topic")));
    }
    if args.execute {
        commit(cluster, group, &Committer::outsider(), &after)?;
    }
    report(out, args, &before, &after)
}

/// The offset that each partition shall have.
fn targets(cluster: &mut Cluster, args: &ResetArgs, before: &Offsets) -> Result<Offsets, Failure> {
    let mut targets = Offsets::new();
    let since = args.by_duration.map(|ago| time::now_ms().saturating_sub(ago).max(0));
    let time = args.to_datetime.or(since);
    for (topic, partitions) in selected(cluster, args, before)? {
        let partitions: Vec<i32> = partitions.into_iter().collect();
        let mut ask = |at| cluster.offsets(&topic, &partitions, at);
        let found = match (args.to_earliest, args.to_latest, time) {
            (true, ..) => ask(OffsetAt::Earliest)?,
            (_, true, _) => ask(OffsetAt::Latest)?,
            (.., Some(time)) => ask(OffsetAt::Time(time))?,
            _ => {
                let (first, end) = (ask(OffsetAt::Earliest)?, ask(OffsetAt::Latest)?);
                let mut found = BTreeMap::new();
                for partition in &partitions {
                    let now = before.get(&(topic.clone(), *partition)).copied();
                    let wanted = wanted(args, &topic, *partition, now)?;
                    let (first, end) = (first[partition], end[partition]);
                    found.insert(*partition, wanted.max(first).min(end));
                }
                found
            }
        };
        targets.extend(found.into_iter().map(|(partition, offset)| ((topic.clone(), partition), offset)));
    }
    Ok(targets)
}

fn wanted(args: &ResetArgs, topic: &str, partition: i32, now: Option<i64>) -> Result<i64, Failure> {
    if let Some(offset) = args.to_offset {
        return Ok(offset);
    }
    let now = now.ok_or_else(|| {
        Failure::Failed(format!(
            "group {} has no offset on partition {partition} of topic {topic} to shift; use --to-offset",
            args.group
        ))
    })?;
    Ok(now.saturating_add(args.shift_by.unwrap_or(0)))
}

/// Topics and partitions that are meant.
fn selected(
    cluster: &mut Cluster,
    args: &ResetArgs,
    before: &Offsets,
) -> Result<BTreeMap<String, BTreeSet<i32>>, Failure> {
    let mut selected: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    if args.all_topics {
        for (topic, partition) in before.keys() {
            selected.entry(topic.clone()).or_default().insert(*partition);
        }
    }
    for (topic, partitions) in &args.topic {
        let partitions = cluster.topic(topic)?.select(partitions)?;
        selected.entry(topic.clone()).or_default().extend(partitions);
    }
    Ok(selected)
}

fn report(out: &mut Output, args: &ResetArgs, before: &Offsets, after: &Offsets) -> Result<(), Failure> {
    if out.is_json() {
        let offset = |(partition, new): (&(String, i32), &i64)| {
            json!({
                "topic": partition.0, "partition": partition.1, "before": before.get(partition), "after": new,
            })
        };
        let offsets: Vec<_> = after.iter().map(offset).collect();
        let document = json!({ "group": args.group, "executed": args.execute, "offsets": offsets });
        return Ok(out.document(&document)?);
    }
    let mut table = Table::new(&["TOPIC", "PARTITION", "BEFORE", "AFTER"]);
    for (partition, new) in after {
        let old = before.get(partition).map_or("-".to_owned(), i64::to_string);
        table.row(vec![partition.0.clone(), partition.1.to_string(), old, new.to_string()]);
    }
    out.table(&table)?;
    if !args.execute {
        out.line("nothing was changed; --execute does it")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::selection;

    #[test]
    fn topics_and_partitions() {
        assert_eq!(selection("t"), Ok(("t".to_owned(), vec![])));
        assert_eq!(selection("t:0,3"), Ok(("t".to_owned(), vec![0, 3])));
        for bad in ["", ":1", "t:", "t:a", "t:-1", "t:1,"] {
            assert!(selection(bad).is_err(), "{bad:?}");
        }
    }
}
