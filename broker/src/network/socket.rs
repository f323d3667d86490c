//! Operations of the shard ring on sockets: accept, receive, vectored send.
//!
//! Unsafe because submission entries carry raw pointers: each operation gives its memory and its socket to the ring,
//! which holds both until the kernel is done, whatever becomes of the future.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use io_uring::{opcode, types};
use penstock_storage::disk::ring::{Buffer, Keep, Ring};

/// Slices that one send takes at most (the kernel's UIO_MAXIOV).
const SLICES_MAX: usize = 1024;

/// A connected socket on the shard ring. Clones are handles on the same socket.
#[derive(Clone)]
pub(super) struct Socket {
    ring: Ring,
    stream: Rc<TcpStream>,
}

/// Accepts one connection.
pub(super) async fn accept(ring: &Ring, listener: &Rc<TcpListener>) -> io::Result<TcpStream> {
    let fd = types::Fd(listener.as_raw_fd());
    let entry =
        opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).flags(libc::SOCK_CLOEXEC).build();
    // SAFETY: the entry points to no memory; the listener is kept.
    let accepted = unsafe { ring.submit(entry, Keep::owner(listener.clone())) }.await;
    let fd = accepted.result?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { TcpStream::from_raw_fd(fd) })
}

impl Socket {
    pub(super) fn new(ring: Ring, stream: Rc<TcpStream>) -> Socket {
        Socket { ring, stream }
    }

    /// Receives up to `want` bytes behind what `buffer` holds, within its capacity; all of them where `whole`, unless
    /// the peer closes first. 0 says that it closed.
    pub(super) async fn receive(
        &self,
        mut buffer: BytesMut,
        want: usize,
        whole: bool,
    ) -> (BytesMut, io::Result<usize>) {
        let spare = buffer.spare_capacity_mut();
        assert!(want > 0 && want <= spare.len(), "receive beyond the buffer");
        let length = u32::try_from(want).unwrap_or(u32::MAX);
        let flags = if whole { libc::MSG_WAITALL } else { 0 };
        let fd = types::Fd(self.stream.as_raw_fd());
        let entry = opcode::Recv::new(fd, spare.as_mut_ptr().cast(), length).flags(flags).build();
        let keep = Keep::new(Buffer::BytesMut(buffer), self.stream.clone());
        // SAFETY: the entry points into the spare memory of the buffer, which is kept and keeps its address; the
        // socket is kept.
        let done = unsafe { self.ring.submit(entry, keep) }.await;
        let Buffer::BytesMut(mut buffer) = done.keep.buffer else { unreachable!("kept as given") };
        let received = done.result.map(|bytes| bytes as usize);
        if let Ok(bytes) = received {
            assert!(bytes <= want, "the kernel received more than asked for");
            // SAFETY: the kernel has written that many bytes behind the old length, within the capacity.
            unsafe { buffer.set_len(buffer.len() + bytes) };
        }
        (buffer, received)
    }

    /// Sends the first slices of `outgoing`; gives it back with the number of bytes sent, which the caller takes off.
    pub(super) async fn send(&self, outgoing: Outgoing) -> (Outgoing, io::Result<usize>) {
        let mut message = Box::new(Message { outgoing, pieces: Vec::new(), header: empty_header() });
        message.pieces.extend(
            message.outgoing.slices.iter().take(SLICES_MAX).map(|slice| libc::iovec {
                iov_base: slice.as_ptr().cast_mut().cast(),
                iov_len: slice.len(),
            }),
        );
        message.header.msg_iov = message.pieces.as_mut_ptr();
        message.header.msg_iovlen = message.pieces.len();
        let fd = types::Fd(self.stream.as_raw_fd());
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned();
        let entry = opcode::SendMsg::new(fd, &raw const message.header).flags(flags).build();
        let keep = Keep::new(Buffer::Boxed(message), self.stream.clone());
        // SAFETY: the header is in the box that is kept; it points to the pieces' memory, owned by that box, which point
        // to bytes owned by its slices. None of them is touched or moved until the completion.
        let done = unsafe { self.ring.submit(entry, keep) }.await;
        let Buffer::Boxed(kept) = done.keep.buffer else { unreachable!("kept as given") };
        let Ok(message) = kept.downcast::<Message>() else { unreachable!("kept as given") };
        (message.outgoing, done.result.map(|bytes| bytes as usize))
    }
}

/// What the kernel reads during a send.
struct Message {
    outgoing: Outgoing,
    pieces: Vec<libc::iovec>,
    header: libc::msghdr,
}

fn empty_header() -> libc::msghdr {
    // SAFETY: all fields are integers or raw pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Slices on their way to a socket.
#[derive(Default)]
pub(super) struct Outgoing {
    slices: VecDeque<Bytes>,
    bytes: usize,
}

impl Outgoing {
    /// Adds slices at the end.
    pub(super) fn extend(&mut self, slices: Vec<Bytes>) {
        for slice in slices {
            if !slice.is_empty() {
                self.bytes += slice.len();
                self.slices.push_back(slice);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Bytes left.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes off `sent` bytes from the front.
    pub(super) fn advance(&mut self, mut sent: usize) {
        assert!(sent <= self.bytes, "sent more than there was");
        self.bytes -= sent;
        while let Some(front) = self.slices.front_mut() {
            if sent < front.len() {
                front.advance(sent);
                return;
            }
            sent -= front.len();
            self.slices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_sends_take_off_the_front() {
        let mut outgoing = Outgoing::default();
        outgoing.extend(vec![Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defg")]);
        assert_eq!(outgoing.bytes(), 7);
        outgoing.advance(4);
        assert_eq!(outgoing.slices, [&b"efg"[..]]);
        outgoing.advance(3);
        assert!(outgoing.is_empty() && outgoing.bytes() == 0);
    }
}
