//! The shard ring: a private io_uring on a glommio executor's thread, driven by one glommio task, for every file
//! and socket of a shard. Why it exists beside glommio's own rings: broker/docs/decisions/0002-shard-ring.md.
//!
//! How it runs: operations queue submission entries; the driver task, woken by the first of them, runs after the
//! tasks that were ready before it and hands all entries to the kernel in one call, which also reaps. Where no other task
//! wants to run it *dozes*: the thread sleeps in the ring, which costs one system call where the executor's own way of
//! sleeping costs six. After [`RingOptions::busy_max`] without anything to do it sleeps on an eventfd that the kernel signals at each
//! completion, awaited through glommio. An eventfd counts, so a completion between the last look and the sleep is not missed.
//!
//! Invariants:
//! - An operation's memory and file (its [`Keep`]) live until its completion, whatever becomes of its future.
//! - A dropped future cancels its operation, which may have had its effect all the same.
//! - Entries that do not fit the submission queue wait in order in a backlog, bounded by the operations alive
//!   (one entry and one cancellation each). The completion queue never loses anything: the kernel holds back what
//!   does not fit (`IORING_FEAT_NODROP`) and the driver comes again for it.
//! - No allocation per operation once the slab has grown, unless it keeps a boxed value.
//! - The driver lets the executor poll its own timers and wake-ups at least each [`RingOptions::busy_max`], however busy it is, and at
//!   once where another thread rings the [`Doorbell`].
//!
//! End a ring by [`Ring::shutdown`]: dropping an executor with operations in flight is not safe. A ring that is
//! dropped in spite of that leaks the memory the kernel may still write to.

mod core;
mod doorbell;
mod keep;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use glommio::io::BufferedFile;
use io_uring::{opcode, squeue, types};

use self::core::{Core, Outcome, Token};
use self::doorbell::Door;
use super::tasks;
pub use doorbell::Doorbell;
pub use keep::{Buffer, Keep};

/// See [`RingOptions::busy_max`].
const BUSY_MAX: Duration = Duration::from_micros(500);

/// How a ring is set up.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// Entries of the submission queue (a power of two); the completion queue has four times as many.
    pub entries: u32,
    /// Kernel threads for operations that block (flushes, allocation, opening files that the kernel has to look for).
    pub blocking_workers: u32,
    /// Longest time the driver goes on, or dozes, without letting the executor poll its own rings.
    pub busy_max: Duration,
}

impl Default for RingOptions {
    fn default() -> RingOptions {
        RingOptions { entries: 1024, blocking_workers: 32, busy_max: BUSY_MAX }
    }
}

/// Handle on the shard ring of this thread.
#[derive(Clone)]
pub struct Ring(Rc<Shared>);

struct Shared {
    core: RefCell<Core>,
    doorbell: Doorbell,
    /// Set while the driver sleeps.
    driver: Cell<Option<Waker>>,
    stopping: Cell<bool>,
    stopped: Cell<bool>,
    on_stopped: Cell<Option<Waker>>,
}

/// The completion of an operation.
#[derive(Debug)]
pub struct Completed {
    /// The operation's result: a count or a descriptor, as its io_uring manual entry says.
    pub result: io::Result<u32>,
    /// Completion flags (`io_uring::cqueue`).
    pub flags: u32,
    /// What it kept.
    pub keep: Keep,
}

impl Ring {
    /// Creates the ring of this thread and starts its driver. Must be called on a glommio executor.
    pub fn new(options: RingOptions) -> io::Result<Ring> {
        let (core, eventfd) = Core::new(options)?;
        let ring = Ring(Rc::new(Shared {
            core: RefCell::new(core),
            doorbell: Doorbell::new()?,
            driver: Cell::new(None),
            stopping: Cell::new(false),
            stopped: Cell::new(false),
            on_stopped: Cell::new(None),
        }));
        tasks::spawn("ring driver", ring.clone().drive(eventfd, options.busy_max));
        Ok(ring)
    }

    /// What other threads ring after they woke a task of this one. Without it the task waits for [`RingOptions::busy_max`] at most.
    pub fn doorbell(&self) -> Doorbell {
        self.0.doorbell.clone()
    }

