//! What becomes of a log whose segment could not be written or flushed: it alone goes offline, and what was acknowledged
//! of it is brought to sound files before a checkpoint lets go of the journal.
//!
//! - From the failure on, nothing of the log is acknowledged: its shares leave the commits that are not stable yet (the
//!   committer leaves them out of frames, the flusher takes them out of frames written already; see
//!   [`crate::committer`]).
//! - A flush that failed is never asked for again: it would prove nothing of what the first one lost. A file that a write
//!   or a flush failed on is *suspect*: nothing is written to it any more, and no later flush of it vouches for anything.
//! - Each checkpoint first copies what is acknowledged in suspect files, and what of the log is not in its segments yet, to
//!   new files, which take the place of the old ones. Batches come from memory; what went before them comes from the old
//!   file, byte by byte, as far as a flush that succeeded vouches for it. Nothing else does: a file that was used before may
//!   have whole batches of its past where a write was lost. Only with the new files stable may the journal's frames go.
//! - If that cannot be done, or the log is just being truncated, the store goes offline with its journal as it is: the next
//!   opening replays it.
//!
//! Design and alternatives: `broker/docs/decisions/0012-what-a-failed-write-takes-offline.md`.

use std::fmt;
use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::{Buf, Bytes};

use crate::bring_back::bring_all;
use crate::checkpoint::Checkpoint;
use crate::checkpoint_file::load_checkpoint;
use crate::cut::{Cut, ProducersAt, cut_settled};
use crate::disk::{AlignedBuf, Disk, DiskFile};
use crate::error::{Offline, OpenError, StoreError};
use crate::files::FileError;
use crate::indexes::forget_file;
use crate::memory::Recent;
use crate::plan::{block_ceil, block_floor};
use crate::prepare::header_of;
use crate::producer::ProducerTable;
use crate::recycle::recycle_dir;
use crate::salvage;
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, StoreInner, logs_dir};

/// Bytes read or written at once.
const PIECE_BYTES: usize = 1 << 20;

impl<D: Disk> LogInner<D> {
    /// Whether a write or a flush of its segments failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed_from.get() < u64::MAX
    }

    /// Why commit `seq` will never be acknowledged for this log, if a write of its segments failed before it was.
    pub(crate) fn refusal(&self, seq: u64) -> Option<Offline> {
        let offline = self.state.borrow().offline.clone();
        offline.filter(|_| seq >= self.failed_from.get())
    }
}

impl<D: Disk> StoreInner<D> {
    /// A write or a flush of the segment with this life failed: the log goes offline, and from now on nothing of it is
    /// acknowledged.
    pub(crate) fn fail_log(&self, log: &LogInner<D>, life: u64, reason: impl fmt::Display) {
        self.suspect(log, life);
        if !log.has_failed() {
            log.failed_from.set(self.pipeline.durable_seq.get() + 1);
            log.to_rescue.set(true);
            log.fail(reason);
            self.pipeline.request_checkpoint(self);
            self.pipeline.work.wake_all();
            self.spiller.changed.wake_all();
        }
    }

    /// What was written to the segment since its last flush may be lost.
    pub(crate) fn suspect(&self, log: &LogInner<D>, life: u64) {
        if let Some(segment) = self.segment_of_life(log, life) {
            segment.suspect.set(true);
        }
    }

    /// The log's segment of that life, if it is the log's still.
    pub(crate) fn segment_of_life(&self, log: &LogInner<D>, life: u64) -> Option<Rc<Segment<D>>> {
        let state = log.state.borrow();
        let newest_first = state.upcoming.iter().chain(state.segments.iter().rev());
        newest_first.into_iter().find(|segment| segment.life == life).cloned()
    }

    /// As [`StoreInner::retry_no_space`]; any other failure takes the log alone offline. `None` then too, and once it is.
    pub(crate) async fn retry_for_log<T, F: Future<Output = io::Result<T>>>(
        self: &Rc<Self>,
        (log, segment): (&LogInner<D>, &Segment<D>),
        what: &str,
        op: impl FnMut() -> F,
    ) -> Option<T> {
        match self.retry_while_full_for(what, || !log.has_failed(), op).await? {
            Ok(value) => Some(value),
            // Its log was removed, or it was cut off meanwhile.
            Err(_) if segment.retired.get() => None,
            Err(error) => {
                self.fail_log(log, segment.life, format_args!("segment {}: {what}: {error}", segment.base));
                None
            }
        }
    }

