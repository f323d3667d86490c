//! One connection's pipeline: a sender that keeps requests in flight, and a receiver that takes their answers in order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use penstock_format::Batch;
use penstock_protocol::frame;
use penstock_protocol::messages::{ProduceRequest, ProduceResponse};

use super::Shared;
use super::batches::{Numbering, stamp};
use crate::client::{ClientError, Connection, Receiver, Sender, check};
use crate::meter::Meter;
use crate::pace::Pace;
use crate::template::RequestTemplate;

/// How long is waited for answers after the last request was sent.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Pieces gathered before a write: more would only delay the first of them.
const QUEUE_MAX: usize = 64;
/// The runtime's timers tick in milliseconds; closer than this the sender polls, so that requests leave on time.
const TIMER_SLACK: Duration = Duration::from_micros(1500);

/// A request template with the batches in it.
pub(super) type Template = (RequestTemplate, Vec<(i32, Batch)>);

/// What a session of a lane works with.
pub(super) struct Pipeline {
    pub(super) shared: Arc<Shared>,
    pub(super) pace: Rc<RefCell<Pace>>,
    pub(super) meters: Rc<[Meter]>,
    pub(super) unanswered: Rc<RefCell<u64>>,
    /// The part of its partitions behind which it begins, so that producers of the same do not go through them in step.
    pub(super) phase: f64,
}

struct InFlight {
    due: Instant,
    records: u64,
    bytes: u64,
}

/// Requests that were sent and not answered. Bounded by `ProduceSpec::in_flight`.
#[derive(Default)]
struct Flight {
    requests: RefCell<VecDeque<InFlight>>,
    /// Told when a request is answered, sent, or the last one was sent.
    changed: Notify,
    ended: Cell<bool>,
}

/// What the sender waits for.
enum Wait {
    Room,
    Until(Instant),
}

impl Pipeline {
    /// Runs until the run's end and the last answer, or a failure.
    pub(super) async fn run(
        self,
        connection: Connection,
        templates: Arc<[Template]>,
        numbering: Option<Numbering>,
        version: i16,
    ) -> Result<(), ClientError> {
        // The sending half stays open until the last answer: closing it tells the broker that nobody waits any more.
        let (mut sender, receiver) = connection.split();
        let flight = Flight::default();
        let result = tokio::try_join!(
            self.send(&mut sender, &flight, &templates, numbering),
            self.receive(receiver, &flight, version)
        );
        // A session that fails in the warm-up (a new topic's leader that does not know of it yet) is not measured.
        if Instant::now() >= self.shared.timeline.measure_from() {
            *self.unanswered.borrow_mut() += flight.requests.borrow().len() as u64;
        }
        result.map(|_| ())
    }

    async fn send(
        &self,
        sender: &mut Sender,
        flight: &Flight,
        templates: &[Template],
        mut numbering: Option<Numbering>,
    ) -> Result<(), ClientError> {
        let timeline = self.shared.timeline;
        tokio::time::sleep_until(timeline.start.into()).await;
        let mut queue = VecDeque::new();
        let first = (templates.len() as f64 * self.phase) as usize;
        let mut turn = templates.iter().cycle().skip(first);
        loop {
            let wait = self.gather(sender, flight, &mut queue, (&mut turn, &mut numbering));
            if !queue.is_empty() {
                sender.write_queue(&mut queue).await?;
                if self.shared.spec.acks == 0 {
                    self.count_unacknowledged(flight);
                    // Nothing else would let other lanes have their turn.
                    tokio::task::yield_now().await;
                } else {
                    flight.changed.notify_waiters();
                }
                continue;
            }
            let now = Instant::now();
            if now >= timeline.end() {
                flight.ended.set(true);
                flight.changed.notify_waiters();
                return Ok(());
            }
            match wait {
                Wait::Room => {
                    let end = tokio::time::sleep_until(timeline.end().into());
                    tokio::select! { () = flight.changed.notified() => {}, () = end => {} }
                }
                Wait::Until(due) => wait_until(due.min(timeline.end()), now).await,
            }
        }
    }

