//! One test per rule; each starts from a batch that passes.

use bytes::Bytes;

use super::*;
use crate::builder::{BatchBuilder, NewRecord};
use crate::recompress::{TargetCompression, prepare};

const NOW: i64 = 1_700_000_000_000;

fn batch(records: &[(i64, Option<&[u8]>)], compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new().compression(compression, None);
    for &(timestamp, key) in records {
        builder
            .append(&NewRecord { timestamp, key, value: Some(b"value"), headers: &[("h", None)] })
            .unwrap();
    }
    builder.finish().unwrap()
}

fn good() -> Batch {
    batch(&[(NOW, Some(b"a")), (NOW + 5, Some(b"b")), (NOW + 5, None), (NOW + 1, None)], Compression::None)
}

fn patched(change: impl FnOnce(&mut BatchHeader)) -> Batch {
    let mut batch = good();
    batch.patch_header(change);
    batch
}

fn refusal(batch: &Batch, rules: &ValidateRules) -> (ErrorKind, ValidateError) {
    let error = validate(batch, rules, NOW).unwrap_err();
    (error.kind(), error)
}

#[test]
fn a_good_batch_gives_its_first_largest_timestamp_in_every_codec() {
    for compression in Compression::ALL {
        let batch = batch(&[(NOW, None), (NOW + 5, None), (NOW + 5, None)], compression);
        let validated = validate(&batch, &ValidateRules::default(), NOW).unwrap();
        let wanted =
            Validated { max_timestamp: NOW + 5, max_timestamp_offset_delta: 1, log_append_time: false };
        assert_eq!(validated, wanted, "{}", compression.name());
    }
}

#[test]
fn a_wrong_max_timestamp_in_the_header_is_put_right() {
    let mut batch = patched(|header| header.max_timestamp = 7);
    let validated = validate(&batch, &ValidateRules::default(), NOW).unwrap();
    validated.apply(&mut batch);
    assert_eq!(batch, good());
}

