//! The simulated disk keeps its own promises, and breaks the ones it must.

use std::collections::BTreeSet;

use futures_util::future::{join, poll_immediate};

use super::*;

fn filled(value: u8, blocks: usize) -> Bytes {
    let mut buf = AlignedBuf::zeroed(blocks * BLOCK);
    buf.fill(value);
    buf.freeze()
}

async fn new_file(disk: &SimDisk, name: &str) -> SimFile {
    let file = disk.create(Path::new(name), 4 * BLOCK as u64).await.unwrap();
    file.sync_data().await.unwrap();
    disk.sync_dir(Path::new("/")).await.unwrap();
    file
}

fn read_back(world: &SimWorld, name: &'static str) -> io::Result<Vec<u8>> {
    let disk = world.disk();
    world.block_on(async move {
        let file = disk.open(Path::new(name)).await?;
        Ok(file.read_at(0, 16 * BLOCK).await?.to_vec())
    })
}

#[test]
fn synced_writes_survive_and_others_may_be_lost_torn_or_kept() {
    let (mut outcomes, mut garbage) = (BTreeSet::new(), false);
    for seed in 0..300 {
        let world = SimWorld::new(seed);
        let disk = world.disk();
        world.block_on(async move {
            let file = new_file(&disk, "/a").await;
            file.write_at(filled(1, 2), 0).await.unwrap();
            file.sync_data().await.unwrap();
            file.write_at(filled(2, 2), 2 * BLOCK as u64).await.unwrap();
        });
        let content = read_back(&world.crash(Crash::PowerLoss), "/a").unwrap();
        assert_eq!(content.len(), 4 * BLOCK);
        assert!(content[..2 * BLOCK].iter().all(|byte| *byte == 1), "seed {seed}: lost a synced write");
        let new = content[2 * BLOCK..].iter().filter(|byte| **byte == 2).count();
        garbage |= content[2 * BLOCK..].iter().any(|byte| *byte != 0 && *byte != 2);
        assert!(new.is_multiple_of(512));
        outcomes.insert(new.min(1) + usize::from(new == 2 * BLOCK));
    }
    assert_eq!(outcomes.len(), 3, "lost, torn and kept must all happen");
    assert!(garbage);
}

#[test]
fn a_sync_covers_only_its_file_and_what_completed_before_it() {
    let mut lost = [false; 2];
    for seed in 0..100 {
        let world = SimWorld::new(seed);
        let disk = world.disk();
        world.block_on(async move {
            let (a, b) = (new_file(&disk, "/a").await, new_file(&disk, "/b").await);
            b.write_at(filled(1, 1), 0).await.unwrap();
            let write = a.write_at(filled(1, 1), 0);
            let (synced, written) = join(a.sync_data(), write).await;
            synced.and(written).unwrap();
        });
        let world = world.crash(Crash::PowerLoss);
        for (index, name) in ["/a", "/b"].into_iter().enumerate() {
            lost[index] |= read_back(&world, name).unwrap()[0] == 0;
        }
    }
    assert_eq!(lost, [true, true]);
}

#[test]
fn names_need_a_sync_of_their_directory() {
    let mut kept = BTreeSet::new();
    for seed in 0..100 {
        let world = SimWorld::new(seed);
        let disk = world.disk();
        world.block_on(async move {
            disk.create_dir_all(Path::new("/d")).await.unwrap();
            disk.sync_dir(Path::new("/")).await.unwrap();
            new_file(&disk, "/d/a").await;
            disk.sync_dir(Path::new("/d")).await.unwrap();
            new_file(&disk, "/d/b").await;
            disk.rename(Path::new("/d/a"), Path::new("/d/c")).await.unwrap();
        });
        let world = world.crash(Crash::PowerLoss);
        let disk = world.disk();
        let entries = world.block_on(async move { disk.list(Path::new("/d")).await.unwrap() });
        let names: String = entries.into_iter().map(|entry| entry.name).collect();
        assert!(names.contains('a') != names.contains('c'), "a rename keeps the file under one name");
        kept.insert(names);
    }
    assert_eq!(kept.len(), 4, "{kept:?}");
}

