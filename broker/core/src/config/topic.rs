//! What a topic's configs and the broker's defaults together make of a topic.

use penstock_format::{Compression, TimestampType};

use super::cleaner::millionths;
use super::definition::{Scope, find};
use super::value::{ConfigError, Value};
use super::{BrokerConfig, Overrides};

/// How batches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredCompression {
    /// As the producer sent them.
    Producer,
    /// In this codec at this level; codecs without levels ignore it.
    Codec(Compression, i32),
}

/// A topic's configs, resolved: the topic's own where set, else the broker's, else the default.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// Old segments are removed.
    pub delete: bool,
    /// Only the newest record of each key is kept: records must have keys.
    pub compact: bool,
    /// Milliseconds for which tombstones stay after they were cleaned first.
    pub delete_retention_ms: i64,
    /// A log is cleaned when a larger part of it than that was not, in millionths.
    pub min_cleanable_dirty_millionths: u32,
    /// Milliseconds for which records are not cleaned.
    pub min_compaction_lag_ms: i64,
    /// Milliseconds after which records are cleaned in any case.
    pub max_compaction_lag_ms: i64,
    /// How batches are stored.
    pub compression: StoredCompression,
    /// Acknowledge after so many records are stable; 1 acknowledges nothing before.
    pub flush_messages: u64,
    /// Longest time in milliseconds records stay unflushed.
    pub flush_ms: i64,
    /// Bytes between index entries.
    pub index_interval_bytes: u64,
    /// Largest batch in bytes.
    pub max_message_bytes: usize,
    /// How far in milliseconds timestamps may lie ahead.
    pub timestamp_after_max_ms: i64,
    /// How far in milliseconds timestamps may lie behind.
    pub timestamp_before_max_ms: i64,
    /// Whose time records carry.
    pub timestamp_type: TimestampType,
    /// Replicas in sync that acks=all needs.
    pub min_insync_replicas: i32,
    /// Bytes kept per partition; `None` keeps everything.
    pub retention_bytes: Option<u64>,
    /// Milliseconds records are kept; `None` keeps them for ever.
    pub retention_ms: Option<i64>,
    /// Bytes at which a segment rolls.
    pub segment_bytes: u64,
    /// Milliseconds after which a segment rolls.
    pub segment_ms: i64,
}

impl TopicConfig {
    /// Resolves a topic's overrides over the broker's defaults.
    ///
    /// # Panics
    /// If `overrides` were not checked by [`validate_topic_configs`].
    pub fn resolve(broker: &BrokerConfig, overrides: &Overrides) -> TopicConfig {
        let value = |name: &str| effective(broker, overrides, name).expect("checked when it was set");
        let number = |name: &str| value(name).as_i64();
        let size = |name: &str| u64::try_from(number(name)).unwrap_or(0);
        let policy = value("cleanup.policy");
        TopicConfig {
            delete: policy.as_list().iter().any(|element| element == "delete"),
            compact: policy.as_list().iter().any(|element| element == "compact"),
            delete_retention_ms: number("delete.retention.ms"),
            min_cleanable_dirty_millionths: millionths(value("min.cleanable.dirty.ratio").as_double()),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            max_compaction_lag_ms: number("max.compaction.lag.ms"),
            compression: stored_compression(&value),
            flush_messages: size("flush.messages"),
            flush_ms: number("flush.ms"),
            index_interval_bytes: size("index.interval.bytes"),
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or(0),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_type: match value("message.timestamp.type").to_string().as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_insync_replicas: i32::try_from(number("min.insync.replicas")).unwrap_or(i32::MAX),
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
            retention_ms: Some(number("retention.ms")).filter(|ms| *ms >= 0),
            segment_bytes: size("segment.bytes"),
            segment_ms: number("segment.ms"),
        }
    }
}

fn stored_compression(value: &dyn Fn(&str) -> Value) -> StoredCompression {
    let level = |name: &str| i32::try_from(value(name).as_i64()).unwrap_or(-1);
    match value("compression.type").to_string().as_str() {
        "uncompressed" => StoredCompression::Codec(Compression::None, 0),
        "gzip" => StoredCompression::Codec(Compression::Gzip, level("compression.gzip.level")),
        "snappy" => StoredCompression::Codec(Compression::Snappy, 0),
        "lz4" => StoredCompression::Codec(Compression::Lz4, level("compression.lz4.level")),
        "zstd" => StoredCompression::Codec(Compression::Zstd, level("compression.zstd.level")),
        _ => StoredCompression::Producer,
    }
}

