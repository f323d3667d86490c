//! One client connection on its shard: reader and responder over one pipeline.

use std::cell::Cell;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::admission::Admitted;
use super::pipeline::{CloseReason, Entry, Pipeline};
use super::progress::Progress;
use super::receiver::{ReceiveError, Received, Receiver};
use super::registry::{ConnectionEntry, Registered};
use super::responder;
use super::socket::{self, Socket};
use crate::api;
use crate::runtime::task;
use crate::shard::{Course, Shard, Stage};

/// Time in which what a peer asked is answered after it closed its sending half. It may have closed both.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(5);

/// What a shard knows of a connection.
pub(crate) struct Connection {
    registered: Registered,
    stream: Rc<TcpStream>,
    pipeline: Pipeline,
    /// When bytes last moved in either direction.
    moved: Cell<Instant>,
    /// When its newest request was begun, as far as anyone looked at a clock for that.
    begun: Cell<Option<Instant>>,
    mid_request: Cell<bool>,
    /// How the peer gets on with the request that it began.
    progress: Progress,
    sending: Cell<bool>,
}

impl Connection {
    fn new(stream: Rc<TcpStream>, registered: Registered, requests_max: usize) -> Connection {
        Connection {
            registered,
            stream,
            pipeline: Pipeline::new(requests_max),
            moved: Cell::new(Instant::now()),
            begun: Cell::default(),
            mid_request: Cell::new(false),
            progress: Progress::default(),
            sending: Cell::new(false),
        }
    }

    /// What others may know of it.
    pub(crate) fn entry(&self) -> &ConnectionEntry {
        &self.registered
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.registered.peer()
    }

    /// Notes that so many bytes came in, at the moment which it gives.
    pub(super) fn received(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        self.moved.set(now);
        self.registered.received(bytes);
        now
    }

    /// Notes that so many bytes went out, at the moment which it gives.
    pub(super) fn sent(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        self.moved.set(now);
        self.registered.sent(bytes);
        now
    }

    /// Notes that its newest request was begun at this moment, which is now: nothing is waited for any more until the next one
    /// may be taken up.
    pub(crate) fn begun(&self, at: Instant) {
        self.moved.set(at);
        self.begun.set(Some(at));
    }

    /// Notes that it is alive, such as after a wait that was ours, at the moment which it gives.
    pub(super) fn touch(&self) -> Instant {
        let now = Instant::now();
        self.moved.set(now);
        now
    }

    pub(super) fn set_mid_request(&self, mid_request: bool) {
        self.mid_request.set(mid_request);
        self.progress.restart();
    }

    pub(super) fn set_sending(&self, sending: bool) {
        self.sending.set(sending);
    }

    pub(super) fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Why the connection is to be closed for want of activity, if it is.
    pub(super) fn expired(&self, now: Instant, idle_max: Option<Duration>) -> Option<&'static str> {
        if self.mid_request.get() {
            // A socket that cannot tell has received nothing more.
            let received = socket::bytes_received(&self.stream).unwrap_or(0);
            return self.progress.is_stalled(now, received).then_some("it stalled within a request");
        }
        let still = now.saturating_duration_since(self.moved.get());
        // A request that is being worked on is not idleness; an answer that nobody reads is.
        let waits_for_us = self.pipeline.len() > 0 && !self.sending.get();
        (!waits_for_us && idle_max.is_some_and(|max| still > max)).then_some("it was idle")
    }

    /// Ends the connection: what is unanswered is given up.
    pub(super) fn close(&self) {
        self.pipeline.abort();
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Answers what was begun, reads nothing more, then ends.
    pub(super) fn drain(&self) {
        self.pipeline.finish();
        let _ = self.stream.shutdown(Shutdown::Read);
    }
}

