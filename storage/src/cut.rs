//! Taking records away: from the front (delete records, retention) and from the end (truncation).
//!
//! A new start is an entry of the journal. A truncation is a checkpoint of its own: the log takes no appends until a
//! checkpoint without the cut-off records is stable, so no frame ever has to be judged by what was cut after it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use penstock_format::BatchHeader;

use crate::bring_back::{before_cut, beside_stale, bring_all};
use crate::disk::{BLOCK, Disk};
use crate::error::{ReadError, StoreError};
use crate::frame::Entry;
use crate::index::SegmentIndex;
use crate::indexes::forget_file;
use crate::producer::{Producer, ProducerTable};
use crate::read::READ_BYTES_MAX;
use crate::retention::{RetentionRules, SegmentSummary, plan_deletion};
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, LogState, StoreInner};
use crate::walk::{Walk, appended};
use crate::writeback::{self, Hurry};

/// Pause before looking again at a segment that is read still.
const READ_PAUSE: Duration = Duration::from_millis(5);

/// Whether the log may be changed.
pub(crate) fn check_open<D: Disk>(store: &StoreInner<D>, state: &LogState<D>) -> Result<(), StoreError> {
    if let Some(offline) = store.is_offline().or_else(|| state.offline.clone()) {
        return Err(StoreError::Offline(offline));
    }
    if state.busy {
        return Err(StoreError::Busy);
    }
    if store.closing.get() || state.removed { Err(StoreError::Closed) } else { Ok(()) }
}

/// See [`crate::Log::delete_records`].
pub(crate) async fn delete_records<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    offset: i64,
) -> Result<i64, StoreError> {
    let seq = loop {
        let last = {
            let mut state = log.state.borrow_mut();
            check_open(store, &state)?;
            let (start, end) = (state.start_offset, state.written_offset());
            if offset > end || offset < 0 {
                return Err(StoreError::OutOfRange { start, end });
            }
            if offset <= start {
                // Perhaps another call moved it just now: then wait until that is stable.
                break store.pipeline.last_seq();
            }
            if offset <= state.durable_offset {
                break move_start(store, log, &mut state, offset)?;
            }
            store.pipeline.last_seq()
        };
        // Records that do not wait for their flush may yet be lost: a start beyond them would be none of the log's.
        store.pipeline.wait_durable(store, last).await?;
    };
    log.changed();
    store.pipeline.wait_durable(store, seq).await?;
    if let Some(offline) = log.refusal(seq) {
        return Err(StoreError::Offline(offline));
    }
    drop_segments(store, log);
    store.recycle.collect(store).await;
    let state = log.state.borrow();
    Ok(state.start_offset)
}

/// Moves the start in memory and in the running commit; gives the commit's number.
fn move_start<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    state: &mut LogState<D>,
    offset: i64,
) -> Result<u64, StoreError> {
    assert!(offset <= state.durable_offset, "only what is stable is deleted");
    if !store.pipeline.has_room(store, 0, 1) {
        return Err(StoreError::JournalFull);
    }
    state.start_offset = offset;
    state.epochs.truncate_start(offset);
    let seq = store.pipeline.add_entry(store, Entry::StartOffset { log_id: log.id, offset });
    state.start_seq = seq;
    Ok(seq)
}

/// Lets go of the segments that lie wholly before the start. The start is stable.
fn drop_segments<D: Disk>(store: &Rc<StoreInner<D>>, log: &Rc<LogInner<D>>) {
    let mut state = log.state.borrow_mut();
    if state.busy {
        return;
    }
    while let Some(front) = state.segments.front().cloned() {
        let end = state.segment_end_offset(front.base);
        // An empty one stays: the segment after it would have its name.
        if end > state.start_offset || end > state.durable_offset || front.base == end {
            break;
        }
        state.segments.pop_front();
        let next = state.segments.front().map_or(i64::MAX, |next| next.base);
        let freed = state.memory.drop_segments_below(next);
        store.uncached(freed);
        store.recycle.retire_deleted(store, front);
    }
}

