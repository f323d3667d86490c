//! Failures on the files of one log: it goes offline, the others of the shard go on, and what was acknowledged is there
//! after the next start.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use penstock_format::{BatchBuilder, NewRecord};

use super::*;
use crate::disk::Disk;
use crate::disk::sim::{Crash, Effect, Fault, Operation, SimWorld};
use crate::indexes::{index_path, write_files};
use crate::writeback;
use crate::{AppendError, ReadError};

pub(super) fn fault(operation: Operation, path: &str, times: u64) -> Fault {
    let effect = Effect::Fail(libc::EIO);
    Fault { operation, path_contains: path.into(), skip: 0, times, effect }
}

/// Two logs with a file each and some batches.
pub(super) async fn two_logs(disk: &SimDisk) -> (Store<SimDisk>, [Log<SimDisk>; 2]) {
    let (store, _) = open(disk.clone(), small()).await;
    let mut logs = Vec::new();
    for name in ["a-0", "b-0"] {
        let log = store.create_log(name, log_config()).await.unwrap();
        append(&log, 300, 0).await.unwrap();
        logs.push(log);
    }
    while store.stats().open_files < 2 {
        disk.sleep(Duration::from_millis(10)).await;
    }
    (store, logs.try_into().unwrap_or_else(|_| panic!("two logs")))
}

pub(super) async fn append(log: &Log<SimDisk>, len: usize, fill: u64) -> Result<(), crate::Offline> {
    let appended = log.append(vec![batch(1, len, fill, 1)], client(0)).unwrap();
    log.durable(appended.ticket).await
}

/// Both logs append large batches to one commit; the first log's share fails.
async fn fail_one_of_two(store: &Store<SimDisk>, [bad, good]: &[Log<SimDisk>; 2]) {
    let [lost, kept] = [bad, good].map(|log| log.append(vec![batch(1, 30_000, 1, 1)], client(0)).unwrap());
    assert_eq!(lost.ticket, kept.ticket, "one commit");
    let error = bad.durable(lost.ticket).await.unwrap_err();
    good.durable(kept.ticket).await.unwrap();
    assert_eq!((bad.offline(), good.offline()), (Some(error.clone()), None));
    assert_eq!((bad.durable_offset(), good.durable_offset()), (1, 2));
    assert_eq!(bad.append(vec![batch(1, 100, 2, 1)], client(0)), Err(AppendError::Offline(error.clone())));
    assert_eq!(bad.read(0, 1000, i64::MAX, true).await, Err(ReadError::Offline(error)));
    assert_eq!(store.stats().offline_logs, 1);
    append(good, 30_000, 2).await.unwrap();
    append(good, 100, 3).await.unwrap();
    assert_eq!(read_all(good).await.len(), 4);
}

/// What both logs hold after the next start.
fn after(world: &SimWorld) -> [usize; 2] {
    let disk = world.disk();
    world.block_on(async move {
        let (store, report) = open(disk, small()).await;
        assert_eq!(report.offline, []);
        let [bad, good] = ["a-0", "b-0"].map(|name| store.log(name).unwrap());
        let found = [read_all(&bad).await.len(), read_all(&good).await.len()];
        append(&bad, 20_000, 9).await.unwrap();
        store.close().await.unwrap();
        found
    })
}

#[test]
fn a_failed_share_is_left_out_and_the_others_of_its_commit_are_acknowledged() {
    for operation in [Operation::Write, Operation::Sync] {
        for times in [1, u64::MAX] {
            for (seed, end) in (50..).zip([None, Some(Crash::Kill), Some(Crash::PowerLoss)]) {
                let world = world(seed);
                let (disk, faults) = (world.disk(), world.clone());
                world.block_on(async move {
                    let (store, logs) = two_logs(&disk).await;
                    faults.inject(fault(operation, "logs/a-0", times));
                    fail_one_of_two(&store, &logs).await;
                    if end.is_none() {
                        store.checkpoint().await.unwrap();
                        append(&logs[1], 100, 4).await.unwrap();
                        store.close().await.unwrap();
                    }
                    faults.clear_faults();
                });
                let world = world.crash(end.unwrap_or(Crash::PowerLoss));
                let [bad, good] = after(&world);
                assert_eq!((bad, good), (1, 4 + usize::from(end.is_none())), "{operation:?} {times} {end:?}");
            }
        }
    }
}

