//! Write behind: brings inline bytes from the journal's frames (kept in memory) to their segments, joined up into
//! large aligned writes. Only stable bytes are written, so that every block rewritten is whole in live frames.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use crate::committer::copy_bytes;
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskFile};
use crate::error::Offline;
use crate::plan::{block_ceil, block_floor};
use crate::segment::{BlockPrefix, Segment};
use crate::state::{LogInner, StoreInner, add};
use crate::wait::WaitList;

/// Longest write in bytes.
const WRITE_BYTES_MAX: u64 = 1 << 20;
/// Unsettled batches passed over in one round of eviction.
const EVICT_LOOKS: usize = 64;
/// Entries of batches that left memory, borne beyond as many as there are others.
pub(crate) const STALE_ENTRIES_MAX: usize = 64;
/// Logs written at once.
const LOGS_AT_ONCE: usize = 16;
/// Logs written before it is looked whether too many files wait for their flush.
const LOGS_BEFORE_FLUSH: usize = 4 * LOGS_AT_ONCE;
/// Pause after a pass that could not write all, because files are still being made.
const STALLED_PAUSE: Duration = Duration::from_millis(5);

/// State of the write behind of a store.
pub(crate) struct Writeback<D: Disk> {
    running: Cell<bool>,
    ended: WaitList,
    /// The cache is over its budget, and its oldest batches cannot go before they are written.
    evict_blocked: Cell<bool>,
    /// Somebody waits until what is unsettled is written.
    pub asked: Cell<bool>,
    /// Files written since the last checkpoint, by life of the segment, to be flushed by the next.
    pub unflushed: RefCell<BTreeMap<u64, Unflushed<D>>>,
}

/// A file that waits for its flush, and whose log is offline if that fails.
pub(crate) type Unflushed<D> = (Rc<LogInner<D>>, <D as Disk>::File);

impl<D: Disk> Default for Writeback<D> {
    fn default() -> Self {
        Writeback {
            running: Cell::new(false),
            ended: WaitList::default(),
            evict_blocked: Cell::new(false),
            asked: Cell::new(false),
            unflushed: RefCell::default(),
        }
    }
}

impl<D: Disk> StoreInner<D> {
    /// Whether unsettled bytes press on a budget.
    pub(crate) fn wants_writeback(&self) -> bool {
        let unsettled = self.levels.unsettled_bytes.get();
        unsettled > self.config.unsettled_bytes_max / 2
            || (unsettled > 0 && self.levels.room_waiters.get() > 0)
            || self.writeback.evict_blocked.get()
            || (unsettled > 0 && self.writeback.asked.get())
    }

    /// Drops the oldest settled batches from memory while the cache is over its budget. Unsettled ones get another
    /// round; if only those turn up, write behind has to come first.
    ///
    /// Batches also go by deletion, truncation and removal, and leave their entries behind: those are swept out when
    /// they are as many as the others.
    pub(crate) fn evict(&self) {
        if self.cached.borrow().len() > 2 * self.levels.cached_batches.get() + STALE_ENTRIES_MAX {
            self.sweep_cached();
        }
        let mut looks = EVICT_LOOKS;
        while self.levels.cache_bytes.get() > self.config.cache_bytes_max && looks > 0 {
            let Some(log) = self.cached.borrow_mut().pop_front() else { return };
            if !evict_one(self, &log) {
                looks -= 1;
                self.cached.borrow_mut().push_back(log);
            }
        }
        let blocked = looks == 0;
        if blocked && !self.writeback.evict_blocked.replace(true) {
            self.work.wake_all();
        } else if !blocked {
            self.writeback.evict_blocked.set(false);
        }
    }
}

impl<D: Disk> StoreInner<D> {
    /// Leaves each log as many entries as it has batches in memory, the newest of them.
    fn sweep_cached(&self) {
        let mut cached = self.cached.borrow_mut();
        let mut left = BTreeMap::new();
        let mut kept: VecDeque<_> = VecDeque::with_capacity(self.levels.cached_batches.get());
        for log in cached.drain(..).rev() {
            let left = left.entry(log.id).or_insert_with(|| log.state.borrow().memory.len());
            if *left > 0 {
                *left -= 1;
                kept.push_front(log);
            }
        }
        *cached = kept;
    }
}

/// Drops the oldest batch of the log; says no if it is unsettled.
fn evict_one<D: Disk>(store: &StoreInner<D>, log: &LogInner<D>) -> bool {
    // Memory may be all that has what was acknowledged of a log that failed.
    if log.to_rescue.get() || log.rescuing.get() {
        return false;
    }
    let mut state = log.state.borrow_mut();
    let Some(front) = state.memory.front() else { return true };
    let segment = state.segments.iter().rev().find(|segment| segment.base == front.segment_base);
    if let Some(segment) = segment {
        let first = segment.pending.borrow().first();
        if first.is_some_and(|first| front.end() > block_floor(first)) {
            return false;
        }
        let block = block_floor(segment.end.get());
        if front.end() > block {
            let mut prefix = segment.prefix.borrow_mut();
            if front.position <= block {
                *prefix = Some(BlockPrefix { block, bytes: Vec::new() });
            }
            if let Some(prefix) = prefix.as_mut().filter(|prefix| prefix.block == block) {
                keep_end(prefix, front.position, &[&front.head, &front.body]);
            }
        }
    }
    let freed = state.memory.pop_front();
    drop(state);
    store.uncached(freed);
    true
}

