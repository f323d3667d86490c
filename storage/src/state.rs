//! What a store and a log hold in memory, shared by the modules that work on it.
//!
//! Everything is reached through `Rc` on one thread. A `RefCell` is borrowed only between awaits.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::checkpoint::{LogRecord, SegmentRecord};
use crate::clean::{Cleaner, Retry};
use crate::commit::Pipeline;
use crate::config::{LogConfig, StoreConfig};
use crate::cuts::Cuts;
use crate::disk::{Disk, DiskFile};
use crate::epochs::LeaderEpochs;
use crate::error::Offline;
use crate::files::OpenFiles;
use crate::heads::Heads;
use crate::indexes::SealedIndexes;
use crate::journal::Journal;
use crate::memory::{Freed, Memory};
use crate::meter::CommitMeter;
use crate::producer::ProducerTable;
use crate::read_ahead::ReadAhead;
use crate::recycle::Recycle;
use crate::scrub::ScrubLevels;
use crate::segment::Segment;
use crate::space::Space;
use crate::spill::Spilled;
use crate::spiller::Spiller;
use crate::wait::WaitList;
use crate::writeback::Writeback;

/// A store. Background tasks hold it; `closing` ends them.
pub(crate) struct StoreInner<D: Disk> {
    pub disk: D,
    pub dir: PathBuf,
    pub config: StoreConfig,
    pub logs: RefCell<BTreeMap<Rc<str>, Rc<LogInner<D>>>>,
    /// Logs whose removal is not stable yet, or whose directory is being moved away.
    pub removing: RefCell<Vec<Rc<LogInner<D>>>>,
    pub run: u64,
    /// Next log id or segment life; both are unique over the runs of a store.
    next_unique: Cell<u64>,
    pub pipeline: Pipeline<D>,
    pub journal: Journal<D>,
    pub files: OpenFiles<D>,
    pub recycle: Recycle<D>,
    pub indexes: SealedIndexes<D>,
    pub writeback: Writeback<D>,
    pub cleaner: Cleaner,
    pub read_ahead: ReadAhead,
    /// Producers that memory has no room for.
    pub spilled: Spilled<D>,
    pub spiller: Spiller,
    pub levels: Levels,
    pub meter: OnceCell<Rc<dyn CommitMeter>>,
    /// Logs with unsettled bytes, oldest first.
    pub dirty: RefCell<VecDeque<Rc<LogInner<D>>>>,
    /// One entry per batch in memory, oldest first, and some for batches that left it otherwise than by eviction; see
    /// [`StoreInner::evict`].
    pub cached: RefCell<VecDeque<Rc<LogInner<D>>>>,
    pub heads: Heads,
    /// Segments whose file has to be made or extended.
    pub to_prepare: RefCell<VecDeque<ToPrepare<D>>>,
    pub offline: RefCell<Option<Offline>>,
    /// When to look next for segments past their retention time.
    pub retention_due_ms: Cell<i64>,
    /// When to look next for producers past their expiration time.
    pub producers_due_ms: Cell<i64>,
    pub closing: Cell<bool>,
    /// Every task and retry ends.
    pub stopped: Cell<bool>,
    /// Operations that wait for space, or for files that may be open.
    pub disk_full: Cell<u32>,
    pub space: Space,
    pub tasks: Cell<usize>,
    /// Work for write behind, preparation, checkpoints; a segment became ready; a task ended.
    pub work: WaitList,
    /// Room in the unsettled budget.
    pub room: WaitList,
    /// Lives of the segments whose file is being flushed; see [`StoreInner::flush_segment`].
    pub flushing: RefCell<BTreeSet<u64>>,
    pub flushed: WaitList,
}

/// A segment of a log whose file has to be made or extended.
pub(crate) type ToPrepare<D> = (Rc<LogInner<D>>, Rc<Segment<D>>);

/// Levels and counters.
#[derive(Default)]
pub(crate) struct Levels {
    pub unsettled_bytes: Cell<usize>,
    pub reserved_bytes: Cell<usize>,
    /// Who waits for room: what is unsettled must go, however little it is.
    pub room_waiters: Cell<usize>,
    pub cache_bytes: Cell<usize>,
    /// Batches in memory.
    pub cached_batches: Cell<usize>,
    /// Idempotent producers known in all logs.
    pub producers: Cell<usize>,
    /// Those that came back from disk.
    pub producers_brought_back: Cell<u64>,
    /// Those that were forgotten before their time: memory and disk had no room for them, or what the disk has of them is
    /// damaged.
    pub producers_forgotten: Cell<u64>,
    pub appended_bytes: Cell<u64>,
    pub appended_at_checkpoint: Cell<u64>,
    pub journal_bytes: Cell<u64>,
    pub direct_bytes: Cell<u64>,
    pub writeback_bytes: Cell<u64>,
    pub commits: Cell<u64>,
    pub flushes: Cell<u64>,
    pub checkpoints: Cell<u64>,
    pub scrub: ScrubLevels,
    /// Cleanings of a log.
    pub cleaner_rounds: Cell<u64>,
    pub cleaner_read_bytes: Cell<u64>,
    pub cleaner_written_bytes: Cell<u64>,
    pub cleaner_dropped_records: Cell<u64>,
}

