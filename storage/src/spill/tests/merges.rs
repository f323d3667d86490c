//! Merges: which runs, what stays, and what damage and failures do to them.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, poll_immediate, select};

use super::*;

#[test]
fn runs_stay_few_and_each_entry_is_seldom_written() {
    // Spills of one size, and of varying ones.
    for vary in [1, 7] {
        let (mut runs, mut total, mut written) = (Vec::new(), 0_u64, 0_u64);
        for n in 0..4_000_u64 {
            let size = 1_000 * (1 + n * n % vary);
            runs.push(size);
            total += size;
            written += size;
            while let Some(from) = choose(&runs) {
                let merged: u64 = runs.drain(from..).sum();
                written += merged;
                runs.push(merged);
            }
            assert!(runs.len() <= 8, "{runs:?}");
        }
        assert!(written / total <= 9, "{} times", written / total);
    }
    assert_eq!(choose(&[]), None);
    assert_eq!(choose(&[5, 5, 5]), None);
    assert_eq!(choose(&[5, 5, 5, 5]), Some(0));
    assert_eq!(choose(&[100, 5, 5, 5, 5]), Some(1));
    assert_eq!(choose(&[100, 5, 5, 5]), None);
    assert_eq!(choose(&[0; 4]), Some(0));
    assert_eq!(choose(&[u64::MAX; 4]), Some(0));
    assert_eq!(choose(&[900, 400, 200, 99, 50, 20, 10, 4, 4]), Some(7));
}

#[test]
fn a_merge_keeps_the_newest_and_its_age() {
    with(async |world, disk, spilled| {
        for number in 1..=3 {
            let step = number as usize;
            spilled.write(&disk, number, &entries(7, 3_000, step, number as i64 * 100)).await.unwrap();
        }
        let before = spilled.records();
        let asked = Rc::new(RefCell::new(Vec::new()));
        let seen = asked.clone();
        let keep = move |key: Key, first: u64, _: &Producer| {
            seen.borrow_mut().push((key.1, first));
            key.1 % 10 != 0
        };
        let outcome = spilled.merge(&disk, 9, &keep).await.unwrap();
        let first = |id: i64| if id % 3 == 0 { 3 } else { 2 - id as u64 % 2 };
        assert_eq!(*asked.borrow(), (0..3_000).map(|id| (id, first(id))).collect::<Vec<_>>());
        assert_eq!(outcome.replaced, before);
        assert_eq!(outcome.merged, Some(spilled.records()[0]));
        assert_eq!((spilled.records().len(), spilled.producers()), (1, 2_700));
        assert_eq!((outcome.dropped, outcome.forgotten, outcome.lost), (5_500 - 2_700, 0, Vec::new()));
        let again = reopened(&disk, &spilled.records()).await;
        for spilled in [&spilled, &again] {
            let all = spilled.all_of(&disk, 7).await.unwrap();
            let kept = (0..3_000).filter(|id| id % 10 != 0);
            let expected =
                kept.map(|id| (first(id), id, producer(first(id) as i64 * 100 + id, (id % 6) as usize)));
            assert_eq!(all, expected.collect::<Vec<_>>());
            assert_eq!(spilled.find(&disk, (7, 10)).await, Ok(None));
            assert!(spilled.bytes_in_memory() < 2_700 * 4);
        }
        // Replaced files stay while a checkpoint names them.
        spilled.sweep(&disk).await.unwrap();
        assert_eq!(names(&world).len(), 4);
        assert_eq!(spilled.told_of(&before[1..]).len(), 1);
        let freed = spilled.told_of(&spilled.records());
        assert_eq!(freed.len(), 2);
        assert!(freed[0].ends_with("0000000000000002.run"));
        assert_eq!(spilled.told_of(&[]).len(), 0);
        assert_eq!(spilled.disk_bytes(), spilled.records()[0].len);
    });
}

