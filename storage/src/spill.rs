//! Idempotent producers that memory has no room for, in sorted files.
//!
//! A producer that is forgotten may have a repeated batch appended twice; so those idle for longest are spilled instead, many at
//! a time, into a *run*: a file of entries sorted by log and producer, which never changes. When a producer writes that memory
//! does not know, the runs are asked, newest first, since the newest entry counts. Nearly all that were never spilled are told
//! by a filter per run, without a read; a lookup reads one block of the run that has the entry, which an index of the first
//! key of each block finds. In memory a spilled producer takes about two bytes.
//!
//! Invariants:
//! - What runs are live is told by the checkpoint, in order of age; a file that it does not name is left over. A run is
//!   stable before it is live, and the files of runs that a merge replaced stay until no checkpoint names them.
//! - An entry keeps the number of the run that it was first written in through all merges: to cut a log makes entries
//!   void that were written before, and a merge must not let them look newer.
//! - What a damaged block may have held is never answered from an older run: a superseded entry would have the producer's
//!   next batch refused, while one that is not known may go on.
//!
//! Merges keep the runs at about eight. Runs of similar sizes are merged, four or more at a time, so that each time an
//! entry is written again it lands in a run at least twice as large; beyond eight runs, those whose sizes are most similar.
//!
//! Bounds: memory for filters and indexes, pieces of 256 KiB while writing, 4 MiB of them while merging.

mod check;
mod filter;
mod format;
mod merge;
mod run;
mod walk;
mod writer;

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::producer::Producer;
pub(crate) use check::check;
use merge::{Rules, Tally, choose, merge_into, sizes};
use run::{Run, RunError, run_path};
use writer::RunWriter;

/// Directory of the runs.
const DIR: &str = "producers";

/// Replaced files take no more, unless the live ones do.
const REPLACED_BYTES: u64 = 64 << 20;

/// Times that a start tries to open a run, and the pause between.
const OPEN_ATTEMPTS: u32 = 3;
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// Log id and producer id.
pub(crate) type Key = (u64, i64);

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

/// Path of the file of a run of the store in `dir`.
pub(crate) fn path_in(dir: &Path, number: u64) -> PathBuf {
    run_path(&dir.join(DIR), number)
}

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MergeOutcome {
    /// The run that stands for those replaced; none if nothing was left of them, or there were none.
    pub(crate) merged: Option<RunRecord>,
    /// The runs that are live no more.
    pub(crate) replaced: Vec<RunRecord>,
    /// Entries that were refused or superseded, or that may have been by what was lost.
    pub(crate) dropped: u64,
    /// Entries of blocks that were left out, and of producers that these may have told of.
    pub(crate) forgotten: u64,
    /// Blocks that were left out, a sentence each.
    pub(crate) lost: Vec<String>,
}

/// The runs of a store.
pub(crate) struct Spilled<D: Disk> {
    store_dir: PathBuf,
    dir: PathBuf,
    /// Oldest first.
    runs: RefCell<Vec<Rc<Run<D>>>>,
    /// Live no more, but a checkpoint may name them.
    replaced: RefCell<Vec<RunRecord>>,
    /// Being written.
    begun: RefCell<Vec<u64>>,
    merging: Cell<bool>,
    /// Whether the directory is known to be stable.
    dir_made: Cell<bool>,
}

impl<D: Disk> Spilled<D> {
    /// Of the store in `dir`; no run is live yet.
    pub(crate) fn new(dir: &Path) -> Spilled<D> {
        Spilled {
            store_dir: dir.to_owned(),
            dir: dir.join(DIR),
            runs: RefCell::default(),
            replaced: RefCell::default(),
            begun: RefCell::default(),
            merging: Cell::new(false),
            dir_made: Cell::new(false),
        }
    }

