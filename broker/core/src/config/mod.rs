//! Configuration under Kafka's names: which keys exist, what each may be, and what a broker or topic makes of them.
//!
//! The keys live in three tables of text beside this file, one line a key: `topic.table`, `broker.table` (keys that
//! mean something here, or are refused) and `accepted.table` (keys that are checked and then have no effect). A key
//! that is in none of them is refused, so a misspelt key never passes for a setting. Facts (names, types, ranges,
//! defaults, which may change at run time) are Apache Kafka 4.3's; differences stand at the head of each table.
//!
//! - [`definition`]: the tables and one key's definition.
//! - [`value`]: text to value, with Kafka's wording of refusals.
//! - [`properties`]: `server.properties` and `KEY=VALUE`.
//! - [`topic`] and [`broker`]: typed views.
//! - [`describe`]: what DescribeConfigs answers, sources and synonyms included.

pub mod broker;
mod cleaner;
pub mod definition;
pub mod describe;
pub mod memory;
pub mod properties;
pub mod synonym;
pub mod topic;
pub mod value;

pub use broker::{BrokerConfig, Listener, StaticConfig};
pub use cleaner::CleanerLimits;
pub use definition::{ConfigDef, Effect, Kind, Scope, Update, broker_defs, topic_defs};
pub use topic::{StoredCompression, TopicConfig};
pub use value::{ConfigError, Value};

/// Overrides of one resource: key to raw text, as it was set.
pub type Overrides = std::collections::BTreeMap<String, String>;