/// Applies retention to one log; gives the commit to wait for, if its start moved.
pub(crate) fn retain<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    now_ms: i64,
    by_time: bool,
) -> Option<u64> {
    let mut state = log.state.borrow_mut();
    if check_open(store, &state).is_err() || state.segments.is_empty() {
        return None;
    }
    // Who deleted records may have given up before the new start was stable, and left the segments to us.
    let left = state.segments.front().is_some_and(|front| {
        let end = state.segment_end_offset(front.base);
        front.base < end && end <= state.start_offset
    });
    if left && state.start_seq <= store.pipeline.durable_seq.get() {
        drop(state);
        drop_segments(store, log);
        state = log.state.borrow_mut();
    }
    let rules = RetentionRules {
        retention_ms: if by_time { state.config.retention_ms } else { -1 },
        retention_bytes: state.config.retention_bytes,
        high_watermark: state.durable_offset,
    };
    if rules.retention_ms < 0 && rules.retention_bytes < 0 {
        return None;
    }
    let summary = |segment: &Rc<Segment<D>>| SegmentSummary {
        end_offset: state.segment_end_offset(segment.base),
        bytes: segment.size(),
        max_timestamp: segment.retention_timestamp(),
    };
    let segments: Vec<_> = state.segments.iter().map(summary).collect();
    let count = plan_deletion(&segments, &rules, now_ms);
    let offset = segments.get(count.checked_sub(1)?)?.end_offset;
    if offset <= state.start_offset {
        return None;
    }
    let seq = move_start(store, log, &mut state, offset).ok();
    drop(state);
    log.changed();
    seq
}

/// The moved start is stable: free what lies before it.
pub(crate) fn retained<D: Disk>(store: &Rc<StoreInner<D>>, log: &Rc<LogInner<D>>) {
    drop_segments(store, log);
}

/// See [`crate::Log::truncate`]. The work goes on to its end even if the caller gives up waiting.
pub(crate) async fn truncate<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    offset: i64,
) -> Result<i64, StoreError> {
    {
        let mut state = log.state.borrow_mut();
        check_open(store, &state)?;
        let (start, end) = (state.start_offset, state.end_offset);
        if offset < start {
            return Err(StoreError::OutOfRange { start, end });
        }
        if offset >= end {
            return Ok(end);
        }
        state.busy = true;
    }
    let slot = Rc::new(RefCell::new(None));
    let (worker, cut_log, outcome) = (store.clone(), log.clone(), slot.clone());
    store.spawn("truncation", async move {
        let result = cut(&worker, &cut_log, offset).await;
        if let Err(StoreError::Io(reason)) = &result {
            cut_log.fail(format_args!("truncation failed: {reason}"));
        }
        cut_log.state.borrow_mut().busy = false;
        *outcome.borrow_mut() = Some(result);
        cut_log.changed();
        worker.work.wake_all();
    });
    store.work.until(|| slot.borrow_mut().take()).await
}

async fn cut<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    offset: i64,
) -> Result<i64, StoreError> {
    store.pipeline.wait_durable(store, store.pipeline.last_seq()).await?;
    let unsettled =
        |other: &LogInner<D>| other.id == log.id && !log.has_failed() && writeback::has_unsettled(log);
    let hurry = Hurry::begin(&store.writeback);
    writeback::settle(store, unsettled).await?;
    if let Some(offline) = log.state.borrow().offline.clone() {
        return Err(StoreError::Offline(offline));
    }
    let mut dropped = cut_settled(store, log, offset, Cut::Asked).await?;
    log.cut_untold.set(true);
    let end_offset = log.state.borrow().end_offset;
    let active = log.state.borrow().segments.back().cloned();
    let forgotten = match active {
        Some(active) => forget_file(store, &active).await,
        None => Ok(()),
    };
    // Cleaning retired them, and their files have the names that new ones may get.
    dropped.extend(store.recycle.forget_from(store, &store.log_dir(&log.name), end_offset).await);
    let wanted = store.pipeline.request_checkpoint(store);
    store.pipeline.wait_checkpoint(store, wanted).await?;
    drop(hurry);
    log.cut_untold.set(false);
    for segment in dropped {
        // The next segment may begin at the same offset, with the same file name: readers must be done with this one.
        while Rc::strong_count(&segment) > 1 && !store.stopped.get() {
            store.disk.sleep(READ_PAUSE).await;
        }
        store.recycle.retire_cut(store, segment);
    }
    store.recycle.collect(store).await;
    // Told only now: the cut is done. The log takes no appends before the next start, which tries again.
    forgotten.map_err(|error| StoreError::Io(error.to_string()))?;
    Ok(log.state.borrow().end_offset)
}

