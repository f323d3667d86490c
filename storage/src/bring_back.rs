//! Brings producers that were taken to disk back to memory, when they write again, and when their log is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::AppendError;
use crate::log::{AppendContext, Origin};
use crate::producer::{Producer, ProducerError};
use crate::state::{LogInner, StoreInner, add};

/// Most producers that are brought back for a cut at once, whatever memory has room for: the others are forgotten.
pub(crate) const BROUGHT_MAX: usize = 1 << 16;

/// Whether the producer was not seen for so long that it counts as unknown.
pub(crate) fn is_expired(producer: &Producer, config: &LogConfig, now_ms: i64) -> bool {
    now_ms.saturating_sub(producer.last_seen_ms) >= config.producer_expiration_ms
}

/// Waits until what is known of the producers of an append is in memory, and until there is room for them. An append of one of
/// them may then still find that it has to wait, as others took the room. Where the log takes no appends it does not wait.
///
/// All producers of an append are looked up in one go, and held meanwhile: else those looked up first may be gone or
/// forgotten to be absent when the last are there, time and again. For an append of several a round is made as long as it
/// makes room; then it may go beyond the bounds, since it may have more producers than these.
pub(crate) async fn admit<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    ids: &BTreeSet<i64>,
    context: AppendContext,
) -> Result<(), AppendError> {
    let spiller = &store.spiller;
    spiller.tell_time(context.now_ms);
    wait_for_room(store, log, ids, context.origin).await;
    let _held = spiller.hold(log.id, ids);
    let knows = |id: i64| log.state.borrow().producers.knows(id);
    for &id in ids {
        if knows(id) || !spiller.may_have(store, (log.id, id)) {
            continue;
        }
        let (full, full_here) = is_full(store, log, 1);
        if spiller.found_none(full, full_here.then_some(log.id)) && context.origin != Origin::Replica {
            return Err(ProducerError::TooMany { producers: store.levels.producers.get() }.into());
        }
        let found = look_up(store, log, id).await;
        let mut state = log.state.borrow_mut();
        if let Some(mut found) = found.filter(|found| !is_expired(found, &state.config, context.now_ms)) {
            found.last_seen_ms = context.now_ms;
            if state.producers.bring_back(id, found) {
                add(&store.levels.producers, 1);
                add(&store.levels.producers_brought_back, 1);
            }
        }
    }
    // Held all the time, so that none of them went to disk meanwhile.
    let keys = ids.iter().filter(|id| !knows(**id)).map(|id| (log.id, *id));
    let absent: Vec<_> = keys.filter(|key| store.spilled.may_have(*key)).collect();
    spiller.are_absent(&absent);
    log.room_made.set(true);
    Ok(())
}

/// Whether so many more producers are too many for the store, and for the log.
fn is_full<D: Disk>(store: &StoreInner<D>, log: &LogInner<D>, more: usize) -> (bool, bool) {
    let producers = &log.state.borrow().producers;
    let full = store.levels.producers.get() + more > store.config.producers_max;
    (full, producers.len() + more > producers.producers_max())
}

/// Waits for a round where memory has no room for those of an append that it does not know; for several, as long as rounds
/// make room.
async fn wait_for_room<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    ids: &BTreeSet<i64>,
    origin: Origin,
) {
    let spiller = &store.spiller;
    let is_open = || {
        let state = log.state.borrow();
        let takes = origin == Origin::Coordinator || !store.refuses_clients();
        let is_open = store.is_offline().is_none() && !store.closing.get();
        takes && is_open && state.offline.is_none() && !state.removed
    };
    while is_open() {
        let unknown = ids.iter().filter(|id| !log.state.borrow().producers.knows(**id)).count();
        let (full, full_here) = is_full(store, log, unknown);
        let full_log = full_here.then_some(log.id);
        if unknown == 0 || !(full || full_here) || spiller.found_none(full, full_log) {
            return;
        }
        spiller.demand(store, full, full_log);
        let (asked, known) = (spiller.asked(), store.levels.producers.get());
        spiller.changed.until(|| (spiller.has_served(asked) || !is_open()).then_some(())).await;
        if ids.len() == 1 || store.levels.producers.get() >= known {
            return;
        }
    }
}

