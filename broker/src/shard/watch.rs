//! Waiting for partitions to change, across shards.
//!
//! Who waits makes a [`Signal`] per shard and leaves it, weakly, with the partitions it waits for. A change fires all
//! signals left there and forgets them; a signal nobody holds any more costs its slot until the next sweep.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use penstock_storage::disk::ring::Doorbell;

/// Signals that may gather before those nobody holds any more are looked for.
const SWEEP_MIN: usize = 32;

/// Says that one of some partitions changed. May be fired from another thread.
#[derive(Default)]
pub(crate) struct Signal {
    fired: AtomicBool,
    waker: AtomicWaker,
    /// Of the shard that waits, where another one fires.
    doorbell: Option<Doorbell>,
}

impl Signal {
    /// A signal that another shard than the one of this bell fires.
    pub(crate) fn across(doorbell: Doorbell) -> Signal {
        Signal { doorbell: Some(doorbell), ..Signal::default() }
    }

    fn fire(&self) {
        if !self.fired.swap(true, Ordering::AcqRel) {
            self.waker.wake();
            self.doorbell.iter().for_each(Doorbell::ring);
        }
    }

    /// Whether it was fired.
    pub(crate) fn fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }
}

/// Waits until any of `signals` was fired; for ever if there is none.
pub(crate) fn first_signal(signals: &[Arc<Signal>]) -> impl Future<Output = ()> + '_ {
    poll_fn(move |cx| {
        for signal in signals {
            signal.waker.register(cx.waker());
        }
        if signals.iter().any(|signal| signal.fired()) { Poll::Ready(()) } else { Poll::Pending }
    })
}

/// Signals left with one partition.
pub(crate) struct Watchers {
    signals: RefCell<Vec<Weak<Signal>>>,
    sweep_at: Cell<usize>,
}

impl Default for Watchers {
    fn default() -> Watchers {
        Watchers { signals: RefCell::default(), sweep_at: Cell::new(SWEEP_MIN) }
    }
}

impl Watchers {
    /// Leaves a signal to be fired by the next change.
    pub(crate) fn add(&self, signal: &Arc<Signal>) {
        let mut signals = self.signals.borrow_mut();
        if signals.len() >= self.sweep_at.get() {
            signals.retain(|signal| signal.strong_count() > 0);
            self.sweep_at.set((signals.len() * 2).max(SWEEP_MIN));
        }
        signals.push(Arc::downgrade(signal));
    }

    /// Fires all signals left here.
    pub(crate) fn fire(&self) {
        for signal in self.signals.borrow_mut().drain(..) {
            if let Some(signal) = signal.upgrade() {
                signal.fire();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_change_fires_once_and_is_never_missed() {
        let watchers = Watchers::default();
        let signals = [Arc::new(Signal::default()), Arc::new(Signal::default())];
        watchers.add(&signals[1]);
        assert!(first_signal(&signals).now_or_never().is_none());
        watchers.fire();
        assert!(first_signal(&signals).now_or_never().is_some());
        assert!(signals[1].fired() && !signals[0].fired());
    }

    #[test]
    fn abandoned_signals_are_swept() {
        let watchers = Watchers::default();
        let kept = Arc::new(Signal::default());
        watchers.add(&kept);
        for _ in 0..1000 {
            watchers.add(&Arc::new(Signal::default()));
        }
        assert!(watchers.signals.borrow().len() <= SWEEP_MIN);
        watchers.fire();
        assert!(kept.fired());
    }
}