#[test]
fn a_rename_between_directories_is_stable_when_both_are_synced() {
    let found = |synced: &'static [&'static str], is_dir: bool| {
        let mut found = BTreeSet::new();
        for seed in 0..100 {
            let world = SimWorld::new(seed);
            let disk = world.disk();
            world.block_on(async move {
                for dir in ["/d", "/e"] {
                    disk.create_dir_all(Path::new(dir)).await.unwrap();
                }
                disk.sync_dir(Path::new("/")).await.unwrap();
                if is_dir {
                    disk.create_dir_all(Path::new("/d/a")).await.unwrap();
                } else {
                    disk.create(Path::new("/d/a"), 0).await.unwrap();
                }
                disk.sync_dir(Path::new("/d")).await.unwrap();
                disk.rename(Path::new("/d/a"), Path::new("/e/b")).await.unwrap();
                for dir in synced {
                    disk.sync_dir(Path::new(dir)).await.unwrap();
                }
            });
            let world = world.crash(Crash::PowerLoss);
            let disk = world.disk();
            found.insert(world.block_on(async move {
                let there = async |path: &str| disk.exists(Path::new(path)).await.unwrap();
                (there("/d/a").await, there("/e/b").await)
            }));
        }
        found.into_iter().collect::<Vec<_>>()
    };
    let (neither, new, old, both) = ((false, false), (false, true), (true, false), (true, true));
    assert_eq!(found(&["/d", "/e"], false), [new]);
    assert_eq!(found(&["/d"], false), [neither, new]);
    assert_eq!(found(&["/e"], false), [new, both]);
    assert_eq!(found(&[], false), [neither, new, old, both]);
    for synced in [&["/d"][..], &["/e"], &["/d", "/e"]] {
        assert_eq!(found(synced, true), [new]);
    }
    assert_eq!(found(&[], true), [new, old]);
}

#[test]
fn write_small_replaces_atomically() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let world = SimWorld::new(seed);
        let disk = world.disk();
        let small = Path::new("/small");
        let begun = world.disk();
        world.block_on(async move { begun.write_small(small, Bytes::from_static(b"old")).await.unwrap() });
        let step = world.steps() + seed % 12;
        let finished = world
            .block_on_until(step, async move { disk.write_small(small, Bytes::from_static(b"newer")).await });
        let world = world.crash(Crash::PowerLoss);
        let disk = world.disk();
        let content = world.block_on(async move { disk.read_small(small, 100).await.unwrap() });
        assert!(finished.is_none() || content == b"newer");
        assert!(content == b"old" || content == b"newer", "seed {seed}: {content:?}");
        seen.insert(content);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_kill_keeps_what_completed_and_a_dropped_write_still_lands() {
    for seed in 0..50 {
        let world = SimWorld::new(seed);
        let disk = world.disk();
        world.block_on(async move {
            let file = new_file(&disk, "/a").await;
            {
                let mut write = std::pin::pin!(file.write_at(filled(3, 1), 0));
                assert!(poll_immediate(write.as_mut()).await.is_none());
            }
            disk.sleep(Duration::from_secs(1)).await;
        });
        let world = world.crash(Crash::Kill);
        assert_eq!(read_back(&world, "/a").unwrap()[0], 3);
    }
}

#[test]
fn faults_strike_as_asked() {
    let mut lost = false;
    for seed in 0..20 {
        let world = SimWorld::new(seed);
        let disk = world.disk();
        let fault =
            |operation, effect| Fault { operation, path_contains: "a".into(), skip: 1, times: 1, effect };
        world.inject(fault(Operation::Write, Effect::Fail(libc::ENOSPC)));
        world.inject(fault(Operation::Sync, Effect::Ignore));
        world.block_on(async move {
            let file = new_file(&disk, "/a").await;
            file.write_at(filled(1, 1), 0).await.unwrap();
            let full = file.write_at(filled(1, 1), BLOCK as u64).await.unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            file.sync_data().await.unwrap();
        });
        assert_eq!(world.count(Operation::Sync), 2);
        lost |= read_back(&world.crash(Crash::PowerLoss), "/a").unwrap()[0] == 0;
    }
    assert!(lost, "the ignored sync vouches for nothing");
}

#[test]
fn the_same_seed_runs_the_same_steps() {
    let run = |seed| {
        let world = SimWorld::new(seed);
        let order = Rc::new(RefCell::new(Vec::new()));
        for task in 0..5 {
            let (disk, order) = (world.disk(), order.clone());
            world.spawn(async move {
                let file = disk.create(Path::new(&format!("/{task}")), 0).await.unwrap();
                file.write_at(filled(task, 1), 0).await.unwrap();
                disk.yield_now().await;
                order.borrow_mut().push(task);
            });
        }
        assert!(world.run_until(u64::MAX));
        (order.take(), world.steps(), world.elapsed())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
#[should_panic(expected = "overlapping writes")]
fn overlapping_writes_are_caught() {
    let world = SimWorld::new(1);
    let disk = world.disk();
    world.block_on(async move {
        let file = new_file(&disk, "/a").await;
        let (first, second) = (file.write_at(filled(1, 2), 0), file.write_at(filled(2, 1), BLOCK as u64));
        let (first, second) = join(first, second).await;
        first.and(second).unwrap();
    });
}
