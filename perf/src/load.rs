//! A run of the load generator as a process of its own, and what the broker and the device did in its measured part.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::device::Device;
use crate::process;

/// How long a run may take beyond its own time: to make topics, to encode, to wait for the last answers.
const SLACK: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct LoadSpec {
    /// The release binary.
    pub(crate) program: PathBuf,
    /// Its arguments, without where, how long and where to.
    pub(crate) args: Vec<String>,
    /// `host:port` of the broker; none for a run against nothing.
    pub(crate) address: Option<String>,
    /// Core to pin to.
    pub(crate) core: Option<usize>,
    /// Not measured.
    pub(crate) warm_up: Duration,
    /// Measured.
    pub(crate) duration: Duration,
    /// Where its figures go in between.
    pub(crate) json_file: PathBuf,
}

/// A load that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
    spec: LoadSpec,
    started: Instant,
}

impl Load {
    /// Starts it.
    pub(crate) fn start(spec: LoadSpec) -> io::Result<Load> {
        let mut command = Command::new(&spec.program);
        command.args(&spec.args).args(["--quiet", "--json"]).arg(&spec.json_file).stdout(Stdio::null());
        command.args(["--duration", &format!("{}ms", spec.duration.as_millis())]);
        command.args(["--warm-up", &format!("{}ms", spec.warm_up.as_millis())]);
        if let Some(address) = &spec.address {
            command.args(["--bootstrap", address]);
        }
        let started = Instant::now();
        Ok(Load { child: process::spawn_pinned(&mut command, spec.core)?, spec, started })
    }

    /// Waits for its end and gives its figures, one for each kind of work.
    pub(crate) fn finish(mut self) -> io::Result<Vec<Value>> {
        let deadline = self.started + self.spec.warm_up + self.spec.duration + SLACK;
        while self.runs_until(deadline)? {
            if Instant::now() >= deadline {
                return Err(io::Error::other("the load generator does not end"));
            }
        }
        let status = self.child.wait()?;
        if !status.success() {
            return Err(io::Error::other(format!("the load generator ended with {status}")));
        }
        let report: Value = serde_json::from_slice(&fs::read(&self.spec.json_file)?)?;
        fs::remove_file(&self.spec.json_file)?;
        match report["figures"].as_array() {
            Some(figures) => Ok(figures.clone()),
            None => Err(io::Error::other("the load generator gave no figures")),
        }
    }

    /// As [`Load::finish`]; beside the figures what its measured part cost `broker`: processor, memory, and what was
    /// written to `device`.
    pub(crate) fn finish_watching(
        mut self,
        broker: &Broker,
        device: Option<&Device>,
    ) -> io::Result<(Vec<Value>, Value)> {
        // When the measured part begins only the load generator knows: it has topics to make and batches to encode first.
        let mut seen = Vec::new();
        let deadline = self.started + self.spec.warm_up + self.spec.duration + SLACK;
        while self.runs_until(Instant::now() + WATCH_EVERY)? && Instant::now() < deadline {
            seen.push(Counts::read(broker, device)?);
        }
        let figures = self.finish()?;
        let cost = measured(&seen, &figures[0]);
        Ok((figures, cost))
    }

    /// Whether it has not ended yet.
    pub(crate) fn runs(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until `moment` or the process's end; whether it still runs.
    fn runs_until(&mut self, moment: Instant) -> io::Result<bool> {
        loop {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Running counts at a moment.
struct Counts {
    at: SystemTime,
    cpu: Duration,
    resident_bytes: u64,
    process_written: Option<u64>,
    device_written: Option<u64>,
}

impl Counts {
    fn read(broker: &Broker, device: Option<&Device>) -> io::Result<Counts> {
        Ok(Counts {
            at: SystemTime::now(),
            cpu: broker.cpu_time()?,
            resident_bytes: broker.resident_bytes()?,
            process_written: broker.written_bytes().ok(),
            device_written: device.map(Device::written_bytes).transpose()?,
        })
    }
}

/// What the measured part of a run cost, from the looks that fall into it; nothing where fewer than two do.
fn measured(seen: &[Counts], figures: &Value) -> Value {
    let (from_ms, seconds) = (figures["measured_from_unix_ms"].as_u64(), figures["seconds"].as_f64());
    let bytes_per_second = figures["megabytes_per_second"].as_f64().unwrap_or(0.0) * 1e6;
    let from = SystemTime::UNIX_EPOCH + Duration::from_millis(from_ms.unwrap_or(0));
    let to = from + Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default();
    let within: Vec<&Counts> = seen.iter().filter(|counts| counts.at >= from && counts.at <= to).collect();
    match within.as_slice() {
        [first, .., last] => cost(first, last, bytes_per_second),
        _ => Value::Null,
    }
}

/// What went by between two looks, per second and per byte of the load.
fn cost(before: &Counts, after: &Counts, bytes_per_second: f64) -> Value {
    let seconds = after.at.duration_since(before.at).unwrap_or_default().as_secs_f64().max(1e-9);
    let cpu_share = (after.cpu - before.cpu).as_secs_f64() / seconds;
    let per_byte = |before: Option<u64>, after: Option<u64>| {
        let written = after?.saturating_sub(before?) as f64 / seconds;
        (bytes_per_second > 0.0).then(|| written / bytes_per_second)
    };
    json!({
        "cpu_share": cpu_share,
        "cpu_seconds_per_gb": (bytes_per_second > 0.0).then(|| cpu_share / (bytes_per_second / 1e9)),
        "resident_mib": after.resident_bytes >> 20,
        "device_bytes_per_byte": per_byte(before.device_written, after.device_written),
        "process_bytes_per_byte": per_byte(before.process_written, after.process_written),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_per_second_and_per_byte() {
        let at = SystemTime::UNIX_EPOCH;
        let counts = |seconds: u64, written: Option<u64>| Counts {
            at: at + Duration::from_secs(seconds),
            cpu: Duration::from_secs(seconds / 2),
            resident_bytes: 5 << 20,
            process_written: None,
            device_written: written,
        };
        let figures =
            json!({ "measured_from_unix_ms": 1000, "seconds": 10.0, "megabytes_per_second": 0.000_1 });
        let seen = [0, 1, 6, 11, 12].map(|seconds| counts(seconds, Some(seconds * seconds)));
        let found = measured(&seen, &figures);
        assert_eq!(found["device_bytes_per_byte"], 0.12, "from 1 s to 11 s, 120 bytes by 100 a second");
        assert_eq!(measured(&seen[..2], &figures), Value::Null);
        let found = cost(&counts(0, Some(1_000)), &counts(10, Some(1_000 + 15_000)), 1_000.0);
        assert_eq!(found["cpu_share"], 0.5);
        assert_eq!(found["device_bytes_per_byte"], 1.5);
        assert_eq!(found["process_bytes_per_byte"], Value::Null);
        assert_eq!(cost(&counts(0, Some(0)), &counts(1, Some(5)), 0.0)["device_bytes_per_byte"], Value::Null);
    }
}
