//! Walks the journal from the redo position and finds where its valid frames end.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};

use crate::checkpoint::Redo;
use crate::disk::{BLOCK, Disk, DiskFile};
use crate::error::OpenError;
use crate::frame::{self, Entry, FrameHeader};
use crate::journal::{Cursor, journal_path};
use crate::plan::{block_ceil, block_floor};

/// Longest read.
const READ_BYTES: u64 = 1 << 20;
/// Bytes read at once, in so many reads, where what follows is wanted next.
const STRETCH_BYTES: u64 = 8 * READ_BYTES;

/// A frame's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub cursor: Cursor,
    pub header: FrameHeader,
}

/// The frames to replay, and what they say as a whole.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub frames: Vec<Place>,
    /// Highest frame known to have been stable.
    pub durable_seq: u64,
    /// A number that no frame of the run has.
    pub next_seq: u64,
    /// There are traces of frames beyond the last valid one.
    pub torn: bool,
    /// Logs removed in the end, by id.
    pub removed: BTreeSet<u64>,
    /// Starts of logs in the end, by id.
    pub start_offsets: BTreeMap<u64, i64>,
    /// What those two were made of: the index of the frame, and its entry.
    verdicts: Vec<(usize, Entry)>,
}

impl Chain {
    fn note(&mut self, entry: Entry) {
        match &entry {
            Entry::Remove { log_id } => {
                self.removed.insert(*log_id);
            }
            Entry::StartOffset { log_id, offset } => {
                self.start_offsets.insert(*log_id, *offset);
            }
            Entry::Append(_) | Entry::Create { .. } => return,
        }
        self.verdicts.push((self.frames.len(), entry));
    }

    /// Ends the chain before frame `index`, which is not wholly valid. What frames from there on removed or moved was
    /// not: what was replayed under that belief has to be replayed again.
    pub(crate) fn cut(&mut self, index: usize) {
        self.frames.truncate(index);
        self.torn = true;
        let verdicts = std::mem::take(&mut self.verdicts);
        self.removed.clear();
        self.start_offsets.clear();
        for (at, entry) in verdicts.into_iter().filter(|(at, _)| *at < index) {
            self.note(entry);
            if let Some(noted) = self.verdicts.last_mut() {
                noted.0 = at;
            }
        }
    }
}

/// Reads the journal's files as they were left.
pub(crate) struct JournalReader<D: Disk> {
    dir: PathBuf,
    redo: Redo,
    files: Vec<Option<D::File>>,
    /// The piece read last: file, position, bytes.
    piece: RefCell<(u64, u64, Bytes)>,
}

impl<D: Disk> JournalReader<D> {
    /// Opens the files of the ring that the checkpoint names.
    pub(crate) async fn open(disk: &D, dir: &Path, redo: Redo) -> Result<JournalReader<D>, OpenError> {
        let mut files = Vec::new();
        for index in 0..u64::from(redo.file_count) {
            let path = journal_path(dir, index);
            let there = disk.exists(&path).await.map_err(OpenError::io(path.display()))?;
            if !there {
                files.push(None);
                continue;
            }
            let file = disk.open(&path).await.map_err(OpenError::io(path.display()))?;
            if !redo.clean {
                // A killed process may have left frames that can be read and are not stable: nothing may be done by
                // them that outlives them.
                file.sync_data().await.map_err(OpenError::io(path.display()))?;
            }
            files.push(Some(file));
        }
        Ok(JournalReader {
            dir: dir.to_owned(),
            redo,
            files,
            piece: RefCell::new((u64::MAX, 0, Bytes::new())),
        })
    }

