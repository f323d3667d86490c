//! `penstock config`: configs of topics and brokers, and where their values come from.

use clap::{Args, Subcommand, ValueEnum};
use penstock_protocol::WireString;
use penstock_protocol::messages::describe_configs_request::DescribeConfigsResource;
use penstock_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use penstock_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use penstock_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use serde_json::json;

use super::output::{Output, Table};
use super::topic::nothing_said;
use super::{Failure, Remote, assignment};
use crate::client::{Cluster, check};

/// Resource types as numbered on the wire.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Operations of IncrementalAlterConfigs (KIP-339).
const SET: i8 = 0;
const DELETE: i8 = 1;
/// Sources of values, as numbered on the wire (KIP-226).
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;
/// In place of a node id: the configs of all brokers.
const ALL_BROKERS: &str = "default";

/// What `config` takes.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show configs: those that differ from the built-in defaults, unless some are named.
    Get {
        /// Whose.
        kind: Kind,
        /// Topic, or node id of a broker, or `default` for all brokers.
        name: String,
        /// Configs by name.
        keys: Vec<String>,
        /// Show those at their defaults too.
        #[arg(long)]
        all: bool,
    },
    /// Set configs.
    Set {
        /// Whose.
        kind: Kind,
        /// Topic, or node id of a broker, or `default` for all brokers.
        name: String,
        /// What to set.
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = assignment)]
        configs: Vec<(String, String)>,
    },
    /// Set configs back to their defaults.
    Unset {
        /// Whose.
        kind: Kind,
        /// Topic, or node id of a broker, or `default` for all brokers.
        name: String,
        /// Configs by name.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Topic,
    Broker,
}

/// What has configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    kind: i8,
    name: String,
}

/// One change of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Set(String, String),
    Delete(String),
}

/// A config as the broker tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// None where the broker keeps it to itself.
    pub(super) value: Option<String>,
    source: i8,
    read_only: bool,
    sensitive: bool,
}

impl Resource {
    pub(super) fn topic(name: &str) -> Resource {
        Resource { kind: TOPIC, name: name.to_owned() }
    }

    fn new(kind: Kind, name: &str) -> Resource {
        match kind {
            Kind::Topic => Resource::topic(name),
            Kind::Broker if name == ALL_BROKERS => Resource { kind: BROKER, name: String::new() },
            Kind::Broker => Resource { kind: BROKER, name: name.to_owned() },
        }
    }

    fn said(&self) -> String {
        match (self.kind, self.name.as_str()) {
            (TOPIC, name) => format!("topic {name}"),
            (_, "") => "all brokers".to_owned(),
            (_, name) => format!("broker {name}"),
        }
    }

    /// Where to ask: a broker knows its own configs best, anybody knows the rest.
    fn address(&self, cluster: &mut Cluster) -> Result<String, Failure> {
        if self.kind != BROKER || self.name.is_empty() {
            return Ok(cluster.home()?);
        }
        let brokers = cluster.brokers()?;
        let id = self.name.parse::<i32>().ok();
        id.and_then(|id| brokers.get(&id)).cloned().ok_or_else(|| {
            let ids = brokers.keys().map(i32::to_string).collect::<Vec<_>>().join(", ");
            Failure::Failed(format!(
                "there is no broker {}; node ids are {ids}, and `{ALL_BROKERS}` stands for all brokers",
                self.name
            ))
        })
    }
}

impl Change {
    /// What to set and what to set back.
    pub(super) fn all(set: &[(String, String)], delete: &[String]) -> Vec<Change> {
        let set = set.iter().map(|(key, value)| Change::Set(key.clone(), value.clone()));
        set.chain(delete.iter().map(|key| Change::Delete(key.clone()))).collect()
    }
}

impl Entry {
    /// Whether the value was set on the topic itself.
    pub(super) fn is_of_topic(&self) -> bool {
        self.source == SOURCE_TOPIC
    }

    pub(super) fn shown_value(&self) -> &str {
        if self.sensitive { "(hidden)" } else { self.value.as_deref().unwrap_or("(none)") }
    }

    fn source_name(&self) -> &'static str {
        match self.source {
            SOURCE_TOPIC => "topic",
            2 => "broker",
            3 => "all brokers",
            4 => "start of the broker",
            SOURCE_DEFAULT => "default",
            6 => "broker logger",
            7 => "client metrics",
            8 => "group",
            _ => "unknown",
        }
    }
}

