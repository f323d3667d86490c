//! Takes producers that have not written for longest to disk, before memory is full of them.
//!
//! - Beyond seven eighths of a bound (of the store, or of a log) a round takes those idle for longest, but for open
//!   transactions, to a *run* ([`crate::spill`]): a sorted file. Each leaves memory when the run is stable, if it has not
//!   written meanwhile. So memory counts over runs, and a newer run over an older one.
//! - An append of a producer that memory does not know and a run may have waits until it was looked up
//!   ([`crate::bring_back`]).
//! - Only what is stable goes to disk: a round waits for the commits of what it picked. So a log that failed and is cut behind
//!   what is stable ([`crate::rescue`]) takes nothing away that a run tells.
//! - A checkpoint names the runs that belong to the tables that it holds: what was spilled after it began is in those tables,
//!   or in the frames behind it.
//! - At a bound, an append of a new producer waits for a round. Only where the disk takes no run are producers forgotten, and
//!   where all have open transactions the new one is refused.
//! - What a run tells that was cut off meanwhile is void ([`crate::cuts`]); merging drops it, with who is expired or of a log
//!   that is gone, and beyond `spilled_producers_max` those idle for longest.
//!
//! Design: `broker/docs/decisions/0014-spilling-producers.md`.

mod merge;
mod pick;

use std::cell::{Cell, RefCell};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{join, select};

use crate::disk::Disk;
use crate::producer::Producer;
use crate::producer_bound;
use crate::spill::{FindError, Key};
use crate::state::{LogInner, StoreInner, add};
use crate::wait::WaitList;
pub(crate) use merge::merge;
use pick::{Picked, Source};

/// Times that a demanded round tries to write its run.
const DEMANDED_ATTEMPTS: u32 = 2;
/// Pause behind a round that took nobody to disk.
const PAUSE: Duration = Duration::from_millis(5);
/// The same where there was nobody to take, or no round is demanded.
const LONG_PAUSE: Duration = Duration::from_millis(100);
/// Producers remembered that were looked up in vain, but for those of one append: it needs all its own.
const ABSENT_MAX: usize = 4096;
/// Different errors of lookups that are told.
const ERRORS_TOLD_MAX: usize = 64;
/// Producers that are worked on before other tasks have their turn.
const STRETCH: usize = 512;

/// Whether the store's bound is met, and which logs' bounds are.
type Bounds<'a> = (bool, &'a BTreeSet<u64>);

/// What is asked of the spiller, and where it stands.
#[derive(Default)]
pub(crate) struct Spiller {
    /// A bound is near.
    hinted: Cell<bool>,
    /// The store's bound is met.
    full: Cell<bool>,
    /// Logs whose bound is met.
    full_logs: RefCell<BTreeSet<u64>>,
    /// Demands made, and how many of them a round was made for.
    asked: Cell<u64>,
    served: Cell<u64>,
    /// A round that was demanded just now for the store's bound found nobody to take to disk.
    found_none: Cell<bool>,
    /// Logs for whose bound one was, and it found nobody there.
    found_none_in: RefCell<BTreeSet<u64>>,
    /// Who does not leave memory: appends look them up, or bring others to memory beside them. How many do, each.
    held: RefCell<BTreeMap<Key, usize>>,
    /// Number of the run that is being written, taken before its producers are picked.
    writing: Cell<Option<u64>>,
    /// The disk took no run when it was tried last, or no merge.
    refused: Cell<bool>,
    /// Not on disk, whatever filters say.
    absent: RefCell<BTreeSet<Key>>,
    told: RefCell<BTreeSet<String>>,
    now_ms: Cell<i64>,
    /// Runs have been written since it was looked whether some should be merged.
    merge_due: Cell<bool>,
    /// What was first written in runs with lower numbers, and nothing else, is in those that the checkpoint names that is being
    /// taken.
    pub(crate) captured: Cell<u64>,
    /// A round has ended.
    pub(crate) changed: WaitList,
}

impl Spiller {
    /// A bound is near.
    pub(crate) fn hint<D: Disk>(&self, store: &StoreInner<D>) {
        if !self.hinted.replace(true) {
            store.work.wake_all();
        }
    }

