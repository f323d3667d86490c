//! Bounds that are met where nobody can go to disk, a disk that refuses, and clocks that are put back.

use super::*;
use crate::OpenError;

fn refuse(world: &SimWorld, operation: Operation, times: u64) {
    let effect = Effect::Fail(libc::EIO);
    world.inject(Fault { operation, path_contains: "/producers".into(), skip: 0, times, effect });
}

/// Has each of new producers write a batch, without letting anything else happen.
fn fill(log: &Log<SimDisk>, producers: std::ops::Range<i64>) {
    for producer in producers {
        log.append(vec![of(producer, 0)], client(1000 + producer)).unwrap();
    }
}

/// The batch of a transaction.
fn of_transaction(producer: i64, sequence: i32) -> Batch {
    let mut batch = of(producer, sequence);
    batch.patch_header(|header| header.attributes |= 1 << 4);
    batch
}

#[test]
fn a_run_that_cannot_be_written_once_costs_no_producer() {
    for operation in [Operation::Write, Operation::Sync, Operation::Name] {
        let world = world(20);
        let (disk, inner) = (world.disk(), world.clone());
        world.block_on(async move {
            let (store, _) = open(disk, few()).await;
            let log = store.create_log("a", log_config()).await.unwrap();
            fill(&log, 0..12);
            refuse(&inner, operation, 1);
            // Full, so that it waits for a round.
            assert!(!send(&log, 12, 0, 1012).await.unwrap().duplicate);
            assert_eq!(inner.faults_left(), 0);
            for producer in 0..=12 {
                assert!(send(&log, producer, 0, 2000).await.unwrap().duplicate, "{operation:?} {producer}");
            }
            let stats = store.stats();
            assert!(stats.spilled_producers > 0 && stats.producers_forgotten == 0, "{stats:?}");
            store.close().await.unwrap();
        });
    }
}

/// To forget one of whom a run has an older entry would make all void that runs tell of its log.
#[test]
fn where_no_run_is_taken_those_of_whom_runs_tell_stay_while_others_can_go() {
    let world = world(21);
    let (disk, inner) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        let book = Book::default();
        write(&store, "a", 0..40, &book).await;
        // Silent for longest of those in memory, and known to runs.
        for producer in 0..4 {
            assert!(!send(&log, producer, 2, 1000).await.unwrap().duplicate);
        }
        refuse(&inner, Operation::Name, u64::MAX);
        write(&store, "a", 100..140, &Book::default()).await;
        assert!(store.stats().producers_forgotten > 20, "{:?}", store.stats());
        inner.clear_faults();
        for producer in 0..25 {
            let last = if producer < 4 { 2 } else { 0 };
            assert!(send(&log, producer, last, 2000).await.unwrap().duplicate, "{producer}");
        }
        store.close().await.unwrap();
    });
}

#[test]
fn where_runs_tell_of_all_one_log_forgets_and_none_is_refused() {
    let world = world(22);
    let (disk, inner) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        store.create_log("b", log_config()).await.unwrap();
        let book = Book::default();
        write(&store, "b", 0..40, &book).await;
        write(&store, "a", 0..40, &book).await;
        refuse(&inner, Operation::Name, u64::MAX);
        // All 12 that the log has room for are those of whom runs tell; they cannot go to disk again.
        for producer in 0..12 {
            assert!(!send(&log, producer, 2, 2000).await.unwrap().duplicate);
        }
        for producer in 200..204 {
            assert!(!send(&log, producer, 0, 2001).await.unwrap().duplicate);
        }
        inner.clear_faults();
        // Whoever was forgotten goes on, and is not held against what a run has of it from before.
        for producer in 0..12 {
            assert!(!send(&log, producer, 4, 2002).await.unwrap().duplicate, "{producer}");
        }
        let other = store.log("b").unwrap();
        for producer in 0..25 {
            assert!(send(&other, producer, 0, 2003).await.unwrap().duplicate, "{producer}");
        }
        assert!(store.stats().producers_forgotten > 0);
        store.close().await.unwrap();
    });
}