pub(crate) fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let mut cluster = args.remote.cluster()?;
    let mut out = args.remote.output();
    match &args.command {
        ConfigCommand::Get { kind, name, keys, all } => {
            get(&mut cluster, &mut out, &Resource::new(*kind, name), (keys, *all))?;
        }
        ConfigCommand::Set { kind, name, configs } => {
            change(&mut cluster, &mut out, &Resource::new(*kind, name), &Change::all(configs, &[]))?;
        }
        ConfigCommand::Unset { kind, name, keys } => {
            change(&mut cluster, &mut out, &Resource::new(*kind, name), &Change::all(&[], keys))?;
        }
    }
    Ok(out.finish()?)
}

fn get(
    cluster: &mut Cluster,
    out: &mut Output,
    resource: &Resource,
    (keys, all): (&[String], bool),
) -> Result<(), Failure> {
    let mut entries = describe(cluster, std::slice::from_ref(resource))?.pop().unwrap_or_default();
    if let Some(unknown) = keys.iter().find(|key| entries.iter().all(|entry| entry.name != **key)) {
        return Err(Failure::Failed(format!(
            "{} has no config {unknown}; --all shows those there are",
            resource.said()
        )));
    }
    let wanted = |entry: &Entry| match keys {
        [] => all || entry.source != SOURCE_DEFAULT,
        keys => keys.contains(&entry.name),
    };
    entries.retain(wanted);
    if out.is_json() {
        let entry = |entry: &Entry| {
            json!({
                "name": entry.name, "value": entry.value, "source": entry.source_name(),
                "read_only": entry.read_only, "sensitive": entry.sensitive,
            })
        };
        return Ok(out.document(&entries.iter().map(entry).collect())?);
    }
    let mut table = Table::new(&["CONFIG", "VALUE", "SOURCE"]);
    for entry in &entries {
        let cells = [entry.name.as_str(), entry.shown_value(), entry.source_name()];
        table.row(cells.map(str::to_owned).to_vec());
    }
    Ok(out.table(&table)?)
}

fn change(
    cluster: &mut Cluster,
    out: &mut Output,
    resource: &Resource,
    changes: &[Change],
) -> Result<(), Failure> {
    alter(cluster, resource, changes)?;
    if out.is_json() {
        return Ok(out.document(&json!({ "altered": true, "changes": changes.len() }))?);
    }
    Ok(out.line(format!("altered {}", resource.said()))?)
}

/// Changes configs of one resource, all or none of them.
pub(super) fn alter(cluster: &mut Cluster, resource: &Resource, changes: &[Change]) -> Result<(), Failure> {
    let config = |change: &Change| {
        let (name, config_operation, value) = match change {
            Change::Set(name, value) => (name, SET, Some(WireString::from(value.as_str()))),
            Change::Delete(name) => (name, DELETE, None),
        };
        AlterableConfig { name: WireString::from(name.as_str()), config_operation, value }
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: resource.kind,
            resource_name: WireString::from(resource.name.as_str()),
            configs: changes.iter().map(config).collect(),
        }],
        validate_only: false,
    };
    let address = resource.address(cluster)?;
    let response = cluster.call_at(&address, &request)?;
    let result = response.responses.first().ok_or_else(|| nothing_said("IncrementalAlterConfigs"))?;
    check(result.error_code, result.error_message.as_deref(), || {
        format!("altering configs of {}", resource.said())
    })?;
    Ok(())
}

/// All configs of each resource, in the order asked for. All resources must be of one kind; of brokers, only one.
pub(super) fn describe(cluster: &mut Cluster, resources: &[Resource]) -> Result<Vec<Vec<Entry>>, Failure> {
    let Some(first) = resources.first() else { return Ok(Vec::new()) };
    let address = first.address(cluster)?;
    let ask = |resource: &Resource| DescribeConfigsResource {
        resource_type: resource.kind,
        resource_name: WireString::from(resource.name.as_str()),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: resources.iter().map(ask).collect(),
        ..DescribeConfigsRequest::default()
    };
    let response = cluster.call_at(&address, &request)?;
    let mut all = Vec::new();
    for resource in resources {
        let found = response
            .results
            .iter()
            .find(|found| found.resource_type == resource.kind && found.resource_name == *resource.name)
            .ok_or_else(|| nothing_said("DescribeConfigs"))?;
        check(found.error_code, found.error_message.as_deref(), || {
            format!("configs of {}", resource.said())
        })?;
        let mut entries: Vec<Entry> = found.configs.iter().map(entry_of).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        all.push(entries);
    }
    Ok(all)
}

fn entry_of(config: &DescribeConfigsResourceResult) -> Entry {
    Entry {
        name: config.name.to_string(),
        value: config.value.as_ref().map(|value| value.to_string()),
        source: config.config_source,
        read_only: config.read_only,
        sensitive: config.is_sensitive,
    }
}
