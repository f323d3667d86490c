//! Who is known as a reader, and what becomes of what is read ahead for it.

use super::*;

const LOG: u64 = 5;

fn config() -> ReadAheadConfig {
    ReadAheadConfig { stretches_max: 4, readers_per_log_max: 2, readers_max: 3, ..ReadAheadConfig::default() }
}

fn went(readers: &mut Readers, range: Range<i64>) {
    readers.went((LOG, &"a".into()), range, &config());
}

/// Stretches wanted, by reader: where the next begins, and how many are there.
fn wants(readers: &Readers) -> Vec<(i64, usize)> {
    readers.wants().iter().map(|want| (want.from, want.ahead)).collect()
}

/// A stretch of ten offsets is on its way for whoever wants the most; gives its place and id.
fn begin(readers: &mut Readers) -> (Key, u64) {
    let want = readers.wants().remove(0);
    let key = (1, want.from as u64 * 100);
    let id = readers.add(&want, key, (key.1 + 1000, want.from + 10), 1024).unwrap();
    (key, id)
}

fn come(readers: &mut Readers, (key, id): (Key, u64)) -> bool {
    readers.came(key, id, Bytes::from(vec![0; 1000]))
}

#[test]
fn who_reads_on_twice_is_read_ahead_for_and_twice_as_far_each_time() {
    let mut readers = Readers::default();
    went(&mut readers, 0..10);
    went(&mut readers, 10..20);
    assert_eq!(wants(&readers), [], "once may be chance");
    went(&mut readers, 20..30);
    assert_eq!(wants(&readers), [(30, 0)]);
    begin(&mut readers);
    assert_eq!(wants(&readers), []);
    for (end, depth) in [(31, 2), (32, 4), (33, 4)] {
        went(&mut readers, end - 1..end);
        while let Some((from, ahead)) = wants(&readers).pop() {
            assert_eq!(from, 30 + 10 * ahead as i64);
            begin(&mut readers);
        }
        let known = &readers.logs[&LOG].readers[0];
        assert_eq!(known.ahead.len(), depth);
    }
    // While it reads for itself what comes next, nobody else does.
    let mut readers = Readers::default();
    (0..3).for_each(|n| went(&mut readers, n..n + 1));
    readers.begins((LOG, 3));
    readers.begins((LOG, 3));
    readers.ends((LOG, 3));
    assert_eq!(wants(&readers), [], "one of two is under way");
    readers.ends((LOG, 3));
    assert_eq!(wants(&readers), [(3, 0)], "nothing came of them");
    went(&mut readers, 3..4);
    assert_eq!(wants(&readers), [(4, 0)]);
    assert!(readers.under_way.is_empty());
}

#[test]
fn what_is_passed_stays_until_the_next_is_or_there_is_no_room() {
    let mut readers = Readers::default();
    (0..5).for_each(|n| went(&mut readers, n..n + 1));
    for _ in 0..3 {
        let begun = begin(&mut readers);
        assert!(come(&mut readers, begun));
    }
    assert_eq!(readers.held_bytes(), 3072);
    assert!(!readers.make_room(), "what is to come stays");
    went(&mut readers, 5..15);
    assert_eq!(readers.held_bytes(), 3072);
    // Who is close behind takes of it, and is no reader of its own.
    went(&mut readers, 7..9);
    assert_eq!((readers.count, readers.held_bytes()), (1, 3072));
    went(&mut readers, 15..26);
    assert_eq!((readers.held_bytes(), readers.unused_bytes), (2048, 1000));
    assert!(readers.make_room() && !readers.make_room());
    assert_eq!((readers.held_bytes(), readers.unused_bytes), (1024, 2000));
}

#[test]
fn what_was_forgotten_on_its_way_is_not_taken_for_what_came_in_its_place() {
    let mut readers = Readers::default();
    let mut begun = Vec::new();
    for _ in 0..2 {
        (0..5).for_each(|n| went(&mut readers, n..n + 1));
        begun.push(begin(&mut readers));
        if begun.len() == 1 {
            readers.forget_log(LOG);
        }
    }
    let [old, new] = [begun[0], begun[1]];
    assert_eq!(old.0, new.0, "they have one place");
    assert!(!readers.is_coming(old.0, old.1) && readers.is_coming(new.0, new.1));
    assert!(!come(&mut readers, old));
    assert!(readers.find(1, old.0.1).is_some_and(|(_, stretch)| stretch.data.is_none()));
    assert!(come(&mut readers, new));
    assert_eq!((readers.held_bytes(), readers.unused_bytes), (1024, 1000));
    readers.forget_segment(2);
    assert_eq!(readers.held_bytes(), 1024);
    readers.forget_segment(1);
    assert_eq!((readers.held_bytes(), readers.stretches.len()), (0, 0));
}

