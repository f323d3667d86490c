//! Operations of the shard ring on sockets: wait for connections, receive, vectored send. And what the kernel knows of a connection.
//!
//! Unsafe because submission entries carry raw pointers: each operation gives its memory and its socket to the ring,
//! which holds both until the kernel is done, whatever becomes of the future. And because `TCP_INFO` has no safe door.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use io_uring::{cqueue, opcode, types};
use penstock_storage::disk::ring::{Buffer, Keep, Ring};

/// Slices that one send takes at most (the kernel's UIO_MAXIOV).
const SLICES_MAX: usize = 1024;
/// Slices for which a connection keeps memory between its sends: 6 KiB.
const SLICES_KEPT: usize = 128;
/// Answers up to this length are copied behind each other: that costs less than a piece of its own for each, and their
/// memory, which was just written, comes free at once.
const SHORT_BYTES: usize = 512;
/// Bytes of short answers for which a connection keeps memory between its sends.
const SHORTS_KEPT: usize = 4 << 10;

/// `IORING_RECVSEND_POLL_FIRST`: waits before it tries. Without it, a receive on an empty socket is tried in vain first.
const POLL_FIRST: u16 = 1;

/// How to receive.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Receive {
    /// Completes only when all bytes wanted are there, unless the peer closes first.
    pub(super) whole: bool,
    /// The socket is likely to be empty still.
    pub(super) empty: bool,
}

/// What was received.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Got {
    /// Bytes; 0 says that the peer closed.
    pub(super) bytes: usize,
    /// The socket holds more.
    pub(super) more: bool,
}

/// A connected socket on the shard ring. Clones are handles on the same socket.
#[derive(Clone)]
pub(super) struct Socket {
    ring: Ring,
    stream: Rc<TcpStream>,
}

/// Waits until `listener` has a connection to accept, or was shut down.
pub(super) async fn incoming(ring: &Ring, listener: &Rc<TcpListener>) -> io::Result<()> {
    let fd = types::Fd(listener.as_raw_fd());
    let entry = opcode::PollAdd::new(fd, libc::POLLIN.cast_unsigned().into()).build();
    // SAFETY: the entry points to no memory; the listener is kept.
    let polled = unsafe { ring.submit(entry, Keep::owner(listener.clone())) }.await;
    polled.result.map(|_| ())
}

/// Bytes that the kernel has received on a connection in all, whether anybody has taken them or not.
pub(super) fn bytes_received(stream: &TcpStream) -> io::Result<u64> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
    let fd = stream.as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes into `info`, which has as many and outlives the call.
    let done = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length)
    };
    if done == 0 { Ok(info.tcpi_bytes_received) } else { Err(io::Error::last_os_error()) }
}

impl Socket {
    pub(super) fn new(ring: Ring, stream: Rc<TcpStream>) -> Socket {
        Socket { ring, stream }
    }

    /// Receives up to `want` bytes behind what `buffer` holds, within its capacity.
    pub(super) async fn receive(
        &self,
        mut buffer: BytesMut,
        want: usize,
        how: Receive,
    ) -> (BytesMut, io::Result<Got>) {
        let spare = buffer.spare_capacity_mut();
        assert!(want > 0 && want <= spare.len(), "receive beyond the buffer");
        let length = u32::try_from(want).unwrap_or(u32::MAX);
        let flags = if how.whole { libc::MSG_WAITALL } else { 0 };
        let first = if how.empty { POLL_FIRST } else { 0 };
        let fd = types::Fd(self.stream.as_raw_fd());
        let entry =
            opcode::Recv::new(fd, spare.as_mut_ptr().cast(), length).flags(flags).ioprio(first).build();
        let keep = Keep::new(Buffer::BytesMut(buffer), self.stream.clone());
        // SAFETY: the entry points into the spare memory of the buffer, which is kept and keeps its address; the
        // socket is kept.
        let done = unsafe { self.ring.submit(entry, keep) }.await;
        let Buffer::BytesMut(mut buffer) = done.keep.buffer else { unreachable!("kept as given") };
        let more = cqueue::sock_nonempty(done.flags);
        let got = done.result.map(|bytes| Got { bytes: bytes as usize, more });
        if let Ok(Got { bytes, .. }) = got {
            assert!(bytes <= want, "the kernel received more than asked for");
            // SAFETY: the kernel has written that many bytes behind the old length, within the capacity.
            unsafe { buffer.set_len(buffer.len() + bytes) };
        }
        (buffer, got)
    }

