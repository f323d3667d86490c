//! The disk gets full at each write of a workload in turn, and later has room again: nothing acknowledged is lost, nothing
//! fails but appends, which are refused, and the store serves again by itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use penstock_storage::disk::Disk;
use penstock_storage::disk::sim::{Crash, Effect, Fault, Operation, SimWorld};

use crate::crash::{Profile, plan, unlimited};
use crate::oracle::{Oracle, OracleRef, Unjudged};
use crate::plan::Plan;
use crate::traffic::{Ending, PATIENCE, live};

/// How long the disk stays full.
const FULL: Duration = Duration::from_secs(3);

fn profile() -> Profile {
    Profile {
        logs: 2,
        value_bytes_max: 6_000,
        direct_bytes_min: 8192,
        segment_bytes: 32 << 10,
        retention_bytes: 64 << 10,
        checkpoint_bytes: 96 << 10,
        ..unlimited()
    }
}

/// Runs a life to its end, or (`None`) until `cut` says so.
pub(crate) fn run(
    world: &SimWorld,
    oracle: &OracleRef,
    plan: &Plan,
    closed: bool,
    cut: impl Fn() -> bool,
) -> Option<Ending> {
    let outcome = Rc::new(RefCell::new(None));
    let (output, life) =
        (outcome.clone(), live(world.clone(), oracle.clone(), Rc::new(plan.clone()), closed));
    world.spawn(async move {
        let ending = life.await;
        *output.borrow_mut() = Some(ending);
    });
    while outcome.borrow().is_none() && !cut() {
        assert!(!world.run_until(world.steps() + 1) || outcome.borrow().is_some(), "every task waits");
        assert!(world.elapsed() < PATIENCE, "something hangs");
    }
    let violation = oracle.borrow_mut().violation.take();
    assert_eq!(violation, None);
    match outcome.take() {
        None => None,
        Some(Ok(ending)) => Some(ending),
        Some(Err(Unjudged::Broken(violation))) => panic!("{violation:?}"),
        Some(Err(Unjudged::DiskFailed)) => panic!("a read failed"),
    }
}

fn no_space(operation: Operation, skip: u64) -> Fault {
    let effect = Effect::Fail(libc::ENOSPC);
    Fault { operation, path_contains: String::new(), skip, times: u64::MAX, effect }
}

/// How the time without room ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Room,
    Crash(Crash),
}

/// A life in which no write has room from the `writes`-th on; says whether it came so far.
fn full_from(seed: u64, writes: u64, end: End) -> bool {
    let oracle: OracleRef = Rc::new(RefCell::new(Oracle { full: true, forgets: true, ..Oracle::default() }));
    let plan = Plan { close: true, operations: 600, ..plan(&profile()) };
    let world = SimWorld::new(seed);
    world.inject(no_space(Operation::Write, writes));
    let disk = world.disk();
    let (sleeper, inner) = (disk.clone(), world.clone());
    let full_since = Rc::new(RefCell::new(None));
    let since = full_since.clone();
    disk.spawn("test", async move {
        while inner.count(Operation::Write) <= writes {
            sleeper.sleep(Duration::from_millis(1)).await;
            if inner.elapsed() > PATIENCE {
                return;
            }
        }
        // Files cannot grow either.
        inner.inject(no_space(Operation::Allocate, 0));
        since.replace(Some(inner.elapsed()));
        sleeper.sleep(FULL).await;
        if end == End::Room {
            inner.clear_faults();
        }
    });
    let over = || full_since.borrow().is_some_and(|since: Duration| world.elapsed() >= since + FULL);
    let ending = run(&world, &oracle, &plan, false, || end != End::Room && over());
    let came = world.count(Operation::Write) > writes;
    world.clear_faults();
    oracle.borrow_mut().crashed();
    let world = world.crash(if let End::Crash(crash) = end { crash } else { Crash::Kill });
    // With room again: what was acknowledged is there, and appends are taken.
    oracle.borrow_mut().full = false;
    let ended = run(&world, &oracle, &plan, false, || false);
    assert_eq!(ended, Some(Ending::Closed), "seed {seed}, write {writes}, {end:?}, before {ending:?}");
    came
}

/// Writes at which the disk is full: beyond most lives' end.
const WRITES: u64 = 250;

#[test]
fn the_disk_is_full_at_each_write_and_has_room_again() {
    let came = (0..WRITES).filter(|writes| full_from(*writes, *writes, End::Room)).count();
    assert!(came > 150, "{came}");
}

#[test]
fn the_broker_dies_while_the_disk_is_full() {
    let crash = |writes: u64| [Crash::Kill, Crash::PowerLoss][(writes / 2) as usize % 2];
    let came =
        (0..WRITES).filter(|writes| full_from(1000 + writes, *writes, End::Crash(crash(*writes)))).count();
    assert!(came > 150, "{came}");
}
