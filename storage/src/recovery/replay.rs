//! Replays frames: checks what each share wrote, applies it to the logs, and brings inline bytes to the segments.
//!
//! Nothing is written to a block before all frames that say something of it were read: only whole blocks below a
//! segment's end are written early, and no later frame touches those.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use penstock_format::BatchHeader;

use super::admit::admit;
use super::ahead::{self, Ahead, Direct, OfLog, Wanted, Window};
use super::chain::Chain;
use super::renew::{self, Refused};
use super::share::{check_batches, cut_pieces, part_of, pieces_bytes, tail_of};
use crate::append::note;
use crate::config::LogConfig;
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskFile};
use crate::error::{Offline, OpenError};
use crate::files::FileError;
use crate::frame::{AppendEntry, Entry, FrameHeader};
use crate::plan::{block_ceil, block_floor};
use crate::prepare::new_file;
use crate::producer::ProducerTable;
use crate::producer_bound;
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, StoreInner, logs_dir};

/// Inline bytes held before whole blocks are written.
const PIECES_BYTES_MAX: usize = 64 << 20;
/// Bytes checked between two pauses for the reads of later frames.
const PAUSE_BYTES: u64 = 256 << 10;
/// Files written, or flushed, at once.
const FILES_AT_ONCE: usize = 64;
/// Longest read or write.
const IO_BYTES_MAX: u64 = 1 << 20;

/// What frames say of one segment.
struct Touched<D: Disk> {
    log: Rc<LogInner<D>>,
    segment: Rc<Segment<D>>,
    /// Bytes to be written, in order and disjoint.
    pieces: Vec<(u64, Bytes)>,
    /// Bytes of the block that the segment's end lies in, from the block's start.
    tail: Option<Vec<u8>>,
    /// Its file, to be flushed at the end.
    file: Option<D::File>,
    /// The checkpoint does not know it: if its file is there, a killed process may have left its name unstable.
    is_new: bool,
    /// It holds direct bytes that nobody knows to be stable: see [`Replay::write_pieces`].
    doubtful: bool,
}

/// A share whose bytes were read and found right.
struct Verified {
    entry: AppendEntry,
    prefix: Bytes,
    bytes: Bytes,
    batches: Vec<BatchHeader>,
}

/// See the module.
pub(crate) struct Replay<'a, D: Disk> {
    store: &'a Rc<StoreInner<D>>,
    chain: &'a Chain,
    now_ms: i64,
    /// The files that ended the replay, if the device refused to write them.
    refused: &'a Refused<D>,
    by_id: BTreeMap<u64, Rc<LogInner<D>>>,
    touched: BTreeMap<(u64, i64), Touched<D>>,
    /// Logs found damaged, by id, with the end of what is known to have been acknowledged.
    damaged: BTreeMap<u64, i64>,
    pieces_bytes: usize,
    bytes: u64,
    /// Bytes checked since the last pause.
    since_pause: u64,
}