/// First log id or life of a run: 12 bits of the shard, 24 of the run, 28 of a counter.
pub(crate) fn first_unique(id_space: u16, run: u64) -> u64 {
    assert!(run < 1 << 24, "a store is opened fewer than 16 million times");
    (u64::from(id_space) << 52) | (run << 28)
}

/// Adds to a counter.
pub(crate) fn add<T: Copy + std::ops::Add<Output = T>>(cell: &Cell<T>, value: T) {
    cell.set(cell.get() + value);
}

impl<D: Disk> StoreInner<D> {
    pub(crate) fn new(disk: D, dir: &Path, config: StoreConfig, run: u64, seq: u64) -> Rc<StoreInner<D>> {
        Rc::new(StoreInner {
            disk,
            dir: dir.to_owned(),
            run,
            next_unique: Cell::new(first_unique(config.id_space, run)),
            pipeline: Pipeline::new(seq),
            journal: Journal::new(dir, &config),
            files: OpenFiles::new(config.open_files_max),
            recycle: Recycle::new(dir),
            indexes: SealedIndexes::new(config.index_bytes_max),
            space: Space::new(config.reserve_bytes),
            cleaner: Cleaner::new(config.cleaner.clone()),
            read_ahead: ReadAhead::new(config.read_ahead.clone()),
            spilled: Spilled::new(dir),
            spiller: Spiller::default(),
            config,
            logs: RefCell::default(),
            removing: RefCell::default(),
            writeback: Writeback::default(),
            levels: Levels::default(),
            meter: OnceCell::new(),
            dirty: RefCell::default(),
            cached: RefCell::default(),
            heads: Heads::default(),
            to_prepare: RefCell::default(),
            offline: RefCell::new(None),
            retention_due_ms: Cell::new(i64::MIN),
            producers_due_ms: Cell::new(i64::MIN),
            closing: Cell::new(false),
            stopped: Cell::new(false),
            disk_full: Cell::new(0),
            tasks: Cell::new(0),
            work: WaitList::default(),
            room: WaitList::default(),
            flushing: RefCell::default(),
            flushed: WaitList::default(),
        })
    }

    /// A number never used before in this store.
    pub(crate) fn unique(&self) -> u64 {
        let unique = self.next_unique.get();
        self.next_unique.set(unique + 1);
        assert!(!(unique + 1).is_multiple_of(1 << 28), "fewer than 268 million segments begin in one run");
        unique
    }

    pub(crate) fn log_dir(&self, name: &str) -> PathBuf {
        logs_dir(&self.dir).join(name)
    }

    /// Runs a task that [`StoreInner::tasks`] counts.
    pub(crate) fn spawn(self: &Rc<Self>, name: &'static str, task: impl Future<Output = ()> + 'static) {
        add(&self.tasks, 1);
        let store = self.clone();
        self.disk.spawn(name, async move {
            task.await;
            store.tasks.set(store.tasks.get() - 1);
            store.work.wake_all();
        });
    }

    /// Takes the whole store offline: nothing more is acknowledged. The first reason stands.
    pub(crate) fn fail(&self, reason: impl std::fmt::Display) {
        if self.offline.borrow().is_some() {
            return;
        }
        tracing::error!(dir = %self.dir.display(), "store goes offline: {reason}");
        *self.offline.borrow_mut() = Some(Offline::new(reason));
        self.stopped.set(true);
        self.read_ahead.forget_all();
        self.wake_everything();
        let logs: Vec<_> = self.logs.borrow().values().cloned().collect();
        logs.iter().for_each(|log| log.changed());
    }

