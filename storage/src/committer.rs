//! Drives commits: takes one after the other, prepares what its plan needs, writes it, flushes, acknowledges.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::commit::{Commit, InFlight, Parts, PlacedFrame, Share, Written};
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskFile};
use crate::frame::{AppendEntry, Entry, FrameHeader, HEADER_LEN, encode_meta, entry_len};
use crate::log::Ticket;
use crate::memory::copy_parts;
use crate::meter::CommitStep;
use crate::plan::{self, Plan, block_floor, plan};
use crate::segment::{BlockPrefix, Segment};
use crate::state::{LogInner, StoreInner, add};

/// Most bytes of a direct share copied and written at once: above what most shares have, and far below the largest.
const DIRECT_BYTES_AT_ONCE: u64 = 8 << 20;

/// A write of a commit.
struct Write<D: Disk> {
    file: D::File,
    data: Bytes,
    position: u64,
    /// What follows it.
    rest: Rest,
    /// Whose share it is; none for the frame.
    of: Option<OfLog<D>>,
}

/// Whose bytes are written.
type OfLog<D> = (Rc<LogInner<D>>, Rc<Segment<D>>);

/// Bytes of a share that are still to be copied: in `range` of its segment.
#[derive(Default)]
struct Rest {
    /// Where the parts begin in the segment.
    from: u64,
    parts: Parts,
    range: std::ops::Range<u64>,
}

/// Takes and writes commits until the store stops.
pub(crate) async fn run_committer<D: Disk>(store: Rc<StoreInner<D>>) {
    loop {
        let next = || match store.pipeline.take(&store) {
            Some(commit) => Some(Some(commit)),
            None => store.stopped.get().then_some(None),
        };
        let Some(mut commit) = store.pipeline.work.until(next).await else { return };
        loop {
            if ready(&store, &commit).await.is_none() {
                return;
            }
            store.journal.reserve(&store, commit.seq, commit.frame_len_max as u64).await;
            if store.stopped.get() {
                return;
            }
            if commit.shares.iter().all(|share| has_file_if_needed(&store, share)) {
                break;
            }
        }
        commit.shares.retain(|share| !share.log.has_failed());
        let writes = place(&store, &commit);
        let seq = commit.seq;
        add(&store.pipeline.writing, 1);
        let writer = store.clone();
        store.spawn("commit writer", async move { write(&writer, seq, writes).await });
    }
}

/// Whether the share can do without its file, or has it open still: others may have been opened while the journal was
/// waited for.
fn has_file_if_needed<D: Disk>(store: &StoreInner<D>, share: &Share<D>) -> bool {
    !share.large || share.log.has_failed() || store.files.opened(&share.segment).is_some()
}

/// Makes sure of what planning needs: open files for large shares, and the beginning of the block each share begins in.
/// `None` if the store stopped.
async fn ready<D: Disk>(store: &Rc<StoreInner<D>>, commit: &Commit<D>) -> Option<()> {
    let cold = |share: &&Share<D>| {
        let from = block_floor(share.from);
        let large = (share.to - share.from) as usize >= store.config.direct_bytes_min;
        let sound = !share.log.has_failed();
        (sound && !has_bytes(&share.log, &share.segment, from..share.from))
            || (sound && large && share.segment.is_ready() && store.files.opened(&share.segment).is_none())
    };
    let cold: Vec<_> = commit.shares.iter().filter(cold).collect();
    if cold.is_empty() {
        return Some(());
    }
    let load = async |share: &Share<D>| {
        let segment = &share.segment;
        let file = store.file_for_writing(&share.log, segment).await;
        let block = block_floor(share.from);
        if has_bytes(&share.log, segment, block..share.from) {
            return;
        }
        let Some(file) = file else { return };
        let len = (share.from - block) as usize;
        let read = || async {
            let read = file.read_at(block, BLOCK).await?;
            read.get(..len).map(<[u8]>::to_vec).ok_or_else(|| std::io::Error::other("file is too short"))
        };
        let read = store.retry_for_log((&share.log, segment), "reading its last block", read).await;
        if let Some(bytes) = read {
            *segment.prefix.borrow_mut() = Some(BlockPrefix { block, bytes });
        }
    };
    join_all(cold.into_iter().map(load)).await;
    (!store.stopped.get()).then_some(())
}

