//! One connection: framing, version negotiation, a sending and a receiving half for pipelined requests.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use penstock_protocol::messages::ApiVersionsRequest;
use penstock_protocol::{Request, ServedVersions, WireString, frame};

use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, ClientError, check};

/// The largest answer taken: a fetch of 100 MiB with room. A broker that announces more is refused, not believed.
const FRAME_LEN_MAX: usize = 256 << 20;
/// Small answers are read many at once.
const READ_LEN: usize = 64 << 10;
/// Pieces of one vectored write.
const PIECES_MAX: usize = 64;

/// A connection, used for one request at a time; [`Connection::split`] it to pipeline.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
}

/// The sending half.
#[derive(Debug)]
pub struct Sender {
    half: OwnedWriteHalf,
    served: ServedVersions,
    client_id: WireString,
    next_correlation_id: i32,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

impl Connection {
    /// Connects to `host:port` and learns which versions the broker serves.
    pub async fn open(address: &str, client_id: &str) -> Result<Connection, ClientError> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| ClientError::Timeout { what: "connecting", after: CONNECT_TIMEOUT })?
            .map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {address}: {error}")))?;
        stream.set_nodelay(true)?;
        let (read_half, write_half) = stream.into_split();
        let mut connection = Connection {
            sender: Sender {
                half: write_half,
                served: ServedVersions::default(),
                client_id: WireString::from(client_id),
                next_correlation_id: 0,
            },
            receiver: Receiver { half: read_half, buffer: BytesMut::new() },
        };
        connection.negotiate().await?;
        Ok(connection)
    }

    /// Version 3 is the lowest that tells name and version of the client, and every broker since 2.4 serves it.
    async fn negotiate(&mut self) -> Result<(), ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: WireString::from_static("penstock-loadgen"),
            client_software_version: WireString::from_static(env!("CARGO_PKG_VERSION")),
            ..ApiVersionsRequest::default()
        };
        let response = self.call_version(&request, 3).await?;
        check(response.error_code, || "ApiVersions".to_owned())?;
        self.sender.served = ServedVersions::of(&response);
        Ok(())
    }

    /// Sends a request and waits for its answer.
    pub async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        let version = self.sender.version::<R>()?;
        self.call_version(request, version).await
    }

    /// Sends a request at a version that the caller has chosen, and waits for its answer.
    pub async fn call_version<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, ClientError> {
        let after = ANSWER_TIMEOUT;
        let answer = async {
            let (correlation_id, segments) = self.sender.encode(request, version)?;
            self.sender.write(segments).await?;
            let answer = self.receiver.frame().await?;
            let (answered, response) = frame::decode_response::<R>(answer, version)?;
            if answered != correlation_id {
                return Err(ClientError::Protocol(format!("answer {answered} to request {correlation_id}")));
            }
            Ok(response)
        };
        timeout(after, answer).await.map_err(|_| ClientError::Timeout { what: R::NAME, after })?
    }

    /// The version that both sides speak.
    pub fn version<R: Request>(&self) -> Result<i16, ClientError> {
        self.sender.version::<R>()
    }

    /// The two halves, to be used by two tasks.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

impl Sender {
    /// The highest version of `R` that both sides speak.
    pub fn version<R: Request>(&self) -> Result<i16, ClientError> {
        self.served.common(R::API).ok_or(ClientError::NoCommonVersion(R::API))
    }

    /// A correlation id that was not used yet.
    pub fn next_correlation_id(&mut self) -> i32 {
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        self.next_correlation_id
    }

    /// Encodes a request as a whole frame; record slices are not copied.
    pub fn encode<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<(i32, Vec<Bytes>), ClientError> {
        let correlation_id = self.next_correlation_id();
        let segments = frame::encode_request(correlation_id, Some(&self.client_id), version, request)?;
        Ok((correlation_id, segments))
    }

    /// Writes all of `segments`, in as few system calls as it can.
    pub async fn write(&mut self, segments: Vec<Bytes>) -> io::Result<()> {
        self.write_queue(&mut VecDeque::from(segments)).await
    }

    /// Writes all of `queue` and leaves it empty.
    pub async fn write_queue(&mut self, queue: &mut VecDeque<Bytes>) -> io::Result<()> {
        while !queue.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let mut count = 0;
            for (piece, bytes) in pieces.iter_mut().zip(queue.iter()) {
                *piece = IoSlice::new(bytes);
                count += 1;
            }
            let mut written = self.half.write_vectored(&pieces[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while let Some(front) = queue.front_mut() {
                if front.len() > written {
                    front.advance(written);
                    break;
                }
                written -= front.len();
                queue.pop_front();
            }
        }
        Ok(())
    }
}

impl Receiver {
    /// The next answer, without its length. Its memory is reused once the answer is dropped.
    pub async fn frame(&mut self) -> Result<Bytes, ClientError> {
        self.fill(4).await?;
        let mut prefix = [0; 4];
        prefix.copy_from_slice(&self.buffer[..4]);
        let len = usize::try_from(i32::from_be_bytes(prefix)).ok().filter(|len| *len <= FRAME_LEN_MAX);
        let Some(len) = len else {
            return Err(ClientError::Protocol(format!("an answer of {} bytes", i32::from_be_bytes(prefix))));
        };
        self.fill(4 + len).await?;
        self.buffer.advance(4);
        Ok(self.buffer.split_to(len).freeze())
    }

    /// Reads until at least `len` bytes are there.
    async fn fill(&mut self, len: usize) -> Result<(), ClientError> {
        while self.buffer.len() < len {
            let missing = len - self.buffer.len();
            if self.buffer.capacity() - self.buffer.len() < missing {
                self.buffer.reserve(missing + READ_LEN);
            }
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Err(
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection").into()
                );
            }
        }
        Ok(())
    }
}