#[test]
fn readers_are_bounded_and_the_silent_are_forgotten() {
    let mut readers = Readers::default();
    for log in 0..9 {
        for n in 0..9 {
            readers.went((log, &"a".into()), n * 100..n * 100 + 1, &config());
            assert!(readers.count <= 3 && readers.logs.len() <= 3);
            assert_eq!(readers.count, readers.logs.values().map(|log| log.readers.len()).sum());
        }
    }
    assert_eq!((readers.count, readers.logs.len()), (3, 2));
    readers.tick(|_, log_id| log_id != 0);
    assert_eq!((readers.count, readers.logs.len()), (1, 1));
    for _ in 0..SILENT_TICKS {
        assert_eq!(readers.count, 1);
        readers.tick(|_, _| true);
    }
    assert_eq!((readers.count, readers.logs.len()), (0, 0));
}

/// All within one tick.
#[test]
fn who_reads_here_and_there_does_not_push_out_who_reads_in_order() {
    let mut readers = Readers::default();
    (0..3).for_each(|n| went(&mut readers, n..n + 1));
    let begun = begin(&mut readers);
    assert!(come(&mut readers, begun));
    (1..9).for_each(|n| went(&mut readers, n * 1000..n * 1000 + 1));
    assert_eq!((readers.count, readers.held_bytes()), (2, 1024));
    // Of those alike the one that was silent the longest goes.
    (0..3).for_each(|n| went(&mut readers, 8001 + n..8002 + n));
    went(&mut readers, 3..4);
    went(&mut readers, 20_000..20_001);
    let places: Vec<_> = readers.logs[&LOG].readers.iter().map(|reader| reader.expected).collect();
    assert_eq!(places, [4, 20_001]);
}

#[test]
fn who_joins_far_ahead_does_not_move_who_was_there() {
    let mut readers = Readers::default();
    (0..5).for_each(|n| went(&mut readers, n..n + 1));
    for _ in 0..3 {
        let begun = begin(&mut readers);
        assert!(come(&mut readers, begun));
    }
    went(&mut readers, 27..29);
    let places = |readers: &Readers| {
        let of = |reader: &Reader| (reader.expected, reader.ahead.len());
        readers.logs[&LOG].readers.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(places(&readers), [(5, 3), (29, 0)]);
    went(&mut readers, 29..31);
    went(&mut readers, 5..16);
    assert_eq!(places(&readers), [(16, 2), (31, 0)]);
    assert_eq!(readers.held_bytes(), 3072);
}

#[test]
fn overlapping_stretches_do_not_hide_each_other() {
    let mut readers = Readers::default();
    (0..5).for_each(|n| went(&mut readers, n..n + 1));
    let want = readers.wants().remove(0);
    let mut add = |from: u64, end: u64| {
        let id = readers.add(&want, (1, from), (end, 20), 1024).unwrap();
        ((1, from), id)
    };
    let (long, short, last) = (add(0, 5000), add(1000, 2000), add(4000, 9000));
    let found = |readers: &mut Readers| {
        [500, 1500, 3000, 4500, 8999, 9000].map(|at| readers.find(1, at).map_or(0, |(_, stretch)| stretch.id))
    };
    assert_eq!(found(&mut readers), [long.1, long.1, long.1, last.1, last.1, 0]);
    assert!(come(&mut readers, short));
    assert_eq!(
        found(&mut readers),
        [long.1, short.1, long.1, last.1, last.1, 0],
        "it need not be waited for"
    );
    assert!(readers.find(2, 500).is_none() && readers.find(0, 500).is_none());
}

/// A place that cannot be read would be tried again and again.
#[test]
fn after_a_failure_the_reader_has_to_read_in_order_again() {
    let mut readers = Readers::default();
    (0..5).for_each(|n| went(&mut readers, n..n + 1));
    let want = readers.wants().remove(0);
    let (key, id) = begin(&mut readers);
    readers.failed(&want, key, id);
    assert_eq!((wants(&readers), readers.stretches.len()), (vec![], 0));
    went(&mut readers, 5..6);
    assert_eq!(wants(&readers), []);
    went(&mut readers, 6..7);
    assert_eq!(wants(&readers), [(7, 0)]);
}
