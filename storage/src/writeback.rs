//! Write behind: brings inline bytes from the journal's frames (kept in memory) to their segments, joined up into
//! large aligned writes. Only stable bytes are written, so that every block rewritten is whole in live frames.
//!
//! It keeps out of the way of commits: one write at a time while there is time, more the nearer what is unsettled, or the
//! journal behind a checkpoint, comes to making producers wait, and all it can when somebody waits already.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use crate::committer::copy_bytes;
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskFile};
use crate::error::Offline;
use crate::inline::Inline;
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
/// Most logs written at once while nobody waits for it.
const LOGS_AT_ONCE: usize = 16;
/// Most logs written at once.
const LOGS_AT_ONCE_MAX: usize = 64;
/// Bytes that are written behind at once, beyond which one more write waits.
const WRITING_BYTES_MAX: u64 = 16 << 20;
/// Logs written before it is looked whether too many files wait for their flush, at least, and by how many they may then be
/// too many.
const LOGS_BEFORE_FLUSH_MIN: usize = 64;
/// Where more files may wait: a part of them.
const LOGS_BEFORE_FLUSH_PART: usize = 16;
/// Commits go inline only below this part of write behind's pressure.
const INLINE_STEPS: usize = 4;
/// Pause after a pass that could not write all, because files are still being made.
const STALLED_PAUSE: Duration = Duration::from_millis(5);

/// State of the write behind of a store.
pub(crate) struct Writeback<D: Disk> {
    running: Cell<bool>,
    ended: WaitList,
    /// How many wait for the end of a pass to write what a checkpoint or a truncation waits for: they come before the next.
    settling: Cell<usize>,
    /// The cache is over its budget, and its oldest batches cannot go before they are written.
    evict_blocked: Cell<bool>,
    /// Somebody waits until what is unsettled is written.
    pub asked: Cell<bool>,
    /// How many wait for it, or for a checkpoint, whom others wait for.
    hurried: Cell<usize>,
    /// Writes in flight, and their bytes.
    writing: Cell<usize>,
    writing_bytes: Cell<u64>,
    /// One of them ended, or there may be more.
    wrote: WaitList,
    /// Files written since the last checkpoint, by life of the segment, to be flushed by the next.
    pub unflushed: RefCell<BTreeMap<u64, Unflushed<D>>>,
    /// Files that a checkpoint under way has yet to flush: they are open as well.
    pub flushing: Cell<usize>,
    /// Whether small commits count on it.
    pub inline: Inline,
}

/// A file that waits for its flush, and whose log is offline if that fails.
pub(crate) type Unflushed<D> = (Rc<LogInner<D>>, <D as Disk>::File);

