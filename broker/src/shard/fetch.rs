//! Reading from partitions of this shard for consumers.

use std::rc::Rc;
use std::sync::Arc;

use penstock_core::partition::fetch::PartitionData;
use penstock_core::partition::{Isolation, PartitionFailure, PartitionRead, ReadBudget, ReadPlan, plan_read};
use penstock_storage::ReadError;

use super::{Partition, PartitionKey, Shard, Signal};
use crate::runtime::pace::Pace;

/// Reads of several partitions of one shard.
#[derive(Clone)]
pub(crate) struct ReadRequest {
    pub(crate) reads: Vec<(PartitionKey, PartitionRead)>,
    pub(crate) isolation: Isolation,
    /// What all of them share.
    pub(crate) budget: ReadBudget,
    /// Left with all partitions, to be fired by the next change of one of them.
    pub(crate) watch: Option<Arc<Signal>>,
}

impl Shard {
    /// The partition, if it is here and its log serves. One that is offline may know less than was acknowledged: nothing is
    /// told of its offsets, as in Apache Kafka.
    pub(super) fn served(&self, key: &PartitionKey) -> Result<Rc<Partition>, PartitionFailure> {
        let partition = self.partition(key).ok_or(PartitionFailure::NotHere)?;
        match partition.log.offline() {
            None => Ok(partition),
            Some(_) => Err(PartitionFailure::Storage),
        }
    }

    /// Reads each partition in turn, as long as the bytes last.
    pub(crate) async fn read(&self, request: ReadRequest) -> Vec<Result<PartitionData, PartitionFailure>> {
        let ReadRequest { reads, isolation, mut budget, watch } = request;
        let mut found = 0;
        let mut outcomes = Vec::with_capacity(reads.len());
        // Before the reads: what comes between a read and its end fires the signal.
        if let Some(signal) = &watch {
            for partition in reads.iter().filter_map(|(key, _)| self.partition(key)) {
                partition.watchers.add(signal);
            }
        }
        let mut pace = Pace::new();
        for (key, read) in &reads {
            pace.step(1).await;
            let outcome = match self.served(key) {
                Ok(partition) => self.read_one(&partition, read, isolation, budget).await,
                Err(failure) => Err(failure),
            };
            if let Ok(data) = &outcome {
                budget.spend(data.bytes);
                found += data.bytes;
            }
            outcomes.push(outcome);
        }
        self.metrics.read(found);
        outcomes
    }

    async fn read_one(
        &self,
        partition: &Rc<Partition>,
        read: &PartitionRead,
        isolation: Isolation,
        budget: ReadBudget,
    ) -> Result<PartitionData, PartitionFailure> {
        let view = partition.view();
        let in_log = read.last_fetched_epoch.map(|epoch| partition.epoch_in_log(epoch));
        let data = PartitionData {
            high_watermark: view.high_watermark,
            last_stable_offset: view.last_stable_offset,
            log_start_offset: view.log_start_offset,
            ..PartitionData::nothing(read.offset)
        };
        let upper = match plan_read(&view, isolation, read, in_log)? {
            ReadPlan::UpTo(upper) => upper,
            ReadPlan::Diverging(end) => return Ok(PartitionData { diverging: Some(end), ..data }),
        };
        let batches = partition.log.read(read.offset, budget.limit(read), upper, budget.at_least_one).await;
        match batches {
            Ok(batches) => Ok(PartitionData {
                bytes: batches.bytes,
                next_offset: batches.next_offset,
                slices: batches.slices,
                ..data
            }),
            Err(error) => Err(failed(self.index, partition, &error)),
        }
    }
}

/// What a failed read of the log means; logged here, where it is consumed.
pub(super) fn failed(shard: usize, partition: &Partition, error: &ReadError) -> PartitionFailure {
    let log = partition.log.name();
    match error {
        // Records were deleted in the meantime.
        ReadError::OutOfRange { .. } => PartitionFailure::OutOfRange,
        ReadError::Corrupt { .. } => {
            tracing::error!(shard, %log, "corrupt batch: {error}");
            PartitionFailure::Corrupt
        }
        ReadError::Io(_) => {
            tracing::error!(shard, %log, "{error}");
            PartitionFailure::Storage
        }
        // Said when it went offline.
        ReadError::Offline(_) => PartitionFailure::Storage,
    }
}