/// A flush that fails says nothing of what was written behind before it: those batches come from memory, and
/// go to a new file behind those that a flush vouches for.
#[test]
fn what_was_written_behind_before_a_failed_flush_is_saved() {
    for (seed, end) in (60..).zip([Crash::Kill, Crash::PowerLoss]) {
        let world = world(seed);
        let (disk, faults) = (world.disk(), world.clone());
        world.block_on(async move {
            let (store, [bad, good]) = two_logs(&disk).await;
            for n in 0..30 {
                append(&bad, 3000, n).await.unwrap();
                append(&good, 3000, n).await.unwrap();
                if n == 15 {
                    store.checkpoint().await.unwrap();
                }
            }
            faults.inject(fault(Operation::Sync, "logs/a-0/0", 1));
            store.checkpoint().await.unwrap();
            assert!(bad.offline().is_some(), "its file was flushed");
            store.checkpoint().await.unwrap();
            assert_eq!(good.offline(), None);
            append(&good, 100, 99).await.unwrap();
        });
        let world = world.crash(end);
        assert_eq!(after(&world), [31, 32], "{end:?}");
    }
}

/// The block that a log ended in is written again by the next life, which has not its beginning in memory.
#[test]
fn the_block_that_a_log_ended_in_is_saved_by_the_next_life() {
    let world = world(89);
    let (disk, faults) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, _) = two_logs(&disk).await;
        store.close().await.unwrap();
        let (store, _) = open(disk.clone(), small()).await;
        let [bad, good] = ["a-0", "b-0"].map(|name| store.log(name).unwrap());
        for n in 0..3 {
            append(&bad, 3000, n).await.unwrap();
        }
        bad.store.writeback.begin_pass(|| true).await;
        writeback::pass(&bad.store, |_| true).await;
        assert_eq!(bad.inner.state.borrow().segments[0].pending.borrow().first(), None);
        faults.inject(fault(Operation::Sync, "logs/a-0/", 1));
        store.checkpoint().await.unwrap();
        assert_eq!((faults.faults_left(), bad.offline().is_some(), good.offline()), (0, true, None));
        append(&good, 100, 1).await.unwrap();
    });
    assert_eq!(after(&world.crash(Crash::PowerLoss)), [4, 2]);
}

#[test]
fn a_log_that_cannot_be_read_goes_offline_alone() {
    let world = world(70);
    let (disk, faults) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, [bad, good]) = two_logs(&disk).await;
        for n in 0..60 {
            append(&bad, 3000, n).await.unwrap();
            append(&good, 3000, n).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        store.tick(0).await;
        faults.inject(fault(Operation::Read, "logs/a-0", 1));
        assert!(matches!(bad.read(0, 1000, i64::MAX, true).await, Err(ReadError::Io(_))));
        assert!(bad.offline().is_some());
        assert!(matches!(bad.read(0, 1000, i64::MAX, true).await, Err(ReadError::Offline(_))));
        assert_eq!(read_all(&good).await.len(), 61);
        append(&good, 100, 1).await.unwrap();
        store.close().await.unwrap();
    });
    assert_eq!(after(&world), [61, 62]);
}

/// A batch of one record of producer 9.
pub(super) fn produced(sequence: i32, len: usize) -> Batch {
    let mut builder = BatchBuilder::new().producer(9, 0, sequence);
    let value = vec![sequence as u8; len];
    builder.append(&NewRecord { timestamp: 1, value: Some(&value), ..NewRecord::default() }).unwrap();
    builder.finish().unwrap()
}

