//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use penstock_format::Compression;
use penstock_loadgen::client::{Cluster, OffsetSpec, TopicSpec};
use penstock_loadgen::consume::{ConsumeSpec, FetchBounds};
use penstock_loadgen::payload::PayloadSpec;
use penstock_loadgen::produce::ProduceSpec;
use penstock_loadgen::quantity::{ByteSize, PartitionSet, Rate, Span};

/// Load generator and verifier for any broker that speaks Kafka's protocol.
#[derive(Debug, Parser)]
#[command(name = "penstock-loadgen", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Produce at a rate or at the maximum
    Produce(ProduceArgs),
    /// Consume at the maximum
    Consume(ConsumeArgs),
    /// Produce and consume at once, and measure the time from one to the other
    EndToEnd(EndToEndArgs),
    /// Produce records that name themselves, remember what was acknowledged, and check that it is there
    #[command(subcommand)]
    Verify(crate::verify_cli::VerifyCommand),
    /// Draw what runs found, from the files that --json wrote
    Chart(ChartArgs),
}

/// Where, how long, and what to do with the figures.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommonArgs {
    /// Brokers to begin with: HOST:PORT, several separated by commas
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap: String,
    /// The topic
    #[arg(long, default_value = "loadgen")]
    pub(crate) topic: String,
    /// Only these partitions, such as 0,3,8-11
    #[arg(long)]
    pub(crate) partitions: Option<PartitionSet>,
    /// Connections of each producer (reader) to each broker
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// How long to measure
    #[arg(long, default_value = "30s")]
    pub(crate) duration: Span,
    /// How long to run before measuring
    #[arg(long, default_value = "5s")]
    pub(crate) warm_up: Span,
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Write the figures to this file as JSON
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Write the latencies of each second to this file as an HdrHistogram log
    #[arg(long)]
    pub(crate) hdr: Option<PathBuf>,
    /// Draw charts into this directory: latency by percentile, throughput and latency over time
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
    /// Draw these earlier runs (files of --json) in the same charts
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "svg")]
    pub(crate) compare: Vec<PathBuf>,
    /// No progress lines
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Measure the client itself: against a broker in this process that keeps nothing
    #[arg(long)]
    pub(crate) null: bool,
}

/// `chart`.
#[derive(Debug, Args)]
pub(crate) struct ChartArgs {
    /// A run, as --json wrote it
    #[arg(value_name = "FILE", required_unless_present = "compare")]
    pub(crate) run: Option<PathBuf>,
    /// Runs that are drawn in the same charts
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) compare: Vec<PathBuf>,
    /// Where the charts go
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) svg: PathBuf,
}

/// What to produce.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// Create the topic with so many partitions, unless it exists
    #[arg(long)]
    pub(crate) create_partitions: Option<i32>,
    /// Copies of each partition of a created topic; -1 for the broker's default
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    pub(crate) replication: i16,
    /// Config of a created topic, KEY=VALUE; may be given several times
    #[arg(long = "config", value_parser = key_value)]
    pub(crate) configs: Vec<(String, String)>,
    /// Bytes of each record's value
    #[arg(long, default_value = "1KiB")]
    pub(crate) record_size: ByteSize,
    /// Bytes of each batch, at most
    #[arg(long, default_value = "64KiB")]
    pub(crate) batch_size: ByteSize,
    /// Records of each batch, instead of --batch-size
    #[arg(long)]
    pub(crate) batch_records: Option<usize>,
    /// Batches, of different partitions, in each request
    #[arg(long, default_value_t = 1)]
    pub(crate) batches_per_request: usize,
    /// So many distinct keys, sent where Kafka's partitioner would send them; otherwise records have none
    #[arg(long)]
    pub(crate) keyed: Option<u64>,
    /// The part of each value that is random, 0 to 1; the rest compresses
    #[arg(long, default_value_t = 1.0)]
    pub(crate) random: f64,
    /// Codec of the batches
    #[arg(long, value_enum, default_value_t = Codec::None)]
    pub(crate) compression: Codec,
    /// Independent producers, each writing to every partition
    #[arg(long, default_value_t = 1)]
    pub(crate) producers: usize,
    /// Acknowledgements: 0, 1 or all
    #[arg(long, default_value = "all", value_parser = acks, allow_hyphen_values = true)]
    pub(crate) acks: i16,
    /// Produce with a producer id and sequences
    #[arg(long)]
    pub(crate) idempotent: bool,
    /// Open loop: records a second (50k), or bytes a second (100MB/s). Without it, the maximum
    #[arg(long)]
    pub(crate) rate: Option<Rate>,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 5)]
    pub(crate) in_flight: usize,
}

