//! Cleaning by key against "the latest value per key": in one life, over restarts, and over crashes at any step.

mod failing;
mod twin;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use oorandom::Rand64;
use penstock_format::{Batch, BatchBuilder, EndTransactionMarker, NewRecord, Records, split_batches};
use penstock_storage::disk::Disk;
use penstock_storage::disk::sim::{Crash, Effect, Fault, Operation, SimDisk, SimWorld};
use penstock_storage::{
    AppendContext, BatchSearch, CleanerConfig, Compaction, Log, LogConfig, Origin, Store, StoreConfig,
};

use crate::crash;
use crate::traffic::append;
use crate::traffic::{EPOCH_MS, PATIENCE};
use twin::{Asked, Rec, Twin};

const DIR: &str = "/data/s";
const KEYS: u64 = 12;
const BYTES_MAX: usize = 1 << 20;
/// What is said of an old value that is there although the newest is not.
const IS_BACK: &str = "is back";

/// What a run varies.
#[derive(Debug, Clone)]
struct Profile {
    store: StoreConfig,
    log: LogConfig,
    operations: u64,
    /// The end is cut off now and then. Nobody has producers then: what truncation forgets of those that were cleaned is
    /// another matter.
    truncates: bool,
}

fn profile(seed: u64) -> Profile {
    let mut random = Rand64::new(u128::from(seed) + 77);
    let mut one_of = |choices: &[u64]| choices[random.rand_range(0..choices.len() as u64) as usize];
    let cleaner = CleanerConfig {
        // The keys of a batch, a few more, or all.
        map_bytes_max: one_of(&[24 * 6, 24 * 10, 1 << 20]) as usize,
        map_load_percent: 75,
        io_bytes: one_of(&[4096, 64 << 10]) as usize,
        backoff_ms: 20,
        hash_key: [seed, 9],
        ..CleanerConfig::default()
    };
    let compaction = Compaction {
        min_dirty_millionths: one_of(&[0, 10_000, 300_000]) as u32,
        min_lag_ms: one_of(&[0, 0, 200]) as i64,
        max_lag_ms: i64::MAX,
        delete_retention_ms: one_of(&[0, 100, 1 << 40]) as i64,
    };
    let of_crash =
        crash::Profile { direct_bytes_min: one_of(&[4096, 1 << 20]) as usize, ..crash::unlimited() };
    let store = StoreConfig { cleaner, ..crash::plan(&of_crash).store };
    let log = LogConfig {
        segment_bytes: one_of(&[600, 3000, 12_000]),
        index_interval_bytes: 512,
        compaction: Some(compaction),
        ..LogConfig::default()
    };
    Profile { store, log, operations: 60, truncates: seed % 4 == 3 }
}

type Outcome<T = ()> = Result<T, String>;

struct Run {
    world: SimWorld,
    store: Store<SimDisk>,
    log: Log<SimDisk>,
    twin: Rc<RefCell<Twin>>,
    profile: Profile,
    random: RefCell<Rand64>,
    /// What time it was when the world began: a new one's clock begins anew, and time goes on all the same.
    begun_ms: i64,
}

async fn open(world: &SimWorld, profile: &Profile, now_ms: i64) -> Outcome<(Store<SimDisk>, Log<SimDisk>)> {
    let opened = Store::open(world.disk(), Path::new(DIR), profile.store.clone(), now_ms).await;
    let (store, report) = opened.map_err(|error| error.to_string())?;
    if !report.offline.is_empty() {
        return Err(format!("{report:?}"));
    }
    let log = match store.log("clean") {
        Some(log) => log,
        None => store.create_log("clean", profile.log.clone()).await.map_err(|error| error.to_string())?,
    };
    log.set_config(profile.log.clone());
    Ok((store, log))
}

