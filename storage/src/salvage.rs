//! Reading what a failing device still gives of a file that is copied to another one.
//!
//! Blocks that it does not give, asked again and again, are zeros in the copy: a batch in them is damaged then, as decision 11
//! knows it, and what stands around it is not lost with it. Bound: so many blocks of a file; a device that gives less than that
//! fails.

use std::io;

use bytes::Bytes;

use crate::disk::{AlignedBuf, BLOCK, DiskFile};
use crate::prepare::passes;

/// Reads of a block before it counts as lost.
const READS_MAX: usize = 3;
/// Blocks that may be lost of one file.
pub(crate) const LOST_BLOCKS_MAX: usize = 64;

/// Reads up to `len` bytes from `position`, a block's start, as [`DiskFile::read_at`] does; notes in `lost` the positions of
/// blocks that are zeros in it. Fails where there are no descriptors or the like, and beyond [`LOST_BLOCKS_MAX`].
pub(crate) async fn read_at<F: DiskFile>(
    file: &F,
    position: u64,
    len: usize,
    lost: &mut Vec<u64>,
) -> io::Result<Bytes> {
    match file.read_at(position, len).await {
        Ok(data) => return Ok(data.freeze()),
        Err(error) if passes(&error) => return Err(error),
        Err(_) => {}
    }
    let len = len.min(file.size().saturating_sub(position) as usize);
    let mut data = AlignedBuf::with_capacity(len.next_multiple_of(BLOCK));
    while data.len() < len {
        let (at, wanted) = (position + data.len() as u64, BLOCK.min(len - data.len()));
        match block(file, at, wanted).await {
            Ok(block) => data.extend_from_slice(&block[..wanted.min(block.len())]),
            Err(error) if passes(&error) || lost.len() >= LOST_BLOCKS_MAX => return Err(error),
            Err(_) => {
                lost.push(at);
                data.extend_zeros(wanted);
            }
        }
        if !data.len().is_multiple_of(BLOCK) {
            break;
        }
    }
    Ok(data.freeze())
}

async fn block<F: DiskFile>(file: &F, at: u64, len: usize) -> io::Result<AlignedBuf> {
    let mut read = file.read_at(at, len).await;
    for _ in 1..READS_MAX {
        if read.as_ref().is_ok_and(|block| !block.is_empty()) {
            break;
        }
        read = file.read_at(at, len).await;
    }
    match read {
        Ok(block) if block.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        read => read,
    }
}
