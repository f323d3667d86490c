//! Random work beside a naive twin, with failures, a crash at a random step, and what must hold afterwards.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

type Newest = BTreeMap<Key, (u64, Producer)>;

/// What the runs should say.
#[derive(Default)]
struct Twin {
    newest: Newest,
    /// Entries that a merge refused: they may be gone, or be there still.
    refused: BTreeSet<(Key, u64)>,
    /// What the last checkpoint named, and the one being written, with what they should hold.
    checkpoints: Vec<(Vec<RunRecord>, Newest)>,
    next_number: u64,
    mark: i64,
}

type Shared = Rc<RefCell<Twin>>;

fn number(twin: &Shared) -> u64 {
    let mut twin = twin.borrow_mut();
    twin.next_number += 1;
    twin.next_number
}

/// Some entries with few keys, so that they meet again.
fn some(world: &SimWorld, twin: &Shared) -> Vec<(Key, Producer)> {
    let mut twin = twin.borrow_mut();
    let mut entries = BTreeMap::new();
    for _ in 0..1 + world.random(400) {
        twin.mark += 1;
        let key = (world.random(4), world.random(250) as i64);
        entries.insert(key, producer(twin.mark, world.random(6) as usize));
    }
    entries.into_iter().collect()
}

/// Whether `found` is what the twin has of a key, or may be.
fn agrees(
    newest: Option<&(u64, Producer)>,
    refused: &BTreeSet<(Key, u64)>,
    key: Key,
    found: Option<&(u64, Producer)>,
) -> bool {
    found == newest || found.is_none() && newest.is_some_and(|(first, _)| refused.contains(&(key, *first)))
}

async fn verify(disk: &SimDisk, spilled: &Spilled<SimDisk>, newest: &Newest, twin: &Shared) {
    let refused = twin.borrow().refused.clone();
    for log in 0..4 {
        let all = spilled.all_of(disk, log).await.unwrap();
        assert!(all.is_sorted_by(|a, b| a.1 < b.1));
        let all: Newest =
            all.into_iter().map(|(first, id, producer)| ((log, id), (first, producer))).collect();
        for id in 0..250 {
            let found = spilled.find(disk, (log, id)).await.unwrap();
            assert_eq!(found.as_ref(), all.get(&(log, id)));
            assert!(
                agrees(newest.get(&(log, id)), &refused, (log, id), found.as_ref()),
                "{log} {id}: {found:?}"
            );
        }
    }
}

async fn merge_now_and_then(world: SimWorld, disk: SimDisk, spilled: Rc<Spilled<SimDisk>>, twin: Shared) {
    loop {
        disk.sleep(std::time::Duration::from_millis(world.random(100))).await;
        if !spilled.wants_merge() && world.random(8) > 0 {
            continue;
        }
        let (luck, refused) = (world.random(5), twin.clone());
        let keep = move |key: Key, first: u64, _: &Producer| {
            let keep = luck == 0 || (key.1 as u64 + first) % 7 != luck;
            if !keep {
                refused.borrow_mut().refused.insert((key, first));
            }
            keep
        };
        if let Ok(outcome) = spilled.merge(&disk, number(&twin), &keep).await {
            assert_eq!(outcome.lost, [""; 0]);
        }
    }
}

async fn checkpoint_now_and_then(
    world: SimWorld,
    disk: SimDisk,
    spilled: Rc<Spilled<SimDisk>>,
    twin: Shared,
) {
    loop {
        disk.sleep(std::time::Duration::from_millis(world.random(100))).await;
        let records = spilled.records();
        let newest = twin.borrow().newest.clone();
        twin.borrow_mut().checkpoints.push((records.clone(), newest));
        disk.sleep(std::time::Duration::from_millis(world.random(40))).await;
        twin.borrow_mut().checkpoints.remove(0);
        for path in spilled.told_of(&records) {
            let removed = disk.remove(&path).await;
            assert!(removed.is_ok() || world.faults_left() < 2, "{}", path.display());
        }
    }
}

