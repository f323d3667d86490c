//! Appending: checks, offsets, segment roll, and the share in the running commit. Synchronous: the state of the log
//! changes in one step, in the order of the calls.

use std::rc::Rc;

use penstock_format::{BATCH_HEADER_LEN, Batch, BatchHeader, TimestampType};

use crate::commit::Share;
use crate::disk::Disk;
use crate::error::AppendError;
use crate::index::AppendedBatch;
use crate::log::{AppendContext, Appended, Origin, Ticket};
use crate::memory::Recent;
use crate::producer::{ProducedBatch, ProducerCheck};
use crate::producer_bound;
use crate::retention::{ActiveSegment, Incoming, RollRules, plan_roll};
use crate::segment::Segment;
use crate::state::{LogInner, LogState, StoreInner, add};

/// Shortest segments whose logs begin them apart from each other, in bytes.
const SPREAD_SEGMENT_BYTES_MIN: u64 = 4 << 20;

/// See [`crate::Log::append`].
pub(crate) fn append<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    batches: &mut [Batch],
    context: AppendContext,
) -> Result<Appended, AppendError> {
    let bytes = check_admission(store, log, batches, context.origin)?;
    let bytes_max = store.config.append_bytes_max();
    if bytes > bytes_max {
        return Err(AppendError::TooLarge { bytes, bytes_max });
    }
    if !store.pipeline.has_room(store, bytes, batches.len()) {
        return Err(AppendError::JournalFull);
    }
    append_admitted(store, log, batches, context)
}

/// Appends batches that the log and the journal can take.
pub(crate) fn append_admitted<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    batches: &mut [Batch],
    context: AppendContext,
) -> Result<Appended, AppendError> {
    let bytes = batches.iter().map(Batch::len).sum();
    producer_bound::check(store, log, batches, context.origin)?;
    let mut state = log.state.borrow_mut();
    if let Some(first) = check_producers(&state, batches, context.origin)? {
        return Ok(duplicate(store, &state, &first, batches));
    }
    if context.origin == Origin::Replica {
        check_contiguous(&state, batches)?;
    } else {
        assign(batches, state.end_offset, context.leader_epoch)?;
    }
    let (first, last) = (batches[0].header, batches[batches.len() - 1].header);
    let producers = state.producers.len();
    let seq = place_all(store, log, &mut state, batches, context.now_ms);
    let known = &store.levels.producers;
    known.set((known.get() + state.producers.len()).saturating_sub(producers));
    let appended = Appended {
        base_offset: first.base_offset,
        last_offset: last.last_offset(),
        append_time_ms: append_time(&last),
        log_start_offset: state.start_offset,
        ticket: Ticket(seq),
        duplicate: false,
    };
    let durable = state.config.is_durable();
    drop(state);
    add(&store.levels.unsettled_bytes, bytes);
    add(&store.levels.appended_bytes, bytes as u64);
    store.mark_dirty(log);
    if !durable {
        log.changed();
    }
    Ok(appended)
}

/// Whether the log takes appends now; gives the bytes of these.
pub(crate) fn check_admission<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    batches: &[Batch],
    origin: Origin,
) -> Result<usize, AppendError> {
    if let Some(offline) = store.is_offline() {
        return Err(AppendError::Offline(offline));
    }
    let state = log.state.borrow();
    if let Some(offline) = &state.offline {
        return Err(AppendError::Offline(offline.clone()));
    }
    if store.closing.get() || state.removed {
        return Err(AppendError::Closed);
    }
    if state.busy {
        return Err(AppendError::Busy);
    }
    if batches.is_empty() {
        return Err(AppendError::Empty);
    }
    // The broker's own logs go on: they have the journal, and the reserve.
    if store.refuses_clients() && origin != Origin::Coordinator {
        return Err(AppendError::DiskFull);
    }
    Ok(batches.iter().map(Batch::len).sum())
}

/// Judges sequences and epochs; gives the first batch's place if it was written before.
pub(crate) fn check_producers<D: Disk>(
    state: &LogState<D>,
    batches: &[Batch],
    origin: Origin,
) -> Result<Option<ProducedBatch>, AppendError> {
    for batch in batches {
        match origin {
            Origin::Client => {
                if let ProducerCheck::Duplicate(first) = state.producers.check(&batch.header)? {
                    return Ok(Some(first));
                }
            }
            Origin::Coordinator => state.producers.check_epoch(&batch.header)?,
            Origin::Replica => {}
        }
    }
    Ok(None)
}

