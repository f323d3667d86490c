//! Takes checkpoints: captures the state of all logs between two commits, settles everything before in segments,
//! flushes those, replaces the checkpoint file, and frees the journal.

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::select;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::checkpoint::{self, Encoder, LogRecord, SEGMENT_LEN, check_len};
use crate::checkpoint_file::write_checkpoint;
use crate::cuts::Cuts;
use crate::disk::Disk;
use crate::producer::ENCODED_BYTES_MAX;
use crate::segment::Segment;
use crate::spill::RunRecord;
use crate::state::{LogInner, StoreInner, add};
use crate::writeback::{self, Unflushed};

/// Bytes that most logs take besides their segments and producers.
const LOG_BYTES: usize = 128;
/// A log as it was, but for its producers.
type Captured<D> = (Rc<LogInner<D>>, LogRecord);

/// Most files flushed at once.
const FLUSHES_AT_ONCE: usize = 64;

impl<D: Disk> StoreInner<D> {
    /// Whether the journal, or recovery's work, has grown enough for a checkpoint.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        let idle = self.pipeline.checkpoint_done.get() == self.pipeline.checkpoint_wanted.get();
        let appended = self.levels.appended_bytes.get() - self.levels.appended_at_checkpoint.get();
        let grown = appended >= self.journal.due_bytes() || self.journal.wants_checkpoint();
        idle && (grown || self.spilled.wants_checkpoint())
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
    let (captured, runs) = capture(store);

    let encoder = encode(store, captured).await;
    pipeline.wait_durable(store, seq - 1).await.ok()?;
    let unsettled = |log: &LogInner<D>| {
        let before = |segment: &Rc<Segment<D>>| segment.pending.borrow().any_before(seq);
        !log.has_failed() && log.state.borrow().segments.iter().any(before)
    };
    writeback::settle(store, unsettled).await.ok()?;
    let files = std::mem::take(&mut *store.writeback.unflushed.borrow_mut());
    flush_all(store, files).await;
    let rescued = store.rescue_logs().await?;
    if store.stopped.get() {
        return None;
    }
    let redo = store.journal.redo_of_mark();
    let mut bytes = Bytes::from(encoder.finish(&store.journal.redo(store.run, seq, redo, clean), &runs));
    if let Some(mended) = with_rescued(&rescued, &bytes, seq) {
        bytes = mended.into();
    }
    if let Err(error) = check_len(&bytes) {
        store.fail(format_args!("writing a checkpoint: {error}"));
        return None;
    }
    store
        .retry_no_space("writing a checkpoint", || write_checkpoint(&store.disk, &store.dir, bytes.clone()))
        .await?;
    store.journal.end_checkpoint(redo);
    rescued.iter().for_each(|log| log.saved.set(true));
    remove_runs(store, &runs).await;
    pipeline.checkpoint_done.set(wanted);
    add(&store.levels.checkpoints, 1);
    Some(())
}

/// Flushes files that were written behind, a few at a time while there is time. A log whose flush fails is saved later.
async fn flush_all<D: Disk>(store: &StoreInner<D>, mut files: BTreeMap<u64, Unflushed<D>>) {
    let flush = async |(life, (log, file)): (u64, Unflushed<D>)| {
        store.flush_segment(&log, life, &file).await;
    };
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < store.behind_at_once(FLUSHES_AT_ONCE)
            && let Some(next) = files.pop_first()
        {
            running.push(flush(next));
        }
        store.writeback.flushing.set(files.len() + running.len());
        if running.is_empty() {
            return;
        }
        let flushing = running.len();
        let more = || !files.is_empty() && flushing < store.behind_at_once(FLUSHES_AT_ONCE);
        select(running.next(), pin!(store.writeback.hastened(more))).await;
    }
}

/// Removes the runs that no checkpoint needs any more.
async fn remove_runs<D: Disk>(store: &StoreInner<D>, runs: &[RunRecord]) {
    for path in store.spilled.told_of(runs) {
        if let Err(error) = store.disk.remove(&path).await {
            tracing::warn!("{}: removing a file of producers: {error}", path.display());
        }
    }
}

/// All logs as they are now, their producers captured ([`crate::producer::ProducerTable::begin_capture`]), and the runs of those
/// that are on disk. No await: they belong together.
fn capture<D: Disk>(store: &StoreInner<D>) -> (Vec<Captured<D>>, Vec<RunRecord>) {
    let one = |log: &Rc<LogInner<D>>| {
        let mut state = log.state.borrow_mut();
        let end_offset = state.end_offset;
        state.producers.begin_capture(end_offset);
        (log.clone(), state.record_without_producers(log))
    };
    let runs = store.spilled.records();
    let live = runs.iter().map(|run| run.number + 1).max().unwrap_or(0);
    store.spiller.captured.set(store.spiller.live_before(live));
    (store.logs.borrow().values().map(one).collect(), runs)
}

/// Encodes what was captured, in steps that let others have their turn.
async fn encode<D: Disk>(store: &StoreInner<D>, captured: Vec<Captured<D>>) -> Encoder {
    let producers: usize = captured.iter().map(|(log, _)| log.state.borrow().producers.len()).sum();
    let segments: usize = captured.iter().map(|(_, record)| record.segments.len()).sum();
    let bytes = captured.len() * LOG_BYTES + segments * SEGMENT_LEN + producers * ENCODED_BYTES_MAX;
    let mut encoder = Encoder::with_capacity(bytes);
    let mut pause_at = store.config.checkpoint_step_bytes;
    for (log, mut record) in captured {
        record.producers = log.state.borrow_mut().producers.end_capture();
        encoder.log(&record);
        if encoder.len() >= pause_at {
            store.disk.yield_now().await;
            pause_at = encoder.len() + store.config.checkpoint_step_bytes;
        }
    }
    encoder
}

/// The checkpoint before commit `seq`, with logs that failed before that commit as they were saved just now: nothing of
/// them that was not acknowledged counts. `None` if there are none. Of a log that failed later all was acknowledged that
/// the checkpoint tells of, and frames from the commit on tell the rest; among those is the removal of a log that is gone.
fn with_rescued<D: Disk>(rescued: &[Rc<LogInner<D>>], bytes: &[u8], seq: u64) -> Option<Vec<u8>> {
    let saved = |log: &&Rc<LogInner<D>>| log.failed_from.get() < seq && !log.discarded.get();
    let saved: BTreeMap<u64, _> = rescued.iter().filter(saved).map(|log| (log.id, log)).collect();
    if saved.is_empty() {
        return None;
    }
    let mut decoded = checkpoint::decode(bytes).expect("it was just encoded");
    let mut encoder = Encoder::new();
    for record in &mut decoded.logs {
        if let Some(log) = saved.get(&record.id) {
            let mut saved = log.state.borrow().record(log);
            // A merge since then was none of the runs that the checkpoint names.
            let mut cuts = Cuts::from_records(&record.cuts);
            saved.cuts.iter().for_each(|cut| cuts.add(cut.before, cut.offset));
            saved.cuts = cuts.records().to_vec();
            *record = saved;
        }
        encoder.log(record);
    }
    Some(encoder.finish(&decoded.redo, &decoded.runs))
}