    /// Path of the file of that number.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        journal_path(&self.dir, number % u64::from(self.redo.file_count).max(1))
    }

    /// Up to `len` bytes at `position`, fewer where the file ends.
    async fn bytes(&self, number: u64, position: u64, len: u64) -> Result<Bytes, OpenError> {
        let index = number % u64::from(self.redo.file_count).max(1);
        let Some(Some(file)) = self.files.get(index as usize) else { return Ok(Bytes::new()) };
        let wanted = {
            let (held, from, piece) = &*self.piece.borrow();
            let to = from + piece.len() as u64;
            if *held == index && *from <= position && position + len <= to {
                let at = (position - from) as usize;
                return Ok(piece.slice(at..at + len as usize));
            }
            let goes_on = *held == index && *from <= position && position <= to;
            if goes_on { STRETCH_BYTES } else { READ_BYTES }
        };
        let from = block_floor(position);
        let to = block_ceil(position + len).max(from + wanted).min(block_floor(file.size()).max(from));
        let read = async |at: u64| {
            let data = file.read_at(at, (to - at).min(READ_BYTES) as usize).await;
            data.map_err(OpenError::io("reading the journal"))
        };
        let reads = (from..to).step_by(READ_BYTES as usize);
        let mut reads = stream::iter(reads).map(read).buffered((STRETCH_BYTES / READ_BYTES) as usize);
        let mut out = BytesMut::with_capacity((to - from) as usize);
        let mut ends = false;
        while let Some(data) = reads.next().await {
            let data = data?;
            // Behind a read that is cut short there is nothing.
            let due = (to - from - out.len() as u64).min(READ_BYTES);
            if !ends {
                out.extend_from_slice(&data);
            }
            ends |= (data.len() as u64) < due;
        }
        drop(reads);
        let piece = out.freeze();
        let end = ((position - from + len) as usize).min(piece.len());
        let found = piece.slice(((position - from) as usize).min(end)..end);
        *self.piece.borrow_mut() = (index, from, piece);
        Ok(found)
    }

    /// A whole frame.
    pub(crate) async fn frame(&self, place: &Place) -> Result<Bytes, OpenError> {
        self.bytes(place.cursor.number, place.cursor.position, u64::from(place.header.len)).await
    }

    /// Refuses a frame of a newer version at a cursor where a frame is due. Elsewhere, what looks like one may be bytes that a
    /// client sent.
    async fn check_version(&self, cursor: Cursor) -> Result<(), OpenError> {
        let room = self.redo.file_bytes.saturating_sub(cursor.position);
        if room < BLOCK as u64 {
            return Ok(());
        }
        let block = self.bytes(cursor.number, cursor.position, BLOCK as u64).await?;
        if let Some((found, meta_len)) =
            frame::newer_version(&block).filter(|(_, meta_len)| u64::from(*meta_len) <= room)
        {
            let meta = self.bytes(cursor.number, cursor.position, u64::from(meta_len)).await?;
            if frame::crc_ok(&meta) {
                let file = self.path(cursor.number).display().to_string();
                return Err(OpenError::NewerVersion { file, found, supported: frame::VERSION });
            }
        }
        Ok(())
    }

    /// The header at a cursor, of whatever run.
    async fn header(&self, cursor: Cursor) -> Result<Option<FrameHeader>, OpenError> {
        let room = self.redo.file_bytes.saturating_sub(cursor.position);
        if room < BLOCK as u64 {
            return Ok(None);
        }
        let block = self.bytes(cursor.number, cursor.position, BLOCK as u64).await?;
        Ok(frame::decode_header(&block, room).filter(|header| header.run == self.redo.run))
    }

    /// Frame `seq` with its entries, if header and entries at the cursor are valid.
    async fn entries(&self, cursor: Cursor, seq: u64) -> Result<Option<(Place, Vec<Entry>)>, OpenError> {
        let Some(header) = self.header(cursor).await?.filter(|header| header.seq == seq) else {
            return Ok(None);
        };
        let meta = self.bytes(cursor.number, cursor.position, u64::from(header.meta_len)).await?;
        let entries = frame::decode_entries(&meta, &header);
        Ok(entries.map(|entries| (Place { cursor, header }, entries)))
    }
}

/// Finds the frames to replay.
pub(crate) async fn scan<D: Disk>(reader: &JournalReader<D>) -> Result<Chain, OpenError> {
    let redo = reader.redo;
    let mut chain = Chain { durable_seq: redo.seq.saturating_sub(1), ..Chain::default() };
    let mut cursor = Cursor { number: redo.file_number, position: redo.position };
    let mut seq = redo.seq;
    loop {
        let next_file = Cursor { number: cursor.number + 1, position: 0 };
        reader.check_version(cursor).await?;
        let mut found = reader.entries(cursor, seq).await?;
        if found.is_none() && redo.file_count > 0 {
            reader.check_version(next_file).await?;
            found = reader.entries(next_file, seq).await?;
        }
        let Some((place, entries)) = found else { break };
        entries.into_iter().for_each(|entry| chain.note(entry));
        chain.durable_seq = chain.durable_seq.max(place.header.durable_seq);
        let len = block_ceil(u64::from(place.header.len));
        cursor = Cursor { number: place.cursor.number, position: place.cursor.position + len };
        chain.frames.push(place);
        seq += 1;
    }
    // After a clean close nothing was written.
    chain.next_seq = if redo.clean { seq } else { look_beyond(reader, cursor, seq, &mut chain).await? };
    Ok(chain)
}

/// Looks for frames beyond the end of the chain, which is where frame `seq` should be. One that says `seq` was stable
/// proves that acknowledged data is damaged. Gives a number above all found.
async fn look_beyond<D: Disk>(
    reader: &JournalReader<D>,
    end: Cursor,
    seq: u64,
    chain: &mut Chain,
) -> Result<u64, OpenError> {
    let mut next_seq = seq;
    let blocks = reader.redo.file_bytes / BLOCK as u64;
    for ahead in 0..u64::from(reader.redo.file_count) {
        let first = if ahead == 0 { end.position / BLOCK as u64 } else { 0 };
        // Frames in flight together reach no farther than into the next file; each file begins with a frame.
        let last = if ahead <= 1 { blocks } else { blocks.min(1) };
        for block in first..last {
            let cursor = Cursor { number: end.number + ahead, position: block * BLOCK as u64 };
            let Some(header) = reader.header(cursor).await?.filter(|header| header.seq >= seq) else {
                continue;
            };
            chain.torn = true;
            // Inline bytes could look like a header; only a valid one is believed.
            if reader.entries(cursor, header.seq).await?.is_none() {
                continue;
            }
            next_seq = next_seq.max(header.seq + 1);
            if header.durable_seq >= seq {
                return Err(OpenError::Corrupt(format!(
                    "journal frame {seq} is damaged although it was stable (frame {} says so): {}, position {}, or \
                     the start of {}",
                    header.seq,
                    reader.path(end.number).display(),
                    end.position,
                    reader.path(end.number + 1).display(),
                )));
            }
        }
    }
    Ok(next_seq)
}
