//! Threads beside the shards, for work that takes a core for long: compression, record checks of large batches, requests
//! that name very many things.
//!
//! A shard may have [`JOBS_PER_SHARD`] jobs queued or running; further ones wait in line on the shard, which
//! holds back the connections they come from. A job that panics fails alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use penstock_storage::disk::ring::Doorbell;
use tokio::sync::oneshot;

use super::pace::STRETCH_ENTRIES;
use super::panics::WORKER_THREAD;
use super::semaphore::Semaphore;
use super::task;

/// Jobs of one shard that may be queued or running at once.
const JOBS_PER_SHARD: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// The pool. Clones share it.
#[derive(Clone)]
pub(crate) struct Workers {
    jobs: mpsc::SyncSender<Job>,
}

/// A job panicked: a bug, or a codec that met bytes it does not survive.
#[derive(Debug, thiserror::Error)]
#[error("a worker's job panicked")]
pub(crate) struct JobPanicked;

impl Workers {
    /// Starts `threads` workers for `shards` shards; `name` stands in the names of the threads.
    pub(crate) fn start(name: &str, threads: usize, shards: usize) -> std::io::Result<Workers> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(JOBS_PER_SHARD * shards);
        let queue = Arc::new(Mutex::new(queue));
        for worker in 0..threads.max(1) {
            let queue = queue.clone();
            let run = move || {
                loop {
                    // The lock is among workers only: a shard never takes it.
                    let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
                    let Ok(job) = next else { return };
                    // The job's channel reports the panic to the shard that waits.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            };
            std::thread::Builder::new().name(format!("{WORKER_THREAD}{name}-{worker}")).spawn(run)?;
        }
        Ok(Workers { jobs })
    }

    /// The pool as one shard uses it: its bell is rung when a job is done.
    pub(crate) fn for_shard(&self, doorbell: Option<Doorbell>) -> ShardWorkers {
        ShardWorkers { pool: self.clone(), line: Semaphore::new(JOBS_PER_SHARD), doorbell }
    }
}

/// One shard's access to the pool. Clones share its bound.
#[derive(Clone)]
pub(crate) struct ShardWorkers {
    pool: Workers,
    line: Semaphore,
    doorbell: Option<Doorbell>,
}

/// Rings when it is dropped.
struct RingAtLast(Option<Doorbell>);

impl Drop for RingAtLast {
    fn drop(&mut self) {
        self.0.iter().for_each(Doorbell::ring);
    }
}

impl ShardWorkers {
    /// Runs `work` on a worker thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobPanicked> {
        let _permit = self.line.acquire(1).await;
        let (done, outcome) = oneshot::channel();
        let ring = RingAtLast(self.doorbell.clone());
        let job = Box::new(move || {
            let _ring = ring;
            // Dropped before, also where the work panics.
            let done = done;
            // Nobody waits any more where the connection has gone.
            let _ = done.send(work());
        });
        let mut job: Job = job;
        // Jobs whose caller went away still hold their place: only then can the queue be full.
        while let Err(mpsc::TrySendError::Full(again)) = self.pool.jobs.try_send(job) {
            job = again;
            task::sleep(Duration::from_millis(1)).await;
        }
        outcome.await.map_err(|_| JobPanicked)
    }

    /// Runs `work`, which is about so many entries: at once on the shard if that is no more than a stretch of it, else on
    /// a worker thread.
    ///
    /// # Panics
    /// If the work does: a shard that went on without its outcome would be as wrong as one without the work.
    pub(crate) async fn run_by_size<T: Send + 'static>(
        &self,
        entries: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if entries <= STRETCH_ENTRIES {
            return work();
        }
        match self.run(work).await {
            Ok(outcome) => outcome,
            Err(JobPanicked) => panic!("a large request's work panicked; the worker has said where"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_job_fails_alone() {
        let workers = Workers::start("test", 1, 1).unwrap().for_shard(None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            assert!(workers.run(|| panic!("planted")).await.map(|(): ()| ()).is_err());
            assert_eq!(workers.run(|| 7).await.unwrap(), 7);
        });
    }

    #[test]
    fn only_what_is_longer_than_a_stretch_leaves_its_thread() {
        let workers = Workers::start("test", 1, 1).unwrap().for_shard(None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let here = std::thread::current().id();
            let on = || std::thread::current().id();
            assert_eq!(workers.run_by_size(0, on).await, here);
            assert_eq!(workers.run_by_size(STRETCH_ENTRIES, on).await, here);
            assert_ne!(workers.run_by_size(STRETCH_ENTRIES + 1, on).await, here);
        });
    }
}