    /// Waits for at least `duration`, as exactly as the kernel does: the executor's own timers may be late by
    /// [`RingOptions::busy_max`].
    pub async fn sleep(&self, duration: Duration) {
        let until = Box::new(types::Timespec::from(duration));
        let entry = opcode::Timeout::new(&raw const *until).build();
        let keep = Keep { buffer: Buffer::Boxed(until), owner: None };
        // SAFETY: the entry points into the box, which is kept and does not move.
        #[allow(unsafe_code)]
        // It always fails: with ETIME, or because the ring ends.
        let _ = unsafe { self.submit(entry, keep) }.await;
    }

    /// Has the kernel hold `file` open until the last operation of this ring has ended, though the process be killed
    /// before: a killed process is gone while its writes are still under way to the disk. With a locked file, whoever
    /// gets the lock knows that they have ended. Once in a ring's life.
    pub fn hold_open(&self, file: &File) -> io::Result<()> {
        self.0.core.borrow_mut().hold_open(file)
    }

    /// Queues an operation with one completion. Its `user_data` is the ring's own. One with several (multishot, zero-copy send)
    /// ends the driver by a panic.
    ///
    /// # Safety
    /// Memory that `entry` points to must be owned by `keep` (or be static) and must not move or be touched by
    /// others until the operation completed. Its descriptor must stay open as long: own it in `keep`.
    #[allow(unsafe_code)]
    pub unsafe fn submit(&self, entry: squeue::Entry, keep: Keep) -> Op {
        Op { token: self.begin(entry, keep), ring: self.clone() }
    }

