//! A log that can be slow, refuse appends, and lose its tail in a crash.

use std::collections::VecDeque;
use std::sync::Arc;

use penstock_core::config::{BrokerConfig, StaticConfig};
use penstock_core::coordinator::{AppendId, Effect, RequestId};
use penstock_core::group::{
    GroupConfig, GroupCoordinator, GroupMachine, GroupRecord, GroupResponse, KeyValue,
};
use penstock_protocol::{ErrorCode, WireString};

/// The partition under test.
pub(crate) const PARTITION: i32 = 0;

/// Kafka's defaults, with some changed.
pub(crate) fn config(changed: &[(&str, &str)]) -> Arc<GroupConfig> {
    let values = changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let statics = StaticConfig::new(values).unwrap();
    Arc::new(BrokerConfig::from_static(statics).unwrap().group)
}

/// A coordinator with its log, driven as a broker does.
pub(crate) struct Host {
    pub(crate) coordinator: GroupCoordinator,
    pub(crate) config: Arc<GroupConfig>,
    /// What a crash leaves.
    pub(crate) durable: Vec<KeyValue>,
    /// What was appended and not flushed yet.
    pub(crate) written: VecDeque<(AppendId, Vec<KeyValue>)>,
    pub(crate) replies: Vec<(RequestId, GroupResponse)>,
    /// Groups that were removed: a later group of the name begins with the first generation again.
    pub(crate) removed: Vec<WireString>,
}

impl Host {
    pub(crate) fn new(config: Arc<GroupConfig>, now_ms: i64) -> Host {
        let coordinator = GroupCoordinator::default();
        let (durable, written, replies) = (Vec::new(), VecDeque::new(), Vec::new());
        let mut host = Host { coordinator, config, durable, written, replies, removed: Vec::new() };
        host.load(now_ms);
        host
    }

    pub(crate) fn load(&mut self, now_ms: i64) {
        self.coordinator.begin(PARTITION, GroupMachine::new(Arc::clone(&self.config)));
        for KeyValue { key, value } in &self.durable {
            let record = GroupRecord::decode(Some(key), value.as_ref()).unwrap().unwrap();
            self.coordinator.load(PARTITION, &record, now_ms);
        }
        self.coordinator.loaded(PARTITION, now_ms);
    }

    /// Carries out effects. `refuse` says which appends fail, and how.
    pub(crate) fn drain(&mut self, now_ms: i64, mut refuse: impl FnMut() -> Option<ErrorCode>) {
        while let Some(effect) = self.coordinator.poll_effect() {
            match effect {
                Effect::Reply { to, response } => self.replies.push((to, response)),
                Effect::Append { append, records, .. } => match refuse() {
                    Some(code) => self.coordinator.append_failed(PARTITION, append, code, now_ms),
                    None => {
                        self.removed.extend(records.iter().filter_map(|record| match record {
                            GroupRecord::Group(group, None) => Some(group.clone()),
                            _ => None,
                        }));
                        let records = records.iter().map(GroupRecord::encode).collect();
                        self.written.push_back((append, records));
                    }
                },
            }
        }
    }

    /// Flushes the oldest append.
    pub(crate) fn flush_one(&mut self, now_ms: i64) {
        if let Some((append, records)) = self.written.pop_front() {
            self.durable.extend(records);
            self.coordinator.append_done(PARTITION, append, now_ms);
        }
    }

    /// Leadership is lost; of what was not flushed, the first `kept` appends survive.
    pub(crate) fn crash(&mut self, kept: usize, now_ms: i64) {
        self.coordinator.unload(PARTITION, ErrorCode::NotCoordinator);
        for (_, records) in self.written.drain(..).take(kept) {
            self.durable.extend(records);
        }
        self.drain(now_ms, || unreachable!("nothing is appended without leadership"));
    }
}
