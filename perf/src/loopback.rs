//! The loopback's ceilings: bytes in a second from one core to another, and echoed requests in a second.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::process;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct LoopbackSpec {
    /// Core of the receiving (then the echoing) side.
    pub(crate) server_core: usize,
    /// Core of the sending (then the asking) side.
    pub(crate) client_core: usize,
    /// How long each of the three measurements takes.
    pub(crate) duration: Duration,
    /// Connections of the echo.
    pub(crate) connections: usize,
    /// Requests in flight on each connection of the echo.
    pub(crate) depth: usize,
    /// Bytes of each echoed request.
    pub(crate) request_bytes: usize,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct LoopbackFigures {
    spec: LoopbackSpec,
    /// Client core to server core: what a broker could receive.
    pub(crate) receive_mb_per_second: f64,
    /// Server core to client core: what a broker could send.
    pub(crate) send_mb_per_second: f64,
    /// Echoed requests in a second.
    pub(crate) echo_per_second: f64,
}

impl LoopbackFigures {
    /// As JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "name": "loopback",
            "seconds_each": self.spec.duration.as_secs_f64(),
            "receive_megabytes_per_second": self.receive_mb_per_second,
            "send_megabytes_per_second": self.send_mb_per_second,
            "echo_requests_per_second": self.echo_per_second,
            "echo_connections": self.spec.connections,
            "echo_depth": self.spec.depth,
            "echo_request_bytes": self.spec.request_bytes,
        })
    }
}

/// Large enough that system calls cost little, small enough for a core's caches.
const CHUNK: usize = 256 << 10;

/// What a fetch of 16 partitions with 1 MiB of each brings.
const ANSWER_BYTES: usize = 16 << 20;
/// What such fetches go round in.
const HOT_BYTES: usize = 64 << 20;

/// Measures one after the other: receive, send, echo.
pub(crate) fn run(spec: &LoopbackSpec) -> io::Result<LoopbackFigures> {
    if spec.connections == 0 || spec.depth == 0 || spec.request_bytes == 0 || spec.request_bytes > CHUNK {
        return Err(io::Error::other(
            "at least one connection, a depth of 1, and requests of 1 byte to 256 KiB",
        ));
    }
    Ok(LoopbackFigures {
        receive_mb_per_second: stream(spec.client_core, spec.server_core, spec.duration)?,
        send_mb_per_second: stream(spec.server_core, spec.client_core, spec.duration)?,
        echo_per_second: echo(spec)?,
        spec: spec.clone(),
    })
}

/// Millions of bytes in a second over one connection, by a thread pinned to `from` to a thread pinned to `to`.
fn stream(from: usize, to: usize, duration: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = thread::spawn(move || -> io::Result<()> {
        process::pin_thread(from)?;
        let mut stream = TcpStream::connect(address)?;
        let chunk = vec![7u8; CHUNK];
        let start = Instant::now();
        while start.elapsed() < duration {
            stream.write_all(&chunk)?;
        }
        Ok(())
    });
    let receiver = thread::spawn(move || -> io::Result<f64> {
        process::pin_thread(to)?;
        let (mut stream, _) = listener.accept()?;
        let mut chunk = vec![0u8; CHUNK];
        let (start, mut bytes) = (Instant::now(), 0u64);
        loop {
            match stream.read(&mut chunk)? {
                0 => return Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64()),
                read => bytes += read as u64,
            }
        }
    });
    join(sender)?;
    join(receiver)
}

