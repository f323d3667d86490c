//! Segment indexes in memory and in files.
//!
//! An index in memory knows its segment from some position on; lookups before it make it whole: from its file, else by
//! reading the segment's batch headers. Those of sealed segments are bounded by `index_bytes_max`, the oldest dropped
//! first, after it was written to a file; active ones are thinned where they take more than half of that. Files are a
//! convenience: one that does not fit its segment is not used.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::{Rc, Weak};

use futures_util::stream::{self, StreamExt};
use penstock_format::BatchHeader;

use crate::disk::{BLOCK, Disk, DiskFile};
use crate::error::ReadError;
use crate::index::{IndexError, SegmentIdentity, SegmentIndex};
use crate::read::READ_BYTES_MAX;
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, StoreInner};
use crate::wait::WaitList;
use crate::walk::{Walk, appended};

/// Longest index file read in bytes: all entries an index may have.
pub(crate) const FILE_LEN_MAX: usize = 48 + crate::index::ENTRIES_MAX * 16;
/// Entries that an active segment's index keeps, however many there are of them.
const ACTIVE_ENTRIES_MIN: usize = 16;
/// Files written at once.
const FILES_AT_ONCE: usize = 8;

/// The indexes of sealed segments held in memory.
pub(crate) struct SealedIndexes<D: Disk> {
    bytes_max: usize,
    bytes: Cell<usize>,
    /// Bytes of the indexes of active segments, as of the last look.
    active_bytes: Cell<usize>,
    held: RefCell<VecDeque<(Weak<Segment<D>>, usize)>>,
    /// An index was made whole.
    indexed: WaitList,
}

impl<D: Disk> SealedIndexes<D> {
    pub(crate) fn new(bytes_max: usize) -> SealedIndexes<D> {
        SealedIndexes {
            bytes_max,
            bytes: Cell::new(0),
            active_bytes: Cell::new(0),
            held: RefCell::default(),
            indexed: WaitList::default(),
        }
    }

    /// Bytes of all indexes, those of active segments as of the last look.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get() + self.active_bytes.get()
    }

    /// The segment takes no more batches, or its index was made whole again.
    pub(crate) fn hold(&self, segment: &Rc<Segment<D>>) {
        let bytes = segment.index.borrow().memory_bytes();
        self.bytes.set(self.bytes.get() + bytes);
        self.held.borrow_mut().push_back((Rc::downgrade(segment), bytes));
    }

    /// Drops the oldest while there are too many. Those of segments that are not stable wait: a file would tell of
    /// batches that a crash may replace by others.
    pub(crate) async fn shrink(&self, store: &StoreInner<D>) {
        self.thin_active(store);
        let mut looks = self.held.borrow().len();
        while self.bytes.get() + self.active_bytes.get() > self.bytes_max && looks > 0 {
            looks -= 1;
            let Some((held, bytes)) = self.held.borrow_mut().pop_front() else { return };
            let segment = held.upgrade().filter(|segment| !segment.retired.get());
            if let Some(segment) = &segment
                && segment.pending.borrow().any_after(store.pipeline.durable_seq.get())
            {
                self.held.borrow_mut().push_back((held, bytes));
                continue;
            }
            self.bytes.set(self.bytes.get() - bytes);
            let Some(segment) = segment else { continue };
            write_file(store, &segment).await;
            let end = segment.end.get();
            *segment.index.borrow_mut() = SegmentIndex::new(segment.base, end);
            segment.indexed_from.set(end);
        }
    }

    /// Counts the indexes of active segments. They may take half of the budget; beyond it each loses half of
    /// its entries, and lookups read twice as far.
    fn thin_active(&self, store: &StoreInner<D>) {
        loop {
            let (mut bytes, mut thinned) = (0, false);
            let too_many = self.active_bytes.get() > self.bytes_max / 2;
            for log in store.logs.borrow().values() {
                let state = log.state.borrow();
                let Some(active) = state.segments.back() else { continue };
                let mut index = active.index.borrow_mut();
                if too_many && index.len() > ACTIVE_ENTRIES_MIN {
                    index.thin();
                    thinned = true;
                }
                bytes += index.memory_bytes();
            }
            self.active_bytes.set(bytes);
            if !(thinned || !too_many && bytes > self.bytes_max / 2) {
                return;
            }
        }
    }
}

