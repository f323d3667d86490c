//! Group commit: what is appended gathers in the running commit; the committer plans one commit after the other,
//! writes its frame and direct shares, and the flusher makes it stable.
//!
//! Invariants:
//! - Commits are planned, placed and acknowledged in the order of their numbers (`seq`, also the frame's number).
//! - A commit is acknowledged when its writes completed before a flush of every file they touched began, that flush
//!   succeeded, and so did those of all commits before it.
//! - A log whose segment cannot be written or flushed leaves every commit that is not acknowledged yet; the others of
//!   the commit are acknowledged without it ([`crate::rescue`]).
//! - Writes of later commits overlap the flush of earlier ones. Bounds: [`WRITING_MAX`], [`IN_FLIGHT_MAX`],
//!   [`crate::StoreConfig::frame_bytes_max`], and the queue by the journal's room.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::disk::{AlignedBuf, BLOCK, Disk};
use crate::error::Offline;
use crate::frame::{
    APPEND_ENTRY_LEN, AppendEntry, Entry, FrameHeader, HEADER_LEN, OTHER_ENTRY_LEN_MAX, encode_meta,
    entry_len,
};
use crate::segment::Segment;
use crate::state::{LogInner, StoreInner};
use crate::wait::WaitList;

/// Commits whose writes are in flight at once.
const WRITING_MAX: usize = 4;
/// Commits placed and not yet stable.
const IN_FLIGHT_MAX: usize = 16;

/// Header and body of each batch, one after the other. Most shares begin with one batch, and what joins another has no use for
/// memory of its own.
pub(crate) type Parts = SmallVec<[Bytes; 2]>;

/// Consecutive batches of one log in one segment, part of a commit.
pub(crate) struct Share<D: Disk> {
    pub log: Rc<LogInner<D>>,
    pub segment: Rc<Segment<D>>,
    /// File positions of the first byte and after the last.
    pub from: u64,
    pub to: u64,
    pub first_offset: i64,
    pub next_offset: i64,
    pub batch_count: u32,
    pub parts: Parts,
    /// No frame can hold it: it goes straight to its segment, which has room (see [`crate::large`]).
    pub large: bool,
}

/// What a commit is made of.
pub(crate) struct Commit<D: Disk> {
    pub seq: u64,
    pub shares: Vec<Share<D>>,
    /// Entries other than appends, in order, after which the shares follow.
    pub others: Vec<Entry>,
    /// Bytes of batches.
    pub bytes: usize,
    /// Most bytes its frame may take, in whole blocks.
    pub frame_len_max: usize,
}

impl<D: Disk> Commit<D> {
    fn new(seq: u64) -> Commit<D> {
        Commit { seq, shares: Vec::new(), others: Vec::new(), bytes: 0, frame_len_max: HEADER_LEN + BLOCK }
    }
}

/// Most bytes that a share adds to a frame if it certainly goes straight to its segment: the repeated beginning of its
/// first block, and what it has of its first and its last block.
pub(crate) const DIRECT_FRAME_LEN_MAX: usize = APPEND_ENTRY_LEN + 3 * BLOCK;

/// Most bytes a share of `len` bytes adds to a frame.
pub(crate) fn share_frame_len_max(len: usize) -> usize {
    APPEND_ENTRY_LEN + BLOCK + len
}

/// A share of a commit that was placed.
pub(crate) struct Written<D: Disk> {
    pub log: Rc<LogInner<D>>,
    pub segment: Rc<Segment<D>>,
    pub next_offset: i64,
    /// The segment's file, if some of the share went straight there.
    pub direct: Option<D::File>,
}

/// A frame as it was placed.
pub(crate) struct PlacedFrame<D: Disk> {
    /// Number of the journal's file.
    pub number: u64,
    pub file: D::File,
    pub position: u64,
    pub header: FrameHeader,
    pub entries: Vec<Entry>,
    pub data: Bytes,
}

/// A commit that was placed.
pub(crate) struct InFlight<D: Disk> {
    pub seq: u64,
    pub written: bool,
    pub shares: Vec<Written<D>>,
    pub frame: PlacedFrame<D>,
}

