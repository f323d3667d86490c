//! What is done in a life of the crash test, and within which limits.

use penstock_storage::{LogConfig, StoreConfig};

/// What the clients of a store do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) store: StoreConfig,
    pub(crate) log: LogConfig,
    pub(crate) logs: usize,
    /// Operations of each client in one life.
    pub(crate) operations: u64,
    /// Largest record value in bytes.
    pub(crate) value_bytes_max: u64,
    /// Largest batch that no frame can hold, in bytes; 0 for none of them.
    pub(crate) large_bytes_max: u64,
    /// Longest pause between two operations in ms, for checkpoints to come between two appends.
    pub(crate) pause_ms_max: u64,
    /// Close the store at the end of a life that is not cut short.
    pub(crate) close: bool,
}

impl Plan {
    /// Bytes of batches that a start may replay: what the store's settings allow, what is appended before a checkpoint that is
    /// due begins, and a commit behind it.
    pub(crate) fn replayed_bytes_max(&self) -> u64 {
        let store = &self.store;
        let commit = self.large_bytes_max + store.commit_bytes_target as u64;
        let allowed = store.checkpoint_bytes.saturating_add(store.checkpoint_late_bytes_max);
        allowed.saturating_add(store.unsettled_bytes_max as u64 + 2 * commit)
    }
}
