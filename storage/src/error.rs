//! Errors of the log engine, one small enum per kind of operation, attributed to the caller or to the disk.

use std::fmt;
use std::io;
use std::rc::Rc;

use crate::producer::ProducerError;

/// Why a log or a whole store stopped serving. It stays so until the store is opened anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offline {
    /// What happened, in one sentence.
    pub reason: Rc<str>,
}

impl Offline {
    pub(crate) fn new(reason: impl fmt::Display) -> Offline {
        Offline { reason: reason.to_string().into() }
    }
}

impl fmt::Display for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed or refused.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// The disk's answer.
        source: io::Error,
    },
    /// Acknowledged data is damaged in a way that no log can be blamed for alone (journal, checkpoint).
    #[error("store is corrupt: {0}")]
    Corrupt(String),
    /// Written by a newer version of this software.
    #[error("{file} has format version {found}, and this version of penstock reads up to {supported}")]
    NewerVersion {
        /// Which file.
        file: String,
        /// Version in the file.
        found: u16,
        /// Newest version that can be read.
        supported: u16,
    },
    /// The configuration cannot work.
    #[error("invalid store configuration: {0}")]
    Config(&'static str),
}

impl OpenError {
    pub(crate) fn io(context: impl fmt::Display) -> impl FnOnce(io::Error) -> OpenError {
        move |source| OpenError::Io { context: context.to_string(), source }
    }
}

/// Why an append was refused. Nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log or its store is offline after a disk failure.
    #[error("log is offline: {0}")]
    Offline(Offline),
    /// No space for new segments; retriable, clears by itself when space returns.
    #[error("disk is full")]
    DiskFull,
    /// A truncation of this log is under way; retriable.
    #[error("log is being truncated")]
    Busy,
    /// The store is closing or closed, or the log was removed.
    #[error("log is closed")]
    Closed,
    /// No batch was given.
    #[error("nothing to append")]
    Empty,
    /// The batches would take more bytes than a commit can hold; a single one may come by `append_large`.
    #[error("append of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// Bytes of all batches.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Offsets or epochs of batches that carry their own do not continue the log.
    #[error("batch at offset {found} with epoch {epoch} does not continue the log at {expected}")]
    NotContiguous {
        /// Next offset of the log.
        expected: i64,
        /// Base offset found.
        found: i64,
        /// Leader epoch found.
        epoch: i32,
    },
    /// The producer's sequence or epoch does not fit what it wrote before, or the bound on producers is met.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// More is waiting for the journal than it can take; retriable. Does not happen to who calls `reserve`.
    #[error("journal is full")]
    JournalFull,
    /// What is known of the producer is on disk, or room has to be made for it: wait for [`crate::Log::admit_producers`],
    /// and append then. Does not happen to `append_large`, which waits itself.
    #[error("producer {0} has to be brought to memory first")]
    ProducerAway(i64),
}

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The offset is outside `start..=end`.
    #[error("offset is outside {start}..={end}")]
    OutOfRange {
        /// Log start offset.
        start: i64,
        /// Log end offset.
        end: i64,
    },
    /// The bytes on disk are not what was written.
    #[error("segment {segment_base} is corrupt at position {position}")]
    Corrupt {
        /// Base offset of the segment.
        segment_base: i64,
        /// File position of the bad batch.
        position: u64,
    },
    /// The disk failed.
    #[error("read failed: {0}")]
    Io(String),
    /// The log or its store is offline after a disk failure.
    #[error("log is offline: {0}")]
    Offline(Offline),
}

/// Why an operation on a store or on a log as a whole failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The log or its store is offline after a disk failure.
    #[error("offline: {0}")]
    Offline(Offline),
    /// A log of that name exists.
    #[error("log {0} exists")]
    Exists(String),
    /// No log of that name.
    #[error("log {0} does not exist")]
    NotFound(String),
    /// Names are 1-249 bytes of `[A-Za-z0-9._@-]`, and not `.` or `..`.
    #[error("{0:?} is no valid log name")]
    InvalidName(String),
    /// The offset is outside `start..=end`.
    #[error("offset is outside {start}..={end}")]
    OutOfRange {
        /// Log start offset.
        start: i64,
        /// Log end offset.
        end: i64,
    },
    /// Another change of the same log is under way; retriable.
    #[error("another change of this log is under way")]
    Busy,
    /// The store is closing or closed, or the log was removed.
    #[error("closed")]
    Closed,
    /// No space; retriable, clears by itself when space returns.
    #[error("disk is full")]
    DiskFull,
    /// More is waiting for the journal than it can take; retriable.
    #[error("journal is full")]
    JournalFull,
    /// A truncation could not be carried out; the log is offline.
    #[error("{0}")]
    Io(String),
}

impl From<Offline> for StoreError {
    fn from(offline: Offline) -> StoreError {
        StoreError::Offline(offline)
    }
}
