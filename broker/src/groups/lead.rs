//! Beginning and ending coordinators as the partitions of `__consumer_offsets` come and go on this shard.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use penstock_core::group::{
    Caller, GroupCall, GroupMachine, GroupRecord, GroupRequest, GroupResponse, OFFSETS_TOPIC, RecordError,
};
use penstock_core::metadata::MetadataImage;
use penstock_format::{Batch, BatchError, Records, RecordsError};
use penstock_protocol::{ErrorCode, Uuid, WireString};
use penstock_storage::ReadError;

use crate::runtime::task;
use crate::shard::{Partition, PartitionKey, Shard};

/// Bytes read at once while loading.
const READ_BYTES: usize = 1 << 20;
/// Bound on one batch's records, unpacked: far above what one request makes.
const RECORDS_BYTES_MAX: usize = 64 << 20;
/// Time between two attempts to load a partition that could not be read: too many files may be open just now.
const LOAD_PAUSE: Duration = Duration::from_secs(1);
/// Attempts, after which its groups are not served.
const LOAD_ATTEMPTS: usize = 30;
/// Time between two attempts to forget the offsets of topics that are gone.
const FORGET_PAUSE: Duration = Duration::from_secs(1);
/// Attempts, after which their expiry has to do.
const FORGET_ATTEMPTS: usize = 30;

/// Why a partition cannot be loaded.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("cannot be read at offset {0}: {1}")]
    Read(i64, ReadError),
    #[error("is damaged at offset {0}: {1}")]
    Batch(i64, BatchError),
    #[error("is damaged at offset {0}: {1}")]
    Records(i64, RecordsError),
    #[error("cannot be understood at offset {0}: {1}; a newer release may have written it")]
    Record(i64, RecordError),
}

fn new_machine(image: &MetadataImage) -> GroupMachine {
    GroupMachine::new(Arc::new(image.broker().group.clone()))
}