    /// Sends the first slices of `outgoing`; gives it back with the number of bytes sent, which the caller takes off.
    pub(super) async fn send(&self, mut outgoing: Outgoing) -> (Outgoing, io::Result<usize>) {
        let message = &mut *outgoing.0;
        message.join_shorts();
        message.pieces.clear();
        message.pieces.extend(
            message.slices.iter().take(SLICES_MAX).map(|slice| libc::iovec {
                iov_base: slice.as_ptr().cast_mut().cast(),
                iov_len: slice.len(),
            }),
        );
        message.header.msg_iov = message.pieces.as_mut_ptr();
        message.header.msg_iovlen = message.pieces.len();
        let fd = types::Fd(self.stream.as_raw_fd());
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned();
        let entry = opcode::SendMsg::new(fd, &raw const message.header).flags(flags).build();
        let keep = Keep::new(Buffer::Boxed(outgoing.0), self.stream.clone());
        // SAFETY: the header is in the box that is kept; it points to the pieces' memory, owned by that box, which point
        // to bytes owned by its slices. None of them is touched or moved until the completion.
        let done = unsafe { self.ring.submit(entry, keep) }.await;
        let Buffer::Boxed(kept) = done.keep.buffer else { unreachable!("kept as given") };
        let Ok(message) = kept.downcast::<Message>() else { unreachable!("kept as given") };
        (Outgoing(message), done.result.map(|bytes| bytes as usize))
    }
}

