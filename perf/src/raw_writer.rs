//! The disk's ceiling for a durable log: a group-commit writer with nothing around it.
//!
//! A group commit writes its shares straight to segment files in whole blocks, and one 4 KiB frame to a journal; when all
//! its writes are complete it waits for a flush: an fdatasync of the journal and of every segment file that a group of that
//! flush touched, in parallel. The writes of later groups overlap the flush of earlier ones. All files are written full
//! beforehand (growing or unwritten extents are slower) and used in turn, as recycled segments are.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::process;
use crate::ring::{BLOCK, BlockWrite, DirectRing, Tag};

/// What to write.
#[derive(Debug, Clone)]
pub(crate) struct RawWriterSpec {
    /// Bytes of one group commit, without its journal frame.
    pub(crate) group_bytes: usize,
    /// Bytes that a group writes to one file.
    pub(crate) share_bytes: usize,
    /// Segment files, used in turn.
    pub(crate) files: usize,
    /// Bytes of each segment file.
    pub(crate) file_bytes: u64,
    /// Groups being written at once, besides those being flushed.
    pub(crate) depth: usize,
    /// How long.
    pub(crate) duration: Duration,
    /// Groups are due so far apart, and their time counts from then; none for as many as go through.
    pub(crate) pause: Option<Duration>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct RawWriterFigures {
    spec: RawWriterSpec,
    elapsed: Duration,
    durable_bytes: u64,
    flushes: u64,
    cpu: Duration,
    /// From a group's first write to the end of its flush, in nanoseconds.
    commit: Histogram<u64>,
    /// The same of the second under way.
    second: Histogram<u64>,
    p99_us_of_seconds: Vec<f64>,
}

impl RawWriterFigures {
    /// Durable bytes in a second, in units of a million bytes.
    pub(crate) fn megabytes_per_second(&self) -> f64 {
        self.durable_bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }

    /// The p99 of each second's commits, in microseconds; seconds without one have none.
    pub(crate) fn p99_us_of_seconds(&self) -> &[f64] {
        &self.p99_us_of_seconds
    }

    fn end_second(&mut self) {
        if !self.second.is_empty() {
            self.p99_us_of_seconds.push(self.second.value_at_quantile(0.99) as f64 / 1e3);
            self.second.reset();
        }
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "name": "raw-writer",
            "group_bytes": self.spec.group_bytes,
            "share_bytes": self.spec.share_bytes,
            "files": self.spec.files,
            "depth": self.spec.depth,
            "pause_us": self.spec.pause.map(|pause| pause.as_secs_f64() * 1e6),
            "seconds": self.elapsed.as_secs_f64(),
            "megabytes_per_second": self.megabytes_per_second(),
            "flushes_per_second": self.flushes as f64 / self.elapsed.as_secs_f64(),
            "cpu_share": self.cpu.as_secs_f64() / self.elapsed.as_secs_f64(),
            "commit_us": {
                "p50": self.commit.value_at_quantile(0.5) as f64 / 1e3,
                "p99": self.commit.value_at_quantile(0.99) as f64 / 1e3,
                "p99.9": self.commit.value_at_quantile(0.999) as f64 / 1e3,
                "max": self.commit.max() as f64 / 1e3,
            },
        })
    }
}

const JOURNAL_BYTES: u64 = 256 << 20;
/// Larger than a core's caches, as the data of real producers is.
const BUFFER_BYTES: usize = 32 << 20;
const FLUSH: Tag = 1 << 63;
const SECOND: Duration = Duration::from_secs(1);

/// Measures in `dir`, which must be on the file system in question; its files are removed at the end.
pub(crate) fn run(dir: &Path, spec: &RawWriterSpec) -> io::Result<RawWriterFigures> {
    check(spec)?;
    let own = dir.join("raw-writer");
    fs::create_dir_all(&own)?;
    let result = prepare(&own, spec).and_then(|files| Writer::new(files, spec)?.run());
    fs::remove_dir_all(&own)?;
    result
}

