//! Merging runs: what nobody needs any more goes, and beyond the bound those idle for longest.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};

use super::took_space;
use crate::bring_back::is_expired;
use crate::disk::Disk;
use crate::producer::Producer;
use crate::spill::Key;
use crate::state::{LogInner, StoreInner, add};

/// Times taken of the entries, to tell who has been idle for longest.
const SAMPLE_LEN: u64 = 4096;

const CANNOT_MERGE: &str = "files of producers cannot be merged";

/// Merges runs where there are too many of them, or of entries in them.
pub(crate) async fn merge<D: Disk>(store: &Rc<StoreInner<D>>) {
    let producers_max = store.config.spilled_producers_max;
    let beyond = || store.spilled.producers() > producers_max;
    while store.spilled.wants_merge() {
        if merge_without(store, false, &Oldest::default()).await.is_none() || store.stopped.get() {
            return;
        }
    }
    if !beyond() {
        return;
    }
    let Some(sample) = merge_without(store, true, &Oldest::default()).await else { return };
    if !beyond() {
        return;
    }
    let count = store.spilled.producers();
    let surplus = count - (producers_max - producers_max / 8);
    let oldest = Oldest { until_ms: until(sample, surplus, count), surplus: Cell::new(surplus) };
    if merge_without(store, true, &oldest).await.is_some() {
        let forgotten = surplus - oldest.surplus.get();
        add(&store.levels.producers_forgotten, forgotten);
        let dir = store.dir.display();
        tracing::warn!(%dir, forgotten, "producers silent for longest are forgotten: the disk has all that it may");
    }
}

/// Those that go for want of room: up to so many of those seen last at a time or before.
struct Oldest {
    until_ms: i64,
    surplus: Cell<u64>,
}

impl Default for Oldest {
    fn default() -> Oldest {
        Oldest { until_ms: i64::MIN, surplus: Cell::new(0) }
    }
}

impl Oldest {
    fn takes(&self, producer: &Producer) -> bool {
        let takes = self.surplus.get() > 0 && producer.last_seen_ms <= self.until_ms;
        self.surplus.set(self.surplus.get() - u64::from(takes));
        takes
    }
}

/// A time by which at least so many of all entries were seen last, as far as a sample tells.
fn until(mut sample: Vec<i64>, surplus: u64, count: u64) -> i64 {
    sample.sort_unstable();
    let share = sample.len() as u64 * surplus / count.max(1);
    let at = share as usize + sample.len() / 16;
    sample.get(at).or(sample.last()).copied().unwrap_or(i64::MAX)
}

/// Merges runs, all or as many as is worth it; gives a sample of when those left were seen last. `None` if the disk refused.
async fn merge_without<D: Disk>(store: &Rc<StoreInner<D>>, all: bool, oldest: &Oldest) -> Option<Vec<i64>> {
    let logs: BTreeMap<u64, Rc<LogInner<D>>> =
        store.logs.borrow().values().map(|log| (log.id, log.clone())).collect();
    // The old files stay until a checkpoint, which needs room itself, as does the journal.
    let bytes = store.spilled.merge_bytes(all);
    if store.space.is_tight(bytes) {
        let error = std::io::Error::other(format!("{bytes} bytes may be needed, and room is short"));
        store.spiller.tell_refused(store, CANNOT_MERGE, &error);
        return None;
    }
    let number = store.unique();
    let now_ms = store.spiller.now_ms.get();
    let (nth, each) = (Cell::new(0), store.spilled.producers() / SAMPLE_LEN + 1);
    let sample = RefCell::new(Vec::new());
    let keep = |(log, _): Key, run: u64, producer: &Producer| {
        let Some(log) = logs.get(&log) else { return false };
        let state = log.state.borrow();
        let void = state.removed || state.cuts.void(run, producer);
        if void || is_expired(producer, &state.config, now_ms) || oldest.takes(producer) {
            return false;
        }
        add(&nth, 1);
        if nth.get() % each == 0 {
            sample.borrow_mut().push(producer.last_seen_ms);
        }
        true
    };
    let runs = store.spilled.records().len();
    // What is being written beside it is not held against the cuts.
    let held_before = store.spiller.live_before(number);
    let merge = pin!(async {
        match all {
            true => store.spilled.merge_all(&store.disk, number, &keep).await,
            false => store.spilled.merge(&store.disk, number, &keep).await,
        }
    });
    // What is begun is left over then.
    let stopped = pin!(store.work.until(|| store.stopped.get().then_some(())));
    let merged = match select(merge, stopped).await {
        Either::Left((merged, _)) => merged,
        Either::Right(_) => return None,
    };
    match merged {
        Ok(outcome) => {
            let dir = store.dir.display();
            took_space(store, outcome.merged.map_or(0, |run| run.len));
            add(&store.levels.producers_forgotten, outcome.forgotten);
            for lost in &outcome.lost {
                tracing::error!(%dir, "producers on disk are damaged and are forgotten: {lost}");
            }
            if outcome.replaced.len() == runs {
                // All entries were held against these.
                logs.values().for_each(|log| log.state.borrow_mut().cuts.merged(held_before));
            }
            Some(sample.take())
        }
        Err(error) => {
            store.spiller.tell_refused(store, CANNOT_MERGE, &error);
            None
        }
    }
}
