//! Apache Kafka: its jars from Maven Central, and one node of it (KRaft) with the settings of its own scripts.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use penstock_loadgen::client::Cluster;
use penstock_loadgen::workers::block_on;

use super::peer::PeerKind;
use crate::broker::{Broker, PATIENCE, remove_if_there};
use crate::process;

/// Memory and collector as in Kafka's own start script.
const JVM: [&str; 8] = [
    "-Xms1G",
    "-Xmx1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];
const QUIET: &str = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
/// Any id will do: each node is a cluster of its own.
const CLUSTER_ID: &str = "cGVuc3RvY2stcGVyZi0wMQ";
/// Lines of its log that a failure shows.
const LOG_LINES: usize = 5;

/// How to start it.
#[derive(Debug, Clone)]
pub(crate) struct KafkaSpec {
    /// Directory of its jars.
    pub(crate) jars: PathBuf,
    /// Where it keeps data, settings and log.
    pub(crate) data_dir: PathBuf,
    /// Core to pin to.
    pub(crate) core: usize,
}

impl KafkaSpec {
    /// `java` with Kafka's classes.
    pub(crate) fn java(&self, options: &[&str]) -> Command {
        let mut command = Command::new("java");
        command.args(options).arg(QUIET).arg("-cp").arg(self.jars.join("*"));
        command
    }
}

/// The directory of Kafka's jars: `home/libs`, or what Maven brings into `cache` once.
pub(crate) fn jars(home: Option<&Path>, cache: &Path, version: &str) -> io::Result<PathBuf> {
    if let Some(home) = home {
        let libs = home.join("libs");
        return match libs.is_dir() {
            true => fs::canonicalize(libs),
            false => Err(io::Error::other(format!("{} holds no directory libs", home.display()))),
        };
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    if version.is_empty() || !version.chars().all(plain) {
        return Err(io::Error::other(format!("`{version}` is no version")));
    }
    let place = cache.join(format!("apache-kafka-{version}"));
    let libs = place.join("libs");
    if libs.is_dir() {
        return Ok(libs);
    }
    fs::create_dir_all(&place)?;
    let pom_file = place.join("pom.xml");
    fs::write(&pom_file, pom(version))?;
    // Under another name until all are there: what is found later is whole.
    let coming = place.join("coming");
    remove_if_there(&coming)?;
    let mut maven = Command::new("mvn");
    maven.args(["--quiet", "--batch-mode", "--file"]).arg(&pom_file).arg("dependency:copy-dependencies");
    maven.arg("-DincludeScope=runtime").arg(format!("-DoutputDirectory={}", coming.display()));
    let status =
        maven.status().map_err(|error| io::Error::other(format!("Maven is needed (mvn): {error}")))?;
    if !status.success() {
        return Err(io::Error::other(format!("Maven did not bring Apache Kafka {version}: {status}")));
    }
    fs::rename(&coming, &libs)?;
    Ok(libs)
}

/// The version that a directory of jars is of, by their names; none where no client is among them.
pub(super) fn version_in(jars: &Path) -> Option<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    fs::read_dir(jars)
        .ok()?
        .filter_map(name)
        .find_map(|name| Some(name.strip_prefix("kafka-clients-")?.strip_suffix(".jar")?.to_owned()))
}

fn pom(version: &str) -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>\n"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\n\
         <groupId>penstock</groupId><artifactId>compare</artifactId><version>1</version>\
         <packaging>pom</packaging>\n<dependencies>\n{}{}{}</dependencies></project>\n",
        dependency("org.apache.kafka", "kafka_2.13", version),
        dependency("org.apache.kafka", "kafka-tools", version),
        dependency("org.slf4j", "slf4j-simple", "1.7.36"),
    )
}

/// Starts a node with nothing in it.
pub(super) fn start(spec: &KafkaSpec, kind: PeerKind) -> io::Result<Broker> {
    remove_if_there(&spec.data_dir)?;
    fs::create_dir_all(&spec.data_dir)?;
    let ports = free_ports()?;
    let file = spec.data_dir.join("server.properties");
    fs::write(&file, properties(spec, kind, ports))?;
    let log = File::create(spec.data_dir.join("log"))?;
    let mut format = spec.java(&["-XX:TieredStopAtLevel=1"]);
    format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&file);
    let status = format.stdout(log.try_clone()?).stderr(log).status();
    let status = status.map_err(|error| io::Error::other(format!("Java is needed: {error}")))?;
    match status.success() {
        true => start_again(spec),
        false => Err(failed(spec, "its storage could not be formatted")),
    }
}

