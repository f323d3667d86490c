//! One partition's log as its owner sees it.

use std::rc::Rc;

use bytes::Bytes;
use penstock_format::Batch;

use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::{AppendError, Offline, ReadError, StoreError};
use crate::lookup::BatchSearch;
use crate::producer::Producer;
use crate::state::{LogInner, StoreInner};
use crate::{append, bring_back, cut, large, lookup, producer_bound, read};

/// Names the commit that an append joined; give it to [`Log::durable`]. Later appends have equal or larger tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

impl Ticket {
    /// Number of the commit: commits are numbered without gaps, over all logs of a store.
    pub fn commit(self) -> u64 {
        self.0
    }
}

/// Who appends: decides what is assigned and what is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client: offsets and leader epoch are assigned, producer sequences are checked.
    Client,
    /// The broker itself, as a coordinator: as a client's, without sequence checks.
    Coordinator,
    /// A follower: batches carry offsets and epochs, which must continue the log.
    Replica,
}

/// What an append has to know.
#[derive(Debug, Clone, Copy)]
pub struct AppendContext {
    /// Leader epoch to write into the batches.
    pub leader_epoch: i32,
    /// Time in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Who appends.
    pub origin: Origin,
}

/// Outcome of an append. The records are acknowledged only when [`Log::durable`] says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Log append time in milliseconds, -1 where the producer's timestamps stand.
    pub append_time_ms: i64,
    /// First readable offset.
    pub log_start_offset: i64,
    /// Resolves when the records are stable.
    pub ticket: Ticket,
    /// The producer had written these before: nothing was appended, offsets are those of the first time.
    pub duplicate: bool,
}

/// Whole batches read from a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadBatches {
    /// Bytes of whole batches in order: headers and bodies, or larger pieces. Never copied.
    pub slices: Vec<Bytes>,
    /// Sum of their lengths.
    pub bytes: usize,
    /// Base offset of the first batch, which may lie below the offset asked for; -1 if there is none.
    pub first_offset: i64,
    /// Offset after the last batch; the offset asked for if there is none.
    pub next_offset: i64,
}

/// A record's place found by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Offset of the record.
    pub offset: i64,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
    /// Leader epoch of its batch.
    pub leader_epoch: i32,
}

/// What is known of an idempotent producer (DescribeProducers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence of its last record, -1 if none.
    pub last_sequence: i32,
    /// Max timestamp of its last batch in milliseconds.
    pub last_timestamp: i64,
    /// First offset of its open transaction.
    pub transaction_first_offset: Option<i64>,
}

/// A log. Clones are handles on the same log; a removed log answers `Closed`.
pub struct Log<D: Disk> {
    pub(crate) store: Rc<StoreInner<D>>,
    pub(crate) inner: Rc<LogInner<D>>,
}

impl<D: Disk> Clone for Log<D> {
    fn clone(&self) -> Self {
        Log { store: self.store.clone(), inner: self.inner.clone() }
    }
}

impl<D: Disk> Log<D> {
    /// Name given at creation.
    pub fn name(&self) -> Rc<str> {
        self.inner.name.clone()
    }

    /// Current settings.
    pub fn config(&self) -> LogConfig {
        self.inner.state.borrow().config.clone()
    }

    /// Replaces the settings, from the next append on.
    pub fn set_config(&self, config: LogConfig) {
        self.inner.state.borrow_mut().config = config;
    }

    /// Appends validated batches: assigns offsets, checks sequences, and joins the running commit. Takes effect at
    /// once in memory; wait for [`Log::durable`] before acknowledging. Call [`crate::Store::reserve`] before.
    pub fn append(&self, mut batches: Vec<Batch>, context: AppendContext) -> Result<Appended, AppendError> {
        append::append(&self.store, &self.inner, &mut batches, context)
    }

    /// Appends one batch as [`Log::append`] does. It stays as it is where it is refused as too large for a journal frame, or for
    /// its producer's absence ([`AppendError::TooLarge`], [`AppendError::ProducerAway`]): [`Log::append_large`] takes it then.
    pub fn append_one(&self, batch: &mut Batch, context: AppendContext) -> Result<Appended, AppendError> {
        append::append(&self.store, &self.inner, std::slice::from_mut(batch), context)
    }

    /// Waits until what is known of the producers of an append is in memory, and there is room for them: after [`Log::append`]
    /// refused it with [`AppendError::ProducerAway`]. It may do so once more where others took the room, but not for several
    /// producers, if all of them are given and it is made at once. Cancel-safe.
    pub async fn admit_producers(
        &self,
        ids: impl IntoIterator<Item = i64>,
        context: AppendContext,
    ) -> Result<(), AppendError> {
        let ids = ids.into_iter().filter(|id| *id >= 0).collect();
        bring_back::admit(&self.store, &self.inner, &ids, context).await
    }

    /// Whether an append of this batch would wait for its producer now: see [`Log::admit_producers`].
    pub fn awaits_producer(&self, batch: &Batch, origin: Origin) -> bool {
        let (store, log, batches) = (&self.store, &self.inner, std::slice::from_ref(batch));
        let checked = append::check_admission(store, log, batches, origin)
            .and_then(|_| producer_bound::check(store, log, batches, origin));
        matches!(checked, Err(AppendError::ProducerAway(_)))
    }

    /// Appends one validated batch of any size; waits where its producer has to be brought to memory. One that
    /// [`Log::append`] would refuse as too large waits until the segment's file reaches far enough to take it; the append then takes effect in memory in one step, as it does
    /// there. Cancel-safe: it took effect, or not at all.
    pub async fn append_large(&self, batch: Batch, context: AppendContext) -> Result<Appended, AppendError> {
        large::append_large(&self.store, &self.inner, batch, context).await
    }

