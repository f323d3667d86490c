//! What a panic does: a worker's job fails alone; anywhere else the process ends at once, because a broker that
//! lost one of its shards would go on accepting what it cannot serve.

/// Prefix of the names of worker threads.
pub(crate) const WORKER_THREAD: &str = "worker-";
/// Prefix of the names of the storage threads that do blocking calls.
const DISK_THREAD: &str = "disk-";

/// Reports every panic through the log; ends the process unless a worker thread panicked (their pools answer for it). Every thread of the
/// process is ours, so a panic is a bug of ours and never an answer to a peer.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(thread = name, place, "panic: {what}");
        if !name.starts_with(WORKER_THREAD) && !name.starts_with(DISK_THREAD) {
            tracing::error!("ending the process: thread {name} cannot go on (a bug; please report it)");
            std::process::abort();
        }
    }));
}
