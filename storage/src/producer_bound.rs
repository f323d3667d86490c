//! The idempotent producers of a whole store: their bound and their expiry.
//!
//! Each log bounds its own ([`crate::producer`]); without a bound on all of them, many logs could hold more than the
//! shard's memory and its checkpoint can take. Who has not written for longest goes to disk before the bounds are met
//! ([`crate::spiller`]); at a bound an append waits for that.

use std::collections::BTreeSet;
use std::rc::Rc;

use penstock_format::Batch;

use crate::disk::Disk;
use crate::error::AppendError;
use crate::log::Origin;
use crate::producer::ProducerError;
use crate::state::{LogInner, StoreInner};

/// Most producers before some go to disk.
pub(crate) fn high(producers_max: usize) -> usize {
    (producers_max - producers_max / 8).saturating_sub(1)
}

/// Producers that are left when some went.
pub(crate) fn target(producers_max: usize) -> usize {
    (producers_max - producers_max / 4).min(producers_max.saturating_sub(1))
}

/// Makes sure that what is known of the producers of these batches is in memory, and that memory may take in the new ones.
pub(crate) fn check<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    batches: &[Batch],
    origin: Origin,
) -> Result<(), AppendError> {
    let state = log.state.borrow();
    // An append of one is as good as any other, and waits again.
    let room_made = batches.len() > 1 && log.room_made.take();
    let (known, known_here) = (store.levels.producers.get(), state.producers.len());
    let (all_max, here_max) = (store.config.producers_max, state.producers.producers_max());
    let near = known + batches.len() > high(all_max) || known_here + batches.len() > high(here_max);
    if !near && store.spilled.producers() == 0 {
        return Ok(());
    }
    let mut new = None;
    let mut unknown = BTreeSet::new();
    for Batch { header, .. } in batches.iter().filter(|batch| batch.header.has_producer_id()) {
        if !state.producers.knows(header.producer_id) {
            if store.spiller.may_have(store, (log.id, header.producer_id)) {
                return Err(AppendError::ProducerAway(header.producer_id));
            }
            new = new.or(Some(header.producer_id));
            unknown.insert(header.producer_id);
        }
    }
    let Some(new) = new else {
        // Those that came back for several appends at once may be more than fit.
        if known > high(all_max) || known_here > high(here_max) {
            store.spiller.hint(store);
        }
        return Ok(());
    };
    let count = unknown.len();
    let (full, full_here) = (known + count > all_max, known_here + count > here_max);
    if !full && !full_here {
        if near {
            store.spiller.hint(store);
        }
        return Ok(());
    }
    let full_log = full_here.then_some(log.id);
    match (store.spiller.found_none(full, full_log), origin) {
        (false, _) => {
            store.spiller.demand(store, full, full_log);
            if room_made { Ok(()) } else { Err(AppendError::ProducerAway(new)) }
        }
        // What a leader has taken has to be taken.
        (true, Origin::Replica) => Ok(()),
        (true, _) => Err(ProducerError::TooMany { producers: if full { known } else { known_here } }.into()),
    }
}

/// Counts the producers of all logs: removal and truncation take some away without saying how many.
pub(crate) fn count<D: Disk>(store: &StoreInner<D>) {
    let logs = store.logs.borrow();
    store.levels.producers.set(logs.values().map(|log| log.state.borrow().producers.len()).sum());
}

/// Forgets producers that are past their log's expiration time, if it is time to look for them.
pub(crate) async fn expire<D: Disk>(store: &Rc<StoreInner<D>>, now_ms: i64) {
    store.spiller.tell_time(now_ms);
    if now_ms < store.producers_due_ms.get() {
        return;
    }
    store.producers_due_ms.set(now_ms.saturating_add(store.config.producer_check_interval_ms));
    let logs: Vec<_> = store.logs.borrow().values().cloned().collect();
    for log in logs {
        let some = {
            let mut state = log.state.borrow_mut();
            let expiration_ms = state.config.producer_expiration_ms;
            let some = !state.producers.is_empty();
            let spilled = |id| store.spilled.may_have((log.id, id));
            let has_older = state.producers.expired(now_ms, expiration_ms).any(spilled);
            if has_older && store.spiller.is_writing() {
                // What is being written must not be made void with what is older. The next tick comes soon.
                store.producers_due_ms.set(now_ms);
                continue;
            }
            if has_older {
                // If the clock is put back, what a run tells of one from before its last batch would count again, and have the
                // next refused. Nearly always all that runs tell of the log is older than what expires, and expired as well.
                state.cuts.void_all(store.unique());
            }
            state.producers.expire(now_ms, expiration_ms);
            some
        };
        if some {
            store.disk.yield_now().await;
        }
    }
}