    /// Cancels every operation in flight, waits until all are settled, and ends the driver. Operations begun
    /// afterwards complete with ECANCELED at once.
    pub async fn shutdown(&self) {
        if !self.0.stopping.replace(true) {
            self.0.core.borrow_mut().cancel_all();
            self.kick();
        }
        std::future::poll_fn(|cx| {
            if self.0.stopped.get() {
                return Poll::Ready(());
            }
            self.0.on_stopped.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Operations that have not completed.
    pub fn in_flight(&self) -> usize {
        self.0.core.borrow().in_flight()
    }

    /// System calls made to submit and reap so far.
    pub fn enters(&self) -> u64 {
        self.0.core.borrow().enters()
    }

    fn begin(&self, entry: squeue::Entry, keep: Keep) -> Token {
        if self.0.stopping.get() {
            return self.0.core.borrow_mut().begin_cancelled(keep);
        }
        let token = self.0.core.borrow_mut().begin(entry, keep);
        self.kick();
        token
    }

    /// Wakes the driver if it sleeps.
    fn kick(&self) {
        if let Some(waker) = self.0.driver.take() {
            waker.wake();
        }
    }

    /// One visit to the kernel, if there is a reason; gives how many completions it brought.
    fn turn(&self) -> usize {
        let mut fruits = self.0.core.borrow_mut().turn();
        // With no borrow held: wakers and kept values may run code that comes back here.
        let count = fruits.completions;
        fruits.released.clear();
        fruits.wakers.drain(..).for_each(Waker::wake);
        self.0.core.borrow_mut().recycle(fruits);
        count
    }

    async fn drive(self, eventfd: core::EventFd, busy_max: Duration) {
        let mut bell = Bell::new(eventfd);
        let mut door = Door::new(self.doorbell());
        let mut awake_since = Instant::now();
        let mut idle_since = awake_since;
        // Other tasks ran besides; the last park ended without the bell, whose read is still under way.
        let (mut crowded, mut unheard) = (false, false);
        loop {
            let reaped = self.turn();
            let stopping = self.0.stopping.get();
            if stopping && self.0.core.borrow().is_settled() {
                break;
            }
            let now = Instant::now();
            let busy = reaped > 0 || self.0.core.borrow().has_work();
            if busy {
                idle_since = now;
            }
            // Threads without a board cannot tell whether other tasks want to run.
            let turns = tasks::turns();
            let awake = now - awake_since;
            let mut rung = false;
            if awake < busy_max && (busy || (turns.is_some() && !stopping)) {
                glommio::executor().yield_task_queue_now().await;
                // Some turn was not this task's.
                crowded = turns.is_some_and(|turns| tasks::turns() != Some(turns + 1));
                if busy || crowded || turns.is_none() || self.0.core.borrow().has_work() {
                    continue;
                }
                rung = door.doze(&self, busy_max - awake);
                if !rung {
                    continue;
                }
            }
            // Parks for an instant, in which the executor looks after its own rings, or until there is something to do.
            let recent = turns.is_some() && now - idle_since < busy_max;
            let instant = busy || rung || recent || crowded || unheard;
            let rang = self.park(&mut bell, &door, instant).await;
            (crowded, unheard) = (false, !rang);
            awake_since = Instant::now();
            if rang && !instant {
                idle_since = awake_since;
            }
        }
        drop(door);
        bell.close().await;
        self.0.stopped.set(true);
        if let Some(waker) = self.0.on_stopped.take() {
            waker.wake();
        }
    }

    /// Lets the executor look after its own rings: for an instant, or until there is something to do. Says whether the
    /// bell ended it.
    async fn park(&self, bell: &mut Bell, door: &Door, instant: bool) -> bool {
        if instant {
            // Nobody goes on meanwhile, or the executor would not look.
            tasks::pause();
            bell.ring();
        } else {
            self.0.core.borrow_mut().signal(true);
        }
        door.hear();
        let mut first = true;
        let rang = std::future::poll_fn(|cx| {
            // A read left by an earlier park says nothing if it had ended before this one.
            if std::mem::take(&mut first) && bell.waiting.is_some() {
                // What it waits for is asked again below, by a new read if this one has ended.
                let _ = bell.poll(cx);
            }
            self.poll_sleep(bell, instant, cx)
        })
        .await;
        if instant {
            tasks::resume();
        } else {
            self.0.core.borrow_mut().signal(false);
        }
        rang
    }

    /// Ready when the eventfd fired (true) or, unless only the bell counts, when an entry was queued (false).
    fn poll_sleep(&self, bell: &mut Bell, bell_only: bool, cx: &mut Context<'_>) -> Poll<bool> {
        if bell.poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        // A ring that stops waits for the bell like any other until all is settled. Going on at once would poll the
        // bell without end, and each poll leaves a waker with glommio, which can hold 32,767 of them.
        let core = self.0.core.borrow();
        if !bell_only && (core.has_work() || (self.0.stopping.get() && core.is_settled())) {
            return Poll::Ready(false);
        }
        self.0.driver.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// A queued operation: resolves at its completion. Dropping it cancels the operation.
#[must_use = "dropping an operation cancels it"]
pub struct Op {
    ring: Ring,
    token: Token,
}

impl Future for Op {
    type Output = Completed;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completed> {
        let mut core = self.ring.0.core.borrow_mut();
        match core.poll_outcome(self.token, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Outcome { result, flags })) => {
                let result =
                    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as u32) };
                Poll::Ready(Completed { result, flags, keep: core.take_keep(self.token) })
            }
            Poll::Ready(None) => panic!("operation polled after its completion"),
        }
    }
}

impl Op {
    fn is_done(&self) -> bool {
        self.ring.0.core.borrow().is_done(self.token)
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        self.ring.abandon(self.token);
    }
}

impl Ring {
    fn abandon(&self, token: Token) {
        let released = self.0.core.borrow_mut().abandon(token);
        drop(released);
        self.kick();
    }
}

/// The eventfd that the kernel signals at completions, awaited through glommio.
struct Bell {
    eventfd: core::EventFd,
    file: Rc<BufferedFile>,
    /// The read in flight. It stays in flight when the driver goes on for another reason.
    waiting: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Bell {
    fn new(eventfd: core::EventFd) -> Bell {
        let file = Rc::new(eventfd.to_file());
        Bell { eventfd, file, waiting: None }
    }

    /// Signals the eventfd as the kernel would.
    fn ring(&self) {
        self.eventfd.signal();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let file = &self.file;
        let waiting = self.waiting.get_or_insert_with(|| {
            let file = file.clone();
            Box::pin(async move {
                // Its only errors are cancellation and lack of memory; a spurious wake-up is harmless.
                let _ = file.read_at(0, 8).await;
            })
        });
        let ready = waiting.as_mut().poll(cx);
        if ready.is_ready() {
            self.waiting = None;
        }
        ready
    }

    /// Lets the read in flight finish, then closes the eventfd.
    async fn close(mut self) {
        if self.waiting.is_some() {
            self.ring();
            std::future::poll_fn(|cx| self.poll(cx)).await;
        }
        if let Ok(file) = Rc::try_unwrap(self.file) {
            // Closing an eventfd cannot fail in a way that matters.
            let _ = file.close().await;
        }
    }
}

#[cfg(test)]
mod tests;
