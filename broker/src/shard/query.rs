//! Questions about partitions of this shard, and the deletion of their records.

use std::rc::Rc;

use penstock_storage::{ReadError, StoreError, TimestampOffset};

use super::fetch::check_epoch;
use super::{Partition, PartitionKey, ReadFailure, Shard};

/// A question about one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartitionQuery {
    pub(crate) key: PartitionKey,
    /// Epoch of which the client knows the leader, -1 if it does not say.
    pub(crate) current_leader_epoch: i32,
    pub(crate) query: Query,
}

/// What is asked, or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    /// The first offset.
    Earliest,
    /// The end of what consumers may see.
    Latest,
    /// The first record with at least this timestamp.
    AtTime(i64),
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// Where this epoch ends.
    EpochEnd(i32),
    /// Deletes all records before this offset; -1 is the high watermark.
    DeleteBefore(i64),
}

/// An answer: which of the fields mean something depends on the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueryAnswer {
    /// Offset found, end of the epoch, or new log start; -1 for none.
    pub(crate) offset: i64,
    /// Timestamp found, -1 for none.
    pub(crate) timestamp: i64,
    /// Epoch of what was found, -1 for none.
    pub(crate) leader_epoch: i32,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryFailure {
    /// The partition could not be read.
    Read(ReadFailure),
    /// The offset to delete before lies beyond the high watermark.
    OutOfRange,
    /// Another change of the log is under way.
    Busy,
}

const NOTHING: QueryAnswer = QueryAnswer { offset: -1, timestamp: -1, leader_epoch: -1 };

impl Shard {
    /// Answers each query in turn.
    pub(crate) async fn query(&self, queries: Vec<PartitionQuery>) -> Vec<Result<QueryAnswer, QueryFailure>> {
        let mut outcomes = Vec::with_capacity(queries.len());
        for query in queries {
            outcomes.push(self.query_one(query).await);
        }
        outcomes
    }

    async fn query_one(&self, asked: PartitionQuery) -> Result<QueryAnswer, QueryFailure> {
        let partition = self.partition(&asked.key).ok_or(QueryFailure::Read(ReadFailure::NotHere))?;
        check_epoch(&partition, asked.current_leader_epoch).map_err(QueryFailure::Read)?;
        let log = &partition.log;
        match asked.query {
            Query::Earliest => Ok(at_offset(&partition, log.log_start_offset())),
            Query::Latest => {
                let leader_epoch = partition.leader_epoch.get();
                Ok(QueryAnswer { offset: partition.high_watermark(), timestamp: -1, leader_epoch })
            }
            Query::AtTime(time) => {
                let found = log.offset_for_time(time).await.map_err(|e| self.failed(&partition, &e))?;
                Ok(visible(&partition, found))
            }
            Query::MaxTimestamp => {
                let found = log.max_timestamp().await.map_err(|e| self.failed(&partition, &e))?;
                Ok(visible(&partition, found))
            }
            Query::EpochEnd(epoch) => Ok(epoch_end(&partition, epoch)),
            Query::DeleteBefore(offset) => delete_before(&partition, offset).await,
        }
    }

    fn failed(&self, partition: &Partition, error: &ReadError) -> QueryFailure {
        tracing::error!(shard = self.index, log = %partition.log.name(), "lookup by time failed: {error}");
        QueryFailure::Read(match error {
            ReadError::Corrupt { .. } => ReadFailure::Corrupt,
            _ => ReadFailure::Storage,
        })
    }
}

fn at_offset(partition: &Partition, offset: i64) -> QueryAnswer {
    let epoch = partition.log.epoch_at(offset).unwrap_or_else(|| partition.leader_epoch.get());
    QueryAnswer { offset, timestamp: -1, leader_epoch: epoch }
}

/// What was found, unless consumers may not see it yet.
fn visible(partition: &Rc<Partition>, found: Option<TimestampOffset>) -> QueryAnswer {
    match found {
        Some(found) if found.offset < partition.high_watermark() => {
            QueryAnswer { offset: found.offset, timestamp: found.timestamp, leader_epoch: found.leader_epoch }
        }
        _ => NOTHING,
    }
}

/// KIP-320: the largest epoch not above `epoch`, and where it ends. Of an epoch newer than the leader's nothing is
/// known; the leader's own ends where the log does.
fn epoch_end(partition: &Partition, epoch: i32) -> QueryAnswer {
    let current = partition.leader_epoch.get();
    if epoch == current {
        return QueryAnswer { offset: partition.log.log_end_offset(), timestamp: -1, leader_epoch: epoch };
    }
    match partition.log.epoch_end_offset(epoch) {
        Some((leader_epoch, offset)) if epoch < current => {
            QueryAnswer { offset, timestamp: -1, leader_epoch }
        }
        _ => NOTHING,
    }
}

async fn delete_before(partition: &Rc<Partition>, offset: i64) -> Result<QueryAnswer, QueryFailure> {
    let high_watermark = partition.high_watermark();
    let offset = if offset == -1 { high_watermark } else { offset };
    if offset < 0 || offset > high_watermark {
        return Err(QueryFailure::OutOfRange);
    }
    match partition.log.delete_records(offset).await {
        Ok(start) => Ok(QueryAnswer { offset: start, ..NOTHING }),
        Err(StoreError::OutOfRange { .. }) => Err(QueryFailure::OutOfRange),
        Err(StoreError::Busy | StoreError::Closed) => Err(QueryFailure::Busy),
        Err(error) => {
            tracing::error!(log = %partition.log.name(), "deleting records failed: {error}");
            Err(QueryFailure::Read(ReadFailure::Storage))
        }
    }
}