impl<D: Disk> Default for Writeback<D> {
    fn default() -> Self {
        Writeback {
            running: Cell::new(false),
            ended: WaitList::default(),
            settling: Cell::new(0),
            evict_blocked: Cell::new(false),
            asked: Cell::new(false),
            hurried: Cell::new(0),
            writing: Cell::new(0),
            writing_bytes: Cell::new(0),
            wrote: WaitList::default(),
            unflushed: RefCell::default(),
            flushing: Cell::new(0),
            inline: Inline::default(),
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

    /// Writes behind, or flushes of what was written, that may be in flight at once, of at most `most`.
    pub(crate) fn behind_at_once(&self, most: usize) -> usize {
        if self.behind_is_awaited() {
            return most;
        }
        (1 + (self.behind_pressure() * most as f64) as usize).min(most)
    }

    /// Whether somebody waits for what is written behind, or nobody comes any more who would wait for anything else.
    fn behind_is_awaited(&self) -> bool {
        let awaited = self.levels.room_waiters.get() > 0 || self.writeback.hurried.get() > 0;
        awaited
            || self.journal.waiting.get()
            || self.stopped.get()
            || self.closing.get()
            || self.refuses_clients()
    }

    /// How far what is written behind has come from where it begins to be written to where commits wait for it: 0 before,
    /// 1 and above at the bound.
    fn behind_pressure(&self) -> f64 {
        let beyond = |level: usize, bound: usize| level.saturating_sub(bound) as f64 / bound.max(1) as f64;
        let unsettled = beyond(self.levels.unsettled_bytes.get(), self.config.unsettled_bytes_max / 2);
        let cached = beyond(self.levels.cache_bytes.get(), self.config.cache_bytes_max);
        let files = self.writeback.unflushed.borrow().len() + self.writeback.flushing.get();
        let files = beyond(files, self.config.open_files_max / 2);
        unsettled.max(cached).max(files).max(self.journal.pressure())
    }

    /// Whether a commit of `bytes` goes inline with all it has: it is small, and write behind keeps up, and did lately.
    pub(crate) fn goes_inline(&self, bytes: usize) -> bool {
        bytes <= self.config.inline_commit_bytes_max
            && self.writeback.inline.may(self.behind_at_once(INLINE_STEPS) == 1)
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
        let nobody_first = || store.writeback.settling.get() == 0;
        store.writeback.begin_pass(nobody_first).await;
        let written = pass(&store, |_| true).await;
        store.evict();
        if !written {
            store.disk.sleep(STALLED_PAUSE).await;
        }
    }
}

/// Writes everything that is stable and unsettled now of those logs that are `wanted`; [`Writeback::begin_pass`] comes first.
/// Says whether there was anything it could write.
pub(crate) async fn pass<D: Disk>(store: &Rc<StoreInner<D>>, wanted: impl Fn(&LogInner<D>) -> bool) -> bool {
    let writeback = &store.writeback;
    let logs = take_dirty(store, wanted);
    logs.iter().for_each(|log| log.dirty.set(false));
    let before = store.levels.writeback_bytes.get();
    for some in logs.chunks(logs_before_flush(store)) {
        let write = async |log| write_log(store, log).await;
        stream::iter(some).for_each_concurrent(LOGS_AT_ONCE_MAX, write).await;
        flush_surplus(store).await;
    }
    for log in logs.iter().filter(|log| !log.has_failed()) {
        if has_unsettled(log) {
            store.mark_dirty(log);
        }
    }
    writeback.running.set(false);
    writeback.ended.wake_all();
    store.levels.writeback_bytes.get() > before
}

/// Takes those of the logs with unsettled bytes that are `wanted`. The others stay, in their order, but for those that have
/// none left, or whose bytes are not written behind any more.
fn take_dirty<D: Disk>(store: &StoreInner<D>, wanted: impl Fn(&LogInner<D>) -> bool) -> Vec<Rc<LogInner<D>>> {
    let mut dirty = store.dirty.borrow_mut();
    let (taken, others) = dirty.drain(..).partition::<Vec<_>, _>(|log| wanted(log));
    for log in others {
        if log.has_failed() || !has_unsettled(&log) {
            log.dirty.set(false);
        } else {
            dirty.push_back(log);
        }
    }
    taken
}

/// Whether some of the log's bytes are not in its segments yet.
pub(crate) fn has_unsettled<D: Disk>(log: &LogInner<D>) -> bool {
    log.state.borrow().segments.iter().any(|segment| !segment.pending.borrow().is_empty())
}

impl<D: Disk> Writeback<D> {
    /// Waits until no pass is under way, and `may` says that one may begin: then one is.
    pub(crate) async fn begin_pass(&self, may: impl Fn() -> bool) {
        self.ended.until(|| (may() && !self.running.replace(true)).then_some(())).await;
    }

    /// There may be more in flight than before.
    pub(crate) fn hasten(&self) {
        self.wrote.wake_all();
    }

    /// Waits until `more` says that there may be more in flight, which is looked at again as writes end.
    pub(crate) async fn hastened(&self, more: impl Fn() -> bool) {
        self.wrote.until(|| more().then_some(())).await;
    }
}

/// Somebody whom others wait for waits for what is written behind, or for a checkpoint, until this is dropped.
pub(crate) struct Hurry<'a, D: Disk>(&'a Writeback<D>);

impl<D: Disk> Hurry<'_, D> {
    pub(crate) fn begin(writeback: &Writeback<D>) -> Hurry<'_, D> {
        add(&writeback.hurried, 1);
        writeback.hasten();
        Hurry(writeback)
    }
}

impl<D: Disk> Drop for Hurry<'_, D> {
    fn drop(&mut self) {
        self.0.hurried.set(self.0.hurried.get() - 1);
    }
}

/// A write in flight of so many bytes.
struct Turn<'a, D: Disk>(&'a Writeback<D>, u64);

