//! Files of segments that replay could not write or flush are made anew: else one bad block would keep the whole shard from
//! starting.
//!
//! The old file is copied as it is, and the replay begins again. What was stable at the checkpoint is in the copy; what came
//! after that frames tell of, and replay holds the copy against them as it did the old file: inline bytes are written again,
//! direct shares are judged by their digests. So it does not matter what a failed flush lost. All files that one replay met go
//! together: a second flush of one that failed would prove nothing.
//!
//! A file that cannot be read to its end is not copied, and the start is refused: what is missing may be all there is of
//! acknowledged batches.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use crate::disk::{AlignedBuf, Disk, DiskFile};
use crate::error::OpenError;
use crate::plan::block_ceil;
use crate::prepare::{header_of, passes};
use crate::recycle::recycle_dir;
use crate::salvage;
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, StoreInner, logs_dir};

/// Bytes copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// The segments whose files the device refused.
pub(super) type Refused<D> = RefCell<Vec<(Rc<LogInner<D>>, Rc<Segment<D>>)>>;

/// Notes which segment's file was refused, if it is the device that did so, and not that there is no room.
pub(super) fn note<D: Disk>(
    refused: &Refused<D>,
    (log, segment): (&Rc<LogInner<D>>, &Rc<Segment<D>>),
    error: &io::Error,
) {
    let mut refused = refused.borrow_mut();
    let is_known = refused.iter().any(|(_, known)| Rc::ptr_eq(known, segment));
    if error.raw_os_error().is_some() && !passes(error) && !is_known {
        refused.push((log.clone(), segment.clone()));
    }
}

/// Makes the files anew that a replay could not write, each once: a disk that takes nothing is no bad block. Gives back why the
/// replay `ended` where that is no help.
pub(super) async fn renew_all<D: Disk>(
    store: &Rc<StoreInner<D>>,
    refused: &Refused<D>,
    renewed: &mut BTreeSet<PathBuf>,
    ended: OpenError,
) -> Result<(), OpenError> {
    let refused = refused.take();
    if refused.is_empty() || refused.iter().any(|(_, segment)| renewed.contains(&segment.path)) {
        return Err(ended);
    }
    for (log, segment) in refused {
        renew(store, &log, &segment).await.map_err(OpenError::io(segment.path.display()))?;
        renewed.insert(segment.path.clone());
    }
    Ok(())
}

/// Puts a new file with the same bytes in the place of the segment's.
async fn renew<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
) -> io::Result<()> {
    let (disk, log_dir) = (&store.disk, store.log_dir(&log.name));
    let old = match disk.open(&segment.path).await {
        Ok(file) => Some(file),
        // No byte of it was ever settled.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !segment.is_ready() => None,
        Err(error) => return Err(error),
    };
    let path = store.recycle.new_path("rescue");
    // One that a crash left.
    disk.remove(&path).await.ok();
    let file = disk.create(&path, block_ceil(old.as_ref().map_or(0, D::File::size)).max(DATA_START)).await?;
    file.write_at(header_of(log, segment).encode().freeze(), 0).await?;
    if let Some(old) = old {
        copy(disk, &old, &file).await?;
    }
    file.sync_data().await?;
    disk.create_dir_all(&log_dir).await?;
    disk.rename(&path, &segment.path).await?;
    for dir in [log_dir, logs_dir(&store.dir), recycle_dir(&store.dir)] {
        disk.sync_dir(&dir).await?;
    }
    tracing::error!(log = %log.name, file = %segment.path.display(), "the device refused to write it: it is made anew");
    Ok(())
}

/// Copies what is behind the header. The old file need not end with a block.
async fn copy<D: Disk>(disk: &D, old: &D::File, file: &D::File) -> io::Result<()> {
    let (mut position, size) = (DATA_START, old.size());
    while position < size {
        let left = size - position;
        let wanted = PIECE_BYTES.min(block_ceil(left) as usize);
        let data = salvage::read_at(disk, old, position, wanted).await?;
        let len = data.len().min(wanted);
        if (len as u64) < left.min(wanted as u64) {
            let what = format!("it ends at {} instead of {size}", position + len as u64);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        let mut piece = AlignedBuf::with_capacity(PIECE_BYTES);
        piece.extend_from_slice(&data[..len]);
        piece.pad_to_block();
        file.write_at(piece.freeze(), position).await?;
        position += len as u64;
    }
    Ok(())
}
