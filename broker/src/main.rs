//! The Penstock broker: an event streaming broker that speaks Apache Kafka's wire protocol.

mod admin;
mod api;
mod cli;
mod client;
mod command;
mod groups;
mod metadata;
mod network;
mod runtime;
mod serve;
mod shard;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use cli::Command;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.command {
        Command::Serve(args) => {
            log();
            serve::run(&args)
        }
        Command::Topic(args) => command::end(command::topic::run(&args)),
        Command::Group(args) => command::end(command::group::run(&args)),
        Command::Config(args) => command::end(command::config::run(&args)),
        Command::Produce(args) => command::end(command::produce::run(&args)),
        Command::Consume(args) => command::end(command::consume::run(&args)),
        Command::Inspect(args) => command::end(command::inspect::run(&args)),
        Command::Check(args) => command::end(command::check::run(&args)),
        Command::Completions(args) => command::end(command::completions::run(&args)),
    }
}

/// RUST_LOG chooses what is logged; stdout belongs to the ready line.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
}
