//! The logs of one shard, with their journal.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};

use crate::checkpointer::run_checkpointer;
use crate::clean;
use crate::committer::{run_committer, run_flusher};
use crate::config::{CleanerConfig, LogConfig, StoreConfig};
use crate::cut::{check_open, retain, retained};
use crate::disk::Disk;
use crate::error::{OpenError, StoreError};
use crate::frame::Entry;
use crate::indexes::write_files;
use crate::log::Log;
use crate::meter::CommitMeter;
use crate::prepare::run_preparer;
use crate::producer_bound;
use crate::recovery::recover;
use crate::scrub::run_scrubber;
use crate::spiller::{run_merger, run_spiller};
use crate::state::{LogInner, StoreInner, add, logs_dir};
use crate::writeback::{Hurry, run_writeback};

/// Longest name of a log in bytes.
const NAME_LEN_MAX: usize = 249;
/// How long a store that is being closed waits for a full disk to take anything.
const FULL_PATIENCE: Duration = Duration::from_secs(5);
/// Longest time from opening to the first look for segments past their retention time, as in Kafka.
const FIRST_RETENTION_CHECK_MS: i64 = 30_000;

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Logs in the store.
    pub logs: usize,
    /// Journal frames replayed; 0 after a clean close.
    pub frames_replayed: u64,
    /// Bytes of batches in them.
    pub bytes_replayed: u64,
    /// There were frames after the last whole one, never acknowledged; they were dropped.
    pub torn_tail: bool,
    /// Segment files that the device refused to write, and that were made anew.
    pub files_renewed: usize,
    /// Files of producers that cannot be used: path and reason. Those in them, and in older ones, are unknown.
    pub producers_lost: Vec<String>,
    /// Logs offline because acknowledged data is damaged: name and reason.
    pub offline: Vec<(String, String)>,
}

/// Counters and levels of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Logs.
    pub logs: usize,
    /// Commits made stable.
    pub commits: u64,
    /// Flush rounds.
    pub flushes: u64,
    /// Bytes of batches appended.
    pub appended_bytes: u64,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Bytes written straight to segments.
    pub direct_bytes: u64,
    /// Bytes written behind to segments.
    pub writeback_bytes: u64,
    /// Journal bytes that a checkpoint would free.
    pub journal_used_bytes: u64,
    /// Bytes appended and not yet settled in segments.
    pub unsettled_bytes: usize,
    /// Memory of batches, settled or not, in bytes.
    pub cache_bytes: usize,
    /// Bytes of frames that are not stable yet.
    pub frame_bytes: usize,
    /// Bytes of segment indexes in memory.
    pub index_bytes: usize,
    /// Idempotent producers in memory, of all logs.
    pub producers: usize,
    /// Idempotent producers on disk, with what is superseded.
    pub spilled_producers: u64,
    /// Bytes of their files.
    pub spilled_bytes: u64,
    /// Bytes of filters and indexes of these in memory.
    pub spilled_memory_bytes: usize,
    /// Producers that came back from disk.
    pub producers_brought_back: u64,
    /// Producers forgotten before their time: memory and disk had no room for them, or what the disk has of them is damaged.
    pub producers_forgotten: u64,
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// Segment files open.
    pub open_files: usize,
    /// Logs that are offline: all of them where the store is.
    pub offline_logs: usize,
    /// Whether clients' appends are refused for want of space.
    pub disk_full: bool,
    /// Batches read again to find damage.
    pub scrub_batches: u64,
    /// Bytes of them.
    pub scrub_bytes: u64,
    /// Times that everything was read again.
    pub scrub_passes: u64,
    /// Damaged places that reading again found.
    pub scrub_damaged: u64,
    /// Headers, indexes and checkpoints found damaged and written anew.
    pub scrub_mended: u64,
    /// Bytes free on the file system, as far as is known.
    pub free_bytes: u64,
    /// Bytes that have to be free for clients' appends to be taken.
    pub reserve_bytes: u64,
    /// Times that a log was cleaned.
    pub cleaner_rounds: u64,
    /// Bytes that cleaning read.
    pub cleaner_read_bytes: u64,
    /// Bytes that cleaning wrote.
    pub cleaner_written_bytes: u64,
    /// Bytes that were read ahead of readers.
    pub read_ahead_bytes: u64,
    /// Bytes of those that a reader took.
    pub read_ahead_taken_bytes: u64,
    /// Bytes of those that went without anybody having taken them.
    pub read_ahead_unused_bytes: u64,
    /// Memory of what was read ahead or is on its way.
    pub read_ahead_held_bytes: usize,
    /// Records that cleaning dropped.
    pub cleaner_dropped_records: u64,
    /// Largest part of a log that is to be cleaned and was not yet, in millionths.
    pub cleaner_dirty_millionths_max: u32,
    /// Logs that cannot be cleaned for damage.
    pub cleaner_uncleanable_logs: usize,
}

