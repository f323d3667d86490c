//! `penstock topic`: what topics there are, and changing them.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use penstock_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use penstock_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use penstock_protocol::messages::delete_topics_request::DeleteTopicState;
use penstock_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeLogDirsRequest,
};
use penstock_protocol::{ErrorCode, WireString};
use serde_json::{Value, json};

use super::config::{self, Change, Resource};
use super::output::{Output, Table, counted, joined};
use super::{Failure, Remote, assignment};
use crate::client::{ClientError, Cluster, OPERATION_TIMEOUT_MS, Topic, check};

/// From this version on DeleteTopics names topics in a structure (KIP-516).
const DELETE_STATES_VERSION: i16 = 6;

/// In place of a number: the broker's default (KIP-464).
const BROKERS_DEFAULT: i16 = -1;

/// Bytes by topic and partition.
type Sizes = BTreeMap<(String, i32), i64>;

/// What `topic` takes.
#[derive(Debug, Args)]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Make a topic.
    Create {
        /// Its name.
        name: String,
        /// Partitions [default: the broker's num.partitions].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// Copies of each partition [default: the broker's default.replication.factor].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
        replication: Option<i16>,
        /// A topic config; may be repeated.
        #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
        config: Vec<(String, String)>,
        /// Do nothing if the topic is there already, whatever it is like.
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List topics.
    List {
        /// Leave out topics that brokers keep for themselves.
        #[arg(long)]
        no_internal: bool,
    },
    /// Show partitions, leaders, replicas, configs that differ from the defaults, and sizes.
    Describe {
        /// Topics [default: all].
        names: Vec<String>,
    },
    /// Add partitions, or change configs.
    Alter {
        /// The topic.
        name: String,
        /// Partitions it shall have, more than now.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// Sets a config; may be repeated.
        #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
        config: Vec<(String, String)>,
        /// Sets a config back to its default; may be repeated.
        #[arg(long, value_name = "KEY")]
        delete_config: Vec<String>,
    },
    /// Delete topics and all their records.
    Delete {
        /// Topics.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

pub(crate) fn run(args: &TopicArgs) -> Result<(), Failure> {
    let mut cluster = args.remote.cluster()?;
    let mut out = args.remote.output();
    match &args.command {
        TopicCommand::Create { name, partitions, replication, config, if_not_exists } => {
            let setting = |(name, value): &(String, String)| CreatableTopicConfig {
                name: WireString::from(name.as_str()),
                value: Some(WireString::from(value.as_str())),
            };
            let topic = CreatableTopic {
                name: WireString::from(name.as_str()),
                num_partitions: partitions.unwrap_or(BROKERS_DEFAULT.into()),
                replication_factor: replication.unwrap_or(BROKERS_DEFAULT),
                configs: config.iter().map(setting).collect(),
                ..CreatableTopic::default()
            };
            create(&mut cluster, &mut out, topic, *if_not_exists)?;
        }
        TopicCommand::List { no_internal } => list(&mut cluster, &mut out, *no_internal)?,
        TopicCommand::Describe { names } => describe(&mut cluster, &mut out, names)?,
        TopicCommand::Alter { name, partitions, config, delete_config } => {
            let changes = Change::all(config, delete_config);
            alter(&mut cluster, &mut out, name, (*partitions, &changes))?;
        }
        TopicCommand::Delete { names } => delete(&mut cluster, &mut out, names)?,
    }
    Ok(out.finish()?)
}

fn create(
    cluster: &mut Cluster,
    out: &mut Output,
    topic: CreatableTopic,
    if_not_exists: bool,
) -> Result<(), Failure> {
    let name = topic.name.to_string();
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: OPERATION_TIMEOUT_MS,
        ..CreateTopicsRequest::default()
    };
    let response = cluster.call(&request)?;
    let made = response.topics.first().ok_or_else(|| nothing_said("CreateTopics"))?;
    if if_not_exists && made.error_code == ErrorCode::TopicAlreadyExists.code() {
        if out.is_json() {
            out.document(&json!({ "name": name, "created": false }))?;
        } else {
            out.line(format!("topic {name} is there already"))?;
        }
        return Ok(());
    }
    check(made.error_code, made.error_message.as_deref(), || format!("creating topic {name}"))?;
    if out.is_json() {
        out.document(&json!({
            "name": name, "created": true, "id": made.topic_id.to_string(),
            "partitions": made.num_partitions, "replication": made.replication_factor,
        }))?;
    } else {
        let partitions = u64::try_from(made.num_partitions).map(|count| counted(count, "partition"));
        let size = partitions.map(|partitions| {
            format!(
                " with {partitions}, {} of each",
                counted(made.replication_factor.max(0) as u64, "replica")
            )
        });
        out.line(format!("created topic {name}{}", size.unwrap_or_default()))?;
    }
    Ok(())
}

fn list(cluster: &mut Cluster, out: &mut Output, no_internal: bool) -> Result<(), Failure> {
    let mut topics = cluster.topics()?;
    topics.retain(|topic| !(no_internal && topic.internal));
    let replicas = |topic: &Topic| topic.partitions.iter().map(|p| p.replicas.len()).max().unwrap_or(0);
    if out.is_json() {
        let topic = |topic: &Topic| {
            json!({
                "name": topic.name, "id": topic.id.to_string(), "internal": topic.internal,
                "partitions": topic.partitions.len(), "replication": replicas(topic),
            })
        };
        out.document(&topics.iter().map(topic).collect())?;
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "PARTITIONS", "REPLICATION"]);
    for topic in &topics {
        let cells = [topic.name.clone(), topic.partitions.len().to_string(), replicas(topic).to_string()];
        table.row(cells.to_vec());
    }
    Ok(out.table(&table)?)
}

