//! Files of segments that left their logs: kept for reuse, because written files are several times faster to write
//! than new ones, or removed beyond a bound.
//!
//! A file is touched only when nothing uses its segment any more: a reader in flight would else read another log's
//! batches. A crash while a file is moved out of the pool may leave it under both names, and the segment that it became
//! may be recovered: so after a crash a file of the pool whose header names a live segment is taken out of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_util::stream::{self, StreamExt};

use crate::disk::{BLOCK, Disk, DiskFile};
use crate::indexes::index_path;
use crate::segment::{Segment, SegmentHeader};
use crate::state::StoreInner;

/// Most files kept for reuse: a start after a crash looks into each.
const SPARES_MAX: usize = 4096;
/// Files looked into at once.
const LOOKS_AT_ONCE: usize = 64;

/// A file waiting for reuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spare {
    pub path: PathBuf,
    pub len: u64,
}

/// See the module.
pub(crate) struct Recycle<D: Disk> {
    dir: PathBuf,
    spares: RefCell<Vec<Spare>>,
    bytes: Cell<u64>,
    next_name: Cell<u64>,
    retired: RefCell<Vec<Retired<D>>>,
    cleaned_bytes: Cell<u64>,
    /// Bytes of cleaned segments that no checkpoint is taken for yet.
    waiting_bytes: Cell<u64>,
    /// Files are being moved or removed.
    collecting: Cell<bool>,
}

/// One collection at a time; its end counts also where the future is dropped.
struct Turn<'a, D: Disk> {
    recycle: &'a Recycle<D>,
    store: &'a StoreInner<D>,
}

impl<D: Disk> Drop for Turn<'_, D> {
    fn drop(&mut self) {
        self.recycle.collecting.set(false);
        self.store.work.wake_all();
    }
}

/// A segment that left its log, and the checkpoint that must have ended before its file may go.
struct Retired<D: Disk> {
    segment: Rc<Segment<D>>,
    freed_by: u64,
    /// No checkpoint is taken for it yet.
    waits: bool,
    /// Bytes of it that [`Recycle::cleaned_bytes`] counts.
    counted: u64,
}

/// Directory of files for reuse and of what is being removed.
pub(crate) fn recycle_dir(dir: &Path) -> PathBuf {
    dir.join("recycle")
}

impl<D: Disk> Recycle<D> {
    pub(crate) fn new(dir: &Path) -> Recycle<D> {
        Recycle {
            dir: recycle_dir(dir),
            spares: RefCell::default(),
            bytes: Cell::new(0),
            next_name: Cell::new(0),
            retired: RefCell::default(),
            cleaned_bytes: Cell::new(0),
            waiting_bytes: Cell::new(0),
            collecting: Cell::new(false),
        }
    }

    /// Takes stock of the directory, removing what is no spare file: after a crash also second names of files in use,
    /// which are those of `lives`. However large the pool was allowed to be before, its files are used first.
    pub(crate) async fn open(&self, disk: &D, lives: Option<&BTreeSet<u64>>) -> io::Result<()> {
        for entry in disk.list(&self.dir).await? {
            let path = self.dir.join(&entry.name);
            let number = entry.name.strip_suffix(".free").and_then(|digits| digits.parse::<u64>().ok());
            match number {
                Some(number) if !entry.is_dir && self.spares.borrow().len() < SPARES_MAX => {
                    self.next_name.set(self.next_name.get().max(number + 1));
                    self.put(Spare { path, len: entry.len });
                }
                _ if entry.is_dir => disk.remove_dir_all(&path).await?,
                _ => disk.remove(&path).await?,
            }
        }
        match lives {
            Some(lives) => self.take_out(disk, lives).await,
            None => Ok(()),
        }
    }

