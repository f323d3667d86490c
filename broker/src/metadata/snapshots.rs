//! The files of metadata snapshots: `metadata/OFFSET.snapshot` in the data directory, `OFFSET` in 20 decimal digits.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use penstock_core::metadata::{SNAPSHOT_BYTES_MAX, Snapshot, SnapshotError, decode_snapshot};
use penstock_storage::disk::{Disk, TEMP_SUFFIX};

const SUFFIX: &str = ".snapshot";
const DIGITS: usize = 20;

/// Why a snapshot is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadSnapshotError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Content(#[from] SnapshotError),
    #[error("it is of offset {0}, which is not its name")]
    OtherOffset(i64),
}

/// The directory of snapshots.
pub(super) struct Snapshots<D: Disk> {
    disk: D,
    dir: PathBuf,
}

impl<D: Disk> Snapshots<D> {
    /// Opens the directory below `data_dir`, creating it where it is missing, and removes what a crash left half written.
    pub(super) async fn open(disk: &D, data_dir: &Path) -> io::Result<Snapshots<D>> {
        let snapshots = Snapshots { disk: disk.clone(), dir: snapshots_dir(data_dir) };
        disk.create_dir_all(&snapshots.dir).await?;
        disk.sync_dir(data_dir).await?;
        for entry in disk.list(&snapshots.dir).await? {
            if entry.name.ends_with(TEMP_SUFFIX) {
                disk.remove(&snapshots.dir.join(&entry.name)).await?;
            }
        }
        // A killed process may have left a name that is seen and not stable: nothing may rest on it.
        disk.sync_dir(&snapshots.dir).await?;
        Ok(snapshots)
    }

    /// Where the files are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Offsets of all snapshots, the newest first, whether sound or not.
    pub(super) async fn offsets(&self) -> io::Result<Vec<i64>> {
        let entries = self.disk.list(&self.dir).await?;
        let mut offsets: Vec<i64> = entries.iter().filter_map(|entry| snapshot_offset(&entry.name)).collect();
        offsets.sort_unstable_by(|a, b| b.cmp(a));
        Ok(offsets)
    }

    /// Reads a snapshot and checks that it is whole.
    pub(super) async fn read(&self, offset: i64) -> Result<Snapshot, ReadSnapshotError> {
        let bytes = Bytes::from(self.disk.read_small(&self.path(offset), SNAPSHOT_BYTES_MAX).await?);
        let snapshot = decode_snapshot(&bytes)?;
        if snapshot.offset != offset {
            return Err(ReadSnapshotError::OtherOffset(snapshot.offset));
        }
        Ok(snapshot)
    }

    /// Writes a snapshot, atomically and durably.
    pub(super) async fn write(&self, offset: i64, bytes: Bytes) -> io::Result<()> {
        self.disk.write_small(&self.path(offset), bytes).await
    }

    /// Removes a snapshot. It may come back in a crash, and does no harm.
    pub(super) async fn remove(&self, offset: i64) -> io::Result<()> {
        self.disk.remove(&self.path(offset)).await
    }

    fn path(&self, offset: i64) -> PathBuf {
        self.dir.join(format!("{offset:0DIGITS$}{SUFFIX}"))
    }
}

/// Where a data directory keeps them.
pub(crate) fn snapshots_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("metadata")
}

/// The offset that a file's name says, if it is that of a snapshot.
pub(crate) fn snapshot_offset(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_snapshots() {
        assert_eq!(snapshot_offset("00000000000000000042.snapshot"), Some(42));
        for name in ["42.snapshot", "00000000000000000042.snapshot.tmp", "-0000000000000000042.snapshot", "x"]
        {
            assert_eq!(snapshot_offset(name), None, "{name}");
        }
    }
}
