//! One connection: frames, version negotiation, one request at a time.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_protocol::frame::{LENGTH_LEN, decode_response, encode_request};
use penstock_protocol::messages::ApiVersionsRequest;
use penstock_protocol::{Request, ServedVersions, WireString};

use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, ClientError, check};

/// What brokers see as the client's name.
const CLIENT_ID: &str = "penstock-cli";
/// The largest answer taken. A broker that announces more is refused, not believed.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// The lowest version of ApiVersions that names the client; every broker since Kafka 2.4 serves it (KIP-511).
const API_VERSIONS_VERSION: i16 = 3;

/// A connection to one broker, and what that broker serves.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    address: String,
    served: ServedVersions,
    correlation_id: i32,
}

impl Connection {
    /// Connects to `HOST:PORT` and asks which versions the broker serves.
    pub(crate) fn open(address: &str) -> Result<Connection, ClientError> {
        let unreachable =
            |error: io::Error| ClientError::Unreachable { address: address.to_owned(), error: plain(error) };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for resolved in address.to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(unreachable)?;
                    return Connection::negotiate(stream, address);
                }
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    fn negotiate(stream: TcpStream, address: &str) -> Result<Connection, ClientError> {
        let served = ServedVersions::default();
        let mut connection = Connection { stream, address: address.to_owned(), served, correlation_id: 0 };
        let request = ApiVersionsRequest {
            client_software_name: WireString::from_static(CLIENT_ID),
            client_software_version: WireString::from_static(env!("CARGO_PKG_VERSION")),
            ..ApiVersionsRequest::default()
        };
        let response = connection.call_version(API_VERSIONS_VERSION, &request)?;
        check(response.error_code, None, || format!("asking {address} what it serves"))?;
        connection.served = ServedVersions::of(&response);
        Ok(connection)
    }

    /// The highest version of `R` that both sides speak.
    pub(crate) fn version<R: Request>(&self) -> Result<i16, ClientError> {
        self.served
            .common(R::API)
            .ok_or_else(|| ClientError::NotServed { address: self.address.clone(), api: R::API.name() })
    }

    /// Sends a request in a version that the caller has chosen, and waits for its answer.
    pub(crate) fn call_version<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let correlation_id = self.send(version, request)?;
        let answer = self.receive(deadline).map_err(|error| self.failed::<R>(error))?;
        let (answered, response) =
            decode_response::<R>(answer, version).map_err(|error| self.foreign(error.to_string()))?;
        if answered != correlation_id {
            return Err(self.foreign(format!("answer {answered} to request {correlation_id}")));
        }
        Ok(response)
    }

    /// Sends a request that gets no answer (or whose answer is read by the caller); gives its correlation id.
    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<i32, ClientError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let name = WireString::from_static(CLIENT_ID);
        let slices = encode_request(self.correlation_id, Some(&name), version, request)
            .map_err(|error| ClientError::Request(R::API.name(), error))?;
        let written = self.stream.set_write_timeout(Some(ANSWER_TIMEOUT)).and_then(|()| {
            // Small pieces are joined, so that they travel in one packet; large ones are not copied.
            let mut out = io::BufWriter::with_capacity(16 << 10, &self.stream);
            slices.iter().try_for_each(|slice| out.write_all(slice))?;
            out.flush()
        });
        written.map_err(|error| self.failed::<R>(error))?;
        Ok(self.correlation_id)
    }

    /// The next frame without its length. Memory grows with what arrives, never with what is announced.
    fn receive(&mut self, deadline: Instant) -> io::Result<Bytes> {
        let mut prefix = [0; LENGTH_LEN];
        Patient { stream: &self.stream, deadline }.read_exact(&mut prefix)?;
        let announced = i32::from_be_bytes(prefix);
        let len = usize::try_from(announced).ok().filter(|len| *len <= ANSWER_BYTES_MAX);
        let len = len.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("an answer of {announced} bytes"))
        })?;
        let mut answer = Vec::new();
        Patient { stream: &self.stream, deadline }.take(len as u64).read_to_end(&mut answer)?;
        if answer.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Bytes::from(answer))
    }

    fn failed<R: Request>(&self, error: io::Error) -> ClientError {
        let address = self.address.clone();
        match error.kind() {
            io::ErrorKind::InvalidData => self.foreign(error.to_string()),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                ClientError::Timeout { address, api: R::API.name(), after: ANSWER_TIMEOUT }
            }
            io::ErrorKind::UnexpectedEof => {
                let error = io::Error::new(error.kind(), "closed by the other side");
                ClientError::Broken { address, error }
            }
            _ => ClientError::Broken { address, error: plain(error) },
        }
    }

    fn foreign(&self, what: String) -> ClientError {
        ClientError::Foreign { address: self.address.clone(), what }
    }
}

/// Reads until a deadline, however the bytes are spread over time.
struct Patient<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

/// The error in words: "connection refused" tells people more than "os error 111".
fn plain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::TimedOut
        | io::ErrorKind::BrokenPipe => io::Error::new(error.kind(), error.kind().to_string()),
        _ => error,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A port where whoever connects gets `answer` and then nothing more.
    fn answering(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Read first: closing a socket with unread bytes would reset the connection.
            let mut request = [0; 256];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        address
    }

    #[test]
    fn others_than_brokers_are_told_apart() {
        let error = Connection::open(&answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")).unwrap_err();
        assert!(matches!(error, ClientError::Foreign { .. }), "{error}");
        let error = Connection::open(&answering(b"\0\0\0\x08\0\0\0\x01")).unwrap_err();
        assert!(matches!(error, ClientError::Broken { .. }), "cut short: {error}");
        let error = Connection::open(&answering(b"\0\0\0\x04\0\0\0\x01")).unwrap_err();
        assert!(matches!(error, ClientError::Foreign { .. }), "an answer without a body: {error}");
        let error = Connection::open(&answering(b"")).unwrap_err();
        assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    }

    #[test]
    fn nobody_there() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let error = Connection::open(&address).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("no broker answers at {address} (connection refused): is it started? see --bootstrap")
        );
        assert!(matches!(Connection::open("no port").unwrap_err(), ClientError::Unreachable { .. }));
    }
}
