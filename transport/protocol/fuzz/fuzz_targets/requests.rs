//! Arbitrary bytes as a frame that arrives at a broker: header, then body. What decodes must encode, and come back.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use penstock_protocol::frame::{RequestFrame, sniff};
use penstock_protocol::{Decoder, Encoder, Message};

fuzz_target!(|data: &[u8]| {
    let _ = sniff(data);
    let Ok(frame) = RequestFrame::parse(Bytes::copy_from_slice(data)) else { return };
    let name = format!("{}Request", frame.api.name());
    round_trip(&name, &frame.body, frame.version);
});

fn check<M: Message>(body: &Bytes, version: i16) {
    let Ok(message) = M::decode(&mut Decoder::new(body.clone()), version) else { return };
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version).expect("what decodes, encodes");
    let mut decoder = Decoder::new(encoder.finish_contiguous());
    let again = M::decode(&mut decoder, version).expect("what was encoded, decodes");
    decoder.finish().expect("nothing is left over");
    // By their text: a float may be NaN, which equals nothing.
    assert_eq!(format!("{again:?}"), format!("{message:?}"));
}

macro_rules! by_name {
    ($($name:ident,)*) => {
        fn round_trip(name: &str, body: &Bytes, version: i16) {
            match name {
                $(stringify!($name) => check::<penstock_protocol::messages::$name>(body, version),)*
                _ => unreachable!("every API has its request"),
            }
        }
    };
}

penstock_protocol::for_each_message!(by_name);
