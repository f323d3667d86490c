//! Messages between shards: one inbox per shard, filled by all others, emptied by its owner alone.
//!
//! A shard holds a bounded number of credits towards each other shard. A request takes a credit, its reply gives
//! it back, and both queues of an inbox are as long as all credits that could be out at once: so neither a
//! request nor a reply ever meets a full queue, and the only place that waits is the sender, in line for a credit.
//! No lock is taken; an inbox is woken once per batch, however many messages come in before its owner runs.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use futures_util::task::AtomicWaker;
use penstock_storage::disk::ring::Doorbell;
use slab::Slab;

use super::semaphore::{Permit, Semaphore};

/// Credits of a shard towards each other one: [`CREDITS_MAX`], fewer when there are many shards, so that the
/// memory of all queues stays small.
const CREDITS_MAX: usize = 1024;
const CREDITS_MIN: usize = 64;
const CREDITS_TOTAL: usize = 4096;

/// The inboxes of all shards.
pub(crate) struct Mailboxes<Q, R> {
    inboxes: Box<[Inbox<Q, R>]>,
    credits: usize,
}

struct Inbox<Q, R> {
    requests: ArrayQueue<Request<Q>>,
    replies: ArrayQueue<(usize, R)>,
    waker: AtomicWaker,
    /// Rung behind the waker: the owner may sleep where wakers do not reach it.
    doorbell: OnceLock<Doorbell>,
    /// Whether the owner was woken, or is running, and has not looked since.
    notified: AtomicBool,
}

/// A request as its receiver sees it.
pub(crate) struct Request<Q> {
    /// What is asked.
    pub(crate) body: Q,
    /// Where the answer goes.
    pub(crate) from: ReplyTo,
    /// When its sender wished to send it.
    pub(crate) sent: Instant,
}

/// The address of one answer: consumed by [`Post::reply`].
pub(crate) struct ReplyTo {
    shard: usize,
    slot: usize,
}

impl<Q, R> Mailboxes<Q, R> {
    /// Inboxes for `shards` shards.
    pub(crate) fn new(shards: usize) -> Mailboxes<Q, R> {
        let credits = (CREDITS_TOTAL / shards).clamp(CREDITS_MIN, CREDITS_MAX);
        let capacity = (credits * (shards - 1)).max(1);
        let inbox = |_| Inbox {
            requests: ArrayQueue::new(capacity),
            replies: ArrayQueue::new(capacity),
            waker: AtomicWaker::new(),
            doorbell: OnceLock::new(),
            notified: AtomicBool::new(false),
        };
        Mailboxes { inboxes: (0..shards).map(inbox).collect(), credits }
    }

    /// Requests in a shard's inbox, which are to be taken.
    pub(crate) fn waiting(&self, shard: usize) -> usize {
        self.inboxes[shard].requests.len()
    }

    fn notify(&self, shard: usize) {
        let inbox = &self.inboxes[shard];
        if !inbox.notified.swap(true, Ordering::AcqRel) {
            inbox.waker.wake();
            inbox.doorbell.get().into_iter().for_each(Doorbell::ring);
        }
    }

    /// Has the owner of an inbox woken by this bell too.
    pub(crate) fn set_doorbell(&self, shard: usize, doorbell: Doorbell) {
        // A shard starts once.
        let _ = self.inboxes[shard].doorbell.set(doorbell);
    }
}

/// A shard's own end: sends to the others and empties its inbox. Clones are handles on the same end.
pub(crate) struct Post<Q, R>(Rc<PostInner<Q, R>>);

struct PostInner<Q, R> {
    me: usize,
    boxes: Arc<Mailboxes<Q, R>>,
    credits: Box<[Semaphore]>,
    awaited: RefCell<Slab<Slot<R>>>,
}

enum Slot<R> {
    Waiting { credit: Permit, waker: Option<Waker> },
    Abandoned { _credit: Permit },
    Answered(R),
}

impl<Q, R> Clone for Post<Q, R> {
    fn clone(&self) -> Self {
        Post(self.0.clone())
    }
}

/// What came in.
pub(crate) enum Incoming<Q> {
    /// A request of another shard.
    Request(Request<Q>),
    /// Only replies came, and were given to those who wait for them.
    Replies,
}

impl<Q, R> Post<Q, R> {
    /// The end of shard `me`.
    pub(crate) fn new(boxes: Arc<Mailboxes<Q, R>>, me: usize) -> Post<Q, R> {
        let credits = (0..boxes.inboxes.len()).map(|_| Semaphore::new(boxes.credits)).collect();
        Post(Rc::new(PostInner { me, boxes, credits, awaited: RefCell::default() }))
    }

    /// Sends `body` to another shard, waiting for a credit. Requests of one sender to one shard arrive in the
    /// order in which their sends were first polled. The answer comes through the returned [`Reply`].
    pub(crate) async fn send(&self, to: usize, body: Q) -> Reply<Q, R> {
        debug_assert_ne!(to, self.0.me, "a shard calls itself directly");
        let sent = Instant::now();
        let credit = self.0.credits[to].acquire(1).await;
        let slot = self.0.awaited.borrow_mut().insert(Slot::Waiting { credit, waker: None });
        let request = Request { body, from: ReplyTo { shard: self.0.me, slot }, sent };
        let pushed = self.0.boxes.inboxes[to].requests.push(request).is_ok();
        assert!(pushed, "credits bound the requests in an inbox");
        self.0.boxes.notify(to);
        Reply { post: self.clone(), slot: Some(slot) }
    }