fn check(spec: &RawWriterSpec) -> io::Result<()> {
    let blocks = spec.share_bytes > 0 && spec.share_bytes.is_multiple_of(BLOCK);
    let whole_shares = spec.group_bytes > 0 && spec.group_bytes.is_multiple_of(spec.share_bytes.max(1));
    if !blocks
        || !whole_shares
        || spec.group_bytes > BUFFER_BYTES
        || spec.file_bytes < spec.share_bytes as u64
    {
        return Err(io::Error::other(
            "a group is whole shares of whole 4 KiB blocks, at most 32 MiB, that fit a file",
        ));
    }
    if spec.files == 0 || spec.depth == 0 {
        return Err(io::Error::other("at least one file, and a depth of at least 1"));
    }
    Ok(())
}

/// The segment files, then the journal; all written full and flushed.
fn prepare(dir: &Path, spec: &RawWriterSpec) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for number in 0..=spec.files {
        let len = if number == spec.files { JOURNAL_BYTES } else { spec.file_bytes };
        let path = dir.join(format!("{number:06}"));
        let mut file = File::create(&path)?;
        let piece = vec![1u8; 1 << 20];
        let mut left = len;
        while left > 0 {
            let take = left.min(piece.len() as u64) as usize;
            file.write_all(&piece[..take])?;
            left -= take as u64;
        }
        file.sync_all()?;
        drop(file);
        files.push(OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path)?);
    }
    Ok(files)
}

/// A group commit under way.
struct Group {
    started: Instant,
    writes_left: usize,
    files: Vec<usize>,
}

struct Writer<'a> {
    spec: &'a RawWriterSpec,
    ring: DirectRing,
    /// Slots: a group's tag is its place here. Bounded by `depth` being written, and what one flush and the next hold.
    groups: Vec<Option<Group>>,
    writing: usize,
    written: Vec<usize>,
    flushing: Vec<usize>,
    flushes_left: usize,
    next_file: usize,
    /// Next position in each segment file, and last in the journal.
    positions: Vec<u64>,
    buffer_at: usize,
    /// When the next group is due, with a pause between them.
    due: Instant,
    figures: RawWriterFigures,
}

impl<'a> Writer<'a> {
    fn new(files: Vec<File>, spec: &'a RawWriterSpec) -> io::Result<Writer<'a>> {
        let commit = Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)?;
        Ok(Writer {
            spec,
            positions: vec![0; files.len()],
            ring: DirectRing::new(files, BUFFER_BYTES, 7)?,
            // While one set is flushed, the next may fill up to as many again: back-pressure of a broker's budget.
            groups: (0..spec.depth * 4).map(|_| None).collect(),
            writing: 0,
            written: Vec::new(),
            flushing: Vec::new(),
            flushes_left: 0,
            next_file: 0,
            buffer_at: 0,
            due: Instant::now(),
            figures: RawWriterFigures {
                spec: spec.clone(),
                elapsed: Duration::ZERO,
                durable_bytes: 0,
                flushes: 0,
                cpu: Duration::ZERO,
                second: commit.clone(),
                commit,
                p99_us_of_seconds: Vec::new(),
            },
        })
    }

    fn run(mut self) -> io::Result<RawWriterFigures> {
        let (start, cpu) = (Instant::now(), process::own_cpu_time());
        let mut done = Vec::new();
        self.due = start;
        let mut second_ends = SECOND;
        while start.elapsed() < self.spec.duration {
            if start.elapsed() >= second_ends {
                self.figures.end_second();
                second_ends += SECOND;
            }
            self.start_groups()?;
            self.start_flush()?;
            if self.groups.iter().all(Option::is_none) {
                std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
                continue;
            }
            self.ring.wait(&mut done)?;
            for tag in done.drain(..) {
                self.complete(tag);
            }
        }
        self.figures.end_second();
        self.figures.elapsed = start.elapsed();
        self.figures.cpu = process::own_cpu_time() - cpu;
        Ok(self.figures)
    }