    /// Brings what is acknowledged of failed logs to sound files, and gives those logs. `None` if the store stopped or had
    /// to go offline.
    pub(crate) async fn rescue_logs(self: &Rc<Self>) -> Option<Vec<Rc<LogInner<D>>>> {
        let (mut rescued, mut told) = (Vec::new(), None);
        loop {
            let next = {
                // Until its removal is stable a log may come back.
                let (logs, removing) = (self.logs.borrow(), self.removing.borrow());
                let wanted = |log: &&Rc<LogInner<D>>| log.to_rescue.get() && !log.discarded.get();
                logs.values().chain(&*removing).find(wanted).cloned()
            };
            let Some(log) = next else { return Some(rescued) };
            log.to_rescue.set(false);
            log.rescuing.set(true);
            let outcome = rescue(self, &log, &mut told).await;
            log.rescuing.set(false);
            self.work.wake_all();
            match outcome {
                Ok(()) => rescued.push(log),
                Err(_) if log.discarded.get() => {}
                Err(_) if self.stopped.get() => return None,
                Err(error) => {
                    self.fail(format_args!(
                        "log {}, whose segment could not be written, could not be saved to another file: {error}",
                        log.name
                    ));
                    return None;
                }
            }
        }
    }
}

/// Why a log could not be saved.
type Failure = String;

async fn rescue<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    told: &mut Option<Checkpoint>,
) -> Result<(), Failure> {
    // A file that is being made would take the place of the new one.
    let all: Vec<_> = {
        let state = log.state.borrow();
        state.segments.iter().chain(&state.upcoming).cloned().collect()
    };
    let given_up = || store.stopped.get() || log.discarded.get();
    let making = || all.iter().any(|segment| segment.preparing.get()) && !given_up();
    store.work.until(|| (!making()).then_some(())).await;
    drop(all);
    if log.cut_untold.get() {
        return Err("it was being truncated".to_owned());
    }
    let (durable, segments) = {
        let state = log.state.borrow();
        let durable = state.durable_offset;
        let kept = state.segments.iter().filter(|segment| segment.base < durable);
        (durable, kept.cloned().collect::<Vec<_>>())
    };
    for segment in &segments {
        let doubtful = segment.doubtful_from() < u64::MAX;
        let last = segments.last().is_some_and(|last| Rc::ptr_eq(last, segment));
        if last || doubtful || segment.suspect.get() || !segment.pending.borrow().is_empty() {
            match replace(store, log, segment, durable).await {
                // The log's start moved beyond it meanwhile: memory has let go of it.
                Err(_) if segment.retired.get() => {}
                replaced => replaced?,
            }
        }
    }
    for segment in log.state.borrow().segments.iter() {
        let unsettled = segment.pending.borrow_mut().clear();
        store.settled(unsettled);
        store.writeback.unflushed.borrow_mut().remove(&segment.life);
    }
    let known = producers_told(store, log, durable, told).await?;
    let dropped = match cut_settled(store, log, durable, Cut::Rescue(known)).await {
        // A truncation that had begun before came to its end.
        Err(StoreError::Busy) => return Box::pin(rescue(store, log, told)).await,
        dropped => dropped.map_err(|error| error.to_string())?,
    };
    // The checkpoint that is being taken does not name the runs written since it began.
    let captured = store.spiller.captured.get();
    if !bring_all(store, log, |run, _| run >= captured).await {
        // What older ones tell of the others would have their next batches refused.
        log.state.borrow_mut().cuts.void_all(store.unique());
    }
    // What it tells of lies beyond the end now, and the segment may grow to that end again.
    if let Some(last) = segments.last()
        && let Err(error) = saving(store, log, || forget_file(store, last)).await
    {
        // The log takes no appends before the next start, which removes it or takes the log alone offline.
        tracing::warn!(log = %log.name, segment = last.base, "its index file stays: {error}");
    }
    for segment in dropped {
        if !segment.is_ready() {
            // A file that was not made to its end.
            store.disk.remove(&segment.path).await.ok();
        }
        store.recycle.retire_cut(store, segment);
    }
    let freed = log.state.borrow_mut().memory.truncate(i64::MIN);
    store.uncached(freed);
    tracing::info!(log = %log.name, "what was acknowledged of it is saved, up to offset {durable}");
    Ok(())
}

