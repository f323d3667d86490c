//! The journal's ring of files: where the next frame goes, and what a checkpoint frees.
//!
//! Files are written in full once, so that later writes never allocate. Files are numbered from 0 in each run of the
//! store; number `n` is file `n % file_count`. A frame lies within one file; where it does not fit, it begins the
//! next file.
//!
//! Invariant (freedom from deadlock): a checkpoint can complete only when every commit before it was placed. So
//! commits that no checkpoint waits for may take half of the ring beyond the redo position (or beyond the position
//! of the checkpoint under way), and the other half is left for those it does wait for, which `append` bounds. For the
//! same reason only the former wait where more would be replayed after a kill than the store's settings allow.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::checkpoint::Redo;
use crate::config::StoreConfig;
use crate::disk::{AlignedBuf, Disk, DiskFile};
use crate::state::StoreInner;
use crate::wait::WaitList;

/// Bytes of one write when a file is written for the first time.
const FILL_BYTES: u64 = 1 << 20;

/// A place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Cursor {
    /// Number of the file since the run began.
    pub number: u64,
    /// Position in it.
    pub position: u64,
}

/// A checkpoint under way: commits from `seq` on are not part of it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    seq: u64,
    /// Where frame `seq` was placed, and what was placed before it; `None` while it was not.
    placed: Option<(Cursor, u64)>,
}

/// How far the file of the ring is that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Making {
    /// There is none.
    Nothing,
    /// It may have its room on the volume, or not.
    Allocating,
    /// It has its room.
    Filling,
}

/// See the module.
pub(crate) struct Journal<D: Disk> {
    dir: PathBuf,
    file_bytes: u64,
    file_count: u64,
    /// See [`StoreConfig::checkpoint_bytes`].
    checkpoint_bytes: u64,
    /// See [`StoreConfig::checkpoint_late_bytes_max`].
    late_bytes_max: u64,
    /// Bytes to be expected behind the next checkpoint while it is under way: those behind the last, or behind one before it
    /// that had more, less an eighth of them for each since.
    late_expected: Cell<u64>,
    files: RefCell<Vec<Option<D::File>>>,
    cursor: Cell<Cursor>,
    redo: Cell<Cursor>,
    /// Bytes of batches whose frames were placed, in all, and of those before the redo position.
    placed_bytes: Cell<u64>,
    redo_bytes: Cell<u64>,
    mark: Cell<Option<Mark>>,
    /// A file is being made. One at a time, so that none is filled twice.
    making: Cell<Making>,
    /// The next commit waits for a file, or for a checkpoint to end.
    pub waiting: Cell<bool>,
    /// A file was made, a checkpoint began or ended, or the disk is full.
    pub changed: WaitList,
}

