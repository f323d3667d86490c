//! One attacker: many short connections that send damaged frames in bursts and hardly listen.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::mutants::Mutants;

/// How long an attacker waits for the broker to say more, or to take more, before it walks away: a damaged Fetch may ask
/// for its answer next month. Longer waits only make the test slower; whether the broker passes does not depend on them.
const ATTENTION: Duration = Duration::from_millis(20);
/// How often a connection is tried, `ATTENTION` apart, before the broker counts as not accepting any.
const CONNECT_TRIES: u32 = 500;

#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) connections: u64,
    pub(crate) bytes_answered: u64,
}

/// Sends `count` damaged frames over one connection after another.
pub(crate) fn run(address: SocketAddr, mut mutants: Mutants, count: u64, sent: &AtomicU64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut left = count;
    while left > 0 {
        let (whole, damaged) = mutants.burst();
        let mut stream = connect(address);
        outcome.connections += 1;
        // The broker ends a connection at the first frame that makes no sense.
        let mut open = (0..whole).all(|_| stream.write_all(&mutants.whole_frame()).is_ok());
        for _ in 0..damaged.min(left) {
            open = open && stream.write_all(&mutants.damaged_frame()).is_ok();
            if open {
                left -= 1;
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        // One in eight vanishes without a word; the others end in order and take what answers come.
        if open && mutants.below(8) > 0 && stream.shutdown(Shutdown::Write).is_ok() {
            outcome.bytes_answered += drained(&mut stream);
        }
    }
    outcome
}

fn connect(address: SocketAddr) -> TcpStream {
    for _ in 0..CONNECT_TRIES {
        if let Ok(stream) = TcpStream::connect(address) {
            // Closing resets the connection, so that a million of them do not use up the ports of this host.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            stream.set_read_timeout(Some(ATTENTION)).unwrap();
            stream.set_write_timeout(Some(ATTENTION)).unwrap();
            return stream;
        }
        thread::sleep(ATTENTION);
    }
    panic!("the broker takes no connection any more");
}

/// Reads until the broker ends the connection or has nothing to say for a while.
fn drained(stream: &mut TcpStream) -> u64 {
    let mut buffer = [0; 16 << 10];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return total,
            Ok(read) => total += read as u64,
        }
    }
}