/// What runs tell of a producer, if it counts still.
pub(crate) async fn look_up<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    producer_id: i64,
) -> Option<Producer> {
    // A merge that ends meanwhile may have the log forget cuts, and what is found is older.
    let cuts = log.state.borrow().cuts.clone();
    match store.spilled.find(&store.disk, (log.id, producer_id)).await {
        Ok(found) => {
            let (run, producer) = found?;
            let void = cuts.void(run, &producer) || log.state.borrow().cuts.void(run, &producer);
            (!void).then_some(producer)
        }
        Err(error) => {
            store.spiller.tell(store, &error);
            add(&store.levels.producers_forgotten, 1);
            None
        }
    }
}

/// Brings those of the log's producers back that `wanted` picks, by what runs tell of them and the run that did first, up to
/// [`BROUGHT_MAX`]; says whether that were all. Nothing takes producers of this log to disk meanwhile.
pub(crate) async fn bring_all<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    wanted: impl Fn(u64, &Producer) -> bool,
) -> bool {
    if !store.spiller.has_runs(store) {
        return true;
    }
    let cuts = log.state.borrow().cuts.clone();
    let (mut brought, mut are_all) = (0, true);
    let bring = |run: u64, id: i64, producer: Producer| {
        let mut state = log.state.borrow_mut();
        let void = cuts.void(run, &producer) || state.cuts.void(run, &producer);
        if void || !wanted(run, &producer) || state.producers.knows(id) {
            return;
        }
        are_all &= brought < BROUGHT_MAX;
        if brought < BROUGHT_MAX {
            state.producers.bring_back(id, producer);
            add(&store.levels.producers, 1);
            brought += 1;
        }
    };
    let gone_through = store.spilled.each_of(&store.disk, log.id, bring).await;
    store.spiller.hint(store);
    match gone_through {
        Ok(()) => are_all,
        Err(error) => {
            store.spiller.tell(store, &error);
            false
        }
    }
}

/// What runs tell of those producers in memory that a cut at `offset` takes batches from, where the runs tell of what stays.
pub(crate) async fn before_cut<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    offset: i64,
) -> BTreeMap<i64, Producer> {
    let cut: Vec<_> = {
        let state = log.state.borrow();
        let cut = state.producers.iter().filter(|(_, producer)| producer.reaches(offset));
        cut.map(|(id, producer)| (id, producer.last_seen_ms)).collect()
    };
    let mut before = BTreeMap::new();
    for (id, last_seen_ms) in cut {
        if store.spilled.may_have((log.id, id))
            && let Some(mut known) = look_up(store, log, id).await
            && !is_expired(&known, &log.state.borrow().config, last_seen_ms)
        {
            known.last_seen_ms = last_seen_ms;
            before.insert(id, known);
        }
    }
    before
}

/// Whether runs tell of some of these producers as they were before they wrote what a cut at `offset` takes away: then nothing
/// older than the cut may count. Gives the others that runs tell of, up to [`BROUGHT_MAX`], which are to stay known.
pub(crate) async fn beside_stale<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    offset: i64,
    producers: &BTreeSet<i64>,
) -> Option<Vec<(i64, Producer)>> {
    if !producers.iter().any(|id| store.spilled.may_have((log.id, *id))) {
        return None;
    }
    let cuts = log.state.borrow().cuts.clone();
    let (mut is_stale, mut others) = (false, Vec::new());
    let look = |run: u64, id: i64, told: Producer| {
        let void = cuts.void(run, &told) || log.state.borrow().cuts.void(run, &told);
        if void || told.reaches(offset) {
            return;
        }
        if producers.contains(&id) {
            is_stale = true;
        } else if others.len() < BROUGHT_MAX {
            others.push((id, told));
        }
    };
    match store.spilled.each_of(&store.disk, log.id, look).await {
        Ok(()) => is_stale.then_some(others),
        Err(error) => {
            store.spiller.tell(store, &error);
            Some(Vec::new())
        }
    }
}
