//! Deterministic executor in virtual time: tasks, events, one random sequence.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use slab::Slab;

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Event = Box<dyn FnOnce()>;
type Ready = Arc<Mutex<Vec<usize>>>;

pub(super) struct Executor {
    tasks: RefCell<Slab<Slot>>,
    ready: Ready,
    /// Due time in nanoseconds, then a number that breaks ties in order of submission.
    events: RefCell<BTreeMap<(u64, u64), Event>>,
    submitted: Cell<u64>,
    now_ns: Cell<u64>,
    steps: Cell<u64>,
    random: Cell<u64>,
    killed: Cell<bool>,
}

struct Slot {
    /// Absent while the task is being polled.
    task: Option<Task>,
    waker: Waker,
    queued: Arc<TaskWaker>,
}

struct TaskWaker {
    key: usize,
    queued: AtomicBool,
    ready: Ready,
}

/// The outcome of a submitted effect, when it has happened.
pub(super) struct Completion<T>(Rc<RefCell<(Option<T>, Option<Waker>)>>);

impl<T> Future for Completion<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut outcome = self.0.borrow_mut();
        match outcome.0.take() {
            Some(output) => Poll::Ready(output),
            None => {
                outcome.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
        }
    }
}

impl Executor {
    pub(super) fn new(seed: u64) -> Executor {
        Executor {
            tasks: RefCell::default(),
            ready: Ready::default(),
            events: RefCell::default(),
            submitted: Cell::new(0),
            now_ns: Cell::new(0),
            steps: Cell::new(0),
            random: Cell::new(seed),
            killed: Cell::new(false),
        }
    }

    pub(super) fn spawn(&self, task: Task) {
        if self.killed.get() {
            return;
        }
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let (key, ready) = (entry.key(), self.ready.clone());
        let queued = Arc::new(TaskWaker { key, queued: AtomicBool::new(false), ready });
        queued.clone().wake();
        entry.insert(Slot { task: Some(task), waker: queued.clone().into(), queued });
    }

    /// Runs `effect` after `delay`, whether or not the future still lives, and gives its output to the future.
    pub(super) fn submit<T: 'static>(
        &self,
        delay: Duration,
        effect: impl FnOnce() -> T + 'static,
    ) -> Completion<T> {
        let outcome = Rc::new(RefCell::new((None, None::<Waker>)));
        let shared = outcome.clone();
        let event = move || {
            let output = effect();
            let mut outcome = shared.borrow_mut();
            outcome.0 = Some(output);
            if let Some(waker) = outcome.1.take() {
                waker.wake();
            }
        };
        if !self.killed.get() {
            let due = self.now_ns.get().saturating_add(delay.as_nanos() as u64);
            let number = self.submitted.replace(self.submitted.get() + 1);
            self.events.borrow_mut().insert((due, number), Box::new(event));
        }
        Completion(outcome)
    }

    /// Polls one ready task or lets one event happen, at random; false if there is neither.
    pub(super) fn step(&self) -> bool {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        if ready == 0 || self.random(4) == 0 {
            let event = self.events.borrow_mut().pop_first();
            if let Some(((due, _), event)) = event {
                self.steps.set(self.steps.get() + 1);
                self.now_ns.set(due);
                event();
                return true;
            }
        }
        if ready == 0 {
            return false;
        }
        self.steps.set(self.steps.get() + 1);
        let chosen = self.random(ready) as usize;
        let key = self.ready.lock().unwrap_or_else(PoisonError::into_inner).swap_remove(chosen);
        self.poll(key);
        true
    }

    fn poll(&self, key: usize) {
        let taken = self.tasks.borrow_mut().get_mut(key).and_then(|slot| {
            slot.queued.queued.store(false, Ordering::Relaxed);
            Some((slot.task.take()?, slot.waker.clone()))
        });
        let Some((mut task, waker)) = taken else { return };
        let done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.tasks.borrow_mut();
        if done || self.killed.get() {
            tasks.try_remove(key);
        } else if let Some(slot) = tasks.get_mut(key) {
            slot.task = Some(task);
        }
    }

    /// Drops every task and event; nothing runs any more.
    pub(super) fn kill(&self) {
        self.killed.set(true);
        let tasks = self.tasks.take();
        let events = self.events.take();
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Dropped with no borrow held: what they own may call back into this executor.
        drop((tasks, events));
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps.get()
    }

    pub(super) fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns.get())
    }

    /// Uniform below `bound` (splitmix64: Steele, Lea, Flood, OOPSLA 2014).
    pub(super) fn random(&self, bound: u64) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * u128::from(bound)) >> 64) as u64
    }
}
