//! Producers that a replayed share needs in memory.

use std::collections::BTreeSet;
use std::rc::Rc;

use penstock_format::BatchHeader;

use crate::bring_back::look_up;
use crate::disk::Disk;
use crate::spiller::{make_room, merge};
use crate::state::{LogInner, StoreInner, add};

/// Brings those producers of a share back to memory that are on disk, so that the share is noted where it belongs. Where that
/// goes beyond the bounds others go to disk before, as they did before the crash.
pub(super) async fn admit<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    batches: &[BatchHeader],
) {
    let levels = &store.levels;
    let ids = batches.iter().filter(|header| header.has_producer_id()).map(|header| header.producer_id);
    let ids: BTreeSet<i64> = ids.collect();
    let unknown = loop {
        let (unknown, here, here_max) = {
            let producers = &log.state.borrow().producers;
            let unknown: Vec<_> = ids.iter().copied().filter(|id| !producers.knows(*id)).collect();
            (unknown, producers.len(), producers.producers_max())
        };
        let full = levels.producers.get() + unknown.len() > store.config.producers_max;
        let full_here = here + unknown.len() > here_max;
        if unknown.is_empty() || !full && !full_here {
            break unknown;
        }
        store.spiller.demand(store, full, full_here.then_some(log.id));
        // Where nobody can leave, the share goes beyond the bounds.
        if !make_room(store).await {
            break unknown;
        }
        merge(store).await;
    };
    // Nobody leaves memory before the share is noted.
    for id in unknown {
        if store.spiller.may_have(store, (log.id, id))
            && let Some(found) = look_up(store, log, id).await
        {
            log.state.borrow_mut().producers.bring_back(id, found);
        }
        add(&levels.producers, 1);
    }
}