impl Shard {
    /// Begins coordinators for the open partitions of `__consumer_offsets` that have none, and ends those whose
    /// partition is gone.
    pub(crate) fn lead_groups(self: &Rc<Shard>, image: &MetadataImage) {
        let topic = image.topic(OFFSETS_TOPIC);
        let open = |number: i32| {
            let topic = topic?;
            self.partition(&PartitionKey { topic_id: topic.id, partition: number })
        };
        let groups = &self.groups;
        let led: Vec<i32> = groups.led.borrow().keys().copied().collect();
        for number in led {
            if !open(number).is_some_and(|partition| groups.leads(number, &partition)) {
                groups.led.borrow_mut().remove(&number);
                groups.coordinator.borrow_mut().unload(number, ErrorCode::NotCoordinator);
            }
        }
        let partitions = topic.map_or(0, |topic| topic.partitions.len());
        for number in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let Some(partition) = open(number) else { continue };
            if groups.led.borrow().contains_key(&number) {
                continue;
            }
            groups.coordinator.borrow_mut().begin(number, new_machine(image));
            groups.led.borrow_mut().insert(number, partition.clone());
            task::spawn("loading of groups", self.clone().load_groups(number, partition));
        }
        self.carry_out_groups();
    }

    /// Replays the partition's log; what cannot be loaded is not served.
    async fn load_groups(self: Rc<Shard>, number: i32, partition: Rc<Partition>) {
        let groups = &self.groups;
        let mut loaded = self.replay_groups(number, &partition).await;
        for _ in 1..LOAD_ATTEMPTS {
            let Err(error @ LoadError::Read(_, ReadError::Io(_))) = &loaded else { break };
            if partition.log.offline().is_some() {
                break;
            }
            tracing::warn!(shard = self.index, "{OFFSETS_TOPIC}-{number} {error}; it is tried again");
            task::sleep(LOAD_PAUSE).await;
            if !groups.leads(number, &partition) {
                return;
            }
            let machine = new_machine(&self.shared.image.load());
            groups.coordinator.borrow_mut().unload(number, ErrorCode::CoordinatorLoadInProgress);
            groups.coordinator.borrow_mut().begin(number, machine);
            loaded = self.replay_groups(number, &partition).await;
        }
        if !groups.leads(number, &partition) {
            return;
        }
        match loaded {
            Ok(()) => groups.coordinator.borrow_mut().loaded(number, groups.clock.now_ms()),
            Err(error) => {
                tracing::error!(
                    shard = self.index,
                    "{OFFSETS_TOPIC}-{number} {error}; its groups are not served"
                );
                // As in Apache Kafka: it is not to become better by waiting.
                groups.coordinator.borrow_mut().unload(number, ErrorCode::NotCoordinator);
            }
        }
        self.carry_out_groups();
    }

    async fn replay_groups(&self, number: i32, partition: &Rc<Partition>) -> Result<(), LoadError> {
        let log = &partition.log;
        // Its end may be before what was acknowledged: an empty answer would send members back to the beginning.
        if let Some(offline) = log.offline() {
            return Err(LoadError::Read(log.log_start_offset(), ReadError::Offline(offline)));
        }
        let end = log.log_end_offset();
        let mut next = log.log_start_offset();
        while next < end && self.groups.leads(number, partition) {
            let read = log.read(next, READ_BYTES, end, true).await.map_err(|e| LoadError::Read(next, e))?;
            let joined = penstock_protocol::Records::from(read.slices).to_bytes();
            let batches = penstock_format::split_batches(&joined, usize::MAX);
            for batch in batches.map_err(|e| LoadError::Batch(next, e))? {
                if !self.groups.leads(number, partition) {
                    return Ok(());
                }
                self.replay_group_batch(number, &batch)?;
            }
            // Behind the last batch there may be offsets without records.
            next = if read.next_offset > next { read.next_offset } else { end };
            task::yield_now().await;
        }
        Ok(())
    }

    fn replay_group_batch(&self, number: i32, batch: &Batch) -> Result<(), LoadError> {
        if batch.header.is_control() {
            return Ok(());
        }
        let base = batch.header.base_offset;
        let records =
            Records::open(batch, RECORDS_BYTES_MAX).map_err(|error| LoadError::Records(base, error))?;
        let now_ms = self.groups.clock.now_ms();
        for record in records.iter() {
            let record = record.map_err(|error| LoadError::Records(base, error))?;
            // Copied: what a group keeps of them must not pin the whole read.
            let key = record.key.map(Bytes::copy_from_slice);
            let value = record.value.map(Bytes::copy_from_slice);
            let decoded = GroupRecord::decode(key.as_ref(), value.as_ref());
            let decoded = decoded.map_err(|error| LoadError::Record(record.offset, error))?;
            if let Some(record) = decoded {
                self.groups.coordinator.borrow_mut().load(number, &record, now_ms);
            }
        }
        Ok(())
    }

    /// Forgets the offsets committed for topics that were deleted.
    pub(crate) fn forget_topics(self: &Rc<Shard>, gone: Vec<(WireString, Uuid)>) {
        if gone.is_empty() || self.groups.led.borrow().is_empty() {
            return;
        }
        let shard = self.clone();
        task::spawn("forgetting of deleted topics", async move {
            for _ in 0..FORGET_ATTEMPTS {
                if shard.draining() {
                    return;
                }
                let caller = Caller {
                    version: 0,
                    client_id: WireString::default(),
                    client_host: WireString::default(),
                    fresh_id: Uuid::ZERO,
                };
                let call = GroupCall { caller, request: GroupRequest::TopicsDeleted(gone.clone()) };
                let answers = shard.ask_groups_here(call).await;
                let done = |answer: &GroupResponse| {
                    matches!(
                        answer,
                        GroupResponse::TopicsDeleted(ErrorCode::None | ErrorCode::NotCoordinator)
                    )
                };
                if answers.iter().all(done) {
                    return;
                }
                task::sleep(FORGET_PAUSE).await;
            }
            tracing::warn!(shard = shard.index, "offsets of deleted topics stay until they expire");
        });
    }
}
