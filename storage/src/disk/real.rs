//! The disk of a shard: direct I/O and the opening of files through the shard ring, other names and blocking calls on worker threads.

mod direct;

use std::cell::Cell;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::ring::Ring;
use super::tasks;
use super::workers::Workers;
use super::{AlignedBuf, BLOCK, DirEntry, Disk, DiskFile, TEMP_SUFFIX, Volume, is_aligned, preflight};

/// Longest single read given to the kernel, in bytes: longer ones have hung on some kernels.
const READ_BYTES_MAX: usize = 1 << 20;

/// A shard's view of the host's file systems. Belongs to the ring's thread.
#[derive(Clone)]
pub struct RealDisk {
    ring: Ring,
    workers: Workers,
    computers: Workers,
}

impl RealDisk {
    /// A disk on the ring of this thread.
    pub fn new(ring: Ring, workers: Workers) -> RealDisk {
        let workers = workers.with_doorbell(ring.doorbell());
        RealDisk { ring, computers: workers.clone(), workers }
    }

    /// The same with other workers for computations, which take longer than what disks block for.
    pub fn with_computers(self, computers: Workers) -> RealDisk {
        RealDisk { computers: computers.with_doorbell(self.ring.doorbell()), ..self }
    }

    fn file(&self, (file, size): (File, u64)) -> RealFile {
        let workers = self.workers.clone();
        let open = OpenFile { file: Some(file), size: Cell::new(size), workers };
        RealFile { ring: self.ring.clone(), open: Rc::new(open) }
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    async fn open(&self, path: &Path) -> io::Result<RealFile> {
        // Through the ring: what the kernel knows of a file that was open before takes it microseconds, and a worker's turn
        // takes longer.
        let path = CString::new(path.as_os_str().as_bytes())?;
        let file = loop {
            match direct::open(&self.ring, path.clone()).await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                opened => break opened?,
            }
        };
        let size = file.metadata()?.len();
        Ok(self.file((file, size)))
    }

    async fn create(&self, path: &Path, size: u64) -> io::Result<RealFile> {
        assert!(size.is_multiple_of(BLOCK as u64), "file size {size} is not whole blocks");
        let path = path.to_owned();
        let create = move || Ok((direct_options().create_new(true).open(path)?, 0));
        let file = self.file(self.workers.run(create).await?);
        if size > 0 {
            file.allocate(0, size).await?;
        }
        Ok(file)
    }

    async fn exists(&self, path: &Path) -> io::Result<bool> {
        let path = path.to_owned();
        self.workers.run(move || fs::exists(path)).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = dir.to_owned();
        self.workers.run(move || list(&dir)).await
    }

    async fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_owned();
        self.workers.run(move || fs::create_dir_all(dir)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.workers.run(move || fs::rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.workers.run(move || fs::remove_file(path)).await
    }

    async fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_owned();
        self.workers.run(move || fs::remove_dir_all(dir)).await
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // The flush goes through the ring: many directories are flushed at once, and few workers would queue them.
        let dir = dir.to_owned();
        let dir = self.file((self.workers.run(move || File::open(dir)).await?, 0));
        direct::sync_all(&self.ring, &dir.open).await
    }

    async fn read_small(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        let path = path.to_owned();
        self.workers.run(move || read_small(&path, bytes_max)).await
    }

    async fn write_small(&self, path: &Path, bytes: Bytes) -> io::Result<()> {
        let path = path.to_owned();
        self.workers.run(move || write_small(&path, &bytes)).await
    }

    async fn volume(&self, dir: &Path) -> io::Result<Volume> {
        let dir = dir.to_owned();
        let asked = self.workers.run(move || preflight::volume_bytes(&dir)).await;
        asked.map(|(total_bytes, usable_bytes)| Volume { total_bytes, usable_bytes })
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        tasks::spawn(name, task);
    }

    async fn compute<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.computers.run(move || Ok(job())).await
    }

    async fn sleep(&self, duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    async fn yield_now(&self) {
        super::tasks::yield_now().await;
    }
}

/// A file open for direct I/O.
#[derive(Clone)]
pub struct RealFile {
    ring: Ring,
    open: Rc<OpenFile>,
}

struct OpenFile {
    /// Absent only while being dropped.
    file: Option<File>,
    size: Cell<u64>,
    workers: Workers,
}

impl direct::Descriptor for OpenFile {
    fn file(&self) -> &File {
        self.file.as_ref().unwrap_or_else(|| unreachable!("a file in use is open"))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Closing the last handle of a removed file frees its blocks, which takes its time.
            if !file.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
                self.workers.start(move || drop(file));
            }
        }
    }
}

impl RealFile {
    fn grown_to(&self, size: u64) {
        self.open.size.set(self.open.size.get().max(size));
    }
}

impl DiskFile for RealFile {
    async fn write_at(&self, data: Bytes, position: u64) -> io::Result<()> {
        assert!(is_aligned(&data), "write of unaligned memory or length {}", data.len());
        assert!(position.is_multiple_of(BLOCK as u64), "write at unaligned position {position}");
        let (mut rest, mut position) = (data, position);
        while !rest.is_empty() {
            let count = match direct::write(&self.ring, &self.open, rest.clone(), position).await {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // What follows must be aligned again: a part of a block is written once more.
            let whole = if count == rest.len() { count } else { count / BLOCK * BLOCK };
            if whole == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = rest.slice(whole..);
            position += whole as u64;
            self.grown_to(position);
        }
        Ok(())
    }

    async fn read_at(&self, position: u64, len: usize) -> io::Result<AlignedBuf> {
        assert!(position.is_multiple_of(BLOCK as u64), "read at unaligned position {position}");
        assert!(len.is_multiple_of(BLOCK), "read of unaligned length {len}");
        let mut buf = AlignedBuf::with_capacity(len);
        while buf.len() < len {
            let piece = (len - buf.len()).min(READ_BYTES_MAX);
            let from = position + buf.len() as u64;
            let (read, count) = match direct::read(&self.ring, &self.open, buf, (from, piece)).await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    buf = AlignedBuf::with_capacity(len);
                    continue;
                }
                result => result?,
            };
            buf = read;
            // Nothing, or a part of a block: the file ends here.
            if count == 0 || !count.is_multiple_of(BLOCK) {
                break;
            }
        }
        Ok(buf)
    }

    async fn sync_data(&self) -> io::Result<()> {
        direct::sync_data(&self.ring, &self.open).await
    }

    async fn allocate(&self, position: u64, len: u64) -> io::Result<()> {
        loop {
            match direct::allocate(&self.ring, &self.open, position, len).await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.grown_to(position + len);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.open.size.get()
    }
}

fn direct_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    options
}

fn list(dir: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let metadata = match entry.metadata() {
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let len = if metadata.is_dir() { 0 } else { metadata.len() };
        entries.push(DirEntry { name, len, is_dir: metadata.is_dir() });
    }
    entries.sort();
    Ok(entries)
}

fn read_small(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let what = format!("{} is longer than {bytes_max} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(bytes)
}

fn write_small(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(TEMP_SUFFIX);
    let temp = PathBuf::from(temp);
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temp, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests;
