//! Takes checkpoints: captures the state of all logs between two commits, settles everything before in segments,
//! flushes those, replaces the checkpoint file, and frees the journal.

use std::rc::Rc;

use futures_util::stream::{self, StreamExt};

use crate::checkpoint::{Encoder, check_len};
use crate::checkpoint_file::write_checkpoint;
use crate::disk::Disk;
use crate::segment::Segment;
use crate::state::{StoreInner, add};
use crate::writeback;

/// Files flushed at once.
const FLUSHES_AT_ONCE: usize = 64;

impl<D: Disk> StoreInner<D> {
    /// Whether the journal, or recovery's work, has grown enough for a checkpoint.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        let idle = self.pipeline.checkpoint_done.get() == self.pipeline.checkpoint_wanted.get();
        let appended = self.levels.appended_bytes.get() - self.levels.appended_at_checkpoint.get();
        idle && (appended >= self.config.checkpoint_bytes || self.journal.wants_checkpoint())
    }
}

/// Takes checkpoints on request, until the store stops.
pub(crate) async fn run_checkpointer<D: Disk>(store: Rc<StoreInner<D>>) {
    loop {
        let pipeline = &store.pipeline;
        let wanted = || {
            let wanted = pipeline.checkpoint_wanted.get() > pipeline.checkpoint_done.get();
            (wanted || store.stopped.get()).then_some(())
        };
        store.work.until(wanted).await;
        if store.stopped.get() {
            return;
        }
        if take(&store).await.is_none() {
            return;
        }
        store.work.wake_all();
    }
}

/// One checkpoint; `None` if the store stopped.
async fn take<D: Disk>(store: &Rc<StoreInner<D>>) -> Option<()> {
    let pipeline = &store.pipeline;
    let wanted = pipeline.checkpoint_wanted.get();
    let clean = store.closing.get() && pipeline.is_idle();
    let seq = pipeline.seal();
    pipeline.redo_floor_before.set(pipeline.redo_floor.get());
    pipeline.redo_floor.set(seq);
    store.journal.begin_checkpoint(seq);
    store.levels.appended_at_checkpoint.set(store.levels.appended_bytes.get());
    let mut encoder = Encoder::new();
    for log in store.logs.borrow().values() {
        encoder.log(&log.state.borrow().record(log));
    }

    pipeline.wait_durable(store, seq - 1).await.ok()?;
    let unsettled = || {
        let before = |segment: &Rc<Segment<D>>| segment.pending.borrow().any_before(seq);
        store.dirty.borrow().iter().any(|log| log.state.borrow().segments.iter().any(before))
    };
    writeback::settle(store, unsettled).await.ok()?;
    let files = std::mem::take(&mut *store.writeback.unflushed.borrow_mut());
    let mut flushes = stream::iter(&files)
        .map(async |(life, file)| store.flush_segment(*life, file).await)
        .buffer_unordered(FLUSHES_AT_ONCE);
    while let Some(flushed) = flushes.next().await {
        flushed.ok()?;
    }
    let redo = store.journal.redo_of_mark();
    let bytes = encoder.finish(&store.journal.redo(store.run, seq, redo, clean));
    if let Err(error) = check_len(&bytes) {
        store.fail(format_args!("writing a checkpoint: {error}"));
        return None;
    }
    store
        .retry_no_space("writing a checkpoint", || write_checkpoint(&store.disk, &store.dir, &bytes))
        .await?;
    store.journal.end_checkpoint(redo);
    pipeline.checkpoint_done.set(wanted);
    add(&store.levels.checkpoints, 1);
    Some(())
}
