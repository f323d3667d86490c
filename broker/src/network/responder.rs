//! Sends answers in the order of the requests, several in one vectored send where they are ready.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::{Connection, log_close};
use super::pipeline::Next;
use super::socket::{Outgoing, Socket};
use crate::shard::{Course, Shard, Stage};

/// Bytes beyond which no further answer joins a send.
const JOINED_BYTES: usize = 256 << 10;

/// Runs until the connection's pipeline ends or its socket fails.
pub(super) async fn run(shard: Rc<Shard>, connection: Rc<Connection>, socket: Socket) {
    let pipeline = connection.pipeline();
    let mut outgoing = Outgoing::new();
    let mut held = Vec::new();
    let mut joined = Vec::new();
    loop {
        let mut next = Some(pipeline.next().await);
        let mut close = None;
        // Answers that go out together are ready together.
        let mut ready_at = None;
        while let Some(taken) = next.take() {
            match taken {
                Next::Answer(answer, api_key) => {
                    let course = answer.course;
                    let ready = *ready_at.get_or_insert_with(Instant::now);
                    let answered = ready.saturating_duration_since(course.arrived);
                    shard.metrics.request_answered(api_key, answered);
                    if !answer.slices.is_empty() {
                        joined.push(Joined { course, answered, api_key });
                    }
                    outgoing.extend(answer.slices);
                    held.extend(answer.held);
                    connection.entry().answered();
                }
                Next::Close(reason) => close = Some(reason),
                Next::End if outgoing.is_empty() => return finish(&connection),
                Next::End => {}
            }
            if close.is_none() && outgoing.bytes() < JOINED_BYTES {
                next = pipeline.next_now();
            }
        }
        let sent_all;
        (outgoing, sent_all) = send_all(&connection, &socket, outgoing).await;
        held.clear();
        match sent_all {
            Ok(Some(sent)) => {
                let sending = ready_at.map_or(Duration::ZERO, |ready| sent.saturating_duration_since(ready));
                record(&shard, &connection, &mut joined, sending);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(shard = shard.index, peer = %connection.peer(), "connection ended: send failed: {error}");
                return connection.close();
            }
        }
        if let Some(reason) = close {
            log_close(&shard, &connection, &reason.0);
            return connection.close();
        }
    }
}

/// An answer on its way to the socket. Answers of a few bytes may join in one send, as many as a connection may have
/// requests.
struct Joined {
    course: Course,
    /// From its arrival until its answer was ready.
    answered: Duration,
    api_key: i16,
}

/// These answers have been sent, which took so long.
fn record(shard: &Shard, connection: &Connection, joined: &mut Vec<Joined>, sending: Duration) {
    // As many as there are requests in flight, at most.
    shard.stages.record_all(Stage::Respond, sending, u32::try_from(joined.len()).unwrap_or(u32::MAX));
    for Joined { course, answered, api_key } in joined.drain(..) {
        if let Some(whole) = Stage::whole(api_key) {
            shard.stages.record(whole, answered + sending);
        }
        shard.slow.look(connection, api_key, course, (answered, sending));
    }
}

/// All answers are out: the peer sees the end after the last of them.
fn finish(connection: &Connection) {
    connection.close();
}

/// Sends all there is; when the last of it went, if there was any.
async fn send_all(
    connection: &Connection,
    socket: &Socket,
    mut outgoing: Outgoing,
) -> (Outgoing, std::io::Result<Option<Instant>>) {
    connection.set_sending(true);
    let mut outcome = Ok(None);
    while !outgoing.is_empty() {
        let sent;
        (outgoing, sent) = socket.send(outgoing).await;
        let at = connection.sent(*sent.as_ref().unwrap_or(&0));
        outcome = match sent {
            Ok(0) => Err(std::io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                outgoing.advance(bytes);
                Ok(Some(at))
            }
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            break;
        }
    }
    connection.set_sending(false);
    (outgoing, outcome)
}
