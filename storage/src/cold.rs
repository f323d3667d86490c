//! Reading settled batches from a segment's file, each held against what is known of it from elsewhere.
//!
//! A batch's crc covers neither its base offset, nor its length, nor its leader epoch. So a batch is given only if it
//! begins where the one before it ends, or where the index or the segment's name says, and if it has the epoch that the
//! log has there. Where offsets are missing, the batch before the gap must match its crc (its last offset may be what is
//! wrong), and the batch behind the gap must be followed by one that leaves it room (its first offset may be).
//!
//! A damaged batch whose length is right is passed over by who asks for a later one.

use std::rc::Rc;

use bytes::Bytes;
use penstock_format::{BATCH_HEADER_LEN, Batch, BatchHeader};

use crate::disk::Disk;
use crate::epochs::LeaderEpochs;
use crate::error::ReadError;
use crate::log::ReadBatches;
use crate::read::{READ_BYTES_MAX, READ_BYTES_MIN, Wanted, nothing, try_piece};
use crate::segment::Segment;
use crate::state::{LogInner, LogState, StoreInner};

/// A cold read to be made: where in which segment to begin looking.
pub(crate) struct Cold<D: Disk> {
    pub segment: Rc<Segment<D>>,
    /// Where a batch begins, at or before the one wanted.
    pub position: u64,
    /// Its base offset; where `position` is the segment's start, a lower bound of it.
    pub offset: i64,
    /// Up to where the segment is settled.
    pub limit: u64,
    /// Offset of what follows there.
    pub limit_offset: i64,
    pub truncations: u64,
}

/// Reads from the segment's file until something wanted is found. `None` if the settled part ends before.
pub(crate) async fn read_cold<D: Disk>(
    store: &Rc<StoreInner<D>>,
    log: &Rc<LogInner<D>>,
    cold: &Cold<D>,
    wanted: &Wanted,
) -> Result<Option<ReadBatches>, ReadError> {
    let mut at = Place {
        position: cold.position,
        due: cold.offset,
        exact: cold.position > crate::segment::DATA_START,
        ..Place::default()
    };
    // Bytes to look through, and how many of them are no use without the others.
    let mut len = (wanted.bytes_max as u64).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
    let mut least = 1;
    while at.position < cold.limit {
        let from = at.position;
        let to = cold.limit.min(from + len);
        let ahead = match wanted.for_client {
            true => store.read_ahead.take(cold.segment.life, from..to, least.min(to - from)).await,
            false => None,
        };
        let piece = match ahead {
            Some(piece) => Ok(piece),
            None => try_piece(store, log, &cold.segment, from..to).await,
        };
        let piece = piece.map_err(|unread| {
            // A client is in need of it: the log goes offline, as in Kafka.
            if unread.by_device && wanted.for_client && !cold.segment.retired.get() {
                log.fail(&unread.error);
            }
            unread.error
        })?;
        let scanned = {
            let state = log.state.borrow();
            let known = Known::of(&state, (cold.limit, cold.limit_offset));
            Scan { piece: &piece, from, wanted, known }.run(at)
        };
        match scanned {
            Scanned::Found(found) => return Ok(Some(found)),
            Scanned::On { next, needed } => {
                (at, len, least) = (next, needed.unwrap_or(READ_BYTES_MAX), needed.unwrap_or(1));
            }
            Scanned::Damaged(position) => {
                return Err(ReadError::Corrupt { segment_base: cold.segment.base, position });
            }
        }
    }
    Ok(None)
}

/// What is known of a segment besides its bytes.
pub(crate) struct Known<'a> {
    epochs: &'a LeaderEpochs,
    start_offset: i64,
    /// Where its settled batches end.
    limit: u64,
    /// Offset of what follows there.
    limit_offset: i64,
}

impl<'a> Known<'a> {
    /// What the log knows; the settled batches end at that position and offset.
    pub(crate) fn of<D: Disk>(state: &'a LogState<D>, (limit, limit_offset): (u64, i64)) -> Known<'a> {
        Known { epochs: &state.epochs, start_offset: state.start_offset, limit, limit_offset }
    }

    /// The same of what was copied from the log.
    pub(crate) fn new(
        epochs: &'a LeaderEpochs,
        start_offset: i64,
        (limit, limit_offset): (u64, i64),
    ) -> Known<'a> {
        Known { epochs, start_offset, limit, limit_offset }
    }

