//! Walking over the settled batches of a segment, from one that begins at a known position, each checked as
//! [`crate::cold`] does: by its crc, its place in the chain of offsets, and its leader epoch.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use penstock_format::{BATCH_HEADER_LEN, Batch, BatchHeader};

use crate::cold::{Follows, Known, follows};
use crate::disk::Disk;
use crate::error::ReadError;
use crate::index::AppendedBatch;
use crate::read::{READ_BYTES_MAX, READ_BYTES_MIN, read_piece, settled_to};
use crate::segment::Segment;
use crate::state::{LogInner, StoreInner};

/// Where a walk stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    /// Position of the next batch.
    pub position: u64,
    /// It begins at this offset or later.
    pub due: i64,
    /// A batch before which offsets are missing, and what was due there. It stands right if what follows leaves it room.
    doubtful: Option<(u64, BatchHeader, i64)>,
    /// Where the walk ends.
    limit: u64,
    /// Offset of what follows there.
    limit_offset: i64,
}

/// Batches found right, with their positions.
pub(crate) type Walked = Vec<(u64, BatchHeader)>;

impl Walk {
    /// A walk over a settled range that begins and ends with whole batches.
    pub(crate) fn new<D: Disk>(log: &LogInner<D>, segment: &Segment<D>, range: Range<u64>) -> Walk {
        let state = log.state.borrow();
        let (settled, settled_offset) = settled_to(&state, segment);
        let limit_offset =
            if range.end == settled { settled_offset } else { state.segment_end_offset(segment.base) };
        Walk { position: range.start, due: segment.base, doubtful: None, limit: range.end, limit_offset }
    }

    /// A walk that stands where `due` or a later offset is due, over what is settled up to `limit` and its offset.
    pub(crate) fn at(position: u64, due: i64, (limit, limit_offset): (u64, i64)) -> Walk {
        Walk { position, due, doubtful: None, limit, limit_offset }
    }

    /// Goes on through a piece that begins where the walk stands. Pure. Gives the batches found right, and where one
    /// that the piece has only the beginning of ends, if that is known; or the position of one that is damaged.
    pub(crate) fn piece(&mut self, piece: &Bytes, known: &Known<'_>) -> Result<(Walked, Option<Walk>), u64> {
        let (from, mut walked) = (self.position, Walked::new());
        self.look(piece, known, &mut walked)?;
        let rest = piece.get((self.position - from) as usize..).unwrap_or_default();
        let cut = BatchHeader::parse(rest).ok().filter(|_| !self.is_over()).map(|header| Walk {
            position: self.position + header.total_len() as u64,
            due: header.next_offset(),
            ..*self
        });
        // Looked at again, together with what follows it.
        if let Some((position, _, due)) = self.doubtful.take() {
            (self.position, self.due) = (position, due);
        }
        Ok((walked, cut))
    }

