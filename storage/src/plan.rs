//! Decides what of a share travels inline in the journal frame and what goes straight to its segment.
//!
//! Invariants:
//! - A direct write covers whole blocks. It takes in the block that the share begins within only if live journal
//!   frames, stable ones, hold the acknowledged beginning of that block, and no write behind of it is in flight.
//! - The inline bytes of a block, over all live frames, are complete from the block's beginning, so that the block
//!   may be rewritten in place later: where they would not be, the plan asks for the settled beginning (`prefix`).

use std::ops::Range;

use crate::disk::BLOCK;

const BLOCK_BYTES: u64 = BLOCK as u64;

/// What the decision depends on. Positions are file positions in the segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    /// First byte.
    pub from: u64,
    /// After the last byte.
    pub to: u64,
    /// End of what the segment's file has ready for writing; 0 while it has no file.
    pub prepared_to: u64,
    /// Whether live frames hold the block of `from` up to `from`.
    pub image_live: bool,
    /// First position from which blocks with acknowledged bytes may be rewritten, if their image is live.
    pub rewritable_from: u64,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bytes before `from` that go inline too.
    pub prefix_len: u64,
    /// Bytes that go straight to the segment; empty if none do.
    pub direct: Range<u64>,
    /// Whether this frame begins (or repeats) the image of the block that `to` lies in.
    pub image_begins: bool,
}

impl Plan {
    /// Inline bytes without the prefix.
    pub(crate) fn inline_len(&self, share: &Share) -> u64 {
        if self.direct.is_empty() {
            return share.to - share.from;
        }
        self.direct.start.saturating_sub(share.from) + (share.to - self.direct.end)
    }
}

/// Start of the block that holds `position`.
pub(crate) fn block_floor(position: u64) -> u64 {
    position - position % BLOCK_BYTES
}

/// Start of the first block at or after `position`.
pub(crate) fn block_ceil(position: u64) -> u64 {
    position.next_multiple_of(BLOCK_BYTES)
}

/// Decides for one share; shares below `direct_bytes_min` stay inline.
pub(crate) fn plan(share: &Share, direct_bytes_min: u64) -> Plan {
    assert!(share.from < share.to, "a share has bytes");
    let aligned = share.from.is_multiple_of(BLOCK_BYTES);
    let seam = aligned || (share.image_live && block_floor(share.from) >= share.rewritable_from);
    let direct_from = if seam { block_floor(share.from) } else { block_ceil(share.from) };
    let direct_to = block_floor(share.to);
    let large = share.to - share.from >= direct_bytes_min && direct_to > direct_from;
    let direct = if large && direct_to <= share.prepared_to { direct_from..direct_to } else { 0..0 };
    let head_inline = direct.is_empty() || direct.start > share.from;
    let prefix_len = if head_inline && !aligned && !share.image_live { share.from % BLOCK_BYTES } else { 0 };
    let image_begins = block_floor(share.to) >= share.from || prefix_len > 0;
    Plan { prefix_len, direct, image_begins }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(from: u64, to: u64) -> Share {
        Share { from, to, prepared_to: 1 << 20, image_live: true, rewritable_from: 0 }
    }

    #[test]
    fn large_shares_go_direct_with_the_seam_when_its_image_is_live() {
        let plan_of = |share| plan(&share, 16384);
        assert_eq!(
            plan_of(share(4096, 70_000)),
            Plan { prefix_len: 0, direct: 4096..69_632, image_begins: true }
        );
        assert_eq!(plan_of(share(5000, 70_000)).direct, 4096..69_632);
        let stale = Share { image_live: false, ..share(5000, 70_000) };
        assert_eq!(plan_of(stale), Plan { prefix_len: 904, direct: 8192..69_632, image_begins: true });
        let busy = Share { rewritable_from: 8192, ..share(5000, 70_000) };
        assert_eq!(plan_of(busy), Plan { prefix_len: 0, direct: 8192..69_632, image_begins: true });
    }

    #[test]
    fn small_shares_and_unready_segments_stay_inline() {
        assert_eq!(
            plan(&share(4100, 4200), 16384),
            Plan { prefix_len: 0, direct: 0..0, image_begins: false }
        );
        let unready = Share { prepared_to: 0, image_live: false, ..share(5000, 70_000) };
        assert_eq!(plan(&unready, 16384), Plan { prefix_len: 904, direct: 0..0, image_begins: true });
    }

    proptest! {
        #[test]
        fn every_byte_travels_once_and_no_acknowledged_block_is_touched(
            from in 4096u64..20_000, len in 1u64..100_000, prepared in 0u64..40,
            image_live: bool, writeback in 0u64..8,
        ) {
            let share = Share {
                from, to: from + len, prepared_to: prepared * 4096, image_live, rewritable_from: writeback * 4096,
            };
            let plan = plan(&share, 4096);
            if plan.direct.is_empty() {
                prop_assert_eq!(plan.inline_len(&share), len);
            } else {
                prop_assert!(plan.direct.start.is_multiple_of(4096) && plan.direct.end.is_multiple_of(4096));
                prop_assert!(plan.direct.end <= share.prepared_to && plan.direct.end <= share.to);
                let new = plan.direct.end - plan.direct.start.max(from);
                prop_assert_eq!(plan.inline_len(&share) + new, len);
                if plan.direct.start < from {
                    prop_assert!(image_live && plan.direct.start >= share.rewritable_from);
                }
            }
            prop_assert!(plan.prefix_len == 0 || plan.prefix_len == from % 4096);
        }
    }
}
