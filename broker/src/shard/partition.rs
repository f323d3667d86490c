//! One partition on its shard.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use penstock_core::config::TopicConfig;
use penstock_core::partition::{EpochEnd, EpochInLog, LogView};
use penstock_protocol::Uuid;
use smallvec::SmallVec;

use super::ShardLog;
use super::append_line::AppendLine;
use super::watch::Watchers;

/// One for each partition of a request. Clients that send small batches name one: what is kept of theirs takes no memory
/// of its own, each piece of which would be out of the processor's caches when the request is answered.
pub(crate) type PerPartition<T> = SmallVec<[T; 1]>;

/// Names a partition for ever: a topic created again under its old name has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PartitionKey {
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
}

/// The name of the partition's log: topic id and partition number.
impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

impl PartitionKey {
    /// The partition whose log has this name; `None` for logs that are no partition's.
    pub(crate) fn from_log_name(name: &str) -> Option<PartitionKey> {
        let (id, partition) = name.rsplit_once('-')?;
        let key = PartitionKey { topic_id: id.parse().ok()?, partition: partition.parse().ok()? };
        (key.partition >= 0 && key.to_string() == name).then_some(key)
    }
}

/// A partition that this node leads.
pub(crate) struct Partition {
    pub(crate) log: ShardLog,
    leader_epoch: Cell<i32>,
    /// Where the log ended when that epoch began.
    epoch_start_offset: Cell<i64>,
    pub(crate) config: RefCell<Arc<TopicConfig>>,
    pub(super) append_line: AppendLine,
    /// See [`Partition::set_removed`].
    removed: Cell<bool>,
    /// Whoever waits for the high watermark or the log start to move.
    pub(crate) watchers: Rc<Watchers>,
}

impl Partition {
    pub(crate) fn new(log: ShardLog, leader_epoch: i32, config: Arc<TopicConfig>) -> Rc<Partition> {
        let watchers = Rc::new(Watchers::default());
        let fire = watchers.clone();
        log.on_change(Some(Rc::new(move || fire.fire())));
        let epoch_start_offset = Cell::new(log.log_end_offset());
        let (leader_epoch, config) = (Cell::new(leader_epoch), RefCell::new(config));
        let append_line = AppendLine::new();
        let removed = Cell::new(false);
        Rc::new(Partition { log, leader_epoch, epoch_start_offset, config, append_line, removed, watchers })
    }

    /// Epoch of the present leadership.
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.leader_epoch.get()
    }

    /// Goes on under this epoch, which may be the present one.
    pub(crate) fn lead(&self, leader_epoch: i32) {
        if self.leader_epoch.replace(leader_epoch) != leader_epoch {
            self.epoch_start_offset.set(self.log.log_end_offset());
        }
    }

    /// It is not this shard's any more: whoever holds it still, or watches it, finds out.
    pub(super) fn set_removed(&self) {
        self.removed.set(true);
        self.watchers.fire();
    }

    /// Whether it is not this shard's any more.
    pub(super) fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// The log as decisions see it.
    pub(crate) fn view(&self) -> LogView {
        let (leader_epoch, high_watermark) = (self.leader_epoch.get(), self.high_watermark());
        let log_start_offset = self.log.log_start_offset();
        LogView {
            leader_epoch,
            epoch_start_offset: self.epoch_start_offset.get(),
            log_start_offset,
            log_start_epoch: self.log.epoch_at(log_start_offset).unwrap_or(leader_epoch),
            // Without transactions every record below the high watermark is settled.
            last_stable_offset: high_watermark,
            high_watermark,
            log_end_offset: self.log.log_end_offset(),
        }
    }

    /// What the log's records say of an epoch.
    pub(crate) fn epoch_in_log(&self, epoch: i32) -> EpochInLog {
        let found = self.log.epoch_end_offset(epoch);
        let found = found.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset });
        EpochInLog { latest: self.log.latest_epoch(), found }
    }

    /// Exclusive end of what consumers may see. With one replica that is what counts as written on it: what is
    /// stable if `flush.messages` is 1, else what was appended.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.log.written_offset()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn log_names_name_partitions_and_nothing_else() {
        let key = PartitionKey { topic_id: Uuid([0xfb; 16]), partition: 12 };
        assert_eq!(PartitionKey::from_log_name(&key.to_string()), Some(key));
        for name in ["__cluster_metadata", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAA-01", "x-0"] {
            assert_eq!(PartitionKey::from_log_name(name), None, "{name}");
        }
    }
}
