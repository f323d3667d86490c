//! Takes requests off a socket.
//!
//! Small requests are gathered in one small buffer per connection and copied out. A request that does not fit gets a buffer
//! of its own, of exactly its size up to [`CHUNK_BYTES`]; beyond that the buffer grows as bytes arrive, so a large
//! announced length costs no memory. The log keeps slices of these buffers, each of at least a quarter of its buffer
//! (smaller ones are copied, see `api::produce_batches`), so that what it keeps pins at most four times itself.
//! What the small buffer holds of a large request is copied, so behind a large request, where another one is to be
//! expected, only [`HEAD_BYTES`] are taken at first.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use penstock_protocol::frame::{self, Foreign, FrameError, LENGTH_LEN};

use super::connection::Connection;
use super::request_budget::{RequestBudget, SMALL_BYTES};
use super::socket::{Got, Receive, Socket};
use crate::runtime::semaphore::Permit;

/// Received at first where a large request is expected: its length, and a little more.
const HEAD_BYTES: usize = 64;
/// Bytes first allocated for a large request, and received in one operation.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a connection gives no further request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The peer closed, or this side shut the socket down.
    #[error("closed")]
    Closed,
    /// The peer closed within a request.
    #[error("closed within a request")]
    Torn,
    /// Not Kafka's protocol.
    #[error("the peer does not speak Kafka's protocol here: {0}")]
    Foreign(Foreign),
    /// A length that no request has, or above `socket.request.max.bytes`.
    #[error(transparent)]
    Frame(FrameError),
    /// The socket failed.
    #[error("receive failed: {0}")]
    Io(std::io::Error),
}

/// A request taken off the socket.
pub(super) struct Received {
    /// Its bytes, without the length before them.
    pub(super) request: Bytes,
    /// Its share of the budget.
    pub(super) permit: Permit,
    /// When its first byte had been received.
    pub(super) first_byte: Instant,
    /// When all of it had been, and its share of the budget was there.
    pub(super) arrived: Instant,
}

/// The receiving half of a connection.
pub(super) struct Receiver {
    socket: Socket,
    request_bytes_max: usize,
    small: BytesMut,
    first: bool,
    /// The request before was a large one.
    after_large: bool,
    /// When the newest bytes of the small buffer had been received.
    refilled: Instant,
    /// All that the socket held was taken.
    empty: bool,
}

impl Receiver {
    pub(super) fn new(socket: Socket, request_bytes_max: usize) -> Receiver {
        let (small, refilled) = (BytesMut::new(), Instant::now());
        Receiver { socket, request_bytes_max, small, first: true, after_large: false, refilled, empty: false }
    }

    /// The next request, with its share of `budget`. While that is used up for requests of its length,
    /// nothing is received. `now` is this moment, where it is known.
    pub(super) async fn next(
        &mut self,
        connection: &Connection,
        budget: &RequestBudget,
        now: Option<Instant>,
    ) -> Result<Received, ReceiveError> {
        let received_before = self.refilled;
        let (bytes, first_byte) = self.length(connection).await?;
        self.after_large = bytes > SMALL_BYTES;
        if !self.after_large {
            connection.set_mid_request(true);
            let whole = self.fill(bytes, connection).await;
            connection.set_mid_request(false);
            whole?;
        }
        let mut turn = pin!(budget.acquire(bytes));
        let (permit, at_once) = match poll_fn(|cx| Poll::Ready(turn.as_mut().poll(cx))).await {
            Poll::Ready(permit) => (permit, true),
            Poll::Pending => (turn.await, false),
        };
        // Where nothing was waited for behind the receive that brought it, that is when it arrived.
        let fresh = self.refilled != received_before;
        let known = if fresh { Some(self.refilled) } else { now };
        let arrived = known.filter(|_| at_once).unwrap_or_else(|| connection.touch());
        if !self.after_large || self.small.len() >= bytes {
            let request = Bytes::copy_from_slice(&self.small[..bytes]);
            self.small.advance(bytes);
            return Ok(Received { request, permit, first_byte, arrived });
        }
        connection.set_mid_request(true);
        let request = self.large(bytes, connection).await;
        connection.set_mid_request(false);
        Ok(Received { request: request?, permit, first_byte, arrived: self.refilled })
    }

