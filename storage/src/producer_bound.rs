//! The idempotent producers of a whole store: their bound and their expiry.
//!
//! Each log bounds its own ([`crate::producer`]); without a bound on all of them, many logs could hold more than the
//! shard's memory and its checkpoint can take. At the bound, the log that knows most of them forgets those idle for
//! longest, as it would at its own bound, so that one client's many producers cost others' nothing.

use std::rc::Rc;

use penstock_format::Batch;

use crate::disk::Disk;
use crate::log::Origin;
use crate::producer::{FORGET_SHARE, ProducerError};
use crate::state::{LogInner, StoreInner};

/// Makes sure that the store may take in the producers of these batches.
pub(crate) fn make_room<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    batches: &[Batch],
    origin: Origin,
) -> Result<(), ProducerError> {
    let (levels, producers_max) = (&store.levels, store.config.producers_max);
    let with_id = batches.iter().filter(|batch| batch.header.has_producer_id());
    if levels.producers.get() + batches.len() <= producers_max {
        return Ok(());
    }
    let new = {
        let state = log.state.borrow();
        with_id.filter(|batch| !state.producers.knows(batch.header.producer_id)).count()
    };
    if new == 0 {
        return Ok(());
    }
    count(store);
    while levels.producers.get() + new > producers_max {
        let largest = {
            let logs = store.logs.borrow();
            logs.values().max_by_key(|log| log.state.borrow().producers.len()).cloned()
        };
        let forgotten = largest.map_or(0, |largest| {
            let producers = &mut largest.state.borrow_mut().producers;
            let share = producers.len() / FORGET_SHARE;
            producers.forget_idle(share.max(1))
        });
        if forgotten == 0 && origin == Origin::Replica {
            return Ok(());
        }
        if forgotten == 0 {
            return Err(ProducerError::TooMany { producers: levels.producers.get() });
        }
        levels.producers.set(levels.producers.get() - forgotten);
    }
    Ok(())
}

/// Counts the producers of all logs: removal and truncation take some away without saying how many.
pub(crate) fn count<D: Disk>(store: &StoreInner<D>) {
    let logs = store.logs.borrow();
    store.levels.producers.set(logs.values().map(|log| log.state.borrow().producers.len()).sum());
}

/// Forgets producers that are past their log's expiration time, if it is time to look for them.
pub(crate) async fn expire<D: Disk>(store: &Rc<StoreInner<D>>, now_ms: i64) {
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
            state.producers.expire(now_ms, expiration_ms);
            some
        };
        if some {
            store.disk.yield_now().await;
        }
    }
}