fn describe(cluster: &mut Cluster, out: &mut Output, names: &[String]) -> Result<(), Failure> {
    let topics = match names {
        [] => cluster.topics()?,
        names => names.iter().map(|name| cluster.topic(name)).collect::<Result<Vec<_>, _>>()?,
    };
    let sizes = sizes(cluster)?;
    let resources: Vec<_> = topics.iter().map(|topic| Resource::topic(&topic.name)).collect();
    let configs = config::describe(cluster, &resources)?;
    let mut documents = Vec::new();
    for (index, topic) in topics.iter().enumerate() {
        let configs = configs.get(index).map(Vec::as_slice).unwrap_or_default();
        let own: Vec<_> = configs.iter().filter(|entry| entry.is_of_topic()).collect();
        let size = |partition: i32| sizes.as_ref().map(|sizes| sizes.get(&(topic.name.clone(), partition)));
        if out.is_json() {
            documents.push(document(topic, &own, size));
            continue;
        }
        if index > 0 {
            out.line("")?;
        }
        let id = if topic.id.is_zero() { String::new() } else { format!(" id {}", topic.id) };
        out.line(format!("topic {}{id}{}", topic.name, if topic.internal { " (internal)" } else { "" }))?;
        for entry in &own {
            out.line(format!("config {}={}", entry.name, entry.shown_value()))?;
        }
        let mut headings = vec!["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR"];
        headings.extend(sizes.is_some().then_some("BYTES"));
        let mut table = Table::new(&headings);
        for partition in &topic.partitions {
            let number = |n: i32| if n < 0 { "-".to_owned() } else { n.to_string() };
            let mut cells = vec![partition.index.to_string(), number(partition.leader)];
            cells.extend([
                number(partition.leader_epoch),
                joined(&partition.replicas),
                joined(&partition.isr),
            ]);
            cells.extend(size(partition.index).map(|bytes| bytes.map_or("-".to_owned(), i64::to_string)));
            table.row(cells);
        }
        out.table(&table)?;
    }
    if out.is_json() {
        out.document(&Value::Array(documents))?;
    }
    Ok(())
}

