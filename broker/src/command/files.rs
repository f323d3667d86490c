//! The files of a data directory, opened for reading only.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use penstock_storage::disk::DirEntry;
use penstock_storage::offline::Files;

/// Files held open at once: a check alternates between a segment and a journal file.
const OPEN_FILES_MAX: usize = 4;

/// The host's file system. Nothing here can write.
#[derive(Default)]
pub(super) struct HostFiles {
    /// The longest unused first.
    open: RefCell<Vec<(PathBuf, File)>>,
}

impl HostFiles {
    fn with<T>(&self, path: &Path, read: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        let mut open = self.open.borrow_mut();
        let known = open.iter().position(|(known, _)| known == path);
        let entry = match known {
            Some(at) => open.remove(at),
            None => (path.to_owned(), File::open(path)?),
        };
        let done = read(&entry.1);
        if open.len() == OPEN_FILES_MAX {
            open.remove(0);
        }
        open.push(entry);
        done
    }
}

impl Files for HostFiles {
    fn read(&self, path: &Path, position: u64, len: u64) -> io::Result<Bytes> {
        self.with(path, |file| {
            // Never more memory than the file can fill, whatever a damaged file made somebody ask for.
            let there = file.metadata()?.len().saturating_sub(position);
            let mut bytes = vec![0; usize::try_from(len.min(there)).map_err(io::Error::other)?];
            let mut filled = 0;
            while filled < bytes.len() {
                match file.read_at(&mut bytes[filled..], position + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.truncate(filled);
            Ok(Bytes::from(bytes))
        })
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.with(path, |file| Ok(file.metadata()?.len()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // Names that are not UTF-8 are none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                let len = if metadata.is_dir() { 0 } else { metadata.len() };
                entries.push(DirEntry { name, len, is_dir: metadata.is_dir() });
            }
        }
        entries.sort();
        Ok(entries)
    }
}

/// Numbers of the shards that a data directory has, rising.
pub(super) fn shards(files: &HostFiles, data_dir: &Path) -> io::Result<Vec<usize>> {
    let entries = files.list(data_dir)?;
    let shard = |entry: &DirEntry| entry.name.strip_prefix("shard-")?.parse::<u16>().ok().map(usize::from);
    let mut shards: Vec<usize> = entries.iter().filter(|entry| entry.is_dir).filter_map(shard).collect();
    shards.sort_unstable();
    Ok(shards)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_end_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let files = HostFiles::default();
        for name in ["a", "b", "c", "d", "e", "f"] {
            let path = dir.path().join(name);
            fs::write(&path, format!("0123456789{name}")).unwrap();
            assert_eq!(files.read(&path, 8, 100).unwrap(), format!("89{name}"));
            assert_eq!(files.read(&path, 100, u64::MAX).unwrap(), "");
            assert_eq!(files.size(&path).unwrap(), 11);
        }
        assert!(files.open.borrow().len() <= OPEN_FILES_MAX);
        let missing = files.read(&dir.path().join("g"), 0, 1).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        fs::create_dir(dir.path().join("shard-10")).unwrap();
        fs::create_dir(dir.path().join("shard-9")).unwrap();
        fs::write(dir.path().join("shard-11"), "").unwrap();
        assert_eq!(shards(&files, dir.path()).unwrap(), [9, 10]);
    }
}
