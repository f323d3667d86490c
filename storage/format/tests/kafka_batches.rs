//! Batches written by Apache Kafka: every field, every record, the crc, and back to the same bytes.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use penstock_format::{
    Batch, BatchBuilder, BatchHeader, Compression, ControlRecord, FilterRules, Filtered, NewRecord, Records,
    TimestampType, filter, needs_codec, recompress, split_batches,
};

const DATA: &str = include_str!("data/batches.txt");
const BYTES_MAX: usize = 1 << 16;

/// A batch of the data file and what the file says of it.
struct Sample {
    name: &'static str,
    bytes: Bytes,
    header: BatchHeader,
    records: Vec<Vec<&'static str>>,
}

fn samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    for line in DATA.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split('\t');
        match (fields.next().unwrap(), samples.last_mut()) {
            ("batch", _) => samples.push(Sample {
                name: fields.next().unwrap(),
                bytes: Bytes::from(unhex(fields.next().unwrap())),
                header: BatchHeader::default(),
                records: Vec::new(),
            }),
            ("header", Some(sample)) => {
                sample.header = header(&fields.collect::<Vec<_>>(), sample.bytes.len())
            }
            ("record", Some(sample)) => sample.records.push(fields.collect()),
            (other, _) => panic!("unknown line {other}"),
        }
    }
    assert_eq!(samples.len(), 18);
    samples
}

