//! One run: its file, and what of it is in memory.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::filter::Filter;
use super::format::{
    Entry, Header, HeaderError, KEYS_PER_BLOCK, VERSION, WORDS_PER_BLOCK, block_position, decode_block,
    read_key,
};
use super::{FindError, Key, RunRecord};
use crate::bytes_io::Reader;
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskFile};
use crate::error::OpenError;

/// Bytes read or written at once.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// A live run. Its file stays readable while this is held, even when it was removed.
pub(super) struct Run<D: Disk> {
    pub(super) record: RunRecord,
    pub(super) file: D::File,
    pub(super) path: PathBuf,
    /// First key of each block.
    pub(super) first_keys: Vec<Key>,
    pub(super) last: Key,
    pub(super) filter: Filter,
}

/// Why a run cannot be used.
pub(super) enum RunError {
    NewerVersion(OpenError),
    /// The disk failed: the file may be sound.
    Io(io::Error),
    /// A sentence, and whether the file is there.
    Refused(String, bool),
}

impl<D: Disk> Run<D> {
    /// Reads what lookups need. Allocates no more than the file is long.
    pub(super) async fn open(disk: &D, path: PathBuf, record: RunRecord) -> Result<Run<D>, RunError> {
        let refused = |what: String| RunError::Refused(format!("{}: {what}", path.display()), true);
        let damaged = |what: &str| refused(format!("{what} is damaged"));
        let file = match disk.open(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RunError::Refused(format!("{} is missing", path.display()), false));
            }
            opened => opened.map_err(RunError::Io)?,
        };
        let block = file.read_at(0, BLOCK).await.map_err(RunError::Io)?;
        let header = match Header::decode(&block, file.size()) {
            Ok(header) => header,
            Err(HeaderError::NewerVersion(found)) => {
                let file = path.display().to_string();
                return Err(RunError::NewerVersion(OpenError::NewerVersion {
                    file,
                    found,
                    supported: VERSION,
                }));
            }
            Err(HeaderError::Damaged) => return Err(damaged("the header")),
        };
        if (header.number, file.size(), header.producers) != (record.number, record.len, record.producers) {
            return Err(refused("it is another run than the checkpoint names".to_owned()));
        }
        let index = Region {
            position: header.index_position(),
            items: header.blocks,
            per_block: KEYS_PER_BLOCK,
            crc: header.index_crc,
        };
        let ascending =
            |keys: &Vec<Key>| keys.is_sorted_by(|a, b| a < b) && keys.last() <= Some(&header.last);
        let first_keys = index.read(disk, &file, read_key).await.map_err(RunError::Io)?;
        let first_keys = first_keys.filter(ascending).ok_or_else(|| damaged("the index"))?;
        let filter = Region {
            position: header.filter_position(),
            items: header.words,
            per_block: WORDS_PER_BLOCK,
            crc: header.filter_crc,
        };
        let words = filter.read(disk, &file, |reader| reader.u64()).await.map_err(RunError::Io)?;
        let words = words.ok_or_else(|| damaged("the filter"))?;
        let filter = Filter::of_words(words);
        Ok(Run { record, file, path, first_keys, last: header.last, filter })
    }

    pub(super) fn bytes_in_memory(&self) -> usize {
        self.filter.words().len() * 8 + self.first_keys.capacity() * 16
    }

    pub(super) fn blocks(&self) -> u64 {
        self.first_keys.len() as u64
    }

    /// The entry of a key, by reading one block. One that the filter denies is not looked for.
    pub(super) async fn find(&self, key: Key) -> Result<Option<Entry>, FindError> {
        let after = self.first_keys.partition_point(|first| *first <= key);
        if after == 0 || key > self.last || !self.filter.may_have(key) {
            return Ok(None);
        }
        let ordinal = after as u64 - 1;
        let block = self.read(ordinal, 1).await?;
        let mut entries = self.decode(&block, ordinal)?;
        let found = entries.binary_search_by_key(&key, |entry| entry.key).ok();
        Ok(found.map(|at| entries.swap_remove(at)))
    }

    /// The blocks that may hold keys from `from` to `to`.
    pub(super) fn span(&self, from: Key, to: Key) -> std::ops::Range<u64> {
        if to < from || from > self.last {
            return 0..0;
        }
        let begin = self.first_keys.partition_point(|first| *first <= from).saturating_sub(1);
        let end = self.first_keys.partition_point(|first| *first <= to);
        begin as u64..end as u64
    }

    async fn read(&self, ordinal: u64, count: u64) -> Result<AlignedBuf, FindError> {
        let position = block_position(ordinal);
        self.file
            .read_at(position, count as usize * BLOCK)
            .await
            .map_err(|error| FindError::Io(format!("{} at {position}: {error}", self.path.display())))
    }

    /// The entries of a block: those of this place in this run, between the keys that the index says.
    fn decode(&self, block: &[u8], ordinal: u64) -> Result<Vec<Entry>, FindError> {
        let next = self.first_keys.get(ordinal as usize + 1);
        let as_indexed = |entries: &Vec<Entry>| {
            let (first, last) =
                (entries.first().map(|entry| entry.key), entries.last().map(|entry| entry.key));
            first.as_ref() == self.first_keys.get(ordinal as usize)
                && last.is_some_and(|last| next.map_or(last == self.last, |next| last < *next))
        };
        decode_block(block, self.record.number, ordinal).filter(as_indexed).ok_or_else(|| {
            let position = block_position(ordinal);
            FindError::Damaged(format!("{}: the block at {position} is damaged", self.path.display()))
        })
    }
}

