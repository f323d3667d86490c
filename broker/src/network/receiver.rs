//! Takes requests off a socket.
//!
//! Small requests are gathered in one small buffer per connection and copied out, a few Produce requests of much the same
//! length into one piece of memory where they came together (`together`). A request that does not fit gets a buffer
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
use crate::api::PINNED_PER_BODY_MAX;
use crate::runtime::semaphore::Permit;

/// Received at first where a large request is expected: its length, and a little more.
const HEAD_BYTES: usize = 64;
/// Bytes first allocated for a large request, and received in one operation.
const CHUNK_BYTES: usize = 1 << 20;

/// The API key that a Produce request begins with.
const PRODUCE_KEY: [u8; 2] = [0, 0];
/// Bytes of a Produce request around the body of its batch, names of common lengths included: where they are longer, the batch
/// may be copied once more.
const AROUND_A_BATCH: usize = 200;

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
    /// Bytes of the piece of memory that it lies in: what a slice of it keeps.
    pub(super) piece_bytes: usize,
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
    /// Whole requests that lie in one piece of memory with the one before, each behind its length.
    ahead: Bytes,
    /// Bytes of that piece.
    piece_bytes: usize,
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
        Receiver {
            socket,
            request_bytes_max,
            small: BytesMut::new(),
            ahead: Bytes::new(),
            piece_bytes: 0,
            first: true,
            after_large: false,
            refilled: Instant::now(),
            empty: false,
        }
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
        if !self.after_large && self.ahead.is_empty() {
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
            let request = self.take(bytes);
            return Ok(Received { request, piece_bytes: self.piece_bytes, permit, first_byte, arrived });
        }
        connection.set_mid_request(true);
        let request = self.large(bytes, connection).await;
        connection.set_mid_request(false);
        let request = request?;
        Ok(Received { piece_bytes: request.len(), request, permit, first_byte, arrived: self.refilled })
    }

    /// Takes out a request of so many bytes that is here, whose length was taken out.
    fn take(&mut self, bytes: usize) -> Bytes {
        if self.ahead.is_empty() {
            self.piece_bytes = together(&self.small, bytes);
            self.ahead = Bytes::copy_from_slice(&self.small[..self.piece_bytes]);
            self.small.advance(self.piece_bytes);
        }
        self.ahead.split_to(bytes)
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
        if !self.ahead.is_empty() {
            let bytes = self.ahead.get_u32() as usize;
            return Ok((bytes, first_byte));
        }
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

/// Bytes of `received` that go into one piece of memory: those of the request that it begins with, whose length is `first`, and
/// as many whole ones behind it, each with its length, as are Produce requests, like the first, and leave each a quarter of the
/// piece without what stands around its batch.
fn together(received: &[u8], first: usize) -> usize {
    let is_produce = |request: &[u8]| request.starts_with(&PRODUCE_KEY);
    let (mut piece, mut shortest) = (first, first);
    if !is_produce(&received[..first]) {
        return first;
    }
    loop {
        let rest = &received[piece..];
        let Ok(Some(next)) = frame::frame_len(rest, SMALL_BYTES) else { return piece };
        let Some(request) = rest.get(LENGTH_LEN..LENGTH_LEN + next) else { return piece };
        shortest = shortest.min(next);
        let longer = piece + LENGTH_LEN + next;
        if !is_produce(request) || longer > PINNED_PER_BODY_MAX * shortest.saturating_sub(AROUND_A_BATCH) {
            return piece;
        }
        piece = longer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCE: u8 = 0;

    /// Requests of these APIs and lengths as they come: each behind its length, but for the first one's.
    fn received(requests: &[(u8, usize)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (api, len) in requests {
            bytes.extend_from_slice(&(*len as u32).to_be_bytes());
            let start = bytes.len();
            bytes.resize(start + len, 7);
            bytes[start..start + 2].copy_from_slice(&[0, *api]);
        }
        bytes.split_off(LENGTH_LEN)
    }

    /// How many requests of those received go into one piece.
    fn joined(requests: &[(u8, usize)]) -> usize {
        let piece = together(&received(requests), requests[0].1);
        let lengths: Vec<usize> = requests.iter().map(|(_, len)| *len).collect();
        let of = |count: usize| lengths[..count].iter().sum::<usize>() + (count - 1) * LENGTH_LEN;
        (1..=requests.len()).find(|count| of(*count) == piece).unwrap_or_default()
    }

    #[test]
    fn requests_share_a_piece_while_each_is_a_quarter_of_it() {
        assert_eq!(joined(&[(PRODUCE, 1140)]), 1);
        assert_eq!(joined(&[(PRODUCE, 1140); 2]), 2);
        assert_eq!(joined(&[(PRODUCE, 1140); 9]), 3);
        // A batch within 300 bytes may be no quarter of two such requests.
        assert_eq!(joined(&[(PRODUCE, 300); 9]), 1);
        assert_eq!(joined(&[(PRODUCE, 5000), (PRODUCE, 1800)]), 1);
        assert_eq!(joined(&[(PRODUCE, 1800), (PRODUCE, 5000)]), 1);
        assert_eq!(joined(&[(PRODUCE, 1500), (PRODUCE, 1500), (PRODUCE, 900), (PRODUCE, 1500)]), 2);
        assert_eq!(joined(&[(PRODUCE, 10); 2]), 1);
    }

    #[test]
    fn other_requests_have_pieces_of_their_own() {
        let fetch = 1;
        assert_eq!(joined(&[(fetch, 1140), (fetch, 1140)]), 1);
        assert_eq!(joined(&[(fetch, 1140), (PRODUCE, 1140)]), 1);
        assert_eq!(joined(&[(PRODUCE, 1140), (fetch, 1140), (PRODUCE, 1140)]), 1);
    }

    #[test]
    fn what_is_not_whole_or_no_request_is_left() {
        let whole = received(&[(PRODUCE, 1140), (PRODUCE, 1140)]);
        assert_eq!(together(&whole, 1140), whole.len());
        for end in 1140..whole.len() {
            assert_eq!(together(&whole[..end], 1140), 1140);
        }
        for length in [-1, 0, 7, i32::MAX] {
            let mut wrong = whole.clone();
            wrong[1140..1144].copy_from_slice(&i32::to_be_bytes(length));
            assert_eq!(together(&wrong, 1140), 1140);
        }
    }
}
