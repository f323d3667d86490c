//! What DescribeConfigs and CreateTopics tell of configs: value, source, synonyms (KIP-226, KIP-525, KIP-569).

use super::definition::{ConfigDef, Scope, Update, broker_defs, find, topic_defs};
use super::{BrokerConfig, Overrides, synonym};

/// Where a value comes from, numbered as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    /// Set on the topic.
    Topic = 1,
    /// Set at run time on this broker.
    DynamicBroker = 2,
    /// Set at run time for the whole cluster.
    DynamicDefaultBroker = 3,
    /// Set at start.
    StaticBroker = 4,
    /// Set by nobody.
    Default = 5,
}

/// A key and value elsewhere that this one would fall back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynonymEntry {
    /// The key.
    pub name: &'static str,
    /// Its value; `None` if sensitive.
    pub value: Option<String>,
    /// Its source.
    pub source: Source,
}

/// One config as it is told to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its definition.
    pub def: DefRef,
    /// Its value; `None` if unset or sensitive.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// Whether it can not change at run time.
    pub read_only: bool,
    /// The value itself and what stands behind it, the one that wins first.
    pub synonyms: Vec<SynonymEntry>,
}

/// A definition that compares by name.
#[derive(Clone, Copy, Debug)]
pub struct DefRef(pub &'static ConfigDef);

impl PartialEq for DefRef {
    fn eq(&self, other: &DefRef) -> bool {
        (self.0.scope, self.0.name) == (other.0.scope, other.0.name)
    }
}

impl Eq for DefRef {}

/// All configs of a topic.
pub fn topic_entries(broker: &BrokerConfig, overrides: &Overrides) -> Vec<ConfigEntry> {
    topic_defs().values().map(|def| topic_entry(broker, overrides, def)).collect()
}

fn topic_entry(broker: &BrokerConfig, overrides: &Overrides, def: &'static ConfigDef) -> ConfigEntry {
    let own = overrides.get(def.name).map(|text| normal(def, text));
    let value = own.clone().unwrap_or_else(|| broker.topic_default(def).to_string());
    let first = synonym::of_topic_config(def.name).first();
    let mut synonyms = first.map_or_else(Vec::new, |synonym| broker_synonyms(broker, synonym.name));
    if let Some(value) = own {
        synonyms.insert(0, SynonymEntry { name: def.name, value: Some(value), source: Source::Topic });
    }
    let source = synonyms.first().map_or(Source::Default, |synonym| synonym.source);
    ConfigEntry { def: DefRef(def), value: Some(value), source, read_only: false, synonyms }
}

/// All configs of this broker.
pub fn broker_entries(broker: &BrokerConfig) -> Vec<ConfigEntry> {
    broker_defs().values().map(|def| broker_entry(broker, def, false)).collect()
}

/// The configs that were set at run time for the whole cluster.
pub fn cluster_entries(broker: &BrokerConfig) -> Vec<ConfigEntry> {
    let set = broker.cluster.keys().filter_map(|name| find(Scope::Broker, name).ok());
    set.map(|def| broker_entry(broker, def, true)).collect()
}

fn broker_entry(broker: &BrokerConfig, def: &'static ConfigDef, cluster_only: bool) -> ConfigEntry {
    let mut synonyms = broker_synonyms(broker, def.name);
    if cluster_only {
        synonyms.retain(|synonym| synonym.source == Source::DynamicDefaultBroker);
    }
    let source = synonyms.first().map_or(Source::Default, |synonym| synonym.source);
    let value =
        synonyms.first().filter(|synonym| synonym.name == def.name).and_then(|synonym| synonym.value.clone());
    let read_only = matches!(def.update, Update::ReadOnly | Update::Topic);
    ConfigEntry { def: DefRef(def), value, source, read_only, synonyms }
}

/// Everything set for a broker config under its names, by source; what stands before the name itself is left out, so
/// a coarser unit that decides is not told when the finer one is unset. Kafka does the same.
fn broker_synonyms(broker: &BrokerConfig, name: &'static str) -> Vec<SynonymEntry> {
    let mut found = Vec::new();
    for (rank, name) in synonym::of_broker_config(name).into_iter().enumerate() {
        let Ok(def) = find(Scope::Broker, name) else { continue };
        for (source, text) in broker.sources(name) {
            let value = (!def.is_sensitive()).then(|| normal(def, text));
            found.push((source as i8, rank, SynonymEntry { name, value, source }));
        }
    }
    found.sort_by_key(|(source, rank, _)| (*source, *rank));
    found.into_iter().map(|(_, _, entry)| entry).skip_while(|entry| entry.name != name).collect()
}

fn normal(def: &ConfigDef, text: &str) -> String {
    def.parse(text).map_or_else(|_| text.to_owned(), |value| value.to_string())
}

/// A topic's configs as CreateTopics tells them: here a coarser unit's source is told, and what was set is told as it
/// was written.
pub fn creation_entries(broker: &BrokerConfig, overrides: &Overrides) -> Vec<ConfigEntry> {
    let mut entries = topic_entries(broker, overrides);
    for entry in &mut entries {
        if entry.source == Source::Topic {
            entry.value = overrides.get(entry.def.0.name).cloned();
        } else {
            let synonyms = synonym::of_topic_config(entry.def.0.name);
            let set = synonyms.iter().find_map(|synonym| broker.sources(synonym.name).next());
            entry.source = set.map_or(Source::Default, |(source, _)| source);
        }
    }
    entries
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::StaticConfig;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn show(entries: &[ConfigEntry], name: &str) -> String {
        let entry = entries.iter().find(|entry| entry.def.0.name == name).unwrap();
        let synonyms: Vec<String> = entry
            .synonyms
            .iter()
            .map(|synonym| {
                format!(
                    "{:?}:{}={}",
                    synonym.source,
                    synonym.name,
                    synonym.value.as_deref().unwrap_or("null")
                )
            })
            .collect();
        let value = entry.value.as_deref().unwrap_or("null");
        format!("{value} {:?} {{{}}}", entry.source, synonyms.join(", "))
    }

    #[test]
    fn sources_and_synonyms_as_kafka_tells_them() {
        let statics = StaticConfig::new(overrides(&[
            ("log.retention.hours", "1"),
            ("log.segment.bytes", "2000000"),
            ("ssl.key.password", "secret"),
        ]))
        .unwrap();
        let broker = BrokerConfig::from_static(statics).unwrap();
        let broker =
            broker.with_dynamic(overrides(&[("log.segment.bytes", "3000000")]), Overrides::new()).unwrap();
        let topic =
            topic_entries(&broker, &overrides(&[("flush.messages", " 7"), ("segment.bytes", "4000000")]));
        assert_eq!(show(&topic, "retention.ms"), "3600000 Default {}");
        assert_eq!(
            show(&topic, "flush.messages"),
            "7 Topic {Topic:flush.messages=7, Default:log.flush.interval.messages=1}"
        );
        assert_eq!(
            show(&topic, "segment.bytes"),
            "4000000 Topic {Topic:segment.bytes=4000000, DynamicDefaultBroker:log.segment.bytes=3000000, \
             StaticBroker:log.segment.bytes=2000000, Default:log.segment.bytes=1073741824}"
        );
        let node = broker_entries(&broker);
        assert_eq!(show(&node, "log.retention.ms"), "null Default {}");
        assert_eq!(
            show(&node, "log.retention.hours"),
            "1 StaticBroker {StaticBroker:log.retention.hours=1, Default:log.retention.hours=168}"
        );
        assert_eq!(show(&node, "ssl.key.password"), "null StaticBroker {StaticBroker:ssl.key.password=null}");
        let cluster = cluster_entries(&broker);
        assert_eq!(cluster.len(), 1);
        assert_eq!(
            show(&cluster, "log.segment.bytes"),
            "3000000 DynamicDefaultBroker {DynamicDefaultBroker:log.segment.bytes=3000000}"
        );
        let created = creation_entries(&broker, &Overrides::new());
        assert_eq!(show(&created, "retention.ms"), "3600000 StaticBroker {}");
    }
}
