//! The broker under measurement: a process of our own, pinned, watched through /proc, and stopped in order.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::process;

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How to start it.
#[derive(Debug, Clone)]
pub(crate) struct BrokerSpec {
    /// The release binary.
    pub(crate) binary: PathBuf,
    /// Made anew for each start, and removed afterwards.
    pub(crate) data_dir: PathBuf,
    /// Shards.
    pub(crate) shards: usize,
    /// Core to pin to.
    pub(crate) core: Option<usize>,
}

/// A broker that serves.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    data_dir: PathBuf,
    /// `host:port` of its Kafka listener.
    pub(crate) address: String,
}

impl Broker {
    /// Starts it on an empty data directory, with retention that looks every second so that long runs fit the disk.
    pub(crate) fn start(spec: &BrokerSpec) -> io::Result<Broker> {
        remove_if_there(&spec.data_dir)?;
        fs::create_dir_all(&spec.data_dir)?;
        let mut command = Command::new(&spec.binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards"])
            .arg(spec.shards.to_string())
            .arg("--data-dir")
            .arg(&spec.data_dir)
            .args(["--set", "log.retention.check.interval.ms=1000"])
            .stdout(Stdio::piped());
        let mut child = process::spawn_pinned(&mut command, spec.core)?;
        let Some(stdout) = child.stdout.take() else {
            return Err(io::Error::other("the broker has no output"));
        };
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut broker = Broker { child, data_dir: spec.data_dir.clone(), address: String::new() };
        let deadline = Instant::now() + PATIENCE;
        while broker.address.is_empty() {
            let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.map_err(|_| io::Error::other("the broker did not say that it is ready"))?;
            let address = line.split(' ').find_map(|word| word.strip_prefix("kafka="));
            broker.address = address.unwrap_or_default().to_owned();
        }
        Ok(broker)
    }

    /// Processor time that all its threads have used.
    pub(crate) fn cpu_time(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Fields are counted from behind the command's name, which may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        match (ticks(11), ticks(12)) {
            (Some(user), Some(system)) => {
                Ok(Duration::from_secs_f64((user + system) as f64 / process::ticks_per_second() as f64))
            }
            _ => Err(io::Error::other("processor times of the broker cannot be read")),
        }
    }

    /// Bytes of memory that it has in use.
    pub(crate) fn resident_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| io::Error::other("memory of the broker cannot be read"))
    }

    /// Stops it in order and removes its data.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        process::terminate(&self.child)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return match status.success() {
                    true => Ok(()),
                    false => Err(io::Error::other(format!("the broker ended with {status}"))),
                };
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other("the broker does not stop"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = remove_if_there(&self.data_dir);
    }
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