/// Whether the segment's bytes `range`, within one block, are in memory.
fn has_bytes<D: Disk>(log: &LogInner<D>, segment: &Segment<D>, range: std::ops::Range<u64>) -> bool {
    if range.is_empty() {
        return true;
    }
    let in_memory = log.state.borrow().memory.start_in(segment.base).unwrap_or(u64::MAX);
    let prefix = segment.prefix.borrow();
    let known = prefix
        .as_ref()
        .filter(|prefix| prefix.block == block_floor(range.start))
        .map_or(range.start, |prefix| prefix.block + prefix.bytes.len() as u64);
    in_memory <= range.start || known >= range.end || in_memory <= known
}

/// Adds the segment's bytes `range` to `out`, from memory and the block kept before it; see [`has_bytes`].
pub(crate) fn copy_bytes<D: Disk>(
    log: &LogInner<D>,
    segment: &Segment<D>,
    range: std::ops::Range<u64>,
    out: &mut AlignedBuf,
) {
    if range.is_empty() {
        return;
    }
    let state = log.state.borrow();
    let in_memory = state.memory.start_in(segment.base).unwrap_or(u64::MAX);
    let mut from = range.start;
    if in_memory > from {
        let prefix = segment.prefix.borrow();
        let prefix = prefix.as_ref().expect("bytes before those in memory are kept");
        let to = range.end.min(prefix.block + prefix.bytes.len() as u64);
        out.extend_from_slice(&prefix.bytes[(from - prefix.block) as usize..(to - prefix.block) as usize]);
        from = to;
    }
    if from < range.end {
        state.memory.copy(segment.base, from, range.end, out);
    }
}

/// Plans the commit, takes its place in the journal, and gathers its bytes. No await: plan and place belong together.
fn place<D: Disk>(store: &Rc<StoreInner<D>>, commit: &Commit<D>) -> Vec<Write<D>> {
    store.writeback.inline.note(commit.bytes);
    let direct_bytes_min = direct_bytes_min(store, commit);
    let plans: Vec<_> =
        commit.shares.iter().map(|share| plan_share(store, (commit.seq, direct_bytes_min), share)).collect();
    let mut meta_len = HEADER_LEN + commit.others.iter().map(entry_len).sum::<usize>();
    meta_len += commit.shares.len() * crate::frame::APPEND_ENTRY_LEN;
    let inline: u64 = plans.iter().map(|(share, plan)| plan.prefix_len + plan.inline_len(share)).sum();
    let len = meta_len + inline as usize;
    let padded = len.next_multiple_of(BLOCK);
    let (number, journal_file, position) =
        store.journal.place(commit.seq, padded as u64, commit.bytes as u64);

    let mut frame = AlignedBuf::with_capacity(padded);
    frame.extend_zeros(meta_len);
    let mut entries = commit.others.clone();
    let mut writes = Vec::with_capacity(commit.shares.len() + 1);
    let mut shares = Vec::with_capacity(commit.shares.len());
    for (share, (_, plan)) in commit.shares.iter().zip(&plans) {
        entries.push(Entry::Append(gather_inline(share, plan, &mut frame)));
        let mut direct = None;
        if !plan.direct.is_empty() {
            let file = store.files.opened(&share.segment).expect("large shares wait for their file");
            direct = Some(file.clone());
            let (data, rest) = gather_direct(share, plan);
            add(&store.levels.direct_bytes, plan.direct.end - plan.direct.start);
            let of = Some((share.log.clone(), share.segment.clone()));
            writes.push(Write { file, data, position: plan.direct.start, rest, of });
            share.segment.pending.borrow_mut().place_direct(share.from, plan.direct.clone(), commit.seq);
        }
        shares.push(written_share(share, direct));
    }
    let header = FrameHeader {
        run: store.run,
        seq: commit.seq,
        durable_seq: store.pipeline.durable_seq.get(),
        len: len as u32,
        meta_len: meta_len as u32,
        entry_count: entries.len() as u32,
    };
    store.pipeline.told_seq.set(header.durable_seq);
    frame[..meta_len].copy_from_slice(&encode_meta(&header, &entries));
    assert_eq!(frame.len(), len, "the frame is what was planned");
    frame.pad_to_block();
    add(&store.levels.journal_bytes, padded as u64);
    let data = frame.freeze();
    let frame =
        PlacedFrame { number, file: journal_file.clone(), position, header, entries, data: data.clone() };
    writes.push(Write { file: journal_file, data, position, rest: Rest::default(), of: None });
    store.pipeline.in_flight.borrow_mut().push_back(InFlight {
        seq: commit.seq,
        written: false,
        shares,
        frame,
    });
    writes
}