#[test]
fn a_merge_of_nothing_and_one_that_leaves_nothing() {
    with(async |world, disk, spilled| {
        assert_eq!(spilled.merge(&disk, 1, &keep_all).await.unwrap(), MergeOutcome::default());
        spilled.write(&disk, 2, &entries(1, 10, 1, 0)).await.unwrap();
        let outcome = spilled.merge(&disk, 3, &|_, _, _| false).await.unwrap();
        assert_eq!((outcome.merged, outcome.dropped), (None, 10));
        assert_eq!((spilled.records(), spilled.bytes_in_memory()), (Vec::new(), 0));
        assert_eq!(names(&world), ["0000000000000002.run"]);
        assert_eq!(spilled.told_of(&[]).len(), 1);
    });
}

/// Four small runs above a large one, all of the same producers: only the small ones are to be merged.
async fn tiered(disk: &SimDisk, spilled: &Spilled<SimDisk>) {
    spilled.write(disk, 1, &entries(1, 3_000, 1, 0)).await.unwrap();
    for number in 2..=5 {
        assert!(!spilled.wants_merge());
        let some = (0..600).map(|id| ((1, id), producer(id + 10_000 * number as i64, 1)));
        spilled.write(disk, number, &some.collect::<Vec<_>>()).await.unwrap();
    }
    assert!(spilled.wants_merge());
}

#[test]
fn what_is_refused_does_not_bring_back_what_it_superseded() {
    with(async |_, disk, spilled| {
        tiered(&disk, &spilled).await;
        let keep = |_: Key, first: u64, _: &Producer| first < 5;
        let outcome = spilled.merge(&disk, 6, &keep).await.unwrap();
        assert_eq!(outcome.replaced.len(), 4);
        assert_eq!(spilled.records().len(), 2);
        for id in 0..600 {
            let found = spilled.find(&disk, (1, id)).await.unwrap();
            assert_eq!(found.map(|(first, _)| first), Some(5));
        }
        // With all of them merged, neither stays.
        for number in 7..=10 {
            spilled.write(&disk, number, &entries(2, 10, 1, 0)).await.unwrap();
        }
        assert_eq!(choose(&sizes(&spilled.records())), Some(2));
        let outcome = spilled.merge_all(&disk, 11, &keep).await.unwrap();
        assert_eq!((outcome.dropped, outcome.replaced.len()), (1_200 + 40, 6));
        assert_eq!(spilled.all_of(&disk, 1).await.unwrap().len(), 2_400);
    });
}

async fn damage(disk: &SimDisk, number: u64, ordinal: u64) {
    let file = disk.open(&run_path(&Path::new(DIR).join("producers"), number)).await.unwrap();
    let position = (1 + ordinal) * 4096;
    let mut block = file.read_at(position, 4096).await.unwrap();
    block[2_000] ^= 4;
    file.write_at(block.freeze(), position).await.unwrap();
}

#[test]
fn a_lost_block_takes_what_it_may_have_superseded() {
    with(async |_, disk, spilled| {
        tiered(&disk, &spilled).await;
        let first_keys = spilled.runs.borrow()[4].first_keys.clone();
        let last = first_keys.len() as u64 - 1;
        for ordinal in [1, 2, 4, last] {
            damage(&disk, 5, ordinal).await;
        }
        let outcome = spilled.merge(&disk, 6, &keep_all).await.unwrap();
        // The oldest is merged as well.
        assert_eq!(outcome.replaced.len(), 5);
        assert_eq!(outcome.lost.len(), 4);
        assert_eq!(outcome.lost[0], "/s/producers/0000000000000005.run: the block at 8192 is damaged");
        let mut lost = 0;
        for id in 0..3_000 {
            let block = first_keys.partition_point(|first| *first <= (1, id)) as u64 - 1;
            let expected = match block {
                _ if id >= 600 => Some(1),
                1 | 2 | 4 => None,
                block if block == last => None,
                _ => Some(5),
            };
            let found = spilled.find(&disk, (1, id)).await.unwrap();
            assert_eq!(found.map(|(first, _)| first), expected, "{id} in block {block}");
            lost += u64::from(expected.is_none());
        }
        // What the lost entries told of is not known: those that older runs told of may be others.
        assert_eq!(outcome.forgotten, 2 * lost);
    });
}