    /// Waits until the commit is stable (or only appended, if the log's `flush_messages` is not 1). Cancel-safe.
    pub async fn durable(&self, ticket: Ticket) -> Result<(), Offline> {
        match self.poll_durable(ticket) {
            Some(outcome) => outcome,
            None => {
                self.store.pipeline.wait_durable(&self.store, ticket.0).await?;
                self.inner.refusal(ticket.0).map_or(Ok(()), Err)
            }
        }
    }

    /// Whether [`Log::durable`] would answer at once, and what.
    pub fn poll_durable(&self, ticket: Ticket) -> Option<Result<(), Offline>> {
        if let Some(offline) = self.inner.refusal(ticket.0) {
            return Some(Err(offline));
        }
        if !self.inner.state.borrow().config.is_durable() && self.store.is_offline().is_none() {
            return Some(Ok(()));
        }
        self.store.pipeline.poll_durable(&self.store, ticket.0)
    }

    /// First readable offset.
    pub fn log_start_offset(&self) -> i64 {
        self.inner.state.borrow().start_offset
    }

    /// Offset that the next record gets.
    pub fn log_end_offset(&self) -> i64 {
        self.inner.state.borrow().end_offset
    }

    /// Exclusive end of what is stable.
    pub fn durable_offset(&self) -> i64 {
        self.inner.state.borrow().durable_offset
    }

    /// Exclusive end of what counts as written on this replica: `durable_offset`, or `log_end_offset` if the log's
    /// `flush_messages` is not 1.
    pub fn written_offset(&self) -> i64 {
        self.inner.state.borrow().written_offset()
    }

    /// Called after `written_offset` or `log_start_offset` changed or the log went offline; replaces the one before.
    /// It runs inside the engine: it may read offsets and wake tasks, and must not append or change the log.
    pub fn on_change(&self, callback: Option<Rc<dyn Fn()>>) {
        self.inner.state.borrow_mut().on_change = callback;
    }

    /// Why the log is offline, if it is.
    pub fn offline(&self) -> Option<Offline> {
        self.inner.state.borrow().offline.clone().or_else(|| self.store.is_offline())
    }

    /// Reads whole batches from the one that holds `from`, up to `upper` (exclusive), about `bytes_max` bytes. The
    /// first batch comes whole even if larger where `at_least_one`. May give less than there is: ask again.
    pub async fn read(
        &self,
        from: i64,
        bytes_max: usize,
        upper: i64,
        at_least_one: bool,
    ) -> Result<ReadBatches, ReadError> {
        let wanted = read::Wanted { from, bytes_max, upper, at_least_one, for_client: true, in_order: true };
        read::read(&self.store, &self.inner, &wanted).await
    }

    /// First record, by offset, with a timestamp of at least `timestamp`. `open` looks into the few batches that have
    /// to be opened, by [`BatchSearch::run`].
    pub async fn offset_for_time(
        &self,
        timestamp: i64,
        open: impl AsyncFn(BatchSearch) -> Option<TimestampOffset>,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        lookup::offset_for_time(&self.store, &self.inner, timestamp, open).await
    }

    /// The record with the largest timestamp (KIP-734), the first of them. `open` is as for
    /// [`Log::offset_for_time`]; it is called twice at most.
    pub async fn max_timestamp(
        &self,
        open: impl AsyncFn(BatchSearch) -> Option<TimestampOffset>,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        lookup::max_timestamp(&self.store, &self.inner, open).await
    }

    /// Largest epoch not above `epoch` that the log has, and the offset where it ends; see
    /// [`crate::epochs::LeaderEpochs::end_offset`].
    pub fn epoch_end_offset(&self, epoch: i32) -> Option<(i32, i64)> {
        let state = self.inner.state.borrow();
        state.epochs.end_offset(epoch, state.end_offset)
    }

    /// Newest leader epoch in the log.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.inner.state.borrow().epochs.latest().map(|latest| latest.epoch)
    }

    /// Epoch of the record at `offset`.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.inner.state.borrow().epochs.epoch_at(offset)
    }

    /// Moves the start to `offset` (KIP-107), durably; gives the start offset in force.
    pub async fn delete_records(&self, offset: i64) -> Result<i64, StoreError> {
        cut::delete_records(&self.store, &self.inner, offset).await
    }

    /// Drops everything from `offset` on, durably; gives the end offset in force (no batch is cut in two, so it may
    /// lie below `offset`). Appends are refused with `Busy` meanwhile.
    pub async fn truncate(&self, offset: i64) -> Result<i64, StoreError> {
        cut::truncate(&self.store, &self.inner, offset).await
    }

    /// Everything below was cleaned by key.
    pub fn cleaned_offset(&self) -> i64 {
        let state = self.inner.state.borrow();
        state.cleaned_to.max(state.start_offset)
    }

    /// Why the log is not cleaned any more until the store is opened anew, if it is not.
    pub fn uncleanable(&self) -> Option<Rc<str>> {
        self.inner.state.borrow().uncleanable.clone()
    }

    /// Bytes of all batches.
    pub fn size_bytes(&self) -> u64 {
        self.inner.state.borrow().size_bytes()
    }

    /// Segments.
    pub fn segment_count(&self) -> usize {
        self.inner.state.borrow().segments.len()
    }

    /// Idempotent producers in memory: those that have not written for longest may be on disk.
    pub fn producers(&self) -> Vec<ProducerState> {
        let state = self.inner.state.borrow();
        let of = |(producer_id, producer): (i64, &Producer)| ProducerState {
            producer_id,
            producer_epoch: producer.epoch,
            last_sequence: producer.last_sequence(),
            last_timestamp: producer.last_timestamp,
            transaction_first_offset: producer.transaction_first_offset,
        };
        state.producers.iter().map(of).collect()
    }
}
