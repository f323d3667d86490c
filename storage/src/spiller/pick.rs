//! Which producers go to disk: those idle for longest, of logs near their own bound, then of all.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::select;

use super::{STRETCH, holds_back, may_leave};
use crate::disk::Disk;
use crate::producer::Producer;
use crate::producer_bound::{high, target};
use crate::spill::Key;
use crate::state::{LogInner, StoreInner};

/// Most producers of one run.
const PICKED_MAX: usize = 1 << 16;

/// Says which producers may be picked.
type Wanted<'a> = &'a dyn Fn(Key) -> bool;

/// Producers as they are to be written.
pub(super) struct Picked<D: Disk> {
    /// By rising key.
    pub entries: Vec<(Key, Producer)>,
    /// Their logs.
    pub logs: BTreeMap<u64, Source<D>>,
    /// The store is at its bound, and no producer may go.
    pub found_none: bool,
    /// Logs that are at their bound, and none of their producers may go.
    pub none_in: BTreeSet<u64>,
}

/// A log, as it was when its producers were picked.
pub(super) struct Source<D: Disk> {
    pub log: Rc<LogInner<D>>,
    /// How many there were so far.
    pub truncations: u64,
    /// Nothing that was picked tells of later offsets.
    pub end_offset: i64,
}

impl<D: Disk> Source<D> {
    /// Whether all that was picked of it is stable, and stays true.
    fn is_stable(&self) -> bool {
        let state = self.log.state.borrow();
        state.durable_offset >= self.end_offset
            && state.truncations == self.truncations
            && may_leave(&self.log)
    }
}

impl<D: Disk> Picked<D> {
    /// Waits until what was picked is stable. Who tells of a log that failed or is cut meanwhile stays in memory.
    pub(super) async fn settle(&mut self, store: &StoreInner<D>) {
        if self.entries.is_empty() {
            return;
        }
        let stable = pin!(store.pipeline.wait_durable(store, store.pipeline.last_seq()));
        let stopped = pin!(store.work.until(|| store.stopped.get().then_some(())));
        select(stable, stopped).await;
        self.logs.retain(|_, source| source.is_stable());
        let logs = &self.logs;
        self.entries.retain(|(key, _)| logs.contains_key(&key.0));
    }
}

/// Picks those that have to go, among those `wanted`. `full` says that the store's bound is met, `full_logs` which logs'
/// bounds are.
pub(super) async fn pick<D: Disk>(
    store: &StoreInner<D>,
    full: bool,
    full_logs: &BTreeSet<u64>,
    wanted: Wanted<'_>,
) -> Picked<D> {
    let logs: Vec<_> = store.logs.borrow().values().cloned().collect();
    let (mut chosen, mut none_in) = (BTreeSet::new(), BTreeSet::new());
    for stretch in logs.chunks(STRETCH) {
        for log in stretch {
            let (known, producers_max) = {
                let producers = &log.state.borrow().producers;
                (producers.len(), producers.producers_max())
            };
            let is_full = full_logs.contains(&log.id);
            let surplus = surplus(known, producers_max, is_full);
            if surplus > 0 {
                idle(store, std::slice::from_ref(log), surplus, (&mut chosen, wanted)).await;
            }
            let none = chosen.range(keys_of(log.id)).next().is_none();
            if is_full
                && none
                && known > target(producers_max)
                && chosen.len() < PICKED_MAX
                && !holds_back(store, log)
            {
                none_in.insert(log.id);
            }
        }
        store.disk.yield_now().await;
    }
    let surplus = surplus(store.levels.producers.get(), store.config.producers_max, full);
    if surplus > chosen.len() {
        idle(store, &logs, surplus - chosen.len(), (&mut chosen, wanted)).await;
    }
    // Where the round before has made room, nobody is missing.
    let is_near = store.levels.producers.get() > target(store.config.producers_max);
    let found_none = full && is_near && chosen.is_empty() && !logs.iter().any(|log| holds_back(store, log));
    let (entries, logs) = cloned(store, &logs, chosen).await;
    Picked { entries, logs, found_none, none_in }
}

/// All keys of a log.
fn keys_of(log: u64) -> std::ops::RangeInclusive<Key> {
    (log, i64::MIN)..=(log, i64::MAX)
}

/// How many have to go.
fn surplus(known: usize, producers_max: usize, full: bool) -> usize {
    let least = if full { (producers_max / 8).max(1) } else { 0 };
    let most = if known > high(producers_max) { known.saturating_sub(target(producers_max)) } else { 0 };
    most.max(least).min(PICKED_MAX)
}

/// Adds up to `count` producers of these logs that are not chosen yet, those idle for longest.
async fn idle<D: Disk>(
    store: &StoreInner<D>,
    logs: &[Rc<LogInner<D>>],
    count: usize,
    (chosen, wanted): (&mut BTreeSet<Key>, Wanted<'_>),
) {
    let count = count.min(PICKED_MAX - chosen.len().min(PICKED_MAX));
    // The one on top has written last.
    let mut idlest: BinaryHeap<(i64, Key)> = BinaryHeap::with_capacity(count + 1);
    let mut seen = 0;
    for log in logs {
        let mut from = Some(i64::MIN);
        while let Some(first) = from.filter(|_| may_leave(log)) {
            from = None;
            for (at, (id, producer)) in log.state.borrow().producers.from(first).enumerate() {
                if at == STRETCH {
                    from = Some(id);
                    break;
                }
                seen += 1;
                let (since, key) = (producer.last_seen_ms, (log.id, id));
                let may_go = producer.transaction_first_offset.is_none()
                    && !store.spiller.holds(key)
                    && !chosen.contains(&key);
                let older =
                    idlest.len() < count || idlest.peek().is_some_and(|youngest| (since, key) < *youngest);
                if may_go && older && wanted(key) {
                    idlest.push((since, key));
                    if idlest.len() > count {
                        idlest.pop();
                    }
                }
            }
            if seen >= STRETCH {
                seen = 0;
                store.disk.yield_now().await;
            }
        }
    }
    for stretch in idlest.into_vec().chunks(STRETCH) {
        chosen.extend(stretch.iter().map(|(_, key)| *key));
        store.disk.yield_now().await;
    }
}

/// Those chosen as they are now.
async fn cloned<D: Disk>(
    store: &StoreInner<D>,
    logs: &[Rc<LogInner<D>>],
    chosen: BTreeSet<Key>,
) -> (Vec<(Key, Producer)>, BTreeMap<u64, Source<D>>) {
    let (mut entries, mut sources) = (Vec::with_capacity(chosen.len()), BTreeMap::new());
    for log in logs.iter().filter(|log| chosen.range(keys_of(log.id)).next().is_some()) {
        let state = log.state.borrow();
        let (truncations, end_offset) = (state.truncations, state.end_offset);
        sources.insert(log.id, Source { log: log.clone(), truncations, end_offset });
    }
    for (at, key) in chosen.into_iter().enumerate() {
        if at % STRETCH == STRETCH - 1 {
            store.disk.yield_now().await;
        }
        let Some(source) = sources.get_mut(&key.0) else { continue };
        let state = source.log.state.borrow();
        source.end_offset = state.end_offset;
        let known = state.producers.get(key.1).filter(|known| known.transaction_first_offset.is_none());
        entries.extend(known.map(|known| (key, known.clone())));
    }
    (entries, sources)
}
