//! Waiting for conditions within one thread.
//!
//! A [`WaitList`] wakes the futures that wait on it; each of them holds one slot, so that the list is bounded by
//! the futures alive, however often they are polled.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Futures waiting for something to change, each with a number that says from which level on it is served.
#[derive(Default)]
pub(crate) struct WaitList {
    slots: RefCell<Slab<(u64, Option<Waker>)>>,
}

impl WaitList {
    /// Wakes everyone.
    pub(crate) fn wake_all(&self) {
        self.wake_up_to(u64::MAX);
    }

    /// Wakes those whose level is at most `level`.
    pub(crate) fn wake_up_to(&self, level: u64) {
        for (_, (wanted, waker)) in self.slots.borrow_mut().iter_mut() {
            if *wanted <= level
                && let Some(waker) = waker.take()
            {
                waker.wake();
            }
        }
    }

    /// Waits until `ready` gives a value; asked now and after each wake. Cancel-safe.
    pub(crate) fn until<T, F: FnMut() -> Option<T>>(&self, ready: F) -> Until<'_, F> {
        self.until_level(0, ready)
    }

    /// The same, but woken only by levels of at least `level`.
    pub(crate) fn until_level<T, F: FnMut() -> Option<T>>(&self, level: u64, ready: F) -> Until<'_, F> {
        Until { list: self, level, key: None, ready }
    }
}

/// Future of [`WaitList::until`].
pub(crate) struct Until<'a, F> {
    list: &'a WaitList,
    level: u64,
    key: Option<usize>,
    ready: F,
}

impl<F> Unpin for Until<'_, F> {}

impl<T, F: FnMut() -> Option<T>> Future for Until<'_, F> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        if let Some(value) = (this.ready)() {
            return Poll::Ready(value);
        }
        let mut slots = this.list.slots.borrow_mut();
        let waker = Some(cx.waker().clone());
        match this.key {
            Some(key) => slots[key].1 = waker,
            None => this.key = Some(slots.insert((this.level, waker))),
        }
        Poll::Pending
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.list.slots.borrow_mut().remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_by_level_and_frees_slots() {
        let (list, level) = (WaitList::default(), Cell::new(0));
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let mut wait = Box::pin(list.until_level(5, || (level.get() >= 5).then_some(())));
        for _ in 0..3 {
            assert!(wait.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(list.slots.borrow().len(), 1);
        list.wake_up_to(4);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        level.set(5);
        list.wake_up_to(5);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(wait.as_mut().poll(&mut cx).is_ready());
        drop(wait);
        assert_eq!(list.slots.borrow().len(), 0);
    }
}
