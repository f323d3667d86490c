//! Reads and verifies the files of a store that nobody has open, without writing anything.
//!
//! [`check_store`] follows the chain from the checkpoint over the journal to every batch of every segment, as recovery
//! would, and reports what does not hold. [`OfflineStore`] gives the batches of a log as recovery would bring them
//! about: what a segment's file holds, overlaid by what the journal holds for it. [`view`] decodes single files.
//!
//! It is written apart from recovery on purpose: the two agree because the format document says what is right, not
//! because they share their mistakes. Files are reached through [`Files`], so that it runs on any disk.
//!
//! Bounds: one journal frame and one read of [`READ_BYTES`] (or one batch, where that is longer) in memory at a time,
//! besides the checkpoint and some 200 bytes for each entry of a journal frame, which names a piece of a segment.

mod check;
mod journal;
mod replay;
mod segment;
mod store;
pub mod view;

use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::disk::DirEntry;

pub use check::{CheckReport, FINDINGS_MAX, Finding, check_store};
pub use segment::{BatchFault, BatchView, Batches};
pub use store::{OfflineLog, OfflineSegment, OfflineStore, OpenFault};

/// Bytes read at once.
const READ_BYTES: u64 = 1 << 20;

/// Files, to be read only.
pub trait Files {
    /// Up to `len` bytes from `position`; fewer only where the file ends. Fails with `NotFound` where there is none.
    fn read(&self, path: &Path, position: u64, len: u64) -> io::Result<Bytes>;

    /// Size in bytes. Fails with `NotFound` where there is none.
    fn size(&self, path: &Path) -> io::Result<u64>;

    /// Entries of a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
}

/// The whole of a file of at most `bytes_max` bytes.
fn read_whole(files: &impl Files, path: &Path, bytes_max: usize) -> io::Result<Bytes> {
    let size = files.size(path)?;
    if size > bytes_max as u64 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is longer than {bytes_max} bytes"),
        ));
    }
    files.read(path, 0, size)
}
