//! The park guard: an outside thread that wakes every shard at a slow beat.
//!
//! glommio 0.9.0 may park while a task is runnable, or miss a wake-up from another thread (its sleep flag is
//! relaxed). Preemption off leaves no case of it that we could measure; the guard bounds what is left: a lost
//! wake-up costs one beat, not a hang. A beat costs a sleeping shard some microseconds, a busy one nothing.
//!
//! As it comes by anyway, it also looks for tasks that hold a core for long, and reports them ([`super::stall`]).

use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use penstock_storage::disk::tasks::{self, TaskBoard};

use super::stall::{CoreTimes, Stall, StallWatch};
use super::{os, task};

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
    /// Which task runs.
    board: Arc<TaskBoard>,
    /// Where the system tells of the shard's thread.
    thread: OnceLock<PathBuf>,
    /// Times that a task held the shard's core for [`STALL_MIN`](super::stall::STALL_MIN) or longer.
    stalls: AtomicU64,
}

impl Pulse {
    /// Runs the shard's own future on its executor: what its tasks do is told from then on, and beats are answered.
    pub(crate) async fn attend<T>(self: Arc<Pulse>, shard: impl Future<Output = T>) -> T {
        tasks::write_on(self.board.clone());
        match os::this_thread() {
            // A shard starts once.
            Ok(thread) => drop(self.thread.set(thread)),
            Err(error) => tracing::warn!("a shard's use of its core cannot be told: {error}"),
        }
        task::spawn("pulse", self.answer());
        tasks::named("shard", shard).await
    }

    /// Answers the guard's beats for ever.
    async fn answer(self: Arc<Pulse>) {
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

    /// How long the shard's thread has run, and waited for a core that something else had, if the system tells.
    pub(crate) fn core_times(&self) -> Option<CoreTimes> {
        os::core_times(self.thread.get()?)
    }

    /// Times that a task held the shard's core for long.
    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }
}

/// Starts the guard over all shards. `describe` puts into words what a task noted of its work.
pub(crate) fn start(pulses: Vec<Arc<Pulse>>, describe: fn(u16) -> &'static str) -> std::io::Result<()> {
    std::thread::Builder::new().name("guard".to_owned()).spawn(move || watch(&pulses, describe)).map(drop)
}

/// What the guard remembers of a shard.
#[derive(Default)]
struct Looked {
    beats: u64,
    silent: Duration,
    stalls: StallWatch,
}

fn watch(pulses: &[Arc<Pulse>], describe: fn(u16) -> &'static str) {
    let mut looked: Vec<Looked> = pulses.iter().map(|_| Looked::default()).collect();
    let mut beat = BEAT;
    loop {
        std::thread::sleep(beat);
        let mut busy = false;
        for (shard, (pulse, looked)) in pulses.iter().zip(&mut looked).enumerate() {
            let stall = looked.stalls.look(pulse.board.look(), Instant::now(), || pulse.core_times());
            if let Some(stall) = stall {
                pulse.stalls.fetch_add(u64::from(!stall.ongoing), Ordering::Relaxed);
                report(shard, &stall, describe);
            }
            let beats = pulse.beats.load(Ordering::Relaxed);
            let before = looked.silent;
            looked.silent = if beats == looked.beats { before + beat } else { Duration::ZERO };
            looked.beats = beats;
            // A task that holds the core is reported by its name.
            let blocked = before < SILENT_MAX && looked.silent >= SILENT_MAX;
            if blocked && !looked.stalls.is_suspicious() {
                tracing::warn!(shard, "shard has not run a task for 5 s: its thread is blocked or starved");
            }
            busy |= pulse.working.load(Ordering::Relaxed) || looked.stalls.is_suspicious();
            pulse.waker.wake();
        }
        beat = if busy { BEAT } else { (beat * 2).min(BEAT_IDLE) };
    }
}

fn report(shard: usize, stall: &Stall, describe: fn(u16) -> &'static str) {
    let Stall { task, note, held, ongoing, core } = *stall;
    let held_ms = held.as_millis() as u64;
    let ran_ms = core.map(|core| core.ran.as_millis() as u64);
    let waited_ms = core.map(|core| core.waited.as_millis() as u64);
    let work = describe(note);
    let what = if ongoing { "a task holds the shard's core" } else { "a task held the shard's core" };
    tracing::warn!(shard, task, work, held_ms, ran_ms, waited_ms, "{what}: everything else there waited");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::runtime::executors;

    /// A task that keeps its core until it has been seen twice in one turn, on a real executor.
    #[test]
    fn the_task_that_holds_a_core_is_seen_from_outside() {
        let pulse: Arc<Pulse> = Arc::default();
        let (held, release) = (Arc::new(AtomicBool::new(true)), mpsc::channel());
        let (own, holds) = (pulse.clone(), held.clone());
        let ended = release.0.clone();
        let outcomes = executors::start(1, move |_| {
            let (own, holds, ended) = (own.clone(), holds.clone(), ended.clone());
            own.attend(async move {
                task::spawn("holder", async move {
                    tasks::note(18);
                    while holds.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                    ended.send(()).unwrap();
                });
            })
        });
        outcomes.unwrap();
        let holder = loop {
            match pulse.board.look().filter(|running| running.task == "holder" && running.note == 18) {
                Some(running) => break running,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(pulse.board.look(), Some(holder), "the same turn");
        assert!(pulse.core_times().is_some_and(|core| core.ran > Duration::ZERO));
        held.store(false, Ordering::Relaxed);
        release.1.recv().unwrap();
        while pulse.board.look() == Some(holder) {
            std::thread::yield_now();
        }
    }
}