impl Run {
    /// Opens the store, checks what a crash left, and goes on from there.
    async fn begin(world: SimWorld, profile: Profile, twin: Rc<RefCell<Twin>>) -> Outcome<Run> {
        let begun_ms = twin.borrow().told_ms.max(EPOCH_MS);
        let now_ms = begun_ms + world.elapsed().as_millis() as i64;
        let (store, log) = open(&world, &profile, now_ms).await?;
        {
            let mut twin = twin.borrow_mut();
            let next = match &twin.asked {
                None => twin.end,
                Some(Asked::Append { next_offset, .. }) => *next_offset,
                Some(Asked::Marker { offset, .. }) => offset + 1,
                Some(Asked::Truncate { to }) => *to,
            };
            if log.log_end_offset() == next {
                twin.took_place();
            }
            twin.asked = None;
            equal("end after opening", log.log_end_offset(), twin.end)?;
        }
        let random = RefCell::new(Rand64::new(u128::from(world.random(u64::MAX))));
        Ok(Run { world, store, log, twin, profile, random, begun_ms })
    }

    fn now_ms(&self) -> i64 {
        self.begun_ms + self.world.elapsed().as_millis() as i64
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().rand_range(0..bound)
    }

    async fn live(&self) -> Outcome {
        self.check().await?;
        for _ in 0..self.profile.operations {
            match self.below(20) {
                0..11 => self.append(None).await?,
                11..14 if self.profile.truncates => self.truncate().await?,
                11..13 => self.append(Some(10 + self.below(3) as i64)).await?,
                13 => self.end_transaction(10 + self.below(3) as i64).await?,
                14 => self.repeat().await?,
                15 => self.delete_records().await?,
                16..19 => self.wait(self.below(60)).await,
                _ => self.check().await?,
            }
        }
        Ok(())
    }

    async fn wait(&self, ms: u64) {
        for _ in 0..=ms / 10 {
            self.world.disk().sleep(Duration::from_millis(10)).await;
            let now_ms = self.now_ms();
            {
                let mut twin = self.twin.borrow_mut();
                twin.told_ms = twin.told_ms.max(now_ms);
            }
            self.store.tick(now_ms).await;
        }
    }

    /// Appends a batch, of a transaction if its producer is named.
    async fn append(&self, transactional: Option<i64>) -> Outcome {
        let named = !self.profile.truncates && self.below(3) == 0;
        let producer = transactional.or(named.then(|| self.below(3) as i64));
        let mut builder = BatchBuilder::new().transactional(transactional.is_some());
        if let Some(id) = producer {
            let last = self.twin.borrow().last.get(&id).map(|(batch, _)| batch.header.last_sequence());
            builder = builder.producer(id, 0, last.map_or(0, |last| last + 1));
        }
        let base = self.log.log_end_offset();
        let transaction = transactional.map(|id| self.twin.borrow().open.get(&id).copied().unwrap_or(base));
        let mut records = Vec::new();
        for at in 0..1 + self.below(4) as i64 {
            let key = (self.below(30) > 0).then(|| self.below(KEYS) as u8);
            let value = (self.below(6) > 0).then(|| vec![at as u8; self.below(300) as usize]);
            // By the clock that the store was told: what becomes of tombstones counts from there.
            let timestamp = self.twin.borrow().told_ms.max(self.begun_ms) - self.below(100) as i64;
            let rec = Rec { offset: base + at, key, value, timestamp, transaction };
            let key = rec.key.map(|key| [key; 5]);
            let key = key.as_ref().map(|key| &key[..]);
            let value = rec.value.as_deref();
            builder.append(&NewRecord { timestamp, key, value, headers: &[] }).unwrap();
            records.push(rec);
        }
        let batch = builder.finish().unwrap();
        let next_offset = base + records.len() as i64;
        let producer = producer.map(|id| (id, batch.clone()));
        self.twin.borrow_mut().asked = Some(Asked::Append { records, next_offset, producer });
        self.send(batch, Origin::Client).await
    }

    async fn end_transaction(&self, producer: i64) -> Outcome {
        if !self.twin.borrow().open.contains_key(&producer) {
            return Ok(());
        }
        let commit = self.below(2) == 0;
        let marker = EndTransactionMarker {
            producer_id: producer,
            producer_epoch: 0,
            coordinator_epoch: 1,
            committed: commit,
            timestamp: self.now_ms(),
        };
        let offset = self.log.log_end_offset();
        self.twin.borrow_mut().asked = Some(Asked::Marker { producer, offset, commit });
        self.send(marker.to_batch().unwrap(), Origin::Coordinator).await
    }

