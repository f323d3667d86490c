//! Arbitrary bytes as compressed data of each codec, and through each codec and back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_format::{Compression, codec};

const BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    for compression in Compression::ALL {
        if let Ok(plain) = codec::decompress(compression, data, BYTES_MAX) {
            assert!(plain.len() <= BYTES_MAX);
        }
        let packed = codec::compress(compression, data, None).expect("compresses");
        assert_eq!(codec::decompress(compression, &packed, data.len()).expect("own output"), data);
    }
});
