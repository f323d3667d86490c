//! Questions about partitions of this shard, and the deletion of their records.

use std::rc::Rc;

use penstock_core::partition::{
    EpochEnd, FoundOffset, LogView, OffsetQuestion, OffsetStep, PartitionFailure, Search, check_leader_epoch,
    deletion_offset, epoch_end,
};
use penstock_format::Compression;
use penstock_storage::{BatchSearch, StoreError, TimestampOffset};

use super::{Partition, PartitionKey, Shard, fetch};
use crate::runtime::pace::{Pace, STRETCH_ENTRIES};

/// A question about one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartitionQuery {
    pub(crate) key: PartitionKey,
    pub(crate) query: Query,
}

/// What is asked, or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    /// An offset by time or by what it means.
    Offset(OffsetQuestion),
    /// Where an epoch ends; the client claims to know the leader's.
    EpochEnd { epoch: i32, claimed_epoch: Option<i32> },
    /// Deletes all records before this offset; -1 is the high watermark.
    DeleteBefore(i64),
}

/// An answer: which of the fields mean something depends on the query.
pub(crate) type QueryAnswer = FoundOffset;

impl Shard {
    /// Answers each query in turn.
    pub(crate) async fn query(
        &self,
        queries: Vec<PartitionQuery>,
    ) -> Vec<Result<QueryAnswer, PartitionFailure>> {
        let mut outcomes = Vec::with_capacity(queries.len());
        let mut pace = Pace::new();
        for query in queries {
            pace.step(1).await;
            outcomes.push(self.query_one(query).await);
        }
        outcomes
    }

    async fn query_one(&self, asked: PartitionQuery) -> Result<QueryAnswer, PartitionFailure> {
        let partition = self.served(&asked.key)?;
        match asked.query {
            Query::Offset(question) => match question.begin(&partition.view())? {
                OffsetStep::Done(found) => Ok(found),
                OffsetStep::Search(search) => {
                    let found = self.search(&partition, search).await?;
                    question.finish(&partition.view(), found)
                }
            },
            Query::EpochEnd { epoch, claimed_epoch } => {
                let view: LogView = partition.view();
                check_leader_epoch(claimed_epoch, view.leader_epoch)?;
                let end = epoch_end(&view, epoch, partition.epoch_in_log(epoch));
                Ok(end.map_or(FoundOffset::NOTHING, |EpochEnd { epoch, end_offset }| FoundOffset {
                    offset: end_offset,
                    timestamp: -1,
                    leader_epoch: epoch,
                }))
            }
            Query::DeleteBefore(offset) => delete_before(&partition, offset).await,
        }
    }

    async fn search(
        &self,
        partition: &Partition,
        search: Search,
    ) -> Result<Option<FoundOffset>, PartitionFailure> {
        // The bound under which the batch was taken: see `api::produce_batches`.
        let bytes_max = self.shared.config.socket_request_max_bytes;
        let open = async |search: BatchSearch| {
            let (batch, unopened) = (search.batch(), search.unopened());
            let packed = batch.header.compression() != Ok(Compression::None);
            if packed || batch.header.record_count > STRETCH_ENTRIES as i32 {
                // A panic has been told of by the worker.
                return self.workers.run(move || search.run(bytes_max)).await.unwrap_or(Some(unopened));
            }
            search.run(bytes_max)
        };
        let found = match search {
            Search::AtTime(time) => partition.log.offset_for_time(time, open).await,
            Search::MaxTimestamp => partition.log.max_timestamp(open).await,
        };
        let found = found.map_err(|error| fetch::failed(self.index, partition, &error))?;
        Ok(found.map(|TimestampOffset { offset, timestamp, leader_epoch }| FoundOffset {
            offset,
            timestamp,
            leader_epoch,
        }))
    }
}

async fn delete_before(partition: &Rc<Partition>, offset: i64) -> Result<QueryAnswer, PartitionFailure> {
    let offset = deletion_offset(&partition.view(), offset)?;
    match partition.log.delete_records(offset).await {
        Ok(start) => Ok(FoundOffset { offset: start, ..FoundOffset::NOTHING }),
        Err(StoreError::OutOfRange { .. }) => Err(PartitionFailure::OutOfRange),
        Err(StoreError::Busy | StoreError::Closed) => Err(PartitionFailure::Busy),
        Err(
            error @ (StoreError::Offline(_)
            | StoreError::Exists(_)
            | StoreError::NotFound(_)
            | StoreError::InvalidName(_)
            | StoreError::DiskFull
            | StoreError::JournalFull
            | StoreError::Io(_)),
        ) => {
            tracing::error!(log = %partition.log.name(), "deleting records failed: {error}");
            Err(PartitionFailure::Storage)
        }
    }
}
