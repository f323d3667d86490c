//! Appending validated batches to partitions of this shard.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::stream;
use penstock_core::partition::AppendFailure;
use penstock_format::Batch;
use penstock_storage::producer::ProducerError;
use penstock_storage::{AppendContext, AppendError, Appended, Origin, Reservation, StoreError};

use super::append_line::{AppendPlaces, AppendTurn};
use super::course::AppendTimes;
use super::{Partition, PartitionKey, PerPartition, Shard, ShardDisk, ShardLog, Stage};
use crate::runtime::task;

/// Producers of one request that are looked up on disk at once.
const ADMITTED_AT_ONCE: usize = 16;

/// A batch for one partition.
#[derive(Debug)]
pub(crate) struct PartitionAppend {
    pub(crate) key: PartitionKey,
    /// Validated.
    pub(crate) batch: Batch,
    /// Whether the answer waits until the records count as written.
    pub(crate) wait: bool,
}

/// Where the records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionAppended {
    pub(crate) base_offset: i64,
    /// -1 where the producer's timestamps stand.
    pub(crate) append_time_ms: i64,
    pub(crate) log_start_offset: i64,
}

/// What became of appends, and how long their steps took.
#[derive(Debug)]
pub(crate) struct AppendOutcomes {
    /// In the order of the appends.
    pub(crate) outcomes: PerPartition<Result<PartitionAppended, AppendFailure>>,
    pub(crate) times: AppendTimes,
}

/// Appends that took effect in memory, in order, and are not yet acknowledged.
pub(crate) struct BegunAppends {
    appends: PerPartition<Result<BegunOne, AppendFailure>>,
    shard: Rc<Shard>,
    times: AppendTimes,
    /// When the last of them had taken effect.
    pub(crate) appended: Instant,
}

/// One of them.
struct BegunOne {
    partition: Rc<Partition>,
    appended: Appended,
    wait: bool,
}

impl Shard {
    /// Appends to a partition as [`Shard::append`] does, if that can be done in one step; gives the batch back, unchanged, if it
    /// cannot. So nearly all requests for one partition begin without what it takes to wait.
    pub(crate) fn append_now(
        self: &Rc<Shard>,
        mut append: PartitionAppend,
        (handed_over, now_ms): (Instant, i64),
    ) -> Result<BegunAppends, PartitionAppend> {
        let Some(partition) = self.partition(&append.key).filter(|partition| partition.append_line.is_free())
        else {
            return Err(append);
        };
        let bytes = append.batch.len();
        if self.room_line.free() == 0 || !self.store.has_room(bytes) {
            return Err(append);
        }
        let begun = match self.check_partition(&partition, bytes) {
            Ok(()) => {
                let context = append_context(&partition, now_ms);
                let appended = partition.log.append_one(&mut append.batch, context);
                if let Err(AppendError::TooLarge { .. } | AppendError::ProducerAway(_)) = appended {
                    return Err(append);
                }
                self.begun_one(partition, appended, append.wait, bytes)
            }
            Err(failure) => Err(failure),
        };
        let begun = PerPartition::from_buf([begun]);
        Ok(self.begun(begun, None, handed_over))
    }

    /// Appends to each partition, after all appends to it for which this was called before. Ready when the order is
    /// settled; the records are acknowledged by [`BegunAppends::finish`]. `sent` is when another shard wished for it, if one did,
    /// and `handed_over` is now.
    pub(crate) fn append(
        self: &Rc<Shard>,
        appends: PerPartition<PartitionAppend>,
        sent: Option<Instant>,
        handed_over: Instant,
    ) -> impl Future<Output = BegunAppends> + 'static {
        let partitions: PerPartition<_> = appends.iter().map(|append| self.partition(&append.key)).collect();
        let places = places(&partitions);
        let shard = self.clone();
        async move {
            let bytes = appends.iter().map(|append| append.batch.len()).sum();
            // Nobody's bytes are set aside for who waits for its producer.
            let turn = turn(places, &appends, &partitions).await;
            // Held until the appends are made. Where there will be no room (the store is closing or offline, its disk is
            // full) each append is refused for the same reason, which its client is told.
            let room = shard.room(bytes).await;
            let now_ms = task::now_ms();
            let mut begun = PerPartition::with_capacity(appends.len());
            for (append, partition) in appends.into_iter().zip(partitions) {
                begun.push(shard.append_one(append, partition, now_ms).await);
            }
            drop((turn, room));
            shard.begun(begun, sent, handed_over)
        }
    }

    /// These took effect just now, or were refused.
    fn begun(
        self: &Rc<Shard>,
        appends: PerPartition<Result<BegunOne, AppendFailure>>,
        sent: Option<Instant>,
        handed_over: Instant,
    ) -> BegunAppends {
        let appended = Instant::now();
        let append = appended.saturating_duration_since(handed_over);
        self.stages.record(Stage::Append, append);
        let mailbox = sent.map_or(Duration::ZERO, |sent| handed_over.saturating_duration_since(sent));
        BegunAppends { appends, shard: self.clone(), times: AppendTimes::new(mailbox, append), appended }
    }

    /// Waits for room in the order of the calls, however much each wants.
    async fn room(&self, bytes: usize) -> Result<Reservation<ShardDisk>, StoreError> {
        let _turn = self.room_line.acquire(1).await;
        self.store.reserve(bytes).await
    }

    /// Appends to one partition. Waits only where a batch is larger than a journal frame, or its producer has left memory since
    /// it was admitted.
    async fn append_one(
        &self,
        append: PartitionAppend,
        partition: Option<Rc<Partition>>,
        now_ms: i64,
    ) -> Result<BegunOne, AppendFailure> {
        let partition = partition.ok_or(AppendFailure::NotHere)?;
        let bytes = append.batch.len();
        self.check_partition(&partition, bytes)?;
        let appended = partition.log.append_large(append.batch, append_context(&partition, now_ms)).await;
        self.begun_one(partition, appended, append.wait, bytes)
    }

    /// Whether the partition is here, and takes a batch of so many bytes.
    fn check_partition(&self, partition: &Partition, bytes: usize) -> Result<(), AppendFailure> {
        // It may have gone meanwhile.
        if partition.is_removed() {
            return Err(AppendFailure::NotHere);
        }
        // Kafka's rule: a batch fits a segment.
        if bytes as u64 > partition.config.borrow().segment_bytes {
            return Err(AppendFailure::TooLarge);
        }
        Ok(())
    }

    fn begun_one(
        &self,
        partition: Rc<Partition>,
        appended: Result<Appended, AppendError>,
        wait: bool,
        bytes: usize,
    ) -> Result<BegunOne, AppendFailure> {
        let appended = appended.map_err(|error| refusal(&error))?;
        self.metrics.appended(bytes);
        Ok(BegunOne { partition, appended, wait })
    }
}

