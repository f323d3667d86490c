//! Frames: a 4-byte length, a header, a message.
//!
//! A frame is cut from the byte stream by [`frame_len`]; [`RequestFrame::parse`] reads the header of a request and leaves
//! the body for [`RequestFrame::decode`]. [`encode_response`] and [`encode_request`] give whole frames as segments.

use bytes::Bytes;

use crate::api::ApiKey;
use crate::decode::{DecodeError, Decoder};
use crate::encode::{EncodeError, Encoder};
use crate::message::{Fields, Message, Request};
use crate::messages::{RequestHeader, ResponseHeader};
use crate::wire_string::WireString;

mod foreign;

pub use foreign::{Foreign, sniff};

/// Bytes of the length in front of each frame. The length counts what follows it.
pub const LENGTH_LEN: usize = 4;

/// The shortest frame: API key, version, correlation id.
pub const REQUEST_LEN_MIN: usize = 8;

/// Why the bytes of a connection are not a frame that may be read. The connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative or below the shortest header.
    #[error("a frame length of {0} is not valid")]
    LengthInvalid(i32),
    /// The length is above the limit (`socket.request.max.bytes`).
    #[error("a frame of {len} bytes is above the limit of {max}")]
    TooLarge {
        /// Bytes announced.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The header names an API that we do not know; nothing is known of its header either.
    #[error("no API has the key {0}")]
    ApiUnknown(i16),
    /// The header cannot be read.
    #[error("the request header is malformed: {0}")]
    Header(#[from] DecodeError),
}

/// The length of the frame whose first bytes these are, without the prefix itself; `None` until the prefix is whole.
pub fn frame_len(prefix: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = prefix.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
    let length = i32::from_be_bytes(*prefix);
    match usize::try_from(length) {
        Ok(len) if len > max => Err(FrameError::TooLarge { len, max }),
        Ok(len) if len >= REQUEST_LEN_MIN => Ok(Some(len)),
        _ => Err(FrameError::LengthInvalid(length)),
    }
}

/// A request whose header was read and whose body was not.
#[derive(Clone, Debug)]
pub struct RequestFrame {
    /// Which API.
    pub api: ApiKey,
    /// Which version; not necessarily a valid one (see [`RequestFrame::is_version_valid`]).
    pub version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<WireString>,
    /// The body, sliced from the frame.
    pub body: Bytes,
}

impl RequestFrame {
    /// Reads the header of a frame (without its length prefix).
    pub fn parse(frame: Bytes) -> Result<RequestFrame, FrameError> {
        let mut decoder = Decoder::new(frame);
        let [key, version] = decoder.peek()?;
        let api = ApiKey::from_code(key).ok_or(FrameError::ApiUnknown(key))?;
        let header = RequestHeader::read_fields(&mut decoder, api.request_header_version(version))?;
        Ok(RequestFrame {
            api,
            version,
            correlation_id: header.correlation_id,
            client_id: header.client_id,
            body: decoder.into_rest(),
        })
    }

    /// Whether the schema knows the version. If it does not, only `ApiVersions` can be answered (error 35, in version 0).
    #[must_use]
    pub fn is_version_valid(&self) -> bool {
        self.api.versions().contains(self.version)
    }

    /// Decodes the body as request `R`. Bytes left over are ignored, as Apache Kafka ignores them: librdkafka 2.16 sends
    /// three too many when it asks for the metadata of all topics.
    ///
    /// # Panics
    /// If `R` is not the request of this frame's API: the caller dispatches on `api`.
    pub fn decode<R: Request>(&self) -> Result<R, DecodeError> {
        assert_eq!(self.api, R::API, "a request must be decoded as what it is");
        let mut decoder = Decoder::new(self.body.clone());
        R::decode(&mut decoder, self.version)
    }
}

/// A response as segments, length prefix and header included. Slices of records are among the segments, uncopied.
pub fn encode_response<R: Message>(
    correlation_id: i32,
    api: ApiKey,
    version: i16,
    response: &R,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut encoder = Encoder::with_capacity(256);
    encoder.i32(0);
    let header = ResponseHeader { correlation_id };
    header.encode(&mut encoder, api.response_header_version(version))?;
    response.encode(&mut encoder, version)?;
    finish_frame(encoder)
}

/// A request as segments, length prefix and header included.
pub fn encode_request<R: Request>(
    correlation_id: i32,
    client_id: Option<&WireString>,
    version: i16,
    request: &R,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut encoder = Encoder::with_capacity(256);
    encoder.i32(0);
    let header = RequestHeader {
        request_api_key: R::API.code(),
        request_api_version: version,
        correlation_id,
        client_id: client_id.cloned(),
    };
    header.encode(&mut encoder, R::API.request_header_version(version))?;
    request.encode(&mut encoder, version)?;
    finish_frame(encoder)
}

/// Decodes a response frame (without its length prefix): the correlation id and the message.
pub fn decode_response<R: Request>(frame: Bytes, version: i16) -> Result<(i32, R::Response), DecodeError> {
    let mut decoder = Decoder::new(frame);
    let header = ResponseHeader::decode(&mut decoder, R::API.response_header_version(version))?;
    let response = R::Response::decode(&mut decoder, version)?;
    decoder.finish()?;
    Ok((header.correlation_id, response))
}

fn finish_frame(mut encoder: Encoder) -> Result<Vec<Bytes>, EncodeError> {
    let len = encoder.len() - LENGTH_LEN;
    encoder.set_first_i32(i32::try_from(len).map_err(|_| EncodeError::TooLong { len })?);
    Ok(encoder.finish())
}

#[cfg(test)]
mod tests;