fn written_share<D: Disk>(share: &Share<D>, direct: Option<D::File>) -> Written<D> {
    let (log, segment) = (share.log.clone(), share.segment.clone());
    Written { log, segment, next_offset: share.next_offset, direct }
}

/// Shares of at least so many bytes go straight to their segments.
fn direct_bytes_min<D: Disk>(store: &StoreInner<D>, commit: &Commit<D>) -> u64 {
    let may_be_inline = !commit.shares.iter().any(|share| share.large);
    if may_be_inline && store.goes_inline(commit.bytes) {
        u64::MAX
    } else {
        store.config.direct_bytes_min as u64
    }
}

fn plan_share<D: Disk>(
    store: &StoreInner<D>,
    (seq, direct_bytes_min): (u64, u64),
    share: &Share<D>,
) -> (plan::Share, Plan) {
    let segment = &share.segment;
    let image_seq = segment.image_seq.get();
    let image_live = image_seq >= store.pipeline.live_from(seq);
    let image_stable = !segment.image_repeats.get() || image_seq <= store.pipeline.durable_seq.get();
    let open = store.files.opened(segment).is_some();
    let input = plan::Share {
        from: share.from,
        to: share.to,
        prepared_to: if open { segment.prepared_to.get() } else { 0 },
        image_live,
        rewritable_from: if image_stable { segment.writeback_to.get() } else { u64::MAX },
    };
    let plan = plan(&input, direct_bytes_min);
    if plan.image_begins {
        segment.image_seq.set(seq);
        segment.image_repeats.set(plan.prefix_len > 0 && block_floor(share.to) < share.from);
    }
    (input, plan)
}

/// Puts the share's inline bytes into the frame.
fn gather_inline<D: Disk>(share: &Share<D>, plan: &Plan, frame: &mut AlignedBuf) -> AppendEntry {
    let inline_at = frame.len();
    copy_bytes(&share.log, &share.segment, share.from - plan.prefix_len..share.from, frame);
    let mut entry = AppendEntry {
        log_id: share.log.id,
        segment_base: share.segment.base,
        life: share.segment.life,
        position: share.from,
        len: (share.to - share.from) as u32,
        batch_count: share.batch_count,
        digest: share.parts.iter().step_by(2).fold(0, |crc, head| crc32c::crc32c_append(crc, head)),
        first_offset: share.first_offset,
        next_offset: share.next_offset,
        direct_from: plan.direct.start,
        direct_len: (plan.direct.end - plan.direct.start) as u32,
        prefix_len: plan.prefix_len as u32,
        prefix_crc: crc32c::crc32c(&frame[inline_at..]),
        inline_at: inline_at as u32,
    };
    if plan.direct.is_empty() {
        entry.direct_from = 0;
    }
    copy_parts(share.from, &share.parts, entry.head(), frame);
    copy_parts(share.from, &share.parts, entry.tail(), frame);
    entry
}