/// What a long log's producers did before stands in the checkpoint: to save it, its old segments are not read, which would
/// take as long as the log is long, and fail where one of them cannot be read.
#[test]
fn a_log_is_saved_without_reading_its_past() {
    let world = world(80);
    let (disk, faults) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, [bad, good]) = two_logs(&disk).await;
        for n in 0..50 {
            let appended = bad.append(vec![produced(n, 6000)], client(0)).unwrap();
            bad.durable(appended.ticket).await.unwrap();
        }
        assert!(bad.segment_count() > 2);
        store.checkpoint().await.unwrap();
        store.tick(0).await;
        for n in 50..53 {
            let appended = bad.append(vec![produced(n, 6000)], client(0)).unwrap();
            bad.durable(appended.ticket).await.unwrap();
        }
        // A segment whose file is not there yet, or too short, would have the batch in the journal alone.
        let active = bad.inner.state.borrow().segments.back().unwrap().clone();
        while active.prepared_to.get() < active.end.get() + 31_000 {
            disk.sleep(Duration::from_millis(5)).await;
        }
        faults.inject(fault(Operation::Read, "logs/a-0/00000000000000000000", u64::MAX));
        faults.inject(fault(Operation::Write, "logs/a-0", 1));
        let lost = bad.append(vec![produced(53, 30_000)], client(0)).unwrap();
        bad.durable(lost.ticket).await.unwrap_err();
        store.checkpoint().await.unwrap();
        append(&good, 100, 1).await.unwrap();
        faults.clear_faults();
    });
    let world = world.crash(Crash::PowerLoss);
    let disk = world.disk();
    world.block_on(async move {
        let (store, report) = open(disk, small()).await;
        assert_eq!(report.offline, []);
        let bad = store.log("a-0").unwrap();
        assert_eq!(read_all(&bad).await.len(), 54);
        for (sequence, len, known) in [(49, 6000, true), (52, 6000, true), (53, 30_000, false)] {
            let appended = bad.append(vec![produced(sequence, len)], client(0)).unwrap();
            assert_eq!(appended.duplicate, known, "{sequence}");
        }
        store.close().await.unwrap();
    });
}

/// The index file was written while the batch that failed was in the segment. The segment could grow to that end again.
#[test]
fn the_index_file_of_a_log_that_failed_is_forgotten() {
    let world = world(81);
    let (disk, faults) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, [bad, _]) = two_logs(&disk).await;
        for n in 0..10 {
            append(&bad, 3000, n).await.unwrap();
        }
        faults.inject(fault(Operation::Write, "logs/a-0/", 1));
        let lost = bad.append(vec![batch(1, 30_000, 1, 1)], client(0)).unwrap();
        write_files(&bad.store).await;
        let path = index_path(bad.inner.state.borrow().segments.back().unwrap());
        assert!(disk.exists(&path).await.unwrap());
        bad.durable(lost.ticket).await.unwrap_err();
        store.checkpoint().await.unwrap();
        assert!(!disk.exists(&path).await.unwrap());
        store.close().await.unwrap();
    });
    assert_eq!(after(&world), [11, 1]);
}

/// A log whose appends do not wait for their flush is asked to delete records that are then lost.
#[test]
fn the_start_of_a_log_does_not_move_beyond_what_is_stable() {
    for pause in 0..12 {
        let world = world(100 + pause);
        let (disk, faults) = (world.disk(), world.clone());
        world.block_on(async move {
            let (_store, [bad, good]) = two_logs(&disk).await;
            bad.set_config(LogConfig { flush_messages: u64::MAX, ..log_config() });
            faults.inject(fault(Operation::Sync, "logs/a-0", 1));
            bad.append(vec![batch(1, 30_000, 1, 1)], client(0)).unwrap();
            let kept = good.append(vec![batch(1, 30_000, 1, 1)], client(0)).unwrap();
            disk.sleep(Duration::from_micros(pause * 100)).await;
            assert!(bad.delete_records(2).await.is_err());
            good.durable(kept.ticket).await.unwrap();
            append(&good, 100, 1).await.unwrap();
        });
        let world = world.crash(Crash::Kill);
        let disk = world.disk();
        world.block_on(async move {
            let (store, report) = open(disk, small()).await;
            assert_eq!(report.offline, []);
            let bad = store.log("a-0").unwrap();
            assert_eq!((bad.log_start_offset(), bad.log_end_offset()), (0, 1));
            append(&bad, 20_000, 1).await.unwrap();
            assert_eq!(read_all(&bad).await.len(), 2);
            store.close().await.unwrap();
        });
    }
}

