//! What single files say, decoded for people to look at.

use std::path::Path;

use bytes::Bytes;

use super::store::OpenFault;
use super::{Files, READ_BYTES, read_whole};
use crate::checkpoint::{self, CheckpointError};
use crate::checkpoint_file::decode;
use crate::disk::BLOCK;
use crate::frame;
use crate::index::SegmentIndex;
use crate::indexes::FILE_LEN_MAX;
use crate::plan::block_ceil;
use crate::producer::{Producer, ProducerTable};
use crate::segment::SegmentHeader;
use crate::spill::RunRecord;

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointView {
    /// Frames of the journal count only if they carry this number.
    pub run: u64,
    /// The first frame that it does not cover.
    pub redo_seq: u64,
    /// Number of the journal file where that frame begins.
    pub redo_file: u64,
    /// Position in that file.
    pub redo_position: u64,
    /// Bytes of each journal file.
    pub journal_file_bytes: u64,
    /// Journal files in the ring.
    pub journal_files: u32,
    /// The store was closed after it.
    pub clean: bool,
    /// The logs, by name.
    pub logs: Vec<LogView>,
    /// The files of producers that are not in memory, oldest first.
    pub runs: Vec<RunView>,
}

/// A file of producers in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunView {
    /// Its number, which its file is named by in 16 hexadecimal digits.
    pub number: u64,
    /// Its bytes.
    pub len: u64,
    /// Producers in it.
    pub producers: u64,
}

/// A log in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogView {
    /// Never used twice.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// First readable offset.
    pub start_offset: i64,
    /// Offset after the last record.
    pub end_offset: i64,
    /// Everything below was cleaned by key.
    pub cleaned_to: i64,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentView>,
    /// Leader epochs and the offsets where they begin.
    pub epochs: Vec<(i32, i64)>,
    /// Why the log is offline; empty if it is sound.
    pub damage: String,
    producers: Vec<u8>,
}

/// A segment in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentView {
    /// Base offset.
    pub base: i64,
    /// Life of its file.
    pub life: u64,
    /// Position after the last batch.
    pub end: u64,
    /// Largest timestamp in milliseconds, -1 for none.
    pub max_timestamp: i64,
    /// Earliest delete horizon in milliseconds, -1 for none.
    pub horizon_ms: i64,
    /// The cleaner wrote it.
    pub cleaned: bool,
}

/// A segment's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeaderView {
    /// The log's id.
    pub log_id: u64,
    /// The log's name when the file became a segment.
    pub log_name: String,
    /// Base offset.
    pub base: i64,
    /// A new number each time that a file becomes a segment.
    pub life: u64,
}

/// A segment's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexView {
    /// Base offset of the segment.
    pub base: i64,
    /// Life of the segment's file.
    pub life: u64,
    /// Position after the last batch indexed.
    pub end: u64,
    /// Largest timestamp in milliseconds, -1 for none.
    pub max_timestamp: i64,
    /// Offsets and positions of the batches that it names.
    pub batches: Vec<(i64, u64)>,
}

/// A frame of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameView {
    /// Position in the file, in bytes.
    pub position: u64,
    /// The run that wrote it: frames of other runs than the checkpoint's are left over.
    pub run: u64,
    /// Its number in the run.
    pub seq: u64,
    /// Highest frame known to be stable when it was written.
    pub durable_seq: u64,
    /// Its bytes, without padding.
    pub len: u32,
    /// What it changes.
    pub entries: Vec<EntryView>,
}

/// A change in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryView {
    /// Batches appended.
    Append {
        /// To which log.
        log_id: u64,
        /// Base offset of the segment.
        segment: i64,
        /// Position in the segment.
        position: u64,
        /// Bytes.
        len: u32,
        /// Of which written straight to the segment.
        direct_len: u32,
        /// Batches.
        batches: u32,
        /// First offset.
        first_offset: i64,
        /// Offset after the last.
        next_offset: i64,
    },
    /// A log created.
    Create {
        /// Its id.
        log_id: u64,
        /// Its name.
        name: String,
    },
    /// A log removed.
    Remove {
        /// Its id.
        log_id: u64,
    },
    /// The first readable offset moved.
    StartOffset {
        /// Of which log.
        log_id: u64,
        /// To where.
        offset: i64,
    },
}

impl LogView {
    /// Its idempotent producers by id.
    pub fn producers(&self) -> Result<Vec<(i64, Producer)>, crate::producer::SnapshotError> {
        if self.producers.is_empty() {
            return Ok(Vec::new());
        }
        let (table, _) = ProducerTable::decode(&self.producers, usize::MAX)?;
        Ok(table.iter().map(|(id, producer)| (id, producer.clone())).collect())
    }
}

