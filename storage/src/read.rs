//! Reading: from memory where the batches are, else from the segment in aligned pieces, every batch checked.
//!
//! What is in memory reaches from some batch to the log's end, and everything not settled is in it. So what is below
//! the first batch in memory is settled in segment files, and a read of those needs no lock: it holds the segment,
//! whose file is not reused meanwhile, and notices a truncation.

use std::rc::Rc;

use bytes::Bytes;
use penstock_format::{BATCH_HEADER_LEN, Batch, BatchHeader};

use crate::disk::{BLOCK, Disk, DiskFile};
use crate::error::ReadError;
use crate::index::AppendedBatch;
use crate::indexes::whole_index;
use crate::log::ReadBatches;
use crate::plan::{block_ceil, block_floor};
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, LogState, StoreInner};

/// Longest cold read in bytes, but for a single larger batch.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Shortest: an index entry names a batch within about this distance.
const READ_BYTES_MIN: u64 = 32 << 10;

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub from: i64,
    pub bytes_max: usize,
    /// Exclusive.
    pub upper: i64,
    pub at_least_one: bool,
}

impl Wanted {
    /// Whether a batch may join `bytes` bytes of others.
    fn takes(&self, bytes: usize, next_offset: i64, len: usize) -> bool {
        next_offset <= self.upper && (bytes + len <= self.bytes_max || (bytes == 0 && self.at_least_one))
    }
}

/// A cold read to be made: where in which segment to begin looking.
struct Cold<D: Disk> {
    segment: Rc<Segment<D>>,
    /// Where a batch begins, at or before the one wanted.
    position: u64,
    /// Up to where the segment is settled.
    limit: u64,
    truncations: u64,
}

/// See [`crate::Log::read`].
pub(crate) async fn read<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    wanted: &Wanted,
) -> Result<ReadBatches, ReadError> {
    loop {
        let cold = {
            let state = log.state.borrow();
            let wanted = check(store, &state, wanted)?;
            if wanted.from >= wanted.upper {
                return Ok(nothing(&wanted));
            }
            if let Some(found) = from_memory(&state, &wanted) {
                return Ok(found);
            }
            find_cold(&state, wanted.from)
        };
        let Some(mut cold) = cold else { return Ok(nothing(wanted)) };
        let known = cold.segment.indexed_from.get() == DATA_START;
        if !known && cold.limit - DATA_START > store.config.index_worth_bytes {
            whole_index(store, log, &cold.segment).await?;
            if let Some(found) = cold.segment.index.borrow().floor_of_offset(wanted.from) {
                cold.position = found.position;
            }
        }
        let outcome = read_cold(store, log, &cold, wanted).await;
        let state = log.state.borrow();
        if state.truncations == cold.truncations && !cold.segment.retired.get() {
            return outcome;
        }
        drop(state); // The log changed under the read: look again.
    }
}

fn nothing(wanted: &Wanted) -> ReadBatches {
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
fn find_cold<D: Disk>(state: &LogState<D>, from: i64) -> Option<Cold<D>> {
    let mut segment = state.segment_of(from).or(state.segments.front())?;
    if from >= state.segment_end_offset(segment.base) {
        // Offsets between two segments may be gone; the next one holds what follows.
        segment = state.segments.iter().find(|next| next.base >= from)?;
    }
    let limit = state.memory.start_in(segment.base).unwrap_or(segment.end.get());
    let floor = segment.index.borrow().floor_of_offset(from).map_or(DATA_START, |found| found.position);
    let position = if floor < limit { floor } else { DATA_START };
    Some(Cold { segment: segment.clone(), position, limit, truncations: state.truncations })
}

/// Reads from the segment's file until something wanted is found, or the settled part ends.
async fn read_cold<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    cold: &Cold<D>,
    wanted: &Wanted,
) -> Result<ReadBatches, ReadError> {
    let mut position = cold.position;
    let mut len = (wanted.bytes_max as u64).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
    while position < cold.limit {
        let piece = read_piece(store, log, &cold.segment, position..cold.limit.min(position + len)).await?;
        match scan(&piece, wanted, cold.limit - position) {
            Scan::Found(found) => return Ok(found),
            Scan::Skipped { bytes } => (position, len) = (position + bytes, READ_BYTES_MAX),
            Scan::Longer { skipped, needed } => (position, len) = (position + skipped, needed),
            Scan::Corrupt { at } => {
                return Err(ReadError::Corrupt { segment_base: cold.segment.base, position: position + at });
            }
        }
    }
    Ok(nothing(wanted))
}

