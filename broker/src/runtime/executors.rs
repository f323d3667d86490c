//! Starts one executor per shard, each on its own thread, for as long as the process lives.
//!
//! Settings follow from what was measured of glommio 0.9.0 (`broker/docs/decisions`): preemption is switched off
//! by a timer that never fires, because a preempted run may park with runnable tasks; the memory it registers
//! with the kernel is the smallest it accepts, because all files and sockets go through the shard's own ring; an
//! executor is never dropped, because dropping one with I/O in flight is not memory-safe.

use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;

use glommio::LocalExecutorBuilder;

use super::cpus;

/// Memory each executor registers with the kernel, three times over, against the memlock limit.
pub(crate) const IO_MEMORY_BYTES: usize = 512 << 10;
/// Submission queue of the executor's own rings: timers and wake-ups only.
const RING_DEPTH: usize = 128;
const NEVER: Duration = Duration::from_secs(3600);

/// Why a shard could not start.
#[derive(Debug, thiserror::Error)]
#[error("shard {shard}: cannot start its executor: {reason}")]
pub(crate) struct StartError {
    shard: usize,
    reason: String,
}

/// Starts `shards` executors; `body(shard)` makes the future that each one runs. What a body returns comes, with
/// its shard number, through the receiver; the executor then sleeps until the process ends.
pub(crate) fn start<F, T>(
    shards: usize,
    body: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<mpsc::Receiver<(usize, T)>, StartError>
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let usable = cpus::usable();
    let (done, outcomes) = mpsc::channel();
    for shard in 0..shards {
        let (body, done) = (body.clone(), done.clone());
        let builder = LocalExecutorBuilder::new(cpus::placement(shard, shards, &usable))
            .name(&format!("shard-{shard}"))
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(RING_DEPTH)
            .preempt_timer(NEVER);
        let run = move || async move {
            let outcome = body(shard).await;
            // The receiver is gone only when the process is ending anyway.
            let _ = done.send((shard, outcome));
            std::future::pending::<()>().await;
        };
        match builder.spawn(run) {
            // The thread outlives every handle.
            Ok(handle) => std::mem::forget(handle),
            Err(e) => return Err(StartError { shard, reason: e.to_string() }),
        }
    }
    Ok(outcomes)
}