/// How to fetch.
#[derive(Debug, Clone, Args)]
pub(crate) struct FetchArgs {
    /// Independent readers, each reading every partition
    #[arg(long, default_value_t = 1)]
    pub(crate) readers: usize,
    /// Most bytes of an answer
    #[arg(long, default_value = "50MiB")]
    pub(crate) max_bytes: ByteSize,
    /// Most bytes of a partition in an answer
    #[arg(long, default_value = "1MiB")]
    pub(crate) partition_max_bytes: ByteSize,
    /// Bytes that the broker waits for
    #[arg(long, default_value = "1")]
    pub(crate) min_bytes: ByteSize,
    /// How long the broker waits for them, at most
    #[arg(long, default_value = "500ms")]
    pub(crate) max_wait: Span,
}

/// `produce`.
#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// `consume`.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
    /// Where to begin
    #[arg(long, value_enum, default_value_t = From::Earliest)]
    pub(crate) from: From,
    /// At the end of a partition, begin anew
    #[arg(long)]
    pub(crate) cycle: bool,
}

/// `end-to-end`.
#[derive(Debug, Args)]
pub(crate) struct EndToEndArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum From {
    /// The first record there is
    Earliest,
    /// After the last record there is
    Latest,
}

/// Codec of batches.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs)] // each is its own name
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From {
    fn spec(self) -> OffsetSpec {
        match self {
            From::Earliest => OffsetSpec::Earliest,
            From::Latest => OffsetSpec::Latest,
        }
    }
}

impl Codec {
    pub(crate) fn compression(self) -> Compression {
        match self {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn acks(text: &str) -> Result<i16, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        "all" | "-1" => Ok(-1),
        _ => Err("acknowledgements are 0, 1 or all".to_owned()),
    }
}

impl CommonArgs {
    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::new(&self.bootstrap, "penstock-loadgen")
    }
}

impl LoadArgs {
    pub(crate) fn payload(&self) -> PayloadSpec {
        let record_size = self.record_size.0 as usize;
        let fitting = || PayloadSpec::records_in(self.batch_size.0 as usize, record_size);
        PayloadSpec {
            record_size,
            batch_records: self.batch_records.unwrap_or_else(fitting).max(1),
            compression: self.compression.compression(),
            keys: self.keyed,
            random: self.random,
        }
    }

    pub(crate) fn spec(&self, common: &CommonArgs, cluster: Cluster) -> ProduceSpec {
        let create = self.create_partitions.filter(|_| !common.null).map(|partitions| TopicSpec {
            name: common.topic.clone(),
            partitions,
            replication: self.replication,
            configs: self.configs.clone(),
        });
        ProduceSpec {
            cluster,
            topic: common.topic.clone(),
            create,
            partitions: common.partitions.clone().map(|set| set.0),
            payload: self.payload(),
            producers: self.producers.max(1),
            connections: common.connections,
            acks: self.acks,
            idempotent: self.idempotent,
            rate: self.rate,
            in_flight: self.in_flight.max(1),
            batches_per_request: self.batches_per_request.max(1),
            warm_up: common.warm_up.0,
            duration: common.duration.0,
            threads: common.threads,
            progress: !common.quiet,
        }
    }
}

impl FetchArgs {
    pub(crate) fn spec(&self, common: &CommonArgs, cluster: Cluster, from: From, cycle: bool) -> ConsumeSpec {
        let int32 = |size: ByteSize| i32::try_from(size.0).unwrap_or(i32::MAX);
        ConsumeSpec {
            cluster,
            topic: common.topic.clone(),
            partitions: common.partitions.clone().map(|set| set.0),
            readers: self.readers.max(1),
            connections: common.connections,
            from: from.spec(),
            cycle,
            fetch: FetchBounds {
                max_bytes: int32(self.max_bytes),
                partition_max_bytes: int32(self.partition_max_bytes),
                min_bytes: int32(self.min_bytes),
                max_wait_ms: i32::try_from(self.max_wait.0.as_millis()).unwrap_or(i32::MAX),
            },
            warm_up: common.warm_up.0,
            duration: common.duration.0,
            threads: common.threads,
            progress: !common.quiet,
        }
    }
}
