//! Finding records by time.
//!
//! Which batch holds a record is told by batch headers; at most one batch of an answer has to be opened, and one more
//! where the log's start cuts it. Opening one may mean to decompress it, which takes a core for long: that is left to
//! the caller, who gets a [`BatchSearch`] and runs it where it holds up nobody.

use std::rc::Rc;

use penstock_format::{Batch, Records};

use crate::disk::Disk;
use crate::error::ReadError;
use crate::indexes::whole_index;
use crate::log::{ReadBatches, TimestampOffset};
use crate::read::{Wanted, batches_of, read};
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, StoreInner};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// A batch in which a record is to be found by its time.
#[derive(Debug, Clone)]
pub struct BatchSearch {
    batch: Batch,
    /// Records before it were deleted.
    start: i64,
    wanted: WantedTime,
}

#[derive(Debug, Clone, Copy)]
enum WantedTime {
    /// The first record that is not older.
    AtLeast(i64),
    /// The first of the newest records.
    Newest,
}

impl BatchSearch {
    /// The batch.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Looks into the batch, whose records may take `bytes_max` bytes decompressed. One that cannot be opened answers
    /// as [`BatchSearch::unopened`].
    pub fn run(&self, bytes_max: usize) -> Option<TimestampOffset> {
        let Ok(records) = Records::open(&self.batch, bytes_max) else { return Some(self.unopened()) };
        let leader_epoch = self.batch.header.partition_leader_epoch;
        let mut found: Option<TimestampOffset> = None;
        for record in records.iter().map_while(Result::ok).filter(|record| record.offset >= self.start) {
            let place = TimestampOffset { offset: record.offset, timestamp: record.timestamp, leader_epoch };
            match self.wanted {
                WantedTime::AtLeast(timestamp) if record.timestamp >= timestamp => return Some(place),
                WantedTime::AtLeast(_) => {}
                WantedTime::Newest => {
                    if found.is_none_or(|found| found.timestamp < record.timestamp) {
                        found = Some(place);
                    }
                }
            }
        }
        found
    }

    /// The answer for a batch that cannot be opened: its first offset. It was validated when it came, so it is too
    /// large rather than broken.
    pub fn unopened(&self) -> TimestampOffset {
        let header = &self.batch.header;
        TimestampOffset {
            offset: header.base_offset.max(self.start),
            timestamp: header.max_timestamp,
            leader_epoch: header.partition_leader_epoch,
        }
    }
}

/// See [`crate::Log::offset_for_time`].
pub(crate) async fn offset_for_time<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    timestamp: i64,
    open: impl AsyncFn(BatchSearch) -> Option<TimestampOffset>,
) -> Result<Option<TimestampOffset>, ReadError> {
    let candidates: Vec<Rc<Segment<D>>> = {
        let state = log.state.borrow();
        let late = |segment: &&Rc<Segment<D>>| segment.max_timestamp.get().0 >= timestamp;
        state.segments.iter().filter(late).cloned().collect()
    };
    for segment in candidates {
        if segment.indexed_from.get() > DATA_START {
            whole_index(store, log, &segment).await?;
        }
        let floor = segment.index.borrow().floor_of_timestamp(timestamp);
        let mut from = floor.map_or(segment.base, |found| found.base_offset);
        loop {
            let (start, end) = {
                let state = log.state.borrow();
                (state.start_offset, state.segment_end_offset(segment.base))
            };
            from = from.max(start);
            let found = read_some(store, log, from, end).await?;
            if found.bytes == 0 {
                break;
            }
            let late =
                |batch: &Batch| batch.header.record_count > 0 && batch.header.max_timestamp >= timestamp;
            for batch in batches_of(&found).into_iter().filter(late) {
                let search = BatchSearch { batch, start, wanted: WantedTime::AtLeast(timestamp) };
                if let Some(place) = open(search).await {
                    return Ok(Some(place));
                }
            }
            from = found.next_offset;
            store.disk.yield_now().await;
        }
    }
    Ok(None)
}

/// See [`crate::Log::max_timestamp`].
pub(crate) async fn max_timestamp<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    open: impl AsyncFn(BatchSearch) -> Option<TimestampOffset>,
) -> Result<Option<TimestampOffset>, ReadError> {
    let (mut newest, mut cut) = ((-1, -1), None);
    let (start, end) = {
        let state = log.state.borrow();
        let start = state.start_offset;
        for segment in &state.segments {
            let (timestamp, offset) = segment.max_timestamp.get();
            let segment_end = state.segment_end_offset(segment.base);
            if offset < start && segment_end > start {
                // Its newest record was deleted: what is left of it has to be read.
                cut = Some((timestamp, segment_end));
            } else if offset >= start && timestamp > newest.0 {
                newest = (timestamp, offset);
            }
        }
        (start, state.end_offset)
    };
    if let Some((timestamp, segment_end)) = cut
        && timestamp >= newest.0
        && let Some(found) = newest_record(store, log, (start..segment_end, newest.0), &open).await?
    {
        return Ok(Some(found));
    }
    if newest.0 < 0 || start >= end {
        return Ok(None);
    }
    let found = read_some(store, log, newest.1, end).await?;
    let Some(batch) = batches_of(&found).into_iter().next() else { return Ok(None) };
    let wanted = WantedTime::AtLeast(batch.header.max_timestamp);
    Ok(open(BatchSearch { batch, start, wanted }).await)
}

/// Reads a range for its newest record that is not older than `least`, the first of them. A batch that lies in the range
/// says in its header how new its newest record is; one that begins before may have lost it, and is opened.
async fn newest_record<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    (range, least): (std::ops::Range<i64>, i64),
    open: &impl AsyncFn(BatchSearch) -> Option<TimestampOffset>,
) -> Result<Option<TimestampOffset>, ReadError> {
    let (mut from, start) = (range.start, range.start);
    let (mut newest, mut in_cut, mut whole) = (least.max(0) - 1, None, None);
    while from < range.end {
        let found = read_some(store, log, from, range.end).await?;
        if found.bytes == 0 {
            break;
        }
        for batch in batches_of(&found) {
            let timestamp = batch.header.max_timestamp;
            if timestamp <= newest || batch.header.record_count == 0 {
                continue;
            }
            if batch.header.base_offset < start {
                let search = BatchSearch { batch, start, wanted: WantedTime::Newest };
                in_cut = open(search).await.filter(|found| found.timestamp > newest);
                newest = in_cut.map_or(newest, |found| found.timestamp);
            } else {
                newest = timestamp;
                whole = Some(BatchSearch { batch, start, wanted: WantedTime::AtLeast(timestamp) });
            }
        }
        from = found.next_offset;
        store.disk.yield_now().await;
    }
    match whole {
        Some(search) => Ok(open(search).await),
        None => Ok(in_cut),
    }
}

async fn read_some<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    from: i64,
    upper: i64,
) -> Result<ReadBatches, ReadError> {
    read(
        store,
        log,
        &Wanted { from, bytes_max: READ_BYTES, upper, at_least_one: true, for_client: true, in_order: false },
    )
    .await
}
