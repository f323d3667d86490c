//! Scenario files: what is run against each broker, and which ratios are wanted. TOML, one file for each.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use penstock_loadgen::quantity::ByteSize;

use super::peer::PeerKind;

/// A file is a page; more is no scenario.
const FILE_LEN_MAX: u64 = 64 << 10;

/// A scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Scenario {
    /// The file's name, without its ending.
    #[serde(skip)]
    pub(crate) name: String,
    /// A sentence for the table.
    pub(crate) about: String,
    /// Who takes part.
    #[serde(default = "PeerKind::all")]
    pub(crate) peers: Vec<PeerKind>,
    /// The topic `main`, made first.
    pub(crate) topic: TopicTable,
    /// Records that are there before.
    pub(crate) fill: Option<Fill>,
    /// What is measured.
    pub(crate) load: Option<LoadTable>,
    /// What runs beside it.
    pub(crate) background: Option<LoadTable>,
    /// Stop and start instead of a load.
    #[serde(default)]
    pub(crate) restart: bool,
    /// The same with Kafka's own tools.
    pub(crate) kafka_client: Option<KafkaClient>,
    /// Ratios that are wanted.
    #[serde(default, rename = "goal")]
    pub(crate) goals: Vec<Goal>,
}

/// A topic.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopicTable {
    /// How many.
    pub(crate) partitions: i32,
    /// Topic configs.
    #[serde(default)]
    pub(crate) config: BTreeMap<String, String>,
}

/// Records of 1 KiB in batches of 64 KiB that are written before anything is measured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fill {
    /// How much, at least; `--fill` overrules it.
    #[serde(deserialize_with = "byte_size")]
    pub(crate) bytes: u64,
    /// Written back and dropped from the page cache before the measurement.
    #[serde(default)]
    pub(crate) forget: bool,
}

/// A load of penstock-loadgen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadTable {
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// An open loop at a rate that was found earlier in the run.
    pub(crate) rate: Option<RateOf>,
}

/// A part of what the slowest of a scenario's peers reached in another scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateOf {
    /// The other scenario.
    pub(crate) of: String,
    /// The part.
    pub(crate) share: f64,
}

/// A run of ProducerPerformance or ConsumerPerformance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct KafkaClient {
    /// Which.
    pub(crate) tool: Tool,
    /// Bytes of each record that is produced.
    #[serde(default = "kilobyte")]
    pub(crate) record_size: u64,
    /// The client's properties, KEY=VALUE.
    #[serde(default)]
    pub(crate) properties: Vec<String>,
}

/// One of Kafka's own tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tool {
    /// ProducerPerformance
    Producer,
    /// ConsumerPerformance
    Consumer,
}

/// A ratio of Penstock's figure to a peer's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Goal {
    /// Where the figure stands in a cell: a JSON pointer.
    pub(crate) figure: String,
    /// The other.
    pub(crate) against: PeerKind,
    /// Met from this ratio on.
    pub(crate) at_least: Option<f64>,
    /// Met up to this ratio.
    pub(crate) at_most: Option<f64>,
    /// Shown where the goal is missed: the reason, as far as it is known.
    pub(crate) why: Option<String>,
}

fn kilobyte() -> u64 {
    1024
}

fn byte_size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(|size: ByteSize| size.0).map_err(serde::de::Error::custom)
}

/// Reads a scenario; an error names the file, the line and the key.
pub(crate) fn read(path: &Path) -> io::Result<Scenario> {
    let refuse = |reason: String| io::Error::other(format!("{}: {}", path.display(), reason.trim_end()));
    if fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len() > FILE_LEN_MAX {
        return Err(refuse("far longer than a scenario".to_owned()));
    }
    let text = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&name, &text).map_err(refuse)
}

/// All scenarios of a directory, by name, or those of `only` in its order.
pub(crate) fn read_all(directory: &Path, only: &[String]) -> io::Result<Vec<Scenario>> {
    if !only.is_empty() {
        return only.iter().map(|name| read(&path_of(directory, name))).collect();
    }
    let refuse = |error: io::Error| io::Error::other(format!("{}: {error}", directory.display()));
    let entries = fs::read_dir(directory).map_err(refuse)?.collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.sort();
    let scenarios = paths.iter().map(|path| read(path)).collect::<io::Result<Vec<_>>>()?;
    Ok(in_order(scenarios))
}

/// A name of a scenario, or the path of one.
fn path_of(directory: &Path, name: &str) -> PathBuf {
    match name.ends_with(".toml") {
        true => PathBuf::from(name),
        false => directory.join(format!("{name}.toml")),
    }
}

/// Those that take a rate from another come behind all that do not.
fn in_order(scenarios: Vec<Scenario>) -> Vec<Scenario> {
    let (waiting, first): (Vec<_>, Vec<_>) =
        scenarios.into_iter().partition(|scenario| scenario.rates().next().is_some());
    first.into_iter().chain(waiting).collect()
}