    /// The bound of the store is met, or of this log.
    pub(crate) fn demand<D: Disk>(&self, store: &StoreInner<D>, full: bool, log: Option<u64>) {
        self.full.set(self.full.get() || full);
        self.full_logs.borrow_mut().extend(log);
        add(&self.asked, 1);
        store.work.wake_all();
    }

    /// Demands made so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.get()
    }

    /// Whether a round was made for each of so many demands.
    pub(crate) fn has_served(&self, asked: u64) -> bool {
        self.served.get() >= asked
    }

    /// Whether a round that was demanded just now for the bound of the store, or of this log, found nobody to take to disk.
    pub(crate) fn found_none(&self, full: bool, log: Option<u64>) -> bool {
        full && self.found_none.get() || log.is_some_and(|log| self.found_none_in.borrow().contains(&log))
    }

    pub(crate) fn has_found_none(&self) -> bool {
        self.found_none.get() || !self.found_none_in.borrow().is_empty()
    }

    /// Keeps these in memory, once they are there, until what is given is dropped: what is looked up meanwhile stays the newest
    /// on disk.
    pub(crate) fn hold(&self, log: u64, ids: &BTreeSet<i64>) -> Held<'_> {
        let keys: Vec<_> = ids.iter().map(|id| (log, *id)).collect();
        keys.iter().for_each(|key| *self.held.borrow_mut().entry(*key).or_default() += 1);
        Held { held: &self.held, keys }
    }

    fn holds(&self, key: Key) -> bool {
        self.held.borrow().contains_key(&key)
    }

    /// Whether a run may have this producer, and it was not looked up in vain.
    pub(crate) fn may_have<D: Disk>(&self, store: &StoreInner<D>, key: Key) -> bool {
        store.spilled.may_have(key) && !self.absent.borrow().contains(&key)
    }

    /// No run has these producers of an append, which finds all of them so if it goes on at once.
    pub(crate) fn are_absent(&self, keys: &[Key]) {
        let mut absent = self.absent.borrow_mut();
        if absent.len() + keys.len() > ABSENT_MAX {
            absent.clear();
        }
        absent.extend(keys);
    }

    /// Whether there are runs, or there will be one.
    pub(crate) fn has_runs<D: Disk>(&self, store: &StoreInner<D>) -> bool {
        self.writing.get().is_some() || store.spilled.producers() > 0
    }

    /// Whether a run is being written.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.get().is_some()
    }

    /// What was first written in runs with lower numbers is in runs that are live now; those that will be have none lower.
    pub(crate) fn live_before(&self, number: u64) -> u64 {
        self.writing.get().map_or(number, |writing| writing.min(number))
    }

    /// The time that was told last.
    pub(crate) fn tell_time(&self, now_ms: i64) {
        // A clock that was wrong may be put back.
        self.now_ms.set(now_ms);
    }

    /// Tells once why a producer cannot be looked up.
    pub(crate) fn tell<D: Disk>(&self, store: &StoreInner<D>, error: &FindError) {
        let mut told = self.told.borrow_mut();
        if told.len() < ERRORS_TOLD_MAX && told.insert(error.to_string()) {
            let dir = store.dir.display();
            tracing::error!(%dir, "producers on disk cannot be looked up and count as unknown: {error}");
        }
    }

    /// Tells of a disk that takes nothing, once until it takes something again.
    fn tell_refused<D: Disk>(&self, store: &StoreInner<D>, what: &str, error: &std::io::Error) {
        if !self.refused.replace(true) {
            tracing::warn!(dir = %store.dir.display(), "{what}: {error}");
        }
    }
}

/// Producers of an append that do not leave memory.
pub(crate) struct Held<'a> {
    held: &'a RefCell<BTreeMap<Key, usize>>,
    keys: Vec<Key>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.held.borrow_mut();
        for key in &self.keys {
            if let Entry::Occupied(mut holders) = held.entry(*key) {
                *holders.get_mut() -= 1;
                if *holders.get() == 0 {
                    holders.remove();
                }
            }
        }
    }
}

/// Takes producers to disk when it is asked to, until the store stops.
pub(crate) async fn run_spiller<D: Disk>(store: Rc<StoreInner<D>>) {
    join(make_rounds(&store), look_again(&store)).await;
}