    /// Takes files of these lives out of the pool, so that they do not come back.
    async fn take_out(&self, disk: &D, lives: &BTreeSet<u64>) -> io::Result<()> {
        let spares = self.spares.take();
        let kept = stream::iter(spares).map(async |spare| -> io::Result<Option<Spare>> {
            let read = async || disk.open(&spare.path).await?.read_at(0, BLOCK).await;
            let in_use = match read().await {
                Ok(block) => {
                    SegmentHeader::decode(&block).is_some_and(|header| lives.contains(&header.life))
                }
                Err(error) => {
                    tracing::warn!(file = %spare.path.display(), "a spare file cannot be read and is removed: {error}");
                    true
                }
            };
            if in_use {
                disk.remove(&spare.path).await?;
            }
            Ok((!in_use).then_some(spare))
        });
        let mut kept = kept.buffer_unordered(LOOKS_AT_ONCE);
        self.bytes.set(0);
        while let Some(spare) = kept.next().await {
            spare?.into_iter().for_each(|spare| self.put(spare));
        }
        disk.sync_dir(&self.dir).await
    }

    fn put(&self, spare: Spare) {
        self.bytes.set(self.bytes.get() + spare.len);
        self.spares.borrow_mut().push(spare);
    }

    /// A spare file of at least `len` bytes that would not waste more than it holds.
    pub(crate) fn take(&self, len: u64) -> Option<Spare> {
        let mut spares = self.spares.borrow_mut();
        let at = spares.iter().rposition(|spare| spare.len >= len && spare.len <= len.saturating_mul(2))?;
        let spare = spares.swap_remove(at);
        self.bytes.set(self.bytes.get() - spare.len);
        Some(spare)
    }

    /// Removes all spare files, for their room; says whether there were any.
    pub(crate) async fn drop_spares(&self, disk: &D) -> bool {
        let spares = self.spares.take();
        self.bytes.set(0);
        for spare in &spares {
            if let Err(error) = disk.remove(&spare.path).await {
                tracing::warn!(path = %spare.path.display(), "removing a spare file: {error}");
            }
        }
        !spares.is_empty()
    }

    /// A name in the directory never used before in this run.
    pub(crate) fn new_path(&self, suffix: &str) -> PathBuf {
        let number = self.next_name.get();
        self.next_name.set(number + 1);
        self.dir.join(format!("{number:020}.{suffix}"))
    }

    /// The segment was deleted, durably. Its file stays until a checkpoint that began after this: until then recovery
    /// replays frames that wrote to it, and learns of producers from them.
    pub(crate) fn retire_deleted(&self, store: &StoreInner<D>, segment: Rc<Segment<D>>) {
        self.retire(store, segment, (store.pipeline.checkpoint_wanted.get() + 1, false), 0);
    }

    /// The segment was cleaned. Its file stays until a checkpoint that began after this: a crash before goes back to it.
    /// None is taken for it alone before [`Recycle::free_cleaned`], unless such files pile up.
    pub(crate) fn retire_cleaned(&self, store: &StoreInner<D>, segment: Rc<Segment<D>>) {
        // One without bytes waits too.
        let bytes = segment.size().max(1);
        self.cleaned_bytes.set(self.cleaned_bytes.get() + bytes);
        self.retire(store, segment, (store.pipeline.checkpoint_wanted.get() + 1, true), bytes);
        self.waiting_bytes.set(self.waiting_bytes.get() + bytes);
        if self.waiting_bytes.get() >= store.config.checkpoint_bytes {
            self.free_cleaned();
        }
    }

    /// Bytes of cleaned segments whose files are still there.
    pub(crate) fn cleaned_bytes(&self) -> u64 {
        self.cleaned_bytes.get()
    }

    /// The next checkpoint may be taken for cleaned segments' sake.
    pub(crate) fn free_cleaned(&self) {
        if self.waiting_bytes.replace(0) == 0 {
            return;
        }
        self.retired.borrow_mut().iter_mut().for_each(|retired| retired.waits = false);
    }

    /// The segment was cut off, and the checkpoint without it is stable.
    pub(crate) fn retire_cut(&self, store: &StoreInner<D>, segment: Rc<Segment<D>>) {
        self.retire(store, segment, (0, false), 0);
    }

    fn retire(
        &self,
        store: &StoreInner<D>,
        segment: Rc<Segment<D>>,
        (freed_by, waits): (u64, bool),
        counted: u64,
    ) {
        segment.retired.set(true);
        store.read_ahead.forget_segment(segment.life);
        let unsettled = segment.pending.borrow_mut().clear();
        store.settled(unsettled);
        self.retired.borrow_mut().push(Retired { segment, freed_by, waits, counted });
    }