impl<D: Disk> InFlight<D> {
    /// Whether a log has a share in it that failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.shares.iter().any(|share| share.log.has_failed())
    }

    /// Takes the shares of failed logs out of it; the frame then has to be written again in its place. It was not
    /// acknowledged: whichever of both frames, or neither, a crash leaves is right.
    pub(crate) fn strip(&mut self) {
        let gone: Vec<_> = self.shares.extract_if(.., |share| share.log.has_failed()).collect();
        let frame = &mut self.frame;
        let is_gone = |append: &AppendEntry| gone.iter().any(|share| share.log.id == append.log_id);
        // A start that was moved stays: only what was stable is ever deleted ([`crate::cut`]).
        frame.entries.retain(|entry| !matches!(entry, Entry::Append(append) if is_gone(append)));
        frame.header.entry_count = frame.entries.len() as u32;
        let meta_len = HEADER_LEN + frame.entries.iter().map(entry_len).sum::<usize>();
        frame.header.meta_len = meta_len as u32;
        let mut data = AlignedBuf::with_capacity(frame.data.len());
        data.extend_from_slice(&encode_meta(&frame.header, &frame.entries));
        // The inline bytes stay where they are.
        data.extend_from_slice(&frame.data[meta_len..]);
        frame.data = data.freeze();
    }
}

/// The commits of a store, from gathering to stable.
pub(crate) struct Pipeline<D: Disk> {
    /// Commits that gather or wait, in order; the last takes what is appended.
    queue: RefCell<VecDeque<Commit<D>>>,
    queue_frame_bytes: Cell<u64>,
    /// Number of the next commit to begin.
    next_seq: Cell<u64>,
    /// Newest commit that holds anything.
    content_seq: Cell<u64>,
    /// Highest number that a placed frame names as stable.
    pub told_seq: Cell<u64>,
    /// Newest commit when [`Pipeline::tell_if_quiet`] was called last.
    quiet_seq: Cell<u64>,
    /// The last commit in the queue takes no more.
    sealed: Cell<bool>,
    pub durable_seq: Cell<u64>,
    /// Commits from this one on must not rely on frames before it: a checkpoint will free them.
    pub redo_floor: Cell<u64>,
    /// The same for commits before `redo_floor`: frames before this one are free already.
    pub redo_floor_before: Cell<u64>,
    pub in_flight: RefCell<VecDeque<InFlight<D>>>,
    /// Commits of `in_flight` that the running flush covers.
    pub flushing: Cell<usize>,
    pub writing: Cell<usize>,
    pub checkpoint_wanted: Cell<u64>,
    pub checkpoint_done: Cell<u64>,
    /// Something for committer or flusher to look at.
    pub work: WaitList,
    /// Waiters for commits, by number.
    durable: WaitList,
}

impl<D: Disk> Pipeline<D> {
    /// A pipeline whose first commit gets number `seq`.
    pub(crate) fn new(seq: u64) -> Pipeline<D> {
        Pipeline {
            queue: RefCell::default(),
            queue_frame_bytes: Cell::new(0),
            next_seq: Cell::new(seq),
            content_seq: Cell::new(0),
            told_seq: Cell::new(0),
            quiet_seq: Cell::new(0),
            sealed: Cell::new(true),
            durable_seq: Cell::new(seq - 1),
            redo_floor: Cell::new(seq),
            redo_floor_before: Cell::new(seq),
            in_flight: RefCell::default(),
            flushing: Cell::new(0),
            writing: Cell::new(0),
            checkpoint_wanted: Cell::new(0),
            checkpoint_done: Cell::new(0),
            work: WaitList::default(),
            durable: WaitList::default(),
        }
    }

    pub(crate) fn wake_all(&self) {
        self.work.wake_all();
        self.durable.wake_all();
    }

    /// Whether the queue can take `bytes` more of batches in `shares` shares and still be placed.
    pub(crate) fn has_room(&self, store: &StoreInner<D>, bytes: usize, shares: usize) -> bool {
        let more = share_frame_len_max(0) * (shares + 1) + bytes + BLOCK + HEADER_LEN;
        self.queue_frame_bytes.get() + more as u64 <= store.journal.queue_bytes_max()
    }