/// The answer for batches written before: the offsets of the first time, durable with what is newest.
fn duplicate<D: Disk>(
    store: &StoreInner<D>,
    state: &LogState<D>,
    first: &ProducedBatch,
    batches: &[Batch],
) -> Appended {
    let log_append_time = batches[0].header.timestamp_type() == TimestampType::LogAppendTime;
    let newest = if first.last_offset < state.durable_offset { 0 } else { store.pipeline.last_seq() };
    Appended {
        base_offset: first.base_offset(),
        last_offset: first.last_offset,
        append_time_ms: if log_append_time { first.timestamp } else { -1 },
        log_start_offset: state.start_offset,
        ticket: Ticket(newest),
        duplicate: true,
    }
}

/// A leader's batches must follow each other and the log, with epochs that do not go back.
fn check_contiguous<D: Disk>(state: &LogState<D>, batches: &[Batch]) -> Result<(), AppendError> {
    let mut expected = state.end_offset;
    let mut latest = state.epochs.latest().map_or(-1, |latest| latest.epoch);
    for Batch { header, .. } in batches {
        let (found, epoch) = (header.base_offset, header.partition_leader_epoch);
        if found < expected
            || epoch < latest
            || header.last_offset_delta < 0
            || header.next_offset() == i64::MAX
        {
            return Err(AppendError::NotContiguous { expected, found, epoch });
        }
        (expected, latest) = (header.next_offset(), epoch);
    }
    Ok(())
}

fn assign(batches: &mut [Batch], end_offset: i64, leader_epoch: i32) -> Result<(), AppendError> {
    let mut next = end_offset;
    for Batch { header, .. } in batches {
        (header.base_offset, header.partition_leader_epoch) = (next, leader_epoch);
        if header.last_offset_delta < 0 || header.next_offset() == i64::MAX {
            return Err(AppendError::NotContiguous { expected: next, found: next, epoch: leader_epoch });
        }
        next = header.next_offset();
    }
    Ok(())
}

fn append_time(header: &BatchHeader) -> i64 {
    match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => -1,
    }
}

/// Puts the batches into segments, memory and the running commit; gives the commit of the last.
fn place_all<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    state: &mut LogState<D>,
    batches: &[Batch],
    now_ms: i64,
) -> u64 {
    let mut heads = store.heads.of(batches);
    let mut open: Option<Share<D>> = None;
    let mut seq = 0;
    for batch in batches {
        let segment = segment_for(store, log, state, batch, now_ms);
        let parts = [heads.split_to(BATCH_HEADER_LEN), batch.body.clone()];
        note(state, &segment, &batch.header, now_ms);
        let recent = Recent {
            base_offset: batch.header.base_offset,
            next_offset: batch.header.next_offset(),
            segment_base: segment.base,
            position: segment.end.get(),
            head: parts[0].clone(),
            body: parts[1].clone(),
        };
        segment.end.set(recent.end());
        add(&store.levels.cache_bytes, recent.cost());
        add(&store.levels.cached_batches, 1);
        state.memory.push(recent);
        store.cached.borrow_mut().push_back(log.clone());
        let to = segment.end.get();
        match &mut open {
            Some(share) if Rc::ptr_eq(&share.segment, &segment) => {
                (share.to, share.next_offset) = (to, batch.header.next_offset());
                share.batch_count += 1;
                share.parts.extend(parts);
            }
            _ => {
                let next = Share {
                    log: log.clone(),
                    from: to - batch.len() as u64,
                    to,
                    first_offset: batch.header.base_offset,
                    next_offset: batch.header.next_offset(),
                    batch_count: 1,
                    parts: parts.into(),
                    large: batch.len() > store.config.append_bytes_max(),
                    segment,
                };
                if let Some(full) = open.replace(next) {
                    store.pipeline.add_share(store, full);
                }
            }
        }
    }
    if let Some(last) = open {
        seq = store.pipeline.add_share(store, last);
    }
    seq
}

/// The active segment, or a new one where it is time to roll.
fn segment_for<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    state: &mut LogState<D>,
    batch: &Batch,
    now_ms: i64,
) -> Rc<Segment<D>> {
    let header = &batch.header;
    if let Some(active) = state.segments.back() {
        if !rolls(store, log.id, state, header, now_ms) {
            let prepared_to = active.prepared_to.get();
            if prepared_to > 0 && active.end.get() + batch.len() as u64 > prepared_to / 2 {
                store.extend(log, active, store.segment_bytes(state.config.segment_bytes));
            }
            return active.clone();
        }
        store.indexes.hold(active);
    }
    let segment = upcoming(store, log, state, (header.base_offset, now_ms));
    state.upcoming = None;
    state.segments.push_back(segment.clone());
    store.prepare(log, &segment);
    segment
}

