//! Reading everything that is settled again, slowly, so that damage is found while a backup still has what it took.
//!
//! One pass reads every segment: header, batches (crc, chain of offsets, leader epochs), and the index file against them;
//! and the two files of the checkpoint. What can be made anew is: headers, indexes, checkpoints. A damaged batch is said
//! once, with the first offset that cannot be read, and stays an error for its readers; what stands behind it is
//! checked on, where its length can be believed.
//!
//! Bounds: one read of [`READ_BYTES`] (or one batch) at a time, as many a second as `scrub_bytes_per_second` allows, none
//! while appends wait for room. Where it stands is kept in memory alone: a pass begins anew with the store, at another log.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};

use crate::checkpoint_file::are_sound;
use crate::disk::{BLOCK, Disk, DiskFile};
use crate::error::ReadError;
use crate::files::{FileError, begins_right, is_of};
use crate::index::{IndexError, IndexedBatch, SegmentIndex};
use crate::indexes::{renew_file, stored};
use crate::read::settled_to;
use crate::segment::{DATA_START, Segment, SegmentHeader};
use crate::state::{LogInner, StoreInner, add};
use crate::walk::{Walk, Walked, appended};

/// Bytes read at once.
const READ_BYTES: u64 = 128 << 10;
/// Paid for a read, however little it gave: what stands around it costs as much.
const PAID_MIN: u64 = 32 << 10;
/// Between two passes.
pub(crate) const PASS_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Pause while others need the disk.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Damaged places remembered, so that each is said once.
const KNOWN_MAX: usize = 10_000;

/// What scrubbing did and found since the store was opened.
#[derive(Default)]
pub(crate) struct ScrubLevels {
    pub batches: Cell<u64>,
    pub bytes: Cell<u64>,
    pub passes: Cell<u64>,
    /// Damaged places found, each once.
    pub damaged: Cell<u64>,
    /// Headers, indexes and checkpoints written anew.
    pub mended: Cell<u64>,
    /// Places told: life of the segment, position.
    known: RefCell<BTreeSet<(u64, u64)>>,
}

/// The store stopped.
struct Stopped;

/// Scrubs until the store closes.
pub(crate) async fn run_scrubber<D: Disk>(store: Rc<StoreInner<D>>) {
    // Another log each time, so that a store that is opened often has all of them read.
    let mut first = store.run as usize;
    loop {
        if pass(&store, first).await.is_err() || pause(&store, PASS_PAUSE).await.is_err() {
            return;
        }
        first = first.wrapping_add(1);
    }
}

/// Reads everything once.
async fn pass<D: Disk>(store: &Rc<StoreInner<D>>, first: usize) -> Result<(), Stopped> {
    let names: Vec<Rc<str>> = store.logs.borrow().keys().cloned().collect();
    let start = first.checked_rem(names.len()).unwrap_or(0);
    for name in names[start..].iter().chain(&names[..start]) {
        let Some(log) = store.logs.borrow().get(name).cloned() else { continue };
        let mut next = i64::MIN;
        loop {
            let segment = {
                let state = log.state.borrow();
                let sound = state.offline.is_none() && !state.removed;
                let at = state.segments.partition_point(|segment| segment.base < next);
                state.segments.get(at).filter(|_| sound).cloned()
            };
            let Some(segment) = segment else { break };
            next = segment.base + 1;
            scrub(store, &log, segment).await?;
        }
        store.disk.yield_now().await;
    }
    if !are_sound(&store.disk, &store.dir).await {
        tracing::error!(dir = %store.dir.display(), "the checkpoint or its copy is damaged; both are written anew");
        add(&store.levels.scrub.mended, 1);
        store.pipeline.request_checkpoint(store);
    }
    add(&store.levels.scrub.passes, 1);
    Ok(())
}

/// Waits, unless the store closes.
async fn pause<D: Disk>(store: &StoreInner<D>, duration: Duration) -> Result<(), Stopped> {
    let closing = || (store.closing.get() || store.stopped.get()).then_some(());
    let (sleep, closing) = (pin!(store.disk.sleep(duration)), pin!(store.work.until(closing)));
    match select(closing, sleep).await {
        Either::Left(_) => Err(Stopped),
        Either::Right(_) => Ok(()),
    }
}