impl<'a, D: Disk> Replay<'a, D> {
    pub(crate) fn new(
        store: &'a Rc<StoreInner<D>>,
        chain: &'a Chain,
        now_ms: i64,
        refused: &'a Refused<D>,
    ) -> Replay<'a, D> {
        let by_id = store.logs.borrow().values().map(|log| (log.id, log.clone())).collect();
        producer_bound::count(store);
        let (touched, damaged) = (BTreeMap::new(), BTreeMap::new());
        let (pieces_bytes, bytes, since_pause) = (0, 0, 0);
        Replay { store, chain, now_ms, refused, by_id, touched, damaged, pieces_bytes, bytes, since_pause }
    }

    /// Bytes of batches replayed.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What these frames, which are replayed later, wrote to segments and may be read now.
    pub(super) fn wanted(&mut self, frames: &Window<D>) -> Vec<Wanted<D>> {
        let mut wanted = Vec::new();
        for (frame, ahead) in frames.iter().enumerate() {
            for (at, entry) in ahead.entries.iter().enumerate() {
                let Entry::Append(append) = entry else { continue };
                if let Some(of) = self.segment_ahead(append) {
                    wanted.push(Wanted { place: (frame, at), of, append: *append });
                }
            }
        }
        wanted
    }

    /// The segment that a share wrote to, if it may be read now: its log is known, sound, and not removed later.
    fn segment_ahead(&mut self, append: &AppendEntry) -> Option<OfLog<D>> {
        if append.direct_len == 0 || self.chain.removed.contains(&append.log_id) {
            return None;
        }
        let log = self.by_id.get(&append.log_id).cloned()?;
        let sound = log.state.borrow().offline.is_none();
        let segment = sound.then(|| self.segment(&log, append).segment.clone())?;
        (segment.life == append.life).then_some((log, segment))
    }

    /// Replays frames; says how many of them if one is not wholly valid and not known to have been stable.
    pub(super) async fn window(&mut self, frames: Window<D>) -> Result<Option<usize>, OpenError> {
        for (at, next) in frames.into_iter().enumerate() {
            let known_stable = next.header.seq <= self.chain.durable_seq;
            if !self.frame(next, known_stable).await? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Replays one frame. Says no, and changes nothing, if it is not wholly valid and not known to have been stable.
    async fn frame(&mut self, ahead: Ahead<D>, known_stable: bool) -> Result<bool, OpenError> {
        let Ahead { header, bytes: frame, entries, direct } = ahead;
        let (header, frame) = (&header, &frame);
        for entry in entries.iter().filter(|entry| !matches!(entry, Entry::Append(_))) {
            self.prepare_entry(entry);
        }
        let mut verified = Vec::new();
        for (entry, direct) in entries.iter().zip(direct) {
            let Entry::Append(append) = entry else { continue };
            let Some(log) = self.log_of(append, header)? else {
                if let Some(end) = self.damaged.get_mut(&append.log_id).filter(|_| known_stable) {
                    *end = append.next_offset.max(*end);
                }
                continue;
            };
            self.pause(append.len.into()).await;
            match self.verify(&log, append, frame, direct).await? {
                Ok(share) => {
                    self.segment(&log, append).doubtful |= !known_stable && append.direct_len > 0;
                    verified.push((log, share));
                }
                Err(reason) => {
                    if !known_stable {
                        self.forget_created(&entries);
                        return Ok(false);
                    }
                    self.damaged(&log, append, header, &reason);
                }
            }
        }
        let creates = |entry: &&Entry| matches!(entry, Entry::Create { .. });
        entries.iter().filter(creates).for_each(|entry| self.apply_entry(entry));
        for (log, share) in verified {
            admit(self.store, &log, &share.batches).await;
            self.apply(&log, share);
        }
        entries.iter().filter(|entry| !creates(entry)).for_each(|entry| self.apply_entry(entry));
        if self.pieces_bytes > PIECES_BYTES_MAX {
            self.write_pieces(false).await?;
        }
        Ok(true)
    }

    /// Lets reads of later frames go on, once in a while.
    async fn pause(&mut self, bytes: u64) {
        self.since_pause += bytes;
        if self.since_pause >= PAUSE_BYTES {
            self.since_pause = 0;
            self.store.disk.yield_now().await;
        }
    }

    /// The log of a share; none if the log was removed later, or is damaged already.
    fn log_of(
        &self,
        append: &AppendEntry,
        header: &FrameHeader,
    ) -> Result<Option<Rc<LogInner<D>>>, OpenError> {
        if self.chain.removed.contains(&append.log_id) {
            return Ok(None);
        }
        let log = self.by_id.get(&append.log_id).cloned().ok_or_else(|| {
            OpenError::Corrupt(format!("journal frame {} names unknown log {}", header.seq, append.log_id))
        })?;
        let sound = log.state.borrow().offline.is_none();
        Ok(sound.then_some(log))
    }

    /// Creates logs, so that shares of the same frame find them.
    fn prepare_entry(&mut self, entry: &Entry) {
        if let Entry::Create { log_id, name } = entry {
            let log = LogInner::new(&self.store.config, *log_id, name, LogConfig::default());
            self.by_id.insert(*log_id, log);
        }
    }

    fn forget_created(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Entry::Create { log_id, .. } = entry {
                self.by_id.remove(log_id);
            }
        }
    }

    fn apply_entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Append(_) => {}
            Entry::Create { log_id, name } => {
                if let Some(log) = self.by_id.get(log_id) {
                    self.store.logs.borrow_mut().insert(name.as_str().into(), log.clone());
                }
            }
            Entry::Remove { log_id } => {
                self.store.logs.borrow_mut().retain(|_, log| log.id != *log_id);
                self.touched.retain(|(id, _), _| id != log_id);
            }
            Entry::StartOffset { log_id, offset } => {
                if let Some(log) = self.by_id.get(log_id) {
                    let mut state = log.state.borrow_mut();
                    state.start_offset = *offset;
                    state.epochs.truncate_start(*offset);
                }
            }
        }
    }

    /// Acknowledged data of one log is damaged. If it was deleted since, nobody will miss it.
    fn damaged(&mut self, log: &Rc<LogInner<D>>, append: &AppendEntry, header: &FrameHeader, reason: &str) {
        let deleted =
            self.chain.start_offsets.get(&append.log_id).is_some_and(|start| append.next_offset <= *start);
        if !deleted {
            let (base, from) = (append.segment_base, append.position);
            log.state.borrow_mut().damaged = true;
            self.damaged.insert(log.id, append.next_offset);
            return log.fail(format_args!(
                "acknowledged offsets {}..{} are damaged: segment {base}, position {from}, journal frame {}: {reason}",
                append.first_offset, append.next_offset, header.seq
            ));
        }
        let segment = self.segment(log, append).segment.clone();
        let mut state = log.state.borrow_mut();
        if state.segments.back().is_none_or(|last| last.base < segment.base) {
            state.segments.push_back(segment.clone());
        }
        segment.end.set(append.end());
        segment.indexed_from.set(append.end());
        (state.end_offset, state.durable_offset) = (append.next_offset, append.next_offset);
        // What these batches told of producers is lost: an older state would refuse what follows them.
        state.producers.replace(ProducerTable::new(self.store.config.producers_per_log_max));
        state.cuts.void_all(self.store.unique());
    }

    fn segment(&mut self, log: &Rc<LogInner<D>>, append: &AppendEntry) -> &mut Touched<D> {
        let key = (log.id, append.segment_base);
        let store = self.store;
        let now_ms = self.now_ms;
        self.touched.entry(key).or_insert_with(|| {
            let known = log.state.borrow().segments.iter().find(|known| known.base == key.1).cloned();
            let segment = known.unwrap_or_else(|| {
                Segment::new(&store.log_dir(&log.name), append.segment_base, append.life, now_ms)
            });
            let is_new = !segment.is_ready();
            Touched {
                log: log.clone(),
                segment,
                pieces: Vec::new(),
                tail: None,
                file: None,
                is_new,
                doubtful: false,
            }
        })
    }

    /// Reads and checks all bytes of a share. The inner error says what is wrong with them.
    async fn verify(
        &mut self,
        log: &Rc<LogInner<D>>,
        append: &AppendEntry,
        frame: &Bytes,
        direct: Option<Direct<D>>,
    ) -> Result<Result<Verified, String>, OpenError> {
        let (segment, tail) = {
            let touched = self.segment(log, append);
            (touched.segment.clone(), touched.tail.clone())
        };
        if let Some(misfit) = misfit(log, &segment, append) {
            return Ok(Err(misfit));
        }
        let inline_end = u64::from(append.inline_at) + append.inline_len();
        if (frame.len() as u64) < inline_end {
            return Ok(Err("frame is cut short".into()));
        }
        let mut inline = frame.slice(append.inline_at as usize..inline_end as usize);
        let prefix = inline.split_to(append.prefix_len as usize);
        if crc32c::crc32c(&prefix) != append.prefix_crc {
            return Ok(Err("repeated bytes of the block do not match their crc".into()));
        }
        let head = inline.split_to((append.head().end - append.head().start) as usize);
        let bytes = if append.direct_len == 0 {
            head
        } else {
            let direct = match direct {
                Some(direct) => direct,
                None => ahead::read_direct(self.store, log, &segment, append).await,
            };
            match direct? {
                Err(reason) => return Ok(Err(reason)),
                Ok((file, direct)) => {
                    self.segment(log, append).file = Some(file);
                    let seam = append.position.saturating_sub(append.direct_from) as usize;
                    if seam > 0 && tail.as_deref().is_none_or(|tail| tail != &direct[..seam]) {
                        return Ok(Err(
                            "bytes before the share in its first block are not as they were".into()
                        ));
                    }
                    let mut joined = BytesMut::with_capacity(append.len as usize);
                    joined.extend_from_slice(&head);
                    joined.extend_from_slice(&direct[seam..]);
                    joined.extend_from_slice(&inline);
                    joined.freeze()
                }
            }
        };
        Ok(check_batches(append, &bytes).map(|batches| Verified { entry: *append, prefix, bytes, batches }))
    }

    /// Applies a verified share to its log, and keeps the bytes that have to be written.
    fn apply(&mut self, log: &Rc<LogInner<D>>, share: Verified) {
        let Verified { entry, prefix, bytes, batches } = share;
        self.bytes += bytes.len() as u64;
        let now_ms = self.now_ms;
        let touched = self.segment(log, &entry);
        let segment = touched.segment.clone();
        let mut state = log.state.borrow_mut();
        if state.segments.back().is_none_or(|last| last.base < segment.base) {
            state.segments.push_back(segment.clone());
        }
        for header in &batches {
            note(&mut state, &segment, header, now_ms);
            segment.end.set(segment.end.get() + header.total_len() as u64);
        }
        state.durable_offset = state.end_offset;
        drop(state);
        let before = pieces_bytes(&touched.pieces);
        if entry.direct_len > 0 {
            cut_pieces(&mut touched.pieces, entry.direct_from);
        }
        if !prefix.is_empty() {
            cut_pieces(&mut touched.pieces, entry.position - u64::from(entry.prefix_len));
            touched.pieces.push((entry.position - u64::from(entry.prefix_len), prefix.clone()));
        }
        for range in [entry.head(), entry.tail()] {
            if !range.is_empty() {
                let at = (range.start - entry.position) as usize..(range.end - entry.position) as usize;
                touched.pieces.push((range.start, part_of(&bytes, at)));
            }
        }
        let after = pieces_bytes(&touched.pieces);
        touched.tail = Some(tail_of(touched.tail.take(), &prefix, &bytes, &entry));
        self.pieces_bytes = self.pieces_bytes + after - before;
    }

    /// Writes what is left and makes everything stable that frames told of.
    pub(crate) async fn finish(mut self) -> Result<(), OpenError> {
        for (log, end) in self.damaged.iter().filter_map(|(id, end)| Some((self.by_id.get(id)?, *end))) {
            let mut state = log.state.borrow_mut();
            let reason = state.offline.take().map(|offline| offline.reason).unwrap_or_default();
            state.offline =
                Some(Offline::new(format_args!("{reason}; acknowledged was all up to offset {}", end - 1)));
        }
        self.write_pieces(true).await?;
        self.make_stable(|_| true).await
    }

    /// Flushes touched files, and the directories of those that may be new there.
    async fn make_stable(&self, which: impl Fn(&Touched<D>) -> bool) -> Result<(), OpenError> {
        let touched: Vec<_> =
            self.touched.values().filter(|touched| touched.file.is_some() && which(touched)).collect();
        let flush = async |touched: &Touched<D>| match &touched.file {
            Some(file) => file.sync_data().await.map_err(|error| of_file(self.refused, touched, error)),
            None => Ok(()),
        };
        all_done(stream::iter(touched.iter().copied()).map(flush).buffer_unordered(FILES_AT_ONCE)).await?;
        let new = touched.iter().filter(|touched| touched.is_new);
        let mut dirs: BTreeSet<_> = new.map(|touched| self.store.log_dir(&touched.log.name)).collect();
        if !dirs.is_empty() {
            dirs.insert(logs_dir(&self.store.dir));
        }
        let sync =
            async |dir: PathBuf| self.store.disk.sync_dir(&dir).await.map_err(OpenError::io(dir.display()));
        all_done(stream::iter(dirs).map(sync).buffer_unordered(FILES_AT_ONCE)).await
    }

    /// Writes pieces: all, or only whole blocks that no later frame touches.
    ///
    /// Pieces go over blocks that hold acknowledged bytes, and a block that is torn is made whole from the frames. So what
    /// those need to be valid once more is made stable first: a frame that lost a direct share after all would be dropped,
    /// and its image of a block with it.
    async fn write_pieces(&mut self, all: bool) -> Result<(), OpenError> {
        self.make_stable(|touched| touched.doubtful).await?;
        self.touched.values_mut().for_each(|touched| touched.doubtful = false);
        let deleted = |touched: &Touched<D>| {
            let state = touched.log.state.borrow();
            let end = state.segment_end_offset(touched.segment.base);
            let start = self.chain.start_offsets.get(&touched.log.id).copied().unwrap_or(0);
            end <= start || !state.segments.iter().any(|known| Rc::ptr_eq(known, &touched.segment))
        };
        let (store, refused) = (self.store, self.refused);
        let write = async |touched: &mut Touched<D>| {
            if deleted(touched) {
                touched.pieces.clear();
                return Ok(());
            }
            let limit = if all { u64::MAX } else { block_floor(touched.segment.end.get()) };
            let written = write_touched(store, touched, limit).await;
            written.map_err(|error| of_file(refused, touched, error))
        };
        all_done(stream::iter(self.touched.values_mut()).map(write).buffer_unordered(FILES_AT_ONCE)).await?;
        self.pieces_bytes = self.touched.values().map(|touched| pieces_bytes(&touched.pieces)).sum();
        Ok(())
    }
}

