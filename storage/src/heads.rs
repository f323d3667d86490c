//! Memory for the headers of recent batches, a few in one piece: they leave memory in the order in which they came, so that
//! one allocation and one release, of memory that no cache has any more, serve them all.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use penstock_format::{BATCH_HEADER_LEN, Batch};

/// Headers in one piece, unless more come at once. Who keeps one of them keeps all: so they are few.
const PER_PIECE: usize = 8;

/// The piece that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    piece: RefCell<BytesMut>,
}

impl Heads {
    /// The headers of these batches, one behind the other.
    pub(crate) fn of(&self, batches: &[Batch]) -> Bytes {
        let mut piece = self.piece.borrow_mut();
        if piece.capacity() < batches.len() * BATCH_HEADER_LEN {
            *piece = BytesMut::with_capacity(batches.len().max(PER_PIECE) * BATCH_HEADER_LEN);
        }
        batches.iter().for_each(|batch| piece.extend_from_slice(&batch.header.to_array()));
        piece.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use penstock_format::{BatchBuilder, NewRecord};

    use super::*;

    fn batch(base_offset: i64) -> Batch {
        let mut builder = BatchBuilder::new();
        builder.append(&NewRecord::default()).unwrap();
        let mut batch = builder.finish().unwrap();
        batch.header.base_offset = base_offset;
        batch
    }

    /// Where two slices of one piece lie beside each other.
    fn follows(first: &Bytes, second: &Bytes) -> bool {
        first.as_ptr_range().end == second.as_ptr()
    }

    #[test]
    fn a_few_headers_share_a_piece() {
        let heads = Heads::default();
        let all: Vec<Bytes> = (0..20).map(|n| heads.of(&[batch(n)])).collect();
        for (n, head) in all.iter().enumerate() {
            assert_eq!(head[..], batch(n as i64).header.to_array());
        }
        for within in all.chunks(PER_PIECE) {
            assert!(within.windows(2).all(|pair| follows(&pair[0], &pair[1])));
        }
    }

    #[test]
    fn headers_that_come_at_once_lie_in_one_piece_however_many() {
        let heads = Heads::default();
        for count in [3, 7, 100, 1] {
            let batches: Vec<Batch> = (0..count).map(batch).collect();
            let expected: Vec<u8> = batches.iter().flat_map(|batch| batch.header.to_array()).collect();
            assert_eq!(heads.of(&batches), expected);
        }
    }
}
