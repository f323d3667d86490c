//! Writes a run, in pieces.

use std::io;
use std::path::PathBuf;

use super::filter::Filter;
use super::format::{BlockBuilder, FILE_LEN_MAX, Header, KEYS_PER_BLOCK, WORDS_PER_BLOCK, put_key};
use super::run::{PIECE_BYTES, Run};
use super::{Key, RunRecord};
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskFile};
use crate::producer::Producer;

/// A run in the making. Its header is written last.
pub(super) struct RunWriter<D: Disk> {
    disk: D,
    number: u64,
    path: PathBuf,
    file: D::File,
    /// Where the piece goes.
    position: u64,
    piece: AlignedBuf,
    block: BlockBuilder,
    first_keys: Vec<Key>,
    last: Option<Key>,
    filter: Filter,
    producers: u64,
}

impl<D: Disk> RunWriter<D> {
    /// Begins a run of at most so many entries, in the place of a file that a crash left over.
    pub(super) async fn begin(disk: &D, path: PathBuf, number: u64, room: u64) -> io::Result<RunWriter<D>> {
        let file = match disk.create(&path, 0).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&path).await?;
                disk.create(&path, 0).await?
            }
            created => created?,
        };
        Ok(RunWriter {
            disk: disk.clone(),
            number,
            path,
            file,
            position: BLOCK as u64,
            piece: AlignedBuf::with_capacity(PIECE_BYTES),
            block: BlockBuilder::new(number),
            first_keys: Vec::new(),
            last: None,
            filter: Filter::with_room(room),
            producers: 0,
        })
    }

    pub(super) fn producers(&self) -> u64 {
        self.producers
    }

    /// Adds an entry; says whether a piece is full, which [`RunWriter::flush`] writes.
    #[must_use]
    pub(super) fn push(&mut self, key: Key, first: u64, producer: &Producer) -> bool {
        assert!(self.last.is_none_or(|last| last < key), "keys of a run ascend");
        assert!(first <= self.number, "an entry of run {first} in run {}", self.number);
        if !self.block.has_room() {
            self.end_block();
        }
        if self.block.is_empty() {
            self.first_keys.push(key);
        }
        self.block.push(key, first, producer);
        self.filter.insert(key);
        self.last = Some(key);
        self.producers += 1;
        self.piece.room() == 0
    }

    fn end_block(&mut self) {
        let piece = &mut self.piece;
        self.block.finish(self.first_keys.len() as u64 - 1, |block| piece.extend_from_slice(block));
    }

    /// Writes what was gathered.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, AlignedBuf::with_capacity(PIECE_BYTES)).freeze();
        let len = piece.len() as u64;
        self.file.write_at(piece, self.position).await?;
        self.position += len;
        self.disk.yield_now().await;
        Ok(())
    }

    /// Writes things that fill blocks of their own; gives the crc of these.
    async fn put_region(&mut self, blocks: impl Iterator<Item = Vec<u8>>) -> io::Result<u32> {
        let mut crc = 0;
        for mut block in blocks {
            block.resize(BLOCK, 0);
            crc = crc32c::crc32c_append(crc, &block);
            if self.piece.room() == 0 {
                self.flush().await?;
            }
            self.piece.extend_from_slice(&block);
        }
        Ok(crc)
    }

    /// Ends the file and makes it stable; what names it is not yet. There was at least one entry.
    pub(super) async fn finish(mut self) -> io::Result<Run<D>> {
        let Some(last) = self.last else { return Err(io::Error::other("a run without entries")) };
        if self.piece.room() == 0 {
            self.flush().await?;
        }
        self.end_block();
        let (filter, producers) = (self.filter, self.producers);
        self.filter = Filter::of_words(Vec::new());
        let filter = self.disk.compute(move || filter.folded(producers)).await?;
        let mut first_keys = std::mem::take(&mut self.first_keys);
        first_keys.shrink_to_fit();
        let index = first_keys.chunks(KEYS_PER_BLOCK).map(|keys| {
            let mut block = Vec::with_capacity(BLOCK);
            keys.iter().for_each(|key| put_key(&mut block, *key));
            block
        });
        let index_crc = self.put_region(index).await?;
        let words = filter.words().chunks(WORDS_PER_BLOCK);
        let words = words.map(|words| words.iter().flat_map(|word| word.to_le_bytes()).collect());
        let filter_crc = self.put_region(words).await?;
        self.flush().await?;
        let header = Header {
            number: self.number,
            producers,
            blocks: first_keys.len() as u64,
            words: filter.words().len() as u64,
            last,
            index_crc,
            filter_crc,
        };
        assert_eq!(self.position, header.file_len(), "a run is as long as its header says");
        if header.file_len() > FILE_LEN_MAX {
            return Err(io::Error::other(format!("a run of {producers} producers is too long")));
        }
        let mut block = AlignedBuf::with_capacity(BLOCK);
        block.extend_from_slice(&header.encode());
        self.file.write_at(block.freeze(), 0).await?;
        self.file.sync_data().await?;
        let record = RunRecord { number: self.number, len: header.file_len(), producers };
        Ok(Run { record, file: self.file, path: self.path, first_keys, last, filter })
    }
}