/// Waits for all steps, whatever fails: a replay may follow, which writes to the same files, and has to know all that were
/// refused. Gives the first error.
async fn all_done(mut steps: impl Stream<Item = Result<(), OpenError>> + Unpin) -> Result<(), OpenError> {
    let mut done = Ok(());
    while let Some(step) = steps.next().await {
        done = done.and(step);
    }
    done
}

/// A file that is written or flushed failed.
fn of_file<D: Disk>(refused: &Refused<D>, touched: &Touched<D>, error: std::io::Error) -> OpenError {
    renew::note(refused, (&touched.log, &touched.segment), &error);
    OpenError::io(touched.segment.path.display())(error)
}

/// What is wrong with a share's place in its log, if anything is.
fn misfit<D: Disk>(log: &LogInner<D>, segment: &Segment<D>, append: &AppendEntry) -> Option<String> {
    let state = log.state.borrow();
    let goes_on = match state.segments.back() {
        Some(last) if last.base == append.segment_base => segment.end.get() == append.position,
        Some(last) => last.base < append.segment_base && append.position == DATA_START,
        None => append.position == DATA_START,
    };
    if segment.life != append.life || !goes_on || append.first_offset < state.end_offset {
        return Some(format!("share does not continue the log at offset {}", state.end_offset));
    }
    None
}