fn document<'a>(
    topic: &Topic,
    configs: &[&config::Entry],
    size: impl Fn(i32) -> Option<Option<&'a i64>>,
) -> Value {
    let partition = |partition: &crate::client::Partition| {
        json!({
            "partition": partition.index, "leader": partition.leader, "leader_epoch": partition.leader_epoch,
            "replicas": partition.replicas, "isr": partition.isr, "bytes": size(partition.index).flatten(),
        })
    };
    let configs: BTreeMap<_, _> = configs.iter().map(|entry| (&entry.name, &entry.value)).collect();
    json!({
        "name": topic.name, "id": topic.id.to_string(), "internal": topic.internal, "configs": configs,
        "partitions": topic.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

/// Bytes of each partition's largest replica; `None` from brokers that do not tell.
fn sizes(cluster: &mut Cluster) -> Result<Option<Sizes>, Failure> {
    let mut sizes = BTreeMap::new();
    for address in cluster.brokers()?.into_values() {
        let request = DescribeLogDirsRequest { topics: None };
        let response = match cluster.call_at(&address, &request) {
            Err(ClientError::NotServed { .. }) => return Ok(None),
            response => response?,
        };
        // What one is not allowed to see, or a disk that failed, leaves a gap and no error.
        for topic in response.results.iter().flat_map(|dir| &dir.topics) {
            for partition in topic.partitions.iter().filter(|partition| !partition.is_future_key) {
                let size = sizes.entry((topic.name.to_string(), partition.partition_index)).or_insert(0);
                *size = partition.partition_size.max(*size);
            }
        }
    }
    Ok(Some(sizes))
}

fn alter(
    cluster: &mut Cluster,
    out: &mut Output,
    name: &str,
    (partitions, changes): (Option<i32>, &[Change]),
) -> Result<(), Failure> {
    if partitions.is_none() && changes.is_empty() {
        let how = "give --partitions, --config or --delete-config";
        return Err(Failure::Usage(format!("nothing to alter of topic {name}: {how}")));
    }
    // Configs first: they can be changed back if adding partitions, which cannot be undone, is refused.
    if !changes.is_empty() {
        config::alter(cluster, &Resource::topic(name), changes)?;
    }
    if let Some(count) = partitions {
        let topic = CreatePartitionsTopic { name: WireString::from(name), count, assignments: None };
        let request = CreatePartitionsRequest {
            topics: vec![topic],
            timeout_ms: OPERATION_TIMEOUT_MS,
            ..CreatePartitionsRequest::default()
        };
        let response = cluster.call(&request)?;
        let result = response.results.first().ok_or_else(|| nothing_said("CreatePartitions"))?;
        check(result.error_code, result.error_message.as_deref(), || {
            format!("raising topic {name} to {count} partitions")
        })?;
    }
    if out.is_json() {
        return Ok(out.document(&json!({ "name": name, "altered": true }))?);
    }
    Ok(out.line(format!("altered topic {name}"))?)
}

fn delete(cluster: &mut Cluster, out: &mut Output, names: &[String]) -> Result<(), Failure> {
    let home = cluster.home()?;
    let version = cluster.version::<DeleteTopicsRequest>(&home)?;
    let mut request =
        DeleteTopicsRequest { timeout_ms: OPERATION_TIMEOUT_MS, ..DeleteTopicsRequest::default() };
    let names = names.iter().map(|name| WireString::from(name.as_str()));
    if version >= DELETE_STATES_VERSION {
        request.topics =
            names.map(|name| DeleteTopicState { name: Some(name), ..DeleteTopicState::default() }).collect();
    } else {
        request.topic_names = names.collect();
    }
    let response = cluster.call_version(&home, version, &request)?;
    let mut deleted = Vec::new();
    let mut failed = Vec::new();
    for result in &response.responses {
        let name = result.name.as_deref().unwrap_or_default();
        let message = result.error_message.as_deref();
        match check(result.error_code, message, || format!("deleting topic {name}")) {
            Ok(()) => deleted.push(name.to_owned()),
            Err(error) => failed.push(error.to_string()),
        }
    }
    let told = match out.is_json() {
        true => out.document(&json!({ "deleted": deleted })),
        false => deleted.iter().try_for_each(|name| out.line(format!("deleted topic {name}"))),
    };
    let told = told.and_then(|()| out.finish());
    // All that failed is told, a line each.
    if failed.is_empty() { Ok(told?) } else { Err(Failure::Failed(failed.join("\npenstock: "))) }
}

pub(super) fn nothing_said(api: &str) -> Failure {
    Failure::Failed(format!("the broker's answer to {api} lacks what was asked for: see the broker's log"))
}
