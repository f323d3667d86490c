//! kill -9 of the real binary under load: no acknowledged record may be lost, doubled, reordered or altered.
//!
//! Two producers write while the broker is killed and started again on the same data directory and port: an idempotent one
//! (exactly once) and one without a producer id (at least once). At the end all that was acknowledged is checked, once in the
//! broker that recovered last, and once more after an orderly stop and start.
//!
//! `PENSTOCK_KILLS` says how many kills, 20 otherwise; they are spread over 1, 2 and 4 shards.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use penstock_format::Compression;
use penstock_loadgen::client::{Cluster, TopicSpec};
use penstock_loadgen::verify::{Delivery, Run, Verifier, VerifySpec, check};
use penstock_loadgen::workers::block_on;

/// How long anything may take before the test gives up; it never waits for a time, only for progress.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records that have to be acknowledged between two kills.
const RECORDS_BETWEEN_KILLS: u64 = 1000;
const PARTITIONS: i32 = 8;

/// A broker of our own: killed when dropped.
struct Broker {
    child: Child,
    address: String,
}

impl Broker {
    /// Starts the binary and waits until it serves. Port 0 takes a free one.
    fn start(dir: &Path, port: u16, shards: usize) -> Broker {
        let log = OpenOptions::new().create(true).append(true).open(log_file(dir)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .arg("serve")
            .arg("--data-dir")
            .arg(dir.join("data"))
            .args(["--listen", &format!("127.0.0.1:{port}"), "--admin", "127.0.0.1:0"])
            .args(["--shards", &shards.to_string()])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        // Reads on for as long as the broker lives, so that its output never blocks.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let Ok(line) = line else {
                let _ = child.kill();
                let status = child.wait().unwrap();
                panic!("the broker does not serve ({status}):\n{}", log_tail(dir));
            };
            if let Some(address) = line.split(' ').find_map(|word| word.strip_prefix("kafka=")) {
                return Broker { child, address: address.to_owned() };
            }
        }
    }

    fn port(&self) -> u16 {
        self.address.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// SIGKILL: nothing is written, flushed or said.
    fn kill(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the broker ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the status it ends with.
    fn stop(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the broker does not stop");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("broker.log")
}

/// The end of what the broker has said, for a failure's report.
fn log_tail(dir: &Path) -> String {
    let lines: Vec<String> = match File::open(log_file(dir)) {
        Ok(file) => BufReader::new(file).lines().map_while(Result::ok).collect(),
        Err(error) => vec![error.to_string()],
    };
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn producer(address: &str, topic: &str, delivery: Delivery) -> Verifier {
    // Segments of the smallest size that is allowed: rolling is a part of what is crashed.
    let configs = vec![("segment.bytes".to_owned(), "1048576".to_owned())];
    let create = TopicSpec { name: topic.to_owned(), partitions: PARTITIONS, replication: -1, configs };
    Verifier::start(VerifySpec {
        cluster: Cluster::new(address, "crash-test"),
        topic: topic.to_owned(),
        create: Some(create),
        record_size: 2048,
        // From one record to about 40 KiB: shares below and above what goes straight to a segment.
        batch_records: 40,
        partitions_per_connection: 4,
        in_flight: 5,
        delivery,
        acks: -1,
        compression: Compression::None,
        pause: Duration::from_millis(1),
        patience: PATIENCE,
        state: None,
    })
}

/// Waits until both producers have got `more` records acknowledged.
fn await_progress(dir: &Path, producers: &[Verifier], more: u64) {
    let goals: Vec<u64> = producers.iter().map(|producer| producer.acknowledged() + more).collect();
    let deadline = Instant::now() + PATIENCE;
    while producers.iter().zip(&goals).any(|(producer, goal)| producer.acknowledged() < *goal) {
        let failed = producers.iter().any(Verifier::has_failed);
        if failed || Instant::now() > deadline {
            // The producer's own error says more, and comes when it is stopped.
            eprintln!("no progress (failed: {failed}); the broker says:\n{}", log_tail(dir));
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn assert_whole(dir: &Path, address: &str, runs: &[Run]) {
    for run in runs {
        let cluster = Cluster::new(address, "crash-test");
        let report = block_on(check(&cluster, std::slice::from_ref(run), PATIENCE)).unwrap();
        let report = report.unwrap_or_else(|error| panic!("{}: {error}\n{}", run.topic, log_tail(dir)));
        eprintln!("{} ({:?}): {report}", run.topic, run.delivery);
        assert!(report.acknowledged > 0 && report.is_clean(), "{}: {report}\n{}", run.topic, log_tail(dir));
    }
}

fn kill_and_check(shards: usize, kills: u32) {
    // Beside the build, not in a memory file system, which may refuse direct I/O.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = dir.path();
    let mut broker = Broker::start(dir, 0, shards);
    let (address, port) = (broker.address.clone(), broker.port());
    let producers =
        [producer(&address, "exactly", Delivery::Exactly), producer(&address, "at-least", Delivery::AtLeast)];
    for kill in 0..kills {
        await_progress(dir, &producers, RECORDS_BETWEEN_KILLS);
        // A different moment each time: after commits, in the middle of them, during write-behind.
        thread::sleep(Duration::from_millis(u64::from(kill * 37 % 150)));
        broker.kill();
        broker = Broker::start(dir, port, shards);
    }
    await_progress(dir, &producers, RECORDS_BETWEEN_KILLS);
    let mut runs = Vec::new();
    for producer in producers {
        let finished = producer.stop(PATIENCE);
        let finished = finished.unwrap_or_else(|error| panic!("{error}\n{}", log_tail(dir)));
        assert_eq!(finished.unacknowledged, 0, "all is acknowledged when the producer is done");
        assert!(finished.retries > 0 || kills == 0, "the kills were felt");
        runs.push(finished.run);
    }
    assert_whole(dir, &address, &runs);
    assert!(broker.stop().success(), "an orderly stop:\n{}", log_tail(dir));
    let broker = Broker::start(dir, port, shards);
    assert_whole(dir, &address, &runs);
    broker.kill();
}

/// This shard count's share of all kills.
fn kills_of(place: u32) -> u32 {
    let all: u32 = std::env::var("PENSTOCK_KILLS").map_or(20, |text| text.parse().unwrap());
    all / 3 + u32::from(place < all % 3)
}

#[test]
fn nothing_acknowledged_is_lost_with_one_shard() {
    kill_and_check(1, kills_of(0));
}

#[test]
fn nothing_acknowledged_is_lost_with_two_shards() {
    kill_and_check(2, kills_of(1));
}

#[test]
fn nothing_acknowledged_is_lost_with_four_shards() {
    kill_and_check(4, kills_of(2));
}