    async fn send(&self, batch: Batch, origin: Origin) -> Outcome {
        let room = self.store.reserve(batch.len()).await.map_err(|error| error.to_string())?;
        let appended = append(&self.log, &[batch], self.context(origin)).await;
        let appended = appended.map_err(|error| error.to_string())?;
        drop(room);
        self.log.durable(appended.ticket).await.map_err(|error| error.to_string())?;
        self.twin.borrow_mut().took_place();
        Ok(())
    }

    fn context(&self, origin: Origin) -> AppendContext {
        AppendContext { leader_epoch: 1, now_ms: self.now_ms(), origin }
    }

    /// A batch that was written before is known, whatever cleaning left of it.
    async fn repeat(&self) -> Outcome {
        let Some((batch, base)) = self.twin.borrow().last.get(&(self.below(3) as i64)).cloned() else {
            return Ok(());
        };
        let appended = append(&self.log, &[batch], self.context(Origin::Client)).await;
        let appended = appended.map_err(|error| error.to_string())?;
        equal("repeated", (appended.base_offset, appended.duplicate), (base, true))
    }

    async fn delete_records(&self) -> Outcome {
        if self.below(4) > 0 {
            return Ok(());
        }
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        let offset = start + self.below((end - start) as u64 / 4 + 1) as i64;
        {
            let mut twin = self.twin.borrow_mut();
            twin.start_asked = twin.start_asked.max(offset);
        }
        self.log.delete_records(offset).await.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Cuts off some of what was never cleaned.
    async fn truncate(&self) -> Outcome {
        if self.below(3) > 0 {
            return Ok(());
        }
        let end = self.log.log_end_offset();
        let names = files(&self.world);
        let bases = names.iter().filter_map(|name| name.get(..20)?.parse::<i64>().ok());
        let active = bases.filter(|base| *base <= end).max().unwrap_or(0);
        let (offset, to) = {
            let mut twin = self.twin.borrow_mut();
            twin.cut_from = twin.cut_from.max(active).min(end);
            let lowest = twin.cut_from.max(self.log.log_start_offset());
            let most = if self.below(2) == 0 { 0 } else { end - lowest };
            let offset = lowest + self.below(most as u64 + 1) as i64;
            let to = twin.ends.range(..=offset).next_back().copied().unwrap_or(0);
            twin.asked = Some(Asked::Truncate { to });
            (offset, to)
        };
        let found = self.log.truncate(offset).await.map_err(|error| error.to_string())?;
        equal("end after truncation", found, to)?;
        self.twin.borrow_mut().took_place();
        Ok(())
    }

    /// All records that can be read from `from` on.
    async fn read(&self, mut from: i64) -> Outcome<Vec<Rec>> {
        let (first, mut found) = (from, Vec::new());
        while from < self.log.log_end_offset() {
            let read = self.log.read(from, 5000, i64::MAX, true).await.map_err(|error| error.to_string())?;
            if read.bytes == 0 || read.next_offset <= from {
                return Err(format!("reading ends at {from}: {read:?}"));
            }
            for batch in split_batches(&read.slices.concat().into(), usize::MAX).unwrap() {
                if !batch.crc_ok() {
                    return Err(format!("batch {} is damaged", batch.header.base_offset));
                }
                if batch.header.is_control() {
                    continue;
                }
                for record in &Records::open(&batch, BYTES_MAX).unwrap() {
                    let record = record.unwrap();
                    found.push(Rec {
                        offset: record.offset,
                        key: record.key.map(|key| key[0]),
                        value: record.value.map(<[u8]>::to_vec),
                        timestamp: record.timestamp,
                        transaction: None,
                    });
                }
            }
            from = read.next_offset;
        }
        found.retain(|record| record.offset >= first);
        Ok(found)
    }

    /// What is read is what was written, less what may be gone.
    async fn check(&self) -> Outcome {
        let cleaned_to = self.log.cleaned_offset();
        let start = self.log.log_start_offset();
        if start > self.twin.borrow().start_asked {
            return Err(format!("starts at {start}"));
        }
        let mut found = self.read(start).await?;
        if self.judge(&found, start, cleaned_to).is_err_and(|what| what.contains(IS_BACK)) {
            // A tombstone may have gone between the reads of what is before it and of itself.
            found = self.read(start).await?;
        }
        self.judge(&found, start, cleaned_to)?;
        let from = start + self.below((self.log.log_end_offset() - start) as u64 + 1) as i64;
        let tail: Vec<_> = found.into_iter().filter(|record| record.offset >= from).collect();
        // What cleaning did meanwhile can only have taken some away.
        let again = self.read(from).await?;
        if !again.iter().all(|record| tail.contains(record)) {
            return Err(format!("read from {from}: {again:?}, before {tail:?}"));
        }
        Ok(())
    }

    fn delete_retention_ms(&self) -> i64 {
        self.profile.log.compaction.as_ref().map_or(0, |compaction| compaction.delete_retention_ms)
    }

    fn judge(&self, found: &[Rec], start: i64, cleaned_to: i64) -> Outcome {
        let twin = self.twin.borrow();
        let newest = twin.newest();
        let mut found_at = found.iter().peekable();
        for written in twin.records.iter().filter(|record| record.offset >= start) {
            let is_there = found_at.next_if(|found| found.offset == written.offset);
            if let Some(found) = is_there {
                let plain = Rec { transaction: None, ..written.clone() };
                equal("record", found, &plain)?;
            }
            let replaced =
                written.key.is_none_or(|key| newest.get(&key).is_some_and(|n| n.offset > written.offset));
            let aborted = twin.is_aborted(written);
            let horizon = written.timestamp.saturating_add(self.delete_retention_ms());
            let outlived = written.value.is_none() && twin.told_ms >= horizon;
            let may_go = replaced || aborted || outlived;
            if is_there.is_none() && !may_go {
                return Err(format!("{written:?} is gone"));
            }
            if is_there.is_some() && written.offset < cleaned_to && aborted {
                return Err(format!("{written:?} was aborted, and is there below {cleaned_to}"));
            }
        }
        for (key, newest) in newest.iter().filter(|(_, newest)| newest.offset >= start) {
            let of_key = |record: &&Rec| record.key == Some(*key) && record.offset <= newest.offset;
            let last = found.iter().rfind(of_key).map(|last| last.offset);
            if last.is_some_and(|last| last < newest.offset) {
                return Err(format!("key {key}: offset {last:?} {IS_BACK}, {newest:?} is gone"));
            }
        }
        if let Some(unknown) = found_at.next() {
            return Err(format!("{unknown:?} was never written"));
        }
        let mut keys = BTreeSet::new();
        for record in found.iter().filter(|record| record.offset < cleaned_to) {
            if !record.key.is_some_and(|key| keys.insert(key)) {
                return Err(format!("{record:?} was to be cleaned below {cleaned_to}"));
            }
        }
        Ok(())
    }

    /// Lets the cleaner do what there is to do, and checks what is left.
    async fn settle(&self) -> Outcome {
        let open: Vec<_> = self.twin.borrow().open.keys().copied().collect();
        for producer in open {
            self.end_transaction(producer).await?;
        }
        // It may wait for many files to be made before it reads anything.
        let (mut read_bytes, mut quiet_seconds) = (0, 0);
        while quiet_seconds < 10 {
            self.wait(1000).await;
            let before = std::mem::replace(&mut read_bytes, self.store.stats().cleaner_read_bytes);
            quiet_seconds = if before == read_bytes { quiet_seconds + 1 } else { 0 };
            if self.world.elapsed() > PATIENCE {
                return Err("the cleaner does not come to rest".into());
            }
        }
        equal("uncleanable", self.log.uncleanable(), None)?;
        self.check().await?;
        let found = self.read(self.log.log_start_offset()).await?;
        self.judge_map(&found)?;
        // What is cleaned while it is looked up says nothing.
        for _ in 0..50 {
            let before = (self.store.stats().cleaner_read_bytes, self.log.size_bytes());
            let found = self.read(self.log.log_start_offset()).await?;
            let looked_up = self.check_times(&found).await;
            if (self.store.stats().cleaner_read_bytes, self.log.size_bytes()) == before {
                return looked_up;
            }
            self.world.disk().sleep(Duration::from_millis(100)).await;
        }
        Err("the cleaner does not come to rest".into())
    }

    fn judge_map(&self, found: &[Rec]) -> Outcome {
        let twin = self.twin.borrow();
        let counts = |record: &&Rec| {
            !twin.is_aborted(twin.records.iter().find(|r| r.offset == record.offset).unwrap())
        };
        let map: BTreeMap<_, _> =
            found.iter().filter(counts).filter_map(|r| Some((r.key?, r.value.clone()))).collect();
        let start = self.log.log_start_offset();
        for (key, newest) in twin.newest().into_iter().filter(|(_, newest)| newest.offset >= start) {
            match (map.get(&key), &newest.value) {
                (Some(found), value) if found == value => {}
                (None, None) => {}
                (found, value) => return Err(format!("key {key} is {found:?}, not {value:?}")),
            }
        }
        Ok(())
    }

    async fn check_times(&self, found: &[Rec]) -> Outcome {
        let open = async |search: BatchSearch| search.run(BYTES_MAX);
        let newest = self.log.max_timestamp(open).await.map_err(|error| error.to_string())?;
        let largest = found.iter().map(|record| record.timestamp).max();
        // Markers have timestamps too.
        if newest.map(|newest| newest.timestamp) < largest {
            return Err(format!("largest timestamp: found {newest:?}, expected {largest:?}"));
        }
        for wanted in found.iter().step_by(found.len() / 4 + 1).map(|record| record.timestamp) {
            let first = found.iter().find(|record| record.timestamp >= wanted).map(|first| first.offset);
            let at = self.log.offset_for_time(wanted, open).await.map_err(|error| error.to_string())?;
            if at.is_none() || at.map(|at| at.offset) > first {
                return Err(format!("first from {wanted}: found {at:?}, expected {first:?}"));
            }
        }
        Ok(())
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}

fn seeds(test: u64, count: u64) -> Vec<u64> {
    match std::env::var("PENSTOCK_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (test << 32..(test << 32) + count).collect(),
    }
}

/// A life, closed at its end, in which the cleaner did something.
fn whole_life(world: &SimWorld, profile: &Profile, twin: &Rc<RefCell<Twin>>) -> Outcome<u64> {
    let (current, profile, twin) = (world.clone(), profile.clone(), twin.clone());
    world.block_on(async move {
        let run = Run::begin(current, profile, twin).await?;
        run.live().await?;
        run.settle().await?;
        let rounds = run.store.stats().cleaner_rounds;
        run.store.close().await.map_err(|error| format!("closing: {error}"))?;
        Ok(rounds)
    })
}

#[test]
fn a_cleaned_log_has_the_latest_value_of_each_key() {
    let mut rounds = 0;
    for seed in seeds(11, 150) {
        let (mut world, profile, twin) = (SimWorld::new(seed), profile(seed), Rc::default());
        for life in 0..3 {
            let lived = whole_life(&world, &profile, &twin);
            rounds += lived.unwrap_or_else(|what| panic!("life {life} of seed {seed}: {what}; {profile:?}"));
            world = world.crash(Crash::Kill);
        }
    }
    assert!(rounds > 500, "{rounds} rounds");
}

/// What the crashes of a test came between.
#[derive(Debug, Default)]
struct Met {
    /// Up to where the log was clean when the crash came.
    cleaned_to: i64,
    /// Nothing of the last swap was in a checkpoint.
    before_checkpoint: u64,
    /// New files were written and not swapped in, or only the first of a round.
    before_swap: u64,
    /// The checkpoint told of the last swap.
    after_checkpoint: u64,
}

/// Names of the log's segment files.
fn files(world: &SimWorld) -> BTreeSet<String> {
    let files = world.files();
    let of_log = files.keys().filter(|path| path.starts_with(Path::new(DIR).join("logs/clean")));
    let names = of_log.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    names.filter(|name| name.ends_with(".log")).collect()
}

fn cleaned_files(world: &SimWorld) -> BTreeSet<String> {
    files(world).into_iter().filter(|name| name.contains('-')).collect()
}

impl Met {
    /// A store was opened after a crash that left these cleaned files.
    fn opened(&mut self, world: &SimWorld, log: &Log<SimDisk>, left: &BTreeSet<String>) {
        let swept = left.difference(&cleaned_files(world)).count();
        match log.cleaned_offset() {
            cleaned_to if cleaned_to < self.cleaned_to => self.before_checkpoint += 1,
            _ if swept > 0 => self.before_swap += 1,
            cleaned_to => self.after_checkpoint += u64::from(cleaned_to > 0),
        }
    }
}

type Handles = Rc<RefCell<Option<(Store<SimDisk>, Log<SimDisk>)>>>;

#[test]
fn a_crash_in_the_middle_of_cleaning_goes_back_to_what_was() {
    let (met, mut rounds) = (Rc::new(RefCell::new(Met::default())), 0);
    for seed in seeds(12, 120) {
        let (mut world, profile, twin) = (SimWorld::new(seed), profile(seed), Rc::<RefCell<Twin>>::default());
        let mut random = Rand64::new(u128::from(seed));
        met.borrow_mut().cleaned_to = 0;
        for life in 0..8 {
            let failure = Rc::new(RefCell::new(None));
            let (current, of_life, its_twin) = (world.clone(), profile.clone(), twin.clone());
            let (told, handles, its_met) = (failure.clone(), Handles::default(), met.clone());
            let its_handles = handles.clone();
            let left = cleaned_files(&world);
            world.spawn(async move {
                let lived = async {
                    let run = Run::begin(current.clone(), of_life, its_twin).await?;
                    its_met.borrow_mut().opened(&current, &run.log, &left);
                    *its_handles.borrow_mut() = Some((run.store.clone(), run.log.clone()));
                    run.live().await?;
                    run.wait(300).await;
                    Ok::<_, String>(())
                };
                let lived = lived.await;
                *told.borrow_mut() = lived.err();
            });
            world.run_until(500 + random.rand_range(0..6000));
            if let Some(what) = failure.borrow_mut().take() {
                panic!("life {life} of seed {seed}: {what}; {profile:?}");
            }
            // Where it crashed while it was being opened, it is as it was.
            if let Some((store, log)) = handles.take() {
                met.borrow_mut().cleaned_to = log.cleaned_offset();
                rounds += store.stats().cleaner_rounds;
            }
            let kill = random.rand_range(0..4) == 0;
            world = world.crash(if kill { Crash::Kill } else { Crash::PowerLoss });
        }
        let lived = whole_life(&world, &profile, &twin);
        lived.unwrap_or_else(|what| panic!("last life of seed {seed}: {what}; {profile:?}"));
    }
    let met = met.borrow();
    let least = met.before_swap.min(met.before_checkpoint).min(met.after_checkpoint);
    assert!(rounds > 100 && least > 20 || std::env::var("PENSTOCK_SEED").is_ok(), "{met:?}, {rounds} rounds");
}

#[test]
fn a_clean_close_leaves_the_files_that_count_and_no_other() {
    for seed in seeds(13, 20) {
        let (world, profile, twin) = (SimWorld::new(seed), profile(seed), Rc::default());
        whole_life(&world, &profile, &twin).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        let world = world.crash(Crash::Kill);
        let again = world.clone();
        world.block_on(async move {
            let (_, log) = open(&again, &profile, EPOCH_MS).await.unwrap();
            assert_eq!(files(&again).len(), log.segment_count(), "seed {seed}");
        });
    }
}

#[test]
fn a_full_disk_costs_nothing_but_time() {
    let mut left = 0;
    for seed in seeds(14, 20) {
        let (world, profile, twin) = (SimWorld::new(seed), profile(seed), Rc::default());
        let full = Fault {
            operation: Operation::Write,
            path_contains: "-0000".into(),
            skip: 0,
            times: 10,
            effect: Effect::Fail(libc::ENOSPC),
        };
        world.inject(full);
        whole_life(&world, &profile, &twin).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        left += world.faults_left();
    }
    assert!(left < 100, "{left} of 200 writes were not refused");
}