/// The whole blocks that go straight to the segment: the first of them, and what is left for later.
fn gather_direct<D: Disk>(share: &Share<D>, plan: &Plan) -> (Bytes, Rest) {
    let direct = &plan.direct;
    let first_end = direct.end.min(direct.start + DIRECT_BYTES_AT_ONCE);
    let mut data = AlignedBuf::with_capacity((first_end - direct.start) as usize);
    copy_bytes(&share.log, &share.segment, direct.start..share.from.max(direct.start), &mut data);
    copy_parts(share.from, &share.parts, share.from.max(direct.start)..first_end, &mut data);
    let rest = if first_end < direct.end {
        Rest { from: share.from, parts: share.parts.clone(), range: first_end..direct.end }
    } else {
        Rest::default()
    };
    (data.freeze(), rest)
}

/// Carries out a commit's writes.
async fn write<D: Disk>(store: &Rc<StoreInner<D>>, seq: u64, writes: Vec<Write<D>>) {
    let all = async {
        let all = join_all(writes.into_iter().map(|write| write_one(store, write))).await;
        all.into_iter().all(|written| written.is_some())
    };
    let all = store.metered(CommitStep::Write, Ticket(seq), all).await;
    store.pipeline.writing.set(store.pipeline.writing.get() - 1);
    if all {
        let mut in_flight = store.pipeline.in_flight.borrow_mut();
        let commit = in_flight.iter_mut().find(|commit| commit.seq == seq);
        commit.expect("a commit stays until it is stable").written = true;
    }
    store.pipeline.work.wake_all();
}

/// A failure to write a share takes its log offline, and the commit goes on without it; one to write the frame takes the
/// store. `None` if the store stopped.
async fn write_one<D: Disk>(store: &Rc<StoreInner<D>>, mut write: Write<D>) -> Option<()> {
    match write.of.take() {
        None => {
            let Write { file, data, position, .. } = write;
            store.retry_no_space("writing a commit", || file.write_at(data.clone(), position)).await
        }
        Some((log, segment)) => {
            let written = write_share(store, write, (&log, &segment)).await;
            (written.is_some() || !store.stopped.get()).then_some(())
        }
    }
}

async fn write_share<D: Disk>(
    store: &Rc<StoreInner<D>>,
    write: Write<D>,
    of: (&LogInner<D>, &Segment<D>),
) -> Option<()> {
    let Write { file, data, position, rest, .. } = write;
    let written = store.retry_for_log(of, "writing a commit", || file.write_at(data.clone(), position)).await;
    of.1.wrote(position);
    written?;
    drop(data);
    let mut from = rest.range.start;
    while from < rest.range.end {
        let to = rest.range.end.min(from + DIRECT_BYTES_AT_ONCE);
        let mut data = AlignedBuf::with_capacity((to - from) as usize);
        copy_parts(rest.from, &rest.parts, from..to, &mut data);
        let data = data.freeze();
        let written = store.retry_for_log(of, "writing a commit", || file.write_at(data.clone(), from)).await;
        of.1.wrote(from);
        written?;
        from = to;
    }
    Some(())
}

/// Flushes written commits and acknowledges them, until the store stops.
pub(crate) async fn run_flusher<D: Disk>(store: Rc<StoreInner<D>>) {
    loop {
        let next = || match written(&store) {
            0 => store.stopped.get().then_some(0),
            count => Some(count),
        };
        let count = store.pipeline.work.until(next).await;
        if count == 0 || store.is_offline().is_some() {
            return;
        }
        store.pipeline.flushing.set(count);
        store.pipeline.work.wake_all();
        let last = Ticket(store.pipeline.in_flight.borrow()[count - 1].seq);
        let stable = async { make_stable(&store, count).await.is_some() };
        if !store.metered(CommitStep::Flush, last, stable).await {
            return;
        }
        acknowledge(&store, count);
    }
}

/// Makes the first `count` commits in flight stable, without the shares of logs that fail. `None` if the store stopped.
async fn make_stable<D: Disk>(store: &Rc<StoreInner<D>>, count: usize) -> Option<()> {
    let failed = || store.pipeline.in_flight.borrow().range(..count).any(InFlight::has_failed);
    loop {
        while failed() {
            strip_last(store).await?;
        }
        flush(store, count).await?;
        if !failed() {
            return Some(());
        }
    }
}

