//! The data directory: locked against a second process, and marked with whose data it holds.
//!
//! `penstock.meta` is text, one `key=value` per line, first `format`, last the crc of the lines before it. A newer format is refused before anything
//! else in the directory is looked at. It is replaced atomically: written beside, flushed, renamed, and the
//! directory flushed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Version of everything in the directory that this program writes; it reads all before. From 2 on the metadata log may
/// begin with a snapshot: who does not know that would take topics for deleted.
const FORMAT: u32 = 2;
const META_FILE: &str = "penstock.meta";
const LOCK_FILE: &str = "penstock.lock";
/// Between two attempts at the lock.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// How long a reader waits for a broker to be gone.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// More shards than any machine has cores for: a mark that says so is damaged.
const SHARDS_MAX: usize = u16::MAX as usize;

/// Why a data directory cannot be used; each with what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("cannot create the data directory {0}: {1}; create it, or choose another with --data-dir")]
    Create(PathBuf, io::Error),
    #[error(
        "the data directory {0} is not writable: {1}; give this user write access, or choose another with --data-dir"
    )]
    NotWritable(PathBuf, io::Error),
    #[error(
        "the data directory {0} is in use by another process; stop that broker, or choose another with --data-dir"
    )]
    Locked(PathBuf),
    #[error("a broker runs on the data directory {0}; stop it first")]
    Running(PathBuf),
    #[error("{0} is no data directory that a broker ever used ({1}); name the one given to --data-dir")]
    NotUsed(PathBuf, io::Error),
    #[error("{0} cannot be read: {1}; restore it from a backup, or choose another directory with --data-dir")]
    Unreadable(PathBuf, io::Error),
    #[error("{0} is damaged ({1}); restore it from a backup, or choose another directory with --data-dir")]
    Damaged(PathBuf, String),
    #[error(
        "the data directory {0} was written by a newer version (format {1}, this program reads up to {FORMAT}); upgrade penstock, or choose another directory with --data-dir"
    )]
    Newer(PathBuf, u32),
    #[error(
        "the data directory {0} belongs to cluster {1}, not {2}; correct the cluster id, or choose another directory with --data-dir"
    )]
    OtherCluster(PathBuf, String, String),
    #[error(
        "the data directory {0} belongs to node {1}, not {2}; correct node.id, or choose another directory with --data-dir"
    )]
    OtherNode(PathBuf, i32, i32),
}

/// Whose data it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) cluster_id: String,
    pub(crate) node_id: i32,
    /// Number of shard directories the logs are spread over.
    pub(crate) shards: usize,
}

impl Meta {
    /// In place of a number of shards: logs are being moved between shards, and may be on any.
    pub(crate) const MOVING: usize = usize::MAX;
}

