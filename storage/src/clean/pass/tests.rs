use penstock_format::{BatchBuilder, NewRecord};

use super::*;

const NOW: i64 = 1_700_000_000_000;

/// A batch of records: key (none where empty), value (a tombstone where none).
fn batch(base_offset: i64, records: &[(&str, Option<&str>)]) -> Batch {
    let mut builder = BatchBuilder::new().base_offset(base_offset);
    for (key, value) in records {
        let key = (!key.is_empty()).then_some(key.as_bytes());
        let value = value.map(str::as_bytes);
        builder.append(&NewRecord { timestamp: NOW, key, value, headers: &[] }).unwrap();
    }
    builder.finish().unwrap()
}

fn placed(batches: &[Batch]) -> Vec<Placed> {
    let mut position = DATA_START;
    let place = |batch: &Batch| {
        position += batch.len() as u64;
        (position - batch.len() as u64, batch.clone())
    };
    batches.iter().map(place).collect()
}

/// What is read of a segment with these batches, of leader epoch 0, from its start on.
fn piece(batches: &[Batch], end_offset: i64) -> Piece {
    let bytes: Vec<u8> = batches.iter().flat_map(|batch| batch.to_bytes().to_vec()).collect();
    let limit = (DATA_START + bytes.len() as u64, end_offset);
    let mut epochs = LeaderEpochs::new();
    epochs.assign(0, 0);
    Piece { bytes: bytes.into(), walk: Walk::at(DATA_START, 0, limit), limit, epochs, start_offset: 0 }
}

fn indexing(from: i64, keys: u64) -> Indexing {
    Indexing {
        map: KeyMap::new(keys, keys as usize * 48, 50, [7, 8]),
        from,
        limit: i64::MAX,
        latest: from - 1,
        transactions: None,
        decompressed_bytes_max: 1 << 20,
        records: 0,
    }
}

fn filtering(indexing: Indexing, now_ms: i64) -> Filtering {
    Filtering {
        latest: indexing.latest,
        map: indexing.map,
        end: i64::MAX,
        now_ms,
        delete_retention_ms: 1000,
        decompressed_bytes_max: 1 << 20,
        last_written: HashMap::new(),
        transactions: Transactions::default(),
        output: Output::new(0, 4096),
        dropped: 0,
    }
}

/// Offsets and keys of what is left.
fn left(filtering: &mut Filtering, batches: &[Batch]) -> Vec<(i64, String)> {
    filtering.output = Output::new(0, 4096);
    let (step, written) = filtering.batches(&placed(batches)).unwrap();
    assert_eq!(step, Step { done: batches.len(), end: StepEnd::All });
    assert_eq!(written, None, "less than a block");
    let end = filtering.output.end();
    let Some(Blocks { data, position }) = filtering.output.take_rest() else { return Vec::new() };
    assert_eq!((position, filtering.output.end()), (DATA_START, end));
    let data = data.slice(..(end - DATA_START) as usize);
    let mut found = Vec::new();
    for batch in penstock_format::split_batches(&data, 100).unwrap() {
        for record in &Records::open(&batch, 1 << 20).unwrap() {
            let record = record.unwrap();
            found.push((record.offset, String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned()));
        }
    }
    found
}

fn pairs(found: &[(i64, String)]) -> Vec<(i64, &str)> {
    found.iter().map(|(offset, key)| (*offset, key.as_str())).collect()
}

#[test]
fn the_newest_of_each_key_stays_and_what_has_no_key_goes() {
    let batches = [
        batch(0, &[("a", Some("1")), ("b", Some("1")), ("", Some("x"))]),
        batch(3, &[("a", Some("2")), ("c", None)]),
    ];
    let mut indexing = indexing(0, 10);
    let (step, _) = indexing.batches(&placed(&batches)).unwrap();
    assert_eq!((step.end, indexing.latest, indexing.map.len()), (StepEnd::All, 4, 3));
    let mut first = filtering(indexing, NOW);
    assert_eq!(pairs(&left(&mut first, &batches)), [(1, "b"), (3, "a"), (4, "c")]);
    assert_eq!((first.dropped, first.output.horizon_ms), (2, NOW + 1000));
}

#[test]
fn tombstones_go_when_their_horizon_passed() {
    let batches =
        [batch(0, &[("a", Some("1")), ("b", Some("1"))]), batch(2, &[("a", None), ("c", Some("1"))])];
    let mut with_keys = indexing(0, 10);
    with_keys.batches(&placed(&batches)).unwrap();
    let mut first = filtering(with_keys, NOW);
    first.output = Output::new(0, 4096);
    first.batches(&placed(&batches)).unwrap();
    let end = (first.output.end() - DATA_START) as usize;
    let cleaned = first.output.take_rest().unwrap().data.slice(..end);
    let cleaned = penstock_format::split_batches(&cleaned, 10).unwrap();
    let later = |now_ms| filtering(Indexing { latest: 3, ..indexing(4, 10) }, now_ms);
    let mut early = later(NOW + 999);
    assert_eq!(pairs(&left(&mut early, &cleaned)), [(1, "b"), (2, "a"), (3, "c")]);
    assert_eq!(early.output.horizon_ms, NOW + 1000);
    let mut passed = later(NOW + 1000);
    assert_eq!(pairs(&left(&mut passed, &cleaned)), [(1, "b"), (3, "c")]);
    assert_eq!(passed.output.horizon_ms, -1, "nothing waits for it any more");
}

