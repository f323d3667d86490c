//! Operations fail on the files of a log while it is cleaned, old segments and new ones alike, and while the scrub reads it:
//! what was acknowledged is there afterwards, and the log beside it is served all the time.

use std::cell::RefCell;

use std::rc::Rc;

use penstock_format::{BatchBuilder, NewRecord};

use penstock_storage::disk::sim::{Crash, Effect, Fault, Operation, SimDisk, SimWorld};
use penstock_storage::{AppendContext, Log, LogConfig, Origin, StoreConfig};

use super::twin::Twin;
use super::{Outcome, Profile, Run, profile, seeds, whole_life};

/// What a life that was struck came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Life {
    /// Offsets below were clean when something failed.
    cleaned_to: i64,
    /// The log went offline, and was saved to sound files.
    saved: bool,
    scrubbed_batches: u64,
}

/// How often each came to be.
#[derive(Debug, Default)]
struct Met {
    struck: usize,
    offline: usize,
    /// Logs saved that were clean in part.
    saved_cleaned: usize,
    scrubbed_batches: u64,
}

fn failing_profile(seed: u64) -> Profile {
    let profile = profile(seed);
    let store = StoreConfig {
        // What was written behind and not flushed is in memory still, or (every other time) in the journal alone, and the
        // store goes offline with the log.
        cache_bytes_max: if is_alone(seed) { 4 << 20 } else { profile.store.cache_bytes_max },
        checkpoint_bytes: 24 << 10,
        checkpoint_step_bytes: 1,
        ..profile.store
    };
    Profile { store, operations: 120, ..profile }
}

