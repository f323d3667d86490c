//! Arbitrary bytes as a response that arrives at a client, or as a stored record: the first two bytes choose message and
//! version, the rest is the body. What decodes must encode, and come back.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use penstock_protocol::{Decoder, Encoder, Message};

fuzz_target!(|data: &[u8]| {
    let [message, version, body @ ..] = data else { return };
    CHECKS[*message as usize % CHECKS.len()](Bytes::copy_from_slice(body), i16::from(*version));
});

fn check<M: Message>(body: Bytes, version: i16) {
    if M::NAME.ends_with("Request") {
        return;
    }
    let version = M::VERSIONS.min + version % (M::VERSIONS.max - M::VERSIONS.min + 1);
    let Ok(message) = M::decode(&mut Decoder::new(body), version) else { return };
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version).expect("what decodes, encodes");
    let mut decoder = Decoder::new(encoder.finish_contiguous());
    let again = M::decode(&mut decoder, version).expect("what was encoded, decodes");
    decoder.finish().expect("nothing is left over");
    // By their text: a float may be NaN, which equals nothing.
    assert_eq!(format!("{again:?}"), format!("{message:?}"));
}

macro_rules! checks {
    ($($name:ident,)*) => {
        const CHECKS: &[fn(Bytes, i16)] = &[$(check::<penstock_protocol::messages::$name>,)*];
    };
}

penstock_protocol::for_each_message!(checks);
