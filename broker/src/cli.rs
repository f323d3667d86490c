//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::command::check::CheckArgs;
use crate::command::completions::CompletionsArgs;
use crate::command::config::ConfigArgs;
use crate::command::consume::ConsumeArgs;
use crate::command::group::GroupArgs;
use crate::command::inspect::InspectArgs;
use crate::command::produce::ProduceArgs;
use crate::command::topic::TopicArgs;

/// Penstock: an event streaming broker that speaks Apache Kafka's wire protocol.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a broker until SIGTERM or SIGINT.
    Serve(ServeArgs),
    /// Create, list, describe, alter and delete topics.
    Topic(TopicArgs),
    /// List and describe consumer groups, reset their offsets, delete them.
    Group(GroupArgs),
    /// Show, set and unset configs of topics and brokers.
    Config(ConfigArgs),
    /// Write the lines of stdin to a topic, a record each.
    Produce(ProduceArgs),
    /// Print the records of a topic.
    Consume(ConsumeArgs),
    /// Print what stands in the files of a data directory.
    Inspect(InspectArgs),
    /// Verify a data directory while no broker runs on it; nothing is written.
    #[command(
        after_help = "Exit status: 0 nothing was found, 1 something was found, 2 it could not be checked."
    )]
    Check(CheckArgs),
    /// Print a script that lets a shell complete commands and options.
    Completions(CompletionsArgs),
}

/// What `serve` takes. Flags go before `--set`, `--set` before the file, the file before defaults.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Broker configuration in Kafka's server.properties format.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory that holds all data of this broker [default: log.dirs, else ./penstock-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the Kafka listener; port 0 takes a free one [default: listeners, else 127.0.0.1:9092].
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Address of the admin HTTP listener; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
    pub(crate) admin: String,
    /// Number of shards, each an executor with partitions, journal and listener of its own [default: one per
    /// usable core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: Option<u16>,
    /// Memory for records, requests, indexes and the like in MiB [default: penstock.memory.bytes, else half of what the
    /// machine has to give].
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: Option<u64>,
    /// Sets one broker configuration key; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}
