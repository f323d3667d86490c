//! Lookups against a walk over all batches; the file format against its golden bytes.

use proptest::prelude::*;

use super::*;

#[test]
fn an_index_goes_on_with_one_of_later_batches() {
    let batch = |n: u64| AppendedBatch {
        base_offset: n as i64,
        position: 4096 + n * 1000,
        len: 1000,
        max_timestamp: if n == 3 { 99 } else { n as i64 },
    };
    let mut index = SegmentIndex::new(0, 4096);
    (0..10).for_each(|n| index.note(&batch(n), 1500));
    let mut tail = SegmentIndex::new(0, 4096 + 20_000);
    (20..30).for_each(|n| tail.note(&batch(n), 1500));
    index.join(&tail);
    assert_eq!(index.floor_of_offset(9).map(|found| found.base_offset), Some(8));
    assert_eq!(
        index.floor_of_offset(21).map(|found| found.base_offset),
        Some(8),
        "of the gap nothing is known"
    );
    assert_eq!(index.floor_of_offset(29).map(|found| found.base_offset), Some(28));
    assert_eq!(index.floor_of_timestamp(100).map(|found| found.base_offset), Some(28));
    assert_eq!(index.floor_of_timestamp(99).map(|found| found.base_offset), Some(2));
    index.note(&batch(30), 1500);
    assert_eq!(index.floor_of_offset(30).map(|found| found.base_offset), Some(30));
}

const START: u64 = 4096;

/// An index over batches of `(records, len, timestamp)`, with the batches and the offset after them.
fn indexed(shapes: &[(i64, u64, i64)], interval_bytes: u32) -> (SegmentIndex, Vec<AppendedBatch>) {
    let mut index = SegmentIndex::new(1000, START);
    let mut batches = Vec::new();
    let (mut base_offset, mut position) = (1000, START);
    for &(records, len, max_timestamp) in shapes {
        let batch = AppendedBatch { base_offset, position, len, max_timestamp };
        index.note(&batch, interval_bytes);
        batches.push(batch);
        base_offset += records;
        position += len;
    }
    (index, batches)
}

fn identity(index: &SegmentIndex, life: u64) -> SegmentIdentity {
    SegmentIdentity { base_offset: 1000, life, end_position: index.end_position }
}

#[test]
fn entries_come_every_interval() {
    let (index, batches) = indexed(&[(10, 100, 5); 100], 1000);
    assert_eq!(index.len(), 9, "one after each 1,100 bytes");
    assert_eq!(index.floor_of_offset(1000), None);
    assert_eq!(index.floor_of_offset(999), None);
    let first = IndexedBatch { base_offset: batches[11].base_offset, position: batches[11].position };
    assert_eq!(index.floor_of_offset(batches[11].base_offset), Some(first));
    assert_eq!(index.floor_of_offset(batches[11].base_offset - 1), None);
    assert_eq!(index.floor_of_offset(i64::MAX).unwrap().position, START + 9900);
}

/// An index that is thinned over and over while its segment grows once lost all entries of the segment's older part.
#[test]
fn thinning_leaves_no_part_without_entries() {
    const ENTRIES_AT_MOST: usize = 64;
    let mut index = SegmentIndex::new(0, START);
    let end = START + 10_000 * 100;
    for (base_offset, position) in (0..).zip((START..end).step_by(100)) {
        index.note(&AppendedBatch { base_offset, position, len: 100, max_timestamp: 1 }, 100);
        if index.len() > ENTRIES_AT_MOST {
            index.thin();
        }
    }
    let positions = index.batches().map(|batch| batch.position);
    let positions: Vec<u64> = std::iter::once(START).chain(positions).chain([end]).collect();
    let largest_gap = positions.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    let mean_gap_max = (end - START) / (ENTRIES_AT_MOST as u64 / 2);
    assert!(largest_gap <= 2 * mean_gap_max, "{largest_gap} of {mean_gap_max}: {positions:?}");
}

#[test]
fn offsets_and_positions_beyond_32_bits_are_left_out() {
    let mut index = SegmentIndex::new(0, START);
    let far = AppendedBatch { base_offset: 1 << 33, position: 1 << 33, len: 100, max_timestamp: 7 };
    index.note(&far, 0);
    assert!(index.is_empty());
    assert_eq!(index.max_timestamp, 7);
}

#[test]
fn golden_file() {
    let (index, _) = indexed(&[(10, 3000, 5), (1, 3000, 9), (1, 3000, -1), (7, 200, 8), (1, 5000, 20)], 4096);
    let bytes = index.encode(3);
    let golden = include_str!("../../tests/golden/index-v1.hex").split_whitespace().collect::<String>();
    assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), golden);
    assert_eq!(SegmentIndex::decode(&bytes, identity(&index, 3), START), Ok(index));
}

#[test]
fn damaged_foreign_and_newer_files_are_refused() {
    let (index, _) = indexed(&[(10, 3000, 5); 10], 4096);
    let bytes = index.encode(3);
    let segment = identity(&index, 3);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        assert!(SegmentIndex::decode(&flipped, segment, START).is_err(), "byte {at}");
        assert_eq!(
            SegmentIndex::decode(&bytes[..at], segment, START),
            Err(IndexError::Damaged),
            "cut at {at}"
        );
    }
    for other in [
        SegmentIdentity { life: 4, ..segment },
        SegmentIdentity { base_offset: 0, ..segment },
        SegmentIdentity { end_position: segment.end_position + 1, ..segment },
    ] {
        assert_eq!(SegmentIndex::decode(&bytes, other, START), Err(IndexError::OtherSegment));
    }
    let mut newer = bytes;
    newer[4] = 2;
    assert_eq!(SegmentIndex::decode(&newer, segment, START), Err(IndexError::NewerVersion(2)));
}

proptest! {
    #[test]
    fn a_walk_from_the_floor_finds_what_a_walk_over_all_finds(
        shapes in prop::collection::vec((1i64..20, 61u64..3000, -1i64..50), 1..80),
        interval_bytes in 0u32..5000,
        thinned in 0..3,
        sought in (990i64..2600, -2i64..60),
    ) {
        let (mut index, mut batches) = indexed(&shapes, interval_bytes);
        for _ in 0..thinned {
            let before = index.len();
            index.thin();
            prop_assert!(index.len() <= before / 2 + 3, "{} of {before}", index.len());
            // Life goes on.
            let position = batches.last().map_or(START, |last| last.position + last.len);
            let base_offset = batches.last().map_or(1000, |last| last.base_offset + 1);
            let batch = AppendedBatch { base_offset, position, len: 500, max_timestamp: 30 };
            index.note(&batch, interval_bytes);
            batches.push(batch);
        }
        let (offset, timestamp) = sought;
        let position = index.floor_of_offset(offset).map_or(START, |floor| floor.position);
        let holder = batches.iter().rev().find(|batch| batch.base_offset <= offset);
        if let Some(holder) = holder {
            prop_assert!(position <= holder.position);
            prop_assert!(batches.iter().any(|batch| batch.position == position));
        }
        let position = index.floor_of_timestamp(timestamp).map_or(START, |floor| floor.position);
        if let Some(first) = batches.iter().find(|batch| batch.max_timestamp >= timestamp) {
            prop_assert!(position <= first.position, "{position} beyond {}", first.position);
        }
        let read = SegmentIndex::decode(&index.encode(1), identity(&index, 1), START).unwrap();
        prop_assert_eq!(read.entries, index.entries);
    }
}