    /// Makes these runs live, oldest first, in the place of none. One that cannot be used is left out and given back, with
    /// why; so are all that are older, since it may have superseded what they hold. Their files stay until a checkpoint
    /// no longer names them. It is an error if the disk does not give one: it may be sound, and would be given up for ever.
    pub(crate) async fn open(
        &self,
        disk: &D,
        runs: &[RunRecord],
    ) -> Result<Vec<(RunRecord, String)>, OpenError> {
        let mut refused = Vec::new();
        let mut opened = Vec::new();
        for record in runs.iter().rev() {
            match self.open_run(disk, *record).await {
                Ok(run) if refused.is_empty() => opened.push(Rc::new(run)),
                Ok(run) => {
                    let what =
                        format!("{}: a newer run is left out, which may supersede it", run.path.display());
                    refused.push((*record, what));
                    self.replaced.borrow_mut().push(*record);
                }
                Err(RunError::NewerVersion(error)) => return Err(error),
                Err(RunError::Io(error)) => {
                    let what = format!(
                        "file of producers {}, which may go where nothing else helps (the producers in it and in older ones are unknown then)",
                        path_in(&self.store_dir, record.number).display()
                    );
                    return Err(OpenError::io(what)(error));
                }
                Err(RunError::Refused(what, there)) => {
                    refused.push((*record, what));
                    self.replaced.borrow_mut().extend(there.then_some(*record));
                }
            }
        }
        opened.reverse();
        refused.reverse();
        *self.runs.borrow_mut() = opened;
        Ok(refused)
    }

    async fn open_run(&self, disk: &D, record: RunRecord) -> Result<Run<D>, RunError> {
        let mut left = OPEN_ATTEMPTS;
        loop {
            left -= 1;
            let opened = Run::open(disk, run_path(&self.dir, record.number), record).await;
            if left == 0 || !matches!(opened, Err(RunError::Io(_))) {
                return opened;
            }
            disk.sleep(OPEN_PAUSE).await;
        }
    }

    /// Removes what a crash left over: files that are neither live nor may yet be named by a checkpoint.
    pub(crate) async fn sweep(&self, disk: &D) -> io::Result<()> {
        if !disk.exists(&self.dir).await? {
            return Ok(());
        }
        let mut removed = false;
        for entry in disk.list(&self.dir).await? {
            if entry.is_dir || self.needs(&entry.name) {
                continue;
            }
            disk.remove(&self.dir.join(&entry.name)).await?;
            removed = true;
        }
        if removed { disk.sync_dir(&self.dir).await } else { Ok(()) }
    }

    fn needs(&self, name: &str) -> bool {
        let is = |number: u64| run_path(&self.dir, number).file_name().is_some_and(|file| file == name);
        self.runs.borrow().iter().any(|run| is(run.record.number))
            || self.replaced.borrow().iter().any(|record| is(record.number))
            || self.begun.borrow().iter().any(|number| is(*number))
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
        self.runs.borrow().iter().map(|run| run.bytes_in_memory()).sum()
    }

