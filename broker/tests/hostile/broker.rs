//! A broker process of our own, ended by its own handle whatever happens.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a start or an orderly end may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Broker {
    process: Child,
    pub(crate) kafka: SocketAddr,
    admin: SocketAddr,
    directory: tempfile::TempDir,
}

impl Broker {
    pub(crate) fn start(shards: u64) -> Broker {
        let directory =
            tempfile::Builder::new().prefix("hostile-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let binary =
            std::env::var_os("PENSTOCK_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_penstock").into());
        let mut process = Command::new(binary)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--shards",
                &shards.to_string(),
            ])
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(File::create(directory.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut broker = Broker { process, kafka: nowhere, admin: nowhere, directory };
        let named = |name| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok());
        match (named("kafka="), named("admin=")) {
            (Some(kafka), Some(admin)) => (broker.kafka, broker.admin) = (kafka, admin),
            _ => panic!("the broker said {line:?} instead of being ready\n{}", broker.last_words()),
        }
        broker
    }

    /// The sum of a metric over all its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics");
        let values = answer.lines().filter_map(|line| line.strip_prefix(name)?.split(' ').nth(1));
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }

    /// Bytes received on each open connection.
    pub(crate) fn received(&self) -> Vec<u64> {
        let answer = self.get("/connections?limit=1000");
        let page: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        let connections = page["connections"].as_array().unwrap();
        connections.iter().map(|connection| connection["bytes_in"].as_u64().unwrap()).collect()
    }

    /// What the admin port answers to GET `path`.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("stderr")
    }

    /// The end of what it logged.
    fn last_words(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
    }

    pub(crate) fn assert_alive(&mut self) -> Result<(), String> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            ended => Err(format!("the broker ended: {ended:?}\n{}", self.last_words())),
        }
    }

    /// Bytes of resident memory: now, and at the most so far.
    pub(crate) fn memory(&self) -> Result<(u64, u64), String> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.process.id())).map_err(|e| e.to_string())?;
        let kib = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        match (kib("VmRSS:"), kib("VmHWM:")) {
            (Some(now), Some(most)) => Ok((now << 10, most << 10)),
            _ => Err("the broker has no memory any more".to_owned()),
        }
    }

    /// Sockets that it has open.
    pub(crate) fn sockets(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap();
        // One that is closed meanwhile is none.
        let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
    }

    /// SIGTERM, and the exit status 0 that must follow.
    pub(crate) fn terminate(mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let since = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                assert!(status.success(), "{status}\n{}", self.last_words());
                return;
            }
            assert!(since.elapsed() < PATIENCE, "still there after {PATIENCE:?}\n{}", self.last_words());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("the broker's last words:\n{}", self.last_words());
        }
    }
}
