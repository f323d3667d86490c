//! Sequences as producers send them, and the table against a naive twin.

use penstock_format::BatchHeader;
use proptest::prelude::*;

use super::*;

const DAY_MS: i64 = 86_400_000;

/// `count` records of a producer from `base_sequence`, appended at `base_offset`.
fn header(producer: (i64, i16), base_sequence: i32, count: i32, base_offset: i64) -> BatchHeader {
    BatchHeader {
        base_offset,
        last_offset_delta: count - 1,
        record_count: count,
        producer_id: producer.0,
        producer_epoch: producer.1,
        base_sequence,
        max_timestamp: 1000 + base_offset,
        ..BatchHeader::default()
    }
}

fn table_with(headers: &[BatchHeader]) -> ProducerTable {
    let mut table = ProducerTable::new(100);
    for header in headers {
        assert_eq!(table.check(header), Ok(ProducerCheck::Append));
        table.record(header, 1);
    }
    table
}

fn out_of_order(expected: i32, found: i32) -> Result<ProducerCheck, ProducerError> {
    Err(ProducerError::OutOfOrderSequence { producer_id: 7, expected, found })
}

#[test]
fn the_last_five_batches_are_known_again() {
    let sent = (0..6).map(|n| header((7, 0), n * 10, 10, i64::from(n) * 100)).collect::<Vec<_>>();
    let table = table_with(&sent);
    for again in &sent[1..] {
        let first_time = ProducedBatch::of(again);
        let resent = BatchHeader { base_offset: 0, ..*again };
        assert_eq!(table.check(&resent), Ok(ProducerCheck::Duplicate(first_time)));
        assert_eq!(first_time.base_offset(), again.base_offset);
    }
    assert_eq!(table.check(&sent[0]), out_of_order(60, 0), "the sixth back is forgotten");
    assert_eq!(
        table.check(&header((7, 0), 50, 5, 0)),
        out_of_order(60, 50),
        "part of a batch is no duplicate"
    );
    assert_eq!(table.check(&header((7, 0), 61, 1, 0)), out_of_order(60, 61), "a gap");
}

#[test]
fn sequences_wrap_to_zero() {
    let last = header((7, 0), i32::MAX - 1, 2, 0);
    let across = header((7, 0), 0, 3, 2);
    let table = table_with(&[last, across]);
    assert!(matches!(table.check(&last), Ok(ProducerCheck::Duplicate(_))));
    let straddling = header((8, 0), i32::MAX, 3, 5);
    let table = table_with(&[straddling, header((8, 0), 2, 1, 8)]);
    let again = table.check(&straddling);
    assert_eq!(again, Ok(ProducerCheck::Duplicate(ProducedBatch::of(&straddling))));
}

#[test]
fn epochs_fence_and_begin_at_zero() {
    let table = table_with(&[header((7, 3), 0, 5, 0)]);
    assert_eq!(
        table.check(&header((7, 2), 5, 1, 0)),
        Err(ProducerError::InvalidEpoch { producer_id: 7, current: 3, found: 2 })
    );
    assert_eq!(table.check(&header((7, 4), 5, 1, 0)), out_of_order(0, 5));
    assert_eq!(table.check(&header((7, 4), 0, 1, 0)), Ok(ProducerCheck::Append));
    let table = table_with(&[header((7, 3), 0, 5, 0), header((7, 4), 0, 5, 5)]);
    let old = header((7, 3), 0, 5, 0);
    assert!(
        matches!(table.check(&old), Err(ProducerError::InvalidEpoch { .. })),
        "not a duplicate of epoch 4"
    );
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    let table = ProducerTable::new(1);
    assert_eq!(table.check(&header((7, 3), 1234, 5, 0)), Ok(ProducerCheck::Append));
    assert_eq!(table.check(&header((-1, -1), -1, 5, 0)), Ok(ProducerCheck::Append));
}

#[test]
fn batches_without_a_producer_leave_no_trace() {
    let mut table = ProducerTable::new(1);
    table.record(&header((-1, -1), -1, 5, 0), 1);
    assert!(table.is_empty());
}

#[test]
fn idle_producers_expire_by_when_they_were_seen() {
    let mut table = ProducerTable::new(10);
    table.record(&header((1, 0), 0, 1, 0), 0);
    table.record(&header((2, 0), 0, 1, 1), 1);
    table.expire(DAY_MS, DAY_MS);
    assert_eq!(table.iter().map(|(id, _)| id).collect::<Vec<_>>(), [2]);
    assert_eq!(table.check(&header((1, 0), 77, 1, 2)), Ok(ProducerCheck::Append));
}