#[test]
fn a_run_written_during_a_merge_is_not_part_of_it() {
    for lost in [false, true] {
        with(async move |_, disk, spilled| {
            tiered(&disk, &spilled).await;
            if lost {
                // So that the merge begins anew, behind the write.
                let last = spilled.runs.borrow()[4].blocks() - 1;
                damage(&disk, 5, last).await;
            }
            let late = entries(1, 40, 1, 70_000);
            let mut merge = pin!(spilled.merge(&disk, 6, &keep_all));
            assert!(poll_immediate(&mut merge).await.is_none());
            spilled.write(&disk, 7, &late).await.unwrap();
            let merged = merge.await.unwrap();
            assert_eq!(merged.replaced.len(), if lost { 5 } else { 4 });
            let numbers: Vec<u64> = spilled.records().iter().map(|record| record.number).collect();
            assert_eq!(numbers, if lost { vec![6, 7] } else { vec![1, 6, 7] });
            let again = reopened(&disk, &spilled.records()).await;
            for id in 0..100 {
                let first = again.find(&disk, (1, id)).await.unwrap().map(|(first, _)| first);
                assert_eq!(first, Some(if id < 40 { 7 } else { 5 }));
            }
        });
    }
}

#[test]
fn a_block_that_cannot_be_read_is_lost_alone() {
    with(async |world, disk, spilled| {
        spilled.write(&disk, 1, &entries(1, 600, 1, 0)).await.unwrap();
        let keys = spilled.runs.borrow()[0].first_keys.clone();
        // The piece, the first block by itself, and the third.
        for skip in [0, 0, 1] {
            world.inject(fail(Operation::Read, "0001.run", skip));
        }
        let outcome = spilled.merge(&disk, 2, &keep_all).await.unwrap();
        assert_eq!(world.faults_left(), 0);
        assert_eq!(outcome.lost.len(), 2);
        let all = spilled.all_of(&disk, 1).await.unwrap();
        let lost = keys[1].1 - keys[0].1 + keys[3].1 - keys[2].1;
        assert_eq!(all.len() as i64, 600 - lost, "{:?}", outcome.lost);
        assert_eq!(outcome.forgotten as i64, lost);
        assert_eq!(all[0].1, keys[1].1);
    });
}

#[test]
fn damage_everywhere_is_told_in_few_words() {
    with(async |_, disk, spilled| {
        spilled.write(&disk, 1, &entries(1, 3_000, 1, 0)).await.unwrap();
        let blocks = spilled.runs.borrow()[0].blocks();
        for ordinal in 0..blocks {
            damage(&disk, 1, ordinal).await;
        }
        let outcome = spilled.merge(&disk, 2, &keep_all).await.unwrap();
        assert_eq!(outcome.merged, None);
        assert_eq!(outcome.lost.len(), 17);
        assert_eq!(outcome.lost[16], format!("{} more blocks were lost", blocks - 16));
    });
}

#[test]
fn a_merge_that_cannot_be_written_leaves_all_as_it_was() {
    for (operation, skip) in [
        (Operation::Name, 0),
        (Operation::Write, 0),
        (Operation::Write, 1),
        (Operation::Write, 2),
        (Operation::Sync, 0),
        (Operation::SyncDir, 0),
    ] {
        with(async move |world, disk, spilled| {
            spilled.write(&disk, 1, &entries(1, 3_000, 2, 0)).await.unwrap();
            spilled.write(&disk, 2, &entries(1, 3_000, 1, 5_000)).await.unwrap();
            let (before, all) = (spilled.records(), spilled.all_of(&disk, 1).await);
            world.inject(fail(operation, "", skip));
            assert!(spilled.merge(&disk, 3, &keep_all).await.is_err(), "{operation:?} {skip}");
            assert_eq!(world.faults_left(), 0);
            assert_eq!((spilled.records(), spilled.all_of(&disk, 1).await), (before, all));
            assert_eq!(names(&world), ["0000000000000001.run", "0000000000000002.run"]);
            assert_eq!(spilled.told_of(&[]).len(), 0);
            spilled.merge(&disk, 3, &keep_all).await.unwrap();
            assert_eq!(spilled.producers(), 3_000);
        });
    }
}

