//! The broker's own configs: what was set at start, what was changed since, and a typed view of both.
//!
//! A dynamic value for this broker wins over the cluster's dynamic value, which wins over the value from start, which
//! wins over the default.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cleaner::{CleanerLimits, load_percent};
use super::definition::{ConfigDef, Scope, Update, broker_defs, find};
use super::value::{ConfigError, Value};
use super::{Overrides, TopicConfig, synonym};
use crate::group::GroupConfig;
use crate::metadata::SnapshotBounds;

/// Configs set at start, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StaticConfig {
    values: Overrides,
}

impl StaticConfig {
    /// Checks the settings of a file and of the command line.
    ///
    /// # Errors
    /// The first key that is unknown, or whose value is refused.
    pub fn new(values: Overrides) -> Result<StaticConfig, ConfigError> {
        for (name, text) in &values {
            find(Scope::Broker, name)?.parse(text)?;
        }
        if let (Some(old), Some(new)) = (values.get("broker.id"), values.get("node.id"))
            && old.trim() != new.trim()
        {
            let message = format!("broker.id ({old}) and node.id ({new}) must be the same when both are set");
            return Err(ConfigError::Conflict(message));
        }
        Ok(StaticConfig { values })
    }
}

/// An address to serve clients on, or to give to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Name of the listener.
    pub name: String,
    /// Host name or address; empty is every address.
    pub host: String,
    /// Port; 0 takes a free one.
    pub port: u16,
}

/// All broker configs at one moment: raw values by source, and the typed values that the broker uses.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    pub(super) statics: Arc<StaticConfig>,
    pub(super) cluster: Overrides,
    pub(super) node: Overrides,
    /// `advertised.listeners`; empty when unset.
    pub advertised_listeners: Vec<Listener>,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// Cleaning of logs by key.
    pub cleaner: CleanerLimits,
    /// `penstock.cluster.id`.
    pub cluster_id: Option<String>,
    /// `connections.max.idle.ms`; `None` never closes idle connections.
    pub connections_max_idle_ms: Option<u64>,
    /// Milliseconds between two looks for segments past their retention time.
    pub retention_check_interval_ms: i64,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `max.request.partition.size.limit`.
    pub describe_partitions_max: usize,
    /// `fetch.max.bytes`.
    pub fetch_max_bytes: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: usize,
    /// `penstock.fetch.session.eviction.ms`.
    pub fetch_session_eviction_ms: i64,
    /// `listeners`, without those of the controller quorum.
    pub listeners: Vec<Listener>,
    /// `log.dirs` or `log.dir`; `None` when neither is set.
    pub log_dir: Option<String>,
    /// `max.connections`.
    pub connections_max: usize,
    /// `max.connections.per.ip`.
    pub connections_per_ip_max: usize,
    /// `max.connections.per.ip.overrides`, by host.
    pub connections_per_ip_overrides: BTreeMap<String, usize>,
    /// When metadata snapshots are taken.
    pub metadata_snapshots: SnapshotBounds,
    /// `node.id`, or `broker.id` where only that is set.
    pub node_id: i32,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `socket.listen.backlog.size`.
    pub socket_backlog: i32,
    /// `socket.receive.buffer.bytes`; `None` leaves the kernel's choice.
    pub socket_receive_buffer_bytes: Option<usize>,
    /// `socket.request.max.bytes`.
    pub socket_request_max_bytes: usize,
    /// `socket.send.buffer.bytes`; `None` leaves the kernel's choice.
    pub socket_send_buffer_bytes: Option<usize>,
    /// Consumer groups and committed offsets.
    pub group: GroupConfig,
    /// Own limits.
    pub limits: Limits,
}

