//! The crash test finds faults that are planted: an oracle that finds nothing proves nothing.

use std::path::PathBuf;

use penstock_storage::disk::Disk;
use penstock_storage::disk::sim::{Effect, Fault, Operation, SimWorld};

use crate::crash::{Profile, Tally, plan, run_seed};
use crate::traffic::Plan;

fn profile() -> Profile {
    Profile {
        logs: 2,
        value_bytes_max: 20_000,
        large_bytes_max: 0,
        direct_bytes_min: 4096,
        segment_bytes: 128 << 10,
        retention_bytes: -1,
        faults: false,
    }
}

/// Seeds, of 40, in which the crash test finds a broken promise.
fn found(plan: &Plan, spoil: &dyn Fn(&SimWorld)) -> Vec<String> {
    let run = |seed| run_seed(seed, plan, &profile(), &mut Tally::default(), spoil).err();
    (0..40).filter_map(run).map(|violation| violation.0).collect()
}

/// Flushes of files whose path contains `name` report success and do nothing.
fn skip_flushes(name: &'static str) -> impl Fn(&SimWorld) {
    move |world| {
        world.inject(Fault {
            operation: Operation::Sync,
            path_contains: name.into(),
            skip: 0,
            times: u64::MAX,
            effect: Effect::Ignore,
        });
    }
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    assert_eq!(found(&plan(&profile()), &|_| {}), Vec::<String>::new());
}

#[test]
fn a_skipped_flush_of_the_journal_is_found() {
    assert!(!found(&plan(&profile()), &skip_flushes("/journal/")).is_empty());
}

#[test]
fn a_skipped_flush_of_one_log_is_found() {
    assert!(!found(&plan(&profile()), &skip_flushes("/log-1/")).is_empty());
}

#[test]
fn a_skipped_flush_of_a_checkpoint_or_directory_is_found() {
    let spoil = |world: &SimWorld| {
        world.inject(Fault {
            operation: Operation::SyncDir,
            path_contains: String::new(),
            skip: 0,
            times: u64::MAX,
            effect: Effect::Ignore,
        });
    };
    assert!(!found(&plan(&profile()), &spoil).is_empty());
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
    let found = found(&plan(&profile()), &spoil);
    assert!(found.iter().any(|what| what.contains("a read failed")), "{found:?}");
}

#[test]
fn an_acknowledgement_before_its_flush_is_found() {
    let mut plan = plan(&profile());
    // What the log then acknowledges at append, this test takes for stable.
    plan.log.flush_messages = u64::MAX;
    assert!(!found(&plan, &|_| {}).is_empty());
}
