//! A store as recovery would leave it: the checkpoint, and the journal's frames applied to it in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::check::Finding;
use super::journal::Ring;
use super::replay::Replay;
use super::segment::{Batches, Piece};
use super::{Files, read_whole};
use crate::checkpoint::{self, Checkpoint, CheckpointError, LogRecord, Redo};
use crate::checkpointer::checkpoint_path;
use crate::frame::AppendEntry;
use crate::segment::{DATA_START, file_name};
use crate::state::logs_dir;

/// Why a store's state cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// The disk's answer.
    #[error("{}: {error}", .path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// What the disk said.
        error: io::Error,
    },
    /// Written by a newer version of this software.
    #[error("{} has format version {version}, which this version does not know", .path.display())]
    NewerVersion {
        /// Which file.
        path: PathBuf,
        /// Version in the file.
        version: u16,
    },
    /// The file that tells what is live is damaged or missing.
    #[error("{}: {reason}", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl OpenFault {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> OpenFault {
        let path = path.to_owned();
        move |error| OpenFault::Io { path, error }
    }
}

/// A store that nobody has open.
#[derive(Debug)]
pub struct OfflineStore {
    pub(super) logs: BTreeMap<u64, OfflineLog>,
    pub(super) frames: u64,
    pub(super) torn: Option<u64>,
    pub(super) findings: Vec<Finding>,
}

/// A log of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineLog {
    /// Never used twice.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// First readable offset.
    pub start_offset: i64,
    /// Offset after the last record.
    pub end_offset: i64,
    /// Its segments with readable records, oldest first.
    pub segments: Vec<OfflineSegment>,
    pub(super) record: Option<LogRecord>,
    /// What follows the damage in the journal cannot be told.
    pub(super) broken: bool,
}

/// A segment of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineSegment {
    /// Offset that it begins with.
    pub base: i64,
    /// Life of its file.
    pub life: u64,
    /// Position after its last batch, in bytes.
    pub end: u64,
    /// Its file.
    pub path: PathBuf,
    /// Some of its bytes are in that file and nowhere else.
    pub(super) needs_file: bool,
    pub(super) pieces: Vec<Piece>,
}

impl OfflineSegment {
    /// The segment that an append begins, still empty.
    pub(super) fn new(append: &AppendEntry, path: PathBuf) -> OfflineSegment {
        OfflineSegment {
            base: append.segment_base,
            life: append.life,
            end: DATA_START,
            path,
            needs_file: false,
            pieces: Vec::new(),
        }
    }

    /// Its batches from the first to the end.
    pub fn batches<'a, F: Files>(&'a self, files: &'a F) -> Batches<'a, F> {
        self.batches_in(files, DATA_START, self.end)
    }

    pub(super) fn batches_in<'a, F: Files>(&'a self, files: &'a F, from: u64, to: u64) -> Batches<'a, F> {
        Batches::new(files, &self.path, &self.pieces, from..to)
    }
}

impl OfflineStore {
    /// Reads checkpoint and journal of the store in `dir`.
    pub fn open(files: &impl Files, dir: &Path) -> Result<OfflineStore, OpenFault> {
        let Checkpoint { redo, logs } = load_checkpoint(files, dir)?;
        let ring = Ring::new(files, dir, redo);
        let chain = ring.chain()?;
        let mut whole = chain.frames.len();
        loop {
            let logs = logs.iter().map(|record| (record.id, OfflineLog::of(dir, record))).collect();
            let mut replay = Replay { files, dir, chain: &chain, logs, findings: Vec::new() };
            // What a frame removed or deleted changes how the frames before it are judged, so a chain that turns out
            // to be shorter is replayed from the start.
            match replay.frames(&ring, whole)? {
                Some(torn) => whole = torn,
                None => {
                    let torn = chain.frames.get(whole).map(|found| found.header.seq);
                    return Ok(replay.finish(&chain, whole, torn));
                }
            }
        }
    }

    /// The log of that name.
    pub fn log(&self, name: &str) -> Option<&OfflineLog> {
        self.logs.values().find(|log| log.name == name)
    }

    /// All logs, by rising id.
    pub fn logs(&self) -> impl Iterator<Item = &OfflineLog> {
        self.logs.values()
    }
}

impl OfflineLog {
    fn of(dir: &Path, record: &LogRecord) -> OfflineLog {
        let log_dir = logs_dir(dir).join(&record.name);
        let segment = |known: &checkpoint::SegmentRecord| OfflineSegment {
            base: known.base,
            life: known.life,
            end: known.end,
            path: log_dir.join(file_name(known.base)),
            needs_file: true,
            pieces: Vec::new(),
        };
        OfflineLog {
            id: record.id,
            name: record.name.clone(),
            start_offset: record.start_offset,
            end_offset: record.end_offset,
            segments: record.segments.iter().map(segment).collect(),
            record: Some(record.clone()),
            broken: !record.damage.is_empty(),
        }
    }

    /// Lets go of segments that lie wholly before the log's start: their files may be gone.
    pub(super) fn drop_deleted(&mut self) {
        loop {
            let end = match self.segments.as_slice() {
                [] => return,
                [_] => self.end_offset,
                [_, second, ..] => second.base,
            };
            if end > self.start_offset {
                return;
            }
            self.segments.remove(0);
        }
    }
}

/// The checkpoint, or that of a new store.
fn load_checkpoint(files: &impl Files, dir: &Path) -> Result<Checkpoint, OpenFault> {
    let path = checkpoint_path(dir);
    let damaged = |reason: &str| OpenFault::Damaged { path: path.clone(), reason: reason.to_owned() };
    let bytes = match read_whole(files, &path, checkpoint::LEN_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let logs = files.list(&logs_dir(dir));
            if logs.is_ok_and(|logs| !logs.is_empty()) {
                return Err(damaged("it is missing although there are logs"));
            }
            return Ok(Checkpoint {
                redo: Redo { seq: 1, clean: true, ..Redo::default() },
                logs: Vec::new(),
            });
        }
        read => read.map_err(OpenFault::io(&path))?,
    };
    let checkpoint = checkpoint::decode(&bytes).map_err(|error| match error {
        CheckpointError::NewerVersion(version) => OpenFault::NewerVersion { path: path.clone(), version },
        CheckpointError::Damaged => damaged("it is damaged"),
    })?;
    for log in &checkpoint.logs {
        let follow = log.segments.windows(2).all(|pair| pair[0].base < pair[1].base);
        if !follow || log.segments.iter().any(|segment| segment.end < DATA_START) {
            return Err(damaged(&format!("segments of log {} do not follow each other", log.name)));
        }
    }
    Ok(checkpoint)
}
