//! The logs of one shard, with their journal.

use std::marker::PhantomData;
use std::path::Path;

use crate::config::{LogConfig, StoreConfig};
use crate::disk::Disk;
use crate::error::{OpenError, StoreError};
use crate::log::Log;

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Logs in the store.
    pub logs: usize,
    /// Journal frames replayed; 0 after a clean close.
    pub frames_replayed: u64,
    /// Bytes of batches in them.
    pub bytes_replayed: u64,
    /// Frames after the last whole one that were discarded as never acknowledged.
    pub torn_tail: bool,
    /// Logs taken offline because acknowledged data is damaged, with the reason.
    pub offline: Vec<(String, String)>,
}

/// Counters and levels of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Logs.
    pub logs: usize,
    /// Commits made stable.
    pub commits: u64,
    /// Flush rounds.
    pub flushes: u64,
    /// Bytes of batches appended.
    pub appended_bytes: u64,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Bytes written straight to segments.
    pub direct_bytes: u64,
    /// Bytes written behind to segments.
    pub writeback_bytes: u64,
    /// Journal bytes that a checkpoint would free.
    pub journal_used_bytes: u64,
    /// Bytes appended and not yet settled in segments.
    pub unsettled_bytes: usize,
    /// Bytes of batches in memory, settled or not.
    pub cache_bytes: usize,
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// Segment files open.
    pub open_files: usize,
    /// Whether appends are refused for want of space.
    pub disk_full: bool,
}

/// All logs of one shard. Clones are handles on the same store.
pub struct Store<D: Disk> {
    _disk: PhantomData<D>,
}

impl<D: Disk> Clone for Store<D> {
    fn clone(&self) -> Self {
        Store { _disk: PhantomData }
    }
}

/// Room in the unsettled budget, held until the append it was asked for has been made.
#[must_use = "room is given back when this is dropped"]
pub struct Reservation<D: Disk> {
    _disk: PhantomData<D>,
}

#[allow(clippy::unimplemented, unused_variables, missing_docs)]
impl<D: Disk> Store<D> {
    /// Opens the store in `dir` (created if missing), recovers what the journal holds, and starts its tasks.
    /// Configs of logs are the defaults until set.
    pub async fn open(
        disk: D,
        dir: &Path,
        config: StoreConfig,
        now_ms: i64,
    ) -> Result<(Store<D>, RecoveryReport), OpenError> {
        unimplemented!()
    }

    /// All logs, sorted by name.
    pub fn logs(&self) -> Vec<Log<D>> {
        unimplemented!()
    }

    /// The log of that name.
    pub fn log(&self, name: &str) -> Option<Log<D>> {
        unimplemented!()
    }

    /// Creates an empty log, durably.
    pub async fn create_log(&self, name: &str, config: LogConfig) -> Result<Log<D>, StoreError> {
        unimplemented!()
    }

    /// Removes a log and its data, durably.
    pub async fn remove_log(&self, name: &str) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Waits until `bytes` more may be appended within the budget (a request larger than the whole budget waits
    /// until nothing else is unsettled). Hold the answer until the append was made. Fails only when offline or closed.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation<D>, StoreError> {
        unimplemented!()
    }

    /// Work of the clock, to be called about once a second: retention, expiry of producers, checkpoint, retry
    /// after a full disk.
    pub async fn tick(&self, now_ms: i64) {
        unimplemented!()
    }

    /// Settles everything and writes a clean checkpoint; reopening then replays nothing. Appends are refused from
    /// the call on. All tasks of the store have ended when it returns.
    pub async fn close(&self) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Counters and levels.
    pub fn stats(&self) -> StoreStats {
        unimplemented!()
    }
}