#[test]
fn a_merge_given_up_may_be_begun_again() {
    with(async |_, disk, spilled| {
        spilled.write(&disk, 1, &entries(1, 3_000, 1, 0)).await.unwrap();
        {
            let merge = pin!(spilled.merge(&disk, 2, &keep_all));
            let short = pin!(disk.sleep(Duration::from_micros(200)));
            assert!(matches!(select(merge, short).await, Either::Right(_)));
        }
        spilled.merge(&disk, 2, &keep_all).await.unwrap();
        assert_eq!(spilled.all_of(&disk, 1).await.unwrap().len(), 3_000);
    });
}

/// Files that were replaced are there for the last checkpoint alone.
#[test]
fn replaced_runs_that_take_much_ask_for_a_checkpoint() {
    with(async |_, disk, spilled| {
        spilled.write(&disk, 1, &entries(1, 3_000, 1, 0)).await.unwrap();
        let live = spilled.records()[0];
        let replaced = |number: u64, len: u64| RunRecord { number, len, producers: 1 };
        for (lens, wanted) in [(vec![REPLACED_BYTES], false), (vec![REPLACED_BYTES, 1], true)] {
            let records = (2..).zip(lens).map(|(number, len)| replaced(number, len));
            *spilled.replaced.borrow_mut() = records.collect();
            assert_eq!(spilled.wants_checkpoint(), wanted);
        }
        // Beside large live ones more may stay.
        let large = RunRecord { len: 2 * REPLACED_BYTES + live.len, ..live };
        let run = Run::open(&disk, run_path(&Path::new(DIR).join("producers"), 1), live).await;
        let Ok(run) = run else { panic!("the run is sound") };
        *spilled.runs.borrow_mut() = vec![Rc::new(Run { record: large, ..run })];
        assert!(!spilled.wants_checkpoint());
    });
    let world = crate::tests::world(3);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = crate::tests::open(disk.clone(), crate::tests::small()).await;
        let log = store.create_log("a", crate::tests::log_config()).await.unwrap();
        let before = store.stats().checkpoints;
        let spilled = &log.store.spilled;
        spilled.replaced.borrow_mut().push(RunRecord {
            number: 1 << 40,
            len: REPLACED_BYTES + 1,
            producers: 1,
        });
        store.tick(0).await;
        for _ in 0..1000 {
            disk.sleep(Duration::from_millis(100)).await;
        }
        assert_eq!((store.stats().checkpoints, spilled.disk_bytes()), (before + 1, 0));
        assert!(!log.store.wants_checkpoint());
        store.close().await.unwrap();
    });
}

#[test]
fn a_merge_takes_nothing_of_the_reserve() {
    let world = crate::tests::world(4);
    let (disk, inner) = (world.disk(), world.clone());
    world.block_on(async move {
        let config = crate::StoreConfig { reserve_bytes: Some(4 << 20), ..crate::tests::small() };
        inner.set_capacity(64 << 20);
        let (store, _) = crate::tests::open(disk.clone(), config).await;
        let log = store.create_log("a", crate::tests::log_config()).await.unwrap();
        let (spilled, space) = (&log.store.spilled, &log.store.space);
        disk.sleep(Duration::from_secs(10)).await;
        for _ in 0..4 {
            let number = log.store.unique();
            spilled.write(&disk, number, &entries(log.inner.id, 600, 1, number as i64)).await.unwrap();
        }
        assert!(spilled.wants_merge());
        let before = spilled.records();
        // Room for appends, but not for a merge.
        let merged = before.iter().map(|run| run.len).sum::<u64>();
        for (room, runs) in [(merged - 1, 4), (merged, 1)] {
            // What is wanted grows a little with the volume.
            for _ in 0..30 {
                inner.set_capacity(inner.used_bytes() + space.wanted() + room);
                log.store.look_at_space().await;
            }
            assert_eq!(space.usable(), Some(space.wanted() + room));
            crate::spiller::merge(&log.store).await;
            assert_eq!(spilled.records().len(), runs);
        }
        let written = spilled.records()[0].len;
        assert_eq!(space.usable(), Some(space.wanted() + merged - written), "it counts what it wrote");
        store.close().await.unwrap();
    });
}