    /// Whether a header may stand at `position`, where `due` or a later offset is due.
    pub(crate) fn fits(&self, header: &BatchHeader, position: u64, due: i64) -> bool {
        // Where records were deleted up to the middle of a batch, its epoch is known from there on.
        let known_from = header.base_offset.max(self.start_offset.min(header.last_offset()));
        let epoch = self.epochs.epoch_at(known_from).filter(|_| header.partition_leader_epoch != -1);
        header.base_offset >= due
            && header.last_offset_delta >= 0
            && header.next_offset() <= self.limit_offset
            && position + header.total_len() as u64 <= self.limit
            && epoch.is_none_or(|epoch| epoch == header.partition_leader_epoch)
    }
}

/// What the batch behind one says of it, before which offsets are missing.
pub(crate) enum Follows {
    /// There is room for it.
    Right,
    /// No offsets are missing: its base offset is wrong.
    NoGap,
    /// One of the two is wrong.
    Neither,
}

/// Judges a batch, where `due` was due, by the batch behind it.
pub(crate) fn follows(due: i64, header: &BatchHeader, follower: &BatchHeader) -> Follows {
    if follower.base_offset >= header.next_offset() {
        Follows::Right
    } else if follower.base_offset == due.saturating_add(i64::from(header.last_offset_delta) + 1) {
        Follows::NoGap
    } else {
        Follows::Neither
    }
}

/// Where a scan stands.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    position: u64,
    /// The next batch begins here or later.
    due: i64,
    /// It begins exactly here: an index says so.
    exact: bool,
    /// Place of the batch before it, and what was due there.
    before: Option<(u64, i64)>,
    /// That batch is damaged.
    damaged: Option<u64>,
}

/// What looking through a piece of a segment gave.
enum Scanned {
    Found(ReadBatches),
    /// Nothing yet: go on there, with so many bytes at least.
    On {
        next: Place,
        needed: Option<u64>,
    },
    /// What is wanted is damaged.
    Damaged(u64),
}

/// Whether a batch stands right.
enum Stand {
    Right,
    /// It is damaged, and perhaps all up to the position given.
    Wrong(u64),
    /// The damaged one is that before it.
    AfterDamage(u64),
    /// So many bytes from there on have to be looked at together.
    Unseen(Place, u64),
}

/// A look through `piece`, which stands at `from` in the segment.
struct Scan<'a> {
    piece: &'a Bytes,
    from: u64,
    wanted: &'a Wanted,
    known: Known<'a>,
}

