//! Counting permits of one shard, given out strictly first come, first served.
//!
//! Everything bounded on a shard (request bytes in flight, messages to another shard, jobs of the worker pool)
//! is a semaphore: who cannot have its permits waits in line, and so stops whatever it reads from.
//! Belongs to one thread; dropping a waiting future leaves the line.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Permits of one kind. Clones share them.
#[derive(Clone)]
pub(crate) struct Semaphore(Rc<Inner>);

struct Inner {
    capacity: usize,
    free: Cell<usize>,
    line: RefCell<VecDeque<Rc<Waiting>>>,
}

struct Waiting {
    count: usize,
    granted: Cell<bool>,
    left: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Permits held; they return when this is dropped.
pub(crate) struct Permit {
    inner: Rc<Inner>,
    count: usize,
}

impl Semaphore {
    pub(crate) fn new(capacity: usize) -> Semaphore {
        Semaphore(Rc::new(Inner { capacity, free: Cell::new(capacity), line: RefCell::default() }))
    }

    /// Takes `count` permits, waiting for its turn. The place in line is that of this call, not of the first
    /// poll. Asking for more than there are takes all of them, so that an outsize request passes alone rather
    /// than never.
    pub(crate) fn acquire(&self, count: usize) -> Acquire {
        match self.try_acquire(count) {
            Some(permit) => Acquire(State::Granted(permit)),
            None => {
                let waiting = Rc::new(Waiting {
                    count: count.min(self.0.capacity),
                    granted: Cell::new(false),
                    left: Cell::new(false),
                    waker: RefCell::new(None),
                });
                self.0.line.borrow_mut().push_back(waiting.clone());
                Acquire(State::InLine(self.0.clone(), waiting))
            }
        }
    }

    /// Takes `count` permits if they are free and nobody waits.
    pub(crate) fn try_acquire(&self, count: usize) -> Option<Permit> {
        let count = count.min(self.0.capacity);
        if !self.0.line.borrow().is_empty() || self.0.free.get() < count {
            return None;
        }
        self.0.free.set(self.0.free.get() - count);
        Some(Permit { inner: self.0.clone(), count })
    }

    /// Permits that are free.
    pub(crate) fn free(&self) -> usize {
        self.0.free.get()
    }

    /// Permits in use.
    pub(crate) fn used(&self) -> usize {
        self.0.capacity - self.0.free.get()
    }
}

impl Inner {
    fn give_back(&self, count: usize) {
        self.free.set(self.free.get() + count);
        debug_assert!(self.free.get() <= self.capacity);
        self.serve_line();
    }

    fn serve_line(&self) {
        loop {
            let front = match self.line.borrow().front() {
                Some(front) if front.left.get() => None,
                Some(front) if front.count <= self.free.get() => Some(front.clone()),
                _ => return,
            };
            self.line.borrow_mut().pop_front();
            if let Some(front) = front {
                self.free.set(self.free.get() - front.count);
                front.granted.set(true);
                if let Some(waker) = front.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
        }
    }
}

impl Permit {
    /// Gives back all but `count`, if it holds more.
    pub(crate) fn shrink(&mut self, count: usize) {
        let back = self.count.saturating_sub(count);
        self.count -= back;
        self.inner.give_back(back);
    }

    /// Holds what `other`, of the same semaphore, held.
    pub(crate) fn join(&mut self, mut other: Permit) {
        assert!(Rc::ptr_eq(&self.inner, &other.inner), "permits of one semaphore");
        self.count += std::mem::take(&mut other.count);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.give_back(self.count);
    }
}

/// Future of [`Semaphore::acquire`].
pub(crate) struct Acquire(State);

enum State {
    Granted(Permit),
    InLine(Rc<Inner>, Rc<Waiting>),
    Done,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        match std::mem::replace(&mut self.0, State::Done) {
            State::Granted(permit) => Poll::Ready(permit),
            State::InLine(inner, waiting) if waiting.granted.get() => {
                Poll::Ready(Permit { inner, count: waiting.count })
            }
            State::InLine(inner, waiting) => {
                *waiting.waker.borrow_mut() = Some(cx.waker().clone());
                self.0 = State::InLine(inner, waiting);
                Poll::Pending
            }
            State::Done => panic!("permit asked for after it was given"),
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let State::InLine(inner, waiting) = &self.0 else { return };
        if waiting.granted.get() {
            inner.give_back(waiting.count);
        } else {
            waiting.left.set(true);
            inner.serve_line();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn first_come_first_served() {
        let permits = Semaphore::new(3);
        let first = permits.try_acquire(2).unwrap();
        let mut large = permits.acquire(2);
        assert!((&mut large).now_or_never().is_none());
        // One permit is free, but the line is not empty.
        assert!(permits.try_acquire(1).is_none());
        let mut small = permits.acquire(1);
        assert!((&mut small).now_or_never().is_none());
        drop(first);
        let large = large.now_or_never().unwrap();
        let small = small.now_or_never().unwrap();
        assert_eq!(permits.used(), 3);
        drop((large, small));
        assert_eq!(permits.used(), 0);
    }

    #[test]
    fn leaving_the_line_lets_the_next_pass() {
        let permits = Semaphore::new(2);
        let held = permits.try_acquire(1).unwrap();
        let mut outsize = permits.acquire(100);
        let mut small = permits.acquire(1);
        assert!((&mut outsize).now_or_never().is_none() && (&mut small).now_or_never().is_none());
        drop(outsize);
        let small = small.now_or_never().unwrap();
        drop((held, small));
        // More than there are takes all.
        assert_eq!(permits.acquire(100).now_or_never().unwrap().count, 2);
    }

    #[test]
    fn permits_shrink_and_join() {
        let permits = Semaphore::new(10);
        let mut held = permits.try_acquire(6).unwrap();
        let mut wanting = permits.acquire(8);
        assert!((&mut wanting).now_or_never().is_none());
        held.shrink(7);
        assert_eq!(permits.used(), 6);
        held.shrink(2);
        held.join(wanting.now_or_never().unwrap());
        assert_eq!(permits.used(), 10);
        drop(held);
        assert_eq!(permits.used(), 0);
    }

    #[test]
    fn a_granted_but_dropped_wait_gives_back() {
        let permits = Semaphore::new(1);
        let held = permits.try_acquire(1).unwrap();
        let mut next = permits.acquire(1);
        assert!((&mut next).now_or_never().is_none());
        drop(held);
        drop(next);
        assert_eq!(permits.used(), 0);
    }
}
