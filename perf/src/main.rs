//! Measured ceilings of a machine, and the figures of the broker beside them.
//!
//! `raw-writer` and `loopback` say what the disk and the loopback can do with nothing around them;
//! `compare` runs scenarios against Penstock and Apache Kafka in turn; `figures` measures the broker's release binary beside them in one run; `recovery` kills it and
//! measures the next start; `soak` shows that its executors miss no wake-up.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;

mod broker;
mod compare;
mod device;
mod figures;
mod load;
mod loopback;
mod machine;
mod overhead;
mod process;
mod producers;
mod raw_writer;
mod recovery;
mod ring;
mod soak;
mod work_dir;

use loopback::LoopbackSpec;
use raw_writer::RawWriterSpec;

#[derive(Debug, Parser)]
#[command(name = "penstock-perf", version, about = "Measured ceilings, scenarios and their figures")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The disk's ceiling: a group-commit writer with nothing around it
    RawWriter(RawWriterArgs),
    /// The loopback's ceilings: bytes each way between two cores, and echoed requests
    Loopback(LoopbackArgs),
    /// The broker's figures beside these ceilings, in one run
    Figures(figures::FiguresArgs),
    /// Penstock beside Apache Kafka: the same scenarios in turn
    Compare(compare::CompareArgs),
    /// Kill the broker under load and start it again: time to the first answers, by amount stored
    Recovery(recovery::RecoveryArgs),
    /// All shards on one busy core under a small load: every answer must come in time
    Soak(soak::SoakArgs),
    /// Idempotent producers come and go over very many partitions: the memory must stay within its budget
    Producers(producers::ProducersArgs),
    /// What recording latencies costs: its share of a shard's time under load, by the kernel's profiler
    Overhead(overhead::OverheadArgs),
}

/// The disk's ceiling.
#[derive(Debug, Args)]
struct RawWriterArgs {
    /// Directory on the file system to measure
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// KiB of one group commit
    #[arg(long, default_value_t = 1024)]
    group_kib: usize,
    /// KiB that a group writes to one file
    #[arg(long, default_value_t = 64)]
    share_kib: usize,
    /// Segment files, used in turn
    #[arg(long, default_value_t = 16)]
    files: usize,
    /// MiB of each segment file, written full beforehand
    #[arg(long, default_value_t = 64)]
    file_mib: u64,
    /// Groups being written at once
    #[arg(long, default_value_t = 4)]
    depth: usize,
    /// Microseconds from one group to the next [default: as many as go through]
    #[arg(long)]
    pause_us: Option<u64>,
    /// How long
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Pin to this core
    #[arg(long)]
    core: Option<usize>,
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The loopback's ceilings.
#[derive(Debug, Args)]
struct LoopbackArgs {
    /// Core of the receiving side
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the sending side
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// How long each of the three measurements takes
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Connections of the echo
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests in flight on each connection of the echo
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Bytes of each echoed request
    #[arg(long, default_value_t = 1024)]
    request_bytes: usize,
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::RawWriter(args) => raw_writer(&args),
        Command::Loopback(args) => loopback(&args),
        Command::Figures(args) => figures::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Recovery(args) => recovery::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Producers(args) => producers::run(&args),
        Command::Overhead(args) => overhead::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn raw_writer(args: &RawWriterArgs) -> io::Result<()> {
    if let Some(core) = args.core {
        process::pin_thread(core)?;
    }
    let spec = RawWriterSpec {
        group_bytes: args.group_kib << 10,
        share_bytes: args.share_kib << 10,
        files: args.files,
        file_bytes: args.file_mib << 20,
        depth: args.depth,
        duration: seconds(args.seconds)?,
        pause: args.pause_us.map(Duration::from_micros),
    };
    let figures = raw_writer::run(&args.dir, &spec)?;
    println!("raw writer: {:.0} MB/s durable", figures.megabytes_per_second());
    show(&figures.to_json(), args.json.as_deref())
}

fn loopback(args: &LoopbackArgs) -> io::Result<()> {
    let spec = LoopbackSpec {
        server_core: args.server_core,
        client_core: args.client_core,
        duration: seconds(args.seconds)?,
        connections: args.connections,
        depth: args.depth,
        request_bytes: args.request_bytes,
    };
    let figures = loopback::run(&spec)?;
    println!(
        "loopback: receive {:.0} MB/s, send {:.0} MB/s, echo {:.0} requests/s",
        figures.receive_mb_per_second, figures.send_mb_per_second, figures.echo_per_second
    );
    show(&figures.to_json(), args.json.as_deref())
}

fn seconds(seconds: f64) -> io::Result<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(io::Error::other)
}

fn show(figures: &Value, json: Option<&std::path::Path>) -> io::Result<()> {
    let text = format!("{figures:#}\n");
    match json {
        Some(path) => std::fs::write(path, text),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}