/// Directory of the journal's files.
pub(crate) fn journal_dir(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// Path of one file of the ring.
pub(crate) fn journal_path(dir: &Path, index: u64) -> PathBuf {
    journal_dir(dir).join(format!("{index:04}.journal"))
}

impl<D: Disk> Journal<D> {
    pub(crate) fn new(dir: &Path, config: &StoreConfig) -> Journal<D> {
        let file_count = u64::from(config.journal_files);
        Journal {
            dir: dir.to_owned(),
            file_bytes: config.journal_file_bytes,
            file_count,
            checkpoint_bytes: config.checkpoint_bytes,
            late_bytes_max: config.checkpoint_late_bytes_max,
            late_expected: Cell::new(0),
            files: RefCell::new((0..file_count).map(|_| None).collect()),
            cursor: Cell::default(),
            redo: Cell::default(),
            placed_bytes: Cell::new(0),
            redo_bytes: Cell::new(0),
            mark: Cell::new(None),
            making: Cell::new(Making::Nothing),
            waiting: Cell::new(false),
            changed: WaitList::default(),
        }
    }

    /// Opens the files that exist and makes the first; the others are made before they are needed.
    pub(crate) async fn open(&self, disk: &D) -> io::Result<()> {
        for entry in disk.list(&journal_dir(&self.dir)).await? {
            let path = journal_dir(&self.dir).join(&entry.name);
            let index = entry.name.strip_suffix(".journal").and_then(|digits| digits.parse::<u64>().ok());
            match index.filter(|index| *index < self.file_count && entry.len == self.file_bytes) {
                Some(index) => {
                    let file = disk.open(&path).await?;
                    file.sync_data().await?;
                    self.files.borrow_mut()[index as usize] = Some(file);
                }
                None => disk.remove(&path).await?,
            }
        }
        disk.sync_dir(&journal_dir(&self.dir)).await?;
        self.make(disk, 0).await
    }

    /// Makes the file of that number unless it exists, written in full and stable.
    pub(crate) async fn make(&self, disk: &D, number: u64) -> io::Result<()> {
        let index = number % self.file_count;
        self.changed.until(|| (self.making.get() == Making::Nothing).then_some(())).await;
        if self.files.borrow()[index as usize].is_some() {
            return Ok(());
        }
        self.making.set(Making::Allocating);
        let made = self.fill(disk, index).await;
        self.making.set(Making::Nothing);
        if let Ok(file) = &made {
            self.files.borrow_mut()[index as usize] = Some(file.clone());
        }
        self.changed.wake_all();
        made.map(|_| ())
    }

    async fn fill(&self, disk: &D, index: u64) -> io::Result<D::File> {
        let path = journal_path(&self.dir, index);
        let file = match disk.create(&path, self.file_bytes).await {
            Ok(file) => file,
            // An attempt that failed is not gone on with.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&path).await?;
                disk.create(&path, self.file_bytes).await?
            }
            Err(error) => return Err(error),
        };
        self.making.set(Making::Filling);
        self.changed.wake_all();
        let zeros = AlignedBuf::zeroed(FILL_BYTES.min(self.file_bytes) as usize).freeze();
        let mut position = 0;
        while position < self.file_bytes {
            let len = (self.file_bytes - position).min(zeros.len() as u64);
            file.write_at(zeros.slice(..len as usize), position).await?;
            position += len;
        }
        file.sync_data().await?;
        disk.sync_dir(&journal_dir(&self.dir)).await?;
        Ok(file)
    }

    /// Waits until a frame of `len` bytes of commit `seq` can be placed, and moves to its file.
    pub(crate) async fn reserve(&self, store: &Rc<StoreInner<D>>, seq: u64, len: u64) {
        assert!(len <= self.file_bytes, "a frame fits a journal file");
        let cursor = self.cursor.get();
        let next = (cursor.position + len > self.file_bytes).then_some(cursor.number + 1);
        let has_room = || next.is_none_or(|next| self.may_enter(next, seq));
        // While the disk is full a checkpoint may have no end before a deletion, whose frame this may be, makes room.
        let may = || has_room() && (self.may_place(seq) || store.disk_full.get() > 0);
        while !may() && !store.stopped.get() {
            let mark = || self.mark.get().map(|mark| mark.seq);
            let marked = mark();
            if marked.is_none() || !has_room() {
                store.pipeline.request_checkpoint(store);
            }
            self.waiting.set(true);
            store.writeback.hasten();
            let changed = || (store.stopped.get() || may() || mark() != marked).then_some(());
            self.changed.until(changed).await;
            self.waiting.set(false);
        }
        let Some(next) = next.filter(|_| !store.stopped.get()) else { return };
        store.retry_no_space("making a journal file", || self.make(&store.disk, next)).await;
        if store.stopped.get() {
            return;
        }
        self.cursor.set(Cursor { number: next, position: 0 });
        if next + 1 < self.file_count {
            let ahead = store.clone();
            store.spawn("journal maker", async move {
                // A failure shows when the file is needed: then it is made again, and waited for.
                if let Err(error) = ahead.journal.make(&ahead.disk, next + 1).await {
                    tracing::warn!("making a journal file ahead: {error}");
                }
            });
        }
    }

    /// Whether so little would be replayed after a kill that commit `seq` may be placed: the last one may go beyond the bound.
    fn may_place(&self, seq: u64) -> bool {
        match self.mark.get() {
            Some(mark) if seq < mark.seq => true,
            Some(mark) => self.late_bytes(mark) < self.late_room(mark),
            None => self.placed_bytes.get() - self.redo_bytes.get() < self.replayed_bytes_max(),
        }
    }

    /// Bytes that a start may have to replay, but for what comes together while a checkpoint that is due begins.
    fn replayed_bytes_max(&self) -> u64 {
        self.checkpoint_bytes.saturating_add(self.late_bytes_max)
    }

    /// Bytes after which a checkpoint is due: the fewer the more is to be expected behind it. Of what may be replayed, room is
    /// left for half as much again, but for no more than two thirds of all.
    pub(crate) fn due_bytes(&self) -> u64 {
        let most = self.replayed_bytes_max();
        let late = self.late_expected.get() / 2 * 3;
        self.checkpoint_bytes.min(most - late.min(most / 3 * 2))
    }

    /// Bytes that may be placed behind a checkpoint under way: what is left of those that may be replayed. They may all be
    /// replayed when the next checkpoint begins, which has to have room behind it as well.
    fn late_room(&self, mark: Mark) -> u64 {
        let before = mark.placed.map_or(0, |(_, before)| before - self.redo_bytes.get());
        let left = self.replayed_bytes_max().saturating_sub(before);
        left.min(self.checkpoint_bytes).max(self.late_bytes_max)
    }

    /// Bytes placed behind a checkpoint under way.
    fn late_bytes(&self, mark: Mark) -> u64 {
        mark.placed.map_or(0, |(_, before)| self.placed_bytes.get() - before)
    }

    fn may_enter(&self, number: u64, seq: u64) -> bool {
        let half = self.file_count / 2;
        match self.mark.get() {
            Some(mark) if seq >= mark.seq => {
                let from = self.begin_of(mark);
                number - from.number < half && number - self.redo.get().number < self.file_count
            }
            Some(_) => number - self.redo.get().number < self.file_count,
            None => number - self.redo.get().number < half,
        }
    }

    /// Whether so much is in use that a checkpoint should free it.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.mark.get().is_none()
            && self.cursor.get().number - self.redo.get().number + 1 >= self.file_count / 2
    }

    /// How much is taken of the room for frames behind a checkpoint under way, from 0 to 1: at 1 they wait for its end.
    pub(crate) fn pressure(&self) -> f64 {
        if self.waiting.get() {
            return 1.0;
        }
        let Some(mark) = self.mark.get() else { return 0.0 };
        let (from, cursor) = (self.begin_of(mark), self.cursor.get());
        // See `may_enter`.
        let end = (from.number + self.file_count / 2).min(self.redo.get().number + self.file_count);
        let at = |cursor: Cursor| cursor.number * self.file_bytes + cursor.position;
        let room = (end * self.file_bytes).saturating_sub(at(from)).max(1);
        let of_room = (at(cursor) - at(from)) as f64 / room as f64;
        let of_replay = self.late_bytes(mark) as f64 / self.late_room(mark).max(1) as f64;
        of_room.max(of_replay).min(1.0)
    }

    /// Where the first frame behind a checkpoint under way is, or will be.
    fn begin_of(&self, mark: Mark) -> Cursor {
        mark.placed.map_or(self.cursor.get(), |(cursor, _)| cursor)
    }

    /// Takes the place of the frame of commit `seq`, `len` bytes long in whole blocks, after [`Journal::reserve`]; it tells of
    /// batches of `bytes`.
    pub(crate) fn place(&self, seq: u64, len: u64, bytes: u64) -> (u64, D::File, u64) {
        let cursor = self.cursor.get();
        self.note_placed(seq, bytes);
        assert!(cursor.position + len <= self.file_bytes, "room was reserved");
        self.cursor.set(Cursor { position: cursor.position + len, ..cursor });
        let file = self.files.borrow()[(cursor.number % self.file_count) as usize].clone();
        (cursor.number, file.expect("reserved files exist"), cursor.position)
    }

    /// The frame of commit `seq`, with batches of `bytes`, is placed at the cursor.
    fn note_placed(&self, seq: u64, bytes: u64) {
        let before = self.placed_bytes.get();
        if let Some(mark) = self.mark.get().filter(|mark| mark.seq == seq) {
            self.mark.set(Some(Mark { placed: Some((self.cursor.get(), before)), ..mark }));
        }
        self.placed_bytes.set(before + bytes);
    }

    /// A checkpoint of everything before `seq` begins.
    pub(crate) fn begin_checkpoint(&self, seq: u64) {
        self.mark.set(Some(Mark { seq, placed: None }));
        self.changed.wake_all();
    }

    /// Where the frames after the checkpoint under way begin. All frames before were placed.
    pub(crate) fn redo_of_mark(&self) -> Cursor {
        self.begin_of(self.mark.get().expect("a checkpoint is under way"))
    }

    /// The checkpoint is stable: what lies before `redo` is free.
    pub(crate) fn end_checkpoint(&self, redo: Cursor) {
        self.redo.set(redo);
        let before = self.mark.take().and_then(|mark| mark.placed).map(|(_, before)| before);
        let before = before.unwrap_or(self.placed_bytes.get());
        let late = (self.placed_bytes.get() - before).min(self.replayed_bytes_max());
        self.late_expected.set(late.max(self.late_expected.get() / 8 * 7));
        self.redo_bytes.set(before);
        self.changed.wake_all();
    }

    /// Bytes that files of the ring have still to take of the volume; `None` while it is not known whether one has taken them.
    pub(crate) fn unmade_bytes(&self) -> Option<u64> {
        let without = self.files.borrow().iter().filter(|file| file.is_none()).count() as u64;
        match self.making.get() {
            Making::Nothing => Some(without * self.file_bytes),
            Making::Allocating => None,
            Making::Filling => Some((without - 1) * self.file_bytes),
        }
    }

    /// The same, once it is known.
    pub(crate) async fn known_unmade_bytes(&self) -> u64 {
        self.changed.until(|| self.unmade_bytes()).await
    }

    /// Bytes between redo position and cursor.
    pub(crate) fn used_bytes(&self) -> u64 {
        let (redo, cursor) = (self.redo.get(), self.cursor.get());
        (cursor.number - redo.number) * self.file_bytes + cursor.position - redo.position
    }

    /// Bytes of frames that may wait to be placed.
    pub(crate) fn queue_bytes_max(&self) -> u64 {
        (self.file_count - self.file_count / 2) / 2 * self.file_bytes
    }

    /// The ring as a checkpoint names it.
    pub(crate) fn redo(&self, run: u64, seq: u64, cursor: Cursor, clean: bool) -> Redo {
        Redo {
            run,
            seq,
            file_number: cursor.number,
            position: cursor.position,
            file_bytes: self.file_bytes,
            file_count: self.file_count as u32,
            clean,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    fn ring_of_four() -> StoreConfig {
        StoreConfig {
            journal_files: 4,
            journal_file_bytes: 64 << 10,
            checkpoint_bytes: 100,
            checkpoint_late_bytes_max: 40,
            ..StoreConfig::default()
        }
    }

    /// A ring of four files of 64 KiB whose checkpoint began at `from`, with the redo position and the cursor where they are
    /// said to be: (file, position).
    fn pressure(redo: (u64, u64), from: Option<(u64, u64)>, cursor: (u64, u64)) -> f64 {
        let config = ring_of_four();
        let journal = Journal::<SimDisk>::new(Path::new("/"), &config);
        let at = |(number, position)| Cursor { number, position };
        journal.redo.set(at(redo));
        journal.cursor.set(at(cursor));
        journal.mark.set(from.map(|from| Mark { seq: 1, placed: Some((at(from), 0)) }));
        journal.pressure()
    }

    #[test]
    fn pressure_is_how_near_commits_are_to_waiting_for_the_checkpoint() {
        let half = 32 << 10;
        assert_eq!(pressure((0, 0), None, (1, half)), 0.0, "no checkpoint is under way");
        assert_eq!(pressure((0, 0), Some((1, 0)), (1, 0)), 0.0);
        assert_eq!(pressure((0, 0), Some((1, 0)), (2, 0)), 0.5);
        assert_eq!(pressure((0, 0), Some((1, half)), (2, half)), 2.0 / 3.0, "to the end of the second file");
        // The other half of the ring is full of frames from before it.
        assert_eq!(pressure((0, 0), Some((3, 0)), (3, half)), 0.5);
        assert_eq!(pressure((0, 0), Some((3, half)), (3, 64 << 10)), 1.0);
    }

    #[test]
    fn a_commit_that_waits_is_all_the_pressure_there_is() {
        let config = StoreConfig::default();
        let journal = Journal::<SimDisk>::new(Path::new("/"), &config);
        assert_eq!(journal.pressure(), 0.0);
        journal.waiting.set(true);
        assert_eq!(journal.pressure(), 1.0);
    }

    #[test]
    fn what_would_be_replayed_is_bounded_but_for_what_the_checkpoint_waits_for() {
        let journal = Journal::<SimDisk>::new(Path::new("/"), &ring_of_four());
        let place = |seq, bytes| journal.note_placed(seq, bytes);
        place(1, 139);
        assert!(journal.may_place(2), "a checkpoint is due, and 40 behind it");
        place(2, 10);
        assert!(!journal.may_place(3));
        journal.begin_checkpoint(5);
        assert!(journal.may_place(4), "the checkpoint waits for it");
        assert!(journal.may_place(5), "the first behind it goes in any case");
        place(3, 1000);
        place(4, 1000);
        assert_eq!(journal.pressure(), 0.0);
        place(5, 30);
        assert_eq!(journal.pressure(), 0.75);
        assert!(journal.may_place(6));
        place(6, 10);
        assert!(!journal.may_place(7));
        assert_eq!(journal.pressure(), 1.0);
        journal.end_checkpoint(journal.redo_of_mark());
        assert!(journal.may_place(7), "40 would be replayed");
        place(7, 99);
        assert!(journal.may_place(8));
        place(8, 1);
        assert!(!journal.may_place(9));
    }

    /// A checkpoint, taken `before` bytes after the one before it, and `late` behind it.
    fn checkpoint(journal: &Journal<SimDisk>, seq: u64, before: u64, late: u64) {
        let since = journal.placed_bytes.get() - journal.redo_bytes.get();
        journal.note_placed(seq, before - since);
        journal.begin_checkpoint(seq + 1);
        journal.note_placed(seq + 1, late);
        journal.end_checkpoint(journal.redo_of_mark());
    }

    #[test]
    fn a_checkpoint_is_due_the_sooner_the_more_came_behind_the_ones_before() {
        let journal = Journal::<SimDisk>::new(Path::new("/"), &ring_of_four());
        assert_eq!(journal.due_bytes(), 100);
        checkpoint(&journal, 1, 100, 20);
        assert_eq!(journal.due_bytes(), 100, "30 fit");
        checkpoint(&journal, 3, 100, 40);
        assert_eq!(journal.due_bytes(), 80, "60 are left");
        checkpoint(&journal, 5, 80, 64);
        assert_eq!(journal.due_bytes(), 140 - 92, "never more than two thirds of all are left");
        let mut due = 0;
        for n in 0..10 {
            checkpoint(&journal, 7 + 2 * n, 100, 0);
            assert!(journal.due_bytes() >= due);
            due = journal.due_bytes();
        }
        assert_eq!(due, 100, "a while ago");
    }

    #[test]
    fn behind_a_checkpoint_there_is_room_for_what_may_still_be_replayed() {
        let journal = Journal::<SimDisk>::new(Path::new("/"), &ring_of_four());
        let room = |journal: &Journal<SimDisk>| {
            let mark = journal.mark.get().unwrap();
            journal.late_room(mark)
        };
        journal.note_placed(1, 60);
        journal.begin_checkpoint(2);
        journal.note_placed(2, 79);
        assert_eq!(room(&journal), 80);
        assert_eq!(journal.pressure(), 79.0 / 80.0);
        assert!(journal.may_place(3));
        journal.note_placed(3, 1);
        assert!(!journal.may_place(4));
        journal.end_checkpoint(journal.redo_of_mark());

        journal.begin_checkpoint(4);
        journal.note_placed(4, 59);
        assert_eq!(room(&journal), 60, "80 would be replayed already");
        assert!(journal.may_place(5));
        journal.note_placed(5, 1);
        assert!(!journal.may_place(6));
        journal.end_checkpoint(journal.redo_of_mark());

        journal.begin_checkpoint(6);
        journal.note_placed(6, 1);
        assert_eq!(room(&journal), 80);
        journal.end_checkpoint(journal.redo_of_mark());
        journal.begin_checkpoint(7);
        journal.note_placed(7, 1);
        assert_eq!(room(&journal), 100, "the next one has room behind it as well");
    }
}
