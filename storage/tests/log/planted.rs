//! The crash test finds faults that are planted: an oracle that finds nothing proves nothing.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use penstock_storage::disk::Disk;
use penstock_storage::disk::sim::{Effect, Fault, Operation, SimWorld};

use crate::crash::{Profile, Tally, in_recovery, plan, run_seed, unlimited};
use crate::plan::Plan;

fn profile() -> Profile {
    Profile {
        logs: 2,
        value_bytes_max: 20_000,
        large_bytes_max: 0,
        direct_bytes_min: 4096,
        segment_bytes: 128 << 10,
        ..unlimited()
    }
}

/// Most seeds tried: 10,000 crash points.
const SEEDS_MAX: u64 = 1250;

/// The first broken promise that the crash test finds in so many seeds.
fn found(seeds: u64, profile: &Profile, plan: &Plan, spoil: &dyn Fn(&SimWorld)) -> Option<String> {
    (0..seeds).find_map(|seed| {
        let run = || run_seed(seed, plan, profile, &mut Tally::default(), spoil).err();
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(violation) => violation.map(|violation| violation.0),
            // The simulated disk noticed it: two segments have one file.
            Err(panic) => match panic.downcast_ref::<String>() {
                Some(message) if message.contains("overlapping writes in flight") => Some(message.clone()),
                _ => resume_unwind(panic),
            },
        }
    })
}

/// Operations that make files whose path contains `name` stable report success and do nothing.
fn skipped(operation: Operation, name: &str) -> Fault {
    Fault { operation, path_contains: name.into(), skip: 0, times: u64::MAX, effect: Effect::Ignore }
}

fn is_found(operation: Operation, name: &str) -> bool {
    let profile = profile();
    let spoil = |world: &SimWorld| world.inject(skipped(operation, name));
    found(SEEDS_MAX, &profile, &plan(&profile), &spoil).is_some()
}

/// Segments come and go, and their files with them.
fn recycling() -> Profile {
    Profile { segment_bytes: 32 << 10, retention_bytes: 64 << 10, ..profile() }
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    for profile in [profile(), in_recovery(), recycling()] {
        assert_eq!(found(40, &profile, &plan(&profile), &|_| {}), None);
    }
}

#[test]
fn a_skipped_flush_of_the_journal_is_found() {
    assert!(is_found(Operation::Sync, "/journal/"));
}

#[test]
fn a_skipped_flush_of_the_journal_at_recovery_is_found() {
    // Recovery is over with its checkpoint; what is flushed later is not skipped.
    let spoil = |world: &SimWorld| {
        let fault = skipped(Operation::Sync, "/journal/");
        world.inject_until(fault, Operation::Write, "checkpoint");
    };
    let profile = in_recovery();
    assert!(found(SEEDS_MAX, &profile, &plan(&profile), &spoil).is_some());
}

#[test]
fn a_skipped_flush_of_one_log_is_found() {
    assert!(is_found(Operation::Sync, "/log-1/"));
}

#[test]
fn a_skipped_flush_of_a_checkpoint_is_found() {
    assert!(is_found(Operation::Sync, "checkpoint"));
}

#[test]
fn a_skipped_flush_of_one_log_s_directory_is_found() {
    assert!(is_found(Operation::SyncDir, "/logs/log-1"));
}

#[test]
fn a_skipped_flush_of_the_directory_that_files_are_reused_from_is_found() {
    let profile = recycling();
    let spoil = |world: &SimWorld| world.inject(skipped(Operation::SyncDir, "/recycle"));
    assert!(found(SEEDS_MAX, &profile, &plan(&profile), &spoil).is_some());
}

#[test]
fn a_segment_file_that_is_gone_is_found() {
    // Not the last of a log: that one is missed at opening already.
    let spoil = |world: &SimWorld| {
        let disk = world.disk();
        world.block_on(async move {
            for log in 0..2 {
                let dir = PathBuf::from(format!("/data/shard-0/logs/log-{log}"));
                let files = disk.list(&dir).await.unwrap_or_default();
                let mut segments = files.iter().filter(|file| file.name.ends_with(".log"));
                if let (Some(first), Some(_)) = (segments.next(), segments.next()) {
                    disk.remove(&dir.join(&first.name)).await.unwrap();
                    disk.sync_dir(&dir).await.unwrap();
                }
            }
        });
    };
    let profile = profile();
    let found = found(SEEDS_MAX, &profile, &plan(&profile), &spoil);
    // By who reads it, or by a start where the journal has records of it.
    let tells = |what: &String| what.contains("a read failed") || what.contains("are damaged: segment 0");
    assert!(found.iter().any(tells), "{found:?}");
}

#[test]
fn an_acknowledgement_before_its_flush_is_found() {
    let profile = profile();
    let mut plan = plan(&profile);
    // What the log then acknowledges at append, this test takes for stable.
    plan.log.flush_messages = u64::MAX;
    assert!(found(SEEDS_MAX, &profile, &plan, &|_| {}).is_some());
}