/// The `penstock.` limits, each per shard unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `penstock.cache.bytes.max`; `None` is its part of the memory, see [`super::memory`].
    pub cache_bytes: Option<u64>,
    /// `penstock.connection.requests.max`, per connection.
    pub connection_requests: usize,
    /// `penstock.disk.reserve.bytes`, of the file system; `None` goes by its size.
    pub disk_reserve_bytes: Option<u64>,
    /// `penstock.inflight.bytes.max`, likewise.
    pub inflight_bytes: Option<u64>,
    /// `penstock.journal.bytes`.
    pub journal_bytes: u64,
    /// `penstock.memory.bytes`, of the whole broker; `None` goes by the machine.
    pub memory_bytes: Option<u64>,
    /// `penstock.partitions.max`, of the whole broker.
    pub partitions: usize,
    /// `penstock.partition.producers.max`, per partition.
    pub partition_producers: usize,
    /// `penstock.read.ahead.bytes`; `None` is its part of the cache, see [`super::memory`].
    pub read_ahead_bytes: Option<u64>,
    /// `penstock.scrub.bytes.per.second`, per shard; 0 for none.
    pub scrub_bytes_per_second: u64,
    /// `penstock.shard.producers.max`, per shard; `None` is what the memory has room for.
    pub shard_producers: Option<usize>,
    /// `penstock.slow.request.ms`; 0 for none.
    pub slow_request_ms: u64,
    /// `penstock.shards`, of the whole broker; `None` is one per usable core.
    pub shards: Option<usize>,
    /// `penstock.unflushed.bytes.max`, as `cache_bytes`.
    pub unflushed_bytes: Option<u64>,
}