/// Does a step of saving a log; while the disk is full it is repeated, unless the log's removal is stable meanwhile.
async fn saving<D: Disk, T, F: Future<Output = io::Result<T>>>(
    store: &Rc<StoreInner<D>>,
    log: &LogInner<D>,
    step: impl FnMut() -> F,
) -> Result<T, Failure> {
    let done = store.retry_while_full_for("saving a log", || !log.discarded.get(), step).await;
    done.ok_or("it is needed no more")?.map_err(|error| error.to_string())
}

/// The log's producers as the checkpoint on the disk tells of them: what is behind it is a matter of a few segments, and
/// the log may be long.
async fn producers_told<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &LogInner<D>,
    durable: i64,
    told: &mut Option<Checkpoint>,
) -> Result<Option<ProducersAt>, Failure> {
    if !log.state.borrow().producers.reaches(durable) {
        return Ok(None);
    }
    if told.is_none() {
        let load = async || match load_checkpoint(&store.disk, &store.dir).await {
            Ok(checkpoint) => Ok(checkpoint),
            Err(OpenError::Io { source, .. }) => Err(source),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        *told = Some(saving(store, log, load).await?);
    }
    let record = told.iter().flat_map(|told| &told.logs).find(|record| record.id == log.id);
    // One that the checkpoint does not know is as short as it is new.
    let Some(record) = record.filter(|record| record.end_offset <= durable) else {
        return Ok(Some(ProducersAt::none()));
    };
    let table = match record.producers.is_empty() {
        true => ProducerTable::new(usize::MAX),
        false => {
            let decoded = ProducerTable::decode(&record.producers, usize::MAX);
            decoded.map_err(|error| error.to_string())?.0
        }
    };
    let place = record.segments.last().map(|last| (last.life, last.end));
    Ok(Some(ProducersAt { offset: record.end_offset, place, table }))
}

/// Puts a new file in the place of the segment's, with the batches below `durable`.
async fn replace<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
    durable: i64,
) -> Result<(), Failure> {
    prove(store, log, segment).await?;
    let attempt = async || {
        let path = store.recycle.new_path("rescue");
        let copied = copy(store, log, (segment, durable), &path).await;
        if copied.is_err() {
            // The next attempt begins anew, and this one's room is wanted.
            store.disk.remove(&path).await.ok();
        }
        copied.map(|(file, end)| (path, file, end))
    };
    let of_segment = |error: Failure| format!("segment {}: {error}", segment.base);
    let (path, file, end) = saving(store, log, attempt).await.map_err(of_segment)?;
    let (disk, dir) = (&store.disk, store.log_dir(&log.name));
    saving(store, log, || disk.create_dir_all(&dir)).await?;
    saving(store, log, || disk.rename(&path, &segment.path)).await?;
    for dir in [dir, logs_dir(&store.dir), recycle_dir(&store.dir)] {
        saving(store, log, || disk.sync_dir(&dir)).await?;
    }
    store.files.close(segment);
    segment.prepared_to.set(file.size());
    store.files.keep(segment, file);
    segment.end.set(end);
    segment.suspect.set(false);
    segment.unproven_from.set(u64::MAX);
    *segment.prefix.borrow_mut() = None;
    Ok(())
}

/// Flushes the segment's file, unless that failed before; waits for a flush under way.
async fn prove<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
) -> Result<(), Failure> {
    let needed = || !segment.suspect.get() && segment.doubtful_from() < u64::MAX;
    if !needed() {
        return Ok(());
    }
    let open = async || match store.files.get(&store.disk, log, segment).await {
        Ok(file) => Ok(file),
        Err(FileError::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error.to_string())),
    };
    let file = saving(store, log, open).await?;
    let turn = || store.flushing.borrow_mut().insert(segment.life).then_some(());
    store.flushed.until(turn).await;
    if needed() {
        segment.suspect.set(segment.flush(&file).await.is_err());
    }
    store.flushing.borrow_mut().remove(&segment.life);
    store.flushed.wake_all();
    Ok(())
}

