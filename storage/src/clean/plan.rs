//! Which log is cleaned, how far, and which of its segments become one. Pure; the driver carries it out.
//!
//! Rules of Apache Kafka (KIP-58, KIP-354): the active segment is never cleaned, nor is anything from the first record on
//! that is not stable, or that is younger than `min.compaction.lag.ms`. A log is due when more than
//! `min.cleanable.dirty.ratio` of it was not cleaned yet, or when something not cleaned is older than
//! `max.compaction.lag.ms`. Beyond Kafka, a log is also due when a delete horizon in its clean part passed: else its
//! tombstones would stay until somebody writes to it again.

use std::ops::Range;

use crate::config::Compaction;

/// A segment as cleaning sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentView {
    pub base: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Largest timestamp in milliseconds, -1 for none.
    pub max_timestamp: i64,
    /// Largest timestamp of the first batch in milliseconds, -1 for none.
    pub first_timestamp: i64,
    /// Earliest delete horizon of a batch in milliseconds, -1 for none.
    pub horizon_ms: i64,
}

/// A log as cleaning sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogView {
    /// All its segments, the active one last.
    pub segments: Vec<SegmentView>,
    pub start_offset: i64,
    /// Everything below was cleaned.
    pub cleaned_to: i64,
    /// Nothing at or above may be cleaned: it is not stable, or belongs to an open transaction.
    pub stable_to: i64,
}

/// What is to be cleaned of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round {
    /// Everything below was cleaned.
    pub dirty_from: i64,
    /// Where the first segment begins that must not be cleaned. `dirty_from` may lie in that one.
    pub end: i64,
    /// Share of the bytes below `end` that were not cleaned, in millionths.
    pub dirty_millionths: u32,
    /// Whether it is time.
    pub due: bool,
}

/// What could be cleaned of the log, and whether it is time to. `None` if there is nothing below the active segment.
pub(crate) fn plan_round(log: &LogView, rules: &Compaction, now_ms: i64) -> Option<Round> {
    let (active, sealed) = log.segments.split_last()?;
    let dirty_from = log.cleaned_to.max(log.start_offset);
    let next_base = |at: usize| log.segments.get(at + 1).map_or(active.base, |next| next.base);
    let is_dirty = |at: usize| next_base(at) > dirty_from;
    let too_young = |segment: &SegmentView| {
        rules.min_lag_ms > 0 && segment.max_timestamp > now_ms.saturating_sub(rules.min_lag_ms)
    };
    let blocked = sealed
        .iter()
        .enumerate()
        .find(|(at, segment)| next_base(*at) > log.stable_to || (is_dirty(*at) && too_young(segment)));
    let end = blocked.map_or(active.base, |(_, segment)| segment.base);
    let bytes = |dirty: bool| -> u64 {
        let counted =
            sealed.iter().enumerate().filter(|(at, segment)| segment.base < end && is_dirty(*at) == dirty);
        counted.map(|(_, segment)| segment.bytes).sum()
    };
    let (dirty_bytes, clean_bytes) = (bytes(true), bytes(false));
    let dirty_millionths = share_millionths(dirty_bytes, dirty_bytes + clean_bytes)?;
    let oldest =
        sealed.iter().enumerate().filter(|(at, segment)| is_dirty(*at) && segment.first_timestamp > 0);
    let overdue = oldest
        .map(|(_, segment)| segment.first_timestamp)
        .min()
        .is_some_and(|oldest| oldest < now_ms.saturating_sub(rules.max_lag_ms.max(0)));
    let horizon_passed = sealed.iter().enumerate().any(|(at, segment)| {
        !is_dirty(at) && segment.base < end && (0..=now_ms).contains(&segment.horizon_ms)
    });
    let due = dirty_millionths > rules.min_dirty_millionths || (overdue && dirty_bytes > 0) || horizon_passed;
    Some(Round { dirty_from, end, dirty_millionths, due })
}

/// `None` for a share of nothing.
fn share_millionths(part: u64, whole: u64) -> Option<u32> {
    let millionths = u128::from(part) * 1_000_000 / u128::from(std::num::NonZero::new(whole)?.get());
    u32::try_from(millionths).ok()
}

