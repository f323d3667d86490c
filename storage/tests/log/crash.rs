//! Crashes at random steps: nothing acknowledged is lost, nothing torn is served, and life goes on.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use oorandom::Rand64;
use penstock_storage::disk::sim::{Crash, Effect, Fault, Operation, SimWorld};
use penstock_storage::{LogConfig, ReadAheadConfig, StoreConfig};

use crate::oracle::{OracleRef, Unjudged, Violation};
use crate::plan::Plan;
use crate::traffic::{Ending, PATIENCE, live};

/// Lives, hence crash points, of one seed.
const LIVES: u64 = 8;

/// What a test varies.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Profile {
    pub(crate) logs: usize,
    pub(crate) value_bytes_max: u64,
    /// Largest batch that no frame can hold; 0 for none of them.
    pub(crate) large_bytes_max: u64,
    pub(crate) direct_bytes_min: usize,
    /// Commits of at most so many bytes go inline whole while write behind keeps up.
    pub(crate) inline_commit_bytes_max: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) retention_bytes: i64,
    /// A checkpoint comes after so many appended bytes.
    pub(crate) checkpoint_bytes: u64,
    /// Some lives have a disk that fails.
    pub(crate) faults: bool,
    /// Every other life ends by a power loss while it recovers from the kill of the one before.
    pub(crate) in_recovery: bool,
}

/// Counts of what was tried.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) crashes: u64,
    pub(crate) steps: u64,
    pub(crate) closed: u64,
    pub(crate) failed: u64,
}

/// Runs one seed's lives. `spoil` may plant faults into each new world.
pub(crate) fn run_seed(
    seed: u64,
    plan: &Plan,
    profile: &Profile,
    tally: &mut Tally,
    spoil: &dyn Fn(&SimWorld),
) -> Result<(), Violation> {
    let mut random = Rand64::new(u128::from(seed));
    let mut below = |bound: u64| random.rand_range(0..bound);
    let oracle: OracleRef = Rc::default();
    let mut world = SimWorld::new(seed);
    let mut closed = false;
    for number in 0..=LIVES {
        // The last life is only opened and checked, with nothing to stop it.
        let last = number == LIVES;
        let recovering = profile.in_recovery && number % 2 == 1;
        let limit = match (last, profile.in_recovery) {
            (true, _) => Limit::NONE,
            (_, true) if recovering => Limit::in_recovery(&mut below),
            (_, true) => Limit::in_flush(&mut below),
            (_, false) => Limit::anywhere(&mut below),
        };
        spoil(&world);
        oracle.borrow_mut().faulty = profile.faults && !last && below(3) == 0;
        let fault = oracle.borrow().faulty.then(|| random_fault(&mut below));
        oracle.borrow_mut().forgets |= fault.is_some();
        if let Some(fault) = &fault {
            world.inject(fault.clone());
        }
        let operations = if last { 0 } else { plan.operations };
        let plan = Rc::new(Plan { close: below(2) == 0, operations, ..plan.clone() });
        let life = live(world.clone(), oracle.clone(), plan, closed);
        let faulty = oracle.borrow().faulty;
        let described = format!("{limit:?}");
        let ending = run_life(&world, limit, faulty, life);
        if env("PENSTOCK_SEED").is_some() {
            let (step, now) = (world.steps(), world.elapsed());
            eprintln!("life {number}: {ending:?} at step {step} of {described}, {now:?}, fault {fault:?}");
        }
        let ending = ending?;
        if let Some(violation) = oracle.borrow_mut().violation.take() {
            return Err(violation);
        }
        tally.crashes += 1;
        tally.steps += world.steps();
        tally.closed += u64::from(ending == Some(Ending::Closed));
        tally.failed += u64::from(ending == Some(Ending::Failed));
        // Closing on a full disk leaves what the journal holds to the next opening.
        let full = matches!(&fault, Some(Fault { effect: Effect::Fail(libc::ENOSPC), .. }));
        closed = ending == Some(Ending::Closed) && !full;
        oracle.borrow_mut().crashed();
        world.clear_faults();
        let kill = if profile.in_recovery { !recovering } else { below(5) == 0 };
        world = world.crash(if kill { Crash::Kill } else { Crash::PowerLoss });
    }
    Ok(())
}

/// Where a life is cut short: at a step, or some steps after so many operations of some kinds were begun.
#[derive(Debug)]
struct Limit {
    steps: u64,
    operations: Option<(&'static [Operation], u64)>,
    steps_after: u64,
}

impl Limit {
    const NONE: Limit = Limit { steps: u64::MAX, operations: None, steps_after: 0 };

