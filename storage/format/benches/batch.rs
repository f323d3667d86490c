//! What a leader does to every batch: parse the header, check the crc, validate.

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use penstock_format::{Batch, BatchBuilder, Compression, NewRecord, ValidateRules, codec, validate};

const NOW: i64 = 1_700_000_000_000;
const RECORDS: usize = 64;

fn main() {
    divan::main();
}

/// A batch of 64 KiB and 64 records of little repetition.
fn batch(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new().compression(compression, None);
    let mut state = 1u64;
    for index in 0..RECORDS {
        let value = (0..1012u32)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                b'a' + ((state >> 59) as u8 & 15)
            })
            .collect::<Vec<u8>>();
        let timestamp = NOW + index as i64;
        let record = NewRecord { timestamp, value: Some(&value), ..NewRecord::default() };
        builder.append(&record).expect("fits");
    }
    builder.finish().expect("fits").to_bytes()
}

#[divan::bench]
fn parse_crc_validate(bencher: divan::Bencher) {
    let bytes = batch(Compression::None);
    let rules = ValidateRules::default();
    bencher.counter(BytesCount::new(bytes.len())).counter(ItemsCount::new(RECORDS)).bench(|| {
        let (batch, _) = Batch::parse(divan::black_box(&bytes)).expect("whole");
        validate(&batch, &rules, NOW).expect("good")
    });
}

#[divan::bench]
fn crc_alone(bencher: divan::Bencher) {
    let (batch, _) = Batch::parse(&batch(Compression::None)).expect("whole");
    bencher.counter(BytesCount::new(batch.len())).bench(|| divan::black_box(&batch).compute_crc());
}

#[divan::bench]
fn records_alone(bencher: divan::Bencher) {
    let (batch, _) = Batch::parse(&batch(Compression::None)).expect("whole");
    let records = penstock_format::Records::open(&batch, 0).expect("plain");
    bencher
        .counter(ItemsCount::new(RECORDS))
        .bench(|| divan::black_box(&records).iter().map(|record| record.expect("good").timestamp).max());
}

#[divan::bench]
fn log_append_time_patch(bencher: divan::Bencher) {
    let (batch, _) = Batch::parse(&batch(Compression::None)).expect("whole");
    let mut now_ms = NOW;
    bencher.with_inputs(|| batch.clone()).bench_local_values(|mut batch| {
        now_ms += 1;
        batch.set_log_append_time(now_ms);
        batch
    });
}

#[divan::bench(args = Compression::ALL)]
fn validate_compressed(bencher: divan::Bencher, compression: Compression) {
    let (batch, _) = Batch::parse(&batch(compression)).expect("whole");
    let rules = ValidateRules::default();
    bencher
        .counter(ItemsCount::new(RECORDS))
        .bench(|| validate(divan::black_box(&batch), &rules, NOW).expect("good"));
}

#[divan::bench(args = Compression::ALL)]
fn compress(bencher: divan::Bencher, compression: Compression) {
    let (batch, _) = Batch::parse(&batch(Compression::None)).expect("whole");
    bencher
        .counter(BytesCount::new(batch.body.len()))
        .bench(|| codec::compress(compression, divan::black_box(&batch.body), None).expect("compresses"));
}
