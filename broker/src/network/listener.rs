//! The Kafka port: one listening socket per shard, between which the kernel spreads connections (SO_REUSEPORT).

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket as Raw, Type};

use super::connection;
use super::socket;
use crate::runtime::task;
use crate::shard::Shard;

/// Pause after a failed accept, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that are taken before the shard's other tasks have their turn.
const AT_ONCE: usize = 128;

/// Why the port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("'{0}' is not an address of this host: {1}; give HOST:PORT with a host that resolves here")]
    Resolve(String, io::Error),
    #[error("{0} is taken by another program; stop it, or choose another port (0 takes a free one)")]
    Taken(SocketAddr),
    #[error("cannot listen on {0}: {1}; choose another address")]
    Other(SocketAddr, io::Error),
}

/// `socket.*` configs of the listener and its connections; `None` leaves the kernel's choice.
pub(crate) struct SocketOptions {
    /// Connections the kernel completes before they are accepted.
    pub(crate) backlog: i32,
    pub(crate) send_buffer_bytes: Option<usize>,
    pub(crate) receive_buffer_bytes: Option<usize>,
}

/// Binds one socket per shard to `address` (HOST:PORT); port 0 becomes one free port for all of them.
pub(crate) fn bind(
    address: &str,
    shards: usize,
    options: &SocketOptions,
) -> Result<(SocketAddr, Vec<TcpListener>), ListenError> {
    let no_address = || io::Error::other("no address found");
    let resolved = address
        .to_socket_addrs()
        .and_then(|mut found| found.next().ok_or_else(no_address))
        .map_err(|e| ListenError::Resolve(address.to_owned(), e))?;
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken(resolved),
        _ => ListenError::Other(resolved, e),
    };
    // SO_REUSEPORT would let two brokers of one user share a port: only who gets it alone may go on.
    if resolved.port() != 0 {
        listen(resolved, false, options).map_err(failed)?;
    }
    let first = listen(resolved, true, options).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    for _ in 1..shards {
        listeners.push(listen(bound, true, options).map_err(failed)?);
    }
    Ok((bound, listeners))
}

fn listen(address: SocketAddr, shared: bool, options: &SocketOptions) -> io::Result<TcpListener> {
    let raw = Raw::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    raw.set_reuse_address(true)?;
    raw.set_reuse_port(shared)?;
    // Accepted connections inherit the buffer sizes.
    if let Some(bytes) = options.send_buffer_bytes {
        raw.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        raw.set_recv_buffer_size(bytes)?;
    }
    raw.bind(&address.into())?;
    raw.listen(options.backlog)?;
    raw.set_nonblocking(true)?;
    Ok(raw.into())
}

/// Accepts connections until the shard drains.
///
/// A shard under load comes back here after as long as its longest answer takes. So each time all that wait are taken:
/// one by one, a thousand clients that come back would fill the kernel's queue, and who is turned away there tries again
/// only after seconds.
pub(crate) async fn run(shard: Rc<Shard>, listener: Rc<TcpListener>) {
    while !shard.draining() {
        let taken = match socket::incoming(&shard.ring, &listener).await {
            Ok(()) => take(&shard, &listener),
            Err(error) => Err(error),
        };
        match taken {
            Err(_) if shard.draining() => return,
            Err(error) => {
                tracing::warn!(shard = shard.index, "accept failed: {error}");
                task::sleep(PAUSE).await;
            }
            Ok(()) => {}
        }
    }
}

/// Takes the connections that wait on `listener`.
fn take(shard: &Rc<Shard>, listener: &TcpListener) -> io::Result<()> {
    for accepted in waiting(listener) {
        let (stream, peer) = accepted?;
        admit(shard, stream, peer);
    }
    Ok(())
}

/// Accepts what waits on `listener`, which does not block, `AT_ONCE` at most.
fn waiting(listener: &TcpListener) -> impl Iterator<Item = io::Result<(TcpStream, SocketAddr)>> {
    let next = || match listener.accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        accepted => Some(accepted),
    };
    std::iter::from_fn(next).take(AT_ONCE)
}

/// Serves a connection, or closes it where there are too many.
fn admit(shard: &Rc<Shard>, stream: TcpStream, peer: SocketAddr) {
    match shard.shared.admission.admit(peer.ip()) {
        Ok(admitted) => {
            shard.metrics.connection_accepted();
            let serve = connection::serve(shard.clone(), Rc::new(stream), peer, admitted);
            task::spawn("connection", serve);
        }
        Err(refused) => {
            shard.metrics.connection_refused();
            tracing::warn!(shard = shard.index, %peer, "connection refused: {refused}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OPTIONS: SocketOptions =
        SocketOptions { backlog: 1000, send_buffer_bytes: None, receive_buffer_bytes: None };

    fn connected(address: SocketAddr, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
    }

    #[test]
    fn all_connections_that_wait_are_taken_in_order_and_so_many_at_once() {
        let (address, listeners) = bind("127.0.0.1:0", 1, &OPTIONS).unwrap();
        assert!(waiting(&listeners[0]).next().is_none());
        let mut peers = connected(address, AT_ONCE + 3).into_iter();
        for count in [AT_ONCE, 3, 0] {
            let taken: Vec<_> = waiting(&listeners[0]).map(Result::unwrap).collect();
            assert_eq!(taken.len(), count);
            for (_, peer) in taken {
                assert_eq!(peer, peers.next().unwrap().local_addr().unwrap());
            }
        }
    }

    #[test]
    fn a_listener_that_was_shut_down_says_so() {
        let (_, listeners) = bind("127.0.0.1:0", 1, &OPTIONS).unwrap();
        socket2::SockRef::from(&listeners[0]).shutdown(std::net::Shutdown::Both).unwrap();
        waiting(&listeners[0]).next().unwrap().unwrap_err();
    }
}
