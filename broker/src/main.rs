//! The Penstock broker: an event streaming broker that speaks Apache Kafka's wire protocol.

mod admin;
mod api;
mod cli;
mod groups;
mod metadata;
mod network;
mod runtime;
mod serve;
mod shard;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Request buffers come and go at the rate of the network: this allocator backs them with large pages and frees them
/// for less (decision 5).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // RUST_LOG chooses what is logged; stdout belongs to the ready line.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    match cli.command {
        cli::Command::Serve(args) => serve::run(&args),
    }
}