/// Whether a batch that goes to the log's end begins a segment.
pub(crate) fn rolls<D: Disk>(
    store: &StoreInner<D>,
    log_id: u64,
    state: &LogState<D>,
    header: &BatchHeader,
    now_ms: i64,
) -> bool {
    let Some(active) = state.segments.back() else { return true };
    let rules = RollRules {
        segment_bytes: bytes_until_roll(log_id, active.base, store.segment_bytes(state.config.segment_bytes)),
        segment_ms: state.config.roll_ms(),
    };
    let incoming = Incoming {
        bytes: header.total_len() as u64,
        last_offset: header.last_offset(),
        max_timestamp: header.max_timestamp,
    };
    let current = ActiveSegment {
        base_offset: active.base,
        bytes: active.size(),
        first_timestamp: active.first_timestamp.get(),
        opened_ms: active.opened_ms,
        index_full: active.index.borrow().is_full(),
    };
    plan_roll(&current, &incoming, &rules, now_ms).is_some()
}

/// Bytes at which the segment at `base` is full. A log's first one is, by up to a half, the shorter the log's number says: logs that
/// are written to alike from their creation on would begin all their segments together for ever, and everybody would wait for as
/// many files at once. Where segments are so short that their ends matter more than their files, they are left as they are.
fn bytes_until_roll(log_id: u64, base: i64, segment_bytes: u64) -> u64 {
    /// Of the golden ratio: multiples of it, modulo 1, lie far from each other however many there are.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    if base > 0 || segment_bytes < SPREAD_SEGMENT_BYTES_MIN {
        return segment_bytes;
    }
    let part = u128::from(log_id.wrapping_mul(STEP));
    segment_bytes - ((u128::from(segment_bytes / 2) * part) >> u64::BITS) as u64
}

/// The segment that will begin at an offset: the one whose file is being made already, or a new one.
pub(crate) fn upcoming<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    state: &mut LogState<D>,
    (base_offset, now_ms): (i64, i64),
) -> Rc<Segment<D>> {
    if let Some(segment) = state.upcoming.take() {
        if segment.base == base_offset {
            state.upcoming = Some(segment.clone());
            return segment;
        }
        // The log went on without it.
        store.recycle.retire_cut(store, segment);
    }
    let segment = Segment::new(&store.log_dir(&log.name), base_offset, store.unique(), now_ms);
    state.upcoming = Some(segment.clone());
    segment
}

/// Takes note of a batch about to stand at the segment's end: index, timestamps, epoch, producer, end offset. Replay
/// does the same.
pub(crate) fn note<D: Disk>(
    state: &mut LogState<D>,
    segment: &Segment<D>,
    header: &BatchHeader,
    now_ms: i64,
) {
    let position = segment.end.get();
    let batch = AppendedBatch {
        base_offset: header.base_offset,
        position,
        len: header.total_len() as u64,
        max_timestamp: header.max_timestamp,
    };
    segment.index_stored.set(false);
    segment.index.borrow_mut().note(&batch, state.config.index_interval());
    if segment.size() == 0 {
        segment.first_timestamp.set(header.max_timestamp);
    }
    if header.max_timestamp > segment.max_timestamp.get().0 {
        segment.max_timestamp.set((header.max_timestamp, header.base_offset));
    }
    if header.partition_leader_epoch >= 0 {
        state.epochs.assign(header.partition_leader_epoch, header.base_offset);
    }
    state.producers.note(header, now_ms);
    state.end_offset = header.next_offset();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the log, its first segment has half its length at least, and no more than all of it.
    #[test]
    fn first_segments_end_in_their_second_half() {
        for bytes in [SPREAD_SEGMENT_BYTES_MIN, 8 << 20, 1 << 31] {
            for log_id in [0, 1, 2, 999, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
                let first = bytes_until_roll(log_id, 0, bytes);
                assert!((bytes / 2..=bytes).contains(&first), "{log_id}: {first} of {bytes}");
                assert_eq!(bytes_until_roll(log_id, 1, bytes), bytes, "later ones are full");
            }
            assert_eq!(bytes_until_roll(0, 0, bytes), bytes);
        }
        let small = SPREAD_SEGMENT_BYTES_MIN - 1;
        assert_eq!(bytes_until_roll(5, 0, small), small);
    }
}
