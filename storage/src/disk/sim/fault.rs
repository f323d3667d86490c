//! Faults that a test plants in the simulated disk.

use std::path::Path;

/// Kinds of operation, for faults and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `read_at`, `read_small`.
    Read,
    /// `write_at`, and the write within `write_small`.
    Write,
    /// `sync_data`, and the sync within `write_small`.
    Sync,
    /// `allocate`.
    Allocate,
    /// Operations on names: `open`, `create`, `exists`, `list`, `create_dir_all`, `rename`, `remove`.
    Name,
    /// `sync_dir`.
    SyncDir,
}

impl Operation {
    pub(super) const COUNT: usize = 6;
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The operation fails with this errno (`libc::EIO`, `libc::ENOSPC`, ...). A failed write may have been applied in
    /// part; what a failed sync covered is never made stable by a later one.
    Fail(i32),
    /// Writes and syncs report success without doing anything. Other operations ignore it and work.
    Ignore,
}

/// A fault: strikes operations of one kind on paths that contain a text.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Kind of operation struck.
    pub operation: Operation,
    /// Part of the path (under which the file was opened); empty for all.
    pub path_contains: String,
    /// Matching operations that are let through first.
    pub skip: u64,
    /// Operations struck after that.
    pub times: u64,
    /// What happens to them.
    pub effect: Effect,
}

impl Fault {
    /// The effect on this operation, if it is struck; counts it.
    pub(super) fn strike(&mut self, operation: Operation, path: &Path) -> Option<Effect> {
        if operation != self.operation || !path.to_string_lossy().contains(&self.path_contains) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if self.times == 0 {
            return None;
        }
        self.times -= 1;
        Some(self.effect)
    }
}

/// A fault in a world.
pub(super) struct Planted {
    pub(super) fault: Fault,
    /// The first operation of this kind on a path that contains this text ends it.
    pub(super) until: Option<(Operation, String)>,
}

impl Planted {
    /// Whether this operation ends the fault.
    pub(super) fn ends(&self, operation: Operation, path: &Path) -> bool {
        let matches =
            |(kind, text): &(Operation, String)| *kind == operation && path.to_string_lossy().contains(text);
        self.until.as_ref().is_some_and(matches)
    }
}