/// A log fails and is removed some time later. Gives the steps at which it failed and at which all was over, if the world
/// ran so far.
async fn fail_and_remove(world: SimWorld, pause: u64, told: Rc<Cell<bool>>) -> (u64, u64) {
    let disk = world.disk();
    let (store, [bad, good]) = two_logs(&disk).await;
    for n in 0..8 {
        append(&bad, 3000, n).await.unwrap();
        append(&good, 3000, n).await.unwrap();
    }
    world.inject(fault(Operation::Write, "logs/a-0", 1));
    let lost = bad.append(vec![batch(1, 30_000, 1, 1)], client(0)).unwrap();
    let failed = bad.durable(lost.ticket).await;
    failed.unwrap_err();
    let failed_at = world.steps();
    disk.sleep(Duration::from_micros(pause * 1000)).await;
    // The removal's frame waits for room while the checkpoint comes to its end.
    let effect = Effect::Fail(libc::ENOSPC);
    world.inject(Fault { effect, ..fault(Operation::Write, "/journal/", 1) });
    store.remove_log("a-0").await.unwrap();
    told.set(true);
    store.checkpoint().await.unwrap();
    assert!(!disk.exists(&Path::new(DIR).join("logs/a-0")).await.unwrap(), "it came back");
    append(&good, 100, 1).await.unwrap();
    (failed_at, world.steps())
}

/// Until its removal is stable, a log that failed may be back after a crash, with all that was acknowledged.
#[test]
fn a_log_that_failed_and_is_removed_is_whole_or_gone() {
    let mut found = [0, 0];
    for pause in 0..12 {
        let seed = 200 + pause;
        let whole = world(seed);
        let (failed_at, over_at) = whole.block_on(fail_and_remove(whole.clone(), pause, Rc::default()));
        for step in failed_at..over_at {
            let (world, told) = (world(seed), Rc::new(Cell::new(false)));
            world.block_on_until(step, fail_and_remove(world.clone(), pause, told.clone()));
            world.clear_faults();
            let world = world.crash(if step.is_multiple_of(3) { Crash::Kill } else { Crash::PowerLoss });
            let disk = world.disk();
            let is_there = world.block_on(async move {
                let (store, report) = open(disk, small()).await;
                assert_eq!(report.offline, [], "{pause}, {step}");
                assert!(read_all(&store.log("b-0").unwrap()).await.len() >= 9);
                let Some(bad) = store.log("a-0") else { return false };
                assert!(read_all(&bad).await.len() >= 9, "{pause}, {step}");
                append(&bad, 20_000, 9).await.unwrap();
                store.close().await.unwrap();
                true
            });
            assert!(!(told.get() && is_there), "{pause}, {step}");
            found[usize::from(is_there)] += 1;
        }
    }
    assert!(found[0] > 100 && found[1] > 100, "{found:?}");
}