fn header(fields: &[&str], len: usize) -> BatchHeader {
    let number = |at: usize| fields[at].parse::<i64>().unwrap();
    BatchHeader {
        base_offset: number(0),
        batch_length: len as i32 - 12,
        partition_leader_epoch: number(1) as i32,
        magic: 2,
        crc: u32::from_str_radix(fields[2], 16).unwrap(),
        attributes: number(3) as i16,
        last_offset_delta: number(4) as i32,
        base_timestamp: number(5),
        max_timestamp: number(6),
        producer_id: number(7),
        producer_epoch: number(8) as i16,
        base_sequence: number(9) as i32,
        record_count: number(10) as i32,
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn bytes_of(field: &str) -> Option<Vec<u8>> {
    match field.split_at(field.len().min(2)) {
        ("-", "") => None,
        ("s:", text) => Some(text.as_bytes().to_vec()),
        ("x:", hex) => Some(unhex(hex)),
        _ => panic!("bad field {field}"),
    }
}

fn check_records(batch: &Batch, sample: &Sample) {
    let records = Records::open(batch, BYTES_MAX).unwrap();
    let found = records.iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(found.len(), sample.records.len(), "{}", sample.name);
    for (record, fields) in found.iter().zip(&sample.records) {
        let mut said = vec![record.offset.to_string(), record.timestamp.to_string()];
        let parts = fields[2..].iter().map(|field| bytes_of(field)).collect::<Vec<_>>();
        let mut read = vec![record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec)];
        for (key, value) in record.headers {
            read.push(Some(key.to_vec()));
            read.push(value.map(<[u8]>::to_vec));
        }
        assert_eq!(read, parts, "{}", sample.name);
        said.extend(fields[..2].iter().map(ToString::to_string));
        assert_eq!(said[..2], said[2..], "{}", sample.name);
    }
}

#[test]
fn every_field_and_record_is_read() {
    for sample in samples() {
        let (batch, consumed) = Batch::parse(&sample.bytes).unwrap();
        assert_eq!(consumed, sample.bytes.len(), "{}", sample.name);
        assert_eq!(batch.header, sample.header, "{}", sample.name);
        assert!(batch.crc_ok(), "{}", sample.name);
        assert_eq!(batch.to_bytes(), sample.bytes, "{}", sample.name);
        check_records(&batch, &sample);
    }
}

#[test]
fn uncompressed_batches_are_rewritten_byte_for_byte() {
    let mut rewritten = 0;
    for sample in samples() {
        let (batch, _) = Batch::parse(&sample.bytes).unwrap();
        if batch.header.compression() != Ok(Compression::None) || batch.header.record_count == 0 {
            continue;
        }
        let mut builder = BatchBuilder::from_header(&batch.header);
        for record in &Records::open(&batch, BYTES_MAX).unwrap() {
            let record = record.unwrap();
            let headers = record
                .headers
                .map(|(key, value)| (std::str::from_utf8(key).unwrap(), value))
                .collect::<Vec<_>>();
            let delta = (record.offset - batch.header.base_offset) as i32;
            let timestamp = match batch.header.timestamp_type() {
                TimestampType::CreateTime => record.timestamp,
                TimestampType::LogAppendTime => batch.header.base_timestamp,
            };
            let (key, value) = (record.key, record.value);
            builder.append_at(delta, &NewRecord { timestamp, key, value, headers: &headers }).unwrap();
        }
        let mut built = builder.finish().unwrap();
        let max_timestamp = batch.header.max_timestamp;
        built.patch_header(|header| header.max_timestamp = max_timestamp);
        assert_eq!(built.to_bytes(), sample.bytes, "{}", sample.name);
        rewritten += 1;
    }
    assert_eq!(rewritten, 13);
}

#[test]
fn every_codec_becomes_every_other() {
    for sample in samples() {
        let (batch, _) = Batch::parse(&sample.bytes).unwrap();
        for target in Compression::ALL {
            let changed = recompress(&batch, target, None, BYTES_MAX).unwrap();
            assert_eq!(changed.header.compression(), Ok(target));
            assert!(changed.crc_ok());
            check_records(&changed, &sample);
        }
        let plain = batch.header.compression() == Ok(Compression::None);
        assert_eq!(needs_codec(&batch, Default::default()), !plain);
    }
}

#[test]
fn the_commit_marker_is_read_and_written() {
    let samples = samples();
    let sample = samples.iter().find(|sample| sample.name == "commit-marker").unwrap();
    let (batch, _) = Batch::parse(&sample.bytes).unwrap();
    let records = Records::open(&batch, BYTES_MAX).unwrap();
    let record = records.iter().next().unwrap().unwrap();
    let read = ControlRecord::parse(&record).unwrap();
    assert_eq!(read, ControlRecord::EndTransaction { committed: true, coordinator_epoch: 11 });
    let marker = penstock_format::EndTransactionMarker {
        producer_id: batch.header.producer_id,
        producer_epoch: batch.header.producer_epoch,
        coordinator_epoch: 11,
        committed: true,
        timestamp: record.timestamp,
    };
    let mut written = marker.to_batch().unwrap();
    written.header.partition_leader_epoch = batch.header.partition_leader_epoch;
    assert_eq!(written.to_bytes(), sample.bytes);
}

#[test]
fn a_run_of_batches_is_split() {
    let samples = samples();
    let all = samples.iter().flat_map(|sample| sample.bytes.to_vec()).collect::<Vec<_>>();
    let batches = split_batches(&Bytes::from(all), samples.len()).unwrap();
    for (batch, sample) in batches.iter().zip(&samples) {
        assert_eq!(batch.header, sample.header, "{}", sample.name);
    }
}

#[test]
fn what_cleaning_leaves_is_what_kafka_leaves() {
    const HORIZON_MS: i64 = 1_700_000_500_000 + 86_400_000;
    let samples = samples();
    let mut compared = 0;
    for line in include_str!("data/filtered.txt").lines().filter(|line| !line.is_empty()) {
        let [name, kept, empty, marks, left] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        let sample = samples.iter().find(|sample| sample.name == name).unwrap();
        let (batch, _) = Batch::parse(&sample.bytes).unwrap();
        let rules = FilterRules {
            keep_empty: empty == "empty",
            marks_nothing: marks == "marks-nothing",
            delete_horizon_ms: HORIZON_MS,
            decompressed_bytes_max: BYTES_MAX,
        };
        let mut letters = kept.chars();
        let found = filter(&batch, &rules, |_| letters.next() == Some('k')).unwrap();
        match (found, left) {
            (Filtered::Nothing, "-") => {}
            (Filtered::Whole, "=") => {}
            (Filtered::Empty(found), _) => {
                let expected = if left == "=" { sample.bytes.clone() } else { Bytes::from(unhex(left)) };
                assert_eq!(found.to_bytes(), expected, "{line}");
            }
            (Filtered::Rebuilt(found), _) if found.header.compression() == Ok(Compression::None) => {
                assert_eq!(found.to_bytes(), unhex(left), "{line}");
            }
            (Filtered::Rebuilt(found), _) => {
                let (expected, _) = Batch::parse(&Bytes::from(unhex(left))).unwrap();
                let opened = |batch: &Batch| Records::open(batch, BYTES_MAX).unwrap().bytes().clone();
                assert_eq!(opened(&found), opened(&expected), "{line}");
                assert!(found.crc_ok());
                let (batch_length, crc) = (expected.header.batch_length, expected.header.crc);
                assert_eq!(BatchHeader { batch_length, crc, ..found.header }, expected.header, "{line}");
            }
            (found, _) => panic!("{line}: found {found:?}"),
        }
        compared += 1;
    }
    assert_eq!(compared, 74);
}