/// Millions of bytes in a second that a bare sender on core `from` gets to receivers on core `to`: a thread for each
/// connection on both sides, answers as large as a broker's, out of memory that no cache of a core holds.
pub(crate) fn send_large(from: usize, to: usize, connections: usize, duration: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut threads = Vec::new();
    for _ in 0..connections {
        let sender = thread::spawn(move || -> io::Result<()> {
            process::pin_thread(from)?;
            let mut stream = TcpStream::connect(address)?;
            let memory = vec![7u8; HOT_BYTES];
            let start = Instant::now();
            for answer in memory.chunks(ANSWER_BYTES).cycle() {
                if start.elapsed() >= duration {
                    return Ok(());
                }
                stream.write_all(answer)?;
            }
            Ok(())
        });
        let (mut stream, _) = listener.accept()?;
        let receiver = thread::spawn(move || -> io::Result<f64> {
            process::pin_thread(to)?;
            let mut chunk = vec![0u8; CHUNK];
            let (start, mut bytes) = (Instant::now(), 0u64);
            loop {
                match stream.read(&mut chunk)? {
                    0 => return Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64()),
                    read => bytes += read as u64,
                }
            }
        });
        threads.push((sender, receiver));
    }
    let mut sum = 0.0;
    for (sender, receiver) in threads {
        join(sender)?;
        sum += join(receiver)?;
    }
    Ok(sum)
}

/// Echoed requests in a second.
pub(crate) fn echo(spec: &LoopbackSpec) -> io::Result<f64> {
    let (ready, address) = std::sync::mpsc::channel::<SocketAddr>();
    let server_core = spec.server_core;
    let connections = spec.connections;
    let server = thread::spawn(move || -> io::Result<()> {
        process::pin_thread(server_core)?;
        on_one_thread(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let _ = ready.send(listener.local_addr()?);
            let mut echoes = Vec::new();
            for _ in 0..connections {
                let (stream, _) = listener.accept().await?;
                echoes.push(tokio::task::spawn_local(echo_back(stream)));
            }
            for echo in echoes {
                echo.await.map_err(io::Error::other)??;
            }
            Ok(())
        })
    });
    let address = address.recv().map_err(io::Error::other)?;
    let spec = spec.clone();
    let client = thread::spawn(move || -> io::Result<f64> {
        process::pin_thread(spec.client_core)?;
        let duration = spec.duration;
        let (start, mut echoed) = (Instant::now(), 0);
        on_one_thread(async {
            let tasks: Vec<_> =
                (0..spec.connections).map(|_| tokio::task::spawn_local(ask(address, spec.clone()))).collect();
            for task in tasks {
                echoed += task.await.map_err(io::Error::other)??;
            }
            Ok(())
        })?;
        Ok(echoed as f64 / start.elapsed().max(duration).as_secs_f64())
    });
    let rate = join(client)?;
    join(server)?;
    Ok(rate)
}

async fn echo_back(mut stream: tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0u8; CHUNK];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}

/// Keeps `depth` requests in flight until the time is over; how many came back whole.
async fn ask(address: SocketAddr, spec: LoopbackSpec) -> io::Result<u64> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let requests = vec![7u8; spec.request_bytes * spec.depth];
    let mut buffer = vec![0u8; CHUNK];
    let (start, mut echoed, mut partial) = (Instant::now(), 0, 0);
    stream.write_all(&requests).await?;
    let mut in_flight = spec.depth;
    while in_flight > 0 {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let whole = (partial + read) / spec.request_bytes;
        partial = (partial + read) % spec.request_bytes;
        echoed += whole as u64;
        in_flight -= whole;
        if whole > 0 && start.elapsed() < spec.duration {
            stream.write_all(&requests[..whole * spec.request_bytes]).await?;
            in_flight += whole;
        }
    }
    Ok(echoed)
}

fn on_one_thread(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

fn join<T>(thread: thread::JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().map_err(|_| io::Error::other("a measuring thread panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_direction_moves_bytes() {
        let core = process::allowed_cores().unwrap()[0];
        let spec = LoopbackSpec {
            server_core: core,
            client_core: core,
            duration: Duration::from_millis(30),
            connections: 3,
            depth: 2,
            request_bytes: 100,
        };
        let figures = run(&spec).unwrap();
        assert!(figures.receive_mb_per_second > 0.0);
        assert!(figures.send_mb_per_second > 0.0);
        assert!(figures.echo_per_second > 0.0);
        assert!(send_large(core, core, 2, Duration::from_millis(30)).unwrap() > 0.0);
    }
}
