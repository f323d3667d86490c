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

fn piece(batches: &[Batch]) -> Bytes {
    Bytes::from(batches.iter().flat_map(|batch| batch.to_bytes().to_vec()).collect::<Vec<_>>())
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
    let (step, written) = filtering.piece(&piece(batches)).unwrap();
    assert_eq!(step.consumed, batches.iter().map(Batch::len).sum::<usize>());
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
    let (step, _) = indexing.piece(&piece(&batches)).unwrap();
    assert_eq!((step.end, indexing.latest, indexing.map.len()), (StepEnd::Piece, 4, 3));
    let mut first = filtering(indexing, NOW);
    assert_eq!(pairs(&left(&mut first, &batches)), [(1, "b"), (3, "a"), (4, "c")]);
    assert_eq!((first.dropped, first.output.horizon_ms), (2, NOW + 1000));
}

#[test]
fn tombstones_go_when_their_horizon_passed() {
    let batches =
        [batch(0, &[("a", Some("1")), ("b", Some("1"))]), batch(2, &[("a", None), ("c", Some("1"))])];
    let mut with_keys = indexing(0, 10);
    with_keys.piece(&piece(&batches)).unwrap();
    let mut first = filtering(with_keys, NOW);
    first.output = Output::new(0, 4096);
    first.piece(&piece(&batches)).unwrap();
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
    let (step, _) = indexing.piece(&piece(&batches)).unwrap();
    assert_eq!((step.end, step.consumed, indexing.latest), (StepEnd::Full, batches[0].len(), 1));
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
    indexing.piece(&piece(&batches)).unwrap();
    indexing.piece(&piece(&newest)).unwrap();
    let mut filtering = filtering(indexing, NOW);
    let last = |offset| LastWritten { offset: Some(offset), epoch: 0 };
    filtering.last_written = [(1, last(1)), (2, last(9))].into();
    filtering.end = 4;
    assert_eq!(pairs(&left(&mut filtering, &batches)), []);
    assert_eq!(filtering.output.end() - DATA_START, 2 * 61, "of producer 1, and the last of all");
    assert_eq!((filtering.output.max_timestamp, filtering.output.first_timestamp), ((-1, -1), NOW));
}

#[test]
fn damage_is_told_and_where() {
    let good = batch(0, &[("a", Some("1"))]);
    let mut bytes = piece(&[good.clone(), batch(1, &[("b", Some("1"))])]).to_vec();
    let at = good.len();
    bytes[at + 65] ^= 1;
    let fault = indexing(0, 10).piece(&Bytes::from(bytes.clone())).unwrap_err();
    assert_eq!((fault.at, fault.reason.as_str()), (at, "a batch does not match its crc"));
    assert_eq!(filtering(indexing(0, 10), NOW).piece(&Bytes::from(bytes)).unwrap_err().at, at);
    let cut = piece(std::slice::from_ref(&good)).slice(..good.len() - 1);
    let (step, _) = indexing(0, 10).piece(&cut).unwrap();
    assert_eq!(step, Step { consumed: 0, needed: good.len(), end: StepEnd::Piece });
}
