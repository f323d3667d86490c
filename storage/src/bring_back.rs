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
const BROUGHT_MAX: usize = 1 << 16;

/// Whether the producer was not seen for so long that it counts as unknown.
pub(crate) fn is_expired(producer: &Producer, config: &LogConfig, now_ms: i64) -> bool {
    now_ms.saturating_sub(producer.last_seen_ms) >= config.producer_expiration_ms
}

/// Waits until what is known of a producer is in memory, and until there is room for it. An append may then still find that
/// it has to wait, for another producer or as others took the room. Where the log takes no appends it does not wait.
pub(crate) async fn admit<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    producer_id: i64,
    context: AppendContext,
) -> Result<(), AppendError> {
    let (spiller, key) = (&store.spiller, (log.id, producer_id));
    spiller.tell_time(context.now_ms);
    let full = || {
        let producers = &log.state.borrow().producers;
        let full = store.levels.producers.get() >= store.config.producers_max;
        (full, producers.len() >= producers.producers_max())
    };
    let knows = || log.state.borrow().producers.knows(producer_id);
    let found_none = || {
        let (full, full_here) = full();
        spiller.found_none(full, full_here.then_some(log.id))
    };
    if let (full, full_here) = full()
        && (full || full_here)
        && !knows()
        && !found_none()
    {
        spiller.demand(store, full, full_here.then_some(log.id));
    }
    let asked = spiller.asked();
    let is_open = || {
        let state = log.state.borrow();
        store.is_offline().is_none() && !store.closing.get() && state.offline.is_none() && !state.removed
    };
    spiller.changed.until(|| (spiller.has_served(asked) || !is_open()).then_some(())).await;
    if knows() || !spiller.may_have(store, key) {
        return Ok(());
    }
    if found_none() && context.origin != Origin::Replica {
        return Err(ProducerError::TooMany { producers: store.levels.producers.get() }.into());
    }
    loop {
        let rounds = spiller.rounds();
        let found = look_up(store, log, producer_id).await;
        if rounds != spiller.rounds() {
            // It may have come back, written and left again meanwhile.
            if knows() {
                return Ok(());
            }
            continue;
        }
        let mut state = log.state.borrow_mut();
        match found.filter(|found| !is_expired(found, &state.config, context.now_ms)) {
            Some(mut found) => {
                found.last_seen_ms = context.now_ms;
                if state.producers.bring_back(producer_id, found) {
                    add(&store.levels.producers, 1);
                    add(&store.levels.producers_brought_back, 1);
                }
            }
            None => spiller.is_absent(key),
        }
        return Ok(());
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