impl Scan<'_> {
    fn run(&self, mut at: Place) -> Scanned {
        let mut found = nothing(self.wanted);
        // Position of the first batch found.
        let mut begin = at.position;
        while at.position < self.known.limit {
            let rest = self.rest(at.position);
            if rest.len() < BATCH_HEADER_LEN && at.position + (BATCH_HEADER_LEN as u64) <= self.known.limit {
                return self.stop(found, begin, at, READ_BYTES_MIN);
            }
            let header = BatchHeader::parse(rest).ok();
            let header = header.filter(|header| self.known.fits(header, at.position, at.due));
            let Some(header) = header else { return self.damage((found, begin), at, None) };
            match self.stand(&at, &header) {
                Stand::Right => {}
                Stand::Wrong(to) => return self.damage((found, begin), at, Some(to)),
                Stand::AfterDamage(position) if header.base_offset > self.wanted.from => {
                    return Scanned::Damaged(position);
                }
                Stand::AfterDamage(_) => {}
                Stand::Unseen(_, _) if found.bytes > 0 => return self.finish(found, begin, at.position),
                Stand::Unseen(next, needed) => return Scanned::On { next, needed: Some(needed) },
            }
            let len = header.total_len();
            if header.next_offset() > self.wanted.from {
                if !self.wanted.takes(found.bytes, header.next_offset(), len) {
                    return self.finish(found, begin, at.position);
                }
                if len > rest.len() {
                    return self.stop(found, begin, at, len as u64);
                }
                if !self.crc_ok(at.position, &header) {
                    return self.damage((found, begin), at, None);
                }
                if found.bytes == 0 {
                    (found.first_offset, begin) = (header.base_offset, at.position);
                }
                found.bytes += len;
                found.next_offset = header.next_offset();
            }
            at = at.after(&header);
            if !self.holds(&at) && found.bytes == 0 {
                return Scanned::On { next: at, needed: None };
            }
        }
        self.end(found, begin, at)
    }

    /// The settled part ends.
    fn end(&self, found: ReadBatches, begin: u64, at: Place) -> Scanned {
        if found.bytes > 0 {
            return self.finish(found, begin, at.position);
        }
        if let Some(position) = at.damaged {
            return Scanned::Damaged(position);
        }
        // Offsets are missing at the end: perhaps because the last batch's last offset is wrong.
        match at.before {
            Some((position, due)) if at.due < self.known.limit_offset => {
                if position < self.from {
                    let next = Place { position, due, ..Place::default() };
                    return Scanned::On { next, needed: Some(self.known.limit - position) };
                }
                let header = BatchHeader::parse(self.rest(position));
                match header.is_ok_and(|header| self.crc_ok(position, &header)) {
                    true => Scanned::On { next: at, needed: None },
                    false => Scanned::Damaged(position),
                }
            }
            _ => Scanned::On { next: at, needed: None },
        }
    }

    /// Whether a batch that fits stands right, where offsets are missing before it.
    fn stand(&self, at: &Place, header: &BatchHeader) -> Stand {
        if let Some(position) = at.damaged {
            return Stand::AfterDamage(position);
        }
        if header.base_offset == at.due {
            return Stand::Right;
        }
        if at.exact {
            return Stand::Wrong(at.position + header.total_len() as u64);
        }
        let next = at.position + header.total_len() as u64;
        let seen_to = (next + BATCH_HEADER_LEN as u64).min(self.known.limit);
        let (from, due) = at.before.unwrap_or((at.position, at.due));
        if from < self.from || self.from + (self.piece.len() as u64) < seen_to {
            return Stand::Unseen(Place { position: from, due, ..Place::default() }, seen_to - from);
        }
        if from < at.position {
            let before = BatchHeader::parse(self.rest(from));
            if !before.is_ok_and(|before| self.crc_ok(from, &before)) {
                return Stand::AfterDamage(from);
            }
        }
        if next == self.known.limit {
            return Stand::Right;
        }
        let Ok(follower) = BatchHeader::parse(self.rest(next)) else { return Stand::Right };
        match follows(at.due, header, &follower) {
            Follows::Right => Stand::Right,
            Follows::NoGap => Stand::Wrong(next),
            Follows::Neither => Stand::Wrong(next + follower.total_len() as u64),
        }
    }

    /// A batch is damaged: gives what stands before it, or goes on behind it if something later is wanted.
    fn damage(&self, (found, begin): (ReadBatches, u64), at: Place, to: Option<u64>) -> Scanned {
        if found.bytes > 0 {
            return self.finish(found, begin, at.position);
        }
        if let Some(position) = at.damaged {
            return Scanned::Damaged(position);
        }
        // Its length may be right although something else of it is not.
        let end = |header: BatchHeader| at.position + header.total_len() as u64;
        let next = to.or_else(|| BatchHeader::parse(self.rest(at.position)).ok().map(end));
        match next.filter(|next| *next < self.known.limit && at.due < self.wanted.from) {
            None => Scanned::Damaged(at.position),
            Some(next) => {
                let damaged = Some(at.position);
                let next = Place { position: next, due: at.due + 1, damaged, ..Place::default() };
                Scanned::On { next, needed: None }
            }
        }
    }

    /// Gives what was found, or asks for more bytes.
    fn stop(&self, found: ReadBatches, begin: u64, at: Place, needed: u64) -> Scanned {
        if found.bytes > 0 {
            return self.finish(found, begin, at.position);
        }
        Scanned::On { next: at, needed: Some(needed) }
    }

    fn finish(&self, mut found: ReadBatches, begin: u64, end: u64) -> Scanned {
        if found.bytes > 0 {
            found.slices.push(self.piece.slice((begin - self.from) as usize..(end - self.from) as usize));
        }
        Scanned::Found(found)
    }

    /// Whether the piece has the header at a place.
    fn holds(&self, at: &Place) -> bool {
        at.position + BATCH_HEADER_LEN as u64 <= self.from + self.piece.len() as u64
            || at.position >= self.known.limit
    }

    /// The piece from a position on.
    fn rest(&self, position: u64) -> &[u8] {
        self.piece.get((position - self.from) as usize..).unwrap_or_default()
    }

    /// Whether the whole batch is in the piece and matches its crc.
    fn crc_ok(&self, position: u64, header: &BatchHeader) -> bool {
        let at = (position - self.from) as usize;
        let end = at + header.total_len();
        end <= self.piece.len()
            && Batch { header: *header, body: self.piece.slice(at + BATCH_HEADER_LEN..end) }.crc_ok()
    }
}

impl Place {
    /// Behind a batch that stands here.
    fn after(&self, header: &BatchHeader) -> Place {
        Place {
            position: self.position + header.total_len() as u64,
            due: header.next_offset(),
            before: Some((self.position, self.due)),
            ..Place::default()
        }
    }
}