/// Starts a node on the settings and the data that are there.
pub(super) fn start_again(spec: &KafkaSpec) -> io::Result<Broker> {
    let file = spec.data_dir.join("server.properties");
    let settings = fs::read_to_string(&file)?;
    let address = settings.lines().find_map(|line| line.strip_prefix("advertised.listeners=PLAINTEXT://"));
    let address = address.ok_or_else(|| io::Error::other("its settings name no listener"))?.to_owned();
    let log = File::options().append(true).create(true).open(spec.data_dir.join("log"))?;
    let mut command = spec.java(&JVM);
    command.arg("kafka.Kafka").arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = process::spawn_pinned(&mut command, Some(spec.core))?;
    let mut broker = Broker::of(child, &spec.data_dir, address);
    let deadline = Instant::now() + PATIENCE;
    let cluster = Cluster::new(&broker.address, "penstock-perf");
    while block_on(cluster.connect_any())?.is_err() {
        if broker.has_ended()? || Instant::now() >= deadline {
            return Err(failed(spec, "it did not begin to serve"));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(broker)
}

/// One node that is broker and controller. What differs from Kafka's defaults: copies of its own topics (there is one node),
/// and how often retention looks and how soon it removes files, so that long runs fit the disk.
fn properties(spec: &KafkaSpec, kind: PeerKind, (port, controller): (u16, u16)) -> String {
    let flush = if kind == PeerKind::KafkaFlush { "log.flush.interval.messages=1\n" } else { "" };
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\nlog.dirs={}\noffsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\nlog.retention.check.interval.ms=1000\n\
         log.segment.delete.delay.ms=1000\n{flush}",
        spec.data_dir.join("data").display()
    )
}

/// Two ports that nobody listens on now. Somebody else may take them before Kafka does: then it does not start.
fn free_ports() -> io::Result<(u16, u16)> {
    let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?.port(), other.local_addr()?.port()))
}

fn failed(spec: &KafkaSpec, what: &str) -> io::Error {
    let log = fs::read_to_string(spec.data_dir.join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    io::Error::other(format!("Apache Kafka: {what}. Its log ends with:\n{last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> KafkaSpec {
        KafkaSpec { jars: PathBuf::from("jars"), data_dir: PathBuf::from("data"), core: 0 }
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn the_jars_tell_their_version() {
        let jars = tempfile::tempdir().unwrap();
        File::create(jars.path().join("kafka_2.13-4.3.1.jar")).unwrap();
        assert_eq!(version_in(jars.path()), None);
        File::create(jars.path().join("kafka-clients-4.3.1.jar")).unwrap();
        assert_eq!(version_in(jars.path()).as_deref(), Some("4.3.1"));
        assert_eq!(version_in(&jars.path().join("none")), None);
    }

    #[test]
    fn only_the_flushing_one_flushes() {
        let with = |kind| properties(&spec(), kind, (1, 2));
        assert!(with(PeerKind::KafkaFlush).contains("\nlog.flush.interval.messages=1\n"));
        assert!(!with(PeerKind::Kafka).contains("flush"));
        assert!(with(PeerKind::Kafka).contains("\nadvertised.listeners=PLAINTEXT://127.0.0.1:1\n"));
    }

    #[test]
    fn jars_come_from_a_directory_or_by_version() {
        let dir = tempfile::tempdir().unwrap();
        assert!(jars(Some(dir.path()), dir.path(), "4").unwrap_err().to_string().contains("libs"));
        fs::create_dir(dir.path().join("libs")).unwrap();
        assert!(jars(Some(dir.path()), dir.path(), "4").unwrap().ends_with("libs"));
        for version in ["", "4.3/../x", "4 3", "<4>"] {
            assert!(jars(None, dir.path(), version).unwrap_err().to_string().contains("no version"));
        }
        fs::create_dir_all(dir.path().join("apache-kafka-4.3.1/libs")).unwrap();
        assert!(jars(None, dir.path(), "4.3.1").unwrap().ends_with("apache-kafka-4.3.1/libs"));
        assert!(pom("4.3.1").contains("<artifactId>kafka_2.13</artifactId><version>4.3.1</version>"));
    }

    #[test]
    fn a_failure_shows_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log"), "first\n2\n3\n4\n5\nlast\n").unwrap();
        let text = failed(&KafkaSpec { data_dir: dir.path().to_owned(), ..spec() }, "what").to_string();
        assert!(text.contains("what") && text.ends_with("last") && !text.contains("first"), "{text}");
    }
}