/// Writes the segment's pieces below `limit` (a multiple of a block, or no limit).
async fn write_touched<D: Disk>(
    store: &Rc<StoreInner<D>>,
    touched: &mut Touched<D>,
    limit: u64,
) -> std::io::Result<()> {
    if touched.pieces.first().is_none_or(|(from, _)| *from >= limit) {
        return Ok(());
    }
    let file = open_or_make(store, touched).await?;
    touched.file = Some(file.clone());
    let pieces = std::mem::take(&mut touched.pieces);
    let mut block: Option<(u64, AlignedBuf)> = None;
    let mut left = pieces_bytes(&pieces);
    for (from, bytes) in pieces {
        let mut at = from;
        while at < from + bytes.len() as u64 {
            let start = (at - from) as usize;
            if at >= limit {
                // A slice would keep all that was read of the journal together.
                touched.pieces.push((at, Bytes::copy_from_slice(&bytes[start..])));
                break;
            }
            let joins =
                block.as_ref().is_some_and(|(from, data)| from + data.len() as u64 == at && data.room() > 0);
            if !joins {
                flush_block(&file, block.take()).await?;
                block = Some(begin_block(&file, at, left - start).await?);
            }
            let Some((_, data)) = block.as_mut() else { break };
            let len = (bytes.len() - start).min(data.room()).min((limit - at) as usize);
            data.extend_from_slice(&bytes[start..start + len]);
            at += len as u64;
        }
        left -= bytes.len();
    }
    flush_block(&file, block).await
}