    /// Flushes the file of a log's segment and says whether it is stable; a failure takes the log offline, and no flush
    /// of it is asked for any more. One flush of a file at a time: the system reports a failed write-out to one flush
    /// alone, so that a second one beside it could succeed and prove nothing.
    pub(crate) async fn flush_segment(&self, log: &LogInner<D>, life: u64, file: &D::File) -> bool {
        let turn = || match self.is_offline().is_some() || log.has_failed() {
            true => Some(false),
            false => self.flushing.borrow_mut().insert(life).then_some(true),
        };
        if !self.flushed.until(turn).await {
            return false;
        }
        let segment = self.segment_of_life(log, life);
        let flushed = match &segment {
            Some(segment) => segment.flush(file).await,
            None => file.sync_data().await,
        };
        if let Err(error) = &flushed {
            // One that was deleted or cleaned meanwhile has nothing that anybody wants, and is not flushed again. One that is
            // being cut off counts until a checkpoint tells of the cut.
            if self.recycle.suspect(life) {
                self.writeback.unflushed.borrow_mut().remove(&life);
            } else {
                self.fail_log(log, life, format_args!("flush of a segment failed: {error}"));
            }
        }
        self.flushing.borrow_mut().remove(&life);
        self.flushed.wake_all();
        flushed.is_ok() && self.is_offline().is_none()
    }

    /// Wakes all that wait for anything, so that they see the store's state.
    pub(crate) fn wake_everything(&self) {
        self.flushed.wake_all();
        self.work.wake_all();
        self.room.wake_all();
        self.spiller.changed.wake_all();
        self.journal.changed.wake_all();
        self.writeback.hasten();
        self.pipeline.wake_all();
        self.read_ahead.wake_all();
    }

    pub(crate) fn is_offline(&self) -> Option<Offline> {
        self.offline.borrow().clone()
    }

    /// Bytes left the unsettled level.
    pub(crate) fn settled(&self, bytes: usize) {
        let unsettled = &self.levels.unsettled_bytes;
        assert!(unsettled.get() >= bytes, "settled bytes were unsettled");
        unsettled.set(unsettled.get() - bytes);
        self.room.wake_all();
    }

    /// Batches left memory.
    pub(crate) fn uncached(&self, freed: Freed) {
        let Levels { cache_bytes, cached_batches, .. } = &self.levels;
        cache_bytes.set(cache_bytes.get() - freed.cost);
        cached_batches.set(cached_batches.get() - freed.batches);
    }

    /// Marks the log as having unsettled bytes.
    pub(crate) fn mark_dirty(&self, log: &Rc<LogInner<D>>) {
        if !log.dirty.replace(true) {
            self.dirty.borrow_mut().push_back(log.clone());
        }
    }
}

/// Directory of all logs.
pub(crate) fn logs_dir(dir: &Path) -> PathBuf {
    dir.join("logs")
}

/// A log.
pub(crate) struct LogInner<D: Disk> {
    pub id: u64,
    pub name: Rc<str>,
    pub dirty: Cell<bool>,
    /// Its directory exists, stable.
    pub has_dir: Cell<bool>,
    /// Commits from this one on are not acknowledged for this log: a write or a flush of its segments failed. `u64::MAX`
    /// while none has.
    pub failed_from: Cell<u64>,
    /// It was cut in memory, and no checkpoint says so yet: what was cut off still counts should the process end.
    pub cut_untold: Cell<bool>,
    /// It failed, and what is acknowledged of it is not in sound files yet; see [`crate::rescue`].
    pub to_rescue: Cell<bool>,
    /// That is being done.
    pub rescuing: Cell<bool>,
    /// A checkpoint tells of it as it was saved.
    pub saved: Cell<bool>,
    /// What room there was to be had was made for an append of several batches, which comes now.
    pub room_made: Cell<bool>,
    /// Its removal is stable: nothing of it is of use any more.
    pub discarded: Cell<bool>,
    pub state: RefCell<LogState<D>>,
}

/// The changing part of a log.
pub(crate) struct LogState<D: Disk> {
    pub config: LogConfig,
    /// In order of base offset; the last is active.
    pub segments: VecDeque<Rc<Segment<D>>>,
    /// A segment whose file is made before anything is appended to it, and which is none of the log's before; see
    /// [`crate::large`].
    pub upcoming: Option<Rc<Segment<D>>>,
    pub start_offset: i64,
    /// Commit that makes `start_offset` stable.
    pub start_seq: u64,
    pub end_offset: i64,
    pub durable_offset: i64,
    pub epochs: LeaderEpochs,
    pub producers: ProducerTable,
    /// What those of its producers that are on disk are held against.
    pub cuts: Cuts,
    pub memory: Memory,
    pub offline: Option<Offline>,
    /// It is offline because acknowledged data is damaged, which reopening does not mend.
    pub damaged: bool,
    /// A truncation is under way.
    pub busy: bool,
    /// Everything below was cleaned by key.
    pub cleaned_to: i64,
    /// A cleaning is under way: files are being written to the log's directory.
    pub cleaning: bool,
    pub clean_retry: Retry,
    /// Why no cleaning is tried any more: one met damage.
    pub uncleanable: Option<Rc<str>>,
    pub removed: bool,
    /// Truncations so far: readers notice one that happened while they waited.
    pub truncations: u64,
    pub on_change: Option<Rc<dyn Fn()>>,
}

