//! Framing of batches; contents are tested in `tests/kafka_batches.rs`.

use super::*;
use crate::builder::{BatchBuilder, NewRecord};

fn batch(value: &'static [u8]) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.append(&NewRecord { timestamp: 7, value: Some(value), ..NewRecord::default() }).unwrap();
    builder.finish().unwrap()
}

#[test]
fn parse_takes_one_batch_and_leaves_the_rest() {
    let first = batch(b"one");
    let mut bytes = first.to_bytes().to_vec();
    bytes.extend_from_slice(b"tail");
    let bytes = Bytes::from(bytes);
    let (parsed, consumed) = Batch::parse(&bytes).unwrap();
    assert_eq!(parsed, first);
    assert_eq!(consumed, bytes.len() - 4);
    assert_eq!(parsed.body.as_ptr(), bytes[BATCH_HEADER_LEN..].as_ptr(), "the body is a slice, not a copy");
}

#[test]
fn log_append_time_patches_the_crc_without_reading_the_body() {
    let mut patched = batch(b"some value of some length");
    patched.set_log_append_time(1_700_000_000_000);
    assert!(patched.crc_ok());
    assert_eq!(patched.header.max_timestamp, 1_700_000_000_000);
    assert_eq!(patched.header.timestamp_type(), TimestampType::LogAppendTime);
    patched.header.crc ^= 1;
    patched.set_log_append_time(1_700_000_000_001);
    assert!(!patched.crc_ok(), "a wrong crc must stay wrong");
}

#[test]
fn offset_and_leader_epoch_are_outside_the_crc() {
    let mut patched = batch(b"value");
    patched.header.base_offset = 1 << 40;
    patched.header.partition_leader_epoch = 9;
    assert!(patched.crc_ok());
}

#[test]
fn split_is_bounded_and_refuses_a_partial_batch() {
    let mut bytes = batch(b"one").to_bytes().to_vec();
    bytes.extend_from_slice(&batch(b"two").to_bytes());
    let whole = Bytes::from(bytes);
    assert_eq!(split_batches(&whole, 2).unwrap().len(), 2);
    assert_eq!(split_batches(&whole, 1), Err(BatchError::TooManyBatches { max: 1 }));
    assert_eq!(split_batches(&Bytes::new(), 1), Ok(vec![]));
    for cut in 1..whole.len() {
        let parts = split_batches(&whole.slice(..cut), 2);
        assert_eq!(parts.is_ok(), cut == batch(b"one").len(), "cut at {cut}");
    }
}

#[test]
fn old_message_formats_are_named_even_when_shorter_than_a_header() {
    let mut old = vec![0u8; 34];
    old[11] = 22;
    old[16] = 1;
    assert_eq!(BatchHeader::parse(&old), Err(BatchError::UnsupportedMagic(1)));
}