    /// Whether the queue has room for `bytes` more of batches besides those reserved. A quarter of it is left for what
    /// [`Pipeline::has_room`] counts besides batches.
    pub(crate) fn takes(&self, store: &StoreInner<D>, bytes: usize) -> bool {
        let queued = self.queue_frame_bytes.get() + store.levels.reserved_bytes.get() as u64;
        queued == 0 || queued + bytes as u64 <= store.journal.queue_bytes_max() / 4 * 3
    }

    /// Adds batches that follow each other in one segment; gives the commit's number.
    pub(crate) fn add_share(&self, store: &Rc<StoreInner<D>>, share: Share<D>) -> u64 {
        let len = (share.to - share.from) as usize;
        let large = share.large;
        let (alone, joined) =
            if large { (DIRECT_FRAME_LEN_MAX, 2 * BLOCK) } else { (share_frame_len_max(len), len) };
        let joins = share.segment.open_share.get().map(|(seq, _)| seq);
        let seq = self.open_commit(store, alone, joins.map(|seq| (seq, joined)));
        // What came to such a share later could reach beyond the file, and the whole of it would have to go inline.
        self.sealed.set(large);
        share.segment.pending.borrow_mut().append(share.from, share.to, seq);
        let mut queue = self.queue.borrow_mut();
        let commit = queue.back_mut().expect("a commit is open");
        self.content_seq.set(seq);
        commit.bytes += len;
        let same = |s: &&mut Share<D>| Rc::ptr_eq(&s.segment, &share.segment) && s.to == share.from;
        let joined = share.segment.open_share.get().filter(|(open_seq, _)| *open_seq == seq);
        match joined.and_then(|(_, at)| commit.shares.get_mut(at)).filter(same) {
            Some(open) => {
                open.to = share.to;
                open.next_offset = share.next_offset;
                open.batch_count += share.batch_count;
                open.large |= share.large;
                open.parts.extend(share.parts);
            }
            None => {
                share.segment.open_share.set(Some((seq, commit.shares.len())));
                commit.shares.push(share);
            }
        }
        seq
    }

    /// Adds an entry that is no append; gives the commit's number.
    pub(crate) fn add_entry(&self, store: &Rc<StoreInner<D>>, entry: Entry) -> u64 {
        let seq = self.open_commit(store, OTHER_ENTRY_LEN_MAX, None);
        self.queue.borrow_mut().back_mut().expect("a commit is open").others.push(entry);
        self.content_seq.set(seq);
        seq
    }

    /// Commits nothing, once nothing else was committed since the last call. Its frame says that those before it are
    /// stable: should the last of them be found damaged, it is not taken for one that never was acknowledged.
    pub(crate) fn tell_if_quiet(&self, store: &StoreInner<D>) {
        let last = self.last_seq();
        let quiet = self.quiet_seq.replace(last) == last && self.is_idle();
        let untold = self.content_seq.get() > self.told_seq.get();
        // Before the last checkpoint nothing needs a frame; but one that is under way may never come to its end.
        let checkpointing = self.checkpoint_done.get() < self.checkpoint_wanted.get();
        let needed = checkpointing || self.content_seq.get() >= self.redo_floor.get();
        if quiet && untold && needed {
            self.open_commit(store, 0, None);
        }
    }

    /// Makes sure that the last commit of the queue takes `frame_len` more (less where `joins` names that commit);
    /// gives its number.
    fn open_commit(&self, store: &StoreInner<D>, frame_len: usize, joins: Option<(u64, usize)>) -> u64 {
        let mut queue = self.queue.borrow_mut();
        let frame_len_max = store.config.journal_file_bytes as usize;
        let full = |commit: &Commit<D>| {
            commit.bytes >= store.config.commit_bytes_target
                || commit.frame_len_max + frame_len > frame_len_max
        };
        if self.sealed.get() || queue.back().is_none_or(full) {
            let seq = self.next_seq.get();
            self.next_seq.set(seq + 1);
            self.sealed.set(false);
            queue.push_back(Commit::new(seq));
            self.queue_frame_bytes.set(self.queue_frame_bytes.get() + (HEADER_LEN + BLOCK) as u64);
        }
        let commit = queue.back_mut().expect("just made sure");
        let frame_len = joins.filter(|(seq, _)| *seq == commit.seq).map_or(frame_len, |(_, less)| less);
        commit.frame_len_max += frame_len;
        self.queue_frame_bytes.set(self.queue_frame_bytes.get() + frame_len as u64);
        self.work.wake_all();
        commit.seq
    }

