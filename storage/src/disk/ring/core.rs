//! The ring itself and the table of operations in flight: plain data, no tasks. Unsafe because submission entries
//! carry raw pointers to the kernel; their proofs are the callers' (`Ring::submit`).
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::io::BufferedFile;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;

use super::{Buffer, Keep, RingOptions};

/// `user_data` of cancellations: nobody waits for their own completion.
const NOBODY: u64 = u64::MAX;
/// `IORING_ENTER_GETEVENTS`: also run the deferred completions.
const GETEVENTS: u32 = 1;

/// Names one operation: slot and generation, so that a late cancellation never strikes the slot's next user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(u64);

/// One completion as the kernel gives it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) result: i32,
    pub(super) flags: u32,
}

struct Slot {
    token: Token,
    keep: Keep,
    waker: Option<Waker>,
    outcome: Option<Outcome>,
    done: bool,
    abandoned: bool,
}

impl Slot {
    /// What it kept, of an operation that nobody waits for any more. A file that it opened is closed.
    fn released(self) -> Keep {
        if let (Buffer::Path(_), Some(Outcome { result: fd @ 0.., .. })) = (&self.keep.buffer, self.outcome) {
            // SAFETY: a descriptor that the kernel just opened, and that nobody was given.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        self.keep
    }
}

/// What a turn brought, for its caller to carry out without a borrow.
#[derive(Default)]
pub(super) struct Fruits {
    pub(super) completions: usize,
    pub(super) wakers: Vec<Waker>,
    /// Kept by operations whose futures are gone.
    pub(super) released: Vec<Keep>,
}

pub(super) struct Core {
    ring: IoUring,
    slots: Slab<Slot>,
    generation: u32,
    running: usize,
    backlog: VecDeque<squeue::Entry>,
    fruits: Fruits,
    enters: u64,
}

impl Core {
    pub(super) fn new(options: RingOptions) -> io::Result<(Core, EventFd)> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(options.entries * 4)
            .build(options.entries)?;
        let eventfd = EventFd::new()?;
        ring.submitter().register_eventfd(eventfd.0.as_raw_fd())?;
        ring.submitter().register_iowq_max_workers(&mut [options.blocking_workers; 2])?;
        let core = Core {
            ring,
            slots: Slab::with_capacity(options.entries as usize),
            generation: 0,
            running: 0,
            backlog: VecDeque::new(),
            fruits: Fruits::default(),
            enters: 0,
        };
        Ok((core, eventfd))
    }

    /// Registers `file` with the ring: the kernel lets go of it after the last operation.
    pub(super) fn hold_open(&mut self, file: &File) -> io::Result<()> {
        self.ring.submitter().register_files(&[file.as_raw_fd()])
    }

    pub(super) fn begin(&mut self, entry: squeue::Entry, keep: Keep) -> Token {
        let token = self.insert(keep);
        self.running += 1;
        self.push(entry.user_data(token.0));
        token
    }

    /// An operation that the kernel never sees, for a ring that is shutting down.
    pub(super) fn begin_cancelled(&mut self, keep: Keep) -> Token {
        let token = self.insert(keep);
        let slot = &mut self.slots[token.key()];
        slot.outcome = Some(Outcome { result: -libc::ECANCELED, flags: 0 });
        slot.done = true;
        token
    }

    fn insert(&mut self, keep: Keep) -> Token {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slots.vacant_entry();
        let token = Token::new(entry.key(), self.generation);
        entry.insert(Slot { token, keep, waker: None, outcome: None, done: false, abandoned: false });
        token
    }

    fn slot(&mut self, token: Token) -> &mut Slot {
        let slot = &mut self.slots[token.key()];
        assert_eq!(slot.token, token, "operation used after its end");
        slot
    }

