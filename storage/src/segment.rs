//! One segment of a log: a file with a header block, then batches.
//!
//! Invariant: bytes of the file count only below `end`, which the checkpoint and the journal know; a scan never
//! decides what is live. The header names log, base offset and life, so that a wrong or recycled file is noticed.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::bytes_io::{Reader, put_string};
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskFile};
use crate::index::SegmentIndex;
use crate::pending::Pending;

/// File position of the first batch.
pub(crate) const DATA_START: u64 = BLOCK as u64;
const MAGIC: [u8; 4] = *b"PSSG";
/// Version of the header block.
pub(crate) const VERSION: u16 = 1;
const CRC_AT: usize = BLOCK - 4;

/// What a segment's header block says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub log_id: u64,
    pub base: i64,
    pub life: u64,
    pub log_name: String,
}

impl SegmentHeader {
    /// The header block.
    pub(crate) fn encode(&self) -> AlignedBuf {
        let mut out = Vec::with_capacity(BLOCK);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.log_id.to_le_bytes());
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.life.to_le_bytes());
        put_string(&mut out, &self.log_name);
        out.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let mut block = AlignedBuf::with_capacity(BLOCK);
        block.extend_from_slice(&out);
        block
    }

    /// The version of a header block that a newer version of this software wrote. Believed only under a right crc, which
    /// stands at the same place in every version.
    pub(crate) fn newer_version(block: &[u8]) -> Option<u16> {
        let version = block.strip_prefix(&MAGIC)?.first_chunk().map(|version| u16::from_le_bytes(*version));
        version.filter(|version| *version > VERSION && Self::content(block).is_some())
    }

    /// What the crc of a header block covers, if it is right.
    fn content(block: &[u8]) -> Option<&[u8]> {
        let content = block.get(..CRC_AT)?;
        let crc = u32::from_le_bytes(*block.get(CRC_AT..BLOCK)?.first_chunk()?);
        (crc32c::crc32c(content) == crc).then_some(content)
    }

    /// Reads a header block; `None` if it is none, or of another version.
    pub(crate) fn decode(block: &[u8]) -> Option<SegmentHeader> {
        let mut reader = Reader::new(Self::content(block)?);
        if reader.bytes(4)? != MAGIC || reader.u16()? != VERSION {
            return None;
        }
        reader.u16()?;
        let (log_id, base, life) = (reader.u64()?, reader.i64()?, reader.u64()?);
        Some(SegmentHeader { log_id, base, life, log_name: reader.string()?.to_owned() })
    }
}

/// The beginning of the segment's last block, kept where its batches are no longer in memory.
#[derive(Debug)]
pub(crate) struct BlockPrefix {
    /// File position of the block.
    pub block: u64,
    /// Its first bytes.
    pub bytes: Vec<u8>,
}

/// A segment in use. Cells, because it is shared with operations in flight; never borrowed across an await.
pub(crate) struct Segment<D: Disk> {
    pub base: i64,
    pub life: u64,
    pub path: PathBuf,
    /// Written by the cleaner, which its file's name tells.
    pub cleaned: bool,
    /// File position after the last batch, durable or not.
    pub end: Cell<u64>,
    /// Largest timestamp and the base offset of the first batch that has it; -1 if none.
    pub max_timestamp: Cell<(i64, i64)>,
    /// Largest timestamp of the first batch.
    pub first_timestamp: Cell<i64>,
    /// Earliest delete horizon of a batch that something goes from when it passes, -1 if none is known.
    pub horizon_ms: Cell<i64>,
    /// The index file tells what the index does.
    pub index_stored: Cell<bool>,
    /// When it began, or the store was opened, in milliseconds.
    pub opened_ms: i64,
    /// Somebody makes the index whole, or writes or removes its file.
    pub indexing: Cell<bool>,
    /// The index knows everything from this position on.
    pub indexed_from: Cell<u64>,
    /// How far the file is there for writing; 0 until it exists.
    pub prepared_to: Cell<u64>,
    /// How far the file has to be there for an append that waits for it, however large it would grow by itself.
    pub wanted_to: Cell<u64>,
    /// A preparation is queued or under way.
    pub preparing: Cell<bool>,
    /// End of the write behind in flight; 0 if none.
    pub writeback_to: Cell<u64>,
    /// Live frames from this one on hold the whole of the block that `end` lies in.
    pub image_seq: Cell<u64>,
    /// That image begins with bytes settled before, so it protects them only once it is stable itself.
    pub image_repeats: Cell<bool>,
    /// Commit that has a share of this segment, and the share's place in it.
    pub open_share: Cell<Option<(u64, usize)>>,
    /// The segment left the log; nothing is written to it any more.
    pub retired: Cell<bool>,
    /// A write or a flush of its file failed; see [`crate::rescue`].
    pub suspect: Cell<bool>,
    /// Bytes of the file from here on were written since its last flush began.
    pub unproven_from: Cell<u64>,
    /// A flush is under way that vouches for those from here on if it succeeds.
    pub flushing_from: Cell<u64>,
    pub pending: RefCell<Pending>,
    pub prefix: RefCell<Option<BlockPrefix>>,
    pub index: RefCell<SegmentIndex>,
    pub(crate) file: RefCell<Option<D::File>>,
    /// Its file was open before: it is the one that is meant.
    pub(crate) known: Cell<bool>,
    /// Used since the open-files clock last came by.
    pub(crate) used: Cell<bool>,
}

impl<D: Disk> Segment<D> {
    /// A segment without a file, or one whose file is not open yet.
    pub(crate) fn new(log_dir: &Path, base: i64, life: u64, opened_ms: i64) -> Rc<Segment<D>> {
        Segment::named(log_dir, (base, life, false), opened_ms)
    }