/// Path of the segment's index file.
pub(crate) fn index_path<D: Disk>(segment: &Segment<D>) -> PathBuf {
    segment.path.with_extension("index")
}

/// Writes the index to its file if it is whole and worth it. A failure costs time later, nothing else.
async fn write_file<D: Disk>(store: &StoreInner<D>, segment: &Rc<Segment<D>>) {
    let _turn = Turn::take(store, segment).await;
    let whole = segment.indexed_from.get() == DATA_START && segment.is_ready();
    if !whole || segment.index_stored.get() || segment.size() < store.config.index_worth_bytes {
        return;
    }
    let bytes = segment.index.borrow().encode(segment.life);
    match store.disk.write_small(&index_path(segment), bytes.into()).await {
        Ok(()) => segment.index_stored.set(true),
        Err(error) => tracing::warn!(path = %segment.path.display(), "writing a segment index: {error}"),
    }
}

/// Writes the files of all whole indexes, so that they need not be made again after opening.
pub(crate) async fn write_files<D: Disk>(store: &StoreInner<D>) {
    let logs: Vec<_> = store.logs.borrow().values().cloned().collect();
    let segments: Vec<_> = logs.iter().flat_map(|log| log.state.borrow().segments.clone()).collect();
    let write = async |segment: &Rc<Segment<D>>| write_file(store, segment).await;
    stream::iter(&segments).for_each_concurrent(FILES_AT_ONCE, write).await;
}

/// One at a time makes a segment's index whole, writes its file or removes it; the turn ends also where the future is
/// dropped.
struct Turn<'a, D: Disk>(&'a SealedIndexes<D>, &'a Segment<D>);

impl<D: Disk> Drop for Turn<'_, D> {
    fn drop(&mut self) {
        self.1.indexing.set(false);
        self.0.indexed.wake_all();
    }
}

impl<'a, D: Disk> Turn<'a, D> {
    async fn take(store: &'a StoreInner<D>, segment: &'a Segment<D>) -> Turn<'a, D> {
        store.indexes.indexed.until(|| (!segment.indexing.replace(true)).then_some(())).await;
        Turn(&store.indexes, segment)
    }
}

