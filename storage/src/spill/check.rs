//! Checks the file of a run as a whole, for whoever looks at a store that is not open.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::format::{Header, HeaderError, KEYS_PER_BLOCK, VERSION, block_position, decode_block, read_key};
use super::{Key, RunRecord};
use crate::bytes_io::Reader;
use crate::disk::BLOCK;

/// Blocks read at once.
const PIECE_BLOCKS: u64 = 64;

/// A place in a file, and what is wrong there.
pub(crate) type Fault = (u64, String);

/// Reads bytes of the file; fewer only where it ends.
type Read<'a> = &'a dyn Fn(Range<u64>) -> io::Result<Bytes>;

/// Checks header, index, filter and every block of a run's file of `len` bytes; tells what is wrong.
pub(crate) fn check(record: &RunRecord, len: u64, read: Read<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    match read_header(record, len, read) {
        Err(fault) => faults.push(fault),
        Ok(header) => {
            let end = header.file_len();
            let parts = [
                ("index", header.index_position()..header.filter_position(), header.index_crc),
                ("filter", header.filter_position()..end, header.filter_crc),
            ];
            for (part, range, crc) in parts {
                match crc_of(&range, read) {
                    Ok(found) if found == crc => {}
                    Ok(_) => {
                        faults.push((range.start, format!("the {part} of this file of producers is damaged")))
                    }
                    Err(fault) => faults.push(fault),
                }
            }
            check_blocks(&header, read, &mut faults);
        }
    }
    faults
}

fn failed(at: u64) -> impl FnOnce(io::Error) -> Fault {
    move |error| (at, error.to_string())
}

fn read_header(record: &RunRecord, len: u64, read: Read<'_>) -> Result<Header, Fault> {
    let block = read(0..BLOCK as u64).map_err(failed(0))?;
    let header = match Header::decode(&block, len) {
        Err(HeaderError::NewerVersion(version)) => {
            let what = format!("it has format version {version}, and this version reads up to {VERSION}");
            return Err((0, what));
        }
        Err(HeaderError::Damaged) => {
            return Err((0, "the header of this file of producers is damaged".to_owned()));
        }
        Ok(header) => header,
    };
    if (header.number, len, header.producers) != (record.number, record.len, record.producers) {
        return Err((0, "it is another run than the checkpoint names".to_owned()));
    }
    Ok(header)
}

fn crc_of(range: &Range<u64>, read: Read<'_>) -> Result<u32, Fault> {
    let (mut at, mut crc) = (range.start, 0);
    while at < range.end {
        let to = range.end.min(at + PIECE_BLOCKS * BLOCK as u64);
        crc = crc32c::crc32c_append(crc, &read(at..to).map_err(failed(at))?);
        at = to;
    }
    Ok(crc)
}

/// Every block of entries, and the index's keys of them.
fn check_blocks(header: &Header, read: Read<'_>, faults: &mut Vec<Fault>) {
    let (mut last, mut producers): (Option<Key>, u64) = (None, 0);
    let before = faults.len();
    let mut ordinal = 0;
    while ordinal < header.blocks {
        let count = PIECE_BLOCKS.min(header.blocks - ordinal);
        let at = block_position(ordinal);
        let piece = read(at..at + count * BLOCK as u64).unwrap_or_default();
        for nth in 0..count {
            let position = block_position(ordinal + nth);
            let within = (position - at) as usize;
            // What could not be read together may be readable by itself.
            let block = match piece.get(within..within + BLOCK) {
                Some(_) => piece.slice(within..within + BLOCK),
                None => match read(position..position + BLOCK as u64) {
                    Ok(block) => block,
                    Err(error) => {
                        faults.push((position, error.to_string()));
                        continue;
                    }
                },
            };
            let entries = decode_block(&block, header.number, ordinal + nth);
            let entries = entries.filter(|entries| entries.first().map(|entry| entry.key) > last);
            let Some(entries) = entries else {
                faults.push((position, "this block of producers is damaged".to_owned()));
                continue;
            };
            let first = entries.first().map(|entry| entry.key);
            if faults.len() == before && indexed(header, read, ordinal + nth) != first {
                faults.push((position, "the index of this file names another producer here".to_owned()));
            }
            last = entries.last().map(|entry| entry.key);
            producers += entries.len() as u64;
        }
        ordinal += count;
    }
    if faults.len() == before && (last, producers) != (Some(header.last), header.producers) {
        faults.push((0, "the file has other producers than its header says".to_owned()));
    }
}

/// The key that the index has for a block.
fn indexed(header: &Header, read: Read<'_>, ordinal: u64) -> Option<Key> {
    let (block, at) = (ordinal / KEYS_PER_BLOCK as u64, ordinal as usize % KEYS_PER_BLOCK);
    let position = header.index_position() + block * BLOCK as u64;
    let bytes = read(position..position + BLOCK as u64).ok()?;
    let mut reader = Reader::new(&bytes);
    reader.bytes(at * 16)?;
    read_key(&mut reader)
}