/// All logs of one shard. Clones are handles on the same store.
pub struct Store<D: Disk> {
    inner: Rc<StoreInner<D>>,
}

impl<D: Disk> Clone for Store<D> {
    fn clone(&self) -> Self {
        Store { inner: self.inner.clone() }
    }
}

/// Room in the unsettled budget, held until the append it was asked for has been made.
#[must_use = "room is given back when this is dropped"]
pub struct Reservation<D: Disk> {
    store: Rc<StoreInner<D>>,
    bytes: usize,
}

impl<D: Disk> Drop for Reservation<D> {
    fn drop(&mut self) {
        let reserved = &self.store.levels.reserved_bytes;
        reserved.set(reserved.get() - self.bytes);
        self.store.room.wake_all();
    }
}

/// Counts as waiting for room until it is dropped.
struct RoomWaiter<'a, D: Disk>(&'a StoreInner<D>);

impl<'a, D: Disk> RoomWaiter<'a, D> {
    fn new(store: &'a StoreInner<D>) -> RoomWaiter<'a, D> {
        add(&store.levels.room_waiters, 1);
        store.work.wake_all();
        store.writeback.hasten();
        RoomWaiter(store)
    }
}

impl<D: Disk> Drop for RoomWaiter<'_, D> {
    fn drop(&mut self) {
        let waiters = &self.0.levels.room_waiters;
        waiters.set(waiters.get() - 1);
    }
}

impl<D: Disk> Store<D> {
    /// Opens the store in `dir` (created if missing), recovers what the journal holds, and starts its tasks.
    /// Configs of logs are the defaults until set.
    pub async fn open(
        disk: D,
        dir: &Path,
        config: StoreConfig,
        now_ms: i64,
    ) -> Result<(Store<D>, RecoveryReport), OpenError> {
        let interval_ms = config.retention_check_interval_ms;
        let (inner, report) = recover(disk, dir, config, now_ms).await?;
        if interval_ms > 0 {
            inner.retention_due_ms.set(now_ms.saturating_add(interval_ms.min(FIRST_RETENTION_CHECK_MS)));
        }
        inner.producers_due_ms.set(now_ms.saturating_add(inner.config.producer_check_interval_ms));
        producer_bound::count(&inner);
        inner.look_at_space().await;
        inner.spawn("committer", run_committer(inner.clone()));
        inner.spawn("flusher", run_flusher(inner.clone()));
        inner.spawn("preparer", run_preparer(inner.clone()));
        inner.spawn("write behind", run_writeback(inner.clone()));
        inner.spawn("checkpointer", run_checkpointer(inner.clone()));
        if inner.config.scrub_bytes_per_second > 0 {
            inner.spawn("scrubber", run_scrubber(inner.clone()));
        }
        inner.spiller.hint(&inner);
        inner.spawn("spiller", run_spiller(inner.clone()));
        inner.spawn("merger of producers", run_merger(inner.clone()));
        inner.spawn("cleaner", clean::run_cleaner(inner.clone()));
        Ok((Store { inner }, report))
    }

