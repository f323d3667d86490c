//! Malformed records one by one; well-formed ones are tested in `tests/`.

use super::*;
use crate::builder::{BatchBuilder, NewRecord};

fn records_of(body: &[u8], record_count: i32) -> Result<usize, RecordsError> {
    let header = BatchHeader { record_count, ..BatchHeader::default() };
    let batch = Batch::seal(header, Bytes::copy_from_slice(body)).unwrap();
    Records::open(&batch, 1 << 16)?.iter().try_fold(0, |count, record| record.map(|_| count + 1))
}

fn fault(body: &[u8]) -> RecordFault {
    match records_of(body, 1) {
        Err(RecordsError::Record { index: 0, fault }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_fault_is_told_apart() {
    // Length 6 (zigzag 12), attributes, two deltas, no key, no value, no headers.
    let good = [12, 0, 0, 0, 1, 1, 0];
    assert_eq!(records_of(&good, 1), Ok(1));
    assert_eq!(fault(&good[..6]), RecordFault::Truncated);
    assert_eq!(fault(&[]), RecordFault::Truncated);
    assert_eq!(fault(&[1]), RecordFault::Truncated, "negative length");
    assert_eq!(fault(&[0xff; 6]), RecordFault::Truncated, "varint without an end");
    assert_eq!(fault(&[0xff, 0xff, 0xff, 0xff, 0xff, 1]), RecordFault::Varint);
    assert_eq!(fault(&[14, 0, 0, 0, 1, 1, 0, 0]), RecordFault::Size);
    assert_eq!(fault(&[12, 0, 0, 0, 1, 1, 1]), RecordFault::HeaderCount, "negative");
    assert_eq!(fault(&[12, 0, 0, 0, 1, 1, 2]), RecordFault::HeaderCount, "beyond the bytes");
    assert_eq!(fault(&[16, 0, 0, 0, 1, 1, 2, 1, 1]), RecordFault::HeaderKey);
    assert_eq!(fault(&[12, 0, 0, 0, 8, 1, 0]), RecordFault::Truncated, "key beyond the record");
}

#[test]
fn counts_must_fit_the_bytes() {
    let good = [12, 0, 0, 0, 1, 1, 0];
    assert_eq!(records_of(&good, 0), Err(RecordsError::Trailing { bytes: 7 }));
    assert_eq!(records_of(&good, -1), Err(RecordsError::Count(-1)));
    let missing = RecordsError::Record { index: 1, fault: RecordFault::Truncated };
    assert_eq!(records_of(&good, 2), Err(missing));
    assert_eq!(records_of(&good, i32::MAX), Err(missing));
}

#[test]
fn keys_and_values_are_shared_not_copied() {
    let mut builder = BatchBuilder::new();
    builder.append(&NewRecord { value: Some(b"shared"), ..NewRecord::default() }).unwrap();
    let batch = builder.finish().unwrap();
    let records = Records::open(&batch, 0).unwrap();
    let value = records.iter().next().unwrap().unwrap().value.unwrap();
    let shared = records.share(value);
    assert_eq!(shared, "shared");
    assert!(batch.body.as_ptr_range().contains(&shared.as_ptr()));
}
