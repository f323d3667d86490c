//! A simulated disk with an executor of its own: deterministic, single-threaded, in virtual time, from a seed.
//!
//! Every operation takes a random time and completes in random order; ready tasks run in random order. The same
//! seed gives the same run, step for step, as long as the code under test is deterministic itself.
//!
//! What a power loss ([`Crash::PowerLoss`]) does, file by file:
//! - A write that a *completed* `sync_data` of that file covered (it had completed when the sync was called) stays.
//! - Any other write, completed or in flight, is independently lost, applied, or torn: some of its 512-byte
//!   sectors old, some new, or one of its 4 KiB blocks garbage (a device that was rewriting it when power went).
//! - So with sizes: allocations and growth not synced may be gone.
//! - A creation, rename or removal not followed by a completed `sync_dir` of its directory is kept or lost. A file's
//!   rename from one directory to another is a change of each, stable when that one is synced: until both are, the file
//!   may be found under both names or under neither. (Journaling file systems make one transaction of it; POSIX does not
//!   say so.) A directory names its parent, so its rename is one change, stable when either parent is synced.
//!
//! [`Crash::Kill`] ends the process alone: completed operations stay visible, but are no more stable than they were.
//! Within one process, what a failed sync covered is never made stable by another; after a kill the next process's may.

mod executor;
mod fault;
mod inode;
mod tree;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::{AlignedBuf, BLOCK, DirEntry, Disk, DiskFile, TEMP_SUFFIX, Volume, is_aligned};
use executor::{Completion, Executor};
use fault::Planted;
pub use fault::{Effect, Fault, Operation};
use inode::{Inode, InodeRef};
use tree::Tree;

/// How a simulated world ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The machine loses power.
    PowerLoss,
    /// The process is killed; the machine runs on.
    Kill,
}

/// One life of a simulated machine: its disk, its clock, its tasks. Clones are handles on the same world.
#[derive(Clone)]
pub struct SimWorld(Rc<World>);

struct World {
    executor: Executor,
    tree: RefCell<Tree>,
    faults: RefCell<Vec<Planted>>,
    counts: [Cell<u64>; Operation::COUNT],
    /// Bytes that all files together may have.
    capacity: Cell<u64>,
}

/// Size of a disk without a limit.
const UNLIMITED: u64 = 1 << 60;

impl World {
    /// Whether `inode` may grow to `size` bytes.
    fn check_room(&self, inode: &InodeRef, size: u64) -> io::Result<()> {
        let grown = size.saturating_sub(inode.borrow().size());
        let capacity = self.capacity.get();
        if grown == 0 || capacity == UNLIMITED || self.tree.borrow().used_bytes() + grown <= capacity {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }
}

impl SimWorld {
    /// A world with an empty disk (only the root directory exists).
    pub fn new(seed: u64) -> SimWorld {
        SimWorld::with_tree(seed, Tree::default())
    }

    /// A world whose disk holds these files, by absolute path, all stable.
    pub fn with_files(seed: u64, files: &BTreeMap<PathBuf, Bytes>) -> SimWorld {
        SimWorld::with_tree(seed, Tree::of_files(files))
    }

    /// All files as reads see them now.
    pub fn files(&self) -> BTreeMap<PathBuf, Bytes> {
        self.0.tree.borrow().files()
    }

    fn with_tree(seed: u64, tree: Tree) -> SimWorld {
        SimWorld(Rc::new(World {
            executor: Executor::new(seed),
            tree: RefCell::new(tree),
            faults: RefCell::default(),
            counts: Default::default(),
            capacity: Cell::new(UNLIMITED),
        }))
    }

    /// Its disk.
    pub fn disk(&self) -> SimDisk {
        SimDisk(self.0.clone())
    }

    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.executor.spawn(Box::pin(task));
    }

