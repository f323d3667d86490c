//! Each operation of a workload fails once in turn, on the files of one log, of the journal, of the checkpoint, or on any
//! at all: nothing is acknowledged that is not there afterwards, nothing acknowledged is lost, and what is of one log
//! takes no other offline.

use std::cell::RefCell;
use std::rc::Rc;

use penstock_storage::disk::sim::{Crash, Effect, Fault, Operation, SimWorld};

use crate::crash::{Profile, plan, unlimited};
use crate::full::run;
use crate::oracle::{Oracle, OracleRef};
use crate::traffic::{Ending, Plan};

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
}

/// A life in which operations fail from the `skip`-th of their kind on; says whether any did.
fn fails_at(seed: u64, operation: Operation, skip: u64, target: Target) -> bool {
    let oracle = Oracle { faulty: true, alone: target.alone.map(str::to_owned), ..Oracle::default() };
    let oracle: OracleRef = Rc::new(RefCell::new(oracle));
    let plan = plan(&profile(if seed.is_multiple_of(2) { 4096 } else { 1 << 20 }));
    let plan = Plan { operations: 500, close: seed.is_multiple_of(5), ..plan };
    let world = SimWorld::new(seed);
    let effect = Effect::Fail(libc::EIO);
    let (path_contains, times) = (target.path.to_owned(), target.times);
    world.inject(Fault { operation, path_contains, skip, times, effect });
    let ending = run(&world, &oracle, &plan, false, || false);
    let struck = world.faults_left() < times;
    let closed = ending == Some(Ending::Closed);
    world.clear_faults();
    oracle.borrow_mut().crashed();
    let world = world.crash(if seed % 4 < 2 { Crash::PowerLoss } else { Crash::Kill });
    (oracle.borrow_mut().faulty, oracle.borrow_mut().alone) = (false, None);
    let plan = Plan { close: true, operations: 20, ..plan };
    let after = run(&world, &oracle, &plan, closed, || false);
    assert_eq!(after, Some(Ending::Closed), "seed {seed}, {operation:?} {skip} of {target:?}, {ending:?}");
    struck
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
    let target = Target { path: "/logs/log-0", alone: Some("log-0"), times: 1 };
    let struck = each(31, 60, target);
    assert!(struck > 150, "{struck}");
}

#[test]
fn a_log_that_fails_again_and_again_is_never_acknowledged_wrongly() {
    let struck = each(32, 40, Target { path: "/logs/log-0", alone: None, times: u64::MAX });
    assert!(struck > 100, "{struck}");
}

#[test]
fn what_fails_on_the_journal_or_the_checkpoint_loses_nothing() {
    let of_journal = each(33, 40, Target { path: "/journal/", alone: None, times: 1 });
    let of_checkpoint = each(34, 12, Target { path: "checkpoint", alone: None, times: 1 });
    assert!(of_journal > 60 && of_checkpoint > 20, "{of_journal} and {of_checkpoint}");
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost() {
    let struck = each(35, 100, Target { path: "", alone: None, times: 1 });
    assert!(struck > 300, "{struck}");
}