/// What is to be sent, and what the kernel reads during a send. Between sends `pieces` and `header` point at nothing that is
/// there: a send fills both before it gives them to the kernel.
struct Message {
    slices: VecDeque<Bytes>,
    /// Short answers behind them, one behind the other.
    shorts: BytesMut,
    /// Bytes of all of them.
    bytes: usize,
    pieces: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Message {
    /// Makes one slice of the short answers.
    fn join_shorts(&mut self) {
        if self.shorts.is_empty() {
            return;
        }
        let joined = self.shorts.split().freeze();
        if joined.len() > SHORTS_KEPT {
            self.shorts = BytesMut::new();
        }
        self.slices.push_back(joined);
    }
}

fn empty_header() -> libc::msghdr {
    // SAFETY: all fields are integers or raw pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Slices on their way to a socket. A connection has one for all its sends.
pub(super) struct Outgoing(Box<Message>);

impl Outgoing {
    pub(super) fn new() -> Outgoing {
        let (slices, shorts, pieces) = Default::default();
        Outgoing(Box::new(Message { slices, shorts, bytes: 0, pieces, header: empty_header() }))
    }

    /// Adds the slices of an answer at the end.
    pub(super) fn extend(&mut self, slices: Vec<Bytes>) {
        let message = &mut *self.0;
        if let [short] = &slices[..]
            && short.len() <= SHORT_BYTES
        {
            message.shorts.extend_from_slice(short);
            message.bytes += short.len();
            return;
        }
        message.join_shorts();
        message.slices.reserve(slices.len());
        for slice in slices {
            if !slice.is_empty() {
                message.bytes += slice.len();
                message.slices.push_back(slice);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.bytes == 0
    }

    /// Bytes left.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Takes off `sent` bytes from the front.
    pub(super) fn advance(&mut self, mut sent: usize) {
        let Message { slices, bytes, pieces, .. } = &mut *self.0;
        assert!(sent <= *bytes, "sent more than there was");
        *bytes -= sent;
        while let Some(front) = slices.front_mut() {
            if sent < front.len() {
                front.advance(sent);
                return;
            }
            sent -= front.len();
            slices.pop_front();
        }
        // An idle connection keeps no more than most answers need.
        slices.shrink_to(SLICES_KEPT);
        pieces.clear();
        pieces.shrink_to(SLICES_KEPT);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};

    use penstock_storage::disk::ring::RingOptions;

    use super::*;
    use crate::runtime::executors;

    #[test]
    fn what_lies_in_the_socket_counts_as_received() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        assert_eq!(bytes_received(&receiver).unwrap(), 0);
        sender.write_all(&[7; 1000]).unwrap();
        receiver.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(bytes_received(&receiver).unwrap(), 1000);
        sender.write_all(&[7; 24]).unwrap();
        receiver.read_exact(&mut [0; 1023]).unwrap();
        assert_eq!(bytes_received(&receiver).unwrap(), 1024);
    }

    /// More slices than the kernel takes at once, then one, and again: each send finds its own, in order.
    #[test]
    fn one_message_serves_all_sends_of_a_connection() {
        let outcome = executors::start(1, |_| async {
            let ring = Ring::new(RingOptions::default()).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = Socket::new(ring.clone(), Rc::new(listener.accept().unwrap().0));
            let received = std::thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                all
            });
            let (mut outgoing, mut all) = (Outgoing::new(), Vec::new());
            for count in [2 * SLICES_MAX + 5, 1, SLICES_KEPT + 1, 3] {
                let slices: Vec<Bytes> = (0..count).map(|n| vec![n as u8; 1 + n % 7].into()).collect();
                slices.iter().for_each(|slice| all.extend_from_slice(slice));
                outgoing.extend(slices);
                while !outgoing.is_empty() {
                    let sent;
                    (outgoing, sent) = socket.send(outgoing).await;
                    outgoing.advance(sent.unwrap());
                }
                let Message { slices, pieces, .. } = &*outgoing.0;
                assert!(slices.capacity() <= 2 * SLICES_KEPT && pieces.capacity() <= 2 * SLICES_KEPT);
            }
            drop(socket);
            ring.shutdown().await;
            (received.join().unwrap(), all)
        });
        let (received, sent) = outcome.unwrap().recv().unwrap().1;
        assert!(received == sent, "{} bytes came of {}", received.len(), sent.len());
    }

    /// Short answers go out as one slice, in their place among the others, and no idle connection keeps much for them.
    #[test]
    fn short_answers_are_joined() {
        let long = Bytes::from(vec![1; SHORT_BYTES + 1]);
        let mut outgoing = Outgoing::new();
        for answer in [&b"ab"[..], b"", b"cde"] {
            outgoing.extend(vec![Bytes::copy_from_slice(answer)]);
        }
        outgoing.extend(vec![long.clone()]);
        outgoing.extend(vec![Bytes::from_static(b"f")]);
        assert_eq!(outgoing.bytes(), 6 + long.len());
        outgoing.0.join_shorts();
        assert_eq!(outgoing.0.slices, [&b"abcde"[..], &long[..], b"f"]);
        outgoing.advance(6 + long.len());
        assert!(outgoing.is_empty());
        for _ in 0..1000 {
            outgoing.extend(vec![Bytes::from(vec![2; SHORT_BYTES])]);
        }
        outgoing.0.join_shorts();
        outgoing.advance(1000 * SHORT_BYTES);
        assert!(outgoing.is_empty() && outgoing.0.shorts.capacity() <= 2 * SHORTS_KEPT);
    }

    #[test]
    fn partial_sends_take_off_the_front() {
        let mut outgoing = Outgoing::new();
        outgoing.extend(vec![Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defg")]);
        assert_eq!(outgoing.bytes(), 7);
        outgoing.advance(4);
        assert_eq!(outgoing.0.slices, [&b"efg"[..]]);
        outgoing.advance(3);
        assert!(outgoing.is_empty() && outgoing.bytes() == 0);
    }
}
