//! Each operation of a workload fails once in turn, on the files of one log, of the journal, of the checkpoint, or on any
//! at all: nothing is acknowledged that is not there afterwards, nothing acknowledged is lost, and what is of one log
//! takes no other offline.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use penstock_storage::disk::Disk;
use penstock_storage::disk::sim::{Crash, Effect, Fault, Operation, SimWorld};

use crate::crash::{Profile, plan, unlimited};
use crate::full::run;
use crate::oracle::{Oracle, OracleRef};
use crate::plan::Plan;
use crate::traffic::{Ending, PATIENCE};

const OPERATIONS: [Operation; 6] = [
    Operation::Write,
    Operation::Sync,
    Operation::Read,
    Operation::Allocate,
    Operation::Name,
    Operation::SyncDir,
];

fn profile(direct_bytes_min: usize) -> Profile {
    Profile {
        logs: 3,
        value_bytes_max: 6_000,
        direct_bytes_min,
        segment_bytes: 32 << 10,
        retention_bytes: 64 << 10,
        checkpoint_bytes: 96 << 10,
        ..unlimited()
    }
}

/// What is struck, and what that may take offline.
#[derive(Debug, Clone, Copy)]
struct Target {
    path: &'static str,
    /// The only log that may fail.
    alone: Option<&'static str>,
    times: u64,
    /// There is no room either once it failed.
    full: bool,
}

impl Target {
    const fn new(path: &'static str, times: u64) -> Target {
        Target { path, alone: None, times, full: false }
    }
}

/// A life in which operations fail from the `skip`-th of their kind on; says whether any did.
fn fails_at(seed: u64, operation: Operation, skip: u64, target: Target) -> bool {
    let alone = target.alone.map(str::to_owned);
    let forgets = target.path.is_empty() || target.full;
    let oracle = Oracle { faulty: true, forgets, full: target.full, alone, ..Oracle::default() };
    let oracle: OracleRef = Rc::new(RefCell::new(oracle));
    let mut plan = plan(&profile(if seed.is_multiple_of(2) { 4096 } else { 1 << 20 }));
    if target.alone.is_some() {
        // What was written behind and not flushed is in memory still. Else the journal alone vouches for it, and the store
        // goes offline.
        plan.store.cache_bytes_max = 4 << 20;
    }
    let plan = Plan { operations: 500, close: seed.is_multiple_of(5), ..plan };
    let world = SimWorld::new(seed);
    let effect = Effect::Fail(libc::EIO);
    let (path_contains, times) = (target.path.to_owned(), target.times);
    world.inject(Fault { operation, path_contains, skip, times, effect });
    if target.full {
        fill_when_struck(&world, seed);
    }
    let ending = run(&world, &oracle, &plan, false, || false);
    let struck = if target.full { world.faults_left() == 0 } else { world.faults_left() < times };
    // Closing on a full disk leaves what the journal holds to the next opening.
    let closed = ending == Some(Ending::Closed) && !target.full;
    world.clear_faults();
    oracle.borrow_mut().crashed();
    let world = world.crash(if seed % 4 < 2 { Crash::PowerLoss } else { Crash::Kill });
    {
        let mut oracle = oracle.borrow_mut();
        (oracle.faulty, oracle.full, oracle.alone) = (false, false, None);
    }
    let plan = Plan { close: true, operations: 20, ..plan };
    let after = run(&world, &oracle, &plan, closed, || false);
    assert_eq!(after, Some(Ending::Closed), "seed {seed}, {operation:?} {skip} of {target:?}, {ending:?}");
    struck
}

/// Where it finds no room the files that a log is saved to: names, writes, flushes, directories, or all files at once, which
/// cannot grow for some seconds.
fn fill_when_struck(world: &SimWorld, seed: u64) {
    let steps = [Operation::Name, Operation::Write, Operation::Sync, Operation::SyncDir];
    let errno = [libc::ENOSPC, libc::EMFILE, libc::EDQUOT][(seed / 5 % 3) as usize];
    if let Some(operation) = steps.get((seed % 5) as usize) {
        let path_contains = if *operation == Operation::SyncDir { "/recycle" } else { ".rescue" }.to_owned();
        let effect = Effect::Fail(errno);
        world.inject(Fault { operation: *operation, path_contains, skip: seed / 15 % 2, times: 2, effect });
        return;
    }
    let (disk, world) = (world.disk(), world.clone());
    let sleeper = disk.clone();
    disk.spawn("test", async move {
        while world.faults_left() > 0 && world.elapsed() < PATIENCE / 2 {
            sleeper.sleep(Duration::from_micros(100)).await;
        }
        world.set_capacity(world.used_bytes());
        sleeper.sleep(Duration::from_secs(3)).await;
        world.set_capacity(1 << 60);
    });
}

/// Fails each operation in turn; how many lives were struck.
fn each(base: u64, count: u64, target: Target) -> usize {
    let mut struck = 0;
    for (at, operation) in (0_u64..).zip(OPERATIONS) {
        for skip in 0..count {
            let seed = (base << 32) + at * 10_000 + skip;
            struck += usize::from(fails_at(seed, operation, skip, target));
        }
    }
    struck
}

#[test]
fn what_fails_on_one_log_takes_it_alone_offline() {
    let target = Target { alone: Some("log-0"), ..Target::new("/logs/log-0", 1) };
    let struck = each(31, 70, target) + each(37, 70, target);
    assert!(struck > 250, "{struck}");
}

#[test]
fn a_log_that_fails_when_there_is_no_room_is_saved_once_there_is() {
    let target = Target { alone: Some("log-0"), full: true, ..Target::new("/logs/log-0", 1) };
    let struck = each(36, 60, target);
    assert!(struck > 70, "{struck}");
}

#[test]
fn a_log_that_fails_again_and_again_is_never_acknowledged_wrongly() {
    let struck = each(32, 40, Target::new("/logs/log-0", u64::MAX));
    assert!(struck > 100, "{struck}");
}

#[test]
fn what_fails_on_the_journal_or_the_checkpoint_loses_nothing() {
    let of_journal = each(33, 40, Target::new("/journal/", 1));
    let of_checkpoint = each(34, 12, Target::new("checkpoint", 1));
    assert!(of_journal > 60 && of_checkpoint > 20, "{of_journal} and {of_checkpoint}");
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost() {
    let struck = each(35, 100, Target::new("", 1));
    assert!(struck > 300, "{struck}");
}
