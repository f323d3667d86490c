//! What every generated message can do.

use crate::api::{ApiKey, Versions};
use crate::decode::{DecodeError, DecodeFault, Decoder};
use crate::encode::{EncodeError, Encoder};

/// A structure of the protocol: its fields in wire order. Generated; users call [`Message`].
pub trait Fields: Default + Sized {
    /// The fewest bytes that the structure takes on the wire in any version: it bounds counts of elements.
    const LEN_MIN: usize;

    /// Reads the fields that `version` carries; the others get their defaults.
    fn read_fields(decoder: &mut Decoder, version: i16) -> Result<Self, DecodeError>;

    /// Writes the fields that `version` carries. A field that it lacks must be ignorable or at its default.
    fn write_fields(&self, encoder: &mut Encoder, version: i16) -> Result<(), EncodeError>;
}

/// A whole message: a request, a response, a header, or a structure that is stored or sent inside of another.
pub trait Message: Fields + Clone + std::fmt::Debug + PartialEq {
    /// The message's name, for example `FetchRequest`.
    const NAME: &'static str;
    /// The API key of a request or response, the number of a metadata record, -1 for all others.
    const API_KEY: i16;
    /// The versions that can be read and written.
    const VERSIONS: Versions;
    /// The first version in the flexible form (compact lengths, tagged fields), if there is one.
    const FLEXIBLE_FROM: Option<i16>;

    /// Decodes a message body. Bytes after it are left to the caller (see [`Decoder::finish`]).
    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(version) {
            return Err(decoder.fault(DecodeFault::VersionUnknown { message: Self::NAME, version }));
        }
        Self::read_fields(decoder, version)
    }

    /// Appends the message body to `encoder`. After an error the encoder holds a torn message: drop it.
    fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(version) {
            return Err(EncodeError::VersionUnknown { message: Self::NAME, version });
        }
        self.write_fields(encoder, version)
    }

    /// Whether `version` has the flexible form.
    fn is_flexible(version: i16) -> bool {
        Self::FLEXIBLE_FROM.is_some_and(|from| version >= from)
    }
}

/// A request, which knows what answers it.
pub trait Request: Message {
    /// The message that answers.
    type Response: Message;
    /// The API that the request belongs to.
    const API: ApiKey;
}