/// The file was another log's, with batches of the same lengths at the same offsets: whole ones, with right crcs, show
/// where a write was lost.
#[test]
fn batches_of_a_file_s_past_are_not_taken_for_what_a_failed_flush_lost() {
    let mut reused = 0;
    for seed in 300..320 {
        let world = world(seed);
        let (disk, inner) = (world.disk(), world.clone());
        reused += world.block_on(async move {
            let (store, _) = open(disk.clone(), StoreConfig { cache_bytes_max: 16 << 10, ..small() }).await;
            let past = store.create_log("past", log_config()).await.unwrap();
            for n in 0..60 {
                append(&past, 3000, 1000 + n).await.unwrap();
            }
            store.checkpoint().await.unwrap();
            let second = past.inner.state.borrow().segments[1].base;
            past.delete_records(second).await.unwrap();
            store.checkpoint().await.unwrap();
            store.tick(0).await;
            let spares = async || {
                let entries = disk.list(&Path::new(DIR).join("recycle")).await.unwrap();
                entries.iter().filter(|entry| entry.name.ends_with(".free")).count()
            };
            let before = spares().await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            for n in 0..30 {
                append(&log, 3000, n).await.unwrap();
            }
            let reused = usize::from(before > spares().await);
            // The disk knows a file by the name that it was opened under.
            let path = if reused > 0 { ".free" } else { "logs/a-0/" };
            inner.inject(fault(Operation::Sync, path, 1));
            store.checkpoint().await.ok();
            assert_eq!((inner.faults_left(), log.offline().is_some()), (0, true), "seed {seed}, {reused}");
            store.checkpoint().await.ok();
            reused
        });
        world.clear_faults();
        let world = world.crash(if seed % 2 == 0 { Crash::Kill } else { Crash::PowerLoss });
        let disk = world.disk();
        world.block_on(async move {
            let (store, report) = open(disk, small()).await;
            assert_eq!(report.offline, []);
            let found = read_all(&store.log("a-0").unwrap()).await;
            assert_eq!(found.len(), 30, "seed {seed}");
            for (n, found) in (0..).zip(&found) {
                assert_eq!(found.body, batch(1, 3000, n, 1).body, "seed {seed}, batch {n}");
            }
            store.close().await.unwrap();
        });
    }
    assert!(reused > 0, "no file was used again");
}

#[test]
fn an_index_file_that_cannot_be_removed_costs_no_shard() {
    let world = world(84);
    let (disk, faults) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, logs) = two_logs(&disk).await;
        faults.inject(fault(Operation::Name, ".index", u64::MAX));
        faults.inject(fault(Operation::Write, "logs/a-0/", 1));
        fail_one_of_two_now(&logs).await;
        store.checkpoint().await.unwrap();
        append(&logs[1], 100, 4).await.unwrap();
        faults.clear_faults();
    });
    assert_eq!(after(&world.crash(Crash::PowerLoss)), [1, 2]);
}

async fn fail_one_of_two_now([bad, _]: &[Log<SimDisk>; 2]) {
    let lost = bad.append(vec![batch(1, 30_000, 1, 1)], client(0)).unwrap();
    bad.durable(lost.ticket).await.unwrap_err();
}

/// The segment was deleted before its flush: nobody wants what it has, and its file is not used again.
#[test]
fn a_failed_flush_of_a_deleted_segment_takes_nothing_offline() {
    for is_surplus in [false, true] {
        let world = world(85);
        let (disk, faults) = (world.disk(), world.clone());
        world.block_on(async move {
            let (store, [log, good]) = two_logs(&disk).await;
            let is_unflushed = || {
                let state = log.inner.state.borrow();
                let first =
                    state.segments.front().filter(|_| state.segments.len() > 1).map(|first| first.life);
                first.is_some_and(|life| log.store.writeback.unflushed.borrow().contains_key(&life))
            };
            for n in 0..200 {
                append(&log, 3000, n).await.unwrap();
                if is_unflushed() {
                    break;
                }
            }
            assert!(is_unflushed());
            let (life, second) = {
                let state = log.inner.state.borrow();
                (state.segments[0].life, state.segments[1].base)
            };
            assert_eq!(log.delete_records(second).await.unwrap(), second);
            faults.inject(fault(Operation::Sync, "logs/a-0/00000000000000000000", 1));
            if is_surplus {
                let unflushed = &log.store.writeback.unflushed;
                let (_, file) = unflushed.borrow()[&life].clone();
                assert!(!log.store.flush_segment(&log.inner, life, &file).await);
                assert!(!unflushed.borrow().contains_key(&life), "it is flushed again");
            } else {
                store.checkpoint().await.unwrap();
            }
            assert_eq!((faults.faults_left(), log.offline(), good.offline()), (0, None, None));
            store.checkpoint().await.unwrap();
            store.tick(0).await;
            append(&log, 3000, 60).await.unwrap();
            let free = disk.list(&Path::new(DIR).join("recycle")).await.unwrap();
            assert!(!free.iter().any(|entry| entry.name.ends_with(".free")), "{free:?}");
            store.close().await.unwrap();
        });
    }
}

