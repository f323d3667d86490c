//! Kafka wire messages, generated from schema facts, with bounded decoding.
//!
//! - [`messages`]: a structure per request, response, header and record, made by `build.rs` from
//!   `schema/*.schema` (the notation is described in `schema/README.md`).
//! - [`Decoder`] and [`Encoder`]: from and to bytes. Decoding slices strings, bytes and records out of the
//!   buffer that arrived and allocates no more than the input justifies. Encoding moves record slices in as
//!   segments of their own and never copies them.
//! - [`ApiKey`]: names, valid versions and header versions of the APIs.
//! - [`frame`]: length-prefixed frames, request and response headers, foreign protocols.
//! - [`error`]: the error codes of the protocol.
//! - [`ServedVersions`], [`partitioner`]: what clients have to agree on with brokers and with each other.
//!
//! Bytes from outside lead to a value or to an error, never to a panic.

mod api;
mod decode;
mod encode;
pub mod error;
pub mod frame;
mod limits;
mod message;
pub mod messages;
pub mod partitioner;
mod records;
mod served;
mod uuid;
mod wire_string;

pub use api::{ApiFacts, ApiKey, Versions};
pub use decode::{DecodeError, DecodeFault, Decoder, Scalar, Tags};
pub use encode::{EncodeError, Encoder};
pub use error::ErrorCode;
pub use limits::Limits;
pub use message::{Fields, Message, Request};
pub use records::Records;
pub use served::ServedVersions;
pub use uuid::Uuid;
pub use wire_string::{NotUtf8, WireString};
