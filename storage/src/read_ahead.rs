//! Reading ahead of those who read a log from the device in order (broker/docs/decisions/0015-reading-ahead.md).
//!
//! [`readers`] knows who reads where and what is to come; here the next *stretches* (whole batches, as the index knows
//! them, of about 1 MiB) are read in the background, and readers take from them instead of reading for themselves. What
//! is in a stretch are raw bytes: whoever takes them checks every batch as if the bytes came from the device.
//!
//! - Only what is settled is read, and what leaves a log (cut off, deleted, cleaned, removed) is forgotten in the step in
//!   which it does, also what is still on its way. A stretch names its segment by its life: it holds no file and no segment.
//! - Nothing waits for room, and nothing fails here: at a bound nothing is read ahead, and what cannot be read is left
//!   to the reader, who meets the error.
//! - Commits come first: bytes on their way are bounded, and nothing is begun while commits are under way.

mod readers;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::{Either, select};

use self::readers::{Key, Readers, Want};
use crate::cold::Cold;
use crate::config::ReadAheadConfig;
use crate::disk::{AlignedBuf, Disk};
use crate::indexes::whole_index;
use crate::plan::{block_ceil, block_floor};
use crate::read::{find_cold, read_piece};
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, StoreInner, add};
use crate::wait::WaitList;

/// How much longer than wanted a stretch is where the index names no batch.
const LONG: u64 = 4;
/// What is taken pins at most so many times itself; less is copied.
const PINNED_MAX: usize = 4;

/// What a store reads ahead.
pub(crate) struct ReadAhead {
    config: ReadAheadConfig,
    readers: RefCell<Readers>,
    /// Memory of what is on its way, whether it is wanted still or not.
    in_flight_bytes: Cell<usize>,
    /// A stretch came, failed, or is not wanted any more.
    changed: WaitList,
    pub counts: Counts,
}

/// Bytes since the store was opened.
#[derive(Default)]
pub(crate) struct Counts {
    pub read: Cell<u64>,
    pub taken: Cell<u64>,
}

impl ReadAhead {
    pub(crate) fn new(config: ReadAheadConfig) -> ReadAhead {
        ReadAhead {
            config,
            readers: RefCell::default(),
            in_flight_bytes: Cell::new(0),
            changed: WaitList::default(),
            counts: Counts::default(),
        }
    }

    /// Memory of what is there and of what is on its way, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.readers.borrow().held_bytes() + self.in_flight_bytes.get()
    }

    /// Bytes that went without anybody having taken them.
    pub(crate) fn unused_bytes(&self) -> u64 {
        self.readers.borrow().unused_bytes
    }

    /// A client's read begins at that offset, and goes to the device, until what this gives is dropped.
    pub(crate) fn begins(&self, log_id: u64, from: i64) -> Reading<'_> {
        self.readers.borrow_mut().begins((log_id, from));
        Reading { ahead: self, place: (log_id, from) }
    }

    /// A client's read at that offset is served from memory: whoever is expected there has caught up.
    pub(crate) fn caught_up(&self, log_id: u64, from: i64) {
        if self.readers.borrow_mut().forget_readers_at(log_id, from) {
            self.changed.wake_all();
        }
    }

    /// Bytes of a segment from the range's start on, if they were read ahead or are on their way: at least `least`, and no
    /// more than the range.
    pub(crate) async fn take(&self, life: u64, range: Range<u64>, least: u64) -> Option<Bytes> {
        loop {
            let (key, id) = {
                let mut readers = self.readers.borrow_mut();
                let (key, stretch) = readers.find(life, range.start)?;
                let to = stretch.end.min(range.end);
                if to - range.start < least {
                    return None;
                }
                if let Some(data) = &stretch.data {
                    if !std::mem::replace(&mut stretch.is_taken, true) {
                        add(&self.counts.taken, data.len() as u64);
                    }
                    let piece = data.slice((range.start - key.1) as usize..(to - key.1) as usize);
                    let is_small = piece.len() * PINNED_MAX < stretch.cost;
                    return Some(if is_small { Bytes::copy_from_slice(&piece) } else { piece });
                }
                (key, stretch.id)
            };
            let came = || (!self.readers.borrow().is_coming(key, id)).then_some(());
            self.changed.until(came).await;
        }
    }

    /// The log was cut, or goes.
    pub(crate) fn forget_log(&self, log_id: u64) {
        self.readers.borrow_mut().forget_log(log_id);
        self.changed.wake_all();
    }

    /// The segment left its log.
    pub(crate) fn forget_segment(&self, life: u64) {
        self.readers.borrow_mut().forget_segment(life);
        self.changed.wake_all();
    }

    /// The store ends.
    pub(crate) fn forget_all(&self) {
        self.readers.borrow_mut().forget_all();
        self.changed.wake_all();
    }

    /// Wakes all that wait here, so that they see the store's state.
    pub(crate) fn wake_all(&self) {
        self.changed.wake_all();
    }

    /// Once a second or so.
    pub(crate) fn tick<D: Disk>(&self, store: &StoreInner<D>) {
        let is_of_use = |name: &str, id: u64| {
            store.logs.borrow().get(name).is_some_and(|log| log.id == id && !is_closed(log))
        };
        self.readers.borrow_mut().tick(is_of_use);
        self.changed.wake_all();
    }

    /// Whether `cost` bytes more may be on their way. Lets go of what was passed for their room.
    fn has_room(&self, cost: usize, beside_commits: bool) -> bool {
        let in_flight = self.in_flight_bytes.get();
        let most = match beside_commits {
            true => self.config.in_flight_bytes_beside_commits,
            false => self.config.in_flight_bytes_max,
        };
        if most == 0 || (in_flight > 0 && in_flight + cost > most) {
            return false;
        }
        while self.held_bytes() + cost > self.config.bytes_max {
            if !self.readers.borrow_mut().make_room() {
                return false;
            }
        }
        true
    }
}