/// Removes the index file of a segment that was cut, durably and before the cut is: the segment keeps its base and life,
/// and once it has grown to its old end again the file would count, telling of batches that were cut off.
pub(crate) async fn forget_file<D: Disk>(store: &StoreInner<D>, segment: &Segment<D>) -> io::Result<()> {
    let _turn = Turn::take(store, segment).await;
    let path = index_path(segment);
    match store.disk.remove(&path).await {
        Ok(()) => store.disk.sync_dir(path.parent().unwrap_or(&store.dir)).await,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the index file of an active segment if it tells of a later end than the segment has: one that a cut could not
/// remove would count once the segment has grown to its old end again.
pub(crate) async fn forget_stale_file<D: Disk>(
    store: &StoreInner<D>,
    segment: &Segment<D>,
) -> io::Result<()> {
    let first = async || store.disk.open(&index_path(segment)).await?.read_at(0, BLOCK).await;
    let own = identity(segment);
    let tells_of_more = match first().await {
        Ok(first) => SegmentIndex::names(&first).is_some_and(|named| {
            (named.base_offset, named.life) == (own.base_offset, own.life)
                && named.end_position > own.end_position
        }),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    if tells_of_more { forget_file(store, segment).await } else { Ok(()) }
}

/// The segment's index file, if it has one.
pub(crate) async fn stored<D: Disk>(
    store: &StoreInner<D>,
    segment: &Segment<D>,
) -> Option<Result<SegmentIndex, IndexError>> {
    let _turn = Turn::take(store, segment).await;
    let bytes = store.disk.read_small(&index_path(segment), FILE_LEN_MAX).await.ok()?;
    Some(SegmentIndex::decode(&bytes, identity(segment), DATA_START))
}

/// Replaces the segment's index file by what the log was after so many truncations; says whether that was done.
pub(crate) async fn renew_file<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    segment: &Segment<D>,
    (truncations, index): (u64, &SegmentIndex),
) -> bool {
    let _turn = Turn::take(store, segment).await;
    // It may have been cut, and its file forgotten, while this waited for its turn.
    if segment.retired.get() || log.state.borrow().truncations != truncations {
        return false;
    }
    let written = store.disk.write_small(&index_path(segment), index.encode(segment.life).into()).await;
    if let Err(error) = &written {
        tracing::warn!(path = %segment.path.display(), "writing a segment index: {error}");
    }
    written.is_ok()
}

/// What the segment's index file has to name to count.
fn identity<D: Disk>(segment: &Segment<D>) -> SegmentIdentity {
    SegmentIdentity { base_offset: segment.base, life: segment.life, end_position: segment.end.get() }
}

/// Makes the segment's index whole, or, where a batch is damaged, as whole as can be: it then lacks entries.
pub(crate) async fn whole_index<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
) -> Result<(), ReadError> {
    let _turn = Turn::take(store, segment).await;
    if segment.indexed_from.get() == DATA_START {
        return Ok(());
    }
    let truncations = log.state.borrow().truncations;
    let identity = identity(segment);
    if segment.size() >= store.config.index_worth_bytes
        && let Ok(bytes) = store.disk.read_small(&index_path(segment), FILE_LEN_MAX).await
        && let Ok(index) = SegmentIndex::decode(&bytes, identity, DATA_START)
        && segment.end.get() == identity.end_position
    {
        segment.index_stored.set(true);
        install(store, log, segment, index, truncations);
        return Ok(());
    }
    rebuild(store, log, segment, truncations).await
}

/// Puts a whole index in place, unless the log was cut meanwhile.
fn install<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    segment: &Rc<Segment<D>>,
    index: SegmentIndex,
    truncations: u64,
) {
    let state = log.state.borrow();
    if state.truncations != truncations || segment.retired.get() || segment.indexed_from.get() == DATA_START {
        return;
    }
    *segment.index.borrow_mut() = index;
    segment.indexed_from.set(DATA_START);
    if state.segments.back().is_some_and(|active| !Rc::ptr_eq(active, segment)) {
        store.indexes.hold(segment);
    }
}

/// Reads the batch headers of the segment: those on disk, then those in memory.
async fn rebuild<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
    truncations: u64,
) -> Result<(), ReadError> {
    let interval = log.state.borrow().config.index_interval();
    let mut index = SegmentIndex::new(segment.base, DATA_START);
    let mut position = DATA_START;
    loop {
        let limit = log.state.borrow().memory.start_in(segment.base).unwrap_or(segment.end.get());
        if position < limit {
            if !note_settled(store, log, (segment, interval), (position..limit, &mut index)).await? {
                index.join(&segment.index.borrow());
                install(store, log, segment, index, truncations);
                return Ok(());
            }
            position = limit;
            continue;
        }
        for batch in log.state.borrow().memory.in_segment(segment.base) {
            if let Ok(header) = BatchHeader::parse(&batch.head) {
                index.note(&appended(batch.position, &header), interval);
            }
        }
        install(store, log, segment, index, truncations);
        return Ok(());
    }
}

/// Notes the batches of a settled range. Damaged ones are left out; where it cannot be told how one goes on, says no.
async fn note_settled<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    (segment, interval): (&Rc<Segment<D>>, u32),
    (range, index): (std::ops::Range<u64>, &mut SegmentIndex),
) -> Result<bool, ReadError> {
    let mut walk = Walk::new(log, segment, range);
    while !walk.is_over() {
        let mut walked = Vec::new();
        let stepped = walk.step((store, log), segment, READ_BYTES_MAX, &mut walked).await;
        walked.iter().for_each(|(position, header)| index.note(&appended(*position, header), interval));
        match stepped {
            Ok(()) => {}
            Err(ReadError::Corrupt { position, .. }) => {
                tracing::error!(log = %log.name, segment = segment.base, position, "a batch is damaged");
                // It may be as new as the newest: who looks for a time must come upon it.
                index.note_damage(segment.max_timestamp.get().0);
                if !walk.pass((store, log), segment).await? {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
        store.disk.yield_now().await;
    }
    Ok(true)
}