    /// All logs, sorted by name.
    pub fn logs(&self) -> Vec<Log<D>> {
        self.inner.logs.borrow().values().map(|log| self.handle(log)).collect()
    }

    /// The log of that name.
    pub fn log(&self, name: &str) -> Option<Log<D>> {
        self.inner.logs.borrow().get(name).map(|log| self.handle(log))
    }

    fn handle(&self, log: &Rc<LogInner<D>>) -> Log<D> {
        Log { store: self.inner.clone(), inner: log.clone() }
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if let Some(offline) = self.inner.is_offline() {
            return Err(StoreError::Offline(offline));
        }
        if self.inner.closing.get() { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Creates an empty log, durably.
    pub async fn create_log(&self, name: &str, config: LogConfig) -> Result<Log<D>, StoreError> {
        let store = &self.inner;
        self.check_open()?;
        if !is_valid_name(name) {
            return Err(StoreError::InvalidName(name.to_owned()));
        }
        if store.logs.borrow().contains_key(name) {
            return Err(StoreError::Exists(name.to_owned()));
        }
        if store.removing.borrow().iter().any(|removing| *removing.name == *name) {
            return Err(StoreError::Busy);
        }
        if !store.pipeline.has_room(store, 0, 1) {
            return Err(StoreError::JournalFull);
        }
        let log = LogInner::new(&store.config, store.unique(), name, config);
        store.logs.borrow_mut().insert(log.name.clone(), log.clone());
        let entry = Entry::Create { log_id: log.id, name: name.to_owned() };
        let seq = store.pipeline.add_entry(store, entry);
        store.pipeline.wait_durable(store, seq).await?;
        Ok(self.handle(&log))
    }

    /// Removes a log and its data, durably. Its name may be used again when this returned.
    pub async fn remove_log(&self, name: &str) -> Result<(), StoreError> {
        let store = &self.inner;
        self.check_open()?;
        let log = store.logs.borrow().get(name).cloned();
        let log = log.ok_or_else(|| StoreError::NotFound(name.to_owned()))?;
        {
            let mut state = log.state.borrow_mut();
            // It may have gone offline meanwhile: its truncation comes to its end first, or would take the next log's files.
            if state.busy {
                return Err(StoreError::Busy);
            }
            match check_open(store, &state) {
                Ok(()) => {}
                // A damaged log may be removed.
                Err(StoreError::Offline(_)) if store.is_offline().is_none() => {}
                Err(error) => return Err(error),
            }
            if !store.pipeline.has_room(store, 0, 1) {
                return Err(StoreError::JournalFull);
            }
            state.removed = true;
        }
        let seq = store.pipeline.add_entry(store, Entry::Remove { log_id: log.id });
        store.logs.borrow_mut().remove(name);
        store.removing.borrow_mut().push(log.clone());
        log.changed();
        store.spiller.changed.wake_all();
        // The work goes on to its end even if the caller gives up waiting.
        let (worker, removed) = (store.clone(), log.clone());
        store.spawn("log removal", async move {
            if worker.pipeline.wait_durable(&worker, seq).await.is_ok() {
                discard(&worker, &removed).await;
            }
            worker.removing.borrow_mut().retain(|log| log.id != removed.id);
            worker.work.wake_all();
        });
        let done = || {
            let removing = store.removing.borrow().iter().any(|removing| *removing.name == *name);
            (!removing || store.is_offline().is_some()).then_some(())
        };
        store.work.until(done).await;
        store.is_offline().map_or(Ok(()), |offline| Err(StoreError::Offline(offline)))
    }

    /// Waits until `bytes` more may be appended within the budget (a request larger than the whole budget waits
    /// until nothing else is unsettled), and the queue of commits takes them. Hold the answer until the append was made. Cancel-safe. Fails when the store
    /// is offline or closing, and while the disk is full and the budget with it.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation<D>, StoreError> {
        let store = &self.inner;
        let fits = || {
            if let Err(error) = self.check_open() {
                return Some(Err(error));
            }
            if self.has_room(bytes) {
                return Some(Ok(()));
            }
            (store.disk_full.get() > 0).then_some(Err(StoreError::DiskFull))
        };
        let is_within = || self.is_within(bytes);
        loop {
            if let Some(outcome) = fits() {
                outcome?;
                break;
            }
            // What is written behind helps the budget, and not the queue.
            let is_short = !is_within();
            let _waiting = is_short.then(|| RoomWaiter::new(store));
            store.room.until(|| (fits().is_some() || is_within() == is_short).then_some(())).await;
        }
        add(&store.levels.reserved_bytes, bytes);
        Ok(Reservation { store: store.clone(), bytes })
    }

    /// Whether budget and queue have room for `bytes` more now: who appends them in the same step needs no reservation. It
    /// says nothing of a store that is closing or offline; the append does.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.is_within(bytes) && self.inner.pipeline.takes(&self.inner, bytes)
    }