/// Makes a stable file of that path with the segment's batches below `durable`; gives it and where they end.
async fn copy<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    (segment, durable): (&Rc<Segment<D>>, i64),
    path: &Path,
) -> io::Result<(D::File, u64)> {
    let file = store.disk.create(path, block_ceil(segment.end.get()).max(DATA_START)).await?;
    file.write_at(header_of(log, segment).encode().freeze(), 0).await?;
    let (recent, from) = in_memory(log, segment);
    let doubtful_from = segment.doubtful_from();
    if doubtful_from < from.file_to {
        let only = format!("what was written from position {doubtful_from} on is in the journal alone");
        return Err(io::Error::other(only));
    }
    let mut out =
        Copy { file: file.clone(), piece: AlignedBuf::with_capacity(PIECE_BYTES), position: DATA_START };
    let mut position = DATA_START;
    if from.file_to > DATA_START {
        let old = store.files.get(&store.disk, log, segment).await.map_err(|error| match error {
            FileError::Io(error) => error,
            error => io::Error::other(error.to_string()),
        })?;
        while position < from.file_to {
            let to = block_ceil(from.file_to).min(position + PIECE_BYTES as u64);
            let data = salvage::read_at(&store.disk, &old, position, (to - position) as usize).await?;
            let wanted = (from.file_to - position).min(to - position) as usize;
            if data.len() < wanted {
                return Err(io::Error::other("it is too short"));
            }
            out.put(data.slice(..wanted)).await?;
            position += wanted as u64;
        }
    }
    out.put(from.prefix.into()).await?;
    let acknowledged = recent.into_iter().take_while(|batch| batch.next_offset <= durable);
    for batch in acknowledged {
        out.put(batch.head).await?;
        out.put(batch.body).await?;
    }
    let end = out.finish().await?;
    file.sync_data().await?;
    Ok((file, end))
}

/// Where the bytes before those of the batches in memory come from.
struct From {
    /// The file, up to here.
    file_to: u64,
    /// Then these: the beginning of the block that memory begins in, which a failed write may have spoilt.
    prefix: Vec<u8>,
}

/// The segment's batches in memory, and where those before them are.
fn in_memory<D: Disk>(log: &LogInner<D>, segment: &Segment<D>) -> (Vec<Recent>, From) {
    let state = log.state.borrow();
    let recent: Vec<Recent> = state.memory.in_segment(segment.base).cloned().collect();
    let begin = recent.first().map_or(segment.end.get(), |first| first.position);
    let prefix = segment.prefix.borrow();
    let block = block_floor(begin);
    let prefix = prefix.as_ref().filter(|prefix| prefix.block == block);
    match prefix.and_then(|prefix| prefix.bytes.get(..(begin - block) as usize)) {
        Some(prefix) => (recent, From { file_to: block, prefix: prefix.to_vec() }),
        None => (recent, From { file_to: begin, prefix: Vec::new() }),
    }
}

/// A file that is written from its first batch on.
struct Copy<F: DiskFile> {
    file: F,
    piece: AlignedBuf,
    position: u64,
}

impl<F: DiskFile> Copy<F> {
    async fn put(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let len = bytes.len().min(self.piece.room());
            self.piece.extend_from_slice(&bytes[..len]);
            bytes.advance(len);
            if self.piece.room() == 0 {
                let full = std::mem::replace(&mut self.piece, AlignedBuf::with_capacity(PIECE_BYTES));
                let len = full.len() as u64;
                self.file.write_at(full.freeze(), self.position).await?;
                self.position += len;
            }
        }
        Ok(())
    }

    /// Writes what is left; the position after it.
    async fn finish(self) -> io::Result<u64> {
        let Copy { file, mut piece, position } = self;
        let end = position + piece.len() as u64;
        if end > position {
            piece.pad_to_block();
            file.write_at(piece.freeze(), position).await?;
        }
        Ok(end)
    }
}
