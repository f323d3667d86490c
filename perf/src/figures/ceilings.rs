//! What the machine, and the client, can do without the broker.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use super::Bench;
use super::scenarios::loadgen;
use super::seconds::summary;
use crate::loopback::{self, LoopbackSpec};
use crate::process;
use crate::raw_writer::{self, RawWriterSpec};

/// Group commits of 1 MiB, in shares of 64 KiB, at the depth that a broker with that many connections has.
pub(crate) fn raw_writer(bench: &Bench, files: usize, file_bytes: u64) -> io::Result<Value> {
    write_raw(bench, raw_writer_spec(bench, files, file_bytes))
}

/// The same at a rate in millions of bytes a second: what a write and its flush take under that load.
pub(super) fn raw_writer_at(bench: &Bench, files: usize, file_bytes: u64, rate_mb: f64) -> io::Result<Value> {
    let spec = raw_writer_spec(bench, files, file_bytes);
    let pause = Duration::try_from_secs_f64(spec.group_bytes as f64 / (rate_mb * 1e6));
    write_raw(bench, RawWriterSpec { pause: Some(pause.map_err(io::Error::other)?), ..spec })
}

/// What many keyed producers would have written straight to their partitions: shares of 16 KiB, in groups of 4 MiB as at full
/// load.
pub(super) fn raw_writer_keyed(bench: &Bench, files: usize, file_bytes: u64) -> io::Result<Value> {
    let spec = raw_writer_spec(bench, files, file_bytes);
    write_raw(bench, RawWriterSpec { group_bytes: 4 << 20, share_bytes: 16 << 10, ..spec })
}

fn raw_writer_spec(bench: &Bench, files: usize, file_bytes: u64) -> RawWriterSpec {
    RawWriterSpec {
        group_bytes: 1 << 20,
        share_bytes: 64 << 10,
        files,
        file_bytes,
        depth: 4,
        duration: bench.duration,
        pause: None,
    }
}

fn write_raw(bench: &Bench, spec: RawWriterSpec) -> io::Result<Value> {
    let before = process::allowed_cores()?;
    process::pin_thread(bench.server_core)?;
    let figures = raw_writer::run(&bench.work_dir, &spec);
    process::allow_cores(&before)?;
    let figures = figures?;
    let mut found = figures.to_json();
    found["p99_us_of_seconds"] = summary(figures.p99_us_of_seconds().to_vec());
    Ok(found)
}

pub(crate) fn loopback(bench: &Bench) -> io::Result<Value> {
    let spec = LoopbackSpec {
        server_core: bench.server_core,
        client_core: bench.client_core,
        duration: bench.duration,
        connections: 16,
        depth: 1,
        request_bytes: 1024,
    };
    Ok(loopback::run(&spec)?.to_json())
}

/// A bare sender on the broker's core, by connections.
pub(super) fn send_large(bench: &Bench) -> io::Result<Value> {
    let (from, to) = (bench.server_core, bench.client_core);
    let rate = |connections| loopback::send_large(from, to, connections, bench.duration);
    Ok(json!({
        "connections_1": { "megabytes_per_second": rate(1)? },
        "connections_5": { "megabytes_per_second": rate(5)? },
    }))
}

/// A bare echo server on the broker's core: requests of 1 KiB over so many connections, as many in flight on each as the load
/// generator has.
pub(super) fn echo(bench: &Bench, connections: usize) -> io::Result<Value> {
    let spec = LoopbackSpec {
        server_core: bench.server_core,
        client_core: bench.client_core,
        duration: bench.duration,
        connections,
        depth: super::targets::SMALL_IN_FLIGHT,
        request_bytes: 1024,
    };
    Ok(
        json!({ "requests_per_second": loopback::echo(&spec)?, "connections": connections, "depth": spec.depth }),
    )
}

/// The load generator against a broker that keeps nothing. Client and null broker are threads of one process, which the
/// scheduler spreads over the two cores.
pub(super) fn client(bench: &Bench, what: &[&str]) -> io::Result<Value> {
    let args: Vec<String> =
        what.iter().chain(&["--null", "--connections", "16"]).map(|arg| (*arg).to_owned()).collect();
    loadgen(bench, None, args)
}