fn parse(name: &str, text: &str) -> Result<Scenario, String> {
    let mut scenario: Scenario = toml::from_str(text).map_err(|error| error.to_string())?;
    name.clone_into(&mut scenario.name);
    scenario.check()?;
    Ok(scenario)
}

impl Scenario {
    /// The rates that it takes from others.
    pub(crate) fn rates(&self) -> impl Iterator<Item = &RateOf> {
        [&self.load, &self.background].into_iter().flatten().filter_map(|load| load.rate.as_ref())
    }

    fn check(&self) -> Result<(), String> {
        if self.restart == self.load.is_some() {
            return Err("either `load` or `restart = true`".to_owned());
        }
        if self.topic.partitions < 1 {
            return Err("`topic.partitions`: at least 1".to_owned());
        }
        if self.peers.is_empty() {
            return Err("`peers`: at least one".to_owned());
        }
        if let Some(rate) = self.rates().find(|rate| !(0.0..=1.0).contains(&rate.share) || rate.share == 0.0)
        {
            return Err(format!("`rate.share`: {} is not above 0 and at most 1", rate.share));
        }
        if self.rates().any(|rate| rate.of == self.name) {
            return Err("`rate.of`: a scenario cannot take its rate from itself".to_owned());
        }
        if self.kafka_client.as_ref().is_some_and(|client| client.tool == Tool::Consumer)
            && self.fill.is_none()
        {
            return Err("`kafka-client.tool`: a consumer needs `fill`".to_owned());
        }
        for goal in &self.goals {
            if !goal.figure.starts_with('/') {
                return Err(format!("`goal.figure`: `{}` does not begin with /", goal.figure));
            }
            if goal.at_least.is_some() == goal.at_most.is_some() {
                return Err(format!("goal of {}: either `at-least` or `at-most`", goal.figure));
            }
            if goal.against == PeerKind::Penstock || !self.peers.contains(&goal.against) {
                return Err(format!("`goal.against`: {} is no other peer", goal.against.name()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        about = "a"
        peers = ["penstock", "kafka"]
        [topic]
        partitions = 16
        config = { "segment.bytes" = "1048576" }
        [load]
        args = ["produce"]
        rate = { of = "throughput", share = 0.5 }
        [[goal]]
        figure = "/loadgen/produce/megabytes_per_second"
        against = "kafka"
        at-least = 3.0
    "#;

    #[test]
    fn a_scenario_is_read() {
        let scenario = parse("s", WHOLE).unwrap();
        assert_eq!((scenario.name.as_str(), scenario.topic.partitions), ("s", 16));
        assert_eq!(scenario.goals[0].at_least, Some(3.0));
    }

    #[test]
    fn mistakes_are_named_with_their_key() {
        for (good, bad, words) in [
            ("partitions = 16", "partitions = \"x\"", vec!["line 5", "partitions = \"x\""]),
            ("partitions = 16", "partitions = 0", vec!["topic.partitions"]),
            ("about = \"a\"", "abuot = \"a\"", vec!["abuot", "unknown field"]),
            ("share = 0.5", "share = 1.5", vec!["rate.share", "1.5"]),
            ("of = \"throughput\"", "of = \"s\"", vec!["rate.of"]),
            ("args = [\"produce\"]", "args = \"produce\"", vec!["args = \"produce\"", "line 8"]),
            ("at-least = 3.0", "at-least = 3.0\nat-most = 1.0", vec!["at-least", "at-most"]),
            ("against = \"kafka\"", "against = \"kafka-flush\"", vec!["goal.against", "kafka-flush"]),
            ("[topic]", "restart = true\n[topic]", vec!["restart"]),
            ("[topic]", "kafka-client = { tool = \"consumer\" }\n[topic]", vec!["kafka-client.tool", "fill"]),
            ("[topic]", "fill = { bytes = \"much\" }\n[topic]", vec!["much", "fill"]),
        ] {
            let error = parse("s", &WHOLE.replace(good, bad)).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{bad}: {word} in {error}");
            }
        }
    }

    #[test]
    fn the_scenarios_of_the_project_are_sound() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let scenarios = read_all(&directory, &[]).unwrap();
        for scenario in &scenarios {
            for rate in scenario.rates() {
                let before = scenarios.iter().take_while(|other| other.name != scenario.name);
                let found = before.into_iter().find(|other| other.name == rate.of);
                let found = found.unwrap_or_else(|| panic!("{} needs {}", scenario.name, rate.of));
                assert!(scenario.peers.iter().all(|peer| found.peers.contains(peer)), "{}", scenario.name);
            }
        }
        let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        for name in
            ["throughput", "half-load", "many-partitions", "keyed", "small-requests", "fan-out", "backfill"]
        {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert!(read(&directory.join("none.toml")).unwrap_err().to_string().contains("none.toml"));
    }
}
