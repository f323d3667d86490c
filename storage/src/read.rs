//! Reading: from memory where the batches are, else from the segment in aligned pieces, every batch checked.
//!
//! What is in memory reaches from some batch to the log's end, and everything not settled is in it. So what is below
//! the first batch in memory is settled in segment files, and a read of those needs no lock: it holds the segment,
//! whose file is not reused meanwhile, and notices a truncation.

use std::rc::Rc;

use bytes::Bytes;
use penstock_format::{BATCH_HEADER_LEN, Batch, BatchHeader};

use crate::cold::{Cold, read_cold};
use crate::disk::{BLOCK, Disk, DiskFile};
use crate::error::ReadError;
use crate::files::FileError;
use crate::indexes::whole_index;
use crate::log::ReadBatches;
use crate::plan::{block_ceil, block_floor};
use crate::prepare::passes;
use crate::read_ahead;
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, LogState, StoreInner};

/// Longest cold read in bytes, but for a single larger batch.
pub(crate) const READ_BYTES_MAX: u64 = 1 << 20;
/// Shortest: an index entry names a batch within about this distance.
pub(crate) const READ_BYTES_MIN: u64 = 32 << 10;

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub from: i64,
    pub bytes_max: usize,
    /// Exclusive.
    pub upper: i64,
    pub at_least_one: bool,
    /// A client waits for it: where the device cannot give it the log goes offline.
    pub for_client: bool,
    /// One of many reads from end to end, perhaps: it may be read ahead of.
    pub in_order: bool,
}

impl Wanted {
    /// Whether a batch may join `bytes` bytes of others.
    pub(crate) fn takes(&self, bytes: usize, next_offset: i64, len: usize) -> bool {
        next_offset <= self.upper && (bytes + len <= self.bytes_max || (bytes == 0 && self.at_least_one))
    }
}

/// See [`crate::Log::read`].
pub(crate) async fn read<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    wanted: &Wanted,
) -> Result<ReadBatches, ReadError> {
    // Where no batch holds the offset wanted, the one behind it is.
    let mut from = wanted.from;
    loop {
        let cold = {
            let state = log.state.borrow();
            let bounded = check(store, &state, &Wanted { from, ..*wanted })?;
            let takes_none = bounded.bytes_max == 0 && !bounded.at_least_one;
            if bounded.from >= bounded.upper || takes_none {
                break;
            }
            let found = from_memory(&state, &bounded);
            if found.is_some() && bounded.in_order {
                store.read_ahead.caught_up(log.id, wanted.from);
            }
            match found {
                Some(found) if found.bytes > 0 => return Ok(found),
                Some(_) => break,
                None => find_cold(&state, from),
            }
        };
        let Some(mut cold) = cold else { break };
        let reading = wanted.in_order.then(|| store.read_ahead.begins(log.id, wanted.from));
        let known = cold.segment.indexed_from.get() == DATA_START;
        if !known && cold.limit - DATA_START > store.config.index_worth_bytes {
            whole_index(store, log, &cold.segment).await?;
            if let Some(found) = cold.segment.index.borrow().floor_of_offset(from) {
                (cold.position, cold.offset) = (found.position, found.base_offset);
            }
        }
        let outcome = read_cold(store, log, &cold, &Wanted { from, ..*wanted }).await;
        let state = log.state.borrow();
        if state.truncations != cold.truncations || cold.segment.retired.get() {
            from = wanted.from;
            continue; // The log changed under the read: look again.
        }
        match outcome? {
            Some(found) if found.bytes > 0 => {
                drop(state);
                drop(reading);
                if wanted.in_order {
                    read_ahead::went(store, log, wanted.from..found.next_offset);
                }
                return Ok(found);
            }
            None if cold.limit_offset > from => from = cold.limit_offset,
            _ => break,
        }
    }
    Ok(nothing(wanted))
}

/// Nothing found.
pub(crate) fn nothing(wanted: &Wanted) -> ReadBatches {
    ReadBatches { slices: Vec::new(), bytes: 0, first_offset: -1, next_offset: wanted.from }
}

/// Checks health and range; gives what is wanted, bounded by the log's end.
fn check<D: Disk>(store: &StoreInner<D>, state: &LogState<D>, wanted: &Wanted) -> Result<Wanted, ReadError> {
    if let Some(offline) = state.offline.clone().or_else(|| store.is_offline()) {
        return Err(ReadError::Offline(offline));
    }
    let (start, end) = (state.start_offset, state.end_offset);
    if wanted.from < start || wanted.from > end || state.removed {
        return Err(ReadError::OutOfRange { start, end });
    }
    Ok(Wanted { upper: wanted.upper.min(end), ..*wanted })
}

