use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::poll_immediate;

use super::*;
use crate::bytes_io::Reader;
use crate::disk::DiskFile;
use crate::disk::sim::{Crash, Effect, Fault, Operation, SimDisk, SimWorld};
use crate::producer::{BATCHES_KEPT, read_producer};

mod files;
mod merges;
mod twin;

const DIR: &str = "/s";

/// A producer with as many batches, told apart by `mark`.
fn producer(mark: i64, batches: usize) -> Producer {
    assert!(batches <= BATCHES_KEPT);
    let mut bytes = Vec::new();
    for value in [0, 1_000 + mark, 2_000 + mark, -1] {
        bytes.extend_from_slice(&i64::to_le_bytes(value));
    }
    bytes.extend_from_slice(&[3, 0, batches as u8, 0]);
    for n in 0..batches as i64 {
        bytes.extend_from_slice(&(n as i32 + 7).to_le_bytes());
        bytes.extend_from_slice(&2_i32.to_le_bytes());
        bytes.extend_from_slice(&(mark * 10 + n).to_le_bytes());
        bytes.extend_from_slice(&(1_000 + mark).to_le_bytes());
    }
    read_producer(&mut Reader::new(&bytes)).unwrap().1
}

/// Entries of a log: ids by `step` from 0 to below `end`.
fn entries(log: u64, end: i64, step: usize, mark: i64) -> Vec<(Key, Producer)> {
    (0..end).step_by(step).map(|id| ((log, id), producer(mark + id, (id % 6) as usize))).collect()
}

impl Spilled<SimDisk> {
    /// The newest entry of each producer of a log, by ascending id, with the number of the run that it was first
    /// written in.
    async fn all_of(&self, disk: &SimDisk, log: u64) -> Result<Vec<(u64, i64, Producer)>, FindError> {
        let mut all = Vec::new();
        self.each_of(disk, log, |first, id, producer| all.push((first, id, producer))).await?;
        Ok(all)
    }
}

/// Runs a test with the runs of a new store.
fn with<F: Future<Output = ()> + 'static>(test: impl FnOnce(SimWorld, SimDisk, Spilled<SimDisk>) -> F) {
    let world = SimWorld::new(1);
    let disk = world.disk();
    let made = disk.clone();
    world.block_on(async move { made.create_dir_all(Path::new(DIR)).await.unwrap() });
    let test = test(world.clone(), disk, Spilled::new(Path::new(DIR)));
    world.block_on(test);
}

async fn reopened(disk: &SimDisk, records: &[RunRecord]) -> Spilled<SimDisk> {
    let spilled = Spilled::new(Path::new(DIR));
    assert_eq!(spilled.open(disk, records).await.unwrap(), []);
    assert_eq!(spilled.records(), records);
    spilled
}

fn keep_all(_: Key, _: u64, _: &Producer) -> bool {
    true
}

fn fail(operation: Operation, path: &str, skip: u64) -> Fault {
    Fault { operation, path_contains: path.to_owned(), skip, times: 1, effect: Effect::Fail(libc::EIO) }
}

