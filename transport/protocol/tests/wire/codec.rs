//! Every message behind one interface, found by name.

use bytes::Bytes;
use penstock_protocol::{DecodeError, Decoder, Encoder, Message, Versions};

/// What a body decoded to: its `Debug` text, and its bytes when encoded again.
pub(crate) struct Decoded {
    pub(crate) debug: String,
    pub(crate) again: Bytes,
}

pub(crate) struct Codec {
    pub(crate) name: &'static str,
    pub(crate) versions: Versions,
    /// Decodes a whole body, shows it, and encodes it again.
    pub(crate) decode: fn(Bytes, i16) -> Result<Decoded, DecodeError>,
    /// Decodes a whole body and drops it.
    pub(crate) check: fn(Bytes, i16) -> Result<(), DecodeError>,
}

impl Codec {
    const fn of<M: Message>() -> Codec {
        Codec { name: M::NAME, versions: M::VERSIONS, decode: decode::<M>, check: check::<M> }
    }

    pub(crate) fn named(name: &str) -> &'static Codec {
        match CODECS.iter().find(|codec| codec.name == name) {
            Some(codec) => codec,
            None => panic!("no message is called {name}"),
        }
    }
}

fn whole<M: Message>(body: Bytes, version: i16) -> Result<M, DecodeError> {
    let mut decoder = Decoder::new(body);
    let message = M::decode(&mut decoder, version)?;
    decoder.finish()?;
    Ok(message)
}

fn check<M: Message>(body: Bytes, version: i16) -> Result<(), DecodeError> {
    whole::<M>(body, version).map(drop)
}

/// What was decoded must encode in the same version, and that must decode to the same value again.
fn decode<M: Message>(body: Bytes, version: i16) -> Result<Decoded, DecodeError> {
    let message: M = whole(body, version)?;
    let mut encoder = Encoder::new();
    if let Err(error) = message.encode(&mut encoder, version) {
        panic!("{} {version} decodes but does not encode: {error}", M::NAME);
    }
    let len = encoder.len();
    let again = encoder.finish_contiguous();
    assert_eq!(again.len(), len);
    let twice: M = whole(again.clone(), version)?;
    let debug = format!("{message:?}");
    // Not `assert_eq!(message, twice)`: a mutated float may be NaN, which equals nothing.
    assert_eq!(debug, format!("{twice:?}"));
    Ok(Decoded { debug, again })
}

macro_rules! codecs {
    ($($name:ident,)*) => {
        pub(crate) const CODECS: &[Codec] = &[$(Codec::of::<penstock_protocol::messages::$name>(),)*];
    };
}

penstock_protocol::for_each_message!(codecs);
