//! A store as recovery would leave it: the checkpoint, and the journal's frames applied to it in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::check::Finding;
use super::journal::Ring;
use super::replay::Replay;
use super::segment::{Batches, Piece};
use super::{Files, read_whole};
use crate::checkpoint::{self, Checkpoint, CheckpointError, LogRecord};
use crate::checkpoint_file::{checkpoint_path, copy_path, decode, is_outrun, none_yet};
use crate::frame::AppendEntry;
use crate::segment::{DATA_START, file_name};
use crate::spill::RunRecord;
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
    /// The runs of producers.
    pub(super) runs: Vec<RunRecord>,
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
        let (Checkpoint { redo, logs, runs }, findings) = load_checkpoint(files, dir)?;
        let ring = Ring::new(files, dir, redo);
        let chain = ring.chain()?;
        let mut whole = chain.frames.len();
        loop {
            let logs = logs.iter().map(|record| (record.id, OfflineLog::of(dir, record))).collect();
            let mut replay = Replay { files, dir, chain: &chain, logs, findings: findings.clone() };
            // What a frame removed or deleted changes how the frames before it are judged, so a chain that turns out
            // to be shorter is replayed from the start.
            match replay.frames(&ring, whole)? {
                Some(torn) => whole = torn,
                None => {
                    let torn = chain.frames.get(whole).map(|found| found.header.seq);
                    return Ok(OfflineStore { runs, ..replay.finish(&chain, whole, torn) });
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
            path: log_dir.join(file_name(known.base, known.cleaned.then_some(known.life))),
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

/// A checkpoint's file.
enum Read {
    Missing,
    Damaged,
    Sound(Checkpoint),
}

/// The checkpoint, or its copy, or that of a new store; and what is wrong with the two files.
fn load_checkpoint(files: &impl Files, dir: &Path) -> Result<(Checkpoint, Vec<Finding>), OpenFault> {
    let (path, copy_path) = (checkpoint_path(dir), copy_path(dir));
    let of =
        |path: &Path, what: &str| Finding { file: Some(path.to_owned()), ..Finding::new(what.to_owned()) };
    let copy = read_checkpoint(files, &copy_path);
    let what = match read_checkpoint(files, &path)? {
        Read::Sound(checkpoint) => {
            let damaged = matches!(copy, Ok(Read::Damaged));
            let what = "it is damaged; the next start writes it anew";
            let findings = if damaged { vec![of(&copy_path, what)] } else { Vec::new() };
            return checked(&path, checkpoint).map(|checkpoint| (checkpoint, findings));
        }
        Read::Damaged => "it is damaged",
        Read::Missing => "it is missing although there are logs",
    };
    match copy? {
        Read::Sound(copy) => {
            let ring = Ring::new(files, dir, copy.redo);
            if is_outrun(&copy, &ring.first_block()?, u64::MAX) {
                let reason = format!("{what}, and its copy is older than the journal");
                return Err(OpenFault::Damaged { path, reason });
            }
            let finding = of(&path, &format!("{what}; the next start takes its copy"));
            Ok((checked(&copy_path, copy)?, vec![finding]))
        }
        Read::Missing if what != "it is damaged" => match files.list(&logs_dir(dir)) {
            Ok(logs) if !logs.is_empty() => Err(OpenFault::Damaged { path, reason: what.to_owned() }),
            _ => Ok((none_yet(), Vec::new())),
        },
        _ => Err(OpenFault::Damaged { path, reason: format!("{what}, and there is no sound copy") }),
    }
}

fn read_checkpoint(files: &impl Files, path: &Path) -> Result<Read, OpenFault> {
    let bytes = match read_whole(files, path, checkpoint::LEN_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Missing),
        read => read.map_err(OpenFault::io(path))?,
    };
    match decode(&bytes) {
        Ok(checkpoint) => Ok(Read::Sound(checkpoint)),
        Err(CheckpointError::Damaged) => Ok(Read::Damaged),
        Err(CheckpointError::NewerVersion(version)) => {
            Err(OpenFault::NewerVersion { path: path.to_owned(), version })
        }
    }
}

/// Checks what a decoded checkpoint claims.
fn checked(path: &Path, checkpoint: Checkpoint) -> Result<Checkpoint, OpenFault> {
    for log in &checkpoint.logs {
        let follow = log.segments.windows(2).all(|pair| pair[0].base < pair[1].base);
        if !follow || log.segments.iter().any(|segment| segment.end < DATA_START) {
            let reason = format!("segments of log {} do not follow each other", log.name);
            return Err(OpenFault::Damaged { path: path.to_owned(), reason });
        }
    }
    Ok(checkpoint)
}
