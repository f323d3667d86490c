//! `penstock-loadgen verify`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use penstock_loadgen::client::{Cluster, TopicSpec};
use penstock_loadgen::quantity::{ByteSize, Span};
use penstock_loadgen::verify::{
    CheckReport, Delivery, Finished, Run, Verifier, VerifyError, VerifySpec, check, read_state,
};
use penstock_loadgen::workers::block_on;

use crate::cli::{Codec, acks, key_value};

/// Parts of a verification.
#[derive(Debug, Subcommand)]
pub(crate) enum VerifyCommand {
    /// Produce for a while, then check
    Run(RunArgs),
    /// Produce, and remember in a file what was acknowledged; ends early on Ctrl-C
    Produce(ProduceArgs),
    /// Check what a file remembers
    Check(CheckArgs),
}

/// Where.
#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    /// Brokers to begin with: HOST:PORT, several separated by commas
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// How long the broker may be away
    #[arg(long, default_value = "60s")]
    patience: Span,
}

/// What to produce.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The topic
    #[arg(long, default_value = "verify")]
    topic: String,
    /// Create the topic with so many partitions, unless it exists
    #[arg(long)]
    create_partitions: Option<i32>,
    /// Copies of each partition of a created topic; -1 for the broker's default
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    replication: i16,
    /// Config of a created topic, KEY=VALUE; may be given several times
    #[arg(long = "config", value_parser = key_value)]
    configs: Vec<(String, String)>,
    /// How long to produce
    #[arg(long, default_value = "30s")]
    duration: Span,
    /// Bytes of the largest value; lengths vary up to it
    #[arg(long, default_value = "1KiB")]
    record_size: ByteSize,
    /// Records of the largest batch; counts vary up to it
    #[arg(long, default_value_t = 100)]
    batch_records: u64,
    /// Partitions that share a connection and their requests
    #[arg(long, default_value_t = 4)]
    partitions_per_connection: usize,
    /// Requests in flight on a connection, at most 5; without idempotence always 1
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// Without a producer id: each record at least once, not exactly once
    #[arg(long)]
    at_least_once: bool,
    /// Acknowledgements: 1 or all
    #[arg(long, default_value = "all", value_parser = acks, allow_hyphen_values = true)]
    acks: i16,
    /// Codec of the batches
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
    /// Pause between two requests of a connection
    #[arg(long, default_value = "0")]
    pause: Span,
}

/// `verify run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    load: LoadArgs,
}

/// `verify produce`.
#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Where to remember what was acknowledged; appended to
    #[arg(long)]
    state: PathBuf,
}

/// `verify check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// What `verify produce` has remembered
    #[arg(long)]
    state: PathBuf,
}

/// Runs a part; the exit status says whether all is well.
pub(crate) fn run(command: &VerifyCommand) -> ExitCode {
    let result = match command {
        VerifyCommand::Run(args) => produce(&args.place, &args.load, None)
            .and_then(|finished| check_runs(&args.place, &[finished.run])),
        VerifyCommand::Produce(args) => produce(&args.place, &args.load, Some(args.state.clone()))
            .map(|finished| finished.unacknowledged == 0),
        VerifyCommand::Check(args) => {
            read_state(&args.state).map_err(VerifyError::from).and_then(|runs| check_runs(&args.place, &runs))
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("penstock-loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn produce(place: &WhereArgs, load: &LoadArgs, state: Option<PathBuf>) -> Result<Finished, VerifyError> {
    let patience = place.patience.0;
    let create = load.create_partitions.map(|partitions| TopicSpec {
        name: load.topic.clone(),
        partitions,
        replication: load.replication,
        configs: load.configs.clone(),
    });
    if load.acks == 0 {
        return Err(std::io::Error::other("nothing is acknowledged with acks=0").into());
    }
    let verifier = Verifier::start(VerifySpec {
        cluster: Cluster::new(&place.bootstrap, "penstock-loadgen"),
        topic: load.topic.clone(),
        create,
        record_size: load.record_size.0 as usize,
        batch_records: load.batch_records,
        partitions_per_connection: load.partitions_per_connection,
        in_flight: load.in_flight,
        delivery: if load.at_least_once { Delivery::AtLeast } else { Delivery::Exactly },
        acks: load.acks,
        compression: load.compression.compression(),
        pause: load.pause.0,
        patience,
        state,
    });
    wait(&verifier, load.duration.0)?;
    let finished = verifier.stop(patience)?;
    println!(
        "run {:016x}: {} records acknowledged, {} not, {} retries",
        finished.run.run_id,
        finished.run.acked_records(),
        finished.unacknowledged,
        finished.retries
    );
    Ok(finished)
}

/// Shows progress each second, until the time is over, Ctrl-C, or producing failed.
fn wait(verifier: &Verifier, duration: Duration) -> std::io::Result<()> {
    block_on(async {
        let (start, mut before) = (Instant::now(), 0);
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        while start.elapsed() < duration && !verifier.has_failed() {
            let next = Duration::from_secs(1).min(duration.saturating_sub(start.elapsed()));
            tokio::select! {
                _ = &mut interrupt => return,
                () = tokio::time::sleep(next) => {}
            }
            let now = verifier.acknowledged();
            eprintln!("{:>6.1} s  {now} acknowledged, {} since", start.elapsed().as_secs_f64(), now - before);
            before = now;
        }
    })
}

fn check_runs(place: &WhereArgs, runs: &[Run]) -> Result<bool, VerifyError> {
    let cluster = Cluster::new(&place.bootstrap, "penstock-loadgen");
    let report: CheckReport = block_on(check(&cluster, runs, place.patience.0))??;
    print!("{report}");
    Ok(report.is_clean())
}
