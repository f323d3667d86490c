//! Penstock beside Apache Kafka: the same scenarios on the same core and disk, in turn, round by round, with our own client and
//! with Kafka's. Every peer is started anew for each cell and has all the time it needs to warm up under the load that is
//! measured; a peer that fails is reported as such.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Map, Value, json};

use penstock_loadgen::chart::{self, Figure, Named};
use penstock_loadgen::quantity::ByteSize;

use crate::device::Device;
use crate::figures::{FiguresArgs, ceilings, prepare};
use crate::{machine, work_dir};

mod cell;
mod kafka;
mod peer;
mod scenario;
mod table;
mod tools;
mod verdict;

use cell::{Bench, Cell, Rates};
use kafka::KafkaSpec;
use peer::{PeerKind, Peers};
use scenario::{RateOf, Scenario};
use verdict::Medians;

/// What the machine can do is context here, not a side of a ratio.
const CEILING_SECONDS_MAX: u64 = 10;
/// Where a rate that is taken from another scenario stands in its cells.
const OWN_RATE: &str = "/loadgen/produce/records_per_second";
const TOOL_RATE: &str = "/kafka-client/records_per_second";

/// What to compare, with what, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// Only these scenarios, by name or file, separated by commas [default: all of --scenarios]
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Directory of the scenarios
    #[arg(long, default_value = "perf/scenarios")]
    scenarios: PathBuf,
    /// Only these brokers, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<PeerKind>,
    /// Rounds; the order of the brokers turns with each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each measurement takes
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long each broker runs under the load before it is measured; a Java compiler on one core needs 30 s of full load and more
    #[arg(long, default_value_t = 60)]
    warm: u64,
    /// A broker that goes faster and faster while it is measured is measured again, until it was under load for so long
    #[arg(long, default_value_t = 400)]
    warm_max: u64,
    /// Bytes that scenarios write beforehand, instead of what they say; 20GiB for what no page cache holds
    #[arg(long)]
    fill: Option<ByteSize>,
    /// Leave Kafka's own clients out
    #[arg(long)]
    no_kafka_client: bool,
    /// Apache Kafka is here (its jars in libs) [default: Maven brings it, once, into the directory above this program's]
    #[arg(long, value_name = "DIR")]
    kafka_home: Option<PathBuf>,
    /// Version of Apache Kafka that Maven brings
    #[arg(long, default_value = "4.3.1")]
    kafka_version: String,
    /// The broker's release binary [default: penstock beside this program]
    #[arg(long)]
    broker: Option<PathBuf>,
    /// The load generator's release binary [default: penstock-loadgen beside this program]
    #[arg(long)]
    loadgen: Option<PathBuf>,
    /// Directory for data, on the file system to measure; about 30 GiB are used
    #[arg(long, default_value = "penstock-perf-data")]
    data_dir: PathBuf,
    /// Where the results are written
    #[arg(long, default_value = "perf/results")]
    out: PathBuf,
    /// Name of the results: DATE-NAME.json, DATE-NAME.md and the charts in DATE-NAME
    #[arg(long, default_value = "compare")]
    name: String,
    /// Core of the broker
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the clients
    #[arg(long, default_value_t = 1)]
    client_core: usize,
}

/// Compares and writes the results; an error if any cell failed.
pub(crate) fn run(args: &CompareArgs) -> io::Result<()> {
    let scenarios = scenario::read_all(&args.scenarios, &args.scenario)?;
    if args.rounds == 0 || scenarios.is_empty() {
        return Err(io::Error::other("at least one round of one scenario"));
    }
    let mut comparison = Comparison::prepare(args)?;
    let result = comparison.run(&scenarios);
    work_dir::remove(&comparison.bench.work_dir)?;
    result?;
    match comparison.failures {
        0 => Ok(()),
        failures => Err(io::Error::other(format!("{failures} cells failed; the results name them"))),
    }
}