/// What the segment that is cut will be.
struct Kept<D: Disk> {
    segment: Rc<Segment<D>>,
    end: u64,
    index: SegmentIndex,
    max_timestamp: (i64, i64),
}

impl<D: Disk> Kept<D> {
    /// A batch that cleaning left without records has a timestamp, and no record that has it.
    fn note_timestamp(&mut self, header: &BatchHeader) {
        if header.record_count > 0 && header.max_timestamp > self.max_timestamp.0 {
            self.max_timestamp = (header.max_timestamp, header.base_offset);
        }
    }
}

/// The producers as they were known when the log ended at an offset.
pub(crate) struct ProducersAt {
    pub offset: i64,
    /// Life of the segment that ended there, and the position.
    pub place: Option<(u64, u64)>,
    pub table: ProducerTable,
}

impl ProducersAt {
    /// Nothing was told. It is bounded when it takes the place of the log's.
    pub(crate) fn none() -> ProducersAt {
        ProducersAt { offset: 0, place: None, table: ProducerTable::new(usize::MAX) }
    }
}

/// What a log is cut for.
pub(crate) enum Cut {
    /// A truncation.
    Asked,
    /// Its rescue: what is not acknowledged goes. With producers as of an offset before the cut, if it has any that the cut
    /// concerns.
    Rescue(Option<ProducersAt>),
}

/// Cuts a settled log in memory; gives the segments that went. `Busy` if something else cut it meanwhile; one that
/// failed is cut only for its rescue.
pub(crate) async fn cut_settled<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    offset: i64,
    cut: Cut,
) -> Result<Vec<Rc<Segment<D>>>, StoreError> {
    let truncations = log.state.borrow().truncations;
    let rescuing = matches!(cut, Cut::Rescue(_));
    let (kept, end_offset) = match rescuing {
        false => look_at_cut(store, log, offset).await.map_err(into_io)?,
        true => (look_at_saved(store, log, offset).await.map_err(into_io)?, offset),
    };
    let (producers, stale) = cut_producers(store, log, end_offset, cut).await.map_err(into_io)?;
    let mut state = log.state.borrow_mut();
    if state.truncations != truncations {
        return Err(StoreError::Busy);
    }
    if let Some(offline) = state.offline.clone().filter(|_| !rescuing) {
        return Err(StoreError::Offline(offline));
    }
    let keep = state.segments.partition_point(|segment| segment.base < end_offset);
    let upcoming = state.upcoming.take();
    let dropped: Vec<_> = state.segments.drain(keep..).chain(upcoming).collect();
    let freed = state.memory.truncate(end_offset);
    store.uncached(freed);
    if let Some(kept) = kept {
        let segment = kept.segment;
        segment.end.set(kept.end);
        segment.max_timestamp.set(kept.max_timestamp);
        segment.image_seq.set(0);
        *segment.index.borrow_mut() = kept.index;
        segment.indexed_from.set(DATA_START);
        segment.index_stored.set(false);
        let block = crate::plan::block_floor(kept.end);
        let mut prefix = segment.prefix.borrow_mut();
        if let Some(prefix) = prefix.as_mut().filter(|prefix| prefix.block == block) {
            prefix.bytes.truncate((kept.end - block) as usize);
        } else {
            *prefix = None;
        }
        debug_assert!(prefix.as_ref().is_none_or(|prefix| prefix.bytes.len() < BLOCK));
    }
    state.end_offset = end_offset;
    state.start_offset = state.start_offset.min(end_offset);
    state.durable_offset = end_offset;
    state.cleaned_to = state.cleaned_to.min(end_offset);
    state.epochs.truncate_end(end_offset);
    if let Some(producers) = producers {
        state.producers.replace(producers.bounded(store.config.producers_per_log_max));
    }
    // What a rescue takes away no run tells of.
    if store.spiller.has_runs(store) && (stale || !rescuing) {
        let before = store.unique();
        state.cuts.add(before, end_offset);
        if stale {
            state.cuts.void_all(before);
        }
    }
    state.truncations += 1;
    store.read_ahead.forget_log(log.id);
    Ok(dropped)
}