    /// Whether `bytes` more are within the budget.
    fn is_within(&self, bytes: usize) -> bool {
        let levels = &self.inner.levels;
        let taken = levels.unsettled_bytes.get() + levels.reserved_bytes.get();
        taken == 0 || taken + bytes <= self.inner.config.unsettled_bytes_max
    }

    /// Work of the clock, to be called about once a second: retention, expiry of producers, checkpoint, and after a second
    /// or two without a commit the frame that says that the last one is stable. It is also the cleaner's clock.
    pub async fn tick(&self, now_ms: i64) {
        let store = &self.inner;
        let logs: Vec<_> = store.logs.borrow().values().cloned().collect();
        let by_time = now_ms >= store.retention_due_ms.get();
        if by_time {
            store.retention_due_ms.set(now_ms.saturating_add(store.config.retention_check_interval_ms));
        }
        let mut moved = Vec::new();
        let mut last_seq = 0;
        for log in logs {
            if let Some(seq) = retain(store, &log, now_ms, by_time) {
                last_seq = last_seq.max(seq);
                moved.push(log.clone());
            }
        }
        producer_bound::expire(store, now_ms).await;
        producer_bound::count(store);
        if !moved.is_empty() && store.pipeline.wait_durable(store, last_seq).await.is_ok() {
            moved.iter().for_each(|log| retained(store, log));
        }
        if store.is_offline().is_none() {
            store.recycle.collect(store).await;
            store.indexes.shrink(store).await;
        }
        store.look_at_space().await;
        store.evict();
        store.read_ahead.tick(store);
        store.writeback.inline.tick();
        clean::tick(store, now_ms);
        if store.wants_checkpoint() || store.recycle.wants_checkpoint(store) {
            store.pipeline.request_checkpoint(store);
        }
        if self.check_open().is_ok() {
            store.pipeline.tell_if_quiet(store);
        }
    }

