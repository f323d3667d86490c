//! The park guard: an outside thread that wakes every shard at a slow beat.
//!
//! glommio 0.9.0 may park while a task is runnable, or miss a wake-up from another thread (its sleep flag is
//! relaxed). Preemption off leaves no case of it that we could measure; the guard bounds what is left: a lost
//! wake-up costs one beat, not a hang. A beat costs a sleeping shard some microseconds, a busy one nothing.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;

/// Time between two beats.
const BEAT: Duration = Duration::from_millis(10);
/// Beats a shard may leave unanswered (5 s) before that is reported: something blocks its thread.
const SILENT_BEATS_MAX: u64 = 500;

/// One shard as the guard sees it.
#[derive(Default)]
pub(crate) struct Pulse {
    waker: AtomicWaker,
    beats: AtomicU64,
}

impl Pulse {
    /// Answers the guard's beats for ever; a shard runs it as a task.
    pub(crate) async fn answer(self: Arc<Pulse>) {
        poll_fn(|cx| {
            self.beats.fetch_add(1, Ordering::Relaxed);
            self.waker.register(cx.waker());
            Poll::<()>::Pending
        })
        .await;
    }
}

/// Starts the guard over all shards.
pub(crate) fn start(pulses: Vec<Arc<Pulse>>) -> std::io::Result<()> {
    std::thread::Builder::new().name("guard".to_owned()).spawn(move || watch(&pulses)).map(drop)
}

fn watch(pulses: &[Arc<Pulse>]) {
    let mut seen: Vec<(u64, u64)> = vec![(0, 0); pulses.len()];
    loop {
        std::thread::sleep(BEAT);
        for (shard, pulse) in pulses.iter().enumerate() {
            let beats = pulse.beats.load(Ordering::Relaxed);
            let (last, silent) = &mut seen[shard];
            *silent = if beats == *last { *silent + 1 } else { 0 };
            *last = beats;
            if *silent == SILENT_BEATS_MAX {
                tracing::warn!(shard, "shard has not run a task for 5 s: its thread is blocked or starved");
            }
            pulse.waker.wake();
        }
    }
}