/// A locked data directory. The lock ends with the process and the last operation of its shards' rings, which each hold
/// the lock file: a killed process is gone while its writes may still be under way.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Creates the directory where it is missing, and locks it. Waits for `patience` for a predecessor's last writes.
    pub(crate) fn lock(path: &Path, patience: Duration) -> Result<DataDir, DataDirError> {
        fs::create_dir_all(path).map_err(|e| DataDirError::Create(path.to_owned(), e))?;
        let path = path.canonicalize().map_err(|e| DataDirError::Create(path.to_owned(), e))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(|e| DataDirError::NotWritable(path.clone(), e))?;
        match wait(patience, || lock.try_lock()) {
            Ok(()) => Ok(DataDir { path, lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Locked(path)),
            Err(TryLockError::Error(e)) => Err(DataDirError::NotWritable(path, e)),
        }
    }

    /// Locks a directory that is there and was used against brokers, beside others who only read, without writing
    /// anything to it. Waits a moment for the last writes of a broker that was killed.
    pub(crate) fn lock_to_read(path: &Path) -> Result<DataDir, DataDirError> {
        let not_used = |e| DataDirError::NotUsed(path.to_owned(), e);
        let path = path.canonicalize().map_err(not_used)?;
        let lock = File::open(path.join(LOCK_FILE)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DataDirError::NotUsed(path.clone(), error),
            _ => DataDirError::Unreadable(path.clone(), error),
        })?;
        match wait(READ_PATIENCE, || lock.try_lock_shared()) {
            Ok(()) => Ok(DataDir { path, lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Running(path)),
            Err(TryLockError::Error(e)) => Err(DataDirError::Unreadable(path, e)),
        }
    }

    /// Whether a broker has the directory that `path` is or lies in; none where that is no data directory.
    pub(crate) fn is_running(path: &Path) -> Option<bool> {
        let path = path.canonicalize().ok()?;
        let lock = path.ancestors().find_map(|dir| File::open(dir.join(LOCK_FILE)).ok())?;
        Some(matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The locked file, for a shard's ring to hold.
    pub(crate) fn lock_file(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file of [`Meta`].
    pub(crate) fn meta_path(&self) -> PathBuf {
        self.path.join(META_FILE)
    }

    /// Reads the mark; `None` in a directory that was never used.
    pub(crate) fn read_meta(&self) -> Result<Option<Meta>, DataDirError> {
        let path = self.meta_path();
        match fs::read_to_string(&path) {
            Ok(text) => parse(&text).map(Some).map_err(|e| match e {
                ParseError::Newer(format) => DataDirError::Newer(self.path.clone(), format),
                ParseError::Damaged(why) => DataDirError::Damaged(path, why),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(DataDirError::Unreadable(path, e)),
        }
    }

    /// Replaces the mark, durably.
    pub(crate) fn write_meta(&self, meta: &Meta) -> Result<(), DataDirError> {
        let write = || -> io::Result<()> {
            let temp = self.path.join("penstock.meta.tmp");
            let mut file = File::create(&temp)?;
            file.write_all(render(meta).as_bytes())?;
            file.sync_all()?;
            fs::rename(&temp, self.meta_path())?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|e| DataDirError::NotWritable(self.path.clone(), e))
    }

    /// Checks that the directory belongs to this node, and to this cluster where one is named.
    pub(crate) fn check_owner(
        &self,
        meta: &Meta,
        node_id: i32,
        cluster_id: Option<&str>,
    ) -> Result<(), DataDirError> {
        match cluster_id {
            Some(wanted) if wanted != meta.cluster_id => {
                Err(DataDirError::OtherCluster(self.path.clone(), meta.cluster_id.clone(), wanted.to_owned()))
            }
            _ if node_id != meta.node_id => {
                Err(DataDirError::OtherNode(self.path.clone(), meta.node_id, node_id))
            }
            _ => Ok(()),
        }
    }
}

/// Tries a lock until it is had or patience is over.
fn wait(patience: Duration, mut lock: impl FnMut() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    let deadline = Instant::now() + patience;
    loop {
        match lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_POLL),
            locked => return locked,
        }
    }
}

fn render(meta: &Meta) -> String {
    let Meta { cluster_id, node_id, shards } = meta;
    let text = format!("format={FORMAT}\ncluster.id={cluster_id}\nnode.id={node_id}\nshards={shards}\n");
    format!("{text}crc={:08x}\n", crc32c::crc32c(text.as_bytes()))
}

#[derive(Debug, PartialEq, Eq)]
enum ParseError {
    Newer(u32),
    Damaged(String),
}

/// Whether the text is as it was written. Versions before had no last line `crc=`.
fn crc_ok(text: &str) -> bool {
    let Some(at) = text.rfind("\ncrc=").map(|newline| newline + 1) else { return true };
    let (before, crc) = (&text[..at], &text[at + "crc=".len()..]);
    u32::from_str_radix(crc.trim_end(), 16) == Ok(crc32c::crc32c(before.as_bytes()))
}

fn parse(text: &str) -> Result<Meta, ParseError> {
    if !crc_ok(text) {
        return Err(ParseError::Damaged("its crc is wrong".to_owned()));
    }
    let mut values = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (key, value) =
            line.split_once('=').ok_or_else(|| ParseError::Damaged(format!("line '{line}'")))?;
        values.insert(key, value);
    }
    let get =
        |key: &str| values.get(key).copied().ok_or_else(|| ParseError::Damaged(format!("no line '{key}='")));
    let bad = |key: &str| ParseError::Damaged(format!("value of '{key}'"));
    let format = get("format")?.parse::<u32>().map_err(|_| bad("format"))?;
    if format > FORMAT {
        return Err(ParseError::Newer(format));
    }
    let shards = get("shards")?.parse::<usize>().map_err(|_| bad("shards"))?;
    if shards == 0 || (shards > SHARDS_MAX && shards != Meta::MOVING) {
        return Err(bad("shards"));
    }
    Ok(Meta {
        cluster_id: get("cluster.id")?.to_owned(),
        node_id: get("node.id")?.parse().map_err(|_| bad("node.id"))?,
        shards,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta { cluster_id: "abc".to_owned(), node_id: 3, shards: 2 }
    }

    #[test]
    fn the_mark_survives_and_is_checked() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::lock(&temp.path().join("data"), Duration::ZERO).unwrap();
        assert_eq!(dir.read_meta().unwrap(), None);
        dir.write_meta(&meta()).unwrap();
        assert_eq!(dir.read_meta().unwrap(), Some(meta()));
        assert!(dir.check_owner(&meta(), 3, Some("abc")).is_ok());
        assert!(matches!(dir.check_owner(&meta(), 4, None), Err(DataDirError::OtherNode(_, 3, 4))));
        assert!(matches!(dir.check_owner(&meta(), 3, Some("x")), Err(DataDirError::OtherCluster(..))));
    }

    #[test]
    fn a_second_lock_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let _held = DataDir::lock(temp.path(), Duration::ZERO).unwrap();
        assert!(matches!(DataDir::lock(temp.path(), Duration::ZERO), Err(DataDirError::Locked(_))));
        assert!(matches!(DataDir::lock_to_read(temp.path()), Err(DataDirError::Running(_))));
    }

    #[test]
    fn looking_at_a_directory_makes_nothing() {
        let temp = tempfile::tempdir().unwrap();
        assert!(matches!(DataDir::lock_to_read(temp.path()), Err(DataDirError::NotUsed(..))));
        assert!(matches!(DataDir::lock_to_read(&temp.path().join("x")), Err(DataDirError::NotUsed(..))));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        drop(DataDir::lock(temp.path(), Duration::ZERO).unwrap());
        let _held = DataDir::lock_to_read(temp.path()).unwrap();
        let _too = DataDir::lock_to_read(temp.path()).unwrap();
        assert_eq!(DataDir::is_running(&temp.path().join(LOCK_FILE)), Some(false));
        assert!(matches!(DataDir::lock(temp.path(), Duration::ZERO), Err(DataDirError::Locked(_))));
    }

    #[test]
    fn golden_mark() {
        assert_eq!(render(&meta()), "format=2\ncluster.id=abc\nnode.id=3\nshards=2\ncrc=a8e87800\n");
        assert_eq!(parse("format=1\ncluster.id=abc\nnode.id=3\nshards=2\n"), Ok(meta()));
    }

    #[test]
    fn a_flipped_bit_is_noticed_or_harmless() {
        let text = render(&meta());
        assert_eq!(parse(&text), Ok(meta()));
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                match parse(std::str::from_utf8(&bytes).unwrap()) {
                    Ok(found) => assert_eq!(found, meta(), "byte {at}, bit {bit}"),
                    Err(error) => assert!(matches!(error, ParseError::Damaged(_)), "{at}: {error:?}"),
                }
            }
        }
    }

    #[test]
    fn newer_and_damaged_marks_are_told_apart() {
        assert_eq!(parse("format=3\nwhatever=1\n"), Err(ParseError::Newer(3)));
        for text in [
            "",
            "format=x\n",
            "format=1\n",
            "format=1\ncluster.id=a\nnode.id=1\nshards=0\n",
            "junk",
            "format=1\ncluster.id=a\nnode.id=1\nshards=65536\n",
        ] {
            assert!(matches!(parse(text), Err(ParseError::Damaged(_))), "{text:?}");
        }
    }
}
