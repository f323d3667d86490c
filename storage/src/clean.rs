//! Cleaning of logs by key (Kafka's log compaction): what a newer record of the same key replaced goes, and after a while
//! tombstones with it. One task per store cleans one log after the other, the one first of which most is dirty.
//!
//! It runs beside the data path: one read or write of it is in flight, and all work on bytes is done beside the shard
//! ([`Disk::compute`]). Bounds: the key map (`map_bytes_max`; where more keys are dirty it takes several rounds), pieces of
//! `io_bytes` or one batch, and the rate.
//!
//! A log whose cleaning ends early, for want of room, a failing disk or because it was changed meanwhile, is tried again
//! after a backoff, and others are cleaned first.
//!
//! Invariants: a log has one cleaning at a time; its active segment, and what is not stable or belongs to an open
//! transaction, are never touched; a batch that is damaged ends the cleaning of its log for good, and nothing
//! of it is dropped. See `broker/docs/decisions/0013-cleaning-logs-by-key.md`.

mod key_map;
mod pass;
mod plan;
mod rewrite;
mod step;
mod transactions;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::config::{CleanerConfig, Compaction};
use crate::disk::Disk;
use crate::segment::Segment;
use crate::state::{LogInner, LogState, StoreInner, add};
use plan::{LogView, Round, SegmentView, plan_round};
use rewrite::{Cleaning, Stop};

/// Logs looked at before others go first.
const LOOKS_AT_ONCE: usize = 16;
/// Longest wait after failures, as so many backoffs.
const BACKOFFS_MAX: i64 = 40;
/// After so many failures of the disk in a row it is likely to fail again, for a block that cannot be read for one, and each
/// try may write all before that anew.
const FAILURES_MAX: u32 = 8;
/// Wait after that, in milliseconds.
const STUCK_MS: i64 = 24 * 3_600_000;

/// The cleaner's clock, and what it saw last.
pub(crate) struct Cleaner {
    pub config: RefCell<CleanerConfig>,
    now_ms: Cell<i64>,
    /// When to look next for a log to clean.
    due_ms: Cell<i64>,
    /// Largest share of a log that is dirty, in millionths, as of the last look.
    pub dirty_millionths_max: Cell<u32>,
    /// Logs that cannot be cleaned, for damage or since the disk keeps failing, as of the last look.
    pub uncleanable_logs: Cell<usize>,
}

/// When a log is tried again whose cleaning ended early.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Retry {
    /// Not before this time.
    from_ms: Option<i64>,
    /// Failures in a row.
    failures: u32,
    /// Those of the disk among them.
    disk_failures: u32,
}

/// Why a cleaning ended early that is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Early {
    /// The log was changed, or something comes first.
    Changed,
    NoRoom(String),
    Failed(String),
}

impl Retry {
    fn is_due(&self, now_ms: i64) -> bool {
        self.from_ms.is_none_or(|from_ms| now_ms >= from_ms)
    }

    /// The disk failed so often that the log counts as one that is not cleaned.
    fn is_stuck(&self) -> bool {
        self.disk_failures >= FAILURES_MAX
    }

    /// After `backoff_ms`; after a failure, twice as long as after the one before, to [`BACKOFFS_MAX`] times that, and once
    /// the disk failed [`FAILURES_MAX`] times, [`STUCK_MS`] after each further time.
    fn put_off(&mut self, now_ms: i64, backoff_ms: i64, early: &Early) {
        let failed = *early != Early::Changed;
        let times = if failed { BACKOFFS_MAX.min(1 << self.failures.min(30)) } else { 1 };
        self.failures = self.failures.saturating_add(u32::from(failed));
        self.disk_failures = self.disk_failures.saturating_add(u32::from(matches!(early, Early::Failed(_))));
        // What is not the disk's fault passes sooner.
        let stuck = self.is_stuck() && matches!(early, Early::Failed(_));
        let wait_ms = if stuck { STUCK_MS } else { backoff_ms.max(1).saturating_mul(times) };
        self.from_ms = Some(now_ms.saturating_add(wait_ms));
    }
}

impl Cleaner {
    pub(crate) fn new(config: CleanerConfig) -> Cleaner {
        Cleaner {
            config: RefCell::new(config),
            now_ms: Cell::new(i64::MIN),
            due_ms: Cell::new(i64::MIN),
            dirty_millionths_max: Cell::new(0),
            uncleanable_logs: Cell::new(0),
        }
    }

    fn is_due(&self) -> bool {
        self.now_ms.get() > i64::MIN && self.now_ms.get() >= self.due_ms.get()
    }
}

/// Tells the cleaner what time it is.
pub(crate) fn tick<D: Disk>(store: &StoreInner<D>, now_ms: i64) {
    store.cleaner.now_ms.set(now_ms);
    if store.cleaner.is_due() {
        store.work.wake_all();
    }
}

/// Cleans logs until the store stops or closes.
pub(crate) async fn run_cleaner<D: Disk>(store: Rc<StoreInner<D>>) {
    let ends = || store.stopped.get() || store.closing.get() || !store.cleaner.config.borrow().enabled;
    loop {
        let next = || if ends() { Some(false) } else { store.cleaner.is_due().then_some(true) };
        if !store.work.until(next).await {
            return;
        }
        let now_ms = store.cleaner.now_ms.get();
        if !turn(&store, now_ms).await {
            store.recycle.free_cleaned();
            let backoff_ms = store.cleaner.config.borrow().backoff_ms.max(1);
            store.cleaner.due_ms.set(now_ms.saturating_add(backoff_ms));
        }
    }
}