fn names(world: &SimWorld) -> Vec<String> {
    world.files().keys().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_written_is_found_also_after_a_start() {
    with(async |world, disk, spilled| {
        let (old, new) = (entries(1, 3_000, 2, 0), entries(1, 3_000, 3, 500));
        spilled.write(&disk, 4, &old).await.unwrap();
        let other = entries(2, 100, 1, 900);
        spilled.write(&disk, 5, &[new.clone(), other.clone()].concat()).await.unwrap();
        let again = reopened(&disk, &spilled.records()).await;
        for spilled in [spilled, again] {
            for id in 0..3_000 {
                let key = (1, id);
                let expected = match (id % 2, id % 3) {
                    (_, 0) => Some((5, new[id as usize / 3].1.clone())),
                    (0, _) => Some((4, old[id as usize / 2].1.clone())),
                    _ => None,
                };
                assert!(expected.is_none() || spilled.may_have(key));
                assert_eq!(spilled.find(&disk, key).await, Ok(expected));
            }
            let all = spilled.all_of(&disk, 1).await.unwrap();
            assert_eq!(all.len(), 2_000);
            assert!(all.is_sorted_by_key(|(_, id, _)| *id));
            assert_eq!(all[2], (5, 3, new[1].1.clone()));
            assert_eq!(all[1], (4, 2, old[1].1.clone()));
            assert_eq!(spilled.all_of(&disk, 2).await.unwrap().len(), 100);
            assert_eq!(spilled.all_of(&disk, 0).await.unwrap(), []);
            assert_eq!(spilled.all_of(&disk, 3).await.unwrap(), []);
            assert_eq!(spilled.producers(), 1_500 + 1_000 + 100);
            let lens: u64 = world.files().values().map(|bytes| bytes.len() as u64).sum();
            assert_eq!(spilled.disk_bytes(), lens);
        }
    });
}

/// So that a log with millions of them holds nobody up, and nothing of it is kept but what is shown.
#[test]
fn going_through_a_log_lets_others_have_their_turn() {
    with(async |_, disk, spilled| {
        for number in [1, 2] {
            spilled.write(&disk, number, &entries(1, 10_240, 1, number as i64)).await.unwrap();
        }
        let (seen, mut turns, mut last) = (Cell::new(0), 0, 0);
        let mut walk = pin!(spilled.each_of(&disk, 1, |_, id, _| {
            assert_eq!(id, seen.replace(id + 1));
        }));
        while poll_immediate(&mut walk).await.is_none() {
            assert!(seen.get() - last <= 512, "{} in a turn", seen.get() - last);
            (turns, last) = (turns + 1, seen.get());
            disk.sleep(Duration::from_millis(1)).await;
        }
        assert!(seen.get() == 10_240 && turns >= 20, "{} in {turns} turns", seen.get());
    });
}

#[test]
fn a_lookup_reads_one_block_and_absent_producers_none() {
    with(async |world, disk, spilled| {
        for number in 1..=3 {
            let written: Vec<_> = entries(number, 5_000, 1, 0);
            spilled.write(&disk, number, &written).await.unwrap();
        }
        let before = world.count(Operation::Read);
        assert!(spilled.find(&disk, (2, 4_321)).await.unwrap().is_some());
        assert_eq!(world.count(Operation::Read), before + 1);
        let absent = (5_000..6_000).filter(|id| !spilled.may_have((2, *id)));
        let absent: Vec<i64> = absent.collect();
        assert!(absent.len() > 970, "{}", absent.len());
        for id in absent {
            assert_eq!(spilled.find(&disk, (2, id)).await, Ok(None));
        }
        assert_eq!(world.count(Operation::Read), before + 1);
    });
}

#[test]
fn takes_about_two_bytes_of_memory_each() {
    with(async |_, disk, spilled| {
        for (number, batches) in [(1, 1), (2, 5)] {
            let many: Vec<_> = (0..30_000).map(|id| ((number, id), producer(id, batches))).collect();
            spilled.write(&disk, number, &many).await.unwrap();
        }
        let again = reopened(&disk, &spilled.records()).await;
        for spilled in [spilled, again] {
            let bytes = spilled.bytes_in_memory();
            assert!((60_000 * 3 / 2..60_000 * 5 / 2).contains(&bytes), "{bytes} bytes for 60,000");
        }
    });
}

#[test]
fn a_failed_read_is_told_from_damage() {
    with(async |world, disk, spilled| {
        spilled.write(&disk, 1, &entries(1, 200, 1, 0)).await.unwrap();
        spilled.write(&disk, 2, &entries(1, 200, 1, 500)).await.unwrap();
        let name = "/s/producers/0000000000000002.run";
        world.inject(fail(Operation::Read, name, 0));
        let error = spilled.find(&disk, (1, 199)).await.unwrap_err();
        assert!(matches!(&error, FindError::Io(what) if what.contains(&format!("{name} at "))), "{error}");
        assert!(spilled.find(&disk, (1, 199)).await.unwrap().is_some());
        // A piece that fails is read block by block.
        world.inject(Fault { times: 2, ..fail(Operation::Read, name, 0) });
        assert!(matches!(spilled.all_of(&disk, 1).await, Err(FindError::Io(_))));
        world.inject(fail(Operation::Read, name, 0));
        assert_eq!(spilled.all_of(&disk, 1).await.unwrap().len(), 200);

        let file = disk.open(Path::new(name)).await.unwrap();
        let mut block = file.read_at(4096, 4096).await.unwrap();
        block[100] ^= 1;
        file.write_at(block.freeze(), 4096).await.unwrap();
        let damaged = format!("{name}: the block at 4096 is damaged");
        // Not answered from the older run.
        assert_eq!(spilled.find(&disk, (1, 0)).await, Err(FindError::Damaged(damaged.clone())));
        assert_eq!(spilled.all_of(&disk, 1).await, Err(FindError::Damaged(damaged)));
        assert!(spilled.find(&disk, (1, 199)).await.unwrap().is_some());
    });
}

#[test]
fn a_run_that_cannot_be_written_is_not_there() {
    for (operation, skip) in [
        (Operation::Name, 0),
        (Operation::Name, 1),
        (Operation::SyncDir, 0),
        (Operation::Write, 0),
        (Operation::Write, 1),
        (Operation::Write, 2),
        (Operation::Sync, 0),
        (Operation::SyncDir, 1),
    ] {
        with(async move |world, disk, spilled| {
            let many = entries(1, 3_000, 1, 0);
            world.inject(fail(operation, "", skip));
            assert!(spilled.write(&disk, 1, &many).await.is_err(), "{operation:?} {skip}");
            assert_eq!(world.faults_left(), 0);
            assert_eq!((spilled.records(), spilled.find(&disk, (1, 1)).await), (Vec::new(), Ok(None)));
            assert_eq!(names(&world), [""; 0], "{operation:?} {skip}");
            // The number may come again.
            spilled.write(&disk, 1, &many).await.unwrap();
            assert_eq!(spilled.all_of(&disk, 1).await.unwrap().len(), 3_000);
        });
    }
}

#[test]
fn a_file_left_over_is_replaced_or_swept() {
    with(async |world, disk, spilled| {
        spilled.sweep(&disk).await.unwrap();
        for number in [1, 2, 3] {
            spilled.write(&disk, number, &entries(number, 500, 1, 0)).await.unwrap();
        }
        let first = spilled.records()[..1].to_vec();
        let again = reopened(&disk, &first).await;
        again.write(&disk, 3, &entries(9, 20, 1, 0)).await.unwrap();
        assert_eq!(again.all_of(&disk, 3).await.unwrap(), []);
        assert_eq!(again.all_of(&disk, 9).await.unwrap().len(), 20);
        disk.write_small(Path::new("/s/producers/what"), vec![1].into()).await.unwrap();
        again.sweep(&disk).await.unwrap();
        assert_eq!(names(&world), ["0000000000000001.run", "0000000000000003.run"]);
        reopened(&disk, &again.records()).await;
    });
}

#[test]
fn a_run_left_out_takes_older_ones_with_it() {
    with(async |world, disk, spilled| {
        for number in 1..=4 {
            spilled.write(&disk, number, &entries(number, 50, 1, 0)).await.unwrap();
        }
        let records = spilled.records();
        disk.remove(Path::new("/s/producers/0000000000000002.run")).await.unwrap();
        let file = disk.open(Path::new("/s/producers/0000000000000003.run")).await.unwrap();
        let mut header = file.read_at(0, 4096).await.unwrap();
        header[30] ^= 1;
        file.write_at(header.freeze(), 0).await.unwrap();
        let again = Spilled::new(Path::new(DIR));
        let refused = again.open(&disk, &records).await.unwrap();
        let told: Vec<&str> = refused.iter().map(|(_, what)| what.as_str()).collect();
        assert_eq!(
            told[0],
            "/s/producers/0000000000000001.run: a newer run is left out, which may supersede it"
        );
        assert_eq!(told[1], "/s/producers/0000000000000002.run is missing");
        assert_eq!(told[2], "/s/producers/0000000000000003.run: the header is damaged");
        assert_eq!(told.len(), 3);
        assert_eq!(again.records(), records[3..]);
        // Their files go when the checkpoint names them no more.
        again.sweep(&disk).await.unwrap();
        assert_eq!(names(&world).len(), 3);
        assert_eq!(again.told_of(&records), [""; 0].map(PathBuf::from));
        let freed = again.told_of(&again.records());
        let numbers = [3, 1].map(|n| PathBuf::from(format!("/s/producers/000000000000000{n}.run")));
        assert_eq!(freed, numbers);
        again.sweep(&disk).await.unwrap();
        assert_eq!(names(&world), ["0000000000000004.run"]);
    });
}

#[test]
fn a_run_that_the_disk_does_not_give_is_not_given_up() {
    // The header, the index, the filter, the name.
    for (operation, skip, errno) in [
        (Operation::Read, 0, libc::EIO),
        (Operation::Read, 1, libc::EIO),
        (Operation::Read, 2, libc::ENOMEM),
        (Operation::Name, 0, libc::EMFILE),
    ] {
        with(async move |world, disk, spilled| {
            for number in 1..=3 {
                spilled.write(&disk, number, &entries(number, 50, 1, 0)).await.unwrap();
            }
            let records = spilled.records();
            let fault = Fault { effect: Effect::Fail(errno), ..fail(operation, "0002.run", skip) };
            // The third attempt succeeds.
            world.inject(Fault { times: 2, ..fault.clone() });
            reopened(&disk, &records).await;
            assert_eq!(world.faults_left(), 0, "{operation:?} {skip}");
            world.inject(Fault { times: u64::MAX, ..fault });
            let again = Spilled::new(Path::new(DIR));
            let error = again.open(&disk, &records).await.unwrap_err();
            assert!(matches!(&error, OpenError::Io { source, .. } if source.raw_os_error() == Some(errno)));
            let told = error.to_string();
            assert!(told.starts_with("file of producers /s/producers/0000000000000002.run, "), "{told}");
            world.clear_faults();
            reopened(&disk, &records).await;
        });
    }
}
