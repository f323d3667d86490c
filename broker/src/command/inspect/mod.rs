//! `penstock inspect`: what stands in the files of a data directory, decoded.
//!
//! Nothing is locked and nothing written, so it also works beside a running broker, which is told of: what that is
//! writing just then may look torn, and what it keeps in memory is not shown.

mod checkpoint;
mod journal;
mod metadata;
mod segment;

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use penstock_storage::offline::{Files, OpenFault};
use penstock_storage::shard_dir;

use super::Failure;
use super::files::{HostFiles, shards};
use super::output::Output;
use crate::metadata::snapshots_dir;
use crate::serve::data_dir::DataDir;
use checkpoint::{checkpoint, producers};
use journal::journal;
use metadata::{metadata, snapshot};
use segment::{index, segment};

/// What `inspect` takes.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(subcommand)]
    command: InspectCommand,
    /// Print JSON, for scripts: one document a line.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum InspectCommand {
    /// The batches of a segment, or of all segments in a log's directory.
    Segment {
        /// A file `BASE.log`, or the directory of a log.
        path: PathBuf,
    },
    /// The frames in the journal's files, those left over from earlier runs too.
    Journal {
        /// A file `NNNN.journal`, or a directory of them, or a shard's or the data directory.
        path: PathBuf,
    },
    /// The entries of a segment's index.
    Index {
        /// A file `BASE.index`, or the directory of a log.
        path: PathBuf,
    },
    /// The idempotent producers that a checkpoint remembers for each log.
    Producers {
        /// A file `checkpoint`, or a shard's or the data directory.
        path: PathBuf,
    },
    /// The records of metadata snapshots, which stand for what the metadata log no longer holds.
    Snapshot {
        /// A file `OFFSET.snapshot`, or the data directory.
        path: PathBuf,
    },
    /// Where the journal stood at a checkpoint, and the logs with their segments.
    Checkpoint {
        /// A file `checkpoint`, or a shard's or the data directory.
        path: PathBuf,
    },
    /// The records of the metadata log: topics, partitions, configs. What was before its start is in a snapshot.
    Metadata {
        /// The data directory, or that of shard 0.
        path: PathBuf,
    },
}

impl From<OpenFault> for Failure {
    fn from(fault: OpenFault) -> Failure {
        let remedy = match fault {
            OpenFault::Io { .. } => "; give a file or directory that is there and may be read",
            OpenFault::NewerVersion { .. } => "; use the version of penstock that wrote it",
            OpenFault::Damaged { .. } => "; is it a file of this kind?",
        };
        Failure::Failed(format!("{fault}{remedy}"))
    }
}

impl InspectCommand {
    fn path(&self) -> &Path {
        match self {
            InspectCommand::Segment { path }
            | InspectCommand::Journal { path }
            | InspectCommand::Index { path }
            | InspectCommand::Producers { path }
            | InspectCommand::Snapshot { path }
            | InspectCommand::Checkpoint { path }
            | InspectCommand::Metadata { path } => path,
        }
    }
}

#[allow(clippy::print_stderr, reason = "the note is for whoever typed the command")]
pub(crate) fn run(args: &InspectArgs) -> Result<(), Failure> {
    if DataDir::is_running(args.command.path()) == Some(true) {
        eprintln!(
            "penstock: a broker runs on this data directory: what it is writing may look torn, and what it keeps in \
             memory is not shown"
        );
    }
    let files = HostFiles::default();
    let mut out = Output::new(args.json);
    match &args.command {
        InspectCommand::Segment { path } => {
            each(&files, path, ".log", |file| segment(&files, &mut out, file))?;
        }
        InspectCommand::Journal { path } => {
            each(&files, path, ".journal", |file| journal(&files, &mut out, file))?;
        }
        InspectCommand::Index { path } => each(&files, path, ".index", |file| index(&files, &mut out, file))?,
        InspectCommand::Producers { path } => {
            each(&files, path, "checkpoint", |file| producers(&files, &mut out, file))?;
        }
        InspectCommand::Snapshot { path } => {
            each(&files, path, ".snapshot", |file| snapshot(&files, &mut out, file))?;
        }
        InspectCommand::Checkpoint { path } => {
            each(&files, path, "checkpoint", |file| checkpoint(&files, &mut out, file))?;
        }
        InspectCommand::Metadata { path } => metadata(&files, &mut out, path)?,
    }
    Ok(out.finish()?)
}

/// Shows `see` the file `path`, or those below it whose names end so: in the directory itself, in its `journal`, or, if
/// it is a data directory, in those of its shards and of its metadata.
fn each(
    files: &HostFiles,
    path: &Path,
    ending: &str,
    mut see: impl FnMut(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if !path.is_dir() {
        return see(path);
    }
    let unreadable = |dir: &Path| {
        let dir = dir.display().to_string();
        move |error: io::Error| Failure::Failed(format!("{dir}: {error}"))
    };
    let mut dirs = vec![path.to_owned()];
    for shard in shards(files, path).map_err(unreadable(path))? {
        dirs.push(shard_dir(path, shard));
    }
    match ending {
        ".journal" => {
            let journals: Vec<_> =
                dirs.iter().map(|dir| dir.join("journal")).filter(|dir| dir.is_dir()).collect();
            dirs.extend(journals);
        }
        ".snapshot" => dirs.extend(Some(snapshots_dir(path)).filter(|dir| dir.is_dir())),
        _ => {}
    }
    let mut seen = false;
    for dir in dirs {
        for entry in files.list(&dir).map_err(unreadable(&dir))? {
            if !entry.is_dir && entry.name.ends_with(ending) {
                seen = true;
                see(&dir.join(entry.name))?;
            }
        }
    }
    let nothing = || {
        let path = path.display();
        Failure::Failed(format!(
            "{path} holds no file named {ending}; name the file, or a directory that holds it"
        ))
    };
    if seen { Ok(()) } else { Err(nothing()) }
}