/// Cleans the log that needs it most; says no if there was none. One that could not be cleaned is passed over for a while,
/// so that it keeps no other waiting.
async fn turn<D: Disk>(store: &Rc<StoreInner<D>>, now_ms: i64) -> bool {
    let Some(log) = dirtiest(store, now_ms).await else { return false };
    if store.closing.get() || store.stopped.get() {
        return false;
    }
    // Others were looked at meanwhile, and the log may be another by now: planned in the step that begins.
    let Some((round, compaction)) = plan(&log.state.borrow(), now_ms).filter(|(round, _)| round.due) else {
        return true;
    };
    log.state.borrow_mut().cleaning = true;
    let cleaning = Cleaning::new(store, &log, (round, compaction.delete_retention_ms), now_ms);
    let outcome = cleaning.run().await;
    log.state.borrow_mut().cleaning = false;
    store.work.wake_all();
    match outcome {
        Ok(cleaned) => {
            log.state.borrow_mut().clean_retry = Retry::default();
            add(&store.levels.cleaner_rounds, 1);
            add(&store.levels.cleaner_dropped_records, cleaned.dropped);
            tracing::debug!(log = %log.name, ?cleaned, "cleaned");
        }
        Err(Stop::NotNow) => put_off(store, &log, &Early::Changed),
        Err(Stop::NoSpace(error)) => {
            store.recycle.free_cleaned();
            put_off(store, &log, &Early::NoRoom(error));
        }
        Err(Stop::Failed(error)) => put_off(store, &log, &Early::Failed(error)),
        Err(Stop::Fault(reason)) => {
            tracing::error!(log = %log.name, "the log cannot be cleaned and keeps all its records: {reason}");
            log.state.borrow_mut().uncleanable = Some(reason.into());
        }
    }
    true
}

/// Has the log tried again later. Why it failed is told the first time in a row, and when it is tried but seldom from then
/// on.
fn put_off<D: Disk>(store: &StoreInner<D>, log: &LogInner<D>, early: &Early) {
    let backoff_ms = store.cleaner.config.borrow().backoff_ms;
    let retry = &mut log.state.borrow_mut().clean_retry;
    let (first, stuck) = (retry.failures == 0, retry.is_stuck());
    retry.put_off(store.cleaner.now_ms.get(), backoff_ms, early);
    match early {
        Early::Changed => {}
        Early::Failed(why) if retry.is_stuck() && !stuck => {
            tracing::error!(log = %log.name, "the log is not cleaned and is tried once a day: {why}");
        }
        Early::Failed(why) if first => {
            tracing::warn!(log = %log.name, "the log was not cleaned and is tried again: {why}");
        }
        Early::NoRoom(why) if first => {
            tracing::warn!(log = %log.name, "the log was not cleaned and waits for room: {why}");
        }
        Early::NoRoom(_) | Early::Failed(_) => {}
    }
}

/// What there is to be cleaned of a log that lets itself be cleaned.
fn plan<D: Disk>(state: &LogState<D>, now_ms: i64) -> Option<(Round, Compaction)> {
    let compaction = state.config.compaction?;
    if state.uncleanable.is_some() || state.offline.is_some() || state.busy || state.removed {
        return None;
    }
    plan_round(&view(state), &compaction, now_ms).map(|round| (round, compaction))
}

/// The due log with the largest dirty share.
async fn dirtiest<D: Disk>(store: &Rc<StoreInner<D>>, now_ms: i64) -> Option<Rc<LogInner<D>>> {
    let logs: Vec<_> = store.logs.borrow().values().cloned().collect();
    let (mut chosen, mut most, mut uncleanable) = (None::<(Rc<LogInner<D>>, u32)>, 0, 0);
    for (at, log) in logs.into_iter().enumerate() {
        if at % LOOKS_AT_ONCE == LOOKS_AT_ONCE - 1 {
            store.disk.yield_now().await;
        }
        let state = log.state.borrow();
        let is_not_cleaned = state.uncleanable.is_some() || state.clean_retry.is_stuck();
        uncleanable += usize::from(state.config.compaction.is_some() && is_not_cleaned);
        let Some((round, _)) = plan(&state, now_ms) else { continue };
        let dirty = round.dirty_millionths;
        most = most.max(dirty);
        let next = round.due && state.clean_retry.is_due(now_ms);
        drop(state);
        if next && chosen.as_ref().is_none_or(|(_, before)| *before < dirty) {
            chosen = Some((log, dirty));
        }
    }
    store.cleaner.dirty_millionths_max.set(most);
    store.cleaner.uncleanable_logs.set(uncleanable);
    chosen.map(|(log, _)| log)
}

/// The log as cleaning sees it.
fn view<D: Disk>(state: &LogState<D>) -> LogView {
    let open = state.producers.iter().filter_map(|(_, producer)| producer.transaction_first_offset).min();
    LogView {
        segments: state.segments.iter().map(|segment| segment_view(segment)).collect(),
        start_offset: state.start_offset,
        cleaned_to: state.cleaned_to,
        stable_to: open.map_or(state.durable_offset, |open| open.min(state.durable_offset)),
    }
}

fn segment_view<D: Disk>(segment: &Segment<D>) -> SegmentView {
    SegmentView {
        base: segment.base,
        bytes: segment.size(),
        max_timestamp: segment.max_timestamp.get().0,
        first_timestamp: segment.first_timestamp.get(),
        horizon_ms: segment.horizon_ms.get(),
    }
}