#[test]
fn a_log_full_of_open_transactions_has_no_other_refused() {
    let world = world(23);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), StoreConfig { producers_max: 64, ..few() }).await;
        let full = store.create_log("a", log_config()).await.unwrap();
        let other = store.create_log("b", log_config()).await.unwrap();
        for producer in 0..12 {
            full.append_large(of_transaction(producer, 0), client(1000)).await.unwrap();
        }
        fill(&other, 0..10);
        let refused = send(&full, 50, 0, 1000).await;
        assert!(matches!(refused, Err(AppendError::Producer(_))), "{refused:?}");
        // At its bound at once, before any round.
        fill(&other, 10..12);
        for producer in 12..40 {
            assert!(!send(&other, producer, 0, 1000 + producer).await.unwrap().duplicate, "{producer}");
        }
        let refused = send(&full, 50, 0, 1000).await;
        assert!(matches!(refused, Err(AppendError::Producer(_))), "{refused:?}");
        for producer in 0..40 {
            assert!(send(&other, producer, 0, 2000).await.unwrap().duplicate, "{producer}");
        }
        assert_eq!(store.stats().producers_forgotten, 0);
        // When a transaction ends, there is somebody to take to disk.
        let mut marker = of_transaction(3, 0);
        marker.patch_header(|header| header.attributes |= 1 << 5);
        let coordinator = AppendContext { origin: Origin::Coordinator, ..client(2000) };
        full.append(vec![marker], coordinator).unwrap();
        disk.sleep(std::time::Duration::from_millis(250)).await;
        assert!(!send(&full, 50, 0, 2001).await.unwrap().duplicate);
        store.close().await.unwrap();
    });
}

#[test]
fn who_expired_does_not_come_back_as_before_when_the_clock_is_put_back() {
    let mut world = world(24);
    let disk = world.disk();
    // Looks for those expired at each tick.
    let at_once = || StoreConfig { producer_check_interval_ms: 0, ..few() };
    world.block_on(async move {
        let (store, _) = open(disk.clone(), at_once()).await;
        let expiring = LogConfig { producer_expiration_ms: 10_000, ..log_config() };
        let log = store.create_log("a", expiring).await.unwrap();
        write(&store, "a", 0..40, &Book::default()).await;
        for producer in 0..3 {
            assert!(!send(&log, producer, 2, 5000).await.unwrap().duplicate);
        }
        // Not while a run is being written.
        for _ in 0..100 {
            store.tick(20_000).await;
            disk.sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(store.stats().producers, 0);
        // What runs tell of their first batches is less than 10 s old again: seen at 1000, and 1001.
        assert!(!send(&log, 0, 4, 10_500).await.unwrap().duplicate);
        store.tick(10_501).await;
        assert!(!send(&log, 1, 4, 10_501).await.unwrap().duplicate);
        store.checkpoint().await.unwrap();
    });
    world = world.crash(Crash::PowerLoss);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, at_once()).await;
        let log = store.log("a").unwrap();
        log.set_config(LogConfig { producer_expiration_ms: 10_000, ..log_config() });
        assert!(!send(&log, 2, 4, 10_502).await.unwrap().duplicate);
        store.close().await.unwrap();
    });
}

#[test]
fn a_clock_that_was_wrong_for_a_while_has_no_merge_forget_producers() {
    let world = world(25);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        let expiring = LogConfig { producer_expiration_ms: 10_000, ..log_config() };
        let log = store.create_log("a", expiring).await.unwrap();
        let other = store.create_log("b", log_config()).await.unwrap();
        write(&store, "a", 0..40, &Book::default()).await;
        // Memory forgets all that it has of the log, and of none of them runs tell.
        send(&other, 1, 0, 1_000_000).await.unwrap();
        store.tick(1_000_000).await;
        store.tick(2000).await;
        let before = store.stats();
        assert!(before.spilled_producers >= 25 && before.producers <= 1, "{before:?}");
        // Many more runs, so that all are merged.
        write(&store, "b", 100..250, &Book::default()).await;
        for producer in 0..25 {
            assert!(send(&log, producer, 0, 2000).await.unwrap().duplicate, "{producer}");
        }
        store.close().await.unwrap();
    });
}

#[test]
fn a_start_that_is_not_given_a_run_forgets_none_of_its_producers() {
    let world = world(26);
    let (disk, book) = (world.disk(), Book::default());
    let told = book.clone();
    world.block_on(async move {
        let (store, _) = open(disk, few()).await;
        store.create_log("a", log_config()).await.unwrap();
        write(&store, "a", 0..60, &told).await;
        store.close().await.unwrap();
    });
    for code in [libc::EIO, libc::ENOMEM] {
        let effect = Effect::Fail(code);
        let path_contains = ".run".to_owned();
        let fault = Fault { operation: Operation::Read, path_contains, skip: 2, times: u64::MAX, effect };
        world.inject(fault);
        let disk = world.disk();
        let opened =
            world.block_on(async move { Store::open(disk, Path::new(DIR), few(), 1000).await.err() });
        assert!(matches!(&opened, Some(OpenError::Io { .. })), "{opened:?}");
        world.clear_faults();
    }
    let world = world.crash(Crash::PowerLoss);
    let disk = world.disk();
    world.block_on(async move {
        let (store, report) = open(disk, few()).await;
        assert_eq!(report.producers_lost, Vec::<String>::new());
        repeat(&store, &book).await;
        assert_eq!(store.stats().producers_forgotten, 0);
        store.close().await.unwrap();
    });
}
