//! Brings the partitions of this shard to what the metadata says: opens, reconfigures, removes.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use penstock_core::config::TopicConfig;
use penstock_core::metadata::{MetadataImage, TopicImage};
use penstock_protocol::{Uuid, WireString};
use penstock_storage::{Compaction, LogConfig};

use super::{Partition, PartitionKey, Shard};
use crate::runtime::pace::Pace;

/// Logs created or removed at once: they share commits.
const CHANGES_AT_ONCE: usize = 64;

/// What is to be done with one partition's log.
enum Change {
    Open { key: PartitionKey, leader_epoch: i32, config: Arc<TopicConfig> },
    Remove(PartitionKey),
}

impl Shard {
    /// Opens the partitions of this shard after a start: all that the image has, and no other.
    pub(crate) async fn open_partitions(self: &Rc<Shard>) -> Result<(), String> {
        let _turn = self.apply_turn.acquire(1).await;
        // Read in turn: a retry must not bring partitions back to what they have left behind.
        let image = self.followed.borrow().clone();
        let mut topics: HashSet<Uuid> = image.topics().map(|topic| topic.id).collect();
        // Logs of topics whose deletion was decided, and not carried out before the end of the process.
        let keys = self.store.logs().into_iter().filter_map(|log| PartitionKey::from_log_name(&log.name()));
        topics.extend(keys.map(|key| key.topic_id));
        let topics: Vec<Uuid> = topics.into_iter().collect();
        self.bring(&image, &topics).await
    }

    /// Brings the partitions of `topics` on this shard to what the image, newer than all before it, says of them.
    pub(crate) async fn apply(
        self: &Rc<Shard>,
        image: &Arc<MetadataImage>,
        topics: &[Uuid],
    ) -> Result<(), String> {
        let _turn = self.apply_turn.acquire(1).await;
        *self.followed.borrow_mut() = image.clone();
        self.bring(image, topics).await
    }

    async fn bring(self: &Rc<Shard>, image: &MetadataImage, topics: &[Uuid]) -> Result<(), String> {
        let producer_expiration_ms = image.broker().producer_id_expiration_ms;
        let mut changes = self.removals(image, topics).await;
        let mut pace = Pace::new();
        for topic in topics.iter().filter_map(|id| image.topic_by_id(*id)) {
            pace.step(1 + topic.partitions.len()).await;
            changes.extend(self.openings(topic, producer_expiration_ms));
        }
        let mut outcomes = stream::iter(changes)
            .map(|change| self.carry_out(change, producer_expiration_ms))
            .buffer_unordered(CHANGES_AT_ONCE);
        let mut first_error = Ok(());
        while let Some(outcome) = outcomes.next().await {
            if let Err(error) = outcome {
                tracing::error!(shard = self.index, "{error}");
                self.behind.set(true);
                first_error = first_error.and(Err(error));
            }
        }
        drop(outcomes);
        self.lead_groups(image);
        self.forget_topics(self.deleted(image, topics));
        first_error
    }

    /// Topics that the image published last still has, and this one has not.
    fn deleted(&self, image: &MetadataImage, topics: &[Uuid]) -> Vec<(WireString, Uuid)> {
        let published = self.shared.image.load();
        let gone = topics.iter().filter(|id| image.topic_by_id(**id).is_none());
        gone.filter_map(|id| Some((published.topic_by_id(*id)?.name.clone(), *id))).collect()
    }

    /// Logs in the store whose partition the image does not know.
    async fn removals(&self, image: &MetadataImage, topics: &[Uuid]) -> Vec<Change> {
        let gone: HashSet<Uuid> =
            topics.iter().copied().filter(|id| image.topic_by_id(*id).is_none()).collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let (mut changes, mut pace) = (Vec::new(), Pace::new());
        for log in self.store.logs() {
            pace.step(1).await;
            let key = PartitionKey::from_log_name(&log.name());
            changes.extend(key.filter(|key| gone.contains(&key.topic_id)).map(Change::Remove));
        }
        changes
    }

    /// Partitions of the topic that belong here and are not open; those that are open are reconfigured at once.
    fn openings(&self, topic: &TopicImage, producer_expiration_ms: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        for (number, image) in (0..).zip(&topic.partitions) {
            let key = PartitionKey { topic_id: topic.id, partition: number };
            if self.shared.shard_of(&key, image.shard) != self.index {
                continue;
            }
            match self.partition(&key) {
                Some(open) => {
                    open.lead(image.leader_epoch);
                    open.log.set_config(log_config(&topic.config, producer_expiration_ms));
                    *open.config.borrow_mut() = topic.config.clone();
                }
                None => {
                    let config = topic.config.clone();
                    changes.push(Change::Open { key, leader_epoch: image.leader_epoch, config });
                }
            }
        }
        changes
    }

    async fn carry_out(&self, change: Change, producer_expiration_ms: i64) -> Result<(), String> {
        match change {
            Change::Open { key, leader_epoch, config: topic_config } => {
                let config = log_config(&topic_config, producer_expiration_ms);
                let name = key.to_string();
                let log = match self.store.log(&name) {
                    Some(log) => {
                        log.set_config(config);
                        log
                    }
                    None => self
                        .store
                        .create_log(&name, config)
                        .await
                        .map_err(|error| format!("cannot create log {name}: {error}"))?,
                };
                let partition = Partition::new(log, leader_epoch, topic_config);
                self.partitions.borrow_mut().insert(key, partition);
                Ok(())
            }
            Change::Remove(key) => {
                let open = self.partitions.borrow_mut().remove(&key);
                if let Some(open) = open {
                    open.set_removed();
                }
                let name = key.to_string();
                self.store
                    .remove_log(&name)
                    .await
                    .map_err(|error| format!("cannot remove log {name}: {error}"))
            }
        }
    }
}

/// A topic's configs as the log engine takes them.
pub(crate) fn log_config(topic: &TopicConfig, producer_expiration_ms: i64) -> LogConfig {
    // Only topics with the delete policy lose records by age or size.
    let retention_bytes = topic.retention_bytes.filter(|_| topic.delete);
    let retention_ms = topic.retention_ms.filter(|_| topic.delete);
    LogConfig {
        segment_bytes: topic.segment_bytes,
        segment_ms: topic.segment_ms,
        retention_bytes: retention_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        retention_ms: retention_ms.unwrap_or(-1),
        index_interval_bytes: u32::try_from(topic.index_interval_bytes).unwrap_or(u32::MAX),
        flush_messages: topic.flush_messages,
        producer_expiration_ms,
        compaction: topic.compact.then_some(Compaction {
            min_dirty_millionths: topic.min_cleanable_dirty_millionths,
            min_lag_ms: topic.min_compaction_lag_ms,
            max_lag_ms: topic.max_compaction_lag_ms,
            delete_retention_ms: topic.delete_retention_ms,
        }),
    }
}