/// A client's read that is under way; it ends also where its future is dropped.
#[must_use = "dropping it ends the read"]
pub(crate) struct Reading<'a> {
    ahead: &'a ReadAhead,
    place: (u64, i64),
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.ahead.readers.borrow_mut().ends(self.place);
    }
}

/// Whether nothing of the log is read ahead.
fn is_closed<D: Disk>(log: &LogInner<D>) -> bool {
    let state = log.state.borrow();
    state.offline.is_some() || state.removed || state.busy
}

/// A client's read went from an offset to another, from the device or what was read ahead.
pub(crate) fn went<D: Disk>(store: &Rc<StoreInner<D>>, log: &Rc<LogInner<D>>, went: Range<i64>) {
    let ahead = &store.read_ahead;
    if ahead.config.bytes_max > 0 {
        ahead.readers.borrow_mut().went((log.id, &log.name), went, &ahead.config);
        go_on(store);
    }
}

/// What came of trying to read ahead for a reader.
enum Tried {
    Begun,
    /// There is nothing to read now.
    Nothing,
    NoRoom,
}

/// Begins to read what is wanted, as far as there is room: one stretch for each reader in turn.
fn go_on<D: Disk>(store: &Rc<StoreInner<D>>) {
    loop {
        let wants = store.read_ahead.readers.borrow().wants();
        let mut has_begun = false;
        for want in wants {
            match try_one(store, want) {
                Tried::Begun => has_begun = true,
                Tried::Nothing => {}
                Tried::NoRoom => return,
            }
        }
        if !has_begun {
            return;
        }
    }
}

fn try_one<D: Disk>(store: &Rc<StoreInner<D>>, want: Want) -> Tried {
    let ahead = &store.read_ahead;
    if store.closing.get() || store.stopped.get() {
        return Tried::NoRoom;
    }
    let log = store.logs.borrow().get(&want.log).filter(|log| log.id == want.log_id).cloned();
    let Some(log) = log.filter(|log| !is_closed(log)) else { return Tried::Nothing };
    if want.from < log.state.borrow().start_offset {
        return Tried::Nothing;
    }
    let cold = find_cold(&log.state.borrow(), want.from);
    let Some(cold) = cold.filter(|cold| want.from < cold.limit_offset) else { return Tried::Nothing };
    let is_known = cold.segment.indexed_from.get() == DATA_START;
    let commits = store.pipeline.durable_seq.get() < store.pipeline.last_seq();
    if !is_known && cold.limit - DATA_START > store.config.index_worth_bytes {
        let cost = ahead.config.stretch_bytes as usize;
        if !ahead.has_room(cost, commits) {
            return Tried::NoRoom;
        }
        look_up(store, log, cold.segment, want, cost);
        return Tried::Begun;
    }
    let Some((from, end)) = plan(&cold, &want, ahead.config.stretch_bytes) else { return Tried::Nothing };
    let cost = AlignedBuf::capacity_for((block_ceil(end.0) - block_floor(from)) as usize);
    if !ahead.has_room(cost, commits) {
        return Tried::NoRoom;
    }
    let key = (cold.segment.life, from);
    let Some(id) = ahead.readers.borrow_mut().add(&want, key, end, cost) else { return Tried::Nothing };
    read(store, (log, cold.segment), want, (key, id, end.0), cost);
    Tried::Begun
}

