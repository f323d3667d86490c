//! A broker under measurement: a process of our own, pinned, watched through /proc, and stopped in order.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::process;

/// How long a start or a stop may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How a Java process ends that was asked to: 128 and the signal's number.
const TERMINATED: i32 = 143;

/// How to start it.
#[derive(Debug, Clone)]
pub(crate) struct BrokerSpec {
    /// The release binary.
    pub(crate) binary: PathBuf,
    /// Where it keeps its data.
    pub(crate) data_dir: PathBuf,
    /// Shards.
    pub(crate) shards: usize,
    /// Core to pin to.
    pub(crate) core: Option<usize>,
}

/// A broker that serves. Dropping it ends it and removes its data.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    /// None: it is no longer ours to remove.
    data_dir: Option<PathBuf>,
    /// `host:port` of its Kafka listener.
    pub(crate) address: String,
    /// `host:port` of its admin listener; empty where it has none.
    admin: String,
}

impl Broker {
    /// Starts it on an empty data directory.
    pub(crate) fn start(spec: &BrokerSpec) -> io::Result<Broker> {
        Broker::start_with(spec, &[])
    }

    /// Starts it on an empty data directory with settings of its own, `KEY=VALUE` each.
    pub(crate) fn start_with(spec: &BrokerSpec, settings: &[&str]) -> io::Result<Broker> {
        remove_if_there(&spec.data_dir)?;
        Broker::run(spec, settings)
    }

    /// Starts it on the data that is there.
    pub(crate) fn start_again(spec: &BrokerSpec) -> io::Result<Broker> {
        Broker::run(spec, &[])
    }

    /// With retention that looks every second, so that long runs fit the disk.
    fn run(spec: &BrokerSpec, settings: &[&str]) -> io::Result<Broker> {
        fs::create_dir_all(&spec.data_dir)?;
        let mut command = Command::new(&spec.binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards"])
            .arg(spec.shards.to_string())
            .arg("--data-dir")
            .arg(&spec.data_dir)
            .args(["--set", "log.retention.check.interval.ms=1000"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdout(Stdio::piped());
        let mut child = process::spawn_pinned(&mut command, spec.core)?;
        let stdout = child.stdout.take();
        let mut broker = Broker::of(child, &spec.data_dir, String::new());
        let Some(stdout) = stdout else {
            return Err(io::Error::other("the broker has no output"));
        };
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while broker.address.is_empty() {
            let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.map_err(|_| io::Error::other("the broker did not say that it is ready"))?;
            let named =
                |name| line.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap_or_default();
            broker.address = named("kafka=").to_owned();
            broker.admin = named("admin=").to_owned();
        }
        Ok(broker)
    }

    /// A process that somebody else started, with the data that goes when it does.
    pub(crate) fn of(child: Child, data_dir: &Path, address: String) -> Broker {
        Broker { child, data_dir: Some(data_dir.to_owned()), address, admin: String::new() }
    }

    /// A metric of its admin listener, the sum over all shards.
    pub(crate) fn metric(&self, name: &str) -> io::Result<u64> {
        let page = metrics(&self.admin)?;
        let values =
            page.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' ')?.1.parse::<u64>().ok());
        Ok(values.sum())
    }

    /// Ids of its threads whose names begin like this.
    pub(crate) fn threads(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let thread = thread?;
            // One that ended meanwhile is none of them.
            if fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.starts_with(prefix)) {
                found.push(thread.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(found)
    }

    /// Whether it runs no more.
    pub(crate) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Processor time that all its threads have used.
    pub(crate) fn cpu_time(&self) -> io::Result<Duration> {
        process::cpu_time_of(self.child.id())
    }

    /// Bytes that it had written to storage, its own count in the kernel.
    pub(crate) fn written_bytes(&self) -> io::Result<u64> {
        let counts = fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let line = counts.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.and_then(|count| count.parse().ok())
            .ok_or_else(|| io::Error::other("what the broker wrote cannot be read"))
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
        self.end()
    }

    /// Stops it in order and leaves its data.
    pub(crate) fn stop_and_keep(mut self) -> io::Result<()> {
        self.end()?;
        self.data_dir = None;
        Ok(())
    }

    /// Kills it, as a crash would, and leaves its data.
    pub(crate) fn kill_and_keep(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.data_dir = None;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        process::terminate(&self.child)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return match status.success() || status.code() == Some(TERMINATED) {
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
        if let Some(data_dir) = &self.data_dir {
            let _ = remove_if_there(data_dir);
        }
    }
}

/// The page of metrics of an admin listener at `host:port`.
pub(crate) fn metrics(admin: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// Removes a directory and all in it, if it is there.
pub(crate) fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