fn from_memory<D: Disk>(state: &LogState<D>, wanted: &Wanted) -> Option<ReadBatches> {
    let mut found = nothing(wanted);
    for batch in state.memory.from(wanted.from)? {
        if !wanted.takes(found.bytes, batch.next_offset, batch.len()) {
            break;
        }
        if found.bytes == 0 {
            found.first_offset = batch.base_offset;
        }
        found.slices.push(batch.head.clone());
        if !batch.body.is_empty() {
            found.slices.push(batch.body.clone());
        }
        found.bytes += batch.len();
        found.next_offset = batch.next_offset;
    }
    Some(found)
}

/// Where a cold read of `from` begins. `None` if no segment holds it or anything after it.
pub(crate) fn find_cold<D: Disk>(state: &LogState<D>, from: i64) -> Option<Cold<D>> {
    let mut segment = state.segment_of(from).or(state.segments.front())?;
    if from >= state.segment_end_offset(segment.base) {
        // Offsets between two segments may be gone; the next one holds what follows.
        segment = state.segments.iter().find(|next| next.base >= from)?;
    }
    let (limit, limit_offset) = settled_to(state, segment);
    let floor = segment.index.borrow().floor_of_offset(from).filter(|found| found.position < limit);
    let (position, offset) =
        floor.map_or((DATA_START, segment.base), |found| (found.position, found.base_offset));
    let truncations = state.truncations;
    Some(Cold { segment: segment.clone(), position, offset, limit, limit_offset, truncations })
}

/// Up to where a segment is settled, and the offset of what follows there.
pub(crate) fn settled_to<D: Disk>(state: &LogState<D>, segment: &Segment<D>) -> (u64, i64) {
    match state.memory.in_segment(segment.base).next() {
        Some(first) => (first.position, first.base_offset),
        None => (segment.end.get(), state.segment_end_offset(segment.base)),
    }
}

/// Why bytes of a segment's file were not read.
pub(crate) struct Unread {
    pub error: ReadError,
    /// The device cannot give them.
    pub by_device: bool,
}

/// Bytes of the segment's file.
pub(crate) async fn read_piece<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
    range: std::ops::Range<u64>,
) -> Result<Bytes, ReadError> {
    try_piece(store, log, segment, range).await.map_err(|unread| unread.error)
}

/// As [`read_piece`].
pub(crate) async fn try_piece<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
    range: std::ops::Range<u64>,
) -> Result<Bytes, Unread> {
    let failed = |error: String| Unread {
        error: ReadError::Io(format!("log {}, segment {}: {error}", log.name, segment.base)),
        by_device: false,
    };
    let of_disk = |error: FileError| {
        let by_device = match &error {
            FileError::Io(error) => !passes(error),
            FileError::Foreign | FileError::Damaged | FileError::NewerVersion(_) => false,
        };
        Unread { by_device, ..failed(error.to_string()) }
    };
    let file = store.files.get(&store.disk, log, segment).await.map_err(of_disk)?;
    let (from, to) = (block_floor(range.start), block_ceil(range.end));
    let read = file.read_at(from, (to - from) as usize).await;
    let data = read.map_err(|error| of_disk(error.into()))?;
    let skip = (range.start - from) as usize;
    let end = skip + (range.end - range.start) as usize;
    if data.len() < end {
        return Err(failed(format!("file ends at {}", from + data.len() as u64)));
    }
    Ok(data.freeze().slice(skip..end))
}

/// The batches in what was read.
pub(crate) fn batches_of(found: &ReadBatches) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut slices = found.slices.iter();
    while let Some(slice) = slices.next() {
        let mut rest = slice.clone();
        while let Ok(header) = BatchHeader::parse(&rest) {
            let len = header.total_len();
            if rest.len() >= len {
                let body = rest.slice(BATCH_HEADER_LEN..len);
                batches.push(Batch { header, body });
                rest = rest.slice(len..);
                continue;
            }
            // From memory: header and body are slices of their own.
            if let Some(body) = slices.next() {
                batches.push(Batch { header, body: body.clone() });
            }
            break;
        }
    }
    batches
}

const _: () = assert!(READ_BYTES_MIN as usize >= BLOCK);
