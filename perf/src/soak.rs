//! A soak of the broker's executors: all shards on one core that a busy loop shares, a small steady load, and every
//! answer within a bound. A lost wake-up of the runtime (decision 2) would show as an answer that never comes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::Args;
use serde_json::json;

use crate::figures::{Bench, FiguresArgs, prepare, scenarios};
use crate::{broker::Broker, process, work_dir};

/// What to run, and the bound to hold.
#[derive(Debug, Clone, Args)]
pub(crate) struct SoakArgs {
    /// How long
    #[arg(long, default_value_t = 90)]
    seconds: u64,
    /// Shards of the broker, all on one core
    #[arg(long, default_value_t = 2)]
    shards: usize,
    /// Requests a second; few enough that shards park between them
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// Busy loops on the broker's core
    #[arg(long, default_value_t = 1)]
    busy: usize,
    /// Longest time to an answer in milliseconds
    #[arg(long, default_value_t = 2000.0)]
    bound_ms: f64,
    /// Directory for data
    #[arg(long, default_value = "penstock-perf-data")]
    data_dir: std::path::PathBuf,
}

/// Runs the soak; an error if an answer was missing or later than the bound.
pub(crate) fn run(args: &SoakArgs) -> io::Result<()> {
    let bench = prepare(&FiguresArgs {
        seconds: args.seconds,
        warm_up: 2,
        shards: args.shards,
        ..FiguresArgs::on(&args.data_dir, 0, 1)
    })?;
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..args.busy).map(|_| busy_loop(bench.server_core, stop.clone())).collect();
    let soaked = soak(&bench, args);
    stop.store(true, Ordering::Relaxed);
    for thread in busy {
        thread.join().map_err(|_| io::Error::other("a busy loop panicked"))??;
    }
    let figures = soaked?;
    work_dir::remove(&bench.work_dir)?;
    println!("{figures:#}");
    let longest_ms = figures["latency_us"]["max"].as_f64().unwrap_or(f64::INFINITY) / 1000.0;
    let requests = figures["requests"].as_u64().unwrap_or(0);
    let held = figures["unanswered"] == json!(0) && figures["errors"] == json!({});
    match held && longest_ms <= args.bound_ms && requests >= args.seconds * args.rate / 2 {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{requests} requests were answered, the slowest after {longest_ms:.0} ms; an answer was missing, late or an error"
        ))),
    }
}

fn soak(bench: &Bench, args: &SoakArgs) -> io::Result<serde_json::Value> {
    let broker = Broker::start(&bench.broker)?;
    let load = [
        "produce".to_owned(),
        "--create-partitions=8".to_owned(),
        "--connections=4".to_owned(),
        "--batch-records=1".to_owned(),
        format!("--rate={}", args.rate),
    ];
    let figures = scenarios::loadgen(bench, Some(&broker.address), load.to_vec())?;
    broker.stop()?;
    Ok(figures)
}

fn busy_loop(core: usize, stop: Arc<AtomicBool>) -> thread::JoinHandle<io::Result<()>> {
    thread::spawn(move || {
        process::pin_thread(core)?;
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        Ok(())
    })
}