async fn make_rounds<D: Disk>(store: &Rc<StoreInner<D>>) {
    let spiller = &store.spiller;
    loop {
        let asked = || {
            let asked = spiller.hinted.get() || !spiller.has_served(spiller.asked());
            (asked || store.stopped.get()).then_some(())
        };
        store.work.until(asked).await;
        if store.stopped.get() {
            return;
        }
        let made = make_room(store).await;
        spiller.merge_due.set(true);
        store.work.wake_all();
        if made {
            continue;
        }
        store.disk.sleep(PAUSE).await;
        let demand = || (!spiller.has_served(spiller.asked()) || store.stopped.get()).then_some(());
        select(pin!(store.disk.sleep(LONG_PAUSE)), pin!(store.work.until(demand))).await;
    }
}

/// Where a round found nobody, none is demanded for a while, and new producers are refused. Then it is looked again.
async fn look_again<D: Disk>(store: &StoreInner<D>) {
    let spiller = &store.spiller;
    loop {
        store.work.until(|| (spiller.has_found_none() || store.stopped.get()).then_some(())).await;
        if store.stopped.get() {
            return;
        }
        store.disk.sleep(LONG_PAUSE).await;
        spiller.found_none.set(false);
        spiller.found_none_in.take();
    }
}

/// Merges runs behind rounds, which go on beside it, until the store stops.
pub(crate) async fn run_merger<D: Disk>(store: Rc<StoreInner<D>>) {
    loop {
        store.work.until(|| (store.spiller.merge_due.get() || store.stopped.get()).then_some(())).await;
        if store.stopped.get() {
            return;
        }
        store.spiller.merge_due.set(false);
        merge(&store).await;
    }
}

/// One round. Says whether there are fewer producers in memory than before.
pub(crate) async fn make_room<D: Disk>(store: &Rc<StoreInner<D>>) -> bool {
    let spiller = &store.spiller;
    spiller.hinted.set(false);
    let serving = spiller.asked.get();
    let demanded = !spiller.has_served(serving);
    let (full, full_logs) = (spiller.full.take(), spiller.full_logs.take());
    producer_bound::count(store);
    // Lower than that of any cut that may change what is picked.
    let number = store.unique();
    spiller.writing.set(Some(number));
    let mut picked = pick::pick(store, full, &full_logs, &|_| true).await;
    picked.settle(store).await;
    let left = match picked.entries.is_empty() {
        true => 0,
        false => {
            let demanded = demanded.then_some((full, &full_logs));
            spill(store, number, &picked, demanded).await
        }
    };
    spiller.writing.set(None);
    spiller.found_none.set(spiller.found_none.get() || picked.found_none);
    spiller.found_none_in.borrow_mut().append(&mut picked.none_in);
    if spiller.has_found_none() {
        store.work.wake_all();
    }
    spiller.served.set(serving);
    spiller.changed.wake_all();
    left > 0
}

/// Writes a run; gives how many producers have left memory for it. `demanded` says for which bounds.
async fn spill<D: Disk>(
    store: &Rc<StoreInner<D>>,
    number: u64,
    picked: &Picked<D>,
    demanded: Option<Bounds<'_>>,
) -> usize {
    let too_many = store.spilled.producers() > store.config.spilled_producers_max.saturating_mul(2);
    let mut attempts = if demanded.is_some() { DEMANDED_ATTEMPTS } else { 1 };
    let written = loop {
        if too_many {
            break Err(std::io::Error::other("there are too many on disk already"));
        }
        let written = store.spilled.write(&store.disk, number, &picked.entries).await;
        attempts -= 1;
        if written.is_ok() || attempts == 0 {
            break written;
        }
        store.disk.sleep(PAUSE).await;
    };
    let error = match written {
        Ok(()) => {
            store.spiller.refused.set(false);
            let run = store.spilled.records().into_iter().find(|run| run.number == number);
            took_space(store, run.map_or(0, |run| run.len));
            return let_go(store, picked, |_| true).await;
        }
        Err(error) => error,
    };
    // Else there is room for a while, or nobody is let in.
    let Some(demanded) = demanded.filter(|_| !store.refuses_clients()) else {
        store.spiller.tell_refused(store, "producers in memory cannot be taken to disk", &error);
        return 0;
    };
    let what = "producers are forgotten, since they cannot be taken to disk";
    store.spiller.tell_refused(store, what, &error);
    let forgotten = forget(store, picked, demanded).await;
    add(&store.levels.producers_forgotten, forgotten as u64);
    forgotten
}