/// What is cut off still has to leave: a log of the same name would lose its files to it.
#[test]
fn a_log_that_goes_offline_while_it_is_truncated_is_removed_afterwards() {
    let world = world(86);
    let disk = world.disk();
    world.block_on(async move {
        let (store, [log, good]) = two_logs(&disk).await;
        for n in 0..10 {
            append(&log, 3000, n).await.unwrap();
        }
        let meanwhile = async {
            log.inner.fail("a read failed");
            store.remove_log("a-0").await
        };
        let (cut, removed) = futures_util::future::join(log.truncate(3), meanwhile).await;
        assert_eq!(removed, Err(crate::StoreError::Busy));
        cut.unwrap_err();
        store.remove_log("a-0").await.unwrap();
        append(&good, 100, 1).await.unwrap();
        store.close().await.unwrap();
    });
}

/// Until a checkpoint tells of the cut, what was cut off is there after a crash.
#[test]
fn a_failed_flush_of_a_segment_that_is_being_cut_off_is_told() {
    let world = world(87);
    let (disk, faults) = (world.disk(), world.clone());
    let end = world.block_on(async move {
        let (store, [log, _]) = two_logs(&disk).await;
        let unflushed = || {
            let state = log.inner.state.borrow();
            let last = state.segments.back().filter(|_| state.segments.len() > 1)?;
            log.store.writeback.unflushed.borrow().contains_key(&last.life).then(|| last.clone())
        };
        for n in 0..200 {
            append(&log, 3000, n).await.unwrap();
            if unflushed().is_some() {
                break;
            }
        }
        let last = unflushed().unwrap();
        let end = log.log_end_offset();
        faults.inject(fault(Operation::Sync, last.path.to_str().unwrap(), 1));
        log.truncate(last.base).await.unwrap_err();
        assert_eq!(faults.faults_left(), 0);
        assert!(log.offline().is_some());
        store.close().await.ok();
        end
    });
    assert_eq!(after(&world.crash(Crash::Kill)), [end as usize, 1]);
}

/// The next start removes it, or takes the log alone offline: the segment could grow to the end that it tells of.
#[test]
fn an_index_file_that_could_not_be_removed_is_so_at_the_next_start() {
    for is_cut in [false, true] {
        let world = world(88);
        let (disk, faults) = (world.disk(), world.clone());
        let path = world.block_on(async move {
            let (store, [bad, _]) = two_logs(&disk).await;
            for n in 0..10 {
                append(&bad, 3000, n).await.unwrap();
            }
            if !is_cut {
                bad.append(vec![batch(1, 30_000, 1, 1)], client(0)).unwrap();
            }
            let last = bad.inner.state.borrow().segments.back().unwrap().clone();
            let path = index_path(&last);
            // It is made and renamed. To remove it may come right after, once the segment could not be written.
            faults.inject(Fault { skip: 2, ..fault(Operation::Name, path.to_str().unwrap(), u64::MAX) });
            if !is_cut {
                faults.inject(fault(Operation::Write, last.path.to_str().unwrap(), 1));
            }
            write_files(&bad.store).await;
            if is_cut {
                bad.truncate(8).await.unwrap_err();
            }
            store.checkpoint().await.unwrap();
            assert!(bad.offline().is_some());
            path
        });
        let world = world.crash(Crash::PowerLoss);
        world.inject(fault(Operation::Name, path.to_str().unwrap(), u64::MAX));
        let (disk, faults) = (world.disk(), world.clone());
        world.block_on(async move {
            let (store, report) = open(disk.clone(), small()).await;
            assert_eq!(report.offline.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a-0"]);
            append(&store.log("b-0").unwrap(), 100, 1).await.unwrap();
            faults.clear_faults();
            assert!(disk.exists(&path).await.unwrap());
            drop(store);
            let (store, report) = open(disk.clone(), small()).await;
            assert_eq!((report.offline, disk.exists(&path).await.unwrap()), (vec![], false));
            assert_eq!(store.log("a-0").unwrap().log_end_offset(), if is_cut { 8 } else { 11 });
        });
    }
}