impl<D: Disk> Turn<'_, D> {
    /// Waits until one more may be in flight.
    async fn take(store: &StoreInner<D>, bytes: u64) -> Turn<'_, D> {
        let writeback = &store.writeback;
        let (writing, all) = (&writeback.writing, &writeback.writing_bytes);
        let free = || {
            let most = if store.behind_is_awaited() { LOGS_AT_ONCE_MAX } else { LOGS_AT_ONCE };
            let free = writing.get() < store.behind_at_once(most) && all.get() < WRITING_BYTES_MAX;
            free.then(|| {
                add(writing, 1);
                add(all, bytes);
            })
        };
        writeback.wrote.until(free).await;
        Turn(writeback, bytes)
    }
}

impl<D: Disk> Drop for Turn<'_, D> {
    fn drop(&mut self) {
        let Turn(writeback, bytes) = self;
        writeback.writing.set(writeback.writing.get() - 1);
        writeback.writing_bytes.set(writeback.writing_bytes.get() - *bytes);
        writeback.wrote.wake_all();
    }
}

/// Goes before other passes until this is dropped.
struct Settling<'a, D: Disk>(&'a Writeback<D>);

impl<D: Disk> Settling<'_, D> {
    fn begin(writeback: &Writeback<D>) -> Settling<'_, D> {
        add(&writeback.settling, 1);
        Settling(writeback)
    }
}

impl<D: Disk> Drop for Settling<'_, D> {
    fn drop(&mut self) {
        self.0.settling.set(self.0.settling.get() - 1);
        self.0.ended.wake_all();
    }
}

/// Writes behind until there is no log left that is `unsettled`, and no others.
pub(crate) async fn settle<D: Disk>(
    store: &Rc<StoreInner<D>>,
    unsettled: impl Fn(&LogInner<D>) -> bool,
) -> Result<(), Offline> {
    loop {
        {
            let _first = Settling::begin(&store.writeback);
            store.writeback.begin_pass(|| true).await;
        }
        pass(store, &unsettled).await;
        if let Some(offline) = store.is_offline() {
            return Err(offline);
        }
        if !store.dirty.borrow().iter().any(|log| unsettled(log)) {
            return Ok(());
        }
        if store.stopped.get() {
            return Err(Offline::new("the store was closed"));
        }
        store.disk.sleep(STALLED_PAUSE).await;
    }
}

fn logs_before_flush<D: Disk>(store: &StoreInner<D>) -> usize {
    LOGS_BEFORE_FLUSH_MIN.max(store.config.open_files_max / LOGS_BEFORE_FLUSH_PART)
}

/// Flushes the files written since the last checkpoint if they are more than may be open: each of them is. Nothing is
/// written behind meanwhile, so that none is written to between its flush and its leaving the list.
async fn flush_surplus<D: Disk>(store: &Rc<StoreInner<D>>) {
    let unflushed = &store.writeback.unflushed;
    let ahead = logs_before_flush(store) - LOGS_BEFORE_FLUSH_MIN;
    if unflushed.borrow().len() + store.writeback.flushing.get() + ahead <= store.config.open_files_max {
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
        // It may have ended before the write.
        segment.writeback_to.set(0);
        segment.trim_prefix();
    }
}

async fn write_segment<D: Disk>(store: &Rc<StoreInner<D>>, log: &Rc<LogInner<D>>, segment: &Rc<Segment<D>>) {
    let mut position = 0;
    // What comes or becomes stable meanwhile is for the next pass: others have their turn.
    let (durable_seq, end) = (store.pipeline.durable_seq.get(), segment.end.get());
    let next_from = |position| {
        segment.pending.borrow().next_writable(position, durable_seq).filter(|range| range.start < end)
    };
    while let Some(range) = next_from(position) {
        let turn = Turn::take(store, (range.end - range.start).min(WRITE_BYTES_MAX)).await;
        if segment.retired.get() || store.stopped.get() || log.has_failed() {
            return;
        }
        let Some(range) = next_from(position) else { return };
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
        segment.writeback_to.set(0);
        drop(turn);
        if written.is_none() || log.has_failed() {
            return;
        }
        store.writeback.unflushed.borrow_mut().insert(segment.life, (log.clone(), file));
        let settled = segment.pending.borrow_mut().settle(range.clone());
        store.settled(settled);
        position = range.end;
    }
}

#[cfg(test)]
mod tests;