fn append_context(partition: &Partition, now_ms: i64) -> AppendContext {
    AppendContext { leader_epoch: partition.leader_epoch(), now_ms, origin: Origin::Client }
}

impl BegunAppends {
    /// Waits until the records count as written, in order.
    pub(crate) async fn finish(&mut self) -> AppendOutcomes {
        // Not by value: what thousands of requests wait with at once would lie in their futures twice.
        let mut outcomes = PerPartition::with_capacity(self.appends.len());
        let mut last_commit = None;
        for begun in self.appends.drain(..) {
            outcomes.push(match begun {
                Ok(BegunOne { partition, appended, wait }) => {
                    let written = !wait || partition.log.durable(appended.ticket).await.is_ok();
                    last_commit = last_commit.max(wait.then(|| appended.ticket.commit()));
                    let appended = PartitionAppended {
                        base_offset: appended.base_offset,
                        append_time_ms: appended.append_time_ms,
                        log_start_offset: appended.log_start_offset,
                    };
                    if written { Ok(appended) } else { Err(AppendFailure::NotWritten) }
                }
                Err(failure) => Err(failure),
            });
        }
        let mut times = self.times;
        if let Some(commit) = last_commit {
            times.add_commit(&self.shard.stages, self.appended, commit);
        }
        AppendOutcomes { outcomes, times }
    }
}

/// Waits until it is the request's turn. Meanwhile its producers that are on disk are brought back.
async fn turn(
    places: AppendPlaces,
    appends: &[PartitionAppend],
    partitions: &[Option<Rc<Partition>>],
) -> AppendTurn {
    let away = away(appends, partitions);
    if away.is_empty() {
        return places.turn().await;
    }
    // Apart: requests that wait for nobody do not carry what this takes.
    Box::pin(join(places.turn(), admit(away))).await.0
}

/// Those of these appends that would wait for their producers, as log and producer. Each has asked for room when this is
/// known: all at once, and not the second when the first has it.
fn away<'a>(
    appends: &[PartitionAppend],
    partitions: &'a [Option<Rc<Partition>>],
) -> Vec<(&'a ShardLog, i64)> {
    let away = appends.iter().zip(partitions).filter_map(|(append, partition)| {
        let log = &partition.as_ref()?.log;
        log.awaits_producer(&append.batch, Origin::Client).then_some((log, append.batch.header.producer_id))
    });
    away.collect()
}

/// Has these producers brought back, and room made for new ones, some at a time; what cannot be is said by the append.
async fn admit(away: Vec<(&ShardLog, i64)>) {
    let bring = async |(log, producer_id): (&ShardLog, i64)| {
        let context = AppendContext { leader_epoch: 0, now_ms: task::now_ms(), origin: Origin::Client };
        let _ = log.admit_producers([producer_id], context).await;
    };
    stream::iter(away).for_each_concurrent(ADMITTED_AT_ONCE, bring).await;
}

/// A place in the line of each of these.
fn places(partitions: &[Option<Rc<Partition>>]) -> AppendPlaces {
    let mut partitions: PerPartition<&Rc<Partition>> = partitions.iter().flatten().collect();
    // A request may name one twice.
    partitions.sort_unstable_by_key(|partition| Rc::as_ptr(partition));
    partitions.dedup_by_key(|partition| Rc::as_ptr(partition));
    AppendPlaces::take(partitions.into_iter().map(|partition| &partition.append_line))
}

fn refusal(error: &AppendError) -> AppendFailure {
    match error {
        AppendError::Offline(_) => AppendFailure::Offline,
        AppendError::DiskFull => AppendFailure::DiskFull,
        AppendError::Busy
        | AppendError::Closed
        | AppendError::JournalFull
        // Who appends here waits for the producer.
        | AppendError::ProducerAway(_) => AppendFailure::Unavailable,
        AppendError::TooLarge { .. } => AppendFailure::TooLarge,
        AppendError::Producer(error) => match error {
            ProducerError::OutOfOrderSequence { .. } => AppendFailure::OutOfOrderSequence,
            ProducerError::InvalidEpoch { .. } => AppendFailure::InvalidProducerEpoch,
            ProducerError::TooMany { .. } => AppendFailure::TooManyProducers,
        },
        AppendError::Empty | AppendError::NotContiguous { .. } => {
            // Clients' batches are never empty and never carry offsets of their own.
            panic!("append refused for a fault of this program: {error}")
        }
    }
}