/// A buffer for `len` bytes, or for the longest write, that begins at the block of `at`, with what the file has there before
/// `at`.
async fn begin_block<F: DiskFile>(file: &F, at: u64, len: usize) -> std::io::Result<(u64, AlignedBuf)> {
    let from = block_floor(at);
    let mut data = AlignedBuf::with_capacity(IO_BYTES_MAX.min((at - from) + len as u64) as usize);
    if at > from {
        let before = file.read_at(from, BLOCK).await?;
        let len = ((at - from) as usize).min(before.len());
        data.extend_from_slice(&before[..len]);
        data.extend_zeros((at - from) as usize - len);
    }
    Ok((from, data))
}

async fn flush_block<F: DiskFile>(file: &F, block: Option<(u64, AlignedBuf)>) -> std::io::Result<()> {
    let Some((from, mut data)) = block else { return Ok(()) };
    data.pad_to_block();
    file.write_at(data.freeze(), from).await
}

/// The segment's file, made anew if no byte of it was ever settled and it is not there.
async fn open_or_make<D: Disk>(store: &Rc<StoreInner<D>>, touched: &Touched<D>) -> std::io::Result<D::File> {
    let segment = &touched.segment;
    match store.files.get(&store.disk, &touched.log, segment).await {
        Ok(file) => Ok(file),
        Err(error) if segment.is_ready() => Err(std::io::Error::other(error.to_string())),
        Err(FileError::Io(error)) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Err(_) => {
            let len = block_ceil(segment.end.get());
            let file = new_file(store, &touched.log, segment, len).await?;
            segment.prepared_to.set(len);
            Ok(store.files.keep(segment, file))
        }
    }
}
