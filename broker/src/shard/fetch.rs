//! Reading from partitions of this shard for consumers.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use penstock_storage::ReadError;

use super::{Partition, PartitionKey, Shard, Signal};

/// Where to read one partition, and how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartitionRead {
    pub(crate) key: PartitionKey,
    pub(crate) offset: i64,
    pub(crate) bytes_max: usize,
    /// Epoch of which the client knows the leader, -1 if it does not say.
    pub(crate) current_leader_epoch: i32,
    /// Epoch of the last record the client has, -1 if it does not say.
    pub(crate) last_fetched_epoch: i32,
}

/// Reads of several partitions of one shard.
#[derive(Clone)]
pub(crate) struct ReadRequest {
    pub(crate) reads: Vec<PartitionRead>,
    /// Bytes of all partitions together.
    pub(crate) bytes_max: usize,
    /// Whether the first partition that has data gives a whole batch even beyond its limit (KIP-74).
    pub(crate) at_least_one: bool,
    /// Left with all partitions, to be fired by the next change of one of them.
    pub(crate) watch: Option<Arc<Signal>>,
}

/// What a partition gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionData {
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) slices: Vec<Bytes>,
    pub(crate) bytes: usize,
    /// Offset after the last record given.
    pub(crate) next_offset: i64,
    /// The client's log parted from this one: largest epoch common to both, and where it ends here.
    pub(crate) diverging: Option<(i32, i64)>,
}

/// Why a partition gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadFailure {
    /// The partition is not on this shard (yet, or any more).
    NotHere,
    /// The client knows an older leader epoch.
    FencedEpoch,
    /// The client knows a newer leader epoch.
    UnknownEpoch,
    /// The offset is outside the log.
    OutOfRange { high_watermark: i64, log_start_offset: i64 },
    /// The bytes on disk are damaged.
    Corrupt,
    /// The disk failed, now or earlier.
    Storage,
}

impl Shard {
    /// Reads each partition in turn, as long as the bytes last.
    pub(crate) async fn read(&self, request: ReadRequest) -> Vec<Result<PartitionData, ReadFailure>> {
        let mut left = request.bytes_max;
        let mut at_least_one = request.at_least_one;
        let mut found = 0;
        let mut outcomes = Vec::with_capacity(request.reads.len());
        // Before the reads: what comes between a read and its end fires the signal.
        if let Some(signal) = &request.watch {
            for partition in request.reads.iter().filter_map(|read| self.partition(&read.key)) {
                partition.watchers.add(signal);
            }
        }
        for read in &request.reads {
            let outcome = match self.partition(&read.key) {
                Some(partition) => self.read_one(&partition, read, left, at_least_one).await,
                None => Err(ReadFailure::NotHere),
            };
            if let Ok(data) = &outcome {
                left = left.saturating_sub(data.bytes);
                found += data.bytes;
                at_least_one &= data.bytes == 0;
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
        left: usize,
        at_least_one: bool,
    ) -> Result<PartitionData, ReadFailure> {
        check_epoch(partition, read.current_leader_epoch)?;
        let log = &partition.log;
        let mut data = PartitionData {
            high_watermark: partition.high_watermark(),
            log_start_offset: log.log_start_offset(),
            next_offset: read.offset,
            ..PartitionData::default()
        };
        if let Some(diverging) = diverging(partition, read) {
            data.diverging = Some(diverging);
            return Ok(data);
        }
        let bytes_max = read.bytes_max.min(left);
        let batches = log.read(read.offset, bytes_max, data.high_watermark, at_least_one).await;
        match batches {
            Ok(batches) => {
                data.bytes = batches.bytes;
                data.next_offset = batches.next_offset;
                data.slices = batches.slices;
                Ok(data)
            }
            Err(ReadError::OutOfRange { .. }) => Err(ReadFailure::OutOfRange {
                high_watermark: data.high_watermark,
                log_start_offset: data.log_start_offset,
            }),
            Err(ReadError::Corrupt { segment_base, position }) => {
                tracing::error!(shard = self.index, log = %log.name(), segment_base, position, "corrupt batch");
                Err(ReadFailure::Corrupt)
            }
            Err(ReadError::Io(error)) => {
                tracing::error!(shard = self.index, log = %log.name(), "read failed: {error}");
                Err(ReadFailure::Storage)
            }
            Err(ReadError::Offline(_)) => Err(ReadFailure::Storage),
        }
    }
}

/// Compares the leader epoch the client knows with the partition's (KIP-320).
pub(super) fn check_epoch(partition: &Partition, current: i32) -> Result<(), ReadFailure> {
    let epoch = partition.leader_epoch.get();
    match current {
        current if current < 0 || current == epoch => Ok(()),
        current if current < epoch => Err(ReadFailure::FencedEpoch),
        _ => Err(ReadFailure::UnknownEpoch),
    }
}

/// Where this log parted from the client's, if it did (KIP-595).
fn diverging(partition: &Partition, read: &PartitionRead) -> Option<(i32, i64)> {
    if read.last_fetched_epoch < 0 {
        return None;
    }
    let (epoch, end) = partition.log.epoch_end_offset(read.last_fetched_epoch).unwrap_or((-1, -1));
    (epoch < read.last_fetched_epoch || end < read.offset).then_some((epoch, end))
}
