//! Runs the binary.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::PATIENCE;

/// What a run of the binary gave.
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `penstock ARGS...` with `input` on stdin. `args` are split at spaces.
pub(crate) fn penstock_with(args: &str, input: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(args.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that fails early reads no input.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs `penstock ARGS...`.
pub(crate) fn penstock(args: &str) -> Run {
    penstock_with(args, b"")
}

impl Run {
    /// What it printed; it must have succeeded and said nothing else.
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// What it printed, as JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// The error; it must have failed with `status`.
    pub(crate) fn failed(self, status: i32) -> String {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        assert!(!self.err.is_empty(), "{}", self.out);
        self.err
    }
}

/// Waits until the directory of a broker that ended is free: the kernel ends a process's last operations after it.
pub(crate) fn released(data: &Path) {
    let lock = File::open(data.join("penstock.lock")).unwrap();
    let since = Instant::now();
    while lock.try_lock_shared().is_err() {
        assert!(since.elapsed() < PATIENCE, "somebody has {}", data.display());
        thread::sleep(Duration::from_millis(10));
    }
}

/// The lines of a table without its heading, each split into cells.
pub(crate) fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}
