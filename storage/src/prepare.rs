//! Makes and extends segment files in the background. No append waits for it, but one that no journal frame can hold
//! (see [`crate::large`]): until a file is ready, the bytes of its segment stay in the journal and in memory.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::disk::{Disk, DiskFile};
use crate::files::FileError;
use crate::recycle::recycle_dir;
use crate::segment::{Segment, SegmentHeader};
use crate::state::{LogInner, StoreInner, logs_dir};

/// Files made or extended at once.
const AT_ONCE: usize = 64;
/// First extent of a new file in bytes; each further one makes it four times as long.
const FIRST_EXTENT: u64 = 256 << 10;
/// Pause between attempts while the disk is full.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(200);

impl<D: Disk> StoreInner<D> {
    /// Asks for the segment's file, or for more of it, unless that is under way.
    pub(crate) fn prepare(&self, log: &Rc<LogInner<D>>, segment: &Rc<Segment<D>>) {
        if !segment.preparing.replace(true) {
            self.to_prepare.borrow_mut().push_back((log.clone(), segment.clone()));
            self.work.wake_all();
        }
    }

    /// Asks for more of the segment's file if it is shorter than its limit.
    pub(crate) fn extend(&self, log: &Rc<LogInner<D>>, segment: &Rc<Segment<D>>, limit: u64) {
        if segment.prepared_to.get() < limit {
            self.prepare(log, segment);
        }
    }

    /// Physical size limit of the log's segments.
    pub(crate) fn segment_bytes(&self, log_segment_bytes: u64) -> u64 {
        log_segment_bytes.min(self.config.segment_bytes_max)
    }

    /// As [`StoreInner::retry_while_full`]; any other failure takes the store offline. `None` then too.
    pub(crate) async fn retry_no_space<T, F: Future<Output = io::Result<T>>>(
        self: &Rc<Self>,
        what: &str,
        op: impl FnMut() -> F,
    ) -> Option<T> {
        match self.retry_while_full(what, op).await? {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(format_args!("{what} failed: {error}"));
                None
            }
        }
    }

    /// Repeats `op` while the disk is full, or no more files may be open, telling so to appenders. `None` if the store
    /// stopped.
    pub(crate) async fn retry_while_full<T, F: Future<Output = io::Result<T>>>(
        self: &Rc<Self>,
        what: &str,
        op: impl FnMut() -> F,
    ) -> Option<io::Result<T>> {
        self.retry_while_full_for(what, || true, op).await
    }

    /// The same as long as it is `wanted` at all.
    pub(crate) async fn retry_while_full_for<T, F: Future<Output = io::Result<T>>>(
        self: &Rc<Self>,
        what: &str,
        wanted: impl Fn() -> bool,
        mut op: impl FnMut() -> F,
    ) -> Option<io::Result<T>> {
        let mut waits = false;
        let done = loop {
            match op().await {
                Ok(value) => break Some(Ok(value)),
                Err(error) if passes(&error) && !self.stopped.get() && wanted() => {
                    if !waits {
                        waits = true;
                        self.disk_full.set(self.disk_full.get() + 1);
                        self.tell_of_space(&format!("{what}: {error}"));
                        self.room.wake_all();
                        self.journal.changed.wake_all();
                        self.work.wake_all();
                        self.ask_for_space();
                    }
                    self.disk.sleep(NO_SPACE_PAUSE).await;
                    if !wanted() {
                        break None;
                    }
                }
                // The store was closed while it waited: nothing is lost by it.
                Err(error) if passes(&error) => break None,
                Err(error) => break Some(Err(error)),
            }
        };
        if waits {
            self.disk_full.set(self.disk_full.get() - 1);
            self.tell_of_space("");
        }
        done
    }
}