impl BrokerConfig {
    /// A broker's config before anything was changed at run time.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn from_static(statics: StaticConfig) -> Result<BrokerConfig, ConfigError> {
        BrokerConfig::new(Arc::new(statics), Overrides::new(), Overrides::new())
    }

    /// The same static settings with other dynamic ones: the cluster's defaults and this broker's own.
    ///
    /// # Errors
    /// The first dynamic value that is refused.
    pub fn with_dynamic(&self, cluster: Overrides, node: Overrides) -> Result<BrokerConfig, ConfigError> {
        BrokerConfig::new(Arc::clone(&self.statics), cluster, node)
    }

    fn new(
        statics: Arc<StaticConfig>,
        cluster: Overrides,
        node: Overrides,
    ) -> Result<BrokerConfig, ConfigError> {
        let reader = Reader { statics: &statics, cluster: &cluster, node: &node };
        reader.check()?;
        let controllers = reader.value("controller.listener.names")?;
        let count = |name: &str| reader.number(name).map(|value| usize::try_from(value).unwrap_or(0));
        let buffer = |name: &str| reader.number(name).map(|value| usize::try_from(value).ok());
        let bytes = |name: &str| reader.number(name).map(|value| u64::try_from(value).unwrap_or(0));
        let small = |name: &str| reader.number(name).map(|value| i32::try_from(value).unwrap_or(i32::MAX));
        let part = |name: &str| bytes(name).map(|bytes| Some(bytes).filter(|bytes| *bytes > 0));
        let limits = Limits {
            cache_bytes: part("penstock.cache.bytes.max")?,
            connection_requests: count("penstock.connection.requests.max")?,
            disk_reserve_bytes: u64::try_from(reader.number("penstock.disk.reserve.bytes")?).ok(),
            inflight_bytes: part("penstock.inflight.bytes.max")?,
            memory_bytes: part("penstock.memory.bytes")?,
            journal_bytes: bytes("penstock.journal.bytes")?,
            partitions: count("penstock.partitions.max")?,
            partition_producers: count("penstock.partition.producers.max")?,
            read_ahead_bytes: u64::try_from(reader.number("penstock.read.ahead.bytes")?).ok(),
            scrub_bytes_per_second: bytes("penstock.scrub.bytes.per.second")?,
            shard_producers: Some(count("penstock.shard.producers.max")?).filter(|count| *count > 0),
            shards: Some(count("penstock.shards")?).filter(|shards| *shards > 0),
            slow_request_ms: bytes("penstock.slow.request.ms")?,
            unflushed_bytes: part("penstock.unflushed.bytes.max")?,
        };
        Ok(BrokerConfig {
            advertised_listeners: reader.listeners("advertised.listeners", &[])?,
            auto_create_topics: reader.value("auto.create.topics.enable")?.as_bool(),
            cleaner: reader.cleaner()?,
            cluster_id: reader.raw("penstock.cluster.id").map(str::to_owned),
            retention_check_interval_ms: reader.number("log.retention.check.interval.ms")?,
            connections_max_idle_ms: u64::try_from(reader.number("connections.max.idle.ms")?).ok(),
            default_replication_factor: i16::try_from(reader.number("default.replication.factor")?)
                .unwrap_or(i16::MAX),
            delete_topics: reader.value("delete.topic.enable")?.as_bool(),
            describe_partitions_max: count("max.request.partition.size.limit")?,
            fetch_max_bytes: count("fetch.max.bytes")?,
            fetch_sessions_max: count("max.incremental.fetch.session.cache.slots")?,
            fetch_session_eviction_ms: reader.number("penstock.fetch.session.eviction.ms")?,
            listeners: reader.listeners("listeners", controllers.as_list())?,
            log_dir: reader.log_dir()?,
            connections_max: count("max.connections")?,
            connections_per_ip_max: count("max.connections.per.ip")?,
            connections_per_ip_overrides: reader.per_ip_overrides()?,
            metadata_snapshots: SnapshotBounds {
                record_bytes: bytes("metadata.log.max.record.bytes.between.snapshots")?,
                interval_ms: Some(reader.number("metadata.log.max.snapshot.interval.ms")?)
                    .filter(|interval| *interval > 0),
            },
            node_id: reader.node_id()?,
            num_partitions: small("num.partitions")?,
            producer_id_expiration_ms: reader.number("producer.id.expiration.ms")?,
            rack: reader.raw("broker.rack").map(str::to_owned),
            socket_backlog: small("socket.listen.backlog.size")?,
            socket_receive_buffer_bytes: buffer("socket.receive.buffer.bytes")?,
            socket_request_max_bytes: count("socket.request.max.bytes")?,
            socket_send_buffer_bytes: buffer("socket.send.buffer.bytes")?,
            group: reader.group()?,
            limits,
            statics,
            cluster,
            node,
        })
    }

    /// Default of a topic config here, in the topic config's own unit.
    pub fn topic_default(&self, def: &ConfigDef) -> Value {
        let from_broker = synonym::of_topic_config(def.name).iter().find_map(|synonym| {
            let (_, text) = self.sources(synonym.name).next()?;
            let value = find(Scope::Broker, synonym.name).ok()?.parse(text).ok()?;
            Some(match value {
                Value::Number(number) if synonym.unit.factor() > 1 => {
                    Value::Number(if number < 0 { -1 } else { number.saturating_mul(synonym.unit.factor()) })
                }
                Value::Number(number) if def.name == "retention.ms" && number < 0 => Value::Number(-1),
                other => other,
            })
        });
        from_broker.or_else(|| def.default_value()).expect("every topic config has a default")
    }

    /// A topic's resolved configs.
    ///
    /// # Panics
    /// If `overrides` were not checked by [`super::topic::validate_topic_configs`].
    pub fn topic(&self, overrides: &Overrides) -> TopicConfig {
        TopicConfig::resolve(self, overrides)
    }

    /// Raw values of a broker config where it is set, the one that wins first, the default last.
    pub(super) fn sources(&self, name: &str) -> impl Iterator<Item = (super::describe::Source, &str)> {
        use super::describe::Source;
        let default = broker_defs().get(name).and_then(|def| def.default);
        [
            (Source::DynamicBroker, self.node.get(name).map(String::as_str)),
            (Source::DynamicDefaultBroker, self.cluster.get(name).map(String::as_str)),
            (Source::StaticBroker, self.statics.values.get(name).map(String::as_str)),
            (Source::Default, default),
        ]
        .into_iter()
        .filter_map(|(source, text)| text.map(|text| (source, text)))
    }
}