    /// Bytes of all files, with those that were replaced and are not yet to be removed.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.replaced_bytes() + self.runs.borrow().iter().map(|run| run.record.len).sum::<u64>()
    }

    /// Whether so much is kept for the last checkpoint alone that a new one is worth it.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        let replaced = self.replaced_bytes();
        replaced > REPLACED_BYTES && replaced > (self.disk_bytes() - replaced) / 2
    }

    fn replaced_bytes(&self) -> u64 {
        self.replaced.borrow().iter().map(|record| record.len).sum()
    }

    /// Whether a run may have this producer, by filters alone.
    pub(crate) fn may_have(&self, key: Key) -> bool {
        self.runs.borrow().iter().any(|run| run.filter.may_have(key))
    }

    /// The newest entry of a producer, with the number of the run that it was first written in.
    pub(crate) async fn find(&self, _disk: &D, key: Key) -> Result<Option<(u64, Producer)>, FindError> {
        let runs = self.runs.borrow().clone();
        for run in runs.iter().rev() {
            if let Some(entry) = run.find(key).await? {
                return Ok(Some((entry.first, entry.producer)));
            }
        }
        Ok(None)
    }

    /// Shows `visit` the newest entry of each producer of a log, by ascending id, between awaits: the number of the run that it
    /// was first written in, the producer's id, and what is known of it.
    pub(crate) async fn each_of(
        &self,
        disk: &D,
        log: u64,
        visit: impl FnMut(u64, i64, Producer),
    ) -> Result<(), FindError> {
        let runs = self.runs.borrow().clone();
        walk::each_of(disk, &runs, log, visit).await
    }

    /// Writes a new newest run of entries with ascending keys. When it returns, the run is stable and live; on an error
    /// nothing is live that was not, and what was written is gone as far as the disk allows.
    pub(crate) async fn write(&self, disk: &D, number: u64, entries: &[(Key, Producer)]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let begun = self.begin(number);
        let run = self.or_remove(disk, number, self.write_run(disk, number, entries).await).await?;
        self.runs.borrow_mut().push(Rc::new(run));
        drop(begun);
        Ok(())
    }

    async fn write_run(&self, disk: &D, number: u64, entries: &[(Key, Producer)]) -> io::Result<Run<D>> {
        self.make_dir(disk).await?;
        let path = run_path(&self.dir, number);
        let mut writer = RunWriter::begin(disk, path, number, entries.len() as u64).await?;
        for (key, producer) in entries {
            if writer.push(*key, number, producer) {
                writer.flush().await?;
            }
        }
        self.seal(disk, writer).await
    }

    /// Makes a run stable with its name.
    async fn seal(&self, disk: &D, writer: RunWriter<D>) -> io::Result<Run<D>> {
        let run = writer.finish().await?;
        disk.sync_dir(&self.dir).await?;
        Ok(run)
    }

    async fn make_dir(&self, disk: &D) -> io::Result<()> {
        if !self.dir_made.get() {
            disk.create_dir_all(&self.dir).await?;
            disk.sync_dir(&self.store_dir).await?;
            self.dir_made.set(true);
        }
        Ok(())
    }

    /// Removes the file of a run that could not be written.
    async fn or_remove<T>(&self, disk: &D, number: u64, written: io::Result<T>) -> io::Result<T> {
        if written.is_err() {
            // What stays is written over, or swept by the next start.
            let _ = disk.remove(&run_path(&self.dir, number)).await;
        }
        written
    }

    /// Takes note of a file that is being written.
    fn begin(&self, number: u64) -> Begun<'_> {
        let taken = self.runs.borrow().iter().any(|run| run.record.number == number)
            || self.replaced.borrow().iter().any(|record| record.number == number)
            || self.begun.borrow().contains(&number);
        assert!(!taken, "run {number} exists");
        self.begun.borrow_mut().push(number);
        Begun { begun: &self.begun, number }
    }

    /// Whether the runs are such that some should be merged.
    pub(crate) fn wants_merge(&self) -> bool {
        choose(&sizes(&self.records())).is_some()
    }

    /// Bytes of the runs that [`Spilled::merge`] would merge now, or of all: more than it writes.
    pub(crate) fn merge_bytes(&self, all: bool) -> u64 {
        let records = self.records();
        let from = choose(&sizes(&records)).filter(|_| !all).unwrap_or(0);
        records[from..].iter().map(|record| record.len).sum()
    }

    /// Merges live runs into one: those that [`Spilled::wants_merge`] means, all if it means none. Entries that are
    /// superseded or that `keep` refuses go; it is asked between awaits, and of some entries twice where a block is lost. A
    /// damaged block is left out, with what older runs have of its keys; an entry refused stays while an older run, not merged
    /// now, may have one of its producer. On an error, which only writing gives, all stays as it was.
    pub(crate) async fn merge(
        &self,
        disk: &D,
        number: u64,
        keep: &dyn Fn(Key, u64, &Producer) -> bool,
    ) -> io::Result<MergeOutcome> {
        let from = choose(&sizes(&self.records())).unwrap_or(0);
        self.merge_from(disk, from, number, keep).await
    }

    /// The same of all live runs: `keep` is asked of each producer once, and who is refused goes.
    pub(crate) async fn merge_all(
        &self,
        disk: &D,
        number: u64,
        keep: &dyn Fn(Key, u64, &Producer) -> bool,
    ) -> io::Result<MergeOutcome> {
        self.merge_from(disk, 0, number, keep).await
    }

    async fn merge_from(
        &self,
        disk: &D,
        mut from: usize,
        number: u64,
        keep: &dyn Fn(Key, u64, &Producer) -> bool,
    ) -> io::Result<MergeOutcome> {
        assert!(!self.merging.replace(true), "one merge at a time");
        let _merging = Merging(&self.merging);
        let _begun = self.begin(number);
        let runs = self.runs.borrow().clone();
        loop {
            let mut older = runs.clone();
            let taken = older.split_off(from);
            let rules = Rules { keep, older: &older };
            let merged = self.merge_runs(disk, number, &taken, &rules).await;
            match self.or_remove(disk, number, merged).await? {
                Some(merged) => return Ok(self.replace(&taken, merged)),
                // A block is lost, and what it superseded in the older runs must go.
                None => from = 0,
            }
        }
    }

    async fn merge_runs(
        &self,
        disk: &D,
        number: u64,
        taken: &[Rc<Run<D>>],
        rules: &Rules<'_, D>,
    ) -> io::Result<Option<Merged<D>>> {
        if taken.is_empty() {
            return Ok(Some(Merged { run: None, tally: Tally::default() }));
        }
        let room = taken.iter().map(|run| run.record.producers).sum();
        let path = run_path(&self.dir, number);
        let mut writer = RunWriter::begin(disk, path.clone(), number, room).await?;
        let Some(tally) = merge_into(disk, taken, &mut writer, rules).await? else { return Ok(None) };
        let run = if writer.producers() > 0 {
            Some(self.seal(disk, writer).await?)
        } else {
            disk.remove(&path).await?;
            None
        };
        Ok(Some(Merged { run, tally }))
    }

    /// Puts the merged run in the place of those it was made of.
    fn replace(&self, taken: &[Rc<Run<D>>], merged: Merged<D>) -> MergeOutcome {
        let replaced = taken.iter().map(|run| run.record).collect::<Vec<_>>();
        let left = merged.run.as_ref().map_or(0, |run| run.record.producers) + merged.tally.dropped;
        let lost = replaced.iter().map(|run| run.producers).sum::<u64>().saturating_sub(left);
        let outcome = MergeOutcome {
            merged: merged.run.as_ref().map(|run| run.record),
            replaced: replaced.clone(),
            dropped: merged.tally.dropped,
            forgotten: lost + merged.tally.stale,
            lost: merged.tally.told(),
        };
        let mut runs = self.runs.borrow_mut();
        let Some(first) = replaced.first() else { return outcome };
        let at = runs.iter().position(|run| run.record.number == first.number);
        let at = at.unwrap_or_else(|| unreachable!("only a merge takes runs away"));
        runs.splice(at..at + taken.len(), merged.run.map(Rc::new));
        self.replaced.borrow_mut().extend(replaced);
        outcome
    }

    /// A checkpoint that names exactly these runs is stable, and none before it counts: gives the files that are needed no
    /// more, each once. Some may be gone already.
    pub(crate) fn told_of(&self, records: &[RunRecord]) -> Vec<PathBuf> {
        let mut replaced = self.replaced.borrow_mut();
        let named = |number: u64| records.iter().any(|record| record.number == number);
        let free = replaced.extract_if(.., |record| !named(record.number));
        free.map(|record| run_path(&self.dir, record.number)).collect()
    }
}

/// What became of the runs merged.
struct Merged<D: Disk> {
    run: Option<Run<D>>,
    tally: Tally,
}

/// A file that is being written, until it is live or given up.
struct Begun<'a> {
    begun: &'a RefCell<Vec<u64>>,
    number: u64,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.begun.borrow_mut().retain(|number| *number != self.number);
    }
}

/// A merge under way, even if it is given up.
struct Merging<'a>(&'a Cell<bool>);

impl Drop for Merging<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[cfg(test)]
mod tests;