impl<D: Disk> LogInner<D> {
    pub(crate) fn new(store: &StoreConfig, id: u64, name: &str, config: LogConfig) -> Rc<LogInner<D>> {
        let producers = ProducerTable::new(store.producers_per_log_max);
        Rc::new(LogInner {
            id,
            name: name.into(),
            dirty: Cell::new(false),
            has_dir: Cell::new(false),
            failed_from: Cell::new(u64::MAX),
            cut_untold: Cell::new(false),
            to_rescue: Cell::new(false),
            rescuing: Cell::new(false),
            saved: Cell::new(false),
            room_made: Cell::new(false),
            discarded: Cell::new(false),
            state: RefCell::new(LogState {
                config,
                segments: VecDeque::new(),
                upcoming: None,
                start_offset: 0,
                start_seq: 0,
                end_offset: 0,
                durable_offset: 0,
                epochs: LeaderEpochs::new(),
                producers,
                cuts: Cuts::default(),
                memory: Memory::default(),
                offline: None,
                damaged: false,
                busy: false,
                cleaned_to: 0,
                cleaning: false,
                clean_retry: Retry::default(),
                uncleanable: None,
                removed: false,
                truncations: 0,
                on_change: None,
            }),
        })
    }

    /// Tells the owner that offsets or health changed.
    pub(crate) fn changed(&self) {
        let callback = self.state.borrow().on_change.clone();
        if let Some(callback) = callback {
            callback();
        }
    }

    /// Takes this log alone offline.
    pub(crate) fn fail(&self, reason: impl std::fmt::Display) {
        if self.state.borrow().offline.is_some() {
            return;
        }
        tracing::error!(log = %self.name, "log goes offline: {reason}");
        self.state.borrow_mut().offline = Some(Offline::new(reason));
        self.changed();
    }
}

impl<D: Disk> LogState<D> {
    /// Segment that holds `offset`, if any does.
    pub(crate) fn segment_of(&self, offset: i64) -> Option<&Rc<Segment<D>>> {
        let after = self.segments.partition_point(|segment| segment.base <= offset);
        self.segments.get(after.checked_sub(1)?)
    }

    /// Offset after the last batch of the segment at `index`.
    pub(crate) fn segment_end_offset(&self, base: i64) -> i64 {
        let next = self.segments.partition_point(|segment| segment.base <= base);
        self.segments.get(next).map_or(self.end_offset, |segment| segment.base)
    }

    /// Exclusive end of what counts as written.
    pub(crate) fn written_offset(&self) -> i64 {
        if self.config.is_durable() { self.durable_offset } else { self.end_offset }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size()).sum()
    }

    /// The log as a checkpoint holds it.
    pub(crate) fn record(&self, log: &LogInner<D>) -> LogRecord {
        let mut record = self.record_without_producers(log);
        if !self.producers.is_empty() {
            record.producers = self.producers.encode(self.end_offset);
        }
        record
    }

    /// The same, but for the producers, which can be many.
    pub(crate) fn record_without_producers(&self, log: &LogInner<D>) -> LogRecord {
        let segment = |segment: &Rc<Segment<D>>| SegmentRecord {
            base: segment.base,
            life: segment.life,
            end: segment.end.get(),
            max_timestamp: segment.max_timestamp.get().0,
            max_timestamp_offset: segment.max_timestamp.get().1,
            first_timestamp: segment.first_timestamp.get(),
            horizon_ms: segment.horizon_ms.get(),
            cleaned: segment.cleaned,
        };
        let damage = self.offline.as_ref().filter(|_| self.damaged);
        LogRecord {
            id: log.id,
            name: log.name.to_string(),
            start_offset: self.start_offset,
            end_offset: self.end_offset,
            cleaned_to: self.cleaned_to,
            segments: self.segments.iter().map(segment).collect(),
            epochs: self.epochs.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect(),
            producers: Vec::new(),
            damage: damage.map(|offline| offline.reason.to_string()).unwrap_or_default(),
            cuts: self.cuts.records().to_vec(),
        }
    }
}