    /// One that the cleaner writes.
    pub(crate) fn cleaned(log_dir: &Path, base: i64, life: u64, opened_ms: i64) -> Rc<Segment<D>> {
        Segment::named(log_dir, (base, life, true), opened_ms)
    }

    /// Either, by base, life and whether it was cleaned.
    pub(crate) fn named(
        log_dir: &Path,
        (base, life, cleaned): (i64, u64, bool),
        opened_ms: i64,
    ) -> Rc<Segment<D>> {
        Rc::new(Segment {
            base,
            life,
            path: log_dir.join(file_name(base, cleaned.then_some(life))),
            cleaned,
            end: Cell::new(DATA_START),
            max_timestamp: Cell::new((-1, -1)),
            first_timestamp: Cell::new(-1),
            horizon_ms: Cell::new(-1),
            opened_ms,
            index_stored: Cell::new(false),
            indexing: Cell::new(false),
            indexed_from: Cell::new(DATA_START),
            prepared_to: Cell::new(0),
            wanted_to: Cell::new(0),
            preparing: Cell::new(false),
            writeback_to: Cell::new(0),
            image_seq: Cell::new(0),
            image_repeats: Cell::new(false),
            open_share: Cell::new(None),
            retired: Cell::new(false),
            suspect: Cell::new(false),
            unproven_from: Cell::new(u64::MAX),
            flushing_from: Cell::new(u64::MAX),
            pending: RefCell::default(),
            prefix: RefCell::new(None),
            index: RefCell::new(SegmentIndex::new(base, DATA_START)),
            file: RefCell::new(None),
            known: Cell::new(false),
            used: Cell::new(false),
        })
    }

    /// Whether the file exists with a stable header.
    pub(crate) fn is_ready(&self) -> bool {
        self.prepared_to.get() > 0
    }

    /// Forgets the kept block once neither the segment's end nor anything unsettled lies in it, and a flush vouches for what
    /// was written there: until then it may be all that has the beginning of a block which was written again.
    pub(crate) fn trim_prefix(&self) {
        let mut prefix = self.prefix.borrow_mut();
        let Some(block_end) = prefix.as_ref().map(|prefix| prefix.block + DATA_START) else { return };
        let first = self.pending.borrow().first();
        let is_settled = self.end.get() >= block_end && first.is_none_or(|first| first >= block_end);
        if is_settled && self.doubtful_from() >= block_end {
            *prefix = None;
        }
    }

    /// A write of the file from `position` on ended, well or not.
    pub(crate) fn wrote(&self, position: u64) {
        self.unproven_from.set(self.unproven_from.get().min(position));
    }

    /// Flushes its file, which nobody else does meanwhile, and notes what that vouches for.
    pub(crate) async fn flush(&self, file: &D::File) -> io::Result<()> {
        self.flushing_from.set(self.unproven_from.replace(u64::MAX));
        let flushed = file.sync_data().await;
        let from = self.flushing_from.replace(u64::MAX);
        match &flushed {
            Ok(()) => self.trim_prefix(),
            Err(_) => self.wrote(from),
        }
        flushed
    }

    /// No flush that succeeded vouches for the file's bytes from here on.
    pub(crate) fn doubtful_from(&self) -> u64 {
        self.unproven_from.get().min(self.flushing_from.get())
    }

    /// Largest timestamp, as deletion by age takes it: of what cleaning left without a record, that of the first batch. -1
    /// if there is none.
    pub(crate) fn retention_timestamp(&self) -> i64 {
        match self.max_timestamp.get().0 {
            -1 if self.cleaned => self.first_timestamp.get(),
            newest => newest,
        }
    }

    /// Bytes of batches.
    pub(crate) fn size(&self) -> u64 {
        self.end.get() - DATA_START
    }
}

/// Name of a segment's file; that of a cleaned one has its life in it, since it stands beside those that it replaces.
pub(crate) fn file_name(base: i64, cleaned_life: Option<u64>) -> String {
    match cleaned_life {
        None => format!("{base:020}.log"),
        Some(life) => format!("{base:020}-{life:016x}.log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_says_whose_it_is_and_any_change_is_noticed() {
        let header = SegmentHeader { log_id: 3, base: 77, life: 9, log_name: "a-0".into() };
        let block = header.encode();
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let golden =
            include_str!("../tests/golden/segment-header.hex").split_whitespace().collect::<String>();
        assert_eq!(hex(&block[..64]) + &hex(&block[CRC_AT..]), golden, "first 64 bytes and the crc");
        assert_eq!(SegmentHeader::decode(&block), Some(header));
        for at in [0, 4, 8, 16, 24, 32, 40, 4000, 4095] {
            let mut bad = block.to_vec();
            bad[at] ^= 1;
            assert_eq!(SegmentHeader::decode(&bad), None, "byte {at}");
        }
        assert_eq!(SegmentHeader::decode(&block[..4000]), None);
        let mut newer = block.to_vec();
        newer[4] = 2;
        assert_eq!(SegmentHeader::newer_version(&newer), None, "its crc is wrong");
        let crc = crc32c::crc32c(&newer[..CRC_AT]);
        newer[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            (SegmentHeader::newer_version(&newer), SegmentHeader::newer_version(&block)),
            (Some(2), None)
        );
    }

    #[test]
    fn file_names() {
        assert_eq!(file_name(42, None), "00000000000000000042.log");
        assert_eq!(file_name(42, Some(0xab)), "00000000000000000042-00000000000000ab.log");
    }
}
