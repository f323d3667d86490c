//! The broker's figures beside the machine's ceilings, all in one run: each figure at least `--seconds` long, the broker on
//! one core and the client on another, segments written behind, ratios only between figures of the same run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Map, Value, json};

use penstock_loadgen::chart::{self, Named};

use crate::broker::BrokerSpec;
use crate::device::Device;
use crate::{machine, process, work_dir};

pub(crate) mod ceilings;
mod cleaning;
mod cold;
pub(crate) mod scenarios;
mod seconds;
mod table;
mod targets;

/// What to measure, with what, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct FiguresArgs {
    /// The broker's release binary [default: penstock beside this program]
    #[arg(long)]
    pub(crate) broker: Option<PathBuf>,
    /// The load generator's release binary [default: penstock-loadgen beside this program]
    #[arg(long)]
    pub(crate) loadgen: Option<PathBuf>,
    /// Directory for data, on the file system to measure; about 30 GiB are used
    #[arg(long, default_value = "penstock-perf-data")]
    pub(crate) data_dir: PathBuf,
    /// Where the figures are written
    #[arg(long, default_value = "perf/results")]
    pub(crate) out: PathBuf,
    /// Name of the figures: they go to DATE-NAME.json and DATE-NAME.md
    #[arg(long, default_value = "figures")]
    pub(crate) name: String,
    /// How long each measurement takes
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// How long each scenario runs before it is measured
    #[arg(long, default_value_t = 10)]
    pub(crate) warm_up: u64,
    /// Shards of the broker
    #[arg(long, default_value_t = 1)]
    pub(crate) shards: usize,
    /// Core of the broker
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// Core of the client
    #[arg(long, default_value_t = 1)]
    pub(crate) client_core: usize,
    /// GiB that are written before they are read cold
    #[arg(long, default_value_t = 20)]
    pub(crate) cold_gib: u64,
    /// Only these measurements, separated by commas; ratios need both of their sides
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
}

impl FiguresArgs {
    /// What [`prepare`] needs of a command that measures something else.
    pub(crate) fn on(data_dir: &Path, server_core: usize, client_core: usize) -> FiguresArgs {
        FiguresArgs {
            broker: None,
            loadgen: None,
            data_dir: data_dir.to_owned(),
            out: PathBuf::new(),
            name: String::new(),
            seconds: 0,
            warm_up: 0,
            shards: 1,
            server_core,
            client_core,
            cold_gib: 0,
            only: Vec::new(),
        }
    }
}

/// What all measurements need.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) loadgen: PathBuf,
    pub(crate) broker: BrokerSpec,
    /// Its own: see [`work_dir`].
    pub(crate) work_dir: PathBuf,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) server_core: usize,
    pub(crate) client_core: usize,
    pub(crate) cold_gib: u64,
    /// None where the data lies on no block device that counts.
    pub(crate) device: Option<Device>,
}