/// Reads a checkpoint.
pub fn checkpoint(files: &impl Files, path: &Path) -> Result<CheckpointView, OpenFault> {
    let bytes = read_whole(files, path, checkpoint::LEN_MAX).map_err(OpenFault::io(path))?;
    let found = decode(&bytes).map_err(|error| match error {
        CheckpointError::NewerVersion(version) => OpenFault::NewerVersion { path: path.to_owned(), version },
        CheckpointError::Damaged => damaged(path, "it is no checkpoint, or damaged"),
    })?;
    let segment = |known: &checkpoint::SegmentRecord| SegmentView {
        base: known.base,
        life: known.life,
        end: known.end,
        max_timestamp: known.max_timestamp,
        horizon_ms: known.horizon_ms,
        cleaned: known.cleaned,
    };
    let run = |run: &RunRecord| RunView { number: run.number, len: run.len, producers: run.producers };
    let log = |record: checkpoint::LogRecord| LogView {
        id: record.id,
        name: record.name,
        start_offset: record.start_offset,
        end_offset: record.end_offset,
        cleaned_to: record.cleaned_to,
        segments: record.segments.iter().map(segment).collect(),
        epochs: record.epochs,
        damage: record.damage,
        producers: record.producers,
    };
    Ok(CheckpointView {
        run: found.redo.run,
        redo_seq: found.redo.seq,
        redo_file: found.redo.file_number,
        redo_position: found.redo.position,
        journal_file_bytes: found.redo.file_bytes,
        journal_files: found.redo.file_count,
        clean: found.redo.clean,
        logs: found.logs.into_iter().map(log).collect(),
        runs: found.runs.iter().map(run).collect(),
    })
}

/// Reads a segment's header.
pub fn segment_header(files: &impl Files, path: &Path) -> Result<SegmentHeaderView, OpenFault> {
    let block = files.read(path, 0, BLOCK as u64).map_err(OpenFault::io(path))?;
    if let Some(version) = SegmentHeader::newer_version(&block) {
        return Err(OpenFault::NewerVersion { path: path.to_owned(), version });
    }
    let header = SegmentHeader::decode(&block);
    let header = header.ok_or_else(|| damaged(path, "it has no segment header, or a damaged one"))?;
    Ok(SegmentHeaderView {
        log_id: header.log_id,
        log_name: header.log_name,
        base: header.base,
        life: header.life,
    })
}

/// Reads a segment's index.
pub fn index(files: &impl Files, path: &Path) -> Result<IndexView, OpenFault> {
    let bytes = read_whole(files, path, FILE_LEN_MAX).map_err(OpenFault::io(path))?;
    let (segment, index) =
        SegmentIndex::decode_any(&bytes).map_err(|error| damaged(path, &error.to_string()))?;
    Ok(IndexView {
        base: segment.base_offset,
        life: segment.life,
        end: segment.end_position,
        max_timestamp: index.max_timestamp(),
        batches: index.batches().map(|batch| (batch.base_offset, batch.position)).collect(),
    })
}

/// Shows `see` every whole frame in a journal file, of whatever run, until it says no or fails. The crc of inline bytes
/// is not among what is checked.
pub fn frames<E: From<OpenFault>>(
    files: &impl Files,
    path: &Path,
    mut see: impl FnMut(FrameView) -> Result<(), E>,
) -> Result<(), E> {
    let size = files.size(path).map_err(OpenFault::io(path))?;
    let mut position = 0;
    while position < size {
        let piece =
            files.read(path, position, READ_BYTES.min(size - position)).map_err(OpenFault::io(path))?;
        if piece.is_empty() {
            break;
        }
        let mut next = position + block_ceil(piece.len() as u64);
        for (at, block) in piece.chunks(BLOCK).enumerate() {
            let at = position + (at * BLOCK) as u64;
            if let Some(found) = frame_at(files, path, (block, at), size)? {
                // Inline bytes of this frame are no frames.
                next = at + block_ceil(u64::from(found.len));
                see(found)?;
                break;
            }
        }
        position = next;
    }
    Ok(())
}

fn frame_at(
    files: &impl Files,
    path: &Path,
    (block, position): (&[u8], u64),
    size: u64,
) -> Result<Option<FrameView>, OpenFault> {
    if let Some((version, meta_len)) = frame::newer_version(block)
        && u64::from(meta_len) <= size - position
    {
        let meta = files.read(path, position, u64::from(meta_len)).map_err(OpenFault::io(path))?;
        if frame::crc_ok(&meta) {
            return Err(OpenFault::NewerVersion { path: path.to_owned(), version });
        }
    }
    let Some(header) = frame::decode_header(block, size - position) else { return Ok(None) };
    let meta: Bytes = files.read(path, position, u64::from(header.meta_len)).map_err(OpenFault::io(path))?;
    let Some(entries) = frame::decode_entries(&meta, &header) else { return Ok(None) };
    Ok(Some(FrameView {
        position,
        run: header.run,
        seq: header.seq,
        durable_seq: header.durable_seq,
        len: header.len,
        entries: entries.into_iter().map(entry).collect(),
    }))
}

fn entry(entry: frame::Entry) -> EntryView {
    match entry {
        frame::Entry::Append(append) => EntryView::Append {
            log_id: append.log_id,
            segment: append.segment_base,
            position: append.position,
            len: append.len,
            direct_len: append.direct_len,
            batches: append.batch_count,
            first_offset: append.first_offset,
            next_offset: append.next_offset,
        },
        frame::Entry::Create { log_id, name } => EntryView::Create { log_id, name },
        frame::Entry::Remove { log_id } => EntryView::Remove { log_id },
        frame::Entry::StartOffset { log_id, offset } => EntryView::StartOffset { log_id, offset },
    }
}

fn damaged(path: &Path, reason: &str) -> OpenFault {
    OpenFault::Damaged { path: path.to_owned(), reason: reason.to_owned() }
}
