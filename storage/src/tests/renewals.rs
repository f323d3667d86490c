//! Starts that meet a file of a segment which the device does not write, or does not read either.

use std::collections::BTreeMap;
use std::time::Duration;

use super::failures::fault;
use super::*;
use crate::disk::Disk;
use crate::disk::sim::{Crash, Fault, Operation};

const LOGS: [&str; 2] = ["a-0", "b-0"];
const BATCHES: u64 = 14;

fn nth(n: u64) -> Batch {
    batch(1, if n % 5 == 4 { 20_000 } else { 3000 }, n, 1)
}

/// What is left of a world with frames of two logs behind the checkpoint, with shares in the journal and straight in their
/// segments.
fn ended(seed: u64, crash: Crash) -> SimWorld {
    let world = world(seed);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, small()).await;
        for name in LOGS {
            store.create_log(name, log_config()).await.unwrap();
        }
        for n in 0..BATCHES {
            for log in store.logs() {
                let batch = nth(n);
                let _room = store.reserve(batch.len()).await.unwrap();
                let appended = log.append(vec![batch], client(0)).unwrap();
                log.durable(appended.ticket).await.unwrap();
            }
            if n == 5 {
                store.checkpoint().await.unwrap();
            }
        }
    });
    world.crash(crash)
}

async fn assert_whole(store: &Store<SimDisk>, case: &str) {
    for name in LOGS {
        let found = read_all(&store.log(name).unwrap()).await;
        assert_eq!(found.len() as u64, BATCHES, "{case}, {name}");
        for (n, found) in (0..).zip(&found) {
            assert_eq!(found.body, nth(n).body, "{case}, {name}, batch {n}");
        }
    }
}

/// Opens, looks at all batches, and goes on; gives how many files were made anew.
fn goes_on(world: &SimWorld, case: String) -> usize {
    let (disk, inner) = (world.disk(), world.clone());
    world.block_on(async move {
        let (store, report) = open(disk, small()).await;
        assert_eq!(report.offline, [], "{case}");
        inner.clear_faults();
        assert_whole(&store, &case).await;
        for log in store.logs() {
            let appended = log.append(vec![batch(1, 20_000, BATCHES, 1)], client(0)).unwrap();
            log.durable(appended.ticket).await.unwrap();
        }
        store.close().await.unwrap();
        report.files_renewed
    })
}

#[test]
fn a_bad_block_that_replay_meets_keeps_no_shard_from_starting() {
    let mut renewed = 0;
    for (seed, crash) in (400..).zip([Crash::Kill, Crash::PowerLoss]) {
        for operation in [Operation::Write, Operation::Sync, Operation::Allocate] {
            for skip in 0..8 {
                let case = format!("{crash:?}, {operation:?} {skip}");
                let world = ended(seed, crash);
                world.inject(Fault { skip, ..fault(operation, "logs/a-0", 1) });
                let (disk, inner, told) = (world.disk(), world.clone(), case.clone());
                renewed += world.block_on(async move {
                    let (store, report) = open(disk, small()).await;
                    let struck = usize::from(inner.faults_left() == 0 && operation != Operation::Allocate);
                    assert_eq!(report.files_renewed, struck, "{told}");
                    inner.clear_faults();
                    assert_whole(&store, &told).await;
                    struck
                });
                goes_on(&world.crash(Crash::PowerLoss), case);
            }
        }
    }
    assert!(renewed >= 4, "{renewed}");
}

/// A second flush of a file whose first one failed would prove nothing, and a write that is under way when another file is
/// refused must not come after those of the next replay.
#[test]
fn files_that_fail_together_are_made_anew_together() {
    for seed in 410..420 {
        let operation = if seed % 2 == 0 { Operation::Write } else { Operation::Sync };
        let world = ended(seed, Crash::Kill);
        LOGS.iter().for_each(|log| world.inject(fault(operation, &format!("logs/{log}/"), 1)));
        assert_eq!(goes_on(&world, format!("seed {seed}")), 2, "seed {seed}");
    }
}

/// A disk that takes nothing is no bad block.
#[test]
fn a_start_is_refused_where_a_new_file_cannot_be_written_either() {
    let world = ended(402, Crash::Kill);
    world.inject(fault(Operation::Write, "", u64::MAX));
    let disk = world.disk();
    world.block_on(async move {
        let refused = Store::open(disk, Path::new(DIR), small(), 1000).await;
        assert!(matches!(refused, Err(crate::OpenError::Io { .. })));
    });
    world.clear_faults();
    goes_on(&world, "afterwards".into());
}

/// What cannot be read may be all there is of batches that were acknowledged: nothing is put in its place.
#[test]
fn a_start_is_refused_where_the_old_file_cannot_be_read_and_nothing_is_lost() {
    for (seed, times) in (430..).zip([2, u64::MAX]) {
        let world = ended(seed, Crash::Kill);
        world.inject(fault(Operation::Write, "logs/a-0/", 1));
        let (disk, inner) = (world.disk(), world.clone());
        world.spawn(async move {
            while inner.faults_left() > 0 {
                disk.sleep(Duration::from_micros(1)).await;
            }
            inner.inject(fault(Operation::Read, "logs/a-0/", times));
        });
        let of_log = |world: &SimWorld| -> BTreeMap<_, _> {
            let files = world.files();
            files.into_iter().filter(|(path, _)| path.starts_with(Path::new(DIR).join("logs/a-0"))).collect()
        };
        let before = of_log(&world);
        if times < u64::MAX {
            assert_eq!(goes_on(&world, format!("{times} reads fail")), 1);
            continue;
        }
        let disk = world.disk();
        world.block_on(async move {
            let refused = Store::open(disk, Path::new(DIR), small(), 1000).await;
            let told = refused.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(told.contains("logs/a-0") && told.contains("cannot be read"), "{told}");
        });
        assert_eq!(of_log(&world).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        world.clear_faults();
        goes_on(&world.crash(Crash::PowerLoss), "afterwards".into());
    }
}

#[test]
fn a_crash_at_any_step_of_a_start_that_makes_a_file_anew_loses_nothing() {
    let struck = || {
        let world = ended(440, Crash::Kill);
        world.inject(fault(Operation::Write, "logs/a-0/", 1));
        world
    };
    let open_only = |world: &SimWorld, step| {
        let disk = world.disk();
        world.block_on_until(step, async move { open(disk, small()).await.1.files_renewed })
    };
    let whole = struck();
    assert_eq!(open_only(&whole, u64::MAX), Some(1));
    let (steps, mut crashes) = (whole.steps(), 0);
    for step in (0..steps).step_by(5) {
        let world = struck();
        open_only(&world, step);
        world.clear_faults();
        let crash = if crashes % 2 == 0 { Crash::PowerLoss } else { Crash::Kill };
        goes_on(&world.crash(crash), format!("step {step} of {steps}"));
        crashes += 1;
    }
    assert!(crashes > 20, "{crashes}");
}

/// As a file system that was repaired may leave it.
#[test]
fn a_file_that_ends_within_a_block_is_made_anew() {
    let mut files = ended(450, Crash::Kill).files();
    let path = Path::new(DIR).join("logs/a-0/00000000000000000000.log");
    let file = files.get_mut(&path).unwrap();
    *file = Bytes::from([file, &[7; 100][..]].concat());
    let world = SimWorld::with_files(451, &files);
    world.inject(fault(Operation::Write, "logs/a-0/", 1));
    assert_eq!(goes_on(&world, "odd".into()), 1);
}
