//! The Kafka port: one listening socket per shard, between which the kernel spreads connections (SO_REUSEPORT).

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket as Raw, Type};

use super::connection;
use super::socket;
use crate::runtime::task;
use crate::shard::Shard;

/// Pause after a failed accept, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

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
    Ok(raw.into())
}

/// Accepts connections until the shard drains.
pub(crate) async fn run(shard: Rc<Shard>, listener: Rc<TcpListener>) {
    while !shard.draining() {
        let stream = match socket::accept(&shard.ring, &listener).await {
            Ok(stream) => stream,
            Err(_) if shard.draining() => return,
            Err(error) => {
                tracing::warn!(shard = shard.index, "accept failed: {error}");
                task::sleep(PAUSE).await;
                continue;
            }
        };
        // A peer that is gone already has no address.
        let Ok(peer) = stream.peer_addr() else { continue };
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
}
