//! The checkpoint's file and its copy: a checkpoint that cannot be read would take all logs of the store with it.
//!
//! Both are replaced atomically, `checkpoint` first. What the older of two needs (frames, segments) is let go of only
//! when both are written, so after a crash each alone leads to the same logs. A start takes the copy only if `checkpoint`
//! is damaged or missing, and only if the journal has no frame of a later run: a version that knows no copies may have
//! run since, and left an old one.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::checkpoint::{self, Checkpoint, CheckpointError, Redo};
use crate::disk::{BLOCK, Disk, DiskFile};
use crate::error::OpenError;
use crate::frame;
use crate::journal::journal_path;
use crate::prepare::passes;
use crate::state::logs_dir;

/// Path of the checkpoint.
pub(crate) fn checkpoint_path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

/// Path of its copy.
pub(crate) fn copy_path(dir: &Path) -> PathBuf {
    dir.join("checkpoint.copy")
}

/// Replaces the checkpoint and its copy.
pub(crate) async fn write_checkpoint<D: Disk>(disk: &D, dir: &Path, bytes: Bytes) -> io::Result<()> {
    disk.write_small(&checkpoint_path(dir), bytes.clone()).await?;
    disk.write_small(&copy_path(dir), bytes).await
}

/// As [`write_checkpoint`], for a start: where only the copy finds no room, the old one goes, and the next checkpoint writes
/// another. An old one by itself would tell of what the start has let go of.
pub(crate) async fn write_first<D: Disk>(disk: &D, dir: &Path, bytes: Bytes) -> io::Result<()> {
    disk.write_small(&checkpoint_path(dir), bytes.clone()).await?;
    let copy = copy_path(dir);
    match disk.write_small(&copy, bytes.clone()).await {
        Err(error) if passes(&error) => {}
        written => return written,
    }
    match disk.remove(&copy).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => disk.sync_dir(dir).await?,
    }
    match disk.write_small(&copy, bytes).await {
        Err(error) if passes(&error) => {
            tracing::warn!("{}: the checkpoint has no copy until the next one: {error}", copy.display());
            Ok(())
        }
        written => written,
    }
}

/// Whether the last four bytes are the crc of all before.
pub(crate) fn ends_with_crc(bytes: &[u8]) -> bool {
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else { return false };
    crc32c::crc32c(content) == u32::from_le_bytes(*crc)
}

/// Decodes a checkpoint. Its version is believed only under a right crc, which ends the file in every version.
pub(crate) fn decode(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    if ends_with_crc(bytes) { checkpoint::decode(bytes) } else { Err(CheckpointError::Damaged) }
}

/// The checkpoint that a store begins with.
pub(crate) fn none_yet() -> Checkpoint {
    Checkpoint { redo: Redo { seq: 1, clean: true, ..Redo::default() }, logs: Vec::new(), runs: Vec::new() }
}

/// Whether a run after that of `copy` has written frames. The first of a run goes to the start of the first file, and
/// whatever a run writes there later is a frame of its own.
pub(crate) fn is_outrun(copy: &Checkpoint, first_block: &[u8], room: u64) -> bool {
    frame::decode_header(first_block, room).is_some_and(|header| header.run > copy.redo.run)
}

/// The checkpoint, or that of a new store.
pub(crate) async fn load_checkpoint<D: Disk>(disk: &D, dir: &Path) -> Result<Checkpoint, OpenError> {
    let path = checkpoint_path(dir);
    let found = read(disk, &path).await?;
    if let Some(Ok(checkpoint)) = found {
        return Ok(checkpoint);
    }
    let copy_path = copy_path(dir);
    let copy = read(disk, &copy_path).await?;
    let what = if found.is_some() { "is damaged" } else { "is missing" };
    match copy {
        Some(Ok(copy)) if !outrun(disk, dir, &copy).await? => {
            tracing::error!("{} {what}; its copy is used", path.display());
            Ok(copy)
        }
        None if found.is_none() => {
            let logs = disk.list(&logs_dir(dir)).await.map_err(OpenError::io(dir.display()))?;
            match logs.is_empty() {
                true => Ok(none_yet()),
                false => {
                    Err(OpenError::Corrupt(format!("there are logs but no checkpoint in {}", dir.display())))
                }
            }
        }
        copy => {
            let why = match copy {
                None => "has no copy",
                Some(Ok(_)) => "its copy is older than the journal",
                Some(Err(())) => "so is its copy",
            };
            Err(OpenError::Corrupt(format!("checkpoint {} {what}, and {why}", path.display())))
        }
    }
}

/// Whether checkpoint and copy are there, and as they were written. What the disk does not give is not judged.
pub(crate) async fn are_sound<D: Disk>(disk: &D, dir: &Path) -> bool {
    let sound = async |path: PathBuf| match disk.read_small(&path, checkpoint::LEN_MAX).await {
        Ok(bytes) => ends_with_crc(&bytes),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    sound(checkpoint_path(dir)).await && sound(copy_path(dir)).await
}

/// A checkpoint's file; none if it is not there.
async fn read<D: Disk>(disk: &D, path: &Path) -> Result<Option<Result<Checkpoint, ()>>, OpenError> {
    if !disk.exists(path).await.map_err(OpenError::io(path.display()))? {
        return Ok(None);
    }
    let bytes = disk.read_small(path, checkpoint::LEN_MAX).await.map_err(OpenError::io(path.display()))?;
    match decode(&bytes) {
        Ok(checkpoint) => Ok(Some(Ok(checkpoint))),
        Err(CheckpointError::Damaged) => Ok(Some(Err(()))),
        Err(CheckpointError::NewerVersion(found)) => {
            let file = path.display().to_string();
            Err(OpenError::NewerVersion { file, found, supported: checkpoint::VERSION })
        }
    }
}

async fn outrun<D: Disk>(disk: &D, dir: &Path, copy: &Checkpoint) -> Result<bool, OpenError> {
    let path = journal_path(dir, 0);
    let failed = || OpenError::io(path.display());
    if !disk.exists(&path).await.map_err(failed())? {
        return Ok(false);
    }
    let file = disk.open(&path).await.map_err(failed())?;
    let block = file.read_at(0, BLOCK).await.map_err(failed())?;
    Ok(is_outrun(copy, &block, file.size()))
}