/// A measurement: its name, and what does it. It may look at what was measured before it.
pub(crate) type Measurement = (&'static str, fn(&Bench, &Map<String, Value>) -> io::Result<Value>);

/// What the load generator is given for a measurement of producing at the maximum, if this is the name of one.
pub(crate) fn loads(name: &str) -> Option<Vec<String>> {
    Some(match name {
        "produce_16_partitions" => scenarios::produce_args(16, None),
        "produce_1000_partitions" => scenarios::produce_args(1000, None),
        "produce_keyed_1000_partitions" => targets::keyed_args(1000),
        "produce_keyed_10000_partitions" => targets::keyed_args(10_000),
        "produce_small_100_connections" => targets::small_args(100),
        "produce_small_1000_connections" => targets::small_args(1000),
        _ => return None,
    })
}

/// What is drawn, and where it stands.
const CHARTS: &[(&str, &str)] = &[
    ("produce-16-partitions", "/figures/produce_16_partitions"),
    ("produce-half-load", "/figures/produce_half_load"),
    ("produce-beside-cold-read", "/figures/fetch_cold/produce"),
    ("produce-beside-cleaning", "/figures/cleaning/produce"),
];

/// Measures everything in turn and writes the figures.
pub(crate) fn run(args: &FiguresArgs) -> io::Result<()> {
    let bench = prepare(args)?;
    let all = scenarios::ALL;
    if let Some(unknown) = args.only.iter().find(|name| !all.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        return Err(io::Error::other(format!("`{unknown}` is none of {}", known.join(", "))));
    }
    let mut figures = Map::new();
    for (name, measure) in all.iter().copied() {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        eprintln!("measuring {name}");
        // One that fails must not take the others with it.
        let value = measure(&bench, &figures).unwrap_or_else(|error| json!({ "failed": error.to_string() }));
        eprintln!("{name}: {value}");
        figures.insert(name.to_owned(), value);
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
    let date = machine::date_of(seconds);
    let report = json!({
        "date": date,
        "command": command_line(args),
        "machine": machine::fingerprint(&bench.work_dir),
        "cores": { "broker": args.server_core, "client": args.client_core },
        "seconds": args.seconds,
        "warm_up_seconds": args.warm_up,
        "shards": args.shards,
        "ratios": table::ratios(&figures),
        "figures": figures,
    });
    fs::create_dir_all(&args.out)?;
    let stem = args.out.join(format!("{date}-{}", args.name));
    fs::write(stem.with_extension("json"), format!("{report:#}\n"))?;
    let text = table::markdown(&report);
    draw(&report, &stem)?;
    fs::write(stem.with_extension("md"), &text)?;
    println!("{text}");
    work_dir::remove(&bench.work_dir)
}

/// Charts of what has percentiles and a series: `STEM/MEASUREMENT-latency.svg` and `STEM/MEASUREMENT-over-time.svg`.
fn draw(report: &Value, stem: &Path) -> io::Result<()> {
    for (name, path) in CHARTS {
        let Some(run) = report.pointer(path) else { continue };
        let text = json!({ "figures": [run] }).to_string();
        let Ok(figures) = chart::read(&text) else { continue };
        let named: Vec<Named<'_>> = figures.iter().map(|figure| Named { name, figure }).collect();
        fs::create_dir_all(stem)?;
        fs::write(stem.join(format!("{name}-latency.svg")), chart::latency(&named))?;
        fs::write(stem.join(format!("{name}-over-time.svg")), chart::over_time(&named))?;
    }
    Ok(())
}

/// Finds the binaries and the cores, and makes the directory for data.
pub(crate) fn prepare(args: &FiguresArgs) -> io::Result<Bench> {
    let beside = |given: &Option<PathBuf>, name: &str| -> io::Result<PathBuf> {
        let path = match given {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.parent().unwrap_or(Path::new(".")).join(name),
        };
        match path.exists() {
            true => fs::canonicalize(path),
            false => Err(io::Error::other(format!("{} is not there; build it first", path.display()))),
        }
    };
    let cores = process::allowed_cores()?;
    if let Some(core) = [args.server_core, args.client_core].iter().find(|core| !cores.contains(core)) {
        return Err(io::Error::other(format!("core {core} may not be used here; usable: {cores:?}")));
    }
    let work_dir = work_dir::make(&args.data_dir)?;
    let broker = BrokerSpec {
        binary: beside(&args.broker, "penstock")?,
        data_dir: work_dir.join("broker"),
        shards: args.shards,
        core: Some(args.server_core),
    };
    Ok(Bench {
        loadgen: beside(&args.loadgen, "penstock-loadgen")?,
        broker,
        duration: Duration::from_secs(args.seconds),
        warm_up: Duration::from_secs(args.warm_up),
        server_core: args.server_core,
        client_core: args.client_core,
        cold_gib: args.cold_gib,
        device: Device::holding(&work_dir).ok(),
        work_dir,
    })
}

/// What repeats these figures, without the paths of this machine.
fn command_line(args: &FiguresArgs) -> String {
    let mut command = format!(
        "penstock-perf figures --name {} --seconds {} --warm-up {} --shards {} --server-core {} --client-core {} --cold-gib {}",
        args.name, args.seconds, args.warm_up, args.shards, args.server_core, args.client_core, args.cold_gib
    );
    if !args.only.is_empty() {
        command.push_str(&format!(" --only {}", args.only.join(",")));
    }
    command
}