/// The log's producers behind a cut, if it changes any, and whether runs tell of some as they were long before it.
async fn cut_producers<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    end_offset: i64,
    cut: Cut,
) -> Result<(Option<ProducerTable>, bool), ReadError> {
    let rescuing = matches!(cut, Cut::Rescue(_));
    if !rescuing {
        // Those on disk that the cut concerns are made anew with the others, and what the disk has of them is void.
        bring_all(store, log, |_, producer| producer.reaches(end_offset)).await;
    }
    if !log.state.borrow().producers.reaches(end_offset) {
        return Ok((None, false));
    }
    let told = match cut {
        Cut::Rescue(Some(told)) => told,
        _ => ProducersAt::none(),
    };
    // Of a truncation the log's headers tell, of a rescue those since the checkpoint: who was on disk then is known by runs.
    let spilled = if rescuing { before_cut(store, log, end_offset).await } else { BTreeMap::new() };
    let (mut producers, are_whole) = producers_before(store, log, end_offset, (told, spilled)).await?;
    // Also where the batches that told of them were deleted: what runs tell of them may be older.
    producers.keep_below(&log.state.borrow().producers, end_offset);
    if rescuing && are_whole {
        return Ok((Some(producers), false));
    }
    // Where it is not known how they stood at the cut, nothing older counts.
    let lost = lost_by(&log.state.borrow().producers, &producers, end_offset);
    let beside = beside_stale(store, log, end_offset, &lost).await;
    let stale = beside.is_some();
    for (id, known) in beside.into_iter().flatten() {
        producers.bring_back(id, known);
    }
    Ok((Some(producers), stale))
}

/// The producers that reach a cut, and of whom nothing is known after it.
fn lost_by(uncut: &ProducerTable, cut: &ProducerTable, end_offset: i64) -> BTreeSet<i64> {
    let reach = uncut.iter().filter(|(_, producer)| producer.reaches(end_offset));
    reach.map(|(id, _)| id).filter(|id| !cut.knows(*id)).collect()
}

fn into_io(error: ReadError) -> StoreError {
    StoreError::Io(error.to_string())
}

/// Reads the headers of the segment that holds `offset`, up to the cut; gives what stays of it, if anything does, and
/// the new end offset.
async fn look_at_cut<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    offset: i64,
) -> Result<(Option<Kept<D>>, i64), ReadError> {
    let (segment, interval) = {
        let state = log.state.borrow();
        let segment = state.segment_of(offset).filter(|segment| segment.base < offset).cloned();
        (segment, state.config.index_interval())
    };
    let Some(segment) = segment else { return Ok((None, offset)) };
    let mut end_offset = segment.base;
    let mut kept = Kept {
        index: SegmentIndex::new(segment.base, DATA_START),
        end: DATA_START,
        max_timestamp: (-1, -1),
        segment: segment.clone(),
    };
    let mut walk = Walk::new(log, &segment, DATA_START..segment.end.get());
    // What lies behind the cut goes, damaged or not.
    let (mut is_behind, mut by_one) = (false, false);
    while !walk.is_over() && !is_behind && end_offset < offset {
        let mut walked = Vec::new();
        let stepped = walk.step_before((store, log), &segment, by_one, &mut walked).await;
        for (position, header) in &walked {
            is_behind |= header.next_offset() > offset;
            if is_behind {
                break;
            }
            let batch = appended(*position, header);
            kept.index.note(&batch, interval);
            kept.end = batch.position + batch.len;
            end_offset = header.next_offset();
            kept.note_timestamp(header);
        }
        match stepped {
            Err(ReadError::Io(_)) if !by_one => by_one = true,
            Err(error) if !is_behind && end_offset < offset => return Err(error),
            _ => {}
        }
        store.disk.yield_now().await;
    }
    Ok(((kept.end > DATA_START).then_some(kept), end_offset))
}

