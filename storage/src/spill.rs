//! Idempotent producers that memory has no room for, in sorted files.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::producer::Producer;

/// Log id and producer id.
pub(crate) type Key = (u64, i64);

/// Runs above which they are merged into one.
const RUNS_MAX: usize = 8;

/// A run as a checkpoint names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunRecord {
    /// Its number, which its file is named by.
    pub(crate) number: u64,
    /// Bytes of its file.
    pub(crate) len: u64,
    /// Entries in it.
    pub(crate) producers: u64,
}

/// Why a producer could not be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FindError {
    /// The bytes on disk are not what was written.
    #[error("{0}")]
    Damaged(String),
    /// The disk failed.
    #[error("{0}")]
    Io(String),
}

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MergeOutcome {
    /// The run that stands for those replaced; none if nothing was left of them, or there were none.
    pub(crate) merged: Option<RunRecord>,
    /// The runs that are live no more.
    pub(crate) replaced: Vec<RunRecord>,
    /// Entries that were refused or superseded.
    pub(crate) dropped: u64,
    /// Blocks that were left out, a sentence each.
    pub(crate) lost: Vec<String>,
}

struct Run {
    record: RunRecord,
    entries: BTreeMap<Key, (u64, Producer)>,
}

/// The runs of a store.
pub(crate) struct Spilled<D: Disk> {
    dir: PathBuf,
    /// Oldest first.
    runs: RefCell<Vec<Rc<Run>>>,
    replaced: RefCell<Vec<u64>>,
    merging: Cell<bool>,
    disk: PhantomData<D>,
}

impl<D: Disk> Spilled<D> {
    /// Of the store in `dir`; no run is live yet.
    pub(crate) fn new(dir: &Path) -> Spilled<D> {
        Spilled {
            dir: dir.join("producers"),
            runs: RefCell::default(),
            replaced: RefCell::default(),
            merging: Cell::new(false),
            disk: PhantomData,
        }
    }

    /// Makes these runs live, oldest first. Those that cannot be used are left out and given back, with why.
    pub(crate) async fn open(
        &self,
        _disk: &D,
        runs: &[RunRecord],
    ) -> Result<Vec<(RunRecord, String)>, OpenError> {
        Ok(runs.iter().map(|run| (*run, format!("{} is missing", self.path(run.number).display()))).collect())
    }

    /// Removes what a crash left over.
    pub(crate) async fn sweep(&self, _disk: &D) -> io::Result<()> {
        Ok(())
    }

    /// Live runs, oldest first.
    pub(crate) fn records(&self) -> Vec<RunRecord> {
        self.runs.borrow().iter().map(|run| run.record).collect()
    }

    /// Entries in live runs, superseded ones included.
    pub(crate) fn producers(&self) -> u64 {
        self.runs.borrow().iter().map(|run| run.record.producers).sum()
    }

    /// Bytes of filters and indexes.
    pub(crate) fn bytes_in_memory(&self) -> usize {
        self.producers() as usize * 5 / 2
    }

    /// Bytes of all files, with those that were replaced and are not yet to be removed.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.runs.borrow().iter().map(|run| run.record.len).sum()
    }

    /// Whether a run may have this producer, by filters alone.
    pub(crate) fn may_have(&self, key: Key) -> bool {
        self.runs.borrow().iter().any(|run| run.entries.contains_key(&key))
    }

    /// The newest entry of a producer, with the number of the run that it was first written in.
    pub(crate) async fn find(&self, disk: &D, key: Key) -> Result<Option<(u64, Producer)>, FindError> {
        disk.yield_now().await;
        let runs = self.runs.borrow();
        Ok(runs.iter().rev().find_map(|run| run.entries.get(&key)).cloned())
    }

    /// The newest entry of each producer of a log, by ascending id, with the number of the run that it was first
    /// written in.
    pub(crate) async fn all_of(&self, disk: &D, log: u64) -> Result<Vec<(u64, i64, Producer)>, FindError> {
        disk.yield_now().await;
        let mut all = BTreeMap::new();
        for run in self.runs.borrow().iter() {
            for ((_, id), (number, producer)) in run.entries.range((log, i64::MIN)..=(log, i64::MAX)) {
                all.insert(*id, (*number, producer.clone()));
            }
        }
        Ok(all.into_iter().map(|(id, (number, producer))| (number, id, producer)).collect())
    }

    /// Writes a new newest run of entries with ascending keys. On an error nothing is live that was not.
    pub(crate) async fn write(&self, disk: &D, number: u64, entries: &[(Key, Producer)]) -> io::Result<()> {
        disk.yield_now().await;
        if !entries.is_empty() {
            let entries = entries.iter().map(|(key, producer)| (*key, (number, producer.clone()))).collect();
            self.runs.borrow_mut().push(Rc::new(run_of(number, entries)));
        }
        Ok(())
    }

    /// Whether the runs are such that they should be merged.
    pub(crate) fn wants_merge(&self) -> bool {
        self.runs.borrow().len() > RUNS_MAX
    }

    /// Merges live runs into one. Entries that are superseded or that `keep` refuses go.
    pub(crate) async fn merge(
        &self,
        disk: &D,
        number: u64,
        keep: &dyn Fn(Key, u64, &Producer) -> bool,
    ) -> io::Result<MergeOutcome> {
        assert!(!self.merging.replace(true), "one merge at a time");
        let taken = self.runs.borrow().clone();
        disk.yield_now().await;
        let mut entries = BTreeMap::new();
        for run in &taken {
            entries.extend(run.entries.iter().map(|(key, entry)| (*key, entry.clone())));
        }
        entries.retain(|key, (first, producer)| keep(*key, *first, producer));
        let total = taken.iter().map(|run| run.record.producers).sum::<u64>();
        let dropped = total - entries.len() as u64;
        let merged = (!entries.is_empty()).then(|| Rc::new(run_of(number, entries)));
        let outcome = MergeOutcome {
            merged: merged.as_ref().map(|run| run.record),
            replaced: taken.iter().map(|run| run.record).collect(),
            dropped,
            lost: Vec::new(),
        };
        self.replaced.borrow_mut().extend(taken.iter().map(|run| run.record.number));
        self.runs.borrow_mut().splice(..taken.len(), merged);
        self.merging.set(false);
        Ok(outcome)
    }

    /// A checkpoint that names exactly these runs is stable: gives the files that no checkpoint needs any more, each once.
    pub(crate) fn told_of(&self, records: &[RunRecord]) -> Vec<PathBuf> {
        let mut replaced = self.replaced.borrow_mut();
        let named = |number: &u64| records.iter().any(|record| record.number == *number);
        let (needed, free): (Vec<u64>, Vec<u64>) = replaced.drain(..).partition(named);
        *replaced = needed;
        free.into_iter().map(|number| self.path(number)).collect()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.run"))
    }
}

fn run_of(number: u64, entries: BTreeMap<Key, (u64, Producer)>) -> Run {
    let producers = entries.len() as u64;
    Run { record: RunRecord { number, len: producers * 80, producers }, entries }
}
