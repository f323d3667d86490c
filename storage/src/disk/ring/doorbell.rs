//! Waking a thread that sleeps in its ring, from other threads.
//!
//! The executor hears of wake-ups from other threads where it parks. A driver that dozes in its own ring does not let it
//! park: whoever woke one of its tasks from another thread rings behind that, and the driver has the executor park for
//! an instant.
//!
//! Invariant: who rings is heard. Either the doze is seen, and the eventfd ends it; or the doze that would begin sees that
//! somebody rang.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use io_uring::{opcode, types};

use super::core::EventFd;
use super::{Buffer, Keep, Op, Ring};

/// Rings for the thread of one [`Ring`]. Clones ring the same bell.
#[derive(Clone)]
pub struct Doorbell(Arc<Shared>);

struct Shared {
    rung: AtomicBool,
    dozing: AtomicBool,
    eventfd: EventFd,
}

impl Doorbell {
    pub(super) fn new() -> std::io::Result<Doorbell> {
        let (rung, dozing) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Doorbell(Arc::new(Shared { rung, dozing, eventfd: EventFd::new()? })))
    }

    /// Says that a task of the thread was woken. From any thread; costs a system call only where the thread dozes.
    pub fn ring(&self) {
        self.0.rung.store(true, Ordering::SeqCst);
        if self.0.dozing.load(Ordering::SeqCst) {
            self.0.eventfd.signal();
        }
    }
}

/// The driver's side of the bell.
pub(super) struct Door {
    bell: Doorbell,
    /// The read of the eventfd that ends a doze.
    read: Option<Op>,
}

impl Door {
    pub(super) fn new(bell: Doorbell) -> Door {
        Door { bell, read: None }
    }

    /// Sleeps in the ring until an operation completes or somebody rings, at most so long. Says whether somebody rang
    /// since [`Door::hear`].
    pub(super) fn doze(&mut self, ring: &Ring, at_most: Duration) -> bool {
        self.listen(ring);
        let shared = &self.bell.0;
        shared.dozing.store(true, Ordering::SeqCst);
        if !shared.rung.load(Ordering::SeqCst) {
            ring.0.core.borrow_mut().doze(at_most);
        }
        shared.dozing.store(false, Ordering::SeqCst);
        shared.rung.load(Ordering::SeqCst)
    }

    /// The executor is about to look for wake-ups from other threads.
    pub(super) fn hear(&self) {
        self.bell.0.rung.store(false, Ordering::SeqCst);
    }

    #[allow(unsafe_code)]
    fn listen(&mut self, ring: &Ring) {
        if self.read.as_ref().is_some_and(|read| !read.is_done()) {
            return;
        }
        let mut count = BytesMut::with_capacity(size_of::<u64>());
        let fd = types::Fd(self.bell.0.eventfd.as_raw_fd());
        let entry = opcode::Read::new(fd, count.as_mut_ptr(), size_of::<u64>() as u32).build();
        let keep = Keep::new(Buffer::BytesMut(count), Rc::new(self.bell.clone()));
        // SAFETY: the entry points to the capacity of the buffer, which is kept, as is the owner of the descriptor.
        self.read = Some(unsafe { ring.submit(entry, keep) });
    }
}
