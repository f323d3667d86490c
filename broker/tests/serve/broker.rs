//! A broker process of a test's own, ended by its own handle whatever happens.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine; nothing here waits for a time to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Broker {
    child: Child,
    pub(crate) kafka: String,
    pub(crate) admin: String,
    pub(crate) ready: String,
    log: std::path::PathBuf,
}

/// The command, with ports of its own and the data below `dir`.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.args(["serve", "--set", "penstock.journal.bytes=134217728"]);
    command.arg("--data-dir").arg(dir.join("data"));
    command
}

/// A directory that direct I/O works in.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("serve-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

impl Broker {
    pub(crate) fn start(dir: &Path, shards: usize) -> Broker {
        Broker::start_with(dir, shards, &[])
    }

    pub(crate) fn start_with(dir: &Path, shards: usize, settings: &[&str]) -> Broker {
        Broker::try_start(dir, shards, settings).unwrap_or_else(|said| panic!("{said}"))
    }

    /// As `start_with`; what it said if it ended instead of serving.
    pub(crate) fn try_start(dir: &Path, shards: usize, settings: &[&str]) -> Result<Broker, String> {
        Broker::start_command(command(dir), dir, shards, settings)
    }

    /// A broker that may have so many files and connections open.
    pub(crate) fn start_limited(dir: &Path, files: usize, shards: usize) -> Broker {
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]);
        let command = command(dir);
        limited.arg(command.get_program()).args(command.get_args());
        Broker::start_command(limited, dir, shards, &[]).unwrap_or_else(|said| panic!("{said}"))
    }

    fn start_command(
        mut command: Command,
        dir: &Path,
        shards: usize,
        settings: &[&str],
    ) -> Result<Broker, String> {
        let log = dir.join("stderr");
        let stderr = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--shards", &shards.to_string()]);
        settings.iter().for_each(|setting| {
            command.args(["--set", setting]);
        });
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let named =
            |name| ready.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
        let (Some(kafka), Some(admin)) = (named("kafka="), named("admin=")) else {
            let _ = child.kill();
            let status = child.wait().unwrap();
            let said = fs::read_to_string(&log).unwrap();
            return Err(format!("the broker said {ready:?} ({status}):\n{said}"));
        };
        Ok(Broker { child, kafka, admin, ready, log })
    }

    /// What it logged, and those before it in the same directory.
    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Forgets what was logged so far.
    pub(crate) fn forget_log(&self) {
        File::options().write(true).truncate(true).open(&self.log).unwrap();
    }

    /// SIGKILL: nothing is written, flushed or said.
    pub(crate) fn kill(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the broker ended by itself:\n{}", self.logged());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the status it ends with.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// SIGSTOP, until none of its threads runs any more.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        let since = Instant::now();
        let runs = |thread: fs::DirEntry| {
            let status = fs::read_to_string(thread.path().join("status")).unwrap();
            !status.lines().any(|line| line.starts_with("State:\tT"))
        };
        while fs::read_dir(format!("/proc/{}/task", self.id())).unwrap().map(Result::unwrap).any(runs) {
            assert!(since.elapsed() < PATIENCE, "the broker does not stop running");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "the broker does not end:\n{}", self.logged());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the admin port answers to GET `path`.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
