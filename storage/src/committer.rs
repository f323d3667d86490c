//! Drives commits: takes one after the other, prepares what its plan needs, writes it, flushes, acknowledges.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::commit::{Commit, FileKey, InFlight, Share, Written};
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
}

/// Bytes of a share that are still to be copied: in `range` of its segment.
#[derive(Default)]
struct Rest {
    /// Where the parts begin in the segment.
    from: u64,
    parts: Vec<Bytes>,
    range: std::ops::Range<u64>,
}

/// Takes and writes commits until the store stops.
pub(crate) async fn run_committer<D: Disk>(store: Rc<StoreInner<D>>) {
    loop {
        let next = || match store.pipeline.take(&store) {
            Some(commit) => Some(Some(commit)),
            None => store.stopped.get().then_some(None),
        };
        let Some(commit) = store.pipeline.work.until(next).await else { return };
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
    !share.large || store.files.opened(&share.segment).is_some()
}

/// Makes sure of what planning needs: open files for large shares, and the beginning of the block each share begins in.
/// `None` if the store stopped.
async fn ready<D: Disk>(store: &Rc<StoreInner<D>>, commit: &Commit<D>) -> Option<()> {
    let cold = |share: &&Share<D>| {
        let from = block_floor(share.from);
        let large = (share.to - share.from) as usize >= store.config.direct_bytes_min;
        !has_bytes(&share.log, &share.segment, from..share.from)
            || (large && share.segment.is_ready() && store.files.opened(&share.segment).is_none())
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
        let fail = |error: &str| {
            store.fail(format_args!("log {}, segment {}: {error}", share.log.name, segment.base));
        };
        match file.read_at(block, BLOCK).await.as_deref().map(|bytes| bytes.get(..len)) {
            Ok(Some(bytes)) => {
                *segment.prefix.borrow_mut() = Some(BlockPrefix { block, bytes: bytes.to_vec() });
            }
            Ok(None) => fail("file is too short"),
            Err(error) => fail(&error.to_string()),
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
    let plans: Vec<_> = commit.shares.iter().map(|share| plan_share(store, commit.seq, share)).collect();
    let mut meta_len = HEADER_LEN + commit.others.iter().map(entry_len).sum::<usize>();
    meta_len += commit.shares.len() * crate::frame::APPEND_ENTRY_LEN;
    let inline: u64 = plans.iter().map(|(share, plan)| plan.prefix_len + plan.inline_len(share)).sum();
    let len = meta_len + inline as usize;
    let padded = len.next_multiple_of(BLOCK);
    let (number, journal_file, position) = store.journal.place(commit.seq, padded as u64);

    let mut frame = AlignedBuf::with_capacity(padded);
    frame.extend_zeros(meta_len);
    let mut entries = commit.others.clone();
    let mut writes = Vec::with_capacity(commit.shares.len() + 1);
    let mut touched = vec![(FileKey::Journal(number), journal_file.clone())];
    for (share, (_, plan)) in commit.shares.iter().zip(&plans) {
        entries.push(Entry::Append(gather_inline(share, plan, &mut frame)));
        if !plan.direct.is_empty() {
            let file = store.files.opened(&share.segment).expect("large shares wait for their file");
            touched.push((FileKey::Segment(share.segment.life), file.clone()));
            let (data, rest) = gather_direct(share, plan);
            add(&store.levels.direct_bytes, plan.direct.end - plan.direct.start);
            writes.push(Write { file, data, position: plan.direct.start, rest });
            share.segment.pending.borrow_mut().place_direct(share.from, plan.direct.clone(), commit.seq);
        }
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
    writes.push(Write { file: journal_file, data: frame.freeze(), position, rest: Rest::default() });
    let shares = commit.shares.iter().map(written_share).collect();
    store.pipeline.in_flight.borrow_mut().push_back(InFlight {
        seq: commit.seq,
        written: false,
        shares,
        touched,
    });
    writes
}

fn written_share<D: Disk>(share: &Share<D>) -> Written<D> {
    Written { log: share.log.clone(), segment: share.segment.clone(), next_offset: share.next_offset }
}

fn plan_share<D: Disk>(store: &StoreInner<D>, seq: u64, share: &Share<D>) -> (plan::Share, Plan) {
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
    let plan = plan(&input, store.config.direct_bytes_min as u64);
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

/// `None` if the store stopped.
async fn write_one<D: Disk>(store: &Rc<StoreInner<D>>, write: Write<D>) -> Option<()> {
    let Write { file, data, position, rest } = write;
    store.retry_no_space("writing a commit", || file.write_at(data.clone(), position)).await?;
    drop(data);
    let mut from = rest.range.start;
    while from < rest.range.end {
        let to = rest.range.end.min(from + DIRECT_BYTES_AT_ONCE);
        let mut data = AlignedBuf::with_capacity((to - from) as usize);
        copy_parts(rest.from, &rest.parts, from..to, &mut data);
        let data = data.freeze();
        store.retry_no_space("writing a commit", || file.write_at(data.clone(), from)).await?;
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
        let (files, last): (BTreeMap<FileKey, D::File>, Ticket) = {
            let in_flight = store.pipeline.in_flight.borrow();
            let files = in_flight.range(..count).flat_map(|commit| commit.touched.iter().cloned()).collect();
            (files, Ticket(in_flight[count - 1].seq))
        };
        let flush = async |(key, file): (&FileKey, &D::File)| match key {
            FileKey::Segment(life) => store.flush_segment(*life, file).await.is_ok(),
            FileKey::Journal(_) => {
                let flushed = file.sync_data().await;
                flushed
                    .map_err(|error| store.fail(format_args!("flush of the journal failed: {error}")))
                    .is_ok()
            }
        };
        let all = async {
            join_all(files.iter().map(flush)).await;
            store.is_offline().is_none()
        };
        let all = store.metered(CommitStep::Flush, last, all).await;
        add(&store.levels.flushes, 1);
        if !all {
            return;
        }
        acknowledge(&store, count);
    }
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
    for commit in &done {
        for Written { log, segment, next_offset } in &commit.shares {
            let settled = segment.pending.borrow_mut().commit(seq);
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
