//! A look at what the first append after opening needs of each log's active segment: a file that cannot serve it is
//! told now, and takes its own log offline; met in a commit, it would take all logs of the store.

use std::rc::Rc;

use futures_util::stream::{self, StreamExt};

use crate::disk::{BLOCK, Disk, DiskFile};
use crate::indexes::forget_stale_file;
use crate::plan::block_floor;
use crate::segment::Segment;
use crate::state::{LogInner, StoreInner};

/// Segments looked at once.
const LOOKS_AT_ONCE: usize = 64;

/// Looks at the header, the last block and the index file of each log's active segment.
pub(crate) async fn look_at_active_segments<D: Disk>(store: &Rc<StoreInner<D>>) {
    let active = |log: &Rc<LogInner<D>>| {
        let state = log.state.borrow();
        let active = state.segments.back().filter(|segment| segment.is_ready() && state.offline.is_none());
        active.map(|segment| (log.clone(), segment.clone()))
    };
    let segments: Vec<_> = store.logs.borrow().values().filter_map(active).collect();
    let look = async |(log, segment): &(Rc<LogInner<D>>, Rc<Segment<D>>)| {
        if let Err(reason) = look_at(store, log, segment).await {
            log.fail(format_args!("active segment {}: {reason}", segment.base));
        }
    };
    stream::iter(&segments).for_each_concurrent(LOOKS_AT_ONCE, look).await;
}

async fn look_at<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    segment: &Rc<Segment<D>>,
) -> Result<(), String> {
    let file = store.files.get(&store.disk, log, segment).await.map_err(|error| error.to_string())?;
    let stays =
        |error| format!("its index file, which tells of what was cut off, cannot be removed: {error}");
    forget_stale_file(store, segment).await.map_err(stays)?;
    let (end, block) = (segment.end.get(), block_floor(segment.end.get()));
    if end == block {
        return Ok(());
    }
    let last = file.read_at(block, BLOCK).await.map_err(|error| error.to_string())?;
    if (last.len() as u64) < end - block {
        return Err(format!("its file ends at {} instead of {end}", block + last.len() as u64));
    }
    Ok(())
}
