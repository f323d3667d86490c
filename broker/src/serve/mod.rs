//! `penstock serve`: from the command line to a running broker and back to a clean end.
//!
//! The main thread checks the host, takes the data directory and the ports, starts the shards and leads them through
//! their stages (see [`stages`]); afterwards it waits for a signal. Nothing a client sends reaches it.

pub(crate) mod data_dir;
mod descriptors;
mod options;
mod shard_main;
mod stages;

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use penstock_core::config::memory::MemoryPart;
use penstock_storage::disk::preflight;

use crate::admin;
use crate::cli::ServeArgs;
use crate::metadata::RandomIds;
use crate::network::listener::{self, SocketOptions};
use crate::runtime::{heap, os, panics};
use crate::serve::data_dir::{DataDir, Meta};
use crate::serve::options::Options;
use crate::serve::stages::{Event, Fleet};

/// Why the broker cannot run, or had to stop: one sentence with a remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) String);

/// Open files that any system grants.
const FILES_LEAST: u64 = 1024;
/// How long a start waits for the last writes of a predecessor that was killed.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Any error that says by itself what is wrong and what to do.
pub(crate) fn refusal(error: impl std::fmt::Display) -> Refusal {
    Refusal(error.to_string())
}

/// Runs a broker until a signal ends it.
#[allow(clippy::print_stderr, reason = "the refusal is for whoever typed the command")]
pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("penstock: {refusal}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &ServeArgs) -> Result<(), Refusal> {
    // Before any thread exists: neither reads the allocator's options meanwhile, nor gets the signals.
    heap::keep_free_pages();
    os::block_stop_signals().map_err(|e| Refusal(format!("cannot block signals: {e}")))?;
    panics::install();
    let mut options = Options::resolve(args)?;
    preflight::check(&options.data_dir).map_err(refusal)?;
    if let Some(warning) = preflight::warning(&options.data_dir) {
        tracing::warn!("{warning}");
    }
    let dir = DataDir::lock(&options.data_dir, LOCK_PATIENCE).map_err(refusal)?;
    dir.path().clone_into(&mut options.data_dir);
    let (meta, before) = claim(&dir, &options)?;
    let segment_files = share_descriptors(&mut options);
    tell_memory(&options);
    let sockets = SocketOptions {
        backlog: options.config.socket_backlog,
        send_buffer_bytes: options.config.socket_send_buffer_bytes,
        receive_buffer_bytes: options.config.socket_receive_buffer_bytes,
    };
    let (address, listeners) = listener::bind(&options.listen, options.shards, &sockets).map_err(refusal)?;
    let admin_listener = admin::bind(&options.admin).map_err(refusal)?;
    let admin_address = admin_listener.local_addr().map_err(refusal)?;

    let (events, inbox) = mpsc::channel();
    watch_signals(events.clone())?;
    let mut fleet = Fleet::launch(&options, (&dir, segment_files), listeners, (events, inbox))?;
    if before.is_some_and(|before| before.shards != options.shards) {
        // Until it is done, a start with whatever number of shards has to do it again.
        dir.write_meta(&Meta { shards: Meta::MOVING, ..meta.clone() }).map_err(refusal)?;
        fleet.reshard()?;
    }
    let shared = fleet.open(&options, &meta, address)?;
    // Only now do all shards hold what the mark says.
    dir.write_meta(&meta).map_err(refusal)?;
    fleet.start(&shared)?;
    admin::start(admin_listener, shared.clone()).map_err(refusal)?;
    announce(&format!("ready kafka={address} admin={admin_address} shards={}", options.shards))?;
    let ended = fleet.wait();
    let stopped = fleet.stop();
    tracing::info!("stopped");
    ended.and(stopped)
}

/// Whose data the directory holds from now on, and whose it held before.
fn claim(dir: &DataDir, options: &Options) -> Result<(Meta, Option<Meta>), Refusal> {
    let before = dir.read_meta().map_err(refusal)?;
    let wanted = options.config.cluster_id.as_deref();
    let cluster_id = match &before {
        Some(meta) => {
            dir.check_owner(meta, options.config.node_id, wanted).map_err(refusal)?;
            meta.cluster_id.clone()
        }
        None => match wanted {
            Some(wanted) => wanted.to_owned(),
            None => RandomIds::open().map_err(refusal)?.draw().to_string(),
        },
    };
    let meta = Meta { cluster_id, node_id: options.config.node_id, shards: options.shards };
    Ok((meta, before))
}

/// Says how the memory is shared out.
fn tell_memory(options: &Options) {
    let mib = |bytes: u64| bytes >> 20;
    let parts = MemoryPart::ALL.map(|part| format!("{} {}", part.name(), mib(options.memory.bytes(part))));
    let (total, shards) = (mib(options.memory.total()), options.shards);
    tracing::info!("memory of each of {shards} shards: {total} MiB ({})", parts.join(", "));
}

/// Raises the limit of open files and keeps connections below it; gives the segment files that each shard may hold open.
fn share_descriptors(options: &mut Options) -> usize {
    let limit = os::raise_open_files().unwrap_or_else(|error| {
        tracing::warn!("cannot raise the limit of open files: {error}");
        FILES_LEAST
    });
    let wanted = options.config.connections_max;
    let journal_files = shard_main::journal_files(&options.config) as usize;
    let shares = descriptors::share(limit, options.shards, journal_files, wanted);
    if shares.connections < wanted {
        let connections = shares.connections;
        tracing::warn!(
            "only {limit} files may be open: {connections} connections are served at once instead of {wanted}; \
             raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
    options.config.connections_max = shares.connections;
    shares.segments
}

/// Turns the first signal into a stop and every further one into haste.
fn watch_signals(events: mpsc::Sender<Event>) -> Result<(), Refusal> {
    let watch = move || {
        loop {
            let event = match os::wait_for_stop() {
                Ok(name) => Event::Signal(name),
                Err(error) => Event::Failed(format!("cannot wait for signals: {error}")),
            };
            if events.send(event).is_err() {
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name("signals".to_owned()).spawn(watch);
    spawned.map(drop).map_err(|e| Refusal(format!("cannot start the signal thread: {e}")))
}

/// The one line on stdout. Whoever started us may have closed it: then there is nobody to tell.
fn announce(line: &str) -> Result<(), Refusal> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Refusal(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
