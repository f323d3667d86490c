//! Which of a thread's tasks runs just now, for another thread to see.
//!
//! An executor runs one task at a time, and a task that does not wait keeps its core to itself. From within nobody can
//! tell until it is over; so each task writes its number on the thread's board when it gets its turn, and wipes it
//! when it waits again: two relaxed stores, no clock. Whoever looks from outside and finds the same turn twice knows
//! who held the core in between, and at least how long.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Names that a board can tell apart; tasks with further names share the last.
const NAMES_MAX: usize = 64;
/// Bits of the number of a name, of what its task noted, and (the rest) of the turn.
const NAME_BITS: u32 = 8;
const NOTE_BITS: u32 = 16;

/// What runs on a thread, as other threads may see it.
#[derive(Debug, Default)]
pub struct TaskBoard {
    /// Turn, note and name (0 while no task runs), from high bits to low.
    word: AtomicU64,
    names: Mutex<Vec<&'static str>>,
}

/// A task in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The task's name.
    pub task: &'static str,
    /// What it noted of its work, 0 where it noted nothing.
    pub note: u16,
    /// Number of the turn: different for every other turn of this thread, but for those 2⁴⁰ turns away.
    pub turn: u64,
}

/// Whether the executor is to look after its own rings now, and who waits until it has.
#[derive(Default)]
struct Pause {
    wanted: bool,
    waiting: Vec<Waker>,
}

thread_local! {
    static PAUSE: RefCell<Pause> = RefCell::default();
    static BOARD: RefCell<Option<Arc<TaskBoard>>> = const { RefCell::new(None) };
}

impl TaskBoard {
    /// The task that runs; `None` between two turns and while the thread sleeps.
    pub fn look(&self) -> Option<Running> {
        let word = self.word.load(Ordering::Relaxed);
        let name = word & ((1 << NAME_BITS) - 1);
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let task = *names.get(usize::try_from(name).ok()?.checked_sub(1)?)?;
        let note = (word >> NAME_BITS) as u16;
        Some(Running { task, note, turn: word >> (NAME_BITS + NOTE_BITS) })
    }

    /// The number of a name, from 1.
    fn number(&self, name: &'static str) -> u64 {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match names.iter().position(|known| *known == name) {
            Some(at) => at,
            None if names.len() < NAMES_MAX => {
                names.push(name);
                names.len() - 1
            }
            None => NAMES_MAX - 1,
        };
        at as u64 + 1
    }

    /// Number of the newest turn.
    fn turn(&self) -> u64 {
        self.word.load(Ordering::Relaxed) >> (NAME_BITS + NOTE_BITS)
    }

    /// A turn begins: the one that was written here before is put back when it ends, as one task may poll another.
    fn begin(&self, name: u64) -> u64 {
        let before = self.word.load(Ordering::Relaxed);
        let turn = self.turn().wrapping_add(1);
        self.word.store((turn << (NAME_BITS + NOTE_BITS)) | name, Ordering::Relaxed);
        before
    }

    fn end(&self, before: u64) {
        let turn = self.word.load(Ordering::Relaxed) >> (NAME_BITS + NOTE_BITS) << (NAME_BITS + NOTE_BITS);
        let outer = before & ((1 << (NAME_BITS + NOTE_BITS)) - 1);
        self.word.store(turn | outer, Ordering::Relaxed);
    }

    /// The task that runs notes what it works on.
    pub fn note(&self, note: u16) {
        let mask = ((1 << NOTE_BITS) - 1) << NAME_BITS;
        let word = self.word.load(Ordering::Relaxed) & !mask;
        self.word.store(word | (u64::from(note) << NAME_BITS), Ordering::Relaxed);
    }
}

/// Has the tasks that this thread starts from now on write on `board`, which is this thread's alone.
pub fn write_on(board: Arc<TaskBoard>) {
    BOARD.with(|own| *own.borrow_mut() = Some(board));
}

/// Runs a task on this thread's executor until it ends; its turns are told by `name`.
pub fn spawn(name: &'static str, task: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(named(name, task)).detach();
}

/// Runs a future with its turns told by `name`, where this thread has a board.
pub async fn named<F: Future>(name: &'static str, future: F) -> F::Output {
    let board = BOARD.with(|own| own.borrow().clone());
    let Some(board) = board else { return future.await };
    let name = board.number(name);
    let mut future = pin!(future);
    poll_fn(|cx| {
        let before = board.begin(name);
        let outcome = future.as_mut().poll(cx);
        board.end(before);
        outcome
    })
    .await
}

/// Lets the other tasks of this thread run. The executor looks after timers and wake-ups only when no task can run: so a
/// task that goes on and on, a stretch at a time, waits here where it is time for that.
pub async fn yield_now() {
    glommio::executor().yield_task_queue_now().await;
    poll_fn(|cx| {
        PAUSE.with_borrow_mut(|pause| {
            if !pause.wanted {
                return Poll::Ready(());
            }
            pause.waiting.push(cx.waker().clone());
            Poll::Pending
        })
    })
    .await;
}

/// Has tasks that yield wait until [`resume`].
pub(super) fn pause() {
    PAUSE.with_borrow_mut(|pause| pause.wanted = true);
}

/// The executor has looked: tasks that yielded go on.
pub(super) fn resume() {
    let waiting = PAUSE.with_borrow_mut(|pause| {
        pause.wanted = false;
        std::mem::take(&mut pause.waiting)
    });
    waiting.into_iter().for_each(Waker::wake);
}

/// Number of the newest turn of a task of this thread, where it has a board: two looks tell how many turns lie between.
pub(super) fn turns() -> Option<u64> {
    BOARD.with(|own| own.borrow().as_ref().map(|board| board.turn()))
}

/// The task that runs on this thread notes what it works on, where this thread has a board.
pub fn note(note: u16) {
    BOARD.with(|own| own.borrow().iter().for_each(|board| board.note(note)));
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// What is seen from within each turn, nested ones too, and between the turns.
    #[test]
    fn turns_are_told_while_they_last() {
        let board = Arc::new(TaskBoard::default());
        write_on(board.clone());
        let look = || board.look().map(|running| (running.task, running.note, running.turn));
        let inner = async || {
            note(7);
            look()
        };
        let outer = named("outer", async {
            note(3);
            let within = look();
            let nested = named("inner", inner()).await;
            (within, nested, look())
        });
        let seen = outer.now_or_never();
        let expected = (Some(("outer", 3, 1)), Some(("inner", 7, 2)), Some(("outer", 3, 2)));
        assert_eq!((seen, look()), (Some(expected), None));
        assert_eq!(named("outer", async { look() }).now_or_never(), Some(Some(("outer", 0, 3))));
    }

    #[test]
    fn a_name_has_one_number_and_too_many_share_the_last() {
        let board = TaskBoard::default();
        assert_eq!((board.number("a"), board.number("b"), board.number("a")), (1, 2, 1));
        for n in 0..NAMES_MAX {
            let name: &'static str = Box::leak(format!("task {n}").into_boxed_str());
            assert!(board.number(name) <= NAMES_MAX as u64);
        }
        assert_eq!(board.number("one more"), NAMES_MAX as u64);
    }

    #[test]
    fn turns_are_counted_round_without_touching_the_name() {
        let board = TaskBoard::default();
        let name = board.number("task");
        board.word.store(u64::MAX << (NAME_BITS + NOTE_BITS), Ordering::Relaxed);
        let before = board.begin(name);
        assert_eq!(board.look(), Some(Running { task: "task", note: 0, turn: 0 }));
        board.end(before);
        assert_eq!(board.look(), None);
    }
}