    /// A flush of the retired segment with this life failed: its file is not written again. Says whether there is one.
    pub(crate) fn suspect(&self, life: u64) -> bool {
        let retired = self.retired.borrow();
        let found = retired.iter().find(|retired| retired.segment.life == life);
        found.inspect(|retired| retired.segment.suspect.set(true)).is_some()
    }

    /// Whether only a checkpoint keeps files from being freed.
    pub(crate) fn wants_checkpoint(&self, store: &StoreInner<D>) -> bool {
        let wanted = store.pipeline.checkpoint_wanted.get();
        self.retired.borrow().iter().any(|retired| retired.freed_by > wanted && !retired.waits)
    }

    /// Gives up the retired segments of a log whose directory is about to go: another log of that name may have files
    /// of the same names. Waits until none is being collected.
    pub(crate) async fn forget(&self, store: &Rc<StoreInner<D>>, log_dir: &Path) -> Vec<Rc<Segment<D>>> {
        self.forget_those(store, |segment| segment.path.parent() == Some(log_dir)).await
    }

    /// The same for those of its segments that began at `base` or later: the log may come to have others that do. A
    /// cleaned one has a name of its own.
    pub(crate) async fn forget_from(
        &self,
        store: &Rc<StoreInner<D>>,
        log_dir: &Path,
        base: i64,
    ) -> Vec<Rc<Segment<D>>> {
        let has_name = |segment: &Segment<D>| {
            segment.base >= base && !segment.cleaned && segment.path.parent() == Some(log_dir)
        };
        self.forget_those(store, has_name).await
    }

    async fn forget_those(
        &self,
        store: &Rc<StoreInner<D>>,
        those: impl Fn(&Segment<D>) -> bool,
    ) -> Vec<Rc<Segment<D>>> {
        let forgotten: Vec<_> =
            self.retired.borrow_mut().extract_if(.., |retired| those(&retired.segment)).collect();
        store.work.until(|| (!self.collecting.get()).then_some(())).await;
        forgotten.into_iter().map(|retired| self.let_go(retired)).collect()
    }

    /// Recycles or removes the files of retired segments that nothing uses any more.
    pub(crate) async fn collect(&self, store: &Rc<StoreInner<D>>) {
        store.work.until(|| (!self.collecting.replace(true)).then_some(())).await;
        let _turn = Turn { recycle: self, store };
        self.collect_idle(store).await;
    }

    async fn collect_idle(&self, store: &Rc<StoreInner<D>>) {
        let done = store.pipeline.checkpoint_done.get();
        let idle: Vec<_> = {
            let mut retired = self.retired.borrow_mut();
            let is_idle = |Retired { segment, freed_by, .. }: &mut Retired<D>| {
                *freed_by <= done && Rc::strong_count(segment) == 1 && !segment.preparing.get()
            };
            retired.extract_if(.., is_idle).map(|retired| self.let_go(retired)).collect()
        };
        for segment in idle.iter().filter(|segment| segment.is_ready()) {
            store.files.close(segment);
            store.writeback.unflushed.borrow_mut().remove(&segment.life);
            if let Err(error) = self.reuse(store, segment).await {
                tracing::warn!(path = %segment.path.display(), "retiring a segment file: {error}");
            }
        }
    }

    fn let_go(&self, retired: Retired<D>) -> Rc<Segment<D>> {
        self.cleaned_bytes.set(self.cleaned_bytes.get() - retired.counted);
        retired.segment
    }

    async fn reuse(&self, store: &StoreInner<D>, segment: &Segment<D>) -> io::Result<()> {
        let disk = &store.disk;
        match disk.remove(&index_path(segment)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let len = segment.prepared_to.get();
        let is_full =
            self.bytes.get() + len > store.recycle_bytes_max() || self.spares.borrow().len() >= SPARES_MAX;
        if is_full || store.space.is_tight(0) || segment.suspect.get() {
            return disk.remove(&segment.path).await;
        }
        let path = self.new_path("free");
        disk.rename(&segment.path, &path).await?;
        // The name there must not come back. Should the one here get lost, nothing is lost with it.
        if let Some(log_dir) = segment.path.parent() {
            disk.sync_dir(log_dir).await?;
        }
        self.put(Spare { path, len });
        Ok(())
    }
}