/// Which consecutive segments become one: together they have at most `bytes_max` bytes, and their offsets span at most
/// `i32::MAX`. The last of `segments` ends before `end`.
pub(crate) fn group(segments: &[SegmentView], end: i64, bytes_max: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0_u64;
    for (at, segment) in segments.iter().enumerate() {
        let last_offset = segments.get(at + 1).map_or(end, |next| next.base) - 1;
        match groups.last_mut() {
            Some(group)
                if bytes + segment.bytes <= bytes_max
                    && last_offset - segments[group.start].base <= i64::from(i32::MAX) =>
            {
                group.end = at + 1;
                bytes += segment.bytes;
            }
            _ => {
                groups.push(at..at + 1);
                bytes = segment.bytes;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;
    const RULES: Compaction = Compaction {
        min_dirty_millionths: 500_000,
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        delete_retention_ms: 1000,
    };

    fn segment(base: i64, bytes: u64) -> SegmentView {
        SegmentView { base, bytes, max_timestamp: 5000, first_timestamp: 4000, horizon_ms: -1 }
    }

    fn log(cleaned_to: i64) -> LogView {
        let segments = (0..5).map(|at| segment(at * 10, 100)).collect();
        LogView { segments, start_offset: 0, cleaned_to, stable_to: i64::MAX }
    }

    fn round(log: &LogView, rules: &Compaction) -> (i64, i64, u32, bool) {
        let round = plan_round(log, rules, NOW).unwrap();
        (round.dirty_from, round.end, round.dirty_millionths, round.due)
    }

    #[test]
    fn due_when_more_than_the_ratio_is_dirty() {
        assert_eq!(round(&log(0), &RULES), (0, 40, 1_000_000, true));
        assert_eq!(round(&log(10), &RULES), (10, 40, 750_000, true));
        assert_eq!(round(&log(20), &RULES), (20, 40, 500_000, false));
        assert_eq!(round(&log(15), &RULES), (15, 40, 750_000, true), "one begun counts as dirty");
        assert_eq!(round(&log(40), &RULES), (40, 40, 0, false));
        let never = Compaction { min_dirty_millionths: 1_000_000, ..RULES };
        assert_eq!(round(&log(0), &never), (0, 40, 1_000_000, false));
        let alone = LogView { segments: vec![segment(0, 100)], ..log(0) };
        assert_eq!(plan_round(&alone, &RULES, NOW), None, "the active segment stays");
        assert_eq!(plan_round(&LogView { segments: Vec::new(), ..log(0) }, &RULES, NOW), None);
    }

    #[test]
    fn nothing_unstable_or_young() {
        assert_eq!(round(&LogView { stable_to: 25, ..log(0) }, &RULES), (0, 20, 1_000_000, true));
        assert_eq!(plan_round(&LogView { stable_to: 9, ..log(0) }, &RULES, NOW), None);
        let lag = Compaction { min_lag_ms: 1000, ..RULES };
        let mut young = log(10);
        young.segments[2].max_timestamp = NOW - 999;
        assert_eq!(round(&young, &lag), (10, 20, 500_000, false));
        young.segments[2].max_timestamp = NOW - 1000;
        assert_eq!(round(&young, &lag), (10, 40, 750_000, true));
        let within = LogView { cleaned_to: 15, ..young.clone() };
        young.segments[0].max_timestamp = NOW;
        assert_eq!(round(&young, &lag), (10, 40, 750_000, true), "what was cleaned has no age");
        let mut partly = within;
        partly.segments[1].max_timestamp = NOW;
        assert_eq!(round(&partly, &lag), (15, 10, 0, false), "one cleaned in part is left alone");
        let deleted = LogView { start_offset: 20, cleaned_to: 5, ..log(0) };
        assert_eq!(plan_round(&deleted, &RULES, NOW).map(|round| round.dirty_from), Some(20));
    }

    #[test]
    fn due_when_something_dirty_is_old_or_a_horizon_passed() {
        let old = Compaction { max_lag_ms: NOW - 4001, ..RULES };
        assert_eq!(round(&log(30), &old), (30, 40, 250_000, true));
        let younger = Compaction { max_lag_ms: NOW - 4000, ..RULES };
        assert_eq!(round(&log(30), &younger), (30, 40, 250_000, false));
        assert_eq!(round(&log(40), &old), (40, 40, 0, false), "nothing dirty");
        let mut passed = log(40);
        passed.segments[1].horizon_ms = NOW;
        assert!(round(&passed, &RULES).3);
        passed.segments[1].horizon_ms = NOW + 1;
        assert!(!round(&passed, &RULES).3);
        let mut dirty = log(30);
        dirty.segments[3].horizon_ms = 1;
        assert!(!round(&dirty, &RULES).3, "that is for the ratio");
    }

    #[test]
    fn groups_by_bytes_and_offsets() {
        let segments: Vec<_> =
            [(0, 50), (10, 50), (20, 101), (30, 10), (40, 10)].map(|(b, n)| segment(b, n)).into();
        assert_eq!(group(&segments, 50, 100), [0..2, 2..3, 3..5]);
        assert_eq!(group(&segments, 50, 1), [0..1, 1..2, 2..3, 3..4, 4..5]);
        assert_eq!(group(&[], 0, 100), []);
        let far = i64::from(i32::MAX);
        let wide = [segment(0, 1), segment(10, 1), segment(far + 1, 1)];
        assert_eq!(group(&wide, far + 2, 100), [0..2, 2..3], "the second ends at the largest delta");
        let wider = [segment(0, 1), segment(10, 1), segment(far + 2, 1)];
        assert_eq!(group(&wider, far + 3, 100), [0..1, 1..3]);
    }
}