/// The next stretch: where it begins, and the position and offset at which it ends. `None` if nothing is there.
fn plan<D: Disk>(cold: &Cold<D>, want: &Want, stretch_bytes: u64) -> Option<(u64, (u64, i64))> {
    let after = want.after.filter(|(life, _)| *life == cold.segment.life);
    let from = after.map_or(cold.position, |(_, end)| end.max(cold.position));
    if from >= cold.limit {
        return None;
    }
    // In whole blocks it takes no more memory than that.
    let most = block_floor(from) + stretch_bytes;
    let limit = (cold.limit, cold.limit_offset);
    if cold.limit <= most {
        return Some((from, limit));
    }
    let index = cold.segment.index.borrow();
    let named = index.floor_of_position(most).filter(|named| named.position > from);
    let named = named.or_else(|| index.first_behind(most));
    let end = named.map_or(limit, |named| (named.position, named.base_offset)).min(limit);
    (end.0 - from <= LONG * stretch_bytes).then_some((from, end))
}

/// Makes the segment's index whole, as the reader would have to. That may read all of the segment after a crash: it is given
/// up where the log is cut or goes, or the store ends, which would wait for it.
fn look_up<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: Rc<LogInner<D>>,
    segment: Rc<Segment<D>>,
    want: Want,
    cost: usize,
) {
    let worker = store.clone();
    add(&store.read_ahead.in_flight_bytes, cost);
    store.read_ahead.readers.borrow_mut().plans(&want, true);
    store.spawn("read ahead, index", async move {
        let ahead = &worker.read_ahead;
        let is_failed = {
            let truncations = log.state.borrow().truncations;
            let is_in_vain = || {
                let is_ending = worker.closing.get() || worker.stopped.get() || segment.retired.get();
                let is_cut = log.state.borrow().truncations != truncations;
                (is_ending || is_cut || is_closed(&log)).then_some(())
            };
            let given_up = pin!(ahead.changed.until(is_in_vain));
            let made = pin!(whole_index(&worker, &log, &segment));
            matches!(select(given_up, made).await, Either::Right((Err(_), _)))
        };
        // Not held any longer: what is cut off or deleted waits for it.
        drop(segment);
        ahead.in_flight_bytes.set(ahead.in_flight_bytes.get() - cost);
        ahead.readers.borrow_mut().plans(&want, false);
        if is_failed {
            ahead.readers.borrow_mut().calm(&want);
        }
        go_on(&worker);
    });
}

/// Reads a stretch.
fn read<D: Disk>(
    store: &Rc<StoreInner<D>>,
    (log, segment): (Rc<LogInner<D>>, Rc<Segment<D>>),
    want: Want,
    (key, id, end): (Key, u64, u64),
    cost: usize,
) {
    let worker = store.clone();
    add(&store.read_ahead.in_flight_bytes, cost);
    store.spawn("read ahead", async move {
        let outcome = read_piece(&worker, &log, &segment, key.1..end).await;
        drop(segment);
        let ahead = &worker.read_ahead;
        ahead.in_flight_bytes.set(ahead.in_flight_bytes.get() - cost);
        match outcome {
            Ok(data) => {
                add(&ahead.counts.read, data.len() as u64);
                ahead.readers.borrow_mut().came(key, id, data);
            }
            Err(error) => {
                tracing::debug!(log = %log.name, "reading ahead: {error}");
                ahead.readers.borrow_mut().failed(&want, key, id);
            }
        }
        ahead.changed.wake_all();
        go_on(&worker);
    });
}

#[cfg(test)]
mod tests;