    /// Takes a checkpoint now and waits for it: what was appended before needs no replay.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.check_open()?;
        let _hurry = Hurry::begin(&self.inner.writeback);
        let wanted = self.inner.pipeline.request_checkpoint(&self.inner);
        Ok(self.inner.pipeline.wait_checkpoint(&self.inner, wanted).await?)
    }

    /// Settles everything and writes a clean checkpoint; reopening then replays nothing, unless the disk is full: then
    /// what the journal holds stays there. Appends are refused from
    /// the call on. All tasks of the store have ended when it returns.
    pub async fn close(&self) -> Result<(), StoreError> {
        let store = &self.inner;
        if store.closing.replace(true) {
            return Err(StoreError::Closed);
        }
        store.wake_everything();
        let settled = self.settle_for_close().await;
        store.stopped.set(true);
        store.wake_everything();
        store.work.until(|| (store.tasks.get() == 0).then_some(())).await;
        store.read_ahead.forget_all();
        settled
    }

    async fn settle_for_close(&self) -> Result<(), StoreError> {
        let store = &self.inner;
        let full = || store.disk_full.get() > 0;
        let stable = std::pin::pin!(store.pipeline.wait_durable(store, store.pipeline.last_seq()));
        match select(stable, std::pin::pin!(self.stuck())).await {
            Either::Left((stable, _)) => stable?,
            Either::Right(_) => {
                // The journal has no place for what is left; nobody was told that it is stable.
                tracing::warn!(dir = %store.dir.display(), "the disk is full: closed without what is not stable yet");
                return Ok(());
            }
        }
        let quiet = || {
            let is_busy = |log: &Rc<LogInner<D>>| log.state.borrow().busy || log.state.borrow().cleaning;
            let busy = store.logs.borrow().values().any(is_busy);
            let quiet = !busy && store.removing.borrow().is_empty();
            (quiet || full() || store.is_offline().is_some()).then_some(())
        };
        store.work.until(quiet).await;
        write_files(store).await;
        for log in store.logs.borrow().values() {
            if let Some(unused) = log.state.borrow_mut().upcoming.take() {
                store.recycle.retire_cut(store, unused);
            }
        }
        let wanted = store.pipeline.request_checkpoint(store);
        let checkpoint = std::pin::pin!(store.pipeline.wait_checkpoint(store, wanted));
        let no_space = std::pin::pin!(store.work.until(|| full().then_some(())));
        match select(checkpoint, no_space).await {
            Either::Left((taken, _)) => taken?,
            Either::Right(_) => {
                // Everything is stable in the journal: the next opening replays it.
                tracing::warn!(dir = %store.dir.display(), "the disk is full: closed without a checkpoint");
                return Ok(());
            }
        }
        store.recycle.collect(store).await;
        Ok(())
    }

    /// Ends when the disk is full and nothing became stable for [`FULL_PATIENCE`].
    async fn stuck(&self) {
        let store = &self.inner;
        loop {
            store.work.until(|| (store.disk_full.get() > 0).then_some(())).await;
            let before = store.pipeline.durable_seq.get();
            store.disk.sleep(FULL_PATIENCE).await;
            if store.disk_full.get() > 0 && store.pipeline.durable_seq.get() == before {
                return;
            }
        }
    }

    /// Has the steps of commits measured from now on. The first meter stays.
    pub fn set_meter(&self, meter: Rc<dyn CommitMeter>) {
        // A store has one owner, who sets it once.
        let _ = self.inner.meter.set(meter);
    }

    fn offline_logs(&self) -> usize {
        let logs = self.inner.logs.borrow();
        let offline = |log: &&Rc<LogInner<D>>| log.state.borrow().offline.is_some();
        if self.inner.is_offline().is_some() { logs.len() } else { logs.values().filter(offline).count() }
    }

    /// Changes the cleaner's limits, also for the log that is being cleaned. Whether it runs at all stays as it was.
    pub fn set_cleaner(&self, config: CleanerConfig) {
        let mut current = self.inner.cleaner.config.borrow_mut();
        *current = CleanerConfig { enabled: current.enabled, ..config };
    }

    /// Counters and levels.
    pub fn stats(&self) -> StoreStats {
        let store = &self.inner;
        let levels = &store.levels;
        let ahead = &store.read_ahead.counts;
        StoreStats {
            logs: store.logs.borrow().len(),
            commits: levels.commits.get(),
            flushes: levels.flushes.get(),
            appended_bytes: levels.appended_bytes.get(),
            journal_bytes: levels.journal_bytes.get(),
            direct_bytes: levels.direct_bytes.get(),
            writeback_bytes: levels.writeback_bytes.get(),
            journal_used_bytes: store.journal.used_bytes(),
            unsettled_bytes: levels.unsettled_bytes.get(),
            cache_bytes: levels.cache_bytes.get(),
            frame_bytes: store.pipeline.frame_bytes(),
            index_bytes: store.indexes.bytes(),
            producers: levels.producers.get(),
            spilled_producers: store.spilled.producers(),
            spilled_bytes: store.spilled.disk_bytes(),
            spilled_memory_bytes: store.spilled.bytes_in_memory(),
            producers_brought_back: levels.producers_brought_back.get(),
            producers_forgotten: levels.producers_forgotten.get(),
            checkpoints: levels.checkpoints.get(),
            open_files: store.files.count(),
            scrub_batches: levels.scrub.batches.get(),
            scrub_bytes: levels.scrub.bytes.get(),
            scrub_passes: levels.scrub.passes.get(),
            scrub_damaged: levels.scrub.damaged.get(),
            scrub_mended: levels.scrub.mended.get(),
            offline_logs: self.offline_logs(),
            disk_full: store.refuses_clients(),
            free_bytes: store.space.usable().unwrap_or(0),
            reserve_bytes: store.space.wanted(),
            cleaner_rounds: levels.cleaner_rounds.get(),
            cleaner_read_bytes: levels.cleaner_read_bytes.get(),
            cleaner_written_bytes: levels.cleaner_written_bytes.get(),
            read_ahead_bytes: ahead.read.get(),
            read_ahead_taken_bytes: ahead.taken.get(),
            read_ahead_unused_bytes: store.read_ahead.unused_bytes(),
            read_ahead_held_bytes: store.read_ahead.held_bytes(),
            cleaner_dropped_records: levels.cleaner_dropped_records.get(),
            cleaner_dirty_millionths_max: store.cleaner.dirty_millionths_max.get(),
            cleaner_uncleanable_logs: store.cleaner.uncleanable_logs.get(),
        }
    }
}

