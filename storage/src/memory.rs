//! The recent batches of one log in memory: those not yet settled in a segment, and before them what the store's
//! cache budget still has room for. Readers get slices of the very buffers that arrived.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::disk::AlignedBuf;

/// Memory that a batch costs besides its bytes.
const OVERHEAD_BYTES: usize = 256;

/// A batch in memory.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    pub base_offset: i64,
    pub next_offset: i64,
    /// Base offset of its segment.
    pub segment_base: i64,
    /// File position in the segment.
    pub position: u64,
    /// The 61 header bytes as they stand in the log.
    pub head: Bytes,
    /// The records.
    pub body: Bytes,
}

impl Recent {
    /// Bytes of the batch.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// File position after it.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.len() as u64
    }

    /// What it counts in the cache budget.
    pub(crate) fn cost(&self) -> usize {
        self.len() + OVERHEAD_BYTES
    }
}

/// Batches that left memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    pub batches: usize,
    /// What they counted in the cache budget.
    pub cost: usize,
}

impl Freed {
    fn of(batches: impl Iterator<Item = Recent>) -> Freed {
        batches.fold(Freed::default(), |freed, batch| Freed {
            batches: freed.batches + 1,
            cost: freed.cost + batch.cost(),
        })
    }
}

/// Consecutive batches up to the log's end.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    batches: VecDeque<Recent>,
}

impl Memory {
    pub(crate) fn push(&mut self, batch: Recent) {
        debug_assert!(self.batches.back().is_none_or(|last| last.next_offset <= batch.base_offset));
        self.batches.push_back(batch);
    }

    pub(crate) fn front(&self) -> Option<&Recent> {
        self.batches.front()
    }

    pub(crate) fn pop_front(&mut self) -> Freed {
        let freed = Freed::of(self.batches.pop_front().into_iter());
        if self.batches.is_empty() {
            self.batches = VecDeque::new();
        }
        freed
    }

    /// Batches.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Batches from the one that holds `offset` (or the next one); `None` if that may not be in memory.
    pub(crate) fn from(&self, offset: i64) -> Option<impl Iterator<Item = &Recent>> {
        if self.batches.front()?.base_offset > offset {
            return None;
        }
        let at = self.batches.partition_point(|batch| batch.next_offset <= offset);
        Some(self.batches.range(at..))
    }

    /// Drops batches from `offset` on.
    pub(crate) fn truncate(&mut self, offset: i64) -> Freed {
        let keep = self.batches.partition_point(|batch| batch.next_offset <= offset);
        Freed::of(self.batches.drain(keep..))
    }

    /// Drops batches of segments before `segment_base`.
    pub(crate) fn drop_segments_below(&mut self, segment_base: i64) -> Freed {
        let drop = self.batches.partition_point(|batch| batch.segment_base < segment_base);
        Freed::of(self.batches.drain(..drop))
    }

    /// First position of the segment from which on everything is in memory.
    pub(crate) fn start_in(&self, segment_base: i64) -> Option<u64> {
        // Mostly there is but one segment in memory, and of those between many are in no cache.
        let front = self.batches.front()?;
        if front.segment_base >= segment_base {
            return (front.segment_base == segment_base).then_some(front.position);
        }
        let at = self.batches.partition_point(|batch| batch.segment_base < segment_base);
        self.batches.get(at).filter(|batch| batch.segment_base == segment_base).map(|batch| batch.position)
    }

    /// Batches of one segment, in order.
    pub(crate) fn in_segment(&self, segment_base: i64) -> impl Iterator<Item = &Recent> {
        let at = self.batches.partition_point(|batch| batch.segment_base < segment_base);
        self.batches.range(at..).take_while(move |batch| batch.segment_base == segment_base)
    }

    /// Adds the segment's bytes `from..to` to `out`. They must be in memory: see [`Memory::start_in`].
    pub(crate) fn copy(&self, segment_base: i64, from: u64, to: u64, out: &mut AlignedBuf) {
        let before = |batch: &Recent| (batch.segment_base, batch.end()) <= (segment_base, from);
        let at = self.batches.partition_point(before);
        let mut next = from;
        for batch in self.batches.range(at..) {
            if next >= to {
                break;
            }
            assert!(batch.segment_base == segment_base && batch.position <= next, "unsettled bytes stay");
            copy_parts(batch.position, [&batch.head, &batch.body], next..to, out);
            next = batch.end().min(to);
        }
        assert!(next >= to, "unsettled bytes stay in memory");
    }
}

/// Adds to `out` what of `parts`, which lie one after the other from `position` on, is in `range`.
pub(crate) fn copy_parts<'a>(
    position: u64,
    parts: impl IntoIterator<Item = &'a Bytes>,
    range: std::ops::Range<u64>,
    out: &mut AlignedBuf,
) {
    let mut at = position;
    for part in parts {
        let end = at + part.len() as u64;
        if end > range.start && at < range.end {
            let from = range.start.saturating_sub(at) as usize;
            let to = (range.end.min(end) - at) as usize;
            out.extend_from_slice(&part[from..to]);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base_offset: i64, position: u64, len: usize) -> Recent {
        Recent {
            base_offset,
            next_offset: base_offset + 2,
            segment_base: 0,
            position,
            head: Bytes::from(vec![base_offset as u8; 61]),
            body: Bytes::from(vec![base_offset as u8 + 100; len - 61]),
        }
    }

    #[test]
    fn a_segment_is_in_memory_from_its_first_batch_there() {
        let mut memory = Memory::default();
        for (base, segment_base, position) in [(10, 5, 4300), (20, 20, 4096), (22, 20, 4196), (30, 30, 4096)]
        {
            memory.push(Recent { segment_base, ..batch(base, position, 100) });
        }
        let starts = [4, 5, 20, 25, 30, 31].map(|segment_base| memory.start_in(segment_base));
        assert_eq!(starts, [None, Some(4300), Some(4096), None, Some(4096), None]);
    }

    #[test]
    fn finds_copies_and_drops() {
        let mut memory = Memory::default();
        memory.push(batch(10, 4096, 100));
        memory.push(batch(12, 4196, 100));
        assert!(memory.from(9).is_none());
        let bases = |offset| memory.from(offset).map(|it| it.map(|b| b.base_offset).collect::<Vec<_>>());
        assert_eq!(bases(11), Some(vec![10, 12]));
        assert_eq!(bases(12), Some(vec![12]));
        assert_eq!(bases(14), Some(vec![]));
        let mut out = AlignedBuf::with_capacity(4096);
        memory.copy(0, 4190, 4260, &mut out);
        assert_eq!((out.len(), out[0], out[6], out[66], out[67]), (70, 110, 12, 12, 112));
        assert_eq!(memory.start_in(0), Some(4096));
        let one = Freed { batches: 1, cost: 100 + OVERHEAD_BYTES };
        assert_eq!(memory.truncate(13), one);
        assert_eq!(memory.front().map(|batch| batch.base_offset), Some(10));
        assert_eq!((memory.pop_front(), memory.len()), (one, 0));
        assert_eq!(memory.start_in(0), None);
    }
}