#[test]
fn a_full_map_ends_the_range_and_what_is_behind_stays() {
    let batches =
        [batch(0, &[("a", Some("1")), ("b", Some("1"))]), batch(2, &[("a", Some("2")), ("c", Some("1"))])];
    let mut indexing = indexing(0, 1);
    indexing.map = KeyMap::new(100, 24 * 4, 50, [1, 1]);
    let (step, _) = indexing.batches(&placed(&batches)).unwrap();
    assert_eq!((step.end, step.done, indexing.latest), (StepEnd::Full, 1, 1));
    let mut filtering = filtering(indexing, NOW);
    // The newer `a` was known already, and is behind the end itself.
    assert_eq!(pairs(&left(&mut filtering, &batches)), [(1, "b"), (2, "a"), (3, "c")]);
}

#[test]
fn the_last_batches_of_producers_and_of_the_range_stay_empty() {
    let named = |base_offset: i64, producer_id: i64, key: &str| {
        let mut builder = BatchBuilder::new().base_offset(base_offset).producer(producer_id, 0, 5);
        let record = NewRecord { timestamp: NOW, key: Some(key.as_bytes()), value: Some(b"v"), headers: &[] };
        builder.append(&record).unwrap();
        builder.finish().unwrap()
    };
    let batches = [named(0, 1, "a"), named(1, 1, "a"), named(2, 2, "a"), named(3, 3, "a")];
    let newest = [batch(4, &[("a", Some("9"))])];
    let mut indexing = indexing(0, 10);
    indexing.batches(&placed(&batches)).unwrap();
    indexing.batches(&placed(&newest)).unwrap();
    let mut filtering = filtering(indexing, NOW);
    let last = |offset| LastWritten { offset: Some(offset), epoch: 0 };
    filtering.last_written = [(1, last(1)), (2, last(9))].into();
    filtering.end = 4;
    assert_eq!(pairs(&left(&mut filtering, &batches)), []);
    assert_eq!(filtering.output.end() - DATA_START, 2 * 61, "of producer 1, and the last of all");
    assert_eq!((filtering.output.max_timestamp, filtering.output.first_timestamp), ((-1, -1), NOW));
}

#[test]
fn every_flipped_bit_of_a_batch_is_noticed_before_anything_is_believed() {
    // Keys repeat, so that a batch believed at another offset would be taken for an older or a newer one.
    let batches = [
        batch(0, &[("a", Some("1")), ("b", Some("1"))]),
        batch(2, &[("b", Some("2"))]),
        batch(3, &[("a", Some("2")), ("a", None)]),
        batch(5, &[("a", Some("3"))]),
    ];
    let (whole, cut) = piece(&batches, 6).batches().unwrap();
    assert!(cut.is_none());
    assert_eq!(whole, placed(&batches));
    let mut position = DATA_START;
    for batch in &batches {
        for bit in 0..batch.len() * 8 {
            let mut flipped = piece(&batches, 6);
            let mut bytes = flipped.bytes.to_vec();
            bytes[(position - DATA_START) as usize + bit / 8] ^= 1 << (bit % 8);
            flipped.bytes = bytes.into();
            let read = flipped.batches();
            let Ok((found, cut)) = read else {
                assert_eq!(read.unwrap_err().at, position, "bit {bit} of the batch at {position}");
                continue;
            };
            // Its length may go beyond the piece, but not beyond the segment, where nothing follows it.
            panic!("bit {bit} of the batch at {position}: {found:?}, {cut:?}");
        }
        position += batch.len() as u64;
    }
}

#[test]
fn what_a_piece_does_not_have_whole_is_left_to_the_next() {
    let batches =
        [batch(0, &[("a", Some("1"))]), batch(1, &[("b", Some("1"))]), batch(4, &[("c", Some("1"))])];
    let ends: Vec<u64> = placed(&batches).iter().map(|(at, batch)| at + batch.len() as u64).collect();
    for len in 0..(ends[2] - DATA_START) as usize {
        let mut cut_off = piece(&batches, 6);
        cut_off.bytes = cut_off.bytes.slice(..len);
        let (found, cut) = cut_off.batches().unwrap();
        // The one behind the gap is told only with what follows it.
        let whole = ends.iter().take_while(|end| **end <= DATA_START + len as u64).count().min(2);
        assert_eq!(found, placed(&batches)[..whole], "length {len}");
        let next = placed(&batches)[whole].0;
        assert_eq!((cut_off.walk.position, cut_off.walk.due), (next, whole as i64), "length {len}");
        let known = (len as u64 + DATA_START).saturating_sub(next) >= BATCH_HEADER_LEN as u64;
        assert_eq!(cut.map(|cut| cut.position), known.then(|| ends[whole]), "length {len}");
        if let Some(cut) = cut {
            let head = batches.get(whole + 1).map(Batch::to_bytes).unwrap_or_default();
            assert!(cut_off.may_end(&cut, &head), "length {len}");
            let mut elsewhere = cut;
            elsewhere.position -= 1;
            assert!(!cut_off.may_end(&elsewhere, &head[..head.len().min(60)]), "length {len}");
        }
    }
}