    /// Runs until `future` is done and gives its output. Panics if nothing is left that could make it go on.
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let limit = u64::MAX;
        self.block_on_until(limit, future)
            .unwrap_or_else(|| panic!("deadlock: every task waits, no event is due"))
    }

    /// As [`SimWorld::block_on`], but gives `None` when the world's step count reaches `step` or it has nothing to do.
    pub fn block_on_until<T: 'static>(
        &self,
        step: u64,
        future: impl Future<Output = T> + 'static,
    ) -> Option<T> {
        let slot = Rc::new(RefCell::new(None));
        let output = slot.clone();
        self.spawn(async move {
            let value = future.await;
            *output.borrow_mut() = Some(value);
        });
        while slot.borrow().is_none() && self.steps() < step {
            if !self.0.executor.step() {
                break;
            }
        }
        slot.borrow_mut().take()
    }

    /// Runs until the step count reaches `step` (false) or nothing is left to do (true).
    pub fn run_until(&self, step: u64) -> bool {
        while self.steps() < step {
            if !self.0.executor.step() {
                return true;
            }
        }
        false
    }

    /// Steps taken: one for each poll of a task and each completion.
    pub fn steps(&self) -> u64 {
        self.0.executor.steps()
    }

    /// Virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.0.executor.now()
    }

    /// A random number below `bound`, from the world's own sequence.
    pub fn random(&self, bound: u64) -> u64 {
        self.0.executor.random(bound)
    }

    /// Adds a fault to what comes.
    pub fn inject(&self, fault: Fault) {
        self.0.faults.borrow_mut().push(Planted { fault, until: None });
    }

    /// Adds a fault that ends when an operation of this kind begins on a path that contains `path_contains`.
    pub fn inject_until(&self, fault: Fault, operation: Operation, path_contains: &str) {
        let until = Some((operation, path_contains.to_owned()));
        self.0.faults.borrow_mut().push(Planted { fault, until });
    }

    /// Operations that faults may still strike.
    pub fn faults_left(&self) -> u64 {
        self.0.faults.borrow().iter().map(|planted| planted.fault.times).sum()
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.0.faults.borrow_mut().clear();
    }

    /// Limits the disk to `bytes` from now on, the bytes of all files together.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.capacity.set(bytes);
    }

    /// Bytes of all files together.
    pub fn used_bytes(&self) -> u64 {
        self.0.tree.borrow().used_bytes()
    }

    /// Operations of a kind begun so far.
    pub fn count(&self, operation: Operation) -> u64 {
        self.0.counts[operation as usize].get()
    }

    /// Ends this world: no task of it runs again, no operation completes. Gives the world after the restart, with
    /// what the disk still holds and a seed drawn from this one.
    pub fn crash(&self, crash: Crash) -> SimWorld {
        self.0.executor.kill();
        let mut tree = self.0.tree.take();
        tree.crash(crash, &mut |bound| self.random(bound));
        SimWorld::with_tree(self.random(u64::MAX), tree)
    }
}

/// The simulated disk of a [`SimWorld`].
#[derive(Clone)]
pub struct SimDisk(Rc<World>);