/// Checks dynamic broker configs: each may change at run time, at this level, to this value.
///
/// # Errors
/// In Kafka's words, the keys that may not, else the first value that is refused.
pub fn validate_dynamic_configs(overrides: &Overrides, whole_cluster: bool) -> Result<(), ConfigError> {
    let mut fixed = Vec::new();
    let mut one_broker = Vec::new();
    for name in overrides.keys() {
        match find(Scope::Broker, name)?.update {
            Update::ReadOnly | Update::Topic => fixed.push(name.as_str()),
            Update::PerBroker if whole_cluster => one_broker.push(name.as_str()),
            Update::PerBroker | Update::ClusterWide => {}
        }
    }
    let refuse =
        |why: &str, names: &[&str]| Err(ConfigError::Conflict(format!("{why}: [{}]", names.join(", "))));
    if !fixed.is_empty() {
        return refuse("Cannot update these configs dynamically", &fixed);
    }
    if !one_broker.is_empty() {
        return refuse(
            "Cannot update these configs at default cluster level, broker id must be specified",
            &one_broker,
        );
    }
    overrides.iter().try_for_each(|(name, text)| find(Scope::Broker, name)?.parse(text).map(|_| ()))
}

struct Reader<'a> {
    statics: &'a StaticConfig,
    cluster: &'a Overrides,
    node: &'a Overrides,
}