    /// Sooner or later, or (a quarter of all) not at all.
    fn anywhere(below: &mut impl FnMut(u64) -> u64) -> Limit {
        let whole = below(4) == 0;
        let steps = 1 << below(13);
        if whole { Limit::NONE } else { Limit { steps: steps + below(steps), ..Limit::NONE } }
    }

    /// While something written is being flushed.
    fn in_flush(below: &mut impl FnMut(u64) -> u64) -> Limit {
        let operations = Some((&[Operation::Sync][..], 6 + below(24)));
        Limit { operations, steps_after: below(3), ..Limit::NONE }
    }

    /// While recovery writes and flushes, which lies within few of its steps.
    fn in_recovery(below: &mut impl FnMut(u64) -> u64) -> Limit {
        let kinds = &[Operation::Write, Operation::Sync, Operation::SyncDir][..];
        Limit { operations: Some((kinds, 4 + below(12))), steps_after: below(6), ..Limit::NONE }
    }

    /// Runs up to the limit or a bit less far; says whether the limit is reached, or that every task waits.
    fn run(&mut self, world: &SimWorld) -> Result<bool, Violation> {
        if let Some((kinds, count)) = self.operations
            && kinds.iter().map(|kind| world.count(*kind)).sum::<u64>() >= count
        {
            (self.steps, self.operations) = (world.steps() + self.steps_after, None);
        }
        let many = if self.operations.is_some() { 1 } else { 1000 };
        if world.run_until(self.steps.min(world.steps() + many)) {
            return Err(Violation("deadlock: every task waits".into()));
        }
        Ok(world.steps() >= self.steps)
    }
}

/// Runs a life up to its limit, or to its end if there is none: then it must end in good time.
fn run_life(
    world: &SimWorld,
    mut limit: Limit,
    faulty: bool,
    life: impl Future<Output = Result<Ending, Unjudged>> + 'static,
) -> Result<Option<Ending>, Violation> {
    let outcome = Rc::new(RefCell::new(None));
    let output = outcome.clone();
    world.spawn(async move {
        let ending = life.await;
        *output.borrow_mut() = Some(ending);
    });
    let mut reached = false;
    while outcome.borrow().is_none() && !reached {
        reached = match limit.run(world) {
            Err(deadlock) if outcome.borrow().is_none() => return Err(deadlock),
            Err(_) => true,
            Ok(reached) => reached,
        };
        if world.elapsed() > PATIENCE {
            return Err(Violation("something hangs".into()));
        }
    }
    match outcome.take() {
        None => Ok(None),
        Some(Ok(ending)) => Ok(Some(ending)),
        Some(Err(Unjudged::DiskFailed)) if faulty => Ok(Some(Ending::Failed)),
        Some(Err(Unjudged::DiskFailed)) => Err(Violation("a read failed without a planned fault".into())),
        Some(Err(Unjudged::Broken(violation))) => Err(violation),
    }
}

fn random_fault(below: &mut impl FnMut(u64) -> u64) -> Fault {
    let operations =
        [Operation::Write, Operation::Sync, Operation::Read, Operation::Allocate, Operation::SyncDir];
    let operation = operations[below(5) as usize];
    let full = operation != Operation::Read && below(3) == 0;
    let errno = if full { libc::ENOSPC } else { libc::EIO };
    Fault {
        operation,
        path_contains: String::new(),
        skip: below(100),
        times: 1 + below(5),
        effect: Effect::Fail(errno),
    }
}

/// Sizes small enough that every limit is met within a few hundred operations.
pub(crate) fn plan(profile: &Profile) -> Plan {
    let store = StoreConfig {
        journal_file_bytes: 256 << 10,
        journal_files: 4,
        unsettled_bytes_max: 128 << 10,
        cache_bytes_max: 64 << 10,
        index_bytes_max: 4 << 10,
        index_worth_bytes: 4 << 10,
        open_files_max: 4,
        segment_bytes_max: 256 << 10,
        recycle_bytes_max: 256 << 10,
        direct_bytes_min: profile.direct_bytes_min,
        inline_commit_bytes_max: profile.inline_commit_bytes_max,
        commit_bytes_target: 32 << 10,
        checkpoint_bytes: profile.checkpoint_bytes,
        checkpoint_late_bytes_max: profile.checkpoint_bytes / 2,
        checkpoint_step_bytes: 1,
        read_ahead: ReadAheadConfig {
            bytes_max: 48 << 10,
            stretch_bytes: 8 << 10,
            stretches_max: 4,
            in_flight_bytes_max: 16 << 10,
            in_flight_bytes_beside_commits: 8 << 10,
            readers_per_log_max: 2,
            readers_max: 4,
        },
        producers_per_log_max: 4,
        producers_max: 6,
        ..StoreConfig::default()
    };
    let log = LogConfig {
        segment_bytes: profile.segment_bytes,
        retention_bytes: profile.retention_bytes,
        index_interval_bytes: 1024,
        ..LogConfig::default()
    };
    let &Profile { logs, value_bytes_max, large_bytes_max, .. } = profile;
    let pause_ms_max = if profile.in_recovery { 40 } else { 0 };
    Plan { store, log, logs, operations: 60, value_bytes_max, large_bytes_max, pause_ms_max, close: false }
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Runs seeds until enough crashes have happened.
fn survive(test: u64, profile: Profile) {
    let plan = plan(&profile);
    let (began, mut tally) = (Instant::now(), Tally::default());
    let crashes = env("PENSTOCK_CRASHES").unwrap_or(2600);
    let mut seed = env("PENSTOCK_SEED").unwrap_or(test << 32);
    while tally.crashes < crashes {
        let run = || run_seed(seed, &plan, &profile, &mut tally, &|_| {});
        let outcome = catch_unwind(AssertUnwindSafe(run));
        let again = format!("run again with PENSTOCK_SEED={seed}");
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(violation)) => panic!("{}; {again}", violation.0),
            Err(_) => panic!("panicked (see above); {again}"),
        }
        if env("PENSTOCK_SEED").is_some() {
            break;
        }
        seed += 1;
    }
    let rate = tally.crashes as f64 / began.elapsed().as_secs_f64();
    eprintln!("{tally:?}, {rate:.0} crashes/s");
}