    /// Whether it went over a batch behind a gap that nothing has borne out yet.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.doubtful.is_some()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.position >= self.limit
    }

    /// Reads on by about `bytes_max` bytes, a batch at least. Fails at the first that is damaged; what stands before it in
    /// this step is in `walked`, and [`Walk::pass`] goes on.
    pub(crate) async fn step<D: Disk>(
        &mut self,
        (store, log): (&Rc<StoreInner<D>>, &Rc<LogInner<D>>),
        segment: &Rc<Segment<D>>,
        bytes_max: u64,
        walked: &mut Walked,
    ) -> Result<(), ReadError> {
        self.step_of((store, log), segment, bytes_max.clamp(READ_BYTES_MIN, READ_BYTES_MAX), walked).await
    }

    /// As [`Walk::step`], as far as one read goes, or, where that met a block that cannot be read, `by_one` batch without a
    /// block behind it.
    pub(crate) async fn step_before<D: Disk>(
        &mut self,
        (store, log): (&Rc<StoreInner<D>>, &Rc<LogInner<D>>),
        segment: &Rc<Segment<D>>,
        by_one: bool,
        walked: &mut Walked,
    ) -> Result<(), ReadError> {
        let len = if by_one { BATCH_HEADER_LEN as u64 } else { READ_BYTES_MAX };
        self.step_of((store, log), segment, len, walked).await
    }

    async fn step_of<D: Disk>(
        &mut self,
        (store, log): (&Rc<StoreInner<D>>, &Rc<LogInner<D>>),
        segment: &Rc<Segment<D>>,
        mut len: u64,
        walked: &mut Walked,
    ) -> Result<(), ReadError> {
        loop {
            let from = self.position;
            let to = self.limit.min(from + len);
            let piece = read_piece(store, log, segment, from..to).await?;
            let needed = {
                let state = log.state.borrow();
                self.look(&piece, &Known::of(&state, (self.limit, self.limit_offset)), walked)
            };
            match needed {
                Err(position) => {
                    return Err(ReadError::Corrupt { segment_base: segment.base, position });
                }
                Ok(0) => return Ok(()),
                Ok(needed) => len = needed,
            }
        }
    }

    /// Looks through a piece from `position` on. Gives how many bytes the first batch takes that the piece does not
    /// have, or 0 if there was a whole one; or the position of one that is damaged, and stands at the last damaged one.
    fn look(&mut self, piece: &Bytes, known: &Known<'_>, walked: &mut Walked) -> Result<u64, u64> {
        let from = self.position;
        while self.position < self.limit {
            let rest = piece.slice((self.position - from) as usize..);
            let left = self.limit - self.position;
            if rest.len() < BATCH_HEADER_LEN && left >= BATCH_HEADER_LEN as u64 {
                return Ok(if self.position > from { 0 } else { READ_BYTES_MIN });
            }
            let Ok(header) = BatchHeader::parse(&rest) else { return Err(self.position) };
            if !known.fits(&header, self.position, self.due) {
                let Some((position, doubtful, due)) = self.doubtful.take() else { return Err(self.position) };
                match follows(due, &doubtful, &header) {
                    Follows::Right => {
                        walked.push((position, doubtful));
                        return Err(self.position);
                    }
                    Follows::NoGap => self.position = position,
                    Follows::Neither => {}
                }
                return Err(position);
            }
            let len = header.total_len();
            if rest.len() < len {
                return Ok(if self.position > from { 0 } else { len as u64 });
            }
            if !(Batch { header, body: rest.slice(BATCH_HEADER_LEN..len) }).crc_ok() {
                return Err(self.position);
            }
            walked.extend(self.doubtful.take().map(|(position, header, _)| (position, header)));
            if header.base_offset == self.due {
                walked.push((self.position, header));
            } else {
                self.doubtful = Some((self.position, header, self.due));
            }
            (self.position, self.due) = (self.position + len as u64, header.next_offset());
        }
        walked.extend(self.doubtful.take().map(|(position, header, _)| (position, header)));
        Ok(0)
    }

    /// Goes on behind the damaged batch where the walk stands, if its length is right: then a batch that stands right follows.
    /// Says no if that cannot be told; the walk is then over.
    pub(crate) async fn pass<D: Disk>(
        &mut self,
        (store, log): (&Rc<StoreInner<D>>, &Rc<LogInner<D>>),
        segment: &Rc<Segment<D>>,
    ) -> Result<bool, ReadError> {
        let damaged = self.position;
        let head_end = self.limit.min(damaged + BATCH_HEADER_LEN as u64);
        let head = read_piece(store, log, segment, damaged..head_end).await?;
        let next = BatchHeader::parse(&head).map(|header| damaged + header.total_len() as u64);
        self.doubtful = None;
        let Some(next) = next.ok().filter(|next| *next < self.limit) else {
            self.position = self.limit;
            return Ok(false);
        };
        (self.position, self.due) = (next, segment.base);
        let mut ahead = *self;
        match ahead.step((store, log), segment, READ_BYTES_MIN, &mut Vec::new()).await {
            Err(ReadError::Corrupt { position, .. }) if position == next => {
                self.position = self.limit;
                Ok(false)
            }
            Err(error @ ReadError::Io(_)) => Err(error),
            _ => Ok(true),
        }
    }
}

pub(crate) fn appended(position: u64, header: &BatchHeader) -> AppendedBatch {
    AppendedBatch {
        base_offset: header.base_offset,
        position,
        len: header.total_len() as u64,
        max_timestamp: header.max_timestamp,
    }
}