/// A run of so many bytes was written. A start has not asked for room yet.
fn took_space<D: Disk>(store: &Rc<StoreInner<D>>, bytes: u64) {
    if store.space.usable().is_some() {
        store.took_space(bytes);
    }
}

/// Lets those of `which` that have not changed go from memory; gives how many.
async fn let_go<D: Disk>(store: &StoreInner<D>, picked: &Picked<D>, which: impl Fn(Key) -> bool) -> usize {
    let mut count = 0;
    for entries in picked.entries.chunks(STRETCH) {
        for (key, producer) in entries.iter().filter(|(key, _)| which(*key)) {
            let Some(Source { log, truncations, .. }) = picked.logs.get(&key.0) else { continue };
            let cut = log.state.borrow().truncations != *truncations;
            if !cut && may_leave(log) && leave(store, log, *key, producer) {
                count += 1;
            }
        }
        store.disk.yield_now().await;
    }
    count
}

fn leave<D: Disk>(store: &StoreInner<D>, log: &LogInner<D>, key: Key, producer: &Producer) -> bool {
    let left = !store.spiller.holds(key) && log.state.borrow_mut().producers.let_go(key.1, producer);
    if left {
        let known = &store.levels.producers;
        known.set(known.get().saturating_sub(1));
        store.spiller.absent.borrow_mut().remove(&key);
    }
    left
}

/// Where bounds are met, lets those idle for longest go that no run has; gives how many. Only where there are none, those picked
/// go of whom an older run tells: the next batch would be refused by that, so nothing of their log that is on disk counts any
/// more. At the store's bound that is one log's, of which most were picked.
async fn forget<D: Disk>(store: &StoreInner<D>, picked: &Picked<D>, (full, full_logs): Bounds<'_>) -> usize {
    let mut fresh = pick::pick(store, full, full_logs, &|key| !store.spilled.may_have(key)).await;
    fresh.settle(store).await;
    fresh.entries.retain(|(key, _)| full || full_logs.contains(&key.0));
    let forgotten = let_go(store, &fresh, |_| true).await;
    let mut stale = BTreeMap::<u64, usize>::new();
    for ((log, _), _) in &picked.entries {
        *stale.entry(*log).or_default() += 1;
    }
    let most = stale.iter().max_by_key(|(_, count)| **count).map(|(log, _)| *log);
    let most = most.filter(|_| full && fresh.entries.is_empty());
    let relieved: BTreeSet<u64> = fresh.entries.iter().map(|(key, _)| key.0).collect();
    stale.retain(|log, _| most == Some(*log) || full_logs.contains(log) && !relieved.contains(log));
    if stale.is_empty() {
        return forgotten;
    }
    let before = store.unique();
    stale.retain(|log, _| picked.logs.get(log).is_some_and(|source| may_leave(&source.log)));
    for log in stale.keys().filter_map(|log| picked.logs.get(log)) {
        log.log.state.borrow_mut().cuts.void_all(before);
    }
    forgotten + let_go(store, picked, |(log, _)| stale.contains_key(&log)).await
}

/// Whether producers of the log may leave memory: not while it is being cut or saved, which looks at those in memory.
fn may_leave<D: Disk>(log: &LogInner<D>) -> bool {
    let state = log.state.borrow();
    !state.busy && !state.removed && !log.rescuing.get() && (!log.has_failed() || log.saved.get())
}

/// Whether the log keeps producers in memory that may leave it soon.
fn holds_back<D: Disk>(store: &StoreInner<D>, log: &LogInner<D>) -> bool {
    let producers = &log.state.borrow().producers;
    let held = store.spiller.held.borrow();
    let mut held = held.range((log.id, i64::MIN)..=(log.id, i64::MAX));
    let is_idle = |known: &Producer| known.transaction_first_offset.is_none();
    (!may_leave(log) && !producers.is_empty())
        || held.any(|(key, _)| producers.get(key.1).is_some_and(is_idle))
}
