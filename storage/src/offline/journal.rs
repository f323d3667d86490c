//! The journal's frames as they lie in its files.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::store::OpenFault;
use super::{Files, READ_BYTES};
use crate::checkpoint::Redo;
use crate::disk::BLOCK;
use crate::frame::{self, Entry, FrameHeader};
use crate::journal::{Cursor, journal_path};
use crate::plan::block_ceil;

/// A frame with its place.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub cursor: Cursor,
    pub header: FrameHeader,
    pub entries: Vec<Entry>,
}

/// The frames that follow the checkpoint.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub frames: Vec<Found>,
    /// Highest frame known to have been stable.
    pub durable_seq: u64,
    /// A frame that was stable and is missing or damaged.
    pub lost: Option<Lost>,
}

/// A frame that is not where it was.
#[derive(Debug)]
pub(super) struct Lost {
    pub seq: u64,
    /// Number of the frame that says that it was stable.
    pub witness: u64,
    /// Where it would have been, unless it began the next file.
    pub file: PathBuf,
    pub position: u64,
}

/// The ring of files that a checkpoint names.
pub(super) struct Ring<'a, F: Files> {
    files: &'a F,
    dir: &'a Path,
    redo: Redo,
}

impl<'a, F: Files> Ring<'a, F> {
    pub(super) fn new(files: &'a F, dir: &'a Path, redo: Redo) -> Ring<'a, F> {
        Ring { files, dir, redo }
    }

    /// Path of the file of that number.
    pub(super) fn path(&self, number: u64) -> PathBuf {
        journal_path(self.dir, number % u64::from(self.redo.file_count).max(1))
    }

    /// Bytes of a file of the ring; none where there is none.
    fn bytes(&self, cursor: Cursor, len: u64) -> Result<Bytes, OpenFault> {
        let path = self.path(cursor.number);
        match self.files.read(&path, cursor.position, len) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Bytes::new()),
            read => read.map_err(OpenFault::io(&path)),
        }
    }

    /// Where the first frame of a run goes.
    pub(super) fn first_block(&self) -> Result<Bytes, OpenFault> {
        self.bytes(Cursor::default(), BLOCK as u64)
    }

    /// A whole frame.
    pub(super) fn frame(&self, found: &Found) -> Result<Bytes, OpenFault> {
        self.bytes(found.cursor, u64::from(found.header.len))
    }

    fn header(&self, block: &[u8], cursor: Cursor) -> Result<Option<FrameHeader>, OpenFault> {
        let room = self.redo.file_bytes.saturating_sub(cursor.position);
        if room < BLOCK as u64 {
            return Ok(None);
        }
        if let Some((version, meta_len)) =
            frame::newer_version(block).filter(|(_, meta_len)| u64::from(*meta_len) <= room)
            && frame::crc_ok(&self.bytes(cursor, u64::from(meta_len))?)
        {
            return Err(OpenFault::NewerVersion { path: self.path(cursor.number), version });
        }
        Ok(frame::decode_header(block, room).filter(|header| header.run == self.redo.run))
    }

    fn found(&self, cursor: Cursor, seq: u64) -> Result<Option<Found>, OpenFault> {
        let block = self.bytes(cursor, BLOCK as u64)?;
        let header = self.header(&block, cursor)?.filter(|header| header.seq == seq);
        let Some(header) = header else { return Ok(None) };
        let meta = self.bytes(cursor, u64::from(header.meta_len))?;
        Ok(frame::decode_entries(&meta, &header).map(|entries| Found { cursor, header, entries }))
    }

    fn lost(&self, at: Cursor, seq: u64, witness: u64) -> Lost {
        Lost { seq, witness, file: self.path(at.number), position: at.position }
    }

    /// Follows the frames from the redo position on.
    pub(super) fn chain(&self) -> Result<Chain, OpenFault> {
        let redo = self.redo;
        let mut chain = Chain { durable_seq: redo.seq.saturating_sub(1), ..Chain::default() };
        let mut cursor = Cursor { number: redo.file_number, position: redo.position };
        let mut seq = redo.seq;
        loop {
            let mut found = self.found(cursor, seq)?;
            if found.is_none() {
                found = self.found(Cursor { number: cursor.number + 1, position: 0 }, seq)?;
            }
            let Some(found) = found else { break };
            chain.durable_seq = chain.durable_seq.max(found.header.durable_seq);
            let len = block_ceil(u64::from(found.header.len));
            cursor = Cursor { number: found.cursor.number, position: found.cursor.position + len };
            chain.frames.push(found);
            seq += 1;
        }
        if !redo.clean {
            self.look_beyond(cursor, seq, &mut chain)?;
        }
        if chain.durable_seq >= seq && chain.lost.is_none() {
            let witness = chain.frames.last().map_or(redo.seq, |found| found.header.seq);
            chain.lost = Some(self.lost(cursor, seq, witness));
        }
        Ok(chain)
    }

    /// Looks behind the end of the chain for frames that say that frame `seq` was stable.
    fn look_beyond(&self, end: Cursor, seq: u64, chain: &mut Chain) -> Result<(), OpenFault> {
        for ahead in 0..u64::from(self.redo.file_count) {
            // Frames in flight together reach no farther than into the next file; each file begins with a frame.
            let from = if ahead == 0 { end.position } else { 0 };
            let to = if ahead <= 1 { self.redo.file_bytes } else { BLOCK as u64 };
            let mut position = from;
            while position < to {
                let piece = self
                    .bytes(Cursor { number: end.number + ahead, position }, READ_BYTES.min(to - position))?;
                if piece.is_empty() {
                    break;
                }
                for (at, block) in piece.chunks(BLOCK).enumerate() {
                    let cursor =
                        Cursor { number: end.number + ahead, position: position + (at * BLOCK) as u64 };
                    let Some(header) = self.header(block, cursor)? else { continue };
                    // Inline bytes could look like a header: only a whole frame is believed.
                    if header.seq > seq
                        && header.durable_seq >= seq
                        && self.found(cursor, header.seq)?.is_some()
                    {
                        chain.durable_seq = chain.durable_seq.max(header.durable_seq);
                        chain.lost.get_or_insert_with(|| self.lost(end, seq, header.seq));
                    }
                }
                position += block_ceil(piece.len() as u64);
            }
        }
        Ok(())
    }
}