/// Bytes of the segment's file.
async fn read_piece<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
    range: std::ops::Range<u64>,
) -> Result<Bytes, ReadError> {
    let failed =
        |error: String| ReadError::Io(format!("log {}, segment {}: {error}", log.name, segment.base));
    let file = store.files.get(&store.disk, log, segment).await.map_err(|error| failed(error.to_string()))?;
    let (from, to) = (block_floor(range.start), block_ceil(range.end));
    let data = file.read_at(from, (to - from) as usize).await.map_err(|error| failed(error.to_string()))?;
    let skip = (range.start - from) as usize;
    let end = skip + (range.end - range.start) as usize;
    if data.len() < end {
        return Err(failed(format!("file ends at {}", from + data.len() as u64)));
    }
    Ok(data.freeze().slice(skip..end))
}

/// What looking through a piece of a segment gave.
enum Scan {
    Found(ReadBatches),
    /// Nothing wanted in so many bytes of whole batches.
    Skipped {
        bytes: u64,
    },
    /// The batch behind `skipped` bytes takes `needed`, more than the piece has.
    Longer {
        skipped: u64,
        needed: u64,
    },
    Corrupt {
        at: u64,
    },
}

/// Looks through `piece`, which begins with a batch; `settled` bytes from there on are settled.
fn scan(piece: &Bytes, wanted: &Wanted, settled: u64) -> Scan {
    let mut found = nothing(wanted);
    let mut at = 0;
    let mut begin = 0;
    // What stands before the damage is given; who asks for what follows is told of it.
    let corrupt = |found: ReadBatches, at: usize, begin: usize| match found.bytes {
        0 => Scan::Corrupt { at: at as u64 },
        _ => Scan::Found(finish(found, piece, begin, at)),
    };
    loop {
        let rest = &piece[at..];
        if rest.len() < BATCH_HEADER_LEN {
            if found.bytes > 0 || rest.is_empty() {
                break;
            }
            if settled - (at as u64) < BATCH_HEADER_LEN as u64 {
                return corrupt(found, at, begin);
            }
            return Scan::Longer { skipped: at as u64, needed: READ_BYTES_MIN };
        }
        let Ok(header) = BatchHeader::parse(rest) else { return corrupt(found, at, begin) };
        let len = header.total_len();
        if at as u64 + len as u64 > settled || header.base_offset < 0 || header.last_offset_delta < 0 {
            return corrupt(found, at, begin);
        }
        if header.next_offset() <= wanted.from {
            if len > rest.len() {
                return Scan::Skipped { bytes: (at + len) as u64 };
            }
            at += len;
            begin = at;
            continue;
        }
        if !wanted.takes(found.bytes, header.next_offset(), len) {
            return Scan::Found(finish(found, piece, begin, at));
        }
        if len > rest.len() {
            if found.bytes > 0 {
                break;
            }
            return Scan::Longer { skipped: at as u64, needed: len as u64 };
        }
        let batch = Batch { header, body: piece.slice(at + BATCH_HEADER_LEN..at + len) };
        if !batch.crc_ok() || (found.bytes > 0 && header.base_offset < found.next_offset) {
            return corrupt(found, at, begin);
        }
        if found.bytes == 0 {
            found.first_offset = header.base_offset;
        }
        found.bytes += len;
        found.next_offset = header.next_offset();
        at += len;
    }
    if found.bytes == 0 {
        return Scan::Skipped { bytes: at as u64 };
    }
    Scan::Found(finish(found, piece, begin, at))
}

fn finish(mut found: ReadBatches, piece: &Bytes, begin: usize, end: usize) -> ReadBatches {
    if end > begin {
        found.slices.push(piece.slice(begin..end));
    }
    found
}

pub(crate) fn appended(position: u64, header: &BatchHeader) -> AppendedBatch {
    AppendedBatch {
        base_offset: header.base_offset,
        position,
        len: header.total_len() as u64,
        max_timestamp: header.max_timestamp,
    }
}

/// Shows `note` the header of every batch in a settled range that begins and ends with whole batches; gives its end.
pub(crate) async fn walk<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
    range: std::ops::Range<u64>,
    mut note: impl FnMut(&AppendedBatch, &BatchHeader),
) -> Result<u64, ReadError> {
    let mut position = range.start;
    while position < range.end {
        let to = range.end.min(position + READ_BYTES_MAX);
        let piece = read_piece(store, log, segment, position..to).await?;
        let mut at = 0;
        while piece.len() - at >= BATCH_HEADER_LEN {
            let header = BatchHeader::parse(&piece[at..]).ok();
            let end = header.map(|header| position + (at + header.total_len()) as u64);
            let (Some(header), Some(end)) = (header, end.filter(|end| *end <= range.end)) else {
                return Err(ReadError::Corrupt {
                    segment_base: segment.base,
                    position: position + at as u64,
                });
            };
            note(&appended(position + at as u64, &header), &header);
            at += header.total_len();
            if at >= piece.len() {
                debug_assert_eq!(end, position + at as u64);
                break;
            }
        }
        if at == 0 {
            return Err(ReadError::Corrupt { segment_base: segment.base, position });
        }
        position += at as u64;
        store.disk.yield_now().await;
    }
    Ok(position)
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