#[test]
fn open_transactions_hold_a_producer_until_the_marker() {
    let mut data = header((1, 0), 0, 1, 40);
    data.set_transactional(true);
    let mut table = ProducerTable::new(1);
    table.record(&data, 0);
    table.record(&BatchHeader { base_offset: 41, base_sequence: 1, ..data }, 0);
    assert_eq!(table.iter().next().unwrap().1.transaction_first_offset, Some(40));
    table.expire(DAY_MS, DAY_MS);
    assert_eq!(table.check(&header((2, 0), 0, 1, 0)), Err(ProducerError::TooMany { producers: 1 }));
    let mut marker = header((1, 0), -1, 1, 42);
    marker.set_control(true);
    marker.set_transactional(true);
    assert_eq!(table.check_epoch(&marker), Ok(()));
    table.record(&marker, 0);
    assert_eq!(table.check(&header((2, 0), 0, 1, 0)), Ok(ProducerCheck::Append));
    assert_eq!(table.check(&header((1, 0), 2, 1, 43)), Ok(ProducerCheck::Append), "sequences go on");
    table.expire(DAY_MS, DAY_MS);
    assert!(table.is_empty());
}

#[test]
fn a_marker_of_a_new_epoch_fences_and_clears() {
    let mut table = table_with(&[header((7, 3), 0, 5, 0)]);
    let mut marker = header((7, 4), -1, 1, 5);
    marker.set_control(true);
    table.record(&marker, 1);
    assert!(matches!(table.check(&header((7, 3), 5, 1, 6)), Err(ProducerError::InvalidEpoch { .. })));
    assert_eq!(table.check(&header((7, 4), 5, 1, 6)), out_of_order(0, 5));
    assert_eq!(table.check(&header((7, 4), 0, 1, 6)), Ok(ProducerCheck::Append));
}

#[test]
fn at_the_bound_those_idle_for_longest_go() {
    let mut table = ProducerTable::new(32);
    for id in 0..33 {
        table.record(&header((id, 0), 0, 1, id), if id == 0 { 1000 } else { id });
    }
    assert_eq!(table.len(), 31, "two of 32 made room for one");
    let ids = table.iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids[..2], [0, 3], "1 and 2 went, 0 was seen lately");
}

#[test]
fn a_cut_below_known_batches_asks_for_a_rebuild() {
    let table = table_with(&[header((7, 0), 0, 10, 0), header((7, 0), 10, 10, 10)]);
    assert!(table.reaches(19) && table.reaches(5));
    assert!(!table.reaches(20));
}

/// Producer 1 wrote before the cut at 30 alone, 2 went on behind it, as did 3 and 4 within a transaction. What was before
/// the cut cannot be read, but for a batch of 3.
#[test]
fn a_cut_leaves_who_is_not_concerned_and_open_transactions() {
    let within = |mut header: BatchHeader| {
        header.set_transactional(true);
        header
    };
    let known = within(header((3, 0), 1, 1, 22));
    let mut uncut =
        table_with(&[header((1, 0), 0, 1, 0), header((2, 0), 0, 1, 1), within(header((3, 0), 0, 1, 2))]);
    for header in [known, within(header((4, 0), 0, 1, 23)), header((2, 0), 1, 1, 30)] {
        uncut.record(&header, 0);
    }
    for header in
        [within(header((3, 0), 2, 1, 31)), within(header((4, 0), 1, 1, 32)), within(header((5, 0), 0, 1, 33))]
    {
        uncut.record(&header, 0);
    }
    let mut table = table_with(&[known]);
    table.adopt(&uncut, 30);
    let open = |(id, producer): (i64, &Producer)| (id, producer.transaction_first_offset);
    assert_eq!(table.iter().map(open).collect::<Vec<_>>(), [(1, None), (3, Some(2)), (4, Some(23))]);
    assert!(matches!(table.check(&header((1, 0), 0, 1, 0)), Ok(ProducerCheck::Duplicate(_))));
    assert_eq!(table.check(&header((2, 0), 7, 1, 0)), Ok(ProducerCheck::Append), "it may begin anywhere");
    assert_eq!(table.check(&header((3, 0), 2, 1, 0)), Ok(ProducerCheck::Append));
    assert_eq!(table.check(&header((4, 0), 1, 1, 0)), Ok(ProducerCheck::Append));
}

#[test]
fn golden_snapshot() {
    let mut transactional = header((300, 2), 0, 3, 20);
    transactional.set_transactional(true);
    let table = table_with(&[header((7, 1), 5, 10, 0), header((7, 1), 15, 10, 10), transactional]);
    let bytes = table.encode(23);
    let golden = include_str!("../../tests/golden/producers-v1.hex").split_whitespace().collect::<String>();
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex, golden);
    assert_eq!(ProducerTable::decode(&bytes, 100), Ok((table, 23)));
}