/// Serves an accepted connection until it ends.
pub(super) async fn serve(shard: Rc<Shard>, stream: Rc<TcpStream>, peer: SocketAddr, admitted: Admitted) {
    let requests_max = shard.shared.config.limits.connection_requests;
    let Some(registered) = shard.shared.connections.enter(peer, shard.index, task::now_ms()) else {
        shard.metrics.connection_refused();
        tracing::warn!(shard = shard.index, %peer, "connection refused: there is no room for its entry");
        return;
    };
    // Without it small answers wait for acknowledgements; failing to set it is no reason to refuse.
    let _ = stream.set_nodelay(true);
    let connection = Rc::new(Connection::new(stream.clone(), registered, requests_max));
    let socket = Socket::new(shard.ring.clone(), stream);
    let at = shard.connections.insert(connection.clone());
    let responder = responder::run(shard.clone(), connection.clone(), socket.clone());
    let (ended, responder_ended) = tokio::sync::oneshot::channel();
    task::spawn("responder", async move {
        responder.await;
        // The reader waits for it below.
        let _ = ended.send(());
    });
    read_requests(&shard, &connection, socket).await;
    // It ends at once where the connection was closed or given up. A drain has its own end, in which it closes us.
    if shard.draining() {
        let _ = responder_ended.await;
    } else {
        let _ = task::until(Instant::now() + HALF_CLOSED_MAX, responder_ended).await;
    }
    connection.close();
    shard.connections.remove(at);
    drop(admitted);
}

/// Begins requests in order until the connection ends.
async fn read_requests(shard: &Rc<Shard>, connection: &Rc<Connection>, socket: Socket) {
    let mut receiver = Receiver::new(socket, shard.shared.config.socket_request_max_bytes);
    let pipeline = &connection.pipeline;
    loop {
        // The next request is taken up when the one before was begun, where it did not wait for room meanwhile.
        let before = connection.begun.take().filter(|_| pipeline.has_room());
        if !pipeline.room().await {
            return;
        }
        let Received { request, piece_bytes, permit, first_byte, arrived } =
            match receiver.next(connection, &shard.budget, before).await {
                Ok(received) => received,
                Err(error) => {
                    report_end(shard, connection, &error);
                    match error {
                        // Answers are still read by who closed only its sending half; a drain closes it within a request too.
                        ReceiveError::Closed | ReceiveError::Torn => pipeline.finish(),
                        _ => pipeline.abort(),
                    }
                    return;
                }
            };
        // It came too late: the end may have been told already.
        let Some(_beginning) = pipeline.beginning() else { return };
        let receive = arrived.saturating_duration_since(first_byte);
        shard.stages.record(Stage::Receive, receive);
        let course = Course::new(arrived, receive, request.len());
        let in_flight = shard.metrics.request_received(request.len());
        connection.registered.requested();
        match api::begin(shard, connection, request, piece_bytes, course).await {
            Ok((api_key, begun)) => {
                pipeline.push(Entry { begun, api_key, _permit: permit, _in_flight: in_flight });
            }
            Err(CloseReason(reason)) => {
                shard.metrics.connection_refused();
                log_close(shard, connection, &reason);
                connection.close();
                return;
            }
        }
    }
}

fn report_end(shard: &Shard, connection: &Connection, error: &ReceiveError) {
    match error {
        ReceiveError::Closed | ReceiveError::Torn | ReceiveError::Io(_) => {
            tracing::debug!(shard = shard.index, peer = %connection.peer(), "connection ended: {error}");
        }
        ReceiveError::Foreign(_) | ReceiveError::Frame(_) => {
            shard.metrics.connection_refused();
            log_close(shard, connection, &error.to_string());
            connection.close();
        }
    }
}

/// The one line that says why a connection was closed from this side.
pub(super) fn log_close(shard: &Shard, connection: &Connection, reason: &str) {
    let (name, version) = connection.registered.software();
    let client = format_args!("{name} {version}");
    tracing::warn!(shard = shard.index, peer = %connection.peer(), %client, "connection closed: {reason}");
}
