//! The batches of a segment, one after the other, checked on the way.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use penstock_format::{BATCH_HEADER_LEN, Batch, BatchHeader};

use super::{Files, READ_BYTES};

/// Bytes of a segment that stand in the journal and may not have reached the segment's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Position in the segment.
    pub from: u64,
    pub len: u64,
    /// Where they are.
    pub journal: PathBuf,
    pub journal_position: u64,
}

impl Piece {
    fn end(&self) -> u64 {
        self.from + self.len
    }
}

/// Drops what lies at or after `position`, where a later write brought other bytes. Gives what [`uncut`] needs.
/// Pieces stand in order and apart from each other.
pub(super) fn cut(pieces: &mut Vec<Piece>, position: u64) -> (usize, Vec<Piece>) {
    let keep = pieces.partition_point(|piece| piece.end() <= position);
    let dropped = pieces.split_off(keep);
    if let Some(first) = dropped.first().filter(|first| first.from < position) {
        pieces.push(Piece { len: position - first.from, ..first.clone() });
    }
    (keep, dropped)
}

/// Undoes a cut and everything added since.
pub(super) fn uncut(pieces: &mut Vec<Piece>, (keep, dropped): (usize, Vec<Piece>)) {
    pieces.truncate(keep);
    pieces.extend(dropped);
}

/// Bytes of a segment: its file, overlaid by pieces. Short where the file ends.
pub(super) fn read_overlaid(
    files: &impl Files,
    path: &Path,
    pieces: &[Piece],
    range: Range<u64>,
) -> std::io::Result<Bytes> {
    let wanted = (range.end - range.start) as usize;
    let from_file = match files.read(path, range.start, wanted as u64) {
        // A segment of which nothing was settled yet may have no file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !pieces.is_empty() => Bytes::new(),
        read => read?,
    };
    let first = pieces.partition_point(|piece| piece.end() <= range.start);
    let last = pieces.partition_point(|piece| piece.from < range.end);
    let Some(over) = pieces.get(first..last).filter(|over| !over.is_empty()) else { return Ok(from_file) };
    let mut bytes = BytesMut::from(&from_file[..]);
    for piece in over {
        let (from, to) = (piece.from.max(range.start), piece.end().min(range.end));
        let data = files.read(&piece.journal, piece.journal_position + (from - piece.from), to - from)?;
        let at = (from - range.start) as usize;
        if bytes.len() < at {
            // A gap that no piece fills reads as zeros, which are no batch.
            bytes.resize(at, 0);
        }
        let end = at + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at..end].copy_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// A batch and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchView {
    /// Position in the segment's file, in bytes.
    pub position: u64,
    /// The batch as stored.
    pub batch: Batch,
    /// Whether the crc in its header is right.
    pub crc_ok: bool,
}

/// Why the batches of a segment cannot be followed beyond a position.
#[derive(Debug, thiserror::Error)]
pub enum BatchFault {
    /// The disk's answer.
    #[error("position {position}: {error}")]
    Io {
        /// Position of the batch that was to be read.
        position: u64,
        /// What the disk said.
        error: std::io::Error,
    },
    /// What stands there is no batch.
    #[error("position {position}: {reason}")]
    NoBatch {
        /// Position in the segment's file.
        position: u64,
        /// What is wrong.
        reason: String,
    },
}

impl BatchFault {
    /// Position of what cannot be read, in bytes.
    pub fn position(&self) -> u64 {
        match self {
            BatchFault::Io { position, .. } | BatchFault::NoBatch { position, .. } => *position,
        }
    }

    /// What is wrong, without the position.
    pub fn reason(&self) -> String {
        match self {
            BatchFault::Io { error, .. } => error.to_string(),
            BatchFault::NoBatch { reason, .. } => reason.clone(),
        }
    }
}

/// The batches in a range of a segment that begins with a batch. Ends after the first fault.
pub struct Batches<'a, F: Files> {
    files: &'a F,
    path: PathBuf,
    pieces: &'a [Piece],
    position: u64,
    end: u64,
    /// Bytes from `position` on that were read already.
    ahead: Bytes,
}

impl<'a, F: Files> Batches<'a, F> {
    pub(super) fn new(files: &'a F, path: &Path, pieces: &'a [Piece], range: Range<u64>) -> Batches<'a, F> {
        let (position, end) = (range.start, range.end);
        Batches { files, path: path.to_owned(), pieces, position, end, ahead: Bytes::new() }
    }

    /// The batches of a segment file alone, whatever the journal may hold for it, from the header on to `end`.
    pub fn of_file(files: &'a F, path: &Path, end: u64) -> Batches<'a, F> {
        Batches::new(files, path, &[], crate::segment::DATA_START..end)
    }

    /// Position after the last batch given.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Makes at least `len` bytes ready, if there are so many before the end.
    fn fill(&mut self, len: u64) -> Result<(), BatchFault> {
        if self.ahead.len() as u64 >= len {
            return Ok(());
        }
        let to = self.end.min(self.position + len.max(READ_BYTES));
        let read = read_overlaid(self.files, &self.path, self.pieces, self.position..to);
        self.ahead = read.map_err(|error| BatchFault::Io { position: self.position, error })?;
        Ok(())
    }

    fn batch(&mut self) -> Result<BatchView, BatchFault> {
        let position = self.position;
        let no_batch = |reason: String| BatchFault::NoBatch { position, reason };
        let left = self.end - position;
        self.fill(left.min(BATCH_HEADER_LEN as u64))?;
        let header = BatchHeader::parse(&self.ahead).map_err(|error| no_batch(error.to_string()))?;
        let len = header.total_len();
        if len as u64 > left {
            return Err(no_batch(format!("a batch of {len} bytes, but the segment ends {left} bytes on")));
        }
        if header.base_offset < 0 || header.last_offset_delta < 0 {
            return Err(no_batch(format!(
                "a batch with base offset {} and last offset delta {}",
                header.base_offset, header.last_offset_delta
            )));
        }
        self.fill(len as u64)?;
        let (batch, _) = Batch::parse(&self.ahead).map_err(|error| no_batch(error.to_string()))?;
        self.ahead = self.ahead.slice(len..);
        self.position += len as u64;
        let crc_ok = batch.crc_ok();
        Ok(BatchView { position, batch, crc_ok })
    }
}

impl<F: Files> Iterator for Batches<'_, F> {
    type Item = Result<BatchView, BatchFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        let batch = self.batch();
        if batch.is_err() {
            self.end = self.position;
        }
        Some(batch)
    }
}