    /// Puts what is due into `queue`, as far as there is room in flight; says what to wait for next.
    fn gather<'a>(
        &self,
        sender: &mut Sender,
        flight: &Flight,
        queue: &mut VecDeque<Bytes>,
        (turn, numbering): (&mut impl Iterator<Item = &'a Template>, &mut Option<Numbering>),
    ) -> Wait {
        let (spec, mut pace) = (&self.shared.spec, self.pace.borrow_mut());
        let mut requests = flight.requests.borrow_mut();
        let now = Instant::now();
        loop {
            let due = pace.next_due(now);
            if due > now || due >= self.shared.timeline.end() {
                return Wait::Until(due);
            }
            if requests.len() >= spec.in_flight || queue.len() >= QUEUE_MAX {
                return Wait::Room;
            }
            let Some((template, batches)) = turn.next() else {
                return Wait::Until(self.shared.timeline.end());
            };
            pace.advance();
            template.send(sender.next_correlation_id(), queue, |place| {
                self.changed_batch(&batches[place], due, numbering.as_mut())
            });
            requests.push_back(InFlight { due, records: template.records, bytes: template.bytes });
        }
    }

    /// The batch as it has to be this time; none when it is the same each time.
    fn changed_batch(
        &self,
        (partition, batch): &(i32, Batch),
        due: Instant,
        numbering: Option<&mut Numbering>,
    ) -> Option<[Bytes; 2]> {
        if numbering.is_none() && self.shared.stamp_epoch.is_none() {
            return None;
        }
        let mut batch = batch.clone();
        if let Some(epoch) = self.shared.stamp_epoch {
            stamp(&mut batch, due, epoch);
        }
        if let Some(numbering) = numbering {
            numbering.number(*partition, &mut batch);
        }
        Some(batch.to_slices())
    }

    fn count_unacknowledged(&self, flight: &Flight) {
        for request in flight.requests.borrow_mut().drain(..) {
            self.meters[0].count(1, request.records, request.bytes);
        }
    }

    async fn receive(
        &self,
        mut receiver: Receiver,
        flight: &Flight,
        version: i16,
    ) -> Result<(), ClientError> {
        let drained = self.shared.timeline.end() + DRAIN_TIMEOUT;
        let mut drain_timeout = std::pin::pin!(tokio::time::sleep_until(drained.into()));
        loop {
            if flight.requests.borrow().is_empty() {
                if flight.ended.get() {
                    return Ok(());
                }
                flight.changed.notified().await;
                continue;
            }
            let answer = tokio::select! {
                biased;
                answer = receiver.frame() => answer?,
                () = &mut drain_timeout => return Ok(()),
            };
            let (_, response) = frame::decode_response::<ProduceRequest>(answer, version)?;
            let request = flight.requests.borrow_mut().pop_front();
            let Some(request) = request else {
                return Err(ClientError::Protocol("an answer to no request".to_owned()));
            };
            flight.changed.notify_waiters();
            self.answered(&request, &response)?;
        }
    }

    fn answered(&self, request: &InFlight, response: &ProduceResponse) -> Result<(), ClientError> {
        for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
            check(partition.error_code, || format!("producing to partition {}", partition.index))?;
        }
        let now = Instant::now();
        let latency = now.saturating_duration_since(request.due);
        if now < self.shared.timeline.end() {
            self.meters[0].request_done(request.records, request.bytes, latency);
        } else {
            self.meters[0].latency(latency);
        }
        Ok(())
    }
}

/// Waits until `due`, to within microseconds.
async fn wait_until(due: Instant, now: Instant) {
    if due.saturating_duration_since(now) > TIMER_SLACK {
        tokio::time::sleep_until((due - TIMER_SLACK).into()).await;
    } else {
        tokio::task::yield_now().await;
    }
}