struct Comparison<'a> {
    args: &'a CompareArgs,
    bench: Bench,
    /// What results are called: DATE-NAME.
    stem: String,
    report: Map<String, Value>,
    medians: BTreeMap<String, Medians>,
    failures: usize,
}

/// What a scenario's rounds gave, by peer.
#[derive(Default)]
struct Rounds {
    cells: BTreeMap<PeerKind, Vec<Cell>>,
    failures: Vec<String>,
}

impl<'a> Comparison<'a> {
    /// Finds all programs, and measures what the machine can do by itself.
    fn prepare(args: &'a CompareArgs) -> io::Result<Comparison<'a>> {
        let figures = prepare(&FiguresArgs {
            broker: args.broker.clone(),
            loadgen: args.loadgen.clone(),
            seconds: args.seconds.min(CEILING_SECONDS_MAX),
            ..FiguresArgs::on(&args.data_dir, args.server_core, args.client_core)
        })?;
        let wanted = |kind| args.peers.is_empty() || args.peers.contains(&kind);
        let with_kafka = wanted(PeerKind::Kafka) || wanted(PeerKind::KafkaFlush) || !args.no_kafka_client;
        let program = std::env::current_exe()?;
        let cache = program.ancestors().nth(2).unwrap_or(Path::new(".")).to_owned();
        let jars = || {
            kafka::jars(args.kafka_home.as_deref(), &cache, &args.kafka_version).map(|jars| KafkaSpec {
                jars,
                data_dir: figures.work_dir.join("kafka"),
                core: args.server_core,
            })
        };
        let kafka = with_kafka.then(jars).transpose()?;
        let kafka_version = match &kafka {
            Some(spec) => kafka::version_in(&spec.jars).unwrap_or("of unknown version".to_owned()),
            None => args.kafka_version.clone(),
        };
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
        let date = machine::date_of(seconds);
        eprintln!("measuring the machine");
        let ceilings = json!({
            "loopback": ceilings::loopback(&figures)?,
            "raw_writer_16_files": ceilings::raw_writer(&figures, 16, 64 << 20)?,
            "raw_writer_1000_files": ceilings::raw_writer(&figures, 1000, 4 << 20)?,
        });
        let stem = format!("{date}-{}", args.name);
        let report = json!({
            "date": date,
            "command": command_line(args),
            "kafka": kafka_version,
            "machine": machine::fingerprint(&figures.work_dir),
            "cores": { "broker": args.server_core, "client": args.client_core },
            "rounds": args.rounds,
            "seconds": args.seconds,
            "warm_seconds": args.warm,
            "warm_seconds_max": args.warm_max,
            "ceilings": ceilings,
            "charts": stem.clone(),
            "scenarios": [],
        });
        let bench = Bench {
            device: Device::holding(&figures.work_dir).ok(),
            peers: Peers { penstock: figures.broker, kafka },
            loadgen: figures.loadgen,
            client_core: args.client_core,
            work_dir: figures.work_dir,
            warm: Duration::from_secs(args.warm),
            warm_max: Duration::from_secs(args.warm_max),
            duration: Duration::from_secs(args.seconds),
            fill_bytes: args.fill.map(|size| size.0),
            kafka_tools: !args.no_kafka_client,
        };
        let report = report.as_object().cloned().unwrap_or_default();
        Ok(Comparison { args, bench, stem, report, medians: BTreeMap::new(), failures: 0 })
    }

    fn run(&mut self, scenarios: &[Scenario]) -> io::Result<()> {
        for scenario in scenarios {
            let entry = self.scenario(scenario)?;
            if let Some(Value::Array(entries)) = self.report.get_mut("scenarios") {
                entries.push(entry);
            }
            // After each, so that what takes hours is not lost by its last minute.
            self.write()?;
        }
        println!("{}", table::markdown(&Value::Object(self.report.clone())));
        Ok(())
    }

    /// All rounds of a scenario, as its entry in the report.
    fn scenario(&mut self, scenario: &Scenario) -> io::Result<Value> {
        let mut peers = scenario.peers.clone();
        peers.retain(|kind| self.args.peers.is_empty() || self.args.peers.contains(kind));
        let mut rounds = Rounds::default();
        match self.rates(scenario, &peers) {
            Ok(rates) => {
                for round in 1..=self.args.rounds {
                    self.round(scenario, (round, &peers, rates), &mut rounds);
                    // Who goes first has the disk as another left it.
                    peers.reverse();
                }
            }
            Err(error) => rounds.failures.push(error.to_string()),
        }
        self.failures += rounds.failures.len();
        let values = |cells: &[Cell]| cells.iter().map(|cell| cell.figures.clone()).collect::<Vec<_>>();
        let medians: Medians =
            rounds.cells.iter().map(|(kind, cells)| (*kind, verdict::medians(&values(cells)))).collect();
        let charts = self.draw(scenario, &rounds, &medians)?;
        let named = |by_peer: Vec<(PeerKind, Value)>| -> Map<String, Value> {
            by_peer.into_iter().map(|(kind, value)| (kind.name().to_owned(), value)).collect()
        };
        let entry = json!({
            "name": scenario.name,
            "about": scenario.about,
            "goals": scenario.goals.iter().map(|goal| goal_json(goal, &medians)).collect::<Vec<_>>(),
            "medians": named(medians.clone().into_iter().collect()),
            "rounds": named(rounds.cells.iter().map(|(kind, cells)| (*kind, json!(values(cells)))).collect()),
            "failures": rounds.failures,
            "charts": charts,
        });
        self.medians.insert(scenario.name.clone(), medians);
        Ok(entry)
    }

    fn round(
        &self,
        scenario: &Scenario,
        (round, peers, rates): (usize, &[PeerKind], Rates),
        rounds: &mut Rounds,
    ) {
        for kind in peers {
            let what = format!("{}, round {round}, {}", scenario.name, kind.name());
            eprintln!("measuring {what}");
            match cell::measure(&self.bench, scenario, *kind, rates) {
                Ok(cell) => {
                    eprintln!("{what}: {}", cell.figures);
                    if let Some(error) = cell.figures.pointer("/kafka-client/failed") {
                        rounds.failures.push(format!("{what}, Kafka's own client: {error}"));
                    }
                    rounds.cells.entry(*kind).or_default().push(cell);
                }
                Err(error) => {
                    eprintln!("{what}: {error}");
                    rounds.failures.push(format!("{what}: {error}"));
                }
            }
        }
    }

    /// The rates that a scenario takes from what was measured before it.
    fn rates(&self, scenario: &Scenario, peers: &[PeerKind]) -> io::Result<Rates> {
        let found = |rate: &RateOf, pointer: &str| {
            let medians = self.medians.get(&rate.of)?;
            Some(verdict::slowest(medians, peers, pointer)? * rate.share)
        };
        let own = |rate: Option<&RateOf>| match rate {
            None => Ok(None),
            Some(rate) => found(rate, OWN_RATE).map(Some).ok_or_else(|| {
                io::Error::other(format!("{} needs {} before it, in the same run", scenario.name, rate.of))
            }),
        };
        let rate_of =
            |load: &'_ Option<scenario::LoadTable>| load.as_ref().and_then(|load| load.rate.clone());
        let (load, background) = (rate_of(&scenario.load), rate_of(&scenario.background));
        Ok(Rates {
            load: own(load.as_ref())?,
            background: own(background.as_ref())?,
            kafka_client: load.as_ref().and_then(|rate| found(rate, TOOL_RATE)),
        })
    }

    /// Charts of the round in the middle, all peers in the same; their files' names.
    fn draw(&self, scenario: &Scenario, rounds: &Rounds, medians: &Medians) -> io::Result<Vec<String>> {
        let mut by_kind: BTreeMap<String, Vec<(PeerKind, Figure)>> = BTreeMap::new();
        for (peer, cells) in &rounds.cells {
            let Some(cell) = middle(cells, medians.get(peer)) else { continue };
            let text = json!({ "figures": cell.runs }).to_string();
            for figure in chart::read(&text).map_err(io::Error::other)? {
                by_kind.entry(figure.kind.clone()).or_default().push((*peer, figure));
            }
        }
        let directory = self.args.out.join(&self.stem);
        let mut names = Vec::new();
        for (work, figures) in &by_kind {
            let named: Vec<Named<'_>> =
                figures.iter().map(|(peer, figure)| Named { name: peer.name(), figure }).collect();
            fs::create_dir_all(&directory)?;
            for (what, text) in [("latency", chart::latency(&named)), ("over-time", chart::over_time(&named))]
            {
                let name = format!("{}-{work}-{what}.svg", scenario.name);
                fs::write(directory.join(&name), text)?;
                names.push(name);
            }
        }
        Ok(names)
    }

    fn write(&self) -> io::Result<()> {
        fs::create_dir_all(&self.args.out)?;
        let report = Value::Object(self.report.clone());
        let file = |ending: &str| self.args.out.join(format!("{}.{ending}", self.stem));
        fs::write(file("json"), format!("{report:#}\n"))?;
        fs::write(file("md"), table::markdown(&report))
    }
}

/// The cell whose throughput is closest to the median.
fn middle<'a>(cells: &'a [Cell], median: Option<&Value>) -> Option<&'a Cell> {
    let rate = |figures: &Value| {
        let kinds = figures["loadgen"].as_object()?;
        kinds.values().next()?["megabytes_per_second"].as_f64()
    };
    let wanted = median.and_then(rate).unwrap_or(0.0);
    let away = |cell: &&Cell| (rate(&cell.figures).unwrap_or(f64::INFINITY) - wanted).abs();
    cells.iter().filter(|cell| !cell.runs.is_empty()).min_by(|a, b| away(a).total_cmp(&away(b)))
}