#[test]
fn small_batches_through_the_journal() {
    let profile = Profile {
        logs: 3,
        value_bytes_max: 2_000,
        direct_bytes_min: 1 << 20,
        segment_bytes: 64 << 10,
        ..unlimited()
    };
    survive(1, profile);
}

#[test]
fn large_batches_straight_to_segments() {
    let profile = Profile {
        logs: 2,
        value_bytes_max: 20_000,
        large_bytes_max: 200_000,
        direct_bytes_min: 4096,
        segment_bytes: 128 << 10,
        ..unlimited()
    };
    survive(2, profile);
}

#[test]
fn power_is_lost_while_a_kill_is_recovered_from() {
    survive(5, in_recovery());
}

/// Many small batches and many checkpoints: most recoveries rewrite blocks that begin with settled bytes.
pub(crate) fn in_recovery() -> Profile {
    Profile {
        logs: 2,
        value_bytes_max: 300,
        direct_bytes_min: 4096,
        segment_bytes: 32 << 10,
        checkpoint_bytes: 1,
        in_recovery: true,
        ..unlimited()
    }
}

#[test]
fn retention_recycles_segments() {
    let profile = Profile {
        logs: 2,
        value_bytes_max: 8_000,
        direct_bytes_min: 8192,
        inline_commit_bytes_max: 16 << 10,
        segment_bytes: 32 << 10,
        retention_bytes: 64 << 10,
        ..unlimited()
    };
    survive(3, profile);
}

#[test]
fn many_logs_on_a_failing_disk() {
    let profile = Profile {
        logs: 6,
        value_bytes_max: 6_000,
        large_bytes_max: 100_000,
        direct_bytes_min: 8192,
        inline_commit_bytes_max: 16 << 10,
        segment_bytes: 64 << 10,
        faults: true,
        ..unlimited()
    };
    survive(4, profile);
}

pub(crate) fn unlimited() -> Profile {
    Profile { retention_bytes: -1, checkpoint_bytes: 192 << 10, ..Profile::default() }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let profile = Profile {
        logs: 3,
        value_bytes_max: 6_000,
        direct_bytes_min: 8192,
        segment_bytes: 64 << 10,
        ..unlimited()
    };
    let steps = || {
        let mut tally = Tally::default();
        run_seed(99, &plan(&profile), &profile, &mut tally, &|_| {}).map(|()| tally.steps)
    };
    assert_eq!(steps(), steps());
}