#[test]
fn log_append_time_overrides_timestamps_without_looking_at_them() {
    let rules = ValidateRules { timestamp_type: TimestampType::LogAppendTime, ..ValidateRules::default() };
    let mut batch = batch(&[(5, None), (i64::MAX, None)], Compression::None);
    let validated = validate(&batch, &rules, NOW).unwrap();
    validated.apply(&mut batch);
    assert!(batch.crc_ok());
    assert_eq!(batch.header.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!((batch.header.max_timestamp, validated.max_timestamp_offset_delta), (NOW, 0));
}

#[test]
fn crc_and_size() {
    let rules = ValidateRules::default();
    let mut flipped = good();
    let mut body = flipped.body.to_vec();
    body[9] ^= 1;
    flipped.body = Bytes::from(body);
    assert_eq!(refusal(&flipped, &rules).0, ErrorKind::Corrupt);
    let len = good().len();
    assert!(validate(&good(), &ValidateRules { message_bytes_max: len, ..rules }, NOW).is_ok());
    let small = ValidateRules { message_bytes_max: len - 1, ..rules };
    assert_eq!(
        refusal(&good(), &small),
        (ErrorKind::TooLarge, ValidateError::TooLarge { len, max: len - 1 })
    );
    // Size is looked at first, as Kafka does, so that nobody pays for the crc of what is too large.
    assert_eq!(refusal(&flipped, &small).0, ErrorKind::TooLarge);
}

#[test]
fn client_headers() {
    type Change = fn(&mut BatchHeader);
    let changes: [(Change, &str); 12] = [
        (|h| h.base_offset = 1, "base offset"),
        (|h| h.last_offset_delta = 4, "delta above count"),
        (|h| h.last_offset_delta = -1, "negative delta"),
        (|h| h.record_count = 0, "no records"),
        (|h| h.record_count = 3, "count below delta"),
        (|h| h.set_control(true), "control"),
        (|h| h.set_transactional(true), "transaction without producer"),
        (|h| h.producer_id = 5, "producer without epoch"),
        (|h| (h.producer_id, h.producer_epoch) = (5, 0), "producer without sequence"),
        (|h| (h.producer_id, h.base_sequence) = (5, 0), "sequence without epoch"),
        (|h| h.producer_id = -2, "producer id below -1"),
        (|h| (h.last_offset_delta, h.record_count) = (4, 5), "one record too few"),
    ];
    for (change, name) in changes {
        assert_eq!(
            refusal(&patched(change), &ValidateRules::default()).0,
            ErrorKind::InvalidRecord,
            "{name}"
        );
    }
    let idempotent = patched(|h| (h.producer_id, h.producer_epoch, h.base_sequence) = (5, 0, 0));
    assert!(validate(&idempotent, &ValidateRules::default(), NOW).is_ok());
}

#[test]
fn coordinators_may_write_control_batches_at_any_offset() {
    let rules = ValidateRules { origin: Origin::Coordinator, ..ValidateRules::default() };
    let control = patched(|header| {
        header.set_control(true);
        header.base_offset = 7;
    });
    assert!(validate(&control, &rules, NOW).is_ok());
    // A fuzzer found that a negative count and no bytes passed for a batch of no records.
    let header = BatchHeader { record_count: -1, ..BatchHeader::default() };
    let negative = Batch::seal(header, Bytes::new()).unwrap();
    assert_eq!(refusal(&negative, &rules).0, ErrorKind::InvalidRecord);
}

#[test]
fn unknown_codecs_and_zstd_before_its_time() {
    let unknown = patched(|header| header.attributes |= 5);
    assert_eq!(refusal(&unknown, &ValidateRules::default()).0, ErrorKind::UnsupportedCompression);
    let rules = ValidateRules { zstd_allowed: false, ..ValidateRules::default() };
    let zstd = batch(&[(NOW, None)], Compression::Zstd);
    assert_eq!(refusal(&zstd, &rules), (ErrorKind::UnsupportedCompression, ValidateError::ZstdNotAllowed));
    assert!(validate(&batch(&[(NOW, None)], Compression::Gzip), &rules, NOW).is_ok());
}

#[test]
fn old_formats_are_told_apart_from_garbage() {
    assert_eq!(BatchError::UnsupportedMagic(1).kind(), ErrorKind::UnsupportedFormat);
    assert_eq!(BatchError::UnsupportedMagic(3).kind(), ErrorKind::Corrupt);
}

#[test]
fn compacted_topics_need_keys() {
    let rules = ValidateRules { compacted: true, ..ValidateRules::default() };
    let (kind, error) = refusal(&good(), &rules);
    let reject = |batch_index| RecordReject { batch_index, reason: RejectReason::NoKey };
    assert_eq!(kind, ErrorKind::InvalidRecord);
    let errors = vec![reject(2), reject(3)];
    assert_eq!(error, ValidateError::Rejected { count: 2, errors, timestamp: false });
}

#[test]
fn timestamps_must_lie_in_bounds_that_belong_to_them() {
    let rules = ValidateRules { before_max_ms: 10, after_max_ms: 5, ..ValidateRules::default() };
    let none = crate::header::NO_TIMESTAMP;
    for (timestamp, fits) in [
        (NOW - 10, true),
        (NOW - 11, false),
        (NOW + 5, true),
        (NOW + 6, false),
        (none, true),
        (i64::MIN, false),
    ] {
        let single = batch(&[(timestamp, None)], Compression::None);
        assert_eq!(validate(&single, &rules, NOW).is_ok(), fits, "{timestamp}");
    }
    // One bad timestamp makes the whole refusal one of timestamps, whatever else is wrong.
    let mixed = batch(&[(NOW, None), (NOW + 6, Some(b"k"))], Compression::None);
    let (kind, error) = refusal(&mixed, &ValidateRules { compacted: true, ..rules });
    assert_eq!(kind, ErrorKind::InvalidTimestamp);
    let reason = RejectReason::Timestamp { timestamp: NOW + 6, low: NOW - 10, high: NOW + 5 };
    let errors = vec![
        RecordReject { batch_index: 0, reason: RejectReason::NoKey },
        RecordReject { batch_index: 1, reason },
    ];
    assert_eq!(error, ValidateError::Rejected { count: 2, errors, timestamp: true });
}

#[test]
fn clients_may_not_claim_log_append_time() {
    let claimed = patched(|header| header.set_timestamp_type(TimestampType::LogAppendTime));
    assert_eq!(refusal(&claimed, &ValidateRules::default()).0, ErrorKind::InvalidTimestamp);
}

#[test]
fn offset_deltas_count_up_from_zero() {
    let mut builder = BatchBuilder::new();
    for delta in [0, 2] {
        builder.append_at(delta, &NewRecord { timestamp: NOW, ..NewRecord::default() }).unwrap();
    }
    let mut gap = builder.finish().unwrap();
    gap.patch_header(|header| header.last_offset_delta = 1);
    let (kind, error) = refusal(&gap, &ValidateRules::default());
    assert_eq!(kind, ErrorKind::InvalidRecord);
    assert_eq!(
        error.to_string(),
        "1 records rejected, the first: record 1: offset delta should be 1, but is 2"
    );
}

#[test]
fn rejected_records_are_counted_beyond_those_named() {
    let records = vec![(NOW, None); RECORD_ERRORS_MAX + 10];
    let rules = ValidateRules { compacted: true, ..ValidateRules::default() };
    match refusal(&batch(&records, Compression::None), &rules).1 {
        ValidateError::Rejected { count, errors, .. } => {
            assert_eq!((count, errors.len()), (RECORD_ERRORS_MAX + 10, RECORD_ERRORS_MAX));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_small_batch_may_not_blow_up() {
    let value = vec![0u8; 1 << 20];
    let rules = ValidateRules { decompressed_bytes_max: 1 << 19, ..ValidateRules::default() };
    for compression in [Compression::Gzip, Compression::Lz4, Compression::Snappy, Compression::Zstd] {
        let mut builder = BatchBuilder::new().compression(compression, None);
        builder.append(&NewRecord { timestamp: NOW, value: Some(&value), ..NewRecord::default() }).unwrap();
        let bomb = builder.finish().unwrap();
        assert_eq!(refusal(&bomb, &rules).0, ErrorKind::TooLarge, "{}", compression.name());
    }
}

#[test]
fn prepare_recompresses_where_the_topic_asks_for_it() {
    let rules = ValidateRules::default();
    for source in Compression::ALL {
        for target in Compression::ALL {
            let records = [(NOW, Some(&b"key"[..])), (NOW + 1, None)];
            let sent = batch(&records, source);
            let prepared =
                prepare(sent.clone(), &rules, TargetCompression::Codec(target, None), NOW).unwrap();
            assert_eq!(prepared.batch.header.compression(), Ok(target));
            assert_eq!(validate(&prepared.batch, &rules, NOW), Ok(prepared.validated));
            assert_eq!(source == target, prepared.batch == sent);
        }
        let sent = batch(&[(NOW, None)], source);
        assert_eq!(prepare(sent.clone(), &rules, TargetCompression::Producer, NOW).unwrap().batch, sent);
    }
}

#[test]
fn what_grows_in_recompression_meets_the_size_bound_again() {
    let mut builder = BatchBuilder::new().compression(Compression::Gzip, None);
    builder.append(&NewRecord { timestamp: NOW, value: Some(&[0; 5000]), ..NewRecord::default() }).unwrap();
    let rules = ValidateRules { message_bytes_max: 1000, ..ValidateRules::default() };
    let plain = TargetCompression::Codec(Compression::None, None);
    let error = prepare(builder.finish().unwrap(), &rules, plain, NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}
