//! Finding records by time.

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
/// Most bytes that one batch may take decompressed while looking into it; beyond it the batch's base offset answers.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// See [`crate::Log::offset_for_time`].
pub(crate) async fn offset_for_time<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    timestamp: i64,
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
            let late = |batch: &Batch| batch.header.max_timestamp >= timestamp;
            for batch in batches_of(&found).into_iter().filter(late) {
                if let Some(place) = first_record(&batch, start, |record| record >= timestamp) {
                    return Ok(Some(place));
                }
            }
            from = found.next_offset;
        }
    }
    Ok(None)
}

/// See [`crate::Log::max_timestamp`].
pub(crate) async fn max_timestamp<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
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
        && let Some(found) = newest_record(store, log, start, segment_end).await?
        && found.timestamp >= newest.0
    {
        return Ok(Some(found));
    }
    if newest.0 < 0 || start >= end {
        return Ok(None);
    }
    let found = read_some(store, log, newest.1, end).await?;
    let batch = batches_of(&found).into_iter().next();
    Ok(batch.and_then(|batch| first_record(&batch, start, |record| record >= batch.header.max_timestamp)))
}

/// Reads all from `start` to `end` for the newest record, the first of them.
async fn newest_record<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    start: i64,
    end: i64,
) -> Result<Option<TimestampOffset>, ReadError> {
    let (mut from, mut newest) = (start, None::<TimestampOffset>);
    while from < end {
        let found = read_some(store, log, from, end).await?;
        if found.bytes == 0 {
            break;
        }
        for batch in batches_of(&found) {
            let mut above = newest.map_or(-1, |newest| newest.timestamp);
            // A batch cut by the start may have lost its newest record: it takes as many looks as its times grow.
            while batch.header.max_timestamp > above {
                let Some(newer) = first_record(&batch, start, |timestamp| timestamp > above) else { break };
                above = newer.timestamp;
                newest = Some(newer);
            }
        }
        from = found.next_offset;
    }
    Ok(newest)
}

async fn read_some<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    from: i64,
    upper: i64,
) -> Result<ReadBatches, ReadError> {
    read(store, log, &Wanted { from, bytes_max: READ_BYTES, upper, at_least_one: true }).await
}

/// First record of the batch at or after `start` whose timestamp is as wanted. A batch that cannot be opened
/// answers with its first offset: it was validated when it came, so it is too large rather than broken.
fn first_record(batch: &Batch, start: i64, wanted: impl Fn(i64) -> bool) -> Option<TimestampOffset> {
    let header = &batch.header;
    let leader_epoch = header.partition_leader_epoch;
    let Ok(records) = Records::open(batch, BATCH_BYTES_MAX) else {
        let offset = header.base_offset.max(start);
        return Some(TimestampOffset { offset, timestamp: header.max_timestamp, leader_epoch });
    };
    let found = records
        .iter()
        .map_while(Result::ok)
        .find(|record| record.offset >= start && wanted(record.timestamp))?;
    Some(TimestampOffset { offset: found.offset, timestamp: found.timestamp, leader_epoch })
}
