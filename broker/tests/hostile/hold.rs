//! Attackers that hold: each announces a request, sends some of it or nothing, and waits.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{Broker, PATIENCE};

/// Announced lengths, the bytes sent of each, and how many connections do so: more than a shard holds of the largest and
/// as many of others as would be, if theirs counted together.
const HOLDS: [(u32, usize, usize); 5] = [
    (100 << 20, 0, 8),
    (100 << 20, 100_000, 2),
    (1 << 20, 1000, 80),
    (16 << 10, 0, 20),
    (16 << 10, 16_000, 20),
];

#[derive(Default)]
pub(crate) struct Holders(Vec<TcpStream>);

impl Holders {
    /// Begins anew, and waits until the broker has taken all of it.
    pub(crate) fn hold(&mut self, broker: &Broker) {
        self.0.clear();
        for (announced, bytes, connections) in HOLDS {
            for _ in 0..connections {
                let mut stream = TcpStream::connect(broker.kafka).unwrap();
                stream.write_all(&announced.to_be_bytes()).unwrap();
                // An ApiVersions request, as far as it goes.
                stream.write_all(&[0, 18, 0, 0]).unwrap();
                stream.write_all(&vec![0; bytes]).unwrap();
                self.0.push(stream);
            }
        }
        let since = Instant::now();
        // The client that behaves is there too.
        let taken = |bytes: &[u64]| bytes.len() == self.0.len() + 1 && bytes.iter().all(|bytes| *bytes >= 4);
        while !taken(&broker.received()) {
            assert!(since.elapsed() < PATIENCE, "the broker does not take what it is sent");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the broker has ended none of them.
    pub(crate) fn all_held(&self) -> bool {
        let is_held = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        };
        self.0.iter().all(is_held)
    }
}
