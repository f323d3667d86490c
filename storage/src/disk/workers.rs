//! Threads for what would block a shard: directory operations, making files, closing removed ones.
//!
//! The pool is created before shards pin themselves, so that its threads run on any core. A job that panics ends
//! as an error of its caller; its thread goes on. Jobs waiting are bounded by the futures that wait for them, plus the
//! files being closed.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::ring::Doorbell;

type Job = Box<dyn FnOnce() + Send>;

/// Handle on a pool of worker threads, which end when the last handle is gone.
#[derive(Clone)]
pub struct Workers {
    jobs: Sender<Job>,
    /// Rung when a job is done, for the thread that waits for it.
    doorbell: Option<Doorbell>,
}

impl Workers {
    /// Starts `threads` threads, with the affinity of the calling thread.
    pub fn new(threads: usize) -> io::Result<Workers> {
        Workers::named("disk", threads, || {})
    }

    /// The same, with another name; each thread does `first` before anything else.
    pub fn named(name: &str, threads: usize, first: fn()) -> io::Result<Workers> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads.max(1) {
            let queue = queue.clone();
            let run = move || {
                first();
                work(&queue);
            };
            std::thread::Builder::new().name(format!("{name}-{number}")).spawn(run)?;
        }
        Ok(Workers { jobs, doorbell: None })
    }

    /// The same pool for the thread of this bell.
    #[must_use]
    pub fn with_doorbell(self, doorbell: Doorbell) -> Workers {
        Workers { doorbell: Some(doorbell), ..self }
    }

    /// Runs `job` on a worker. It runs even if the future is dropped.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> impl Future<Output = io::Result<T>> {
        let answer = Arc::new(Mutex::new(Answer { value: None, waker: None }));
        let (promised, doorbell) = (answer.clone(), self.doorbell.clone());
        self.start(move || {
            let value = catch_unwind(AssertUnwindSafe(job))
                .unwrap_or_else(|_| Err(io::Error::other("a disk worker's job panicked")));
            let mut answer = promised.lock().unwrap_or_else(PoisonError::into_inner);
            answer.value = Some(value);
            if let Some(waker) = answer.waker.take() {
                waker.wake();
            }
            drop(answer);
            doorbell.iter().for_each(Doorbell::ring);
        });
        Reply(answer)
    }

    /// Runs `job` on a worker, or here if the pool is gone.
    pub(super) fn start(&self, job: impl FnOnce() + Send + 'static) {
        if let Err(refused) = self.jobs.send(Box::new(job)) {
            (refused.0)();
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            // A panic here is one of a job without a caller (closing a file); nobody is left to tell.
            Ok(job) => drop(catch_unwind(AssertUnwindSafe(job))),
            Err(_) => return,
        }
    }
}

struct Answer<T> {
    value: Option<io::Result<T>>,
    waker: Option<Waker>,
}

struct Reply<T>(Arc<Mutex<Answer<T>>>);

impl<T> Future for Reply<T> {
    type Output = io::Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let mut answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                answer.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