/// Adds what of a batch at `position` follows the bytes kept, if it does so without a gap.
fn keep_end(prefix: &mut BlockPrefix, position: u64, parts: &[&[u8]]) {
    let mut at = position;
    for part in parts {
        let known = prefix.block + prefix.bytes.len() as u64;
        let end = at + part.len() as u64;
        if at <= known && end > known {
            prefix.bytes.extend_from_slice(&part[(known - at) as usize..]);
        }
        at = end;
    }
}

/// Writes behind whenever a budget is pressed, until the store stops.
pub(crate) async fn run_writeback<D: Disk>(store: Rc<StoreInner<D>>) {
    loop {
        let wanted = || (store.stopped.get() || store.wants_writeback()).then_some(());
        store.work.until(wanted).await;
        if store.stopped.get() {
            return;
        }
        let written = pass(&store).await;
        store.evict();
        if !written {
            store.disk.sleep(STALLED_PAUSE).await;
        }
    }
}

/// Writes everything that is stable and unsettled now. Says whether there was anything it could write.
pub(crate) async fn pass<D: Disk>(store: &Rc<StoreInner<D>>) -> bool {
    let writeback = &store.writeback;
    writeback.ended.until(|| (!writeback.running.replace(true)).then_some(())).await;
    let logs: Vec<_> = store.dirty.borrow_mut().drain(..).collect();
    logs.iter().for_each(|log| log.dirty.set(false));
    let before = store.levels.writeback_bytes.get();
    for some in logs.chunks(LOGS_BEFORE_FLUSH) {
        let write = async |log| write_log(store, log).await;
        stream::iter(some).for_each_concurrent(LOGS_AT_ONCE, write).await;
        flush_surplus(store).await;
    }
    for log in logs.iter().filter(|log| !log.has_failed()) {
        if log.state.borrow().segments.iter().any(|segment| !segment.pending.borrow().is_empty()) {
            store.mark_dirty(log);
        }
    }
    writeback.running.set(false);
    writeback.ended.wake_all();
    store.levels.writeback_bytes.get() > before
}

/// Writes behind until nothing is left that `unsettled` asks for.
pub(crate) async fn settle<D: Disk>(
    store: &Rc<StoreInner<D>>,
    unsettled: impl Fn() -> bool,
) -> Result<(), Offline> {
    loop {
        pass(store).await;
        if let Some(offline) = store.is_offline() {
            return Err(offline);
        }
        if !unsettled() {
            return Ok(());
        }
        if store.stopped.get() {
            return Err(Offline::new("the store was closed"));
        }
        store.disk.sleep(STALLED_PAUSE).await;
    }
}

/// Flushes the files written since the last checkpoint if they are more than may be open: each of them is. Nothing is
/// written behind meanwhile, so that none is written to between its flush and its leaving the list.
async fn flush_surplus<D: Disk>(store: &Rc<StoreInner<D>>) {
    let unflushed = &store.writeback.unflushed;
    if unflushed.borrow().len() <= store.config.open_files_max {
        return;
    }
    let files: Vec<_> = unflushed.borrow().iter().map(|(life, file)| (*life, file.clone())).collect();
    let flush = async |(life, (log, file)): (u64, Unflushed<D>)| {
        if store.flush_segment(&log, life, &file).await {
            unflushed.borrow_mut().remove(&life);
        }
    };
    stream::iter(files).for_each_concurrent(LOGS_AT_ONCE, flush).await;
}

async fn write_log<D: Disk>(store: &Rc<StoreInner<D>>, log: &Rc<LogInner<D>>) {
    let with_pending = |segment: &&Rc<Segment<D>>| !segment.pending.borrow().is_empty();
    let segments: Vec<_> = log.state.borrow().segments.iter().filter(with_pending).cloned().collect();
    for segment in segments.iter().filter(|segment| segment.is_ready() && !log.has_failed()) {
        write_segment(store, log, segment).await;
        segment.writeback_to.set(0);
        segment.trim_prefix();
    }
}

async fn write_segment<D: Disk>(store: &Rc<StoreInner<D>>, log: &Rc<LogInner<D>>, segment: &Rc<Segment<D>>) {
    let mut position = 0;
    loop {
        if segment.retired.get() || store.stopped.get() || log.has_failed() {
            return;
        }
        let durable_seq = store.pipeline.durable_seq.get();
        let Some(range) = segment.pending.borrow().next_writable(position, durable_seq) else { return };
        let range = range.start..range.end.min(block_floor(range.start) + WRITE_BYTES_MAX);
        let (block, block_end) = (block_floor(range.start), block_ceil(range.end));
        segment.writeback_to.set(block_end);
        let Some(file) = store.file_for_writing(log, segment).await else { return };
        if segment.retired.get() || log.has_failed() {
            return;
        }
        let mut data = AlignedBuf::with_capacity((block_end - block) as usize);
        copy_bytes(log, segment, block..range.end, &mut data);
        data.pad_to_block();
        let data = data.freeze();
        debug_assert!(data.len().is_multiple_of(BLOCK));
        add(&store.levels.writeback_bytes, data.len() as u64);
        let op = || file.write_at(data.clone(), block);
        let written = store.retry_for_log((log, segment), "writing behind", op).await;
        segment.wrote(block);
        if written.is_none() || log.has_failed() {
            return;
        }
        store.writeback.unflushed.borrow_mut().insert(segment.life, (log.clone(), file));
        let settled = segment.pending.borrow_mut().settle(range.clone());
        store.settled(settled);
        position = range.end;
    }
}