/// Reads the headers of the segment before `offset`, which has just been saved and ends there. Damage that was in it before
/// was saved with it, and is passed over: the index knows less then.
async fn look_at_saved<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    offset: i64,
) -> Result<Option<Kept<D>>, ReadError> {
    let (segment, interval) = {
        let state = log.state.borrow();
        let segment = state.segment_of(offset).filter(|segment| segment.base < offset).cloned();
        (segment, state.config.index_interval())
    };
    let Some(segment) = segment else { return Ok(None) };
    let mut kept = Kept {
        index: SegmentIndex::new(segment.base, DATA_START),
        end: segment.end.get(),
        max_timestamp: (-1, -1),
        segment: segment.clone(),
    };
    let mut walk = Walk::new(log, &segment, DATA_START..kept.end);
    while !walk.is_over() {
        let mut walked = Vec::new();
        let stepped = walk.step((store, log), &segment, READ_BYTES_MAX, &mut walked).await;
        for (position, header) in &walked {
            kept.index.note(&appended(*position, header), interval);
            kept.note_timestamp(header);
        }
        match stepped {
            Ok(()) => {}
            Err(ReadError::Corrupt { .. }) if walk.pass((store, log), &segment).await? => {}
            Err(ReadError::Corrupt { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok((kept.end > DATA_START).then_some(kept))
}

/// The producers as the batches before `end_offset` tell, of which the first were `told` before, or by what was spilled. Where one of the others is
/// damaged, who has written at the end or behind it is forgotten: who is known by an older batch would have the next one
/// refused, and who is not known may begin anywhere. All others stay as they are, and so do transactions that are open. Says
/// besides whether none is damaged.
async fn producers_before<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    end_offset: i64,
    (told, mut spilled): (ProducersAt, BTreeMap<i64, Producer>),
) -> Result<(ProducerTable, bool), ReadError> {
    let (segments, seen): (Vec<_>, _) = {
        let state = log.state.borrow();
        let is_wanted = |segment: &&Rc<Segment<D>>| {
            segment.base < end_offset && state.segment_end_offset(segment.base) > told.offset
        };
        let segments = state.segments.iter().filter(is_wanted).cloned().collect();
        let seen: Vec<_> = state.producers.iter().map(|(id, producer)| (id, producer.last_seen_ms)).collect();
        (segments, seen)
    };
    let wanted = told.offset..end_offset;
    let mut producers = told.table;
    producers.keep_seen(&seen);
    spilled.retain(|id, known| producers.take_newer(*id, known));
    let mut are_whole = true;
    for segment in segments {
        let mut walk = Walk::new(log, &segment, DATA_START..segment.end.get());
        if let Some((_, position)) = told.place.filter(|(life, _)| *life == segment.life) {
            (walk.position, walk.due) = (position, told.offset);
        }
        let mut note = |header: &BatchHeader| {
            let known = seen.binary_search_by_key(&header.producer_id, |(id, _)| *id);
            if spilled.get(&header.producer_id).is_some_and(|known| known.tells_of(header)) {
                return;
            }
            if let (Ok(at), true) = (known, wanted.contains(&(header.next_offset() - 1))) {
                producers.record(header, seen[at].1);
            }
        };
        let is_whole = note_rest((store, log), (&segment, walk), end_offset, &mut note).await?;
        if !is_whole {
            producers = ProducerTable::new(usize::MAX);
            spilled.clear();
            are_whole = false;
        }
    }
    if !are_whole {
        producers.adopt(&log.state.borrow().producers, end_offset);
    }
    Ok((producers, are_whole))
}

/// Shows `note` the headers of the batches before `end_offset` that are left of a walk, up to the first that is damaged; says
/// whether there is none.
async fn note_rest<D: Disk>(
    (store, log): (&Rc<StoreInner<D>>, &Rc<LogInner<D>>),
    (segment, mut walk): (&Rc<Segment<D>>, Walk),
    end_offset: i64,
    note: &mut impl FnMut(&BatchHeader),
) -> Result<bool, ReadError> {
    let mut by_one = false;
    // One more step at the end: a batch behind a gap counts once what follows it was seen.
    while !walk.is_over() && walk.due <= end_offset {
        let (mut walked, due) = (Vec::new(), walk.due);
        let doubted = walk.is_in_doubt();
        let stepped = walk.step_before((store, log), segment, by_one, &mut walked).await;
        walked.iter().for_each(|(_, header)| note(header));
        let due = walked.last().map_or(due, |(_, header)| header.next_offset());
        let doubted = walk.is_in_doubt() || doubted && walked.is_empty();
        match stepped {
            Ok(()) => {}
            // It may lie behind the end.
            Err(ReadError::Io(_)) if !by_one => by_one = true,
            Err(ReadError::Io(_) | ReadError::Corrupt { .. }) if due >= end_offset => return Ok(!doubted),
            Err(ReadError::Corrupt { position, .. }) => {
                let (segment, log) = (segment.base, &*log.name);
                tracing::warn!(
                    log,
                    segment,
                    position,
                    "a batch is damaged: what it tells of its producer is lost"
                );
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        store.disk.yield_now().await;
    }
    Ok(true)
}