impl SimDisk {
    /// Begins an operation: `effect` happens at its completion, even if the future is dropped before.
    fn submit<T: 'static>(
        &self,
        operation: Operation,
        path: &Path,
        effect: impl FnOnce(&World, Option<Effect>) -> io::Result<T> + 'static,
    ) -> Completion<io::Result<T>> {
        let count = &self.0.counts[operation as usize];
        count.set(count.get() + 1);
        let fault = {
            let mut faults = self.0.faults.borrow_mut();
            faults.retain(|planted| !planted.ends(operation, path));
            faults.iter_mut().find_map(|planted| planted.fault.strike(operation, path))
        };
        let world = Rc::downgrade(&self.0);
        let delay = self.delay(operation);
        self.0.executor.submit(delay, move || match world.upgrade() {
            Some(world) => effect(&world, fault),
            None => Err(io::Error::other("the world ended")),
        })
    }

    /// A name operation: fails as a whole on a fault.
    fn submit_name<T: 'static>(
        &self,
        path: &Path,
        effect: impl FnOnce(&mut Tree) -> io::Result<T> + 'static,
    ) -> Completion<io::Result<T>> {
        self.submit(Operation::Name, path, move |world, fault| {
            if let Some(Effect::Fail(errno)) = fault {
                return Err(io::Error::from_raw_os_error(errno));
            }
            effect(&mut world.tree.borrow_mut())
        })
    }

    fn delay(&self, operation: Operation) -> Duration {
        let micros = match operation {
            Operation::Read | Operation::Write => 20 + self.0.executor.random(400),
            Operation::Sync => 100 + self.0.executor.random(2_000),
            Operation::Allocate | Operation::Name | Operation::SyncDir => 50 + self.0.executor.random(3_000),
        };
        let slow = if self.0.executor.random(16) == 0 { 10 } else { 1 };
        Duration::from_micros(micros * slow)
    }

    fn file(&self, path: &Path, inode: InodeRef) -> SimFile {
        SimFile { disk: self.clone(), path: Rc::new(path.to_owned()), inode }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &Path) -> io::Result<SimFile> {
        let wanted = path.to_owned();
        let inode = self.submit_name(path, move |tree| tree.file(&wanted)).await?;
        Ok(self.file(path, inode))
    }

    async fn create(&self, path: &Path, size: u64) -> io::Result<SimFile> {
        assert!(size.is_multiple_of(BLOCK as u64), "file size {size} is not whole blocks");
        let wanted = path.to_owned();
        let create = move |world: &World, fault: Option<Effect>| {
            if let Some(Effect::Fail(errno)) = fault {
                return Err(io::Error::from_raw_os_error(errno));
            }
            let inode = Inode::new_ref();
            world.tree.borrow_mut().create(&wanted, inode.clone())?;
            // As on a real disk, the empty file stays.
            world.check_room(&inode, size)?;
            inode.borrow_mut().allocate(size);
            Ok(inode)
        };
        let inode = self.submit(Operation::Name, path, create).await?;
        Ok(self.file(path, inode))
    }

    async fn exists(&self, path: &Path) -> io::Result<bool> {
        let wanted = path.to_owned();
        self.submit_name(path, move |tree| Ok(tree.exists(&wanted))).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let wanted = dir.to_owned();
        self.submit_name(dir, move |tree| tree.list(&wanted)).await
    }

    async fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let wanted = dir.to_owned();
        self.submit_name(dir, move |tree| tree.create_dir_all(&wanted)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (source, target) = (from.to_owned(), to.to_owned());
        self.submit_name(from, move |tree| tree.rename(&source, &target)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let wanted = path.to_owned();
        self.submit_name(path, move |tree| tree.remove(&wanted)).await
    }

    async fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        loop {
            // One entry at a time, so that a crash can come in between as it can on a real disk.
            let wanted = dir.to_owned();
            if self.submit_name(dir, move |tree| tree.remove_one_under(&wanted)).await? {
                return Ok(());
            }
        }
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let id = self.0.tree.borrow().directory_id(dir)?;
        let begun = self.0.tree.borrow().changes();
        let synced = self.submit(Operation::SyncDir, dir, move |world, fault| match fault {
            Some(Effect::Fail(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Effect::Ignore) => Ok(()),
            None => {
                world.tree.borrow_mut().sync(id, begun);
                Ok(())
            }
        });
        synced.await
    }

    async fn read_small(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        let file = self.open(path).await?;
        let inode = file.inode.clone();
        let read = self.submit(Operation::Read, path, move |_, fault| match fault {
            Some(Effect::Fail(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => {
                let inode = inode.borrow();
                if inode.size() > bytes_max as u64 {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
                Ok(inode.read(0, inode.size() as usize).to_vec())
            }
        });
        read.await
    }

    async fn write_small(&self, path: &Path, bytes: Bytes) -> io::Result<()> {
        let mut temp = path.as_os_str().to_owned();
        temp.push(TEMP_SUFFIX);
        let temp = PathBuf::from(temp);
        let wanted = temp.clone();
        let replace = move |tree: &mut Tree| {
            let inode = Inode::new_ref();
            if tree.exists(&wanted) {
                tree.remove(&wanted)?;
            }
            tree.create(&wanted, inode.clone())?;
            Ok(inode)
        };
        let inode = self.submit_name(path, replace).await?;
        let file = self.file(path, inode);
        file.write(bytes, 0).await?;
        file.sync_data().await?;
        self.rename(&temp, path).await?;
        self.sync_dir(path.parent().unwrap_or(Path::new("/"))).await
    }

    async fn volume(&self, dir: &Path) -> io::Result<Volume> {
        let asked = self.submit(Operation::Name, dir, |world, _| {
            let total_bytes = world.capacity.get();
            let usable_bytes = total_bytes.saturating_sub(world.tree.borrow().used_bytes());
            Ok(Volume { total_bytes, usable_bytes })
        });
        asked.await
    }

    fn spawn(&self, _name: &'static str, task: impl Future<Output = ()> + 'static) {
        self.0.executor.spawn(Box::pin(task));
    }

    async fn compute<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let delay = Duration::from_micros(10 + self.0.executor.random(1_000));
        Ok(self.0.executor.submit(delay, job).await)
    }

    async fn sleep(&self, duration: Duration) {
        self.0.executor.submit(duration, || ()).await;
    }

    async fn yield_now(&self) {
        let mut yielded = false;
        std::future::poll_fn(|cx| {
            if yielded {
                return Poll::Ready(());
            }
            yielded = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// An open file of a [`SimDisk`]. Faults know it by the path it was opened under.
#[derive(Clone)]
pub struct SimFile {
    disk: SimDisk,
    path: Rc<PathBuf>,
    inode: InodeRef,
}

impl SimFile {
    async fn write(&self, data: Bytes, position: u64) -> io::Result<()> {
        let end = position + data.len() as u64;
        let id = self.inode.borrow_mut().begin_write(position, data);
        let inode = self.inode.clone();
        let write = self.disk.submit(Operation::Write, &self.path, move |world, fault| match fault {
            Some(Effect::Fail(errno)) => {
                match errno {
                    libc::ENOSPC | libc::EDQUOT => inode.borrow_mut().refuse_write(id),
                    _ => inode.borrow_mut().fail_write(id),
                }
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(Effect::Ignore) => {
                inode.borrow_mut().fail_write(id);
                Ok(())
            }
            None => {
                if let Err(full) = world.check_room(&inode, end) {
                    inode.borrow_mut().refuse_write(id);
                    return Err(full);
                }
                inode.borrow_mut().finish_write(id);
                Ok(())
            }
        });
        write.await
    }
}

impl DiskFile for SimFile {
    async fn write_at(&self, data: Bytes, position: u64) -> io::Result<()> {
        assert!(is_aligned(&data), "write of unaligned memory or length {}", data.len());
        assert!(position.is_multiple_of(BLOCK as u64), "write at unaligned position {position}");
        self.write(data, position).await
    }

    async fn read_at(&self, position: u64, len: usize) -> io::Result<AlignedBuf> {
        assert!(position.is_multiple_of(BLOCK as u64), "read at unaligned position {position}");
        assert!(len.is_multiple_of(BLOCK), "read of unaligned length {len}");
        let inode = self.inode.clone();
        let read = self.disk.submit(Operation::Read, &self.path, move |_, fault| match fault {
            Some(Effect::Fail(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(inode.borrow().read(position, len)),
        });
        read.await
    }

    async fn sync_data(&self) -> io::Result<()> {
        let covered = self.inode.borrow().completed();
        let inode = self.inode.clone();
        let sync = self.disk.submit(Operation::Sync, &self.path, move |_, fault| match fault {
            Some(Effect::Fail(errno)) => {
                inode.borrow_mut().fail_sync(covered);
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(Effect::Ignore) => Ok(()),
            None => {
                inode.borrow_mut().sync(covered);
                Ok(())
            }
        });
        sync.await
    }

    async fn allocate(&self, position: u64, len: u64) -> io::Result<()> {
        let inode = self.inode.clone();
        let allocate = self.disk.submit(Operation::Allocate, &self.path, move |world, fault| match fault {
            Some(Effect::Fail(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => {
                world.check_room(&inode, position + len)?;
                inode.borrow_mut().allocate(position + len);
                Ok(())
            }
        });
        allocate.await
    }

    fn size(&self) -> u64 {
        self.inode.borrow().size()
    }
}

#[cfg(test)]
mod tests;
