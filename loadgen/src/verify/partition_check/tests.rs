//! Each violation is planted and found; logs without one pass.

use super::*;
use penstock_format::{BatchBuilder, NewRecord};

const SIZE: usize = 200;
const RUN: u64 = 0xabcd;

/// A batch of the records `sequences`, at `base_offset`.
fn batch(base_offset: i64, sequences: std::ops::Range<u64>) -> Batch {
    let mut builder = BatchBuilder::new().base_offset(base_offset);
    let mut value = Vec::new();
    for sequence in sequences {
        let name = RecordName { run_id: RUN, partition: 0, sequence };
        name.write_value(SIZE, &mut value);
        builder
            .append(&NewRecord { key: Some(&name.key()), value: Some(&value), ..NewRecord::default() })
            .unwrap();
    }
    builder.finish().unwrap()
}

/// A run that was told of `acks`: first and last sequence, offset of the first.
fn run(delivery: Delivery, acks: &[(u64, u64, i64)]) -> Run {
    let mut run = Run::new(RUN, "t", 1, SIZE, delivery);
    for (first, last, offset) in acks {
        run.acked.entry(0).or_default().add(*first, *last, *offset);
    }
    run
}

fn found(run: Run, batches: &[Batch]) -> Found {
    let end = batches.last().map_or(0, |batch| batch.header.next_offset());
    let mut check = PartitionCheck::new(0, &[run], 0, end);
    for batch in batches {
        check.batch(batch);
    }
    assert_eq!(check.next_offset(), None);
    check.finish()
}

fn kinds(found: &Found) -> Vec<(&'static str, u64)> {
    found.violations.counts().iter().map(|(kind, count)| (*kind, *count)).collect()
}

#[test]
fn a_whole_log_passes_and_unacknowledged_records_may_be_there() {
    let found = found(
        run(Delivery::Exactly, &[(0, 4, 0), (5, 9, -1)]),
        &[batch(0, 0..5), batch(5, 5..10), batch(10, 10..12)],
    );
    assert_eq!(kinds(&found), []);
    assert_eq!((found.records, found.unacknowledged, found.foreign), (12, 2, 0));
}

#[test]
fn missing_at_the_end_and_in_the_middle() {
    let acks = &[(0, 9, 0)];
    assert_eq!(kinds(&found(run(Delivery::Exactly, acks), &[batch(0, 0..5)])), [("missing", 5)]);
    let gap = found(run(Delivery::Exactly, &[(0, 9, -1)]), &[batch(0, 0..3), batch(3, 5..10)]);
    assert_eq!(kinds(&gap), [("missing", 2), ("out of order", 1)]);
    assert_eq!(
        gap.violations.listed()[1],
        Violation::Missing { partition: 0, run_id: RUN, first: 3, last: 4 }
    );
}

#[test]
fn duplicates_count_only_against_exactly_once() {
    let log = [batch(0, 0..5), batch(5, 0..5), batch(10, 5..10)];
    let acks = &[(0, 4, 5), (5, 9, 10)];
    assert_eq!(kinds(&found(run(Delivery::Exactly, acks), &log)), [("duplicated", 5)]);
    let at_least = found(run(Delivery::AtLeast, acks), &log);
    assert_eq!((kinds(&at_least), at_least.repeated), (vec![], 5));
}

#[test]
fn order_matters() {
    let swapped = found(run(Delivery::AtLeast, &[(0, 9, -1)]), &[batch(0, 5..10), batch(5, 0..5)]);
    // Sequence 5 where 0 was next, then 0 to 4 where 10 was next.
    assert_eq!(kinds(&swapped), [("out of order", 6)]);
}

#[test]
fn altered_bytes_are_found_with_and_without_a_wrong_crc() {
    let whole = batch(0, 0..3);
    let mut bytes = whole.to_bytes().to_vec();
    let last = bytes.len() - 5;
    bytes[last] ^= 1;
    let mut altered = Batch::parse(&bytes.into()).unwrap().0;
    let acks = &[(0, 2, 0)];
    let found_crc = found(run(Delivery::Exactly, acks), &[altered.clone()]);
    assert_eq!(kinds(&found_crc), [("altered", 1), ("missing", 3)]);
    altered.header.crc = altered.compute_crc();
    assert_eq!(kinds(&found(run(Delivery::Exactly, acks), &[altered])), [("altered", 1), ("missing", 1)]);
}

#[test]
fn acknowledged_offsets_hold_what_was_acknowledged() {
    let displaced = found(run(Delivery::Exactly, &[(0, 4, 10)]), &[batch(0, 0..5), batch(5, 5..15)]);
    assert_eq!(kinds(&displaced), [("displaced", 5)]);
    let jump = found(run(Delivery::Exactly, &[(0, 4, 0)]), &[batch(0, 0..5), batch(6, 5..6)]);
    assert_eq!(kinds(&jump), [("displaced", 1)]);
}

#[test]
fn records_of_others_are_counted_apart() {
    let mut builder = BatchBuilder::new();
    builder.append(&NewRecord { value: Some(b"hello"), ..NewRecord::default() }).unwrap();
    let foreign = builder.finish().unwrap();
    let found = found(run(Delivery::Exactly, &[]), &[foreign]);
    assert_eq!((kinds(&found), found.foreign, found.records), (vec![], 1, 0));
}

#[test]
fn a_log_that_was_cut_begins_inside_a_batch() {
    let mut check = PartitionCheck::new(0, &[run(Delivery::AtLeast, &[(3, 4, 3)])], 3, 5);
    check.batch(&batch(0, 0..5));
    let found = check.finish();
    // Sequence 3 is the first that is left: that it does not begin at 0 is the cut, which is reported as such.
    assert_eq!(kinds(&found), [("out of order", 1)]);
    assert_eq!(found.records, 2);
}
