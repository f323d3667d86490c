//! `penstock-loadgen`: the command line of the load generator and verifier.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use serde_json::json;

use penstock_loadgen::client::Cluster;
use penstock_loadgen::null::{self, NullBroker};
use penstock_loadgen::payload::Payload;
use penstock_loadgen::produce::RunError;
use penstock_loadgen::report::{Totals, write_hdr_log, write_json};
use penstock_loadgen::{consume, end_to_end, produce};

mod chart_cli;
mod cli;
mod verify_cli;

use cli::{Cli, Command, CommonArgs, LoadArgs};

/// Partitions of a null broker's topic, unless --create-partitions says otherwise.
const NULL_PARTITIONS: i32 = 16;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Produce(args) => run(&args.common, Some(&args.load), |cluster| {
            Ok(vec![produce::run(args.load.spec(&args.common, cluster))?])
        }),
        Command::Consume(args) => run(&args.common, None, |cluster| {
            Ok(vec![consume::run(args.fetch.spec(&args.common, cluster, args.from, args.cycle))?])
        }),
        Command::EndToEnd(args) => run(&args.common, Some(&args.load), |cluster| {
            let write = args.load.spec(&args.common, cluster.clone());
            let read = args.fetch.spec(&args.common, cluster, cli::From::Latest, false);
            let (produced, consumed) = end_to_end::run(write, read)?;
            Ok(vec![produced, consumed])
        }),
        Command::Verify(command) => return verify_cli::run(&command),
        Command::Chart(args) => return chart_cli::run(&args),
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

/// Runs a load and shows what it found; false when nothing at all went through.
fn run(
    common: &CommonArgs,
    load: Option<&LoadArgs>,
    work: impl FnOnce(Cluster) -> Result<Vec<Totals>, RunError>,
) -> Result<bool, RunError> {
    // A mistake in their names must not show only when the run is over.
    let unusable = |error: chart_cli::ChartError| RunError::Options(error.to_string());
    let earlier = chart_cli::load_earlier(&common.compare).map_err(unusable)?;
    let started = SystemTime::now();
    let cluster = if common.null { null_cluster(load)? } else { common.cluster() };
    let totals = work(cluster)?;
    let mut out = io::stdout().lock();
    for total in &totals {
        total.write_table(&mut out)?;
    }
    if let Some(path) = &common.json {
        let figures: Vec<_> = totals.iter().map(Totals::to_json).collect();
        write_json(path, &json!({ "null_broker": common.null, "figures": figures }))?;
    }
    if let Some(path) = &common.hdr {
        write_hdr_log(path, started, &totals.iter().collect::<Vec<_>>())?;
    }
    if let Some(directory) = &common.svg {
        let figures = totals.iter().map(Totals::to_figure).collect();
        chart_cli::draw_run(figures, earlier, directory).map_err(unusable)?;
    }
    Ok(totals.iter().all(|total| total.counts.records > 0))
}

fn null_cluster(load: Option<&LoadArgs>) -> Result<Cluster, RunError> {
    let partitions = load.and_then(|load| load.create_partitions).unwrap_or(NULL_PARTITIONS);
    let payload = match load {
        Some(load) => load.payload(),
        None => penstock_loadgen::payload::PayloadSpec {
            record_size: 1024,
            batch_records: 63,
            compression: penstock_format::Compression::None,
            keys: None,
            random: 1.0,
        },
    };
    let batch = Payload::encode(&payload, partitions)?.batch(0).cloned();
    let address = null::start(NullBroker { partitions, batch })?;
    Ok(Cluster::new(&address.to_string(), "penstock-loadgen"))
}