fn goal_json(goal: &scenario::Goal, medians: &Medians) -> Value {
    let verdict = verdict::judge(goal, medians);
    json!({
        "figure": goal.figure,
        "against": goal.against.name(),
        "at_least": goal.at_least,
        "at_most": goal.at_most,
        "ratio": verdict.ratio,
        "is_met": verdict.is_met,
        "why": goal.why,
    })
}

/// What repeats this comparison, without the paths of this machine.
fn command_line(args: &CompareArgs) -> String {
    let mut command = format!(
        "penstock-perf compare --name {} --rounds {} --seconds {} --warm {} --warm-max {} \
         --server-core {} --client-core {}",
        args.name, args.rounds, args.seconds, args.warm, args.warm_max, args.server_core, args.client_core
    );
    if !args.scenario.is_empty() {
        command.push_str(&format!(" --scenario {}", args.scenario.join(",")));
    }
    if !args.peers.is_empty() {
        let names: Vec<&str> = args.peers.iter().map(|kind| kind.name()).collect();
        command.push_str(&format!(" --peers {}", names.join(",")));
    }
    if let Some(fill) = args.fill {
        command.push_str(&format!(" --fill {}", fill.0));
    }
    if args.no_kafka_client {
        command.push_str(" --no-kafka-client");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_round_is_the_one_that_charts_show() {
        let cell = |rate: f64| Cell {
            figures: json!({ "loadgen": { "produce": { "megabytes_per_second": rate } } }),
            runs: vec![json!({})],
        };
        let cells = [cell(1.0), cell(5.0), cell(2.0)];
        let median = verdict::medians(&cells.iter().map(|cell| cell.figures.clone()).collect::<Vec<_>>());
        let middle = middle(&cells, Some(&median)).unwrap();
        assert_eq!(middle.figures["loadgen"]["produce"]["megabytes_per_second"], 2.0);
        assert!(super::middle(&[], None).is_none());
    }
}