    /// The completion; `None` when it has been given.
    pub(super) fn poll_outcome(&mut self, token: Token, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let slot = self.slot(token);
        if slot.done {
            return Poll::Ready(slot.outcome.take());
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    pub(super) fn is_done(&self, token: Token) -> bool {
        self.slots.get(token.key()).is_some_and(|slot| slot.token == token && slot.done)
    }

    /// The kept value of an operation that is done.
    pub(super) fn take_keep(&mut self, token: Token) -> Keep {
        let slot = self.slot(token);
        assert!(slot.done, "the kernel still uses this memory");
        std::mem::take(&mut slot.keep)
    }

    /// Its future is gone: frees the slot, or cancels the operation and leaves the rest to its completion.
    pub(super) fn abandon(&mut self, token: Token) -> Option<Keep> {
        let slot = self.slot(token);
        if slot.done {
            return Some(self.slots.remove(token.key()).released());
        }
        slot.abandoned = true;
        slot.waker = None;
        self.cancel(token);
        None
    }

    fn cancel(&mut self, token: Token) {
        if !self.is_done(token) {
            self.push(opcode::AsyncCancel::new(token.0).build().user_data(NOBODY));
        }
    }

    pub(super) fn cancel_all(&mut self) {
        let running: Vec<Token> =
            self.slots.iter().filter(|(_, slot)| !slot.done).map(|(_, slot)| slot.token).collect();
        running.into_iter().for_each(|token| self.cancel(token));
    }

    fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            self.backlog.push_back(entry);
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: `Ring::submit` demands that the entry's memory and descriptor live until its completion, and
        // its slot holds what owns them until then.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    /// Whether the next turn would visit the kernel.
    pub(super) fn has_work(&self) -> bool {
        // SAFETY: the submission queue of this thread's own ring; no other `SubmissionQueue` of it exists here.
        let queue = unsafe { self.ring.submission_shared() };
        !self.backlog.is_empty() || !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Submits what is queued, runs the kernel's deferred completions, and reaps.
    pub(super) fn turn(&mut self) -> Fruits {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
        if self.has_work() {
            self.enter();
        }
        let mut fruits = std::mem::take(&mut self.fruits);
        for completion in self.ring.completion() {
            fruits.completions += 1;
            if completion.user_data() == NOBODY {
                continue;
            }
            let token = Token(completion.user_data());
            let outcome = Outcome { result: completion.result(), flags: completion.flags() };
            let slot = &mut self.slots[token.key()];
            assert_eq!(slot.token, token, "completion of an operation that had ended");
            assert!(!cqueue::more(outcome.flags), "an operation with several completions");
            slot.done = true;
            self.running -= 1;
            slot.outcome = Some(outcome);
            if slot.abandoned {
                fruits.released.push(self.slots.remove(token.key()).released());
                continue;
            }
            fruits.wakers.extend(slot.waker.take());
        }
        fruits
    }

    fn enter(&mut self) {
        self.enters += 1;
        let queued = self.ring.submission().len() as u32;
        // SAFETY: no signal mask is passed; every queued entry was pushed under the contract of `Ring::submit`.
        check(unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None) });
    }

    /// Submits what is queued and sleeps in the kernel until an operation completes, at most so long.
    pub(super) fn doze(&mut self, at_most: Duration) {
        self.enters += 1;
        let at_most = types::Timespec::from(at_most);
        let args = types::SubmitArgs::new().timespec(&at_most);
        check(self.ring.submitter().submit_with_args(1, &args));
    }

    /// Whether the kernel signals the eventfd at completions. Look for them again behind switching it on: what came
    /// before is not signalled.
    pub(super) fn signal(&mut self, on: bool) {
        let completions = self.ring.completion();
        if on {
            completions.enable_eventfd();
            // Before the flags are read that tell of completions.
            fence(Ordering::SeqCst);
        } else {
            completions.disable_eventfd();
        }
    }

    /// Takes back the emptied vectors, to be filled again.
    pub(super) fn recycle(&mut self, mut fruits: Fruits) {
        debug_assert!(fruits.wakers.is_empty() && fruits.released.is_empty());
        fruits.completions = 0;
        self.fruits = fruits;
    }

    /// Whether no operation is in flight and nothing waits to be submitted.
    pub(super) fn is_settled(&self) -> bool {
        self.running == 0 && self.backlog.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.running
    }

    pub(super) fn enters(&self) -> u64 {
        self.enters
    }
}

/// Interrupted, out of time, short of memory, or more completions wait than fit: the next turn tries again.
fn check(entered: io::Result<usize>) {
    let Err(error) = entered else { return };
    let passing = [libc::EINTR, libc::ETIME, libc::EAGAIN, libc::EBUSY, libc::ENOMEM];
    let passes = error.raw_os_error().is_some_and(|errno| passing.contains(&errno));
    assert!(passes, "the shard ring failed: {error}");
}

impl Drop for Core {
    fn drop(&mut self) {
        for slot in self.slots.drain().filter(|slot| !slot.done) {
            // The kernel may still write there: leaking is the only safe end.
            std::mem::forget(slot.keep);
        }
    }
}

impl Token {
    fn new(key: usize, generation: u32) -> Token {
        Token(u64::from(generation) << 32 | key as u64)
    }

    fn key(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

/// A blocking eventfd: reading it waits until it was signalled.
pub(super) struct EventFd(OwnedFd);

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl EventFd {
    pub(super) fn new() -> io::Result<EventFd> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just created, owned by nobody else.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// A glommio file on a duplicate of the descriptor.
    pub(super) fn to_file(&self) -> BufferedFile {
        let duplicate = self.0.try_clone().unwrap_or_else(|error| panic!("eventfd: {error}"));
        // SAFETY: the duplicate's ownership passes to the file, which closes it.
        unsafe { BufferedFile::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(duplicate)) }
    }

    pub(super) fn signal(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes, an open descriptor. It blocks only at 2^64 - 2 unread signals.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}