    /// Receives until the small buffer holds so many bytes of a request, or the peer closes.
    async fn fill(&mut self, bytes: usize, connection: &Connection) -> Result<(), ReceiveError> {
        while self.small.len() < bytes {
            match self.refill(connection).await {
                // Its length is taken out already: the end is within it, even where nothing of it had come.
                Err(ReceiveError::Closed) => return Err(ReceiveError::Torn),
                refilled => refilled?,
            }
        }
        Ok(())
    }

    /// Receives until the length of the next request is known, and takes it out of the small buffer; tells when the
    /// first byte of it had come.
    async fn length(&mut self, connection: &Connection) -> Result<(usize, Instant), ReceiveError> {
        // Whatever is left of earlier bytes came with the newest of them: more are received only where none are left over.
        let mut first_byte = self.refilled;
        loop {
            if self.first && !self.small.is_empty() {
                match frame::sniff(&self.small) {
                    Foreign::Kafka => {}
                    foreign => return Err(ReceiveError::Foreign(foreign)),
                }
            }
            let length =
                frame::frame_len(&self.small, self.request_bytes_max).map_err(ReceiveError::Frame)?;
            if let Some(bytes) = length {
                // Eight bytes tell foreign protocols from ours; whoever sends fewer at first is asked again.
                self.first = false;
                self.small.advance(LENGTH_LEN);
                return Ok((bytes, first_byte));
            }
            let nothing_yet = self.small.is_empty();
            connection.set_mid_request(!nothing_yet);
            let refilled = self.refill(connection).await;
            connection.set_mid_request(false);
            refilled?;
            if nothing_yet {
                first_byte = self.refilled;
            }
        }
    }

    async fn refill(&mut self, connection: &Connection) -> Result<(), ReceiveError> {
        let torn = !self.small.is_empty();
        let mut small = std::mem::take(&mut self.small);
        small.reserve(SMALL_BYTES - small.len());
        let room = small.capacity() - small.len();
        let want = if self.after_large { room.min(HEAD_BYTES) } else { room };
        let received;
        (self.small, received) = self.receive(small, want, false, connection).await;
        match received {
            Ok(0) if torn => Err(ReceiveError::Torn),
            Ok(0) => Err(ReceiveError::Closed),
            Ok(_) => Ok(()),
            Err(e) => Err(ReceiveError::Io(e)),
        }
    }

    /// One receive; gives how many bytes it brought.
    async fn receive(
        &mut self,
        buffer: BytesMut,
        want: usize,
        whole: bool,
        connection: &Connection,
    ) -> (BytesMut, std::io::Result<usize>) {
        let (buffer, got) = self.socket.receive(buffer, want, Receive { whole, empty: self.empty }).await;
        let Got { bytes, more } = *got.as_ref().unwrap_or(&Got::default());
        self.empty = !more;
        self.refilled = connection.received(bytes);
        (buffer, got.map(|_| bytes))
    }

    async fn large(&mut self, bytes: usize, connection: &Connection) -> Result<Bytes, ReceiveError> {
        let mut request = BytesMut::with_capacity(bytes.min(CHUNK_BYTES));
        request.extend_from_slice(&self.small);
        self.small.clear();
        while request.len() < bytes {
            if request.len() == request.capacity() {
                // Doubling: what was received pays for what is allocated.
                request.reserve(request.len().min(bytes - request.len()));
            }
            let want = (request.capacity().min(bytes) - request.len()).min(CHUNK_BYTES);
            let received;
            (request, received) = self.receive(request, want, true, connection).await;
            match received {
                Ok(0) => return Err(ReceiveError::Torn),
                Ok(_) => {}
                Err(e) => return Err(ReceiveError::Io(e)),
            }
        }
        Ok(request.freeze())
    }
}
