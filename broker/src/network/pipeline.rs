//! Requests of one connection that were begun and are not yet answered, in order.
//!
//! Only the oldest is driven to its end, so at most one answer per connection is in memory while its client is
//! slow; what the others wait for (a flush, another shard) proceeds without them being polled.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use penstock_storage::disk::tasks;

use crate::api::registry;
use crate::runtime::semaphore::Permit;
use crate::shard::{Course, InFlight};

/// Bytes of finished answers that may wait for the socket before no further request is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What a request came to.
pub(crate) struct Answer {
    /// Bytes to send, length prefix included. Empty where the protocol has no answer (acks=0).
    pub(crate) slices: Vec<Bytes>,
    /// Share of the bytes of answers in memory, held until it is sent.
    pub(crate) held: Option<Permit>,
    /// What the request's time went to.
    pub(crate) course: Course,
}

/// Why a connection is closed from this side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CloseReason(pub(crate) String);

/// How a request goes on after it was begun.
pub(crate) enum Begun {
    /// It is finished.
    Done(Answer),
    /// Its effects are in order; its answer follows.
    Later(LocalBoxFuture<'static, Result<Answer, CloseReason>>),
}

/// One begun request.
pub(crate) struct Entry {
    pub(crate) begun: Begun,
    pub(crate) api_key: i16,
    /// Its share of the bytes in flight on this shard.
    pub(crate) _permit: Permit,
    pub(crate) _in_flight: InFlight,
}

/// What the responder gets.
pub(crate) enum Next {
    /// A finished request: its answer, and its API.
    Answer(Answer, i16),
    /// The connection is to be closed.
    Close(CloseReason),
    /// No more requests will come, all were answered, or the rest is given up.
    End,
}

/// The queue between reader and responder of a connection.
pub(crate) struct Pipeline {
    requests_max: usize,
    entries: RefCell<VecDeque<Entry>>,
    answer_bytes: Cell<usize>,
    state: Cell<State>,
    /// A request has been taken and is not here yet.
    beginning: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    responder: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// No further requests; those begun are answered.
    Finishing,
    /// Nothing more is answered.
    Aborted,
}

impl Pipeline {
    /// A queue of at most `requests_max` requests.
    pub(crate) fn new(requests_max: usize) -> Pipeline {
        Pipeline {
            requests_max: requests_max.max(1),
            entries: RefCell::default(),
            answer_bytes: Cell::new(0),
            state: Cell::default(),
            beginning: Cell::default(),
            reader: RefCell::default(),
            responder: RefCell::default(),
        }
    }

    /// Whether another request may be begun, as far as those before it are concerned.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.borrow().len() < self.requests_max && self.answer_bytes.get() < ANSWER_BYTES_MAX
    }