/// Small things of one kind that fill whole blocks.
struct Region {
    position: u64,
    items: u64,
    per_block: usize,
    crc: u32,
}

impl Region {
    /// Reads all of them, in pieces; `None` if they are not what was written.
    async fn read<D: Disk, T>(
        &self,
        disk: &D,
        file: &D::File,
        item: impl Fn(&mut Reader<'_>) -> Option<T>,
    ) -> io::Result<Option<Vec<T>>> {
        let mut items = Vec::with_capacity(self.items as usize);
        let (mut left, mut crc, mut position) = (self.items, 0, self.position);
        let end = position + self.items.div_ceil(self.per_block as u64) * BLOCK as u64;
        while position < end {
            let len = PIECE_BYTES.min((end - position) as usize);
            let piece = file.read_at(position, len).await?;
            crc = crc32c::crc32c_append(crc, &piece);
            for block in piece.chunks(BLOCK) {
                let mut reader = Reader::new(block);
                let count = left.min(self.per_block as u64);
                items.extend((0..count).map_while(|_| item(&mut reader)));
                left -= count;
            }
            position += len as u64;
            disk.yield_now().await;
        }
        Ok((crc == self.crc && items.len() as u64 == self.items).then_some(items))
    }
}

/// Reads blocks of a run in order, in pieces.
pub(super) struct Blocks<D: Disk> {
    run: Rc<Run<D>>,
    next: u64,
    end: u64,
    piece_blocks: u64,
    /// Below this, blocks are read one by one: a piece could not be read, and the fault may be in one of them alone.
    singly_until: u64,
    piece: Option<(u64, AlignedBuf)>,
}

impl<D: Disk> Blocks<D> {
    /// From one block to before another, reading about so many bytes at once.
    pub(super) fn new(run: Rc<Run<D>>, span: std::ops::Range<u64>, piece_bytes: usize) -> Blocks<D> {
        let piece_blocks = (piece_bytes / BLOCK).max(1) as u64;
        Blocks { run, next: span.start, end: span.end, piece_blocks, singly_until: 0, piece: None }
    }

    /// The entries of the next block, or what is wrong with it; `None` behind the last. Keys ascend over all blocks.
    pub(super) async fn next(&mut self) -> Option<Result<Vec<Entry>, FindError>> {
        if self.next >= self.end {
            return None;
        }
        let ordinal = self.next;
        self.next += 1;
        let held = |piece: &(u64, AlignedBuf)| ordinal < piece.0 + (piece.1.len() / BLOCK) as u64;
        if !self.piece.as_ref().is_some_and(held)
            && let Err(error) = self.read_piece(ordinal).await
        {
            return Some(Err(error));
        }
        let block = self.piece.as_ref().map_or(&[][..], |(start, piece)| {
            let at = (ordinal - start) as usize * BLOCK;
            piece.get(at..at + BLOCK).unwrap_or_default()
        });
        Some(self.run.decode(block, ordinal))
    }

    async fn read_piece(&mut self, ordinal: u64) -> Result<(), FindError> {
        self.piece = None;
        let count = self.piece_blocks.min(self.end - ordinal);
        if ordinal >= self.singly_until {
            if let Ok(piece) = self.run.read(ordinal, count).await {
                self.piece = Some((ordinal, piece));
                return Ok(());
            }
            self.singly_until = ordinal + count;
        }
        self.piece = Some((ordinal, self.run.read(ordinal, 1).await?));
        Ok(())
    }

    /// The keys that the block read last may hold: from the first to before the second, if there is one.
    pub(super) fn range_of_last(&self) -> (Key, Option<Key>) {
        let at = self.next.saturating_sub(1) as usize;
        let keys = &self.run.first_keys;
        (keys[at], keys.get(at + 1).copied())
    }

    pub(super) fn run(&self) -> &Run<D> {
        &self.run
    }
}

/// Path of a run in the directory of runs.
pub(super) fn run_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.run"))
}
