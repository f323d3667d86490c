//! Which broker configs give a topic config its default.

/// How a broker config's unit becomes the topic config's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The same unit.
    Same,
    /// Minutes to milliseconds.
    Minutes,
    /// Hours to milliseconds.
    Hours,
}

impl Unit {
    /// Milliseconds in one of this unit, 1 where units are the same.
    pub fn factor(self) -> i64 {
        match self {
            Unit::Same => 1,
            Unit::Minutes => 60_000,
            Unit::Hours => 3_600_000,
        }
    }
}

/// A broker config that stands for a topic config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker config.
    pub name: &'static str,
    /// How its value is converted.
    pub unit: Unit,
}

const fn same(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Same }
}

const SYNONYMS: &[(&str, &[Synonym])] = &[
    ("cleanup.policy", &[same("log.cleanup.policy")]),
    ("compression.gzip.level", &[same("compression.gzip.level")]),
    ("compression.lz4.level", &[same("compression.lz4.level")]),
    ("compression.type", &[same("compression.type")]),
    ("compression.zstd.level", &[same("compression.zstd.level")]),
    ("delete.retention.ms", &[same("log.cleaner.delete.retention.ms")]),
    ("file.delete.delay.ms", &[same("log.segment.delete.delay.ms")]),
    ("flush.messages", &[same("log.flush.interval.messages")]),
    ("flush.ms", &[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")]),
    ("index.interval.bytes", &[same("log.index.interval.bytes")]),
    ("local.retention.bytes", &[same("log.local.retention.bytes")]),
    ("local.retention.ms", &[same("log.local.retention.ms")]),
    ("max.compaction.lag.ms", &[same("log.cleaner.max.compaction.lag.ms")]),
    ("max.message.bytes", &[same("message.max.bytes")]),
    ("message.timestamp.after.max.ms", &[same("log.message.timestamp.after.max.ms")]),
    ("message.timestamp.before.max.ms", &[same("log.message.timestamp.before.max.ms")]),
    ("message.timestamp.type", &[same("log.message.timestamp.type")]),
    ("min.cleanable.dirty.ratio", &[same("log.cleaner.min.cleanable.ratio")]),
    ("min.compaction.lag.ms", &[same("log.cleaner.min.compaction.lag.ms")]),
    ("min.insync.replicas", &[same("min.insync.replicas")]),
    ("preallocate", &[same("log.preallocate")]),
    ("retention.bytes", &[same("log.retention.bytes")]),
    (
        "retention.ms",
        &[
            same("log.retention.ms"),
            Synonym { name: "log.retention.minutes", unit: Unit::Minutes },
            Synonym { name: "log.retention.hours", unit: Unit::Hours },
        ],
    ),
    ("segment.bytes", &[same("log.segment.bytes")]),
    ("segment.index.bytes", &[same("log.index.size.max.bytes")]),
    (
        "segment.jitter.ms",
        &[same("log.roll.jitter.ms"), Synonym { name: "log.roll.jitter.hours", unit: Unit::Hours }],
    ),
    ("segment.ms", &[same("log.roll.ms"), Synonym { name: "log.roll.hours", unit: Unit::Hours }]),
    ("unclean.leader.election.enable", &[same("unclean.leader.election.enable")]),
];

/// Broker configs that give `topic_key` its default, the one that wins first; empty where there is none.
pub fn of_topic_config(topic_key: &str) -> &'static [Synonym] {
    SYNONYMS.iter().find(|(name, _)| *name == topic_key).map_or(&[], |(_, synonyms)| synonyms)
}

/// Names under which a broker config may be set, the one that wins first. A coarser unit stands in for a finer one,
/// never the other way round.
pub fn of_broker_config(name: &'static str) -> Vec<&'static str> {
    let group = SYNONYMS
        .iter()
        .map(|(_, synonyms)| *synonyms)
        .find(|synonyms| synonyms.len() > 1 && synonyms.iter().any(|synonym| synonym.name == name));
    let Some(group) = group else { return vec![name] };
    group.iter().map(|synonym| synonym.name).skip_while(|other| *other != name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{broker_defs, topic_defs};

    #[test]
    fn synonyms_name_existing_keys() {
        for (topic_key, synonyms) in SYNONYMS {
            assert!(topic_defs().contains_key(topic_key), "{topic_key}");
            for synonym in *synonyms {
                assert!(broker_defs().contains_key(synonym.name), "{}", synonym.name);
            }
        }
    }

    #[test]
    fn finer_units_win() {
        assert_eq!(of_broker_config("log.roll.ms"), ["log.roll.ms", "log.roll.hours"]);
        assert_eq!(of_broker_config("log.roll.hours"), ["log.roll.hours"]);
        assert_eq!(of_broker_config("node.id"), ["node.id"]);
    }
}