#[test]
fn damaged_and_newer_snapshots_are_refused() {
    let bytes = table_with(&[header((7, 1), 5, 10, 0)]).encode(10);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        assert!(ProducerTable::decode(&flipped, 10).is_err(), "byte {at}");
        assert_eq!(ProducerTable::decode(&bytes[..at], 10), Err(SnapshotError::Damaged), "cut at {at}");
    }
    let mut newer = bytes;
    newer[4] = 2;
    assert_eq!(ProducerTable::decode(&newer, 10), Err(SnapshotError::NewerVersion(2)));
}

#[test]
fn a_smaller_bound_holds_when_a_snapshot_is_read() {
    let headers = (0..10).map(|id| header((id, 0), 0, 1, id)).collect::<Vec<_>>();
    let bytes = table_with(&headers).encode(10);
    let (table, _) = ProducerTable::decode(&bytes, 4).unwrap();
    assert!(table.len() <= 4, "{}", table.len());
}

/// The naive twin: every batch ever appended, newest last.
fn twin_check(appended: &[BatchHeader], header: &BatchHeader) -> Option<i64> {
    let mine = appended.iter().filter(|old| old.producer_id == header.producer_id).collect::<Vec<_>>();
    let recent =
        mine.iter().rev().take_while(|old| old.producer_epoch == mine[mine.len() - 1].producer_epoch);
    let recent = recent.take(BATCHES_KEPT).collect::<Vec<_>>();
    recent
        .iter()
        .find(|old| {
            (old.producer_epoch, old.base_sequence, old.record_count)
                == (header.producer_epoch, header.base_sequence, header.record_count)
        })
        .map(|old| old.base_offset)
}

proptest! {
    #[test]
    fn as_the_twin_says_also_after_a_snapshot(
        steps in prop::collection::vec((0i64..3, 0i16..3, 0i32..12, 1i32..4), 1..60),
        snapshot_every in 1usize..8,
    ) {
        let mut table = ProducerTable::new(3);
        let mut appended: Vec<BatchHeader> = Vec::new();
        let mut end = 0;
        for (step, (id, epoch, sequence, count)) in steps.into_iter().enumerate() {
            let batch = header((id, epoch), sequence, count, end);
            let last = appended.iter().rev().find(|old| old.producer_id == id);
            let follows = last.is_none_or(|last| match epoch.cmp(&last.producer_epoch) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => sequence == last.base_sequence + last.record_count,
                std::cmp::Ordering::Greater => sequence == 0,
            });
            match (table.check(&batch), twin_check(&appended, &batch)) {
                (Ok(ProducerCheck::Duplicate(first)), Some(offset)) => prop_assert_eq!(first.base_offset(), offset),
                (Ok(ProducerCheck::Append), None) => {
                    prop_assert!(follows);
                    table.record(&batch, 0);
                    appended.push(batch);
                    end = batch.next_offset();
                }
                (Err(_), None) => prop_assert!(!follows),
                (found, wanted) => prop_assert!(false, "{found:?} against {wanted:?}"),
            }
            if step % snapshot_every == 0 {
                let (read, read_end) = ProducerTable::decode(&table.encode(end), 3).unwrap();
                prop_assert_eq!(&read, &table);
                prop_assert_eq!(read_end, end);
            }
        }
        let mut replayed = ProducerTable::new(3);
        for batch in &appended {
            replayed.record(batch, 0);
        }
        prop_assert_eq!(replayed, table);
    }
}

/// What a capture gives: the table as it was at its beginning, whatever came between.
fn captured(mut table: ProducerTable, change: impl FnOnce(&mut ProducerTable)) {
    let before = table.encode(77);
    let twin = table.clone();
    table.begin_capture(77);
    change(&mut table);
    assert_eq!(table.end_capture(), before);
    assert_eq!(table.end_capture(), Vec::<u8>::new(), "it is over");
    let (decoded, end_offset) = ProducerTable::decode(&before, 100).unwrap();
    assert_eq!((decoded, end_offset), (twin, 77));
}

#[test]
fn a_capture_gives_the_table_as_it_was() {
    let table = || table_with(&[header((7, 0), 0, 5, 0), header((9, 3), 0, 5, 5)]);
    captured(table(), |_| {});
    captured(table(), |table| {
        table.record(&header((7, 0), 5, 5, 10), 2);
        table.record(&header((8, 0), 0, 5, 15), 2);
    });
    captured(table(), |table| table.expire(DAY_MS, 1));
    captured(table(), |table| assert_eq!(table.forget_idle(1), 1));
    captured(table(), |table| table.keep_seen(&[(9, 5)]));
    captured(table(), |table| table.replace(ProducerTable::new(1)));
    let mut none = ProducerTable::new(1);
    none.begin_capture(77);
    none.record(&header((7, 0), 0, 5, 0), 1);
    assert_eq!(none.end_capture(), Vec::<u8>::new(), "nobody was known");
}