    /// Ends the commit that gathers; gives the number of the next one. All state changes so far belong to commits
    /// before it.
    pub(crate) fn seal(&self) -> u64 {
        self.sealed.set(true);
        self.next_seq.get()
    }

    /// First frame whose bytes stay live while commit `seq` may need them.
    pub(crate) fn live_from(&self, seq: u64) -> u64 {
        let floor = self.redo_floor.get();
        if seq >= floor { floor } else { self.redo_floor_before.get() }
    }

    /// Number of the newest commit.
    pub(crate) fn last_seq(&self) -> u64 {
        self.next_seq.get() - 1
    }

    /// Takes the next commit if it should start now. Small ones wait until nothing but the running flush is ahead
    /// of them, and gather meanwhile.
    pub(crate) fn take(&self, store: &StoreInner<D>) -> Option<Commit<D>> {
        let mut queue = self.queue.borrow_mut();
        let front = queue.front()?;
        let in_flight = self.in_flight.borrow().len();
        let ahead = in_flight - self.flushing.get();
        let large = front.bytes >= store.config.commit_bytes_target;
        let start = ahead == 0 || (large && self.writing.get() < WRITING_MAX);
        if !start || in_flight >= IN_FLIGHT_MAX || self.frame_bytes() >= store.config.frame_bytes_max {
            return None;
        }
        if queue.len() == 1 {
            self.sealed.set(true);
        }
        let commit = queue.pop_front()?;
        self.queue_frame_bytes.set(self.queue_frame_bytes.get() - commit.frame_len_max as u64);
        store.room.wake_all();
        Some(commit)
    }

    /// Bytes of the frames in flight, which stay in memory until they are stable.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.in_flight.borrow().iter().map(|commit| commit.frame.data.len()).sum()
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.borrow().is_empty() && self.in_flight.borrow().is_empty()
    }

    /// Commits up to `seq` are stable.
    pub(crate) fn set_durable(&self, seq: u64) {
        assert!(seq > self.durable_seq.get(), "commits become stable in order");
        self.durable_seq.set(seq);
        self.durable.wake_up_to(seq);
    }

    /// Whether commit `seq` is stable, or will never be.
    pub(crate) fn poll_durable(&self, store: &StoreInner<D>, seq: u64) -> Option<Result<(), Offline>> {
        if self.durable_seq.get() >= seq {
            return Some(Ok(()));
        }
        store.is_offline().map(Err)
    }

    /// Waits until commit `seq` is stable.
    pub(crate) async fn wait_durable(&self, store: &StoreInner<D>, seq: u64) -> Result<(), Offline> {
        self.durable.until_level(seq, || self.poll_durable(store, seq)).await
    }

    /// Asks for a checkpoint of everything so far; gives what [`Pipeline::wait_checkpoint`] waits for.
    pub(crate) fn request_checkpoint(&self, store: &StoreInner<D>) -> u64 {
        let wanted = self.checkpoint_wanted.get() + 1;
        self.checkpoint_wanted.set(wanted);
        store.work.wake_all();
        wanted
    }

    /// Waits until a checkpoint that began after the request is stable.
    pub(crate) async fn wait_checkpoint(&self, store: &StoreInner<D>, wanted: u64) -> Result<(), Offline> {
        let ready = || {
            if self.checkpoint_done.get() >= wanted {
                return Some(Ok(()));
            }
            if let Some(offline) = store.is_offline() {
                return Some(Err(offline));
            }
            // Nobody takes one any more.
            store.stopped.get().then(|| Err(Offline::new("the store was closed")))
        };
        store.work.until(ready).await
    }
}