    fn start_groups(&mut self) -> io::Result<()> {
        while self.writing < self.spec.depth {
            let Some(slot) = self.groups.iter().position(Option::is_none) else {
                return Ok(());
            };
            let started = match self.spec.pause {
                Some(_) if self.due > Instant::now() => return Ok(()),
                Some(_) => self.due,
                None => Instant::now(),
            };
            self.due = started + self.spec.pause.unwrap_or_default();
            let mut files = Vec::new();
            for _ in 0..self.spec.group_bytes / self.spec.share_bytes {
                let file = self.next_file;
                self.next_file = (self.next_file + 1) % self.spec.files;
                self.write(file, self.spec.share_bytes, self.spec.file_bytes, slot as Tag)?;
                files.push(file);
            }
            self.write(self.spec.files, BLOCK, JOURNAL_BYTES, slot as Tag)?;
            let writes_left = files.len() + 1;
            self.groups[slot] = Some(Group { started, writes_left, files });
            self.writing += 1;
        }
        Ok(())
    }

    fn write(&mut self, file: usize, len: usize, file_len: u64, tag: Tag) -> io::Result<()> {
        if self.positions[file] + len as u64 > file_len {
            self.positions[file] = 0;
        }
        if self.buffer_at + len > BUFFER_BYTES {
            self.buffer_at = 0;
        }
        let write = BlockWrite { file, from: self.buffer_at, len, position: self.positions[file] };
        self.ring.write(write, tag)?;
        self.positions[file] += len as u64;
        self.buffer_at += len;
        Ok(())
    }

    fn start_flush(&mut self) -> io::Result<()> {
        if self.flushes_left > 0 || self.written.is_empty() {
            return Ok(());
        }
        self.flushing = std::mem::take(&mut self.written);
        let touched: BTreeSet<usize> = self
            .flushing
            .iter()
            .filter_map(|slot| self.groups[*slot].as_ref())
            .flat_map(|g| g.files.iter().copied())
            .collect();
        for file in touched.into_iter().chain([self.spec.files]) {
            self.ring.sync(file, FLUSH)?;
            self.flushes_left += 1;
        }
        Ok(())
    }

    fn complete(&mut self, tag: Tag) {
        if tag == FLUSH {
            self.flushes_left -= 1;
            if self.flushes_left == 0 {
                self.flush_done();
            }
            return;
        }
        let slot = tag as usize;
        if let Some(group) = &mut self.groups[slot] {
            group.writes_left -= 1;
            if group.writes_left == 0 {
                self.writing -= 1;
                self.written.push(slot);
            }
        }
    }

    fn flush_done(&mut self) {
        self.figures.flushes += 1;
        for slot in self.flushing.drain(..) {
            if let Some(group) = self.groups[slot].take() {
                let nanos = group.started.elapsed().as_nanos().max(1) as u64;
                self.figures.commit.saturating_record(nanos);
                self.figures.second.saturating_record(nanos);
                self.figures.durable_bytes += self.spec.group_bytes as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_removes_its_files() {
        // Beside the sources, not in a memory file system, which may refuse O_DIRECT.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let spec = RawWriterSpec {
            group_bytes: 64 << 10,
            share_bytes: 16 << 10,
            files: 6,
            file_bytes: 1 << 20,
            depth: 2,
            duration: Duration::from_millis(50),
            pause: None,
        };
        let figures = run(dir.path(), &spec).unwrap();
        assert!(figures.durable_bytes > 0 && figures.flushes > 0);
        // Less than a second counts as one.
        let p99_us = figures.commit.value_at_quantile(0.99) as f64 / 1e3;
        assert_eq!(figures.p99_us_of_seconds(), [p99_us]);
        let paced = RawWriterSpec { pause: Some(Duration::from_millis(10)), ..spec };
        let figures = run(dir.path(), &paced).unwrap();
        assert!((1..=6).contains(&figures.commit.len()), "{} groups in five pauses", figures.commit.len());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn shares_must_be_whole_blocks() {
        let spec = RawWriterSpec {
            group_bytes: 64 << 10,
            share_bytes: 1000,
            files: 1,
            file_bytes: 1 << 20,
            depth: 1,
            duration: Duration::ZERO,
            pause: None,
        };
        assert!(check(&spec).is_err());
    }
}