async fn look_up(world: SimWorld, disk: SimDisk, spilled: Rc<Spilled<SimDisk>>, twin: Shared) {
    loop {
        let key = (world.random(4), world.random(250) as i64);
        let of_key = || twin.borrow().newest.get(&key).cloned();
        let before = of_key();
        let may_have = spilled.may_have(key);
        let found = spilled.find(&disk, key).await.unwrap();
        let (expected, refused) = ([before, of_key()], twin.borrow().refused.clone());
        let agreed = expected.iter().any(|newest| agrees(newest.as_ref(), &refused, key, found.as_ref()));
        assert!(agreed, "{key:?}: {found:?}");
        assert!(found.is_none() || may_have);
        disk.sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// Writes runs, some of which fail.
async fn work(world: SimWorld, disk: SimDisk, spilled: Rc<Spilled<SimDisk>>, twin: Shared) {
    loop {
        let operation = match world.random(20) {
            0 => Some(Operation::Write),
            1 => Some(Operation::Sync),
            2 => Some(Operation::SyncDir),
            _ => None,
        };
        if let Some(operation) = operation {
            world.inject(fail(operation, "producers", world.random(3)));
        }
        let (number, entries) = (number(&twin), some(&world, &twin));
        if spilled.write(&disk, number, &entries).await.is_ok() {
            let entries = entries.into_iter().map(|(key, producer)| (key, (number, producer)));
            twin.borrow_mut().newest.extend(entries);
        }
        assert!(spilled.records().len() <= 40);
        disk.sleep(std::time::Duration::from_millis(world.random(30))).await;
    }
}

/// Opens by what a checkpoint named, which must be there whole, and nothing else.
async fn begin(world: &SimWorld, disk: &SimDisk, twin: &Shared) -> Rc<Spilled<SimDisk>> {
    let last = {
        // Whether the one under way was stable is for the disk to say: either may count.
        let mut twin = twin.borrow_mut();
        let at = world.random(twin.checkpoints.len() as u64) as usize;
        let last = twin.checkpoints.swap_remove(at);
        twin.checkpoints = vec![last.clone()];
        // Numbers come again that no checkpoint names.
        let number = last.0.iter().map(|record| record.number).max().unwrap_or(0);
        twin.next_number = number;
        twin.refused.retain(|(_, first)| *first <= number);
        last
    };
    let spilled = reopened(disk, &last.0).await;
    if world.random(2) == 0 {
        spilled.sweep(disk).await.unwrap();
        assert_eq!(names(world).len(), last.0.len());
    }
    verify(disk, &spilled, &last.1, twin).await;
    twin.borrow_mut().newest = last.1;
    Rc::new(spilled)
}

fn run(seed: u64) {
    let mut world = SimWorld::new(seed);
    let disk = world.disk();
    world.block_on(async move {
        disk.create_dir_all(Path::new(DIR)).await.unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
    });
    let twin = Shared::default();
    twin.borrow_mut().checkpoints.push(Default::default());
    for _ in 0..4 {
        let (inner, disk, shared) = (world.clone(), world.disk(), twin.clone());
        let spilled = world.block_on(async move { begin(&inner, &disk, &shared).await });
        let parts = || (world.clone(), world.disk(), spilled.clone(), twin.clone());
        let (inner, disk, spilled_by, told) = parts();
        world.spawn(work(inner, disk, spilled_by, told));
        let (inner, disk, spilled_by, told) = parts();
        world.spawn(merge_now_and_then(inner, disk, spilled_by, told));
        let (inner, disk, spilled_by, told) = parts();
        world.spawn(checkpoint_now_and_then(inner, disk, spilled_by, told));
        let (inner, disk, spilled_by, told) = parts();
        world.spawn(look_up(inner, disk, spilled_by, told));
        world.run_until(world.steps() + 100 + world.random(6_000));
        let crash = if world.random(4) == 0 { Crash::Kill } else { Crash::PowerLoss };
        world = world.crash(crash);
    }
    let (inner, disk) = (world.clone(), world.disk());
    world.block_on(async move {
        let spilled = begin(&inner, &disk, &twin).await;
        let newest = twin.borrow().newest.clone();
        let next = number(&twin);
        spilled.merge(&disk, next, &keep_all).await.unwrap();
        verify(&disk, &spilled, &newest, &twin).await;
    });
}

#[test]
fn the_runs_say_what_their_twin_says_whatever_crashes() {
    // One seed alone: SEED=n; more of them: SEEDS=n.
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let count = std::env::var("SEEDS").ok().and_then(|seed| seed.parse().ok()).unwrap_or(40);
    for seed in first.map_or(0..count, |seed| seed..seed + 1) {
        let named = Named(seed);
        run(seed);
        drop(named);
    }
}

/// Says which seed failed.
struct Named(u64);

impl Drop for Named {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={}", self.0);
        }
    }
}