/// Waits as long as the bytes read are to take, and while the store is busy.
async fn pay<D: Disk>(store: &StoreInner<D>, bytes: u64) -> Result<(), Stopped> {
    let per_second = store.config.scrub_bytes_per_second.max(1);
    pause(store, Duration::from_micros(bytes.saturating_mul(1_000_000) / per_second)).await?;
    let levels = &store.levels;
    let busy = || {
        levels.room_waiters.get() > 0
            || levels.unsettled_bytes.get() > store.config.unsettled_bytes_max / 4 * 3
            || store.disk_full.get() > 0
    };
    while busy() {
        pause(store, BUSY_PAUSE).await?;
    }
    Ok(())
}

/// Whether what was read is the log's still.
fn is_live<D: Disk>(log: &LogInner<D>, segment: &Rc<Segment<D>>, truncations: u64) -> bool {
    let state = log.state.borrow();
    let there = state.segments.iter().any(|known| Rc::ptr_eq(known, segment));
    there && state.truncations == truncations && !state.removed && !segment.retired.get()
}

/// Reads one segment, as far as it is settled.
async fn scrub<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    mut segment: Rc<Segment<D>>,
) -> Result<(), Stopped> {
    let (limit, truncations, interval, active) = {
        let state = log.state.borrow();
        let active = state.segments.back().is_some_and(|active| Rc::ptr_eq(active, &segment));
        (settled_to(&state, &segment).0, state.truncations, state.config.index_interval(), active)
    };
    if limit <= DATA_START || !segment.is_ready() {
        return Ok(());
    }
    match header(store, log, &segment).await {
        Ok(()) => {}
        Err(_) if !is_live(log, &segment, truncations) => return Ok(()),
        Err(Header::Damaged(what)) => tell(store, log, &segment, (0, segment.base), what),
        Err(Header::Unread(why)) => return skip(store, log, &segment, &why).await,
    }
    let mut walk = Walk::new(log, &segment, DATA_START..limit);
    let mut named = NamedBatches::new(store, &segment, !active && limit == segment.end.get()).await;
    let mut index = SegmentIndex::new(segment.base, DATA_START);
    let mut sound = true;
    while !walk.is_over() {
        let mut walked = Walked::new();
        let before = walk.position;
        let due = walk.due;
        let stepped = walk.step((store, log), &segment, READ_BYTES, &mut walked).await;
        let bytes: u64 = walked.iter().map(|(_, header)| header.total_len() as u64).sum();
        add(&store.levels.scrub.batches, walked.len() as u64);
        add(&store.levels.scrub.bytes, bytes);
        if !is_live(log, &segment, truncations) {
            return Ok(());
        }
        for (position, header) in &walked {
            index.note(&appended(*position, header), interval);
            named.meet(*position, header.base_offset);
        }
        match stepped {
            Ok(()) => {}
            Err(ReadError::Corrupt { position, .. }) => {
                sound = false;
                let offset = walked.last().map_or(due, |(_, header)| header.next_offset());
                tell(store, log, &segment, (position, offset), "a batch is damaged");
                match walk.pass((store, log), &segment).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => return skip(store, log, &segment, &error.to_string()).await,
                }
            }
            Err(error) => return skip(store, log, &segment, &error.to_string()).await,
        }
        // Not held meanwhile: truncation waits for it, and so does the space of a deleted segment.
        let (base, held) = (segment.base, Rc::downgrade(&segment));
        drop(segment);
        pay(store, READ_BYTES.min(limit - before).max(bytes).max(PAID_MIN)).await?;
        let Some(there) = held.upgrade().filter(|there| is_live(log, there, truncations)) else {
            tracing::trace!(log = %log.name, segment = base, "scrub: the segment went away");
            return Ok(());
        };
        segment = there;
    }
    let renew = sound && is_live(log, &segment, truncations) && !named.are_right();
    if renew && renew_file(store, log, &segment, (truncations, &index)).await {
        add(&store.levels.scrub.mended, 1);
        tracing::error!(log = %log.name, segment = segment.base, "scrub: a damaged index was written anew");
    }
    Ok(())
}