/// Whether nothing but the log itself may go offline.
fn is_alone(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

/// The log beside.
async fn neighbour(run: &Run) -> Outcome<Log<SimDisk>> {
    match run.store.log("plain") {
        Some(log) => Ok(log),
        None => {
            let created = run.store.create_log("plain", LogConfig::default()).await;
            created.map_err(|error| format!("creating the log beside: {error}"))
        }
    }
}

async fn append_beside(run: &Run, log: &Log<SimDisk>) -> Outcome {
    let mut builder = BatchBuilder::new();
    let record = NewRecord { timestamp: run.now_ms(), value: Some(b"beside"), ..NewRecord::default() };
    builder.append(&record).unwrap();
    let batch = builder.finish().unwrap();
    let context = AppendContext { leader_epoch: 1, now_ms: record.timestamp, origin: Origin::Client };
    let room = run.store.reserve(batch.len()).await.map_err(|error| format!("beside: {error}"))?;
    let appended = log.append(vec![batch], context).map_err(|error| format!("beside: {error}"))?;
    drop(room);
    log.durable(appended.ticket).await.map_err(|error| format!("beside: {error}"))
}

/// What fails of a log that is offline says nothing: the next life judges.
fn unless_offline(run: &Run, outcome: Outcome) -> Outcome {
    if run.log.offline().is_some() { Ok(()) } else { outcome }
}

/// Lives until something fails, or all is done; then whoever is sound goes on.
async fn live(
    (world, operation): (SimWorld, Operation),
    profile: Profile,
    twin: Rc<RefCell<Twin>>,
    seed: u64,
) -> Outcome<Life> {
    // What opening cannot write it makes anew.
    let may_refuse = matches!(operation, Operation::Read | Operation::SyncDir);
    let run = match Run::begin(world.clone(), profile, twin).await {
        Ok(run) => run,
        Err(_) if may_refuse && world.faults_left() == 0 => return Ok(Life::default()),
        Err(what) => return Err(what),
    };
    let beside = neighbour(&run).await?;
    let lived = run.live().await;
    run.wait(50).await;
    unless_offline(&run, lived)?;
    let mut life = Life { cleaned_to: run.log.cleaned_offset(), ..Life::default() };
    if is_alone(seed) && !run.profile.truncates {
        append_beside(&run, &beside).await?;
        run.store.checkpoint().await.map_err(|error| format!("checkpoint: {error}"))?;
        append_beside(&run, &beside).await?;
        life.saved = run.log.offline().is_some();
    }
    let checked = run.check().await;
    unless_offline(&run, checked)?;
    let found = super::equal("damaged places", run.store.stats().scrub_damaged, 0);
    unless_offline(&run, found)?;
    life.scrubbed_batches = run.store.stats().scrub_batches;
    Ok(life)
}

/// Lives until some steps after something failed, while the log is saved or just was.
fn cut_short(world: &SimWorld, life: impl Future<Output = Outcome<Life>> + 'static) -> Outcome<Life> {
    let slot = Rc::new(RefCell::new(None));
    let told = slot.clone();
    world.spawn(async move {
        let lived = life.await;
        *told.borrow_mut() = Some(lived);
    });
    while world.faults_left() > 0 && slot.borrow().is_none() {
        world.run_until(world.steps() + 1);
    }
    world.run_until(world.steps() + world.random(400));
    let lived = slot.borrow_mut().take();
    lived.unwrap_or_else(|| Ok(Life::default()))
}

/// A log is filled and cleaned, the operation fails in the next life, and the life after judges.
fn fails_at(seed: u64, fault: Fault, met: &mut Met) -> Outcome {
    let (world, profile, twin) = (SimWorld::new(seed), failing_profile(seed), Rc::<RefCell<Twin>>::default());
    let short = Profile { operations: 40, ..profile.clone() };
    let (current, its_twin) = (world.clone(), twin.clone());
    world
        .block_on(async move {
            let run = Run::begin(current, short, its_twin).await?;
            let beside = neighbour(&run).await?;
            append_beside(&run, &beside).await?;
            run.live().await?;
            run.wait(200).await;
            Ok::<_, String>(())
        })
        .map_err(|what| format!("before: {what}"))?;
    let world = world.crash(Crash::Kill);
    let operation = fault.operation;
    world.inject(fault);
    let (current, its_twin, mut its_profile) = (world.clone(), twin.clone(), profile.clone());
    its_profile.store.scrub_bytes_per_second = 4 << 20;
    // Where nothing else is due, the clock goes on to the next pass of the scrub: days go by.
    its_profile.log.producer_expiration_ms = i64::MAX;
    let life = live((current, operation), its_profile, its_twin, seed);
    let life = if (seed / 2).is_multiple_of(2) { world.block_on(life)? } else { cut_short(&world, life)? };
    met.struck += usize::from(world.faults_left() == 0);
    met.offline += usize::from(life.saved);
    met.saved_cleaned += usize::from(life.saved && life.cleaned_to > 0);
    met.scrubbed_batches += life.scrubbed_batches;
    world.clear_faults();
    let world = world.crash(if seed.is_multiple_of(3) { Crash::Kill } else { Crash::PowerLoss });
    let mut profile = profile;
    profile.log.producer_expiration_ms = i64::MAX;
    whole_life(&world, &profile, &twin).map_err(|what| format!("afterwards: {what}"))?;
    Ok(())
}

#[test]
fn what_fails_on_a_log_that_is_cleaned_loses_nothing_and_takes_no_other_offline() {
    let mut met = Met::default();
    let operations =
        [Operation::Write, Operation::Sync, Operation::Read, Operation::Allocate, Operation::SyncDir];
    for seed in seeds(15, 600) {
        let operation = operations[(seed / 4 % 5) as usize];
        let skip = (seed & 0xffff_ffff) / 20 * 2;
        let effect = Effect::Fail(libc::EIO);
        let fault = Fault { operation, path_contains: "/logs/clean/".into(), skip, times: 1, effect };
        let failed = fails_at(seed, fault.clone(), &mut met);
        failed.unwrap_or_else(|what| panic!("seed {seed}, {fault:?}: {what}; {:?}", failing_profile(seed)));
    }
    let enough = met.struck > 150 && met.saved_cleaned > 20 && met.scrubbed_batches > 1000;
    assert!(enough || std::env::var("PENSTOCK_SEED").is_ok(), "{met:?}");
}