    /// Answers a request.
    pub(crate) fn reply(&self, to: ReplyTo, body: R) {
        let pushed = self.0.boxes.inboxes[to.shard].replies.push((to.slot, body)).is_ok();
        assert!(pushed, "credits bound the replies in an inbox");
        self.0.boxes.notify(to.shard);
    }

    /// Waits for the next thing in this shard's inbox. Only one task may call it.
    pub(crate) async fn receive(&self) -> Incoming<Q> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Incoming<Q>> {
        let inbox = &self.0.boxes.inboxes[self.0.me];
        inbox.waker.register(cx.waker());
        inbox.notified.swap(false, Ordering::AcqRel);
        let mut replies = 0;
        while let Some((slot, body)) = inbox.replies.pop() {
            self.answered(slot, body);
            replies += 1;
        }
        match inbox.requests.pop() {
            Some(request) => Poll::Ready(Incoming::Request(request)),
            None if replies > 0 => Poll::Ready(Incoming::Replies),
            None => Poll::Pending,
        }
    }

    fn answered(&self, at: usize, body: R) {
        let mut awaited = self.0.awaited.borrow_mut();
        let slot = std::mem::replace(&mut awaited[at], Slot::Answered(body));
        match slot {
            Slot::Waiting { credit, waker } => {
                drop(awaited);
                drop(credit);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Slot::Abandoned { _credit } => {
                awaited.remove(at);
            }
            Slot::Answered(_) => unreachable!("a request is answered once"),
        }
    }
}

/// The answer to come. Dropping it gives up the answer, not the request.
pub(crate) struct Reply<Q, R> {
    post: Post<Q, R>,
    slot: Option<usize>,
}

impl<Q, R> Future for Reply<Q, R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let at = self.slot.unwrap_or_else(|| panic!("reply polled after it was given"));
        let inner = self.post.0.clone();
        let mut awaited = inner.awaited.borrow_mut();
        if let Slot::Waiting { waker, .. } = &mut awaited[at] {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        self.slot = None;
        match awaited.remove(at) {
            Slot::Answered(body) => Poll::Ready(body),
            _ => unreachable!("only a dropped reply is abandoned"),
        }
    }
}

impl<Q, R> Drop for Reply<Q, R> {
    fn drop(&mut self) {
        let Some(at) = self.slot.take() else { return };
        let inner = self.post.0.clone();
        let mut awaited = inner.awaited.borrow_mut();
        let gone = match awaited.remove(at) {
            Slot::Waiting { credit, .. } => {
                // The answer still comes, to this very slot: keep it taken until then.
                let again = awaited.insert(Slot::Abandoned { _credit: credit });
                assert_eq!(again, at, "a slab gives the slot freed last");
                None
            }
            other => Some(other),
        };
        drop(awaited);
        drop(gone);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    type P = Post<u32, u32>;

    fn pair() -> (P, P) {
        let boxes = Arc::new(Mailboxes::new(2));
        (Post::new(boxes.clone(), 0), Post::new(boxes, 1))
    }

    fn request(post: &P) -> Option<Request<u32>> {
        match post.receive().now_or_never()? {
            Incoming::Request(request) => Some(request),
            Incoming::Replies => panic!("only replies"),
        }
    }

    #[test]
    fn answers_reach_who_asked_in_any_order() {
        let (a, b) = pair();
        let mut first = a.send(1, 10).now_or_never().unwrap();
        let mut second = a.send(1, 20).now_or_never().unwrap();
        let (one, two) = (request(&b).unwrap(), request(&b).unwrap());
        assert_eq!((one.body, two.body), (10, 20));
        b.reply(two.from, 21);
        assert!(matches!(a.receive().now_or_never(), Some(Incoming::Replies)));
        assert!((&mut first).now_or_never().is_none());
        assert_eq!((&mut second).now_or_never(), Some(21));
        b.reply(one.from, 11);
        assert!(matches!(a.receive().now_or_never(), Some(Incoming::Replies)));
        assert_eq!((&mut first).now_or_never(), Some(11));
    }

    #[test]
    fn credits_hold_senders_back_and_come_back_with_answers() {
        let (a, b) = pair();
        let replies: Vec<_> = (0..CREDITS_MAX as u32).map(|n| a.send(1, n).now_or_never().unwrap()).collect();
        let mut held = Box::pin(a.send(1, 7));
        assert!(held.as_mut().now_or_never().is_none());
        // Abandoned requests keep their credit until they are answered.
        drop(replies);
        assert!(held.as_mut().now_or_never().is_none());
        let first = request(&b).unwrap();
        b.reply(first.from, 0);
        assert!(matches!(a.receive().now_or_never(), Some(Incoming::Replies)));
        assert!(held.now_or_never().is_some());
    }

    #[test]
    fn threads_exchange_many_messages() {
        let boxes = Arc::new(Mailboxes::<u32, u32>::new(2));
        let echo = boxes.clone();
        let server = std::thread::spawn(move || {
            let post = Post::new(echo, 1);
            tokio_block(async {
                loop {
                    if let Incoming::Request(request) = post.receive().await {
                        let stop = request.body == u32::MAX;
                        post.reply(request.from, request.body.wrapping_add(1));
                        if stop {
                            return;
                        }
                    }
                }
            });
        });
        let post = Post::new(boxes, 0);
        tokio_block(async {
            let receiver = post.clone();
            let pump = async {
                loop {
                    receiver.receive().await;
                }
            };
            let work = async {
                for n in 0..20_000 {
                    assert_eq!(post.send(1, n).await.await, n + 1);
                }
                assert_eq!(post.send(1, u32::MAX).await.await, 0);
            };
            futures_util::pin_mut!(pump, work);
            futures_util::future::select(pump, work).await;
        });
        server.join().unwrap();
    }

    fn tokio_block(future: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
    }
}
