//! Arbitrary bytes as a Produce request's records: split, validated, read, recompressed.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use penstock_format::{
    BatchHeader, Compression, ControlRecord, Origin, Records, ValidateRules, recompress, split_batches,
    validate,
};

const BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(header) = BatchHeader::parse(data) {
        assert_eq!(header.to_array(), data[..61]);
    }
    let Ok(batches) = split_batches(&bytes, 8) else { return };
    for mut batch in batches {
        // A fuzzer does not guess crcs; what lies behind them is of more interest.
        batch.header.crc = batch.compute_crc();
        for origin in [Origin::Client, Origin::Coordinator] {
            let rules =
                ValidateRules { origin, decompressed_bytes_max: BYTES_MAX, ..ValidateRules::default() };
            let Ok(validated) = validate(&batch, &rules, 1_700_000_000_000) else { continue };
            let mut stored = batch.clone();
            validated.apply(&mut stored);
            assert!(stored.crc_ok());
            let records = Records::open(&stored, BYTES_MAX).expect("validated");
            let count = records
                .iter()
                .map(|record| record.expect("validated"))
                .map(|r| ControlRecord::parse(&r))
                .count();
            assert_eq!(count, stored.header.record_count as usize);
            let plain = recompress(&stored, Compression::None, None, BYTES_MAX).expect("validated");
            assert_eq!(&plain.body, records.bytes());
        }
    }
});