/// A segment that the disk did not give is left to the next pass: too few descriptors or a cable is no damage.
async fn skip<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    segment: &Segment<D>,
    why: &str,
) -> Result<(), Stopped> {
    tracing::warn!(log = %log.name, segment = segment.base, "scrub: not checked in this pass: {why}");
    pay(store, READ_BYTES).await
}

/// Says what is damaged, once.
fn tell<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    segment: &Segment<D>,
    (position, offset): (u64, i64),
    what: &str,
) {
    let levels = &store.levels.scrub;
    let mut known = levels.known.borrow_mut();
    if known.len() >= KNOWN_MAX || !known.insert((segment.life, position)) {
        return;
    }
    add(&levels.damaged, 1);
    let file = segment.path.display();
    tracing::error!(log = %log.name, segment = segment.base, position, offset, %file, "scrub: {what}");
}

/// What is the matter with a header block.
enum Header {
    Damaged(&'static str),
    /// The disk did not give it.
    Unread(String),
}

/// Checks the header block; a damaged one is written anew where the batches show that the file is the one meant.
async fn header<D: Disk>(
    store: &StoreInner<D>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
) -> Result<(), Header> {
    let unread = |error: io::Error| Header::Unread(error.to_string());
    let file = match store.files.get(&store.disk, log, segment).await {
        Ok(file) => file,
        Err(FileError::Io(error)) => return Err(unread(error)),
        Err(FileError::NewerVersion(_)) => return Err(Header::Damaged("header block is of a newer version")),
        Err(FileError::Foreign | FileError::Damaged) => {
            return Err(Header::Damaged("the file is not the one meant"));
        }
    };
    let block = file.read_at(0, BLOCK).await.map_err(unread)?;
    match SegmentHeader::decode(&block) {
        Some(header) if is_of(&header, log, segment) => return Ok(()),
        Some(_) => return Err(Header::Damaged("header block is that of another segment")),
        None => {}
    }
    if !begins_right(&file, segment).await.map_err(unread)? {
        return Err(Header::Damaged("header block is damaged"));
    }
    if log.has_failed() {
        return Ok(());
    }
    let header = SegmentHeader {
        log_id: log.id,
        base: segment.base,
        life: segment.life,
        log_name: log.name.to_string(),
    };
    file.write_at(header.encode().freeze(), 0).await.map_err(unread)?;
    // As every flush of it: what was written before may fail in this one.
    if !store.flush_segment(log, segment.life, &file).await {
        return Ok(());
    }
    add(&store.levels.scrub.mended, 1);
    tracing::error!(log = %log.name, segment = segment.base, "scrub: a damaged header was written anew");
    Ok(())
}

/// What the index file names, held against the batches that are there.
struct NamedBatches {
    batches: Vec<IndexedBatch>,
    met: usize,
    right: bool,
}

impl NamedBatches {
    /// Those in the segment's index file, if it has one that counts and is wanted.
    async fn new<D: Disk>(store: &StoreInner<D>, segment: &Segment<D>, wanted: bool) -> NamedBatches {
        let stored = if wanted { stored(store, segment).await } else { None };
        let (batches, right) = match stored {
            Some(Ok(index)) => (index.batches().collect(), true),
            Some(Err(IndexError::Damaged)) => (Vec::new(), false),
            // Not used, and so not wrong.
            None | Some(Err(IndexError::OtherSegment | IndexError::NewerVersion(_))) => (Vec::new(), true),
        };
        NamedBatches { batches, met: 0, right }
    }

    /// A batch is there. They come in order.
    fn meet(&mut self, position: u64, base_offset: i64) {
        let Some(next) = self.batches.get(self.met).filter(|next| next.position <= position) else { return };
        self.right &= *next == IndexedBatch { base_offset, position };
        self.met += 1;
    }

    /// Whether every batch named was met.
    fn are_right(&self) -> bool {
        self.right && self.met == self.batches.len()
    }
}