/// Whether an error says that there is no room now: on the disk, in a quota, among open files.
pub(crate) fn passes(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl<D: Disk> StoreInner<D> {
    /// The segment's file, for writing. `None` if the store stopped or the segment left its log; a file that cannot be
    /// used takes the log offline.
    pub(crate) async fn file_for_writing(
        self: &Rc<Self>,
        log: &Rc<LogInner<D>>,
        segment: &Rc<Segment<D>>,
    ) -> Option<D::File> {
        if let Some(file) = self.files.opened(segment) {
            return Some(file);
        }
        let open = async || match self.files.get(&self.disk, log, segment).await {
            Ok(file) => Ok(Some(file)),
            // Its log was removed meanwhile, and its files with it.
            Err(_) if segment.retired.get() => Ok(None),
            Err(FileError::Io(error)) if passes(&error) => Err(error),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        self.retry_for_log((log, segment), "opening its file", open).await.flatten()
    }
}

/// Makes files until the store stops.
pub(crate) async fn run_preparer<D: Disk>(store: Rc<StoreInner<D>>) {
    let running = Rc::new(std::cell::Cell::new(0_usize));
    loop {
        let next = || {
            if store.stopped.get() {
                return Some(None);
            }
            if running.get() >= AT_ONCE {
                return None;
            }
            store.to_prepare.borrow_mut().pop_front().map(Some)
        };
        let Some((log, segment)) = store.work.until(next).await else { return };
        running.set(running.get() + 1);
        let (worker, running) = (store.clone(), running.clone());
        store.spawn("segment maker", async move {
            if !segment.retired.get() && !log.has_failed() {
                prepare(&worker, &log, &segment).await;
            }
            segment.preparing.set(false);
            running.set(running.get() - 1);
        });
    }
}

async fn prepare<D: Disk>(store: &Rc<StoreInner<D>>, log: &Rc<LogInner<D>>, segment: &Rc<Segment<D>>) {
    let limit = store.segment_bytes(log.state.borrow().config.segment_bytes);
    let wanted_to = segment.wanted_to.get();
    let limit = limit.max(segment.end.get()).max(wanted_to).next_multiple_of(crate::disk::BLOCK as u64);
    if !segment.is_ready() {
        make(store, log, segment, limit).await;
        return;
    }
    let prepared_to = segment.prepared_to.get();
    let needed = segment.end.get().max(wanted_to);
    let to = limit.min(prepared_to.max(needed) * 4).max(wanted_to);
    // Not ahead of what is there already where that would go to the reserve.
    let to = if store.space.is_tight(to.saturating_sub(prepared_to)) { needed } else { to };
    let to = to.next_multiple_of(crate::disk::BLOCK as u64);
    if to <= prepared_to {
        return;
    }
    let Some(file) = store.file_for_writing(log, segment).await else { return };
    let grow = || file.allocate(prepared_to, to - prepared_to);
    if store.retry_for_log((log, segment), "extending its file", grow).await.is_some() {
        store.took_space(to - prepared_to);
        segment.prepared_to.set(to);
    }
}

async fn make<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
    limit: u64,
) {
    let spare = store.recycle.take(limit);
    let made = match &spare {
        Some(spare) => {
            let reuse = || reuse_file(store, log, segment, &spare.path);
            let made = store.retry_for_log((log, segment), "reusing a file", reuse).await;
            if made.is_none() && !store.stopped.get() {
                // It left the pool. Where it has its new name already, it goes with the log's leftovers.
                store.disk.remove(&spare.path).await.ok();
            }
            made.map(|file| (file, spare.len))
        }
        None => {
            let needed = segment.end.get().max(segment.wanted_to.get());
            let len = FIRST_EXTENT.max(segment.end.get() * 2).max(needed);
            let len = if store.space.is_tight(len) { needed } else { len };
            let len = limit.min(len).next_multiple_of(4096);
            let new = || new_file(store, log, segment, len);
            let made = store.retry_for_log((log, segment), "making its file", new).await;
            store.took_space(len);
            made.map(|file| (file, len))
        }
    };
    if let Some((file, len)) = made {
        store.files.keep(segment, file);
        segment.prepared_to.set(len);
    }
}

async fn reuse_file<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
    spare: &std::path::Path,
) -> io::Result<D::File> {
    let disk = &store.disk;
    make_log_dir(store, log).await?;
    // An attempt before may have got as far as the new name.
    let renamed = !disk.exists(spare).await?;
    let file = disk.open(if renamed { &segment.path } else { spare }).await?;
    write_header(log, segment, &file).await?;
    if !renamed {
        disk.rename(spare, &segment.path).await?;
    }
    disk.sync_dir(&recycle_dir(&store.dir)).await?;
    disk.sync_dir(&store.log_dir(&log.name)).await?;
    Ok(file)
}

/// Makes a new file of `len` bytes with its header, stable. A file of that name is a leftover and is replaced. The log's
/// directory is made where it is missing: a checkpoint may tell of segments that never had a file.
pub(crate) async fn new_file<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    segment: &Rc<Segment<D>>,
    len: u64,
) -> io::Result<D::File> {
    let disk = &store.disk;
    make_log_dir(store, log).await?;
    let file = match disk.create(&segment.path, len).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&segment.path).await?;
            disk.create(&segment.path, len).await?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && log.has_dir.replace(false) => {
            make_log_dir(store, log).await?;
            disk.create(&segment.path, len).await?
        }
        created => created?,
    };
    write_header(log, segment, &file).await?;
    disk.sync_dir(&store.log_dir(&log.name)).await?;
    Ok(file)
}

async fn make_log_dir<D: Disk>(store: &Rc<StoreInner<D>>, log: &Rc<LogInner<D>>) -> io::Result<()> {
    if log.has_dir.get() {
        return Ok(());
    }
    store.disk.create_dir_all(&store.log_dir(&log.name)).await?;
    store.disk.sync_dir(&logs_dir(&store.dir)).await?;
    log.has_dir.set(true);
    Ok(())
}

pub(crate) async fn write_header<D: Disk>(
    log: &LogInner<D>,
    segment: &Segment<D>,
    file: &D::File,
) -> io::Result<()> {
    file.write_at(header_of(log, segment).encode().freeze(), 0).await?;
    file.sync_data().await
}

/// What the header of the segment's file says.
pub(crate) fn header_of<D: Disk>(log: &LogInner<D>, segment: &Segment<D>) -> SegmentHeader {
    SegmentHeader { log_id: log.id, base: segment.base, life: segment.life, log_name: log.name.to_string() }
}