/// Frees what a removed log held. Its files are not reused: readers may still hold them.
async fn discard<D: Disk>(store: &Rc<StoreInner<D>>, log: &Rc<LogInner<D>>) {
    // Whoever saves it to new files would bring its directory back. It need not be saved any more.
    log.discarded.set(true);
    log.to_rescue.set(false);
    store.work.wake_all();
    store.work.until(|| (!log.rescuing.get()).then_some(())).await;
    // The cleaner sees that the log goes, and leaves nothing behind.
    let cleaned = || (!log.state.borrow().cleaning || store.stopped.get()).then_some(());
    store.work.until(cleaned).await;
    store.read_ahead.forget_log(log.id);
    let mut segments: Vec<_> = {
        let mut state = log.state.borrow_mut();
        let freed = state.memory.truncate(i64::MIN);
        store.uncached(freed);
        let upcoming = state.upcoming.take();
        state.segments.drain(..).chain(upcoming).collect()
    };
    for segment in &segments {
        segment.retired.set(true);
        let unsettled = segment.pending.borrow_mut().clear();
        store.settled(unsettled);
    }
    segments.extend(store.recycle.forget(store, &store.log_dir(&log.name)).await);
    // A file that is just being made or written belongs into the directory before that goes.
    let in_use = || segments.iter().any(|segment| segment.preparing.get() && !store.stopped.get());
    store.work.until(|| (!in_use()).then_some(())).await;
    for segment in &segments {
        store.files.close(segment);
        store.writeback.unflushed.borrow_mut().remove(&segment.life);
    }
    let dead = store.recycle.new_path("dead");
    let move_away = async || {
        let dir = store.log_dir(&log.name);
        if store.disk.exists(&dir).await? {
            store.disk.rename(&dir, &dead).await?;
            // The name there must not come back. Should the one here get lost, nothing is lost with it.
            store.disk.sync_dir(&logs_dir(&store.dir)).await?;
            store.disk.remove_dir_all(&dead).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    if let Err(error) = move_away().await {
        tracing::warn!(log = %log.name, "removing a log's directory: {error}");
    }
}

/// Names are 1 to 249 bytes of letters, digits and `._@-`, and neither `.` nor `..`.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".."
}
