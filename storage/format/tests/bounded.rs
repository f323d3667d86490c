//! Whatever the bytes, reading them gives a value or an error and takes memory in proportion to the input or
//! to the bound given, never to what a length field claims. An allocator that counts holds this.
//!
//! Zstd allocates outside Rust's allocator and is only held to the bound on its output.
#![allow(clippy::unwrap_used)]

mod counting;

use bytes::Bytes;
use counting::peak_of;
use penstock_format::{
    Batch, BatchBuilder, BatchHeader, Compression, ControlRecord, NewRecord, Records, ValidateRules,
    split_batches, validate,
};
use proptest::prelude::*;

/// Bound on decompressed bytes in these tests.
const OUTPUT_MAX: usize = 64 * 1024;
/// Inflate's window and tables, the same for any input.
const CODEC_STATE: usize = 96 * 1024;

/// Puts `bytes` through everything that reads.
fn read_all(bytes: &Bytes) {
    let rules = ValidateRules { decompressed_bytes_max: OUTPUT_MAX, ..ValidateRules::default() };
    let _ = BatchHeader::parse(bytes);
    let _ = split_batches(bytes, 16);
    let Ok((mut batch, _)) = Batch::parse(bytes) else { return };
    batch.header.crc = batch.compute_crc();
    let _ = validate(&batch, &rules, 1_700_000_000_000);
    let Ok(records) = Records::open(&batch, OUTPUT_MAX) else { return };
    for record in records.iter().map_while(Result::ok) {
        let _ = ControlRecord::parse(&record);
        let _ = record.headers.count();
    }
}

fn check(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let bytes = Bytes::from(bytes);
    let peak = peak_of(|| read_all(&bytes));
    // Twice the output: a vector that doubles holds its old half while it grows. A rejected record costs
    // its error of 40 bytes and has at least 7 bytes of input.
    let allowed = 64 * bytes.len() + 3 * OUTPUT_MAX + CODEC_STATE;
    prop_assert!(peak <= allowed, "{peak} bytes held for {} bytes of input", bytes.len());
    Ok(())
}

fn batch(values: &[Vec<u8>], compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new().compression(compression, None);
    for value in values {
        let headers = [("header", Some(&value[..])), ("none", None)];
        let key = Some(&b"key"[..]);
        builder.append(&NewRecord { timestamp: 5, key, value: Some(value), headers: &headers }).unwrap();
    }
    builder.finish().unwrap().to_bytes().to_vec()
}

fn compressions() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn records_come_back_from_every_codec(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        compression in compressions(),
    ) {
        let (batch, _) = Batch::parse(&Bytes::from(batch(&values, compression))).unwrap();
        prop_assert!(batch.crc_ok());
        let records = Records::open(&batch, 1 << 20).unwrap();
        let found = records.iter().map(|record| record.unwrap().value.unwrap().to_vec()).collect::<Vec<_>>();
        prop_assert_eq!(found, values);
    }

    #[test]
    fn every_truncation(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..4),
        compression in compressions(),
    ) {
        let whole = batch(&values, compression);
        for cut in 0..whole.len() {
            check(whole[..cut].to_vec())?;
            // The same with a length field that fits, so that what is inside gets read.
            if cut >= 61 {
                let mut fitting = whole[..cut].to_vec();
                fitting[8..12].copy_from_slice(&(cut as i32 - 12).to_be_bytes());
                check(fitting)?;
            }
        }
    }

    #[test]
    fn mutations(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..10),
        compression in compressions(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = batch(&values, compression);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check(bytes)?;
    }

    #[test]
    fn garbage(bytes in prop::collection::vec(any::<u8>(), 0..200), id in 0u8..8) {
        check(bytes.clone())?;
        let header = BatchHeader { attributes: i16::from(id), record_count: i32::MAX, ..BatchHeader::default() };
        check(Batch::seal(header, Bytes::from(bytes)).unwrap().to_bytes().to_vec())?;
    }
}
