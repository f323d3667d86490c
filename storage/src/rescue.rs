//! What becomes of a log whose segment could not be written or flushed: it alone goes offline, and what was acknowledged
//! of it is brought to sound files before a checkpoint lets go of the journal.
//!
//! - From the failure on, nothing of the log is acknowledged: its shares leave the commits that are not stable yet (the
//!   committer leaves them out of frames, the flusher takes them out of frames written already; see
//!   [`crate::committer`]).
//! - A flush that failed is never asked for again: it would prove nothing of what the first one lost. A file that a write
//!   or a flush failed on is *suspect*: nothing is written to it any more, and no byte of it counts but by its crc.
//! - Each checkpoint first copies what is acknowledged in suspect files, and what of the log is not in its segments yet, to
//!   new files, which take the place of the old ones. Batches come from memory, else from the old file, where each has to
//!   match its crc. Only with those files stable may the journal's frames go.
//! - If even that fails, or the log is just being truncated, the store goes offline with its journal as it is: the next opening replays it.
//!
//! Design and alternatives: `broker/docs/decisions/0012-what-a-failed-write-takes-offline.md`.

use std::fmt;
use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use penstock_format::{BATCH_HEADER_LEN, Batch, BatchHeader};

use crate::cut::cut_settled;
use crate::disk::{AlignedBuf, Disk, DiskFile};
use crate::error::{Offline, StoreError};
use crate::memory::Recent;
use crate::plan::{block_ceil, block_floor};
use crate::prepare::header_of;
use crate::recycle::recycle_dir;
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, StoreInner};

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
        }
    }

    /// What was written to the segment since its last flush may be lost.
    pub(crate) fn suspect(&self, log: &LogInner<D>, life: u64) {
        let state = log.state.borrow();
        let segments = state.segments.iter().chain(&state.upcoming);
        segments.filter(|segment| segment.life == life).for_each(|segment| segment.suspect.set(true));
    }

    /// As [`StoreInner::retry_no_space`]; any other failure takes the log alone offline. `None` then too.
    pub(crate) async fn retry_for_log<T, F: Future<Output = io::Result<T>>>(
        self: &Rc<Self>,
        (log, segment): (&LogInner<D>, &Segment<D>),
        what: &str,
        op: impl FnMut() -> F,
    ) -> Option<T> {
        match self.retry_while_full(what, op).await? {
            Ok(value) => Some(value),
            // Its log was removed, or it was cut off meanwhile.
            Err(_) if segment.retired.get() => None,
            Err(error) => {
                self.fail_log(log, segment.life, format_args!("segment {}: {what}: {error}", segment.base));
                None
            }
        }
    }

    /// Brings what is acknowledged of failed logs to sound files. `None` if the store stopped or had to go offline.
    pub(crate) async fn rescue_logs(self: &Rc<Self>) -> Option<()> {
        loop {
            let next = self.logs.borrow().values().find(|log| log.to_rescue.get()).cloned();
            let Some(log) = next else { return Some(()) };
            log.to_rescue.set(false);
            match rescue(self, &log).await {
                Ok(()) => {}
                Err(_) if log.state.borrow().removed => {}
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

async fn rescue<D: Disk>(store: &Rc<StoreInner<D>>, log: &Rc<LogInner<D>>) -> Result<(), Failure> {
    // A file that is being made would take the place of the new one.
    let all: Vec<_> = log.state.borrow().segments.iter().cloned().collect();
    let making = || all.iter().any(|segment| segment.preparing.get()) && !store.stopped.get();
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
        let unflushed = store.writeback.unflushed.borrow().contains_key(&segment.life);
        let last = segments.last().is_some_and(|last| Rc::ptr_eq(last, segment));
        if last || unflushed || segment.suspect.get() || !segment.pending.borrow().is_empty() {
            copy(store, log, segment, durable).await?;
        }
    }
    for segment in log.state.borrow().segments.iter() {
        let unsettled = segment.pending.borrow_mut().clear();
        store.settled(unsettled);
        store.writeback.unflushed.borrow_mut().remove(&segment.life);
    }
    let dropped = match cut_settled(store, log, durable, true).await {
        // A truncation that had begun before came to its end.
        Err(StoreError::Busy) => return Box::pin(rescue(store, log)).await,
        dropped => dropped.map_err(|error| error.to_string())?,
    };
    dropped.into_iter().for_each(|segment| store.recycle.retire_cut(store, segment));
    let freed = log.state.borrow_mut().memory.truncate(i64::MIN);
    store.uncached(freed);
    tracing::info!(log = %log.name, "what was acknowledged of it is saved, up to offset {durable}");
    Ok(())
}

/// Puts a new file in the place of the segment's, with the batches below `durable`.
async fn copy<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
    durable: i64,
) -> Result<(), Failure> {
    let path = store.recycle.new_path("rescue");
    let len = block_ceil(segment.end.get());
    let made = store.retry_while_full("saving a log", || store.disk.create(&path, len)).await;
    let file = made.ok_or("the store was closed")?.map_err(|error| error.to_string())?;
    let io = |error: io::Error| format!("segment {}: {error}", segment.base);
    file.write_at(header_of(log, segment).encode().freeze(), 0).await.map_err(io)?;
    let (recent, from) = in_memory(log, segment);
    let mut out =
        Copy { file: file.clone(), piece: AlignedBuf::with_capacity(PIECE_BYTES), position: DATA_START };
    let mut batches = Batches { rest: BytesMut::new(), durable };
    let mut position = DATA_START;
    if from.file_to > DATA_START {
        let old = store.files.get(&store.disk, log, segment).await.map_err(|error| error.to_string())?;
        while position < from.file_to {
            let to = block_ceil(from.file_to).min(position + PIECE_BYTES as u64);
            let data = old.read_at(position, (to - position) as usize).await.map_err(io)?;
            let wanted = (from.file_to - position).min(to - position) as usize;
            let read = data.get(..wanted).ok_or_else(|| format!("segment {} is too short", segment.base))?;
            batches.rest.extend_from_slice(read);
            batches.copy_to(&mut out).await?;
            position += wanted as u64;
        }
    }
    batches.rest.extend_from_slice(&from.prefix);
    batches.copy_to(&mut out).await?;
    for batch in recent.iter().take_while(|batch| batch.next_offset <= durable) {
        batches.rest.extend_from_slice(&batch.head);
        batches.rest.extend_from_slice(&batch.body);
        batches.copy_to(&mut out).await?;
    }
    if !batches.rest.is_empty() {
        return Err(format!("segment {} ends within a batch", segment.base));
    }
    let end = out.finish().await.map_err(io)?;
    file.sync_data().await.map_err(io)?;
    store.disk.create_dir_all(&store.log_dir(&log.name)).await.map_err(io)?;
    store.disk.rename(&path, &segment.path).await.map_err(io)?;
    store.disk.sync_dir(&store.log_dir(&log.name)).await.map_err(io)?;
    store.disk.sync_dir(&crate::state::logs_dir(&store.dir)).await.map_err(io)?;
    store.disk.sync_dir(&recycle_dir(&store.dir)).await.map_err(io)?;
    store.files.close(segment);
    store.files.keep(segment, file);
    segment.prepared_to.set(len.max(DATA_START));
    segment.end.set(end);
    segment.suspect.set(false);
    *segment.prefix.borrow_mut() = None;
    Ok(())
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

/// Bytes read that are not a whole batch yet.
struct Batches {
    rest: BytesMut,
    /// What begins here or later is not copied.
    durable: i64,
}

impl Batches {
    /// Hands on the whole batches, each found right.
    async fn copy_to<F: DiskFile>(&mut self, out: &mut Copy<F>) -> Result<(), Failure> {
        while self.rest.len() >= BATCH_HEADER_LEN {
            let at = out.position + out.piece.len() as u64;
            let damaged = || format!("a batch at position {at} is damaged");
            let header = BatchHeader::parse(&self.rest).map_err(|_| damaged())?;
            if header.base_offset >= self.durable {
                self.rest.clear();
                return Ok(());
            }
            if self.rest.len() < header.total_len() {
                return Ok(());
            }
            let bytes: Bytes = self.rest.split_to(header.total_len()).freeze();
            let batch = Batch { header, body: bytes.slice(BATCH_HEADER_LEN..) };
            if !batch.crc_ok() {
                return Err(damaged());
            }
            out.put(bytes).await.map_err(|error| error.to_string())?;
        }
        Ok(())
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