    /// Waits until another request may be begun; false if none will.
    pub(crate) async fn room(&self) -> bool {
        poll_fn(|cx| {
            if self.state.get() != State::Open {
                return Poll::Ready(false);
            }
            if self.has_room() {
                return Poll::Ready(true);
            }
            *self.reader.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Says that a request begins, which is added or dropped before the guard is; `None` if no request may begin any more.
    /// Until then the end is not told: what takes effect is answered.
    pub(crate) fn beginning(&self) -> Option<Beginning<'_>> {
        if self.state.get() != State::Open {
            return None;
        }
        let before = self.beginning.replace(true);
        assert!(!before, "requests of a connection begin one by one");
        Some(Beginning(self))
    }

    /// Adds a begun request; after an abort nobody would answer it, and it is dropped.
    pub(crate) fn push(&self, entry: Entry) {
        if self.state.get() == State::Aborted {
            return;
        }
        if let Begun::Done(answer) = &entry.begun {
            self.answer_bytes.set(self.answer_bytes.get() + length(answer));
        }
        let mut entries = self.entries.borrow_mut();
        entries.push_back(entry);
        // Behind others it is not looked at before they are answered.
        let is_next = entries.len() == 1;
        drop(entries);
        if is_next {
            wake(&self.responder);
        }
    }

    /// Requests begun and unanswered.
    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Lets the requests begun be answered, and no more.
    pub(crate) fn finish(&self) {
        if self.state.get() == State::Open {
            self.state.set(State::Finishing);
        }
        wake(&self.reader);
        wake(&self.responder);
    }

    /// Gives up everything unanswered. Here and not when the responder next looks: it may have ended, and a request that
    /// stayed would keep its connection, its socket and its share of the bytes in flight for ever.
    pub(crate) fn abort(&self) {
        self.state.set(State::Aborted);
        let given_up = std::mem::take(&mut *self.entries.borrow_mut());
        drop(given_up);
        wake(&self.reader);
        wake(&self.responder);
    }

    /// The next finished answer, in order of the requests.
    pub(crate) async fn next(&self) -> Next {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next answer if it is finished already.
    pub(crate) fn next_now(&self) -> Option<Next> {
        let mut cx = Context::from_waker(Waker::noop());
        // A noop waker is safe here: the responder polls again, with its own, before it waits.
        match self.poll_next(&mut cx) {
            Poll::Ready(Next::End) | Poll::Pending => None,
            Poll::Ready(next) => Some(next),
        }
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.state.get() == State::Aborted {
            return Poll::Ready(Next::End);
        }
        // The entry is out of the queue while it is polled: what it polls may touch this connection.
        let Some(mut entry) = self.entries.borrow_mut().pop_front() else {
            if self.state.get() == State::Finishing && !self.beginning.get() {
                return Poll::Ready(Next::End);
            }
            *self.responder.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let outcome = match entry.begun {
            Begun::Done(answer) => {
                self.answer_bytes.set(self.answer_bytes.get() - length(&answer));
                Ok(answer)
            }
            Begun::Later(ref mut later) => match noted(entry.api_key, || later.as_mut().poll(cx)) {
                Poll::Ready(outcome) => outcome,
                // It closed its own connection.
                Poll::Pending if self.state.get() == State::Aborted => return Poll::Ready(Next::End),
                Poll::Pending => {
                    self.entries.borrow_mut().push_front(entry);
                    *self.responder.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            },
        };
        wake(&self.reader);
        Poll::Ready(match outcome {
            Ok(answer) => Next::Answer(answer, entry.api_key),
            Err(reason) => Next::Close(reason),
        })
    }
}

/// A request that begins, see [`Pipeline::beginning`].
pub(crate) struct Beginning<'a>(&'a Pipeline);

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.0.beginning.set(false);
        // The end may be told now. A request that was added has woken it by itself.
        if self.0.state.get() == State::Finishing {
            wake(&self.0.responder);
        }
    }
}

/// Works on a request of this API, and says so to whoever looks for what holds up the shard.
fn noted<T>(api_key: i16, work: impl FnOnce() -> T) -> T {
    tasks::note(registry::note_of(api_key));
    work()
}

fn length(answer: &Answer) -> usize {
    answer.slices.iter().map(Bytes::len).sum()
}

fn wake(waker: &RefCell<Option<Waker>>) {
    let waker = waker.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use futures_util::FutureExt;

    use super::*;
    use crate::runtime::semaphore::Semaphore;
    use crate::shard::ShardMetrics;

    fn entry() -> Entry {
        let permit = Semaphore::new(1).try_acquire(1).unwrap();
        let course = Course::new(Instant::now(), Duration::ZERO, 6);
        let begun = Begun::Done(Answer { slices: vec![Bytes::from_static(b"answer")], held: None, course });
        let in_flight = Arc::new(ShardMetrics::default()).request_received(6);
        Entry { begun, api_key: 18, _permit: permit, _in_flight: in_flight }
    }

    /// A stop once came while a metadata command was under way: it took effect, and nobody answered it.
    #[test]
    fn a_request_that_begins_is_answered_before_the_end() {
        let pipeline = Pipeline::new(1);
        let beginning = pipeline.beginning().unwrap();
        pipeline.finish();
        assert!(pipeline.next().now_or_never().is_none(), "one is to come");
        pipeline.push(entry());
        drop(beginning);
        assert!(matches!(pipeline.next().now_or_never(), Some(Next::Answer(..))));
        assert!(matches!(pipeline.next().now_or_never(), Some(Next::End)));
        assert!(pipeline.beginning().is_none(), "nothing begins behind the end");
    }

    #[test]
    fn a_request_that_is_dropped_lets_the_end_come() {
        let pipeline = Pipeline::new(1);
        let beginning = pipeline.beginning().unwrap();
        pipeline.finish();
        let mut next = Box::pin(pipeline.next());
        assert!((&mut next).now_or_never().is_none());
        drop(beginning);
        assert!(matches!(next.now_or_never(), Some(Next::End)));
    }

    #[test]
    fn an_abort_waits_for_nothing() {
        let pipeline = Pipeline::new(1);
        let _beginning = pipeline.beginning().unwrap();
        pipeline.abort();
        assert!(matches!(pipeline.next().now_or_never(), Some(Next::End)));
    }
}
