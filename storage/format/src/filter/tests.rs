use proptest::prelude::*;

use super::*;
use crate::builder::{BatchBuilder, NewRecord};
use crate::header::TimestampType;

const BYTES_MAX: usize = 1 << 20;
const HORIZON_MS: i64 = 1_800_000_000_000;

/// A record as it is compared: offset, timestamp, key, value, headers.
type Plain = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn records_of(batch: &Batch) -> Vec<Plain> {
    let records = Records::open(batch, BYTES_MAX).unwrap();
    let plain = |record: RecordRef<'_>| {
        let headers = record.headers.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
        let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
        (record.offset, record.timestamp, key, value, headers.collect())
    };
    records.iter().map(|record| plain(record.unwrap())).collect()
}

fn rules(keep_empty: bool) -> FilterRules {
    FilterRules {
        keep_empty,
        marks_nothing: false,
        delete_horizon_ms: HORIZON_MS,
        decompressed_bytes_max: BYTES_MAX,
    }
}

/// Records by timestamp, length of the value (none for a tombstone), headers, and whether it is kept.
fn records() -> impl Strategy<Value = Vec<(i64, Option<u8>, u8, bool)>> {
    let record = (0..2_000_000_000_000i64, any::<Option<u8>>(), 0..3u8, any::<bool>());
    prop::collection::vec(record, 1..30)
}

proptest! {
    #[test]
    fn what_is_kept_stays_as_it_was(
        records in records(), codec in 0..5usize, stride in 1..3i32, append_time: bool, keep_empty: bool,
    ) {
        let mut builder = BatchBuilder::new()
            .base_offset(1000)
            .leader_epoch(7)
            .producer(5, 2, 100)
            .compression(Compression::ALL[codec], None);
        for (at, (timestamp, value, headers, _)) in records.iter().enumerate() {
            let value = value.map(|len| vec![len; usize::from(len)]);
            let headers = vec![("h", Some(&b"v"[..])); usize::from(*headers)];
            let key = [at as u8];
            builder.append_at(at as i32 * stride, &NewRecord {
                timestamp: *timestamp, key: Some(&key), value: value.as_deref(), headers: &headers,
            }).unwrap();
        }
        let mut batch = builder.finish().unwrap();
        if append_time {
            batch.set_log_append_time(1_700_000_000_000);
        }
        let mut marks = records.iter().map(|(.., kept)| *kept);
        let expected: Vec<_> = records_of(&batch).into_iter().zip(&records)
            .filter(|(_, (.., kept))| *kept).map(|(record, _)| record).collect();
        let left = match filter(&batch, &rules(keep_empty), |_| marks.next().unwrap()).unwrap() {
            Filtered::Nothing => {
                prop_assert!(!keep_empty && expected.is_empty());
                return Ok(());
            }
            Filtered::Whole => batch.clone(),
            Filtered::Rebuilt(left) => left,
            Filtered::Empty(left) => {
                prop_assert!(keep_empty && left.body.is_empty());
                left
            }
        };
        prop_assert_eq!(records_of(&left), &expected[..]);
        prop_assert!(left.crc_ok());
        prop_assert_eq!(left.header.last_offset(), batch.header.last_offset());
        prop_assert_eq!(left.header.last_sequence(), batch.header.last_sequence());
        prop_assert_eq!(left.header.partition_leader_epoch, 7);
        prop_assert_eq!(left.header.timestamp_type() == TimestampType::LogAppendTime, append_time);
        let newest = expected.iter().map(|(_, timestamp, ..)| *timestamp).max();
        prop_assert_eq!(left.header.max_timestamp, newest.unwrap_or(batch.header.max_timestamp));
        let has_tombstone = expected.iter().any(|(.., value, _)| value.is_none());
        prop_assert_eq!(left.header.has_delete_horizon(), has_tombstone);
        if has_tombstone {
            prop_assert_eq!(left.header.base_timestamp, HORIZON_MS);
        }
        // Nothing more to do the second time, also at a later one.
        let again = filter(&left, &FilterRules { delete_horizon_ms: HORIZON_MS + 1, ..rules(keep_empty) }, |_| true);
        let again = again.unwrap();
        let same = matches!(&again, Filtered::Whole) || matches!(&again, Filtered::Empty(empty) if *empty == left);
        prop_assert!(same, "{again:?}");
    }
}

#[test]
fn records_that_cannot_be_read_are_an_error() {
    let mut builder = BatchBuilder::new().compression(Compression::Zstd, None);
    builder.append(&NewRecord { value: Some(&[0; 1000]), ..NewRecord::default() }).unwrap();
    let batch = builder.finish().unwrap();
    let tight = FilterRules { decompressed_bytes_max: 100, ..rules(false) };
    let found = filter(&batch, &tight, |_| true);
    assert_eq!(found, Err(RecordsError::Codec(CodecError::TooLarge { max: 100 })));
    let more = BatchHeader { record_count: 2, ..batch.header };
    let broken = Batch::seal(more, batch.body).unwrap();
    assert!(filter(&broken, &rules(false), |_| false).is_err());
}
