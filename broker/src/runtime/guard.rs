//! The park guard: an outside thread that wakes every shard at a slow beat.
//!
//! glommio 0.9.0 may park while a task is runnable, or miss a wake-up from another thread (its sleep flag is
//! relaxed). Preemption off leaves no case of it that we could measure; the guard bounds what is left: a lost
//! wake-up costs one beat, not a hang. A beat costs a sleeping shard some microseconds, a busy one nothing.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;

/// Time between two beats while any shard is at work.
const BEAT: Duration = Duration::from_millis(10);
/// Time between two beats while all sleep: beats are what an idle broker costs.
const BEAT_IDLE: Duration = Duration::from_millis(100);
/// Tasks that a shard runs between two beats without being at work: the answer to the beat, and a timer.
const TASKS_IDLE: u64 = 4;
/// Time without an answer after which that is reported: something blocks the shard's thread.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// One shard as the guard sees it.
#[derive(Default)]
pub(crate) struct Pulse {
    waker: AtomicWaker,
    beats: AtomicU64,
    working: AtomicBool,
}

impl Pulse {
    /// Answers the guard's beats for ever; a shard runs it as a task.
    pub(crate) async fn answer(self: Arc<Pulse>) {
        poll_fn(|cx| {
            // Counted since this was asked last.
            let tasks = glommio::executor().executor_stats().tasks_executed();
            self.working.store(tasks > TASKS_IDLE, Ordering::Relaxed);
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
    let mut seen: Vec<(u64, Duration)> = vec![(0, Duration::ZERO); pulses.len()];
    let mut beat = BEAT;
    loop {
        std::thread::sleep(beat);
        for (shard, pulse) in pulses.iter().enumerate() {
            let beats = pulse.beats.load(Ordering::Relaxed);
            let (last, silent) = &mut seen[shard];
            let before = *silent;
            *silent = if beats == *last { before + beat } else { Duration::ZERO };
            *last = beats;
            if before < SILENT_MAX && *silent >= SILENT_MAX {
                tracing::warn!(shard, "shard has not run a task for 5 s: its thread is blocked or starved");
            }
            pulse.waker.wake();
        }
        let working = pulses.iter().any(|pulse| pulse.working.load(Ordering::Relaxed));
        beat = if working { BEAT } else { (beat * 2).min(BEAT_IDLE) };
    }
}
