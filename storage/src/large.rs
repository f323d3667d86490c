//! Appending a batch that no journal frame can hold. All of it but the ragged ends goes straight to its segment, so the
//! segment's file has to be there, and to reach far enough, before the append takes effect: else the commit would need
//! the bytes in its frame after all.
//!
//! Where the batch begins a segment, that segment is *upcoming* meanwhile: it has a file, and is no part of the log. If
//! the log goes on without it, its file is recycled; after a crash it is one of the files that nothing names.
//!
//! Invariant: from the append until its commit is placed the file stays as long as it is, and the share is not joined by
//! what comes after it. So the plan, which is made later, finds what was found here.

use std::collections::BTreeSet;
use std::rc::Rc;

use penstock_format::Batch;

use crate::append::{append, append_admitted, check_admission, check_producers, rolls, upcoming};
use crate::bring_back::admit;
use crate::commit::DIRECT_FRAME_LEN_MAX;
use crate::disk::Disk;
use crate::error::AppendError;
use crate::log::{AppendContext, Appended, Origin};
use crate::plan::block_ceil;
use crate::producer_bound;
use crate::segment::Segment;
use crate::state::{LogInner, StoreInner};

/// See [`crate::Log::append_large`].
pub(crate) async fn append_large<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    batch: Batch,
    context: AppendContext,
) -> Result<Appended, AppendError> {
    let mut batches = [batch];
    loop {
        let appended = match batches[0].len() <= store.config.append_bytes_max() {
            true => append(store, log, &mut batches, context),
            false => append_prepared(store, log, &mut batches, context).await,
        };
        match appended {
            Err(AppendError::ProducerAway(producer_id)) => {
                admit(store, log, &BTreeSet::from([producer_id]), context).await?;
            }
            appended => return appended,
        }
    }
}

/// Appends a batch that no frame holds.
async fn append_prepared<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    batches: &mut [Batch; 1],
    context: AppendContext,
) -> Result<Appended, AppendError> {
    loop {
        check_admission(store, log, batches, context.origin)?;
        producer_bound::check(store, log, batches, context.origin)?;
        if !store.pipeline.has_room(store, DIRECT_FRAME_LEN_MAX, 1) {
            return Err(AppendError::JournalFull);
        }
        let Some(segment) = segment_to_wait_for(store, log, &batches[0], context)? else {
            return append_admitted(store, log, batches, context);
        };
        let prepared = || {
            if store.is_offline().is_some() || store.refuses_clients() || segment.retired.get() {
                return Some(());
            }
            (!segment.preparing.get()).then_some(())
        };
        store.work.until(prepared).await;
        if store.refuses_clients() {
            return Err(AppendError::DiskFull);
        }
    }
}

/// The segment that the batch would go to, with its file on the way, if that does not reach far enough yet.
fn segment_to_wait_for<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    batch: &Batch,
    context: AppendContext,
) -> Result<Option<Rc<Segment<D>>>, AppendError> {
    let mut state = log.state.borrow_mut();
    if check_producers(&state, std::slice::from_ref(batch), context.origin)?.is_some() {
        return Ok(None);
    }
    let mut header = batch.header;
    if context.origin != Origin::Replica {
        header.base_offset = state.end_offset;
    }
    let segment = match state.segments.back() {
        Some(active) if !rolls(store, log.id, &state, &header, context.now_ms) => active.clone(),
        _ => upcoming(store, log, &mut state, (header.base_offset, context.now_ms)),
    };
    let wanted_to = block_ceil(segment.end.get() + batch.len() as u64);
    if segment.is_ready() && segment.prepared_to.get() >= wanted_to {
        return Ok(None);
    }
    segment.wanted_to.set(wanted_to);
    store.prepare(log, &segment);
    Ok(Some(segment))
}
