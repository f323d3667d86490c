//! What the machine, and the client, can do without the broker.

use std::io;

use serde_json::Value;

use super::Bench;
use super::scenarios::loadgen;
use crate::loopback::{self, LoopbackSpec};
use crate::process;
use crate::raw_writer::{self, RawWriterSpec};

/// Group commits of 1 MiB, in shares of 64 KiB, at the depth that a broker with that many connections has.
pub(crate) fn raw_writer(bench: &Bench, files: usize, file_bytes: u64) -> io::Result<Value> {
    let spec = RawWriterSpec {
        group_bytes: 1 << 20,
        share_bytes: 64 << 10,
        files,
        file_bytes,
        depth: 4,
        duration: bench.duration,
    };
    let before = process::allowed_cores()?;
    process::pin_thread(bench.server_core)?;
    let figures = raw_writer::run(&bench.work_dir, &spec);
    process::allow_cores(&before)?;
    Ok(figures?.to_json())
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

/// The load generator against a broker that keeps nothing. Client and null broker are threads of one process, which the
/// scheduler spreads over the two cores.
pub(super) fn client(bench: &Bench, what: &[&str]) -> io::Result<Value> {
    let args: Vec<String> =
        what.iter().chain(&["--null", "--connections", "16"]).map(|arg| (*arg).to_owned()).collect();
    loadgen(bench, None, args)
}