impl<'a> Reader<'a> {
    fn raw(&self, name: &str) -> Option<&'a str> {
        let set =
            self.node.get(name).or_else(|| self.cluster.get(name)).or_else(|| self.statics.values.get(name));
        set.map(String::as_str).or_else(|| broker_defs().get(name).and_then(|def| def.default))
    }

    /// Every value that is set parses: a later step may then rely on it.
    fn check(&self) -> Result<(), ConfigError> {
        for (name, text) in self.statics.values.iter().chain(self.cluster).chain(self.node) {
            find(Scope::Broker, name)?.parse(text)?;
        }
        Ok(())
    }

    fn value(&self, name: &str) -> Result<Value, ConfigError> {
        let text = self.raw(name).unwrap_or_default();
        find(Scope::Broker, name)?.parse(text)
    }

    fn number(&self, name: &str) -> Result<i64, ConfigError> {
        Ok(self.value(name)?.as_i64())
    }

    fn group(&self) -> Result<GroupConfig, ConfigError> {
        let small = |name: &str| self.number(name).map(|value| i32::try_from(value).unwrap_or(i32::MAX));
        let count = |name: &str| self.number(name).map(|value| usize::try_from(value).unwrap_or(0));
        Ok(GroupConfig {
            initial_rebalance_delay_ms: self.number("group.initial.rebalance.delay.ms")?.max(0),
            session_timeout_ms_min: small("group.min.session.timeout.ms")?,
            session_timeout_ms_max: small("group.max.session.timeout.ms")?,
            members_max: count("group.max.size")?.min(count("penstock.group.members.max")?),
            pending_members_max: count("penstock.group.members.max")?,
            member_bytes_max: count("penstock.group.member.bytes.max")?,
            groups_max: count("penstock.groups.max")?,
            offsets_max: count("penstock.group.offsets.max")?,
            offset_metadata_max: count("offset.metadata.max.bytes")?,
            offsets_retention_ms: self.number("offsets.retention.minutes")?.saturating_mul(60_000),
            offsets_check_interval_ms: self.number("offsets.retention.check.interval.ms")?,
            offsets_topic_partitions: small("offsets.topic.num.partitions")?,
            offsets_topic_replication_factor: i16::try_from(self.number("offsets.topic.replication.factor")?)
                .unwrap_or(i16::MAX),
            offsets_topic_segment_bytes: self.number("offsets.topic.segment.bytes")?,
        })
    }

    fn cleaner(&self) -> Result<CleanerLimits, ConfigError> {
        let double = |name: &str| self.value(name).map(|value| value.as_double());
        Ok(CleanerLimits {
            enabled: self.value("log.cleaner.enable")?.as_bool(),
            map_bytes: u64::try_from(self.number("log.cleaner.dedupe.buffer.size")?).unwrap_or(0),
            map_load_percent: load_percent(double("log.cleaner.io.buffer.load.factor")?),
            io_bytes: usize::try_from(self.number("log.cleaner.io.buffer.size")?).unwrap_or(0),
            io_bytes_per_second: double("log.cleaner.io.max.bytes.per.second")? as u64,
            backoff_ms: self.number("log.cleaner.backoff.ms")?,
        })
    }

    fn node_id(&self) -> Result<i32, ConfigError> {
        let old = self.number("broker.id")?;
        let name =
            if old >= 0 && !self.statics.values.contains_key("node.id") { "broker.id" } else { "node.id" };
        let id = self.number(name)?;
        i32::try_from(id).ok().filter(|id| *id >= 0).ok_or_else(|| {
            ConfigError::Conflict(format!(
                "Invalid value {id} for configuration {name}: Value must be at least 0"
            ))
        })
    }

    fn log_dir(&self) -> Result<Option<String>, ConfigError> {
        let name = if self.raw("log.dirs").is_some() { "log.dirs" } else { "log.dir" };
        let Some(text) = self.raw(name) else { return Ok(None) };
        let value = self.value(name)?;
        match value.as_list() {
            [one] if !one.is_empty() => Ok(Some(one.clone())),
            _ => Err(ConfigError::Conflict(format!(
                "Invalid value {text} for configuration {name}: this broker keeps its data in exactly one directory"
            ))),
        }
    }

    fn per_ip_overrides(&self) -> Result<BTreeMap<String, usize>, ConfigError> {
        const NAME: &str = "max.connections.per.ip.overrides";
        let text = self.raw(NAME).unwrap_or_default();
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let read = |pair: &str| -> Option<(String, usize)> {
            let (host, count) = pair.rsplit_once(':')?;
            Some((host.trim().to_owned(), count.trim().parse().ok()?))
        };
        pairs
            .map(|pair| {
                read(pair).ok_or_else(|| {
                    let form = "must be host:count pairs separated by commas";
                    ConfigError::Conflict(format!("Invalid value {text} for configuration {NAME}: {form}"))
                })
            })
            .collect()
    }

    fn listeners(&self, name: &str, skip: &[String]) -> Result<Vec<Listener>, ConfigError> {
        let value = self.value(name)?;
        let protocols = self.value("listener.security.protocol.map")?.to_string();
        let mut listeners = Vec::<Listener>::new();
        for text in value.as_list() {
            let fault = |why: &str| {
                ConfigError::Conflict(format!("Invalid value {text} for configuration {name}: {why}"))
            };
            let listener = parse_listener(text).ok_or_else(|| fault("must be NAME://host:port"))?;
            if skip.iter().any(|other| other.eq_ignore_ascii_case(&listener.name)) {
                continue;
            }
            match security_protocol(&protocols, &listener.name) {
                Some("PLAINTEXT") => {}
                Some(_) => {
                    return Err(fault("only listeners of the security protocol PLAINTEXT are supported"));
                }
                None => return Err(fault("the listener has no entry in listener.security.protocol.map")),
            }
            if listeners.iter().any(|other| other.name == listener.name) {
                return Err(fault("each listener must have a different name"));
            }
            if name == "listeners"
                && listener.port != 0
                && listeners.iter().any(|other| other.port == listener.port)
            {
                return Err(fault("each listener must have a different port"));
            }
            listeners.push(listener);
        }
        if listeners.is_empty() && self.raw(name).is_some() {
            let text = value.to_string();
            let why = "at least one listener for clients is needed";
            return Err(ConfigError::Conflict(format!(
                "Invalid value {text} for configuration {name}: {why}"
            )));
        }
        Ok(listeners)
    }
}

fn security_protocol<'m>(map: &'m str, listener: &str) -> Option<&'m str> {
    let mut pairs = map.split(',').filter_map(|pair| pair.trim().split_once(':'));
    pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(listener)).map(|(_, protocol)| protocol.trim())
}

fn parse_listener(text: &str) -> Option<Listener> {
    let (name, address) = text.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    if name.is_empty() {
        return None;
    }
    Some(Listener { name: name.to_ascii_uppercase(), host: host.to_owned(), port: port.parse().ok()? })
}

#[cfg(test)]
mod tests;
