//! The seam between the log engine and storage hardware.
//!
//! The engine is written against [`Disk`] and [`DiskFile`] alone, so that the same code runs on the shard's
//! io_uring ([`real`]) and on a deterministic simulated disk that loses, tears and reorders what was not
//! flushed ([`sim`]).
//!
//! Invariants:
//! - Everything here belongs to one thread. No future is `Send`, no handle crosses cores; only
//!   [`AlignedBuf`] and the [`Bytes`] made from it may travel.
//! - File positions, lengths and memory given to [`DiskFile`] are multiples of [`BLOCK`]; they are asserted,
//!   because they come from our own code, never from outside.
//! - Only a completed [`DiskFile::sync_data`] makes earlier *completed* writes of that file stable, and only a
//!   completed [`Disk::sync_dir`] makes creations, renames and removals in that directory stable. Nothing else
//!   does: not closing, not the flush of another file.
//! - Dropping a future gives up its result, not its effect: a write that was begun may still reach the disk.
//!   Buffers live until the device is done with them.

mod aligned;
pub mod preflight;
pub mod real;
pub mod ring;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod tasks;
pub mod workers;

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

pub use aligned::AlignedBuf;

/// Unit of direct I/O in bytes: file positions, lengths and memory addresses are multiples of it.
pub const BLOCK: usize = 4096;

/// Ending of the temporary file that [`Disk::write_small`] renames into place. A crash may leave one behind:
/// whoever lists a directory ignores such names, and may remove them.
pub const TEMP_SUFFIX: &str = ".tmp";

/// One entry of [`Disk::list`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// File name without its directory. Names that are not UTF-8 are none of ours and are not listed.
    pub name: String,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Size and room of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Its size in bytes.
    pub total_bytes: u64,
    /// What this process may still write, in bytes.
    pub usable_bytes: u64,
}

/// A file system as one shard sees it, with the executor that drives it. Clones are handles on the same disk.
#[allow(
    async_fn_in_trait,
    reason = "futures stay on the shard's thread by design: Send bounds are not wanted"
)]
pub trait Disk: Clone + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens an existing file for direct reading and writing.
    async fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Creates a file of `size` bytes (a multiple of [`BLOCK`], allocated, reading as zeros) and opens it.
    /// Fails with `AlreadyExists` where the path is taken. Stable after `sync_data` and `sync_dir` of its parent.
    async fn create(&self, path: &Path, size: u64) -> io::Result<Self::File>;

    /// Whether a file or directory of that path exists.
    async fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Entries of a directory, sorted by name.
    async fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Creates a directory and its missing ancestors. Stable when every created directory's parent was synced.
    async fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Renames a file or directory, replacing a file at `to`. Stable after `sync_dir` of both parents.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Open handles keep working.
    async fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and everything in it.
    async fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes the directory's entries stable.
    async fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Reads a whole small file. Fails with `InvalidData` if it is longer than `bytes_max`.
    async fn read_small(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>>;

    /// Replaces a small file by `bytes`, atomically and durably: temporary file, write, sync, rename, sync of the
    /// parent. After a crash the file has its old or its new content, whole; once this returned, the new.
    async fn write_small(&self, path: &Path, bytes: Bytes) -> io::Result<()>;

    /// Size and room of the file system that holds `dir`.
    async fn volume(&self, dir: &Path) -> io::Result<Volume>;

    /// Runs a task beside the caller, on the same thread, until it ends by itself. Who looks for what holds up the thread is
    /// told its name.
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + 'static);

    /// Runs a computation beside this thread, which it holds up no more than its start and its end do. It runs even if
    /// the future is dropped. Fails if it panicked.
    async fn compute<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T>;

    /// Waits for at least `duration`.
    async fn sleep(&self, duration: Duration);

    /// Lets other tasks of this thread run.
    async fn yield_now(&self);
}

/// An open file. Clones are handles on the same open file, which is closed with the last of them.
///
/// Several operations may be in flight at once, in any order of completion. Writes in flight at the same time
/// must not overlap (the outcome would be undefined); the simulated disk asserts it.
#[allow(
    async_fn_in_trait,
    reason = "futures stay on the shard's thread by design: Send bounds are not wanted"
)]
pub trait DiskFile: Clone + 'static {
    /// Writes all of `data` at `position`, growing the file where needed. `data` must be aligned memory, as
    /// [`AlignedBuf::freeze`] gives it. On an error any part of it may have been written.
    async fn write_at(&self, data: Bytes, position: u64) -> io::Result<()>;

    /// Reads up to `len` bytes from `position`; fewer only where the file ends (none beyond its end).
    async fn read_at(&self, position: u64, len: usize) -> io::Result<AlignedBuf>;

    /// Makes every write and allocation stable that completed before this was called (fdatasync). After an
    /// error nothing is known about them, and a later success says nothing about them either.
    async fn sync_data(&self) -> io::Result<()>;

    /// Reserves space for `len` bytes from `position`, growing the file; what was not written reads as zeros.
    async fn allocate(&self, position: u64, len: u64) -> io::Result<()>;

    /// Size in bytes, with all completed writes and allocations of this handle and its clones.
    fn size(&self) -> u64;
}

/// Whether `data` may be given to [`DiskFile::write_at`]: address and length are multiples of [`BLOCK`].
pub fn is_aligned(data: &[u8]) -> bool {
    data.as_ptr().addr().is_multiple_of(BLOCK) && data.len().is_multiple_of(BLOCK)
}
