//! A file of a segment that replay could not write or flush is made anew: else one bad block would keep the whole shard from
//! starting.
//!
//! The old file is copied as it is, and the replay begins again. What was stable at the checkpoint is in the copy; what came
//! after that frames tell of, and replay holds the copy against them as it did the old file: inline bytes are written again,
//! direct shares are judged by their digests. So it does not matter what a failed flush lost.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::disk::{AlignedBuf, Disk, DiskFile};
use crate::prepare::{header_of, passes};
use crate::recycle::recycle_dir;
use crate::salvage;
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, StoreInner, logs_dir};

/// Bytes copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// The segment whose file the device refused.
pub(super) type Refused<D> = RefCell<Option<(Rc<LogInner<D>>, Rc<Segment<D>>)>>;

/// Notes which segment's file was refused, if it is the device that did so, and not that there is no room.
pub(super) fn note<D: Disk>(
    refused: &Refused<D>,
    (log, segment): (&Rc<LogInner<D>>, &Rc<Segment<D>>),
    error: &io::Error,
) {
    if error.raw_os_error().is_some() && !passes(error) {
        refused.borrow_mut().get_or_insert_with(|| (log.clone(), segment.clone()));
    }
}

/// Puts a new file with the same bytes in the place of the segment's.
pub(super) async fn renew<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
) -> io::Result<()> {
    let (disk, log_dir) = (&store.disk, store.log_dir(&log.name));
    let old = match disk.open(&segment.path).await {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let len = old.as_ref().map_or(0, D::File::size).max(DATA_START);
    let path = store.recycle.new_path("rescue");
    // One that a crash left.
    disk.remove(&path).await.ok();
    let file = disk.create(&path, len).await?;
    file.write_at(header_of(log, segment).encode().freeze(), 0).await?;
    let mut lost = Vec::new();
    if let Some(old) = old {
        let mut position = DATA_START;
        while position < len {
            let wanted = PIECE_BYTES.min((len - position) as usize);
            let data = salvage::read_at(&old, position, wanted, &mut lost).await?;
            if data.is_empty() {
                break;
            }
            let mut piece = AlignedBuf::with_capacity(PIECE_BYTES);
            piece.extend_from_slice(&data);
            piece.pad_to_block();
            file.write_at(piece.freeze(), position).await?;
            position += data.len() as u64;
        }
    }
    file.sync_data().await?;
    disk.create_dir_all(&log_dir).await?;
    disk.rename(&path, &segment.path).await?;
    for dir in [log_dir, logs_dir(&store.dir), recycle_dir(&store.dir)] {
        disk.sync_dir(&dir).await?;
    }
    let file = segment.path.display();
    tracing::error!(log = %log.name, %file, ?lost, "the device refused to write it: it is made anew, but for what it lost");
    Ok(())
}
