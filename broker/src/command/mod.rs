//! The commands that look at brokers and their files, one file each: what `penstock serve` is not.
//!
//! Exit status: 0 done, 1 it failed (or `check` found something), 2 wrong usage (or `check` could not check). Results go
//! to stdout, in words or with `--json` as JSON; errors go to stderr as one line that says what to do.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod consume;
mod files;
pub(crate) mod group;
pub(crate) mod inspect;
mod output;
pub(crate) mod produce;
mod time;
pub(crate) mod topic;

use std::io;
use std::process::ExitCode;

use clap::Args;

use crate::client::{ClientError, Cluster};
use output::Output;

const USAGE: u8 = 2;

/// What every command that asks a broker takes.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// A broker to start from; several with commas between are tried in turn.
    #[arg(long, global = true, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Print JSON, for scripts.
    #[arg(long, global = true)]
    json: bool,
}

impl Remote {
    fn cluster(&self) -> Result<Cluster, Failure> {
        Ok(Cluster::new(&self.bootstrap)?)
    }

    fn output(&self) -> Output {
        Output::new(self.json)
    }
}

/// Why a command ends without having done what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    /// Everything that could be said was said already; only the exit status is left.
    #[error("exit status {0}")]
    Said(u8),
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Client(ClientError::Address(_)) => USAGE,
            Failure::Said(status) => *status,
            Failure::Client(_) | Failure::Failed(_) | Failure::Output(_) => 1,
        }
    }
}

/// The exit status of a command, after its error was told.
#[allow(clippy::print_stderr, reason = "the error is for whoever typed the command")]
pub(crate) fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Said(_)) {
                eprintln!("penstock: {failure}");
            }
            ExitCode::from(failure.status())
        }
    }
}

/// Splits `KEY=VALUE`.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