/// Takes the shares of failed logs out of the last commit in flight that has any, for good. The last first: were a share
/// found in a frame after one that it was taken out of, the log would have a gap.
async fn strip_last<D: Disk>(store: &Rc<StoreInner<D>>) -> Option<()> {
    let written = || {
        let in_flight = store.pipeline.in_flight.borrow();
        let written = in_flight.iter().filter(|commit| commit.has_failed()).all(|commit| commit.written);
        (written || store.stopped.get()).then_some(())
    };
    store.pipeline.work.until(written).await;
    let frame = {
        let mut in_flight = store.pipeline.in_flight.borrow_mut();
        let last = in_flight.iter_mut().rev().find(|commit| commit.has_failed());
        last.map(|commit| {
            commit.strip();
            (commit.frame.file.clone(), commit.frame.data.clone(), commit.frame.position)
        })
    };
    let Some((file, data, position)) = frame.filter(|_| !store.stopped.get()) else {
        return (!store.stopped.get()).then_some(());
    };
    let again = || file.write_at(data.clone(), position);
    store.retry_no_space("writing a commit again", again).await?;
    flush_journal(store, &file).await
}

async fn flush_journal<D: Disk>(store: &StoreInner<D>, file: &D::File) -> Option<()> {
    let flushed = file.sync_data().await;
    flushed.map_err(|error| store.fail(format_args!("flush of the journal failed: {error}"))).ok()
}

/// Flushes the files that the first `count` commits in flight were written to.
async fn flush<D: Disk>(store: &Rc<StoreInner<D>>, count: usize) -> Option<()> {
    let (mut journal, mut segments) = (BTreeMap::new(), BTreeMap::new());
    for commit in store.pipeline.in_flight.borrow().range(..count) {
        journal.insert(commit.frame.number, commit.frame.file.clone());
        let direct = commit.shares.iter().filter_map(|share| Some((share, share.direct.clone()?)));
        segments.extend(direct.map(|(share, file)| (share.segment.life, (share.log.clone(), file))));
    }
    let frames = join_all(journal.values().map(async |file| flush_journal(store, file).await));
    let shares = segments.iter().map(async |(life, (log, file))| store.flush_segment(log, *life, file).await);
    futures_util::future::join(frames, join_all(shares)).await;
    add(&store.levels.flushes, 1);
    store.is_offline().is_none().then_some(())
}

/// Commits at the front of those in flight that are written.
fn written<D: Disk>(store: &StoreInner<D>) -> usize {
    store.pipeline.in_flight.borrow().iter().take_while(|commit| commit.written).count()
}

/// The first `count` commits in flight are stable.
fn acknowledge<D: Disk>(store: &Rc<StoreInner<D>>, count: usize) {
    let done: Vec<_> = store.pipeline.in_flight.borrow_mut().drain(..count).collect();
    store.pipeline.flushing.set(0);
    add(&store.levels.commits, count as u64);
    let Some(seq) = done.last().map(|commit| commit.seq) else { return };
    store.pipeline.set_durable(seq);
    let redo_floor = store.pipeline.redo_floor.get();
    for commit in &done {
        for Written { log, segment, next_offset, .. } in &commit.shares {
            let settled = segment.pending.borrow_mut().commit(seq, redo_floor);
            store.settled(settled);
            segment.trim_prefix();
            let mut state = log.state.borrow_mut();
            state.durable_offset = state.durable_offset.max(*next_offset);
        }
    }
    for Written { log, .. } in done.iter().flat_map(|commit| &commit.shares) {
        log.changed();
    }
    store.pipeline.work.wake_all();
    if store.wants_writeback() {
        store.work.wake_all();
    }
    if store.wants_checkpoint() {
        store.pipeline.request_checkpoint(store);
    }
    store.evict();
}