/// Value of one topic config: the topic's own, else the broker's default for it.
///
/// # Errors
/// If the key is unknown or the topic's own value is refused.
pub fn effective(broker: &BrokerConfig, overrides: &Overrides, name: &str) -> Result<Value, ConfigError> {
    let def = find(Scope::Topic, name)?;
    match overrides.get(name) {
        Some(text) => def.parse(text),
        None => Ok(broker.topic_default(def)),
    }
}

/// Checks all configs of one topic, alone and against each other.
///
/// # Errors
/// The first fault found, in the order of the keys' names.
pub fn validate_topic_configs(broker: &BrokerConfig, overrides: &Overrides) -> Result<(), ConfigError> {
    validate_topic_configs_alone(overrides)?;
    let least = effective(broker, overrides, "min.compaction.lag.ms")?.as_i64();
    let most = effective(broker, overrides, "max.compaction.lag.ms")?.as_i64();
    if least > most {
        return Err(ConfigError::Conflict(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
        )));
    }
    Ok(())
}

/// Checks each config of one topic for itself.
///
/// # Errors
/// The first fault found: unknown keys first, then refused values, each in the order of the keys' names.
pub fn validate_topic_configs_alone(overrides: &Overrides) -> Result<(), ConfigError> {
    overrides.keys().try_for_each(|name| find(Scope::Topic, name).map(|_| ()))?;
    overrides.iter().try_for_each(|(name, text)| find(Scope::Topic, name)?.parse(text).map(|_| ()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::StaticConfig;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn broker(pairs: &[(&str, &str)]) -> BrokerConfig {
        BrokerConfig::from_static(StaticConfig::new(overrides(pairs)).unwrap()).unwrap()
    }

    #[test]
    fn defaults_are_durable_and_keep_a_week() {
        let config = TopicConfig::resolve(&broker(&[]), &Overrides::new());
        assert_eq!(config.flush_messages, 1);
        assert_eq!(config.retention_ms, Some(604_800_000));
        assert_eq!(config.retention_bytes, None);
        assert_eq!(config.segment_ms, 604_800_000);
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.compression, StoredCompression::Producer);
        assert!(config.delete && !config.compact);
        assert_eq!(config.min_cleanable_dirty_millionths, 500_000);
        assert_eq!((config.min_compaction_lag_ms, config.max_compaction_lag_ms), (0, i64::MAX));
        assert_eq!(config.delete_retention_ms, 86_400_000);
    }

    #[test]
    fn finer_broker_units_win_and_topics_win_over_brokers() {
        let coarse = broker(&[("log.retention.hours", "2"), ("log.roll.hours", "3")]);
        let config = TopicConfig::resolve(&coarse, &Overrides::new());
        assert_eq!((config.retention_ms, config.segment_ms), (Some(7_200_000), 10_800_000));
        let fine = broker(&[("log.retention.hours", "2"), ("log.retention.minutes", "1")]);
        assert_eq!(TopicConfig::resolve(&fine, &Overrides::new()).retention_ms, Some(60_000));
        let own = overrides(&[
            ("retention.ms", "-1"),
            ("compression.type", "zstd"),
            ("cleanup.policy", "compact,delete"),
        ]);
        let config = TopicConfig::resolve(&fine, &own);
        assert_eq!(config.retention_ms, None);
        assert_eq!(config.compression, StoredCompression::Codec(Compression::Zstd, 3));
        assert!(config.delete && config.compact);
        let forever = broker(&[("log.retention.hours", "-1")]);
        assert_eq!(TopicConfig::resolve(&forever, &Overrides::new()).retention_ms, None);
    }

    #[test]
    fn contradictions_are_refused() {
        let own = overrides(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")]);
        let error = validate_topic_configs(&broker(&[]), &own).unwrap_err().to_string();
        assert_eq!(
            error,
            "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
        );
        let error = validate_topic_configs(&broker(&[]), &overrides(&[("remote.storage.enable", "true")]))
            .unwrap_err();
        assert!(error.to_string().contains("only the default (false) is supported"), "{error}");
    }
}
