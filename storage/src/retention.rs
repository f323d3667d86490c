//! When a segment is closed and when it is deleted. Pure; the engine carries it out.
//!
//! Rules of Apache Kafka: deletion takes segments from the oldest on, by time, then by size; only what consumers could
//! have read goes. Unlike Kafka, whose fallback is a file's modification time, a segment whose records have no timestamps
//! is not deleted by time.

/// What deletion has to know of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Offset after its last record.
    pub end_offset: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Its largest timestamp in milliseconds, -1 if it has none.
    pub max_timestamp: i64,
}

/// What a log keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionRules {
    /// `retention.ms`, negative for no limit.
    pub retention_ms: i64,
    /// `retention.bytes`, negative for no limit.
    pub retention_bytes: i64,
    /// Exclusive end of what consumers may read; nothing beyond is deleted.
    pub high_watermark: i64,
}

/// How many segments to delete, from the oldest; `segments` are all of a log, oldest first, the active one last.
pub fn plan_deletion(segments: &[SegmentSummary], rules: &RetentionRules, now_ms: i64) -> usize {
    // An empty active segment is what a log without records has: deleting it would only make another.
    let full = segments.iter().take_while(|s| s.bytes > 0 && s.end_offset <= rules.high_watermark).count();
    let candidates = &segments[..full];
    let count = expired(candidates, rules.retention_ms, now_ms);
    let kept_bytes = segments[count..].iter().map(|segment| segment.bytes).sum();
    count + oversize(&candidates[count..], kept_bytes, rules.retention_bytes)
}

fn expired(segments: &[SegmentSummary], retention_ms: i64, now_ms: i64) -> usize {
    if retention_ms < 0 {
        return 0;
    }
    let is_expired = |segment: &&SegmentSummary| {
        segment.max_timestamp >= 0 && now_ms.saturating_sub(segment.max_timestamp) > retention_ms
    };
    segments.iter().take_while(is_expired).count()
}

/// Deletes as long as what is left is still as large as the limit.
fn oversize(segments: &[SegmentSummary], log_bytes: u64, retention_bytes: i64) -> usize {
    let Ok(limit) = u64::try_from(retention_bytes) else { return 0 };
    let Some(mut surplus) = log_bytes.checked_sub(limit) else { return 0 };
    let mut count = 0;
    for segment in segments {
        let Some(left) = surplus.checked_sub(segment.bytes) else { break };
        surplus = left;
        count += 1;
    }
    count
}

/// The active segment, as rolling sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveSegment {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Max timestamp of its first batch in milliseconds, -1 if it has none.
    pub first_timestamp: i64,
    /// When it was opened, in milliseconds.
    pub opened_ms: i64,
    /// Whether its index takes no further entry.
    pub index_full: bool,
}

/// What is to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    /// Bytes.
    pub bytes: u64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Largest timestamp in milliseconds, -1 if there is none.
    pub max_timestamp: i64,
}

/// When a log begins a new segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollRules {
    /// `segment.bytes`, as far as a file may go.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: i64,
}

/// Why a new segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollReason {
    /// What is to be appended does not fit.
    Size,
    /// Its records span more than `segment.ms`.
    Time,
    /// No further index entry fits.
    IndexFull,
    /// Offsets would lie more than `i32::MAX` beyond the base.
    OffsetRange,
}

/// Whether a new segment has to begin before `incoming` is appended. A batch larger than a whole segment gets one of
/// its own: an empty segment is never rolled for size or time.
pub fn plan_roll(
    active: &ActiveSegment,
    incoming: &Incoming,
    rules: &RollRules,
    now_ms: i64,
) -> Option<RollReason> {
    if active.bytes > 0 {
        if active.bytes.saturating_add(incoming.bytes) > rules.segment_bytes {
            return Some(RollReason::Size);
        }
        if age_ms(active, incoming, now_ms) > rules.segment_ms {
            return Some(RollReason::Time);
        }
        if active.index_full {
            return Some(RollReason::IndexFull);
        }
    }
    let span = incoming.last_offset.saturating_sub(active.base_offset);
    (span > i64::from(i32::MAX)).then_some(RollReason::OffsetRange)
}

/// By record time where there is one, so that replaying old records cuts segments as the first time.
fn age_ms(active: &ActiveSegment, incoming: &Incoming, now_ms: i64) -> i64 {
    if active.first_timestamp >= 0 {
        incoming.max_timestamp.saturating_sub(active.first_timestamp)
    } else {
        now_ms.saturating_sub(active.opened_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 10_000;
    const KEEP_ALL: RetentionRules =
        RetentionRules { retention_ms: -1, retention_bytes: -1, high_watermark: i64::MAX };

    /// Segments of ten records and 100 bytes each, with these largest timestamps.
    fn segments(timestamps: &[i64]) -> Vec<SegmentSummary> {
        let summary = |(at, &max_timestamp): (usize, &i64)| SegmentSummary {
            end_offset: 10 * (at as i64 + 1),
            bytes: 100,
            max_timestamp,
        };
        timestamps.iter().enumerate().map(summary).collect()
    }

    fn count(timestamps: &[i64], rules: RetentionRules) -> usize {
        plan_deletion(&segments(timestamps), &rules, NOW)
    }

    #[test]
    fn by_time_from_the_oldest_until_one_is_young() {
        let rules = RetentionRules { retention_ms: 1000, ..KEEP_ALL };
        assert_eq!(count(&[8000, 8999, 9000, 8000], rules), 2);
        assert_eq!(count(&[9500, 1, 1], rules), 0);
        assert_eq!(count(&[-1, 1], rules), 0, "no timestamps, no age");
        assert_eq!(count(&[NOW + 5000, 1], rules), 0, "from the future");
        assert_eq!(count(&[0, 0], KEEP_ALL), 0);
    }

    #[test]
    fn by_size_down_to_the_limit_and_no_further() {
        let with = |retention_bytes| RetentionRules { retention_bytes, ..KEEP_ALL };
        assert_eq!(count(&[NOW; 5], with(500)), 0);
        assert_eq!(count(&[NOW; 5], with(401)), 0, "what is left may not fall below the limit");
        assert_eq!(count(&[NOW; 5], with(400)), 1);
        assert_eq!(count(&[NOW; 5], with(150)), 3);
        assert_eq!(count(&[NOW; 5], with(0)), 5);
    }

    #[test]
    fn size_counts_what_time_has_left() {
        let rules = RetentionRules { retention_ms: 1000, retention_bytes: 300, ..KEEP_ALL };
        assert_eq!(count(&[1, NOW, NOW, NOW], rules), 1);
        assert_eq!(count(&[1, NOW, NOW, NOW, NOW], rules), 2);
    }

    #[test]
    fn nothing_beyond_the_high_watermark() {
        let rules = RetentionRules { retention_bytes: 0, high_watermark: 25, ..KEEP_ALL };
        assert_eq!(count(&[NOW; 5], rules), 2);
    }

    #[test]
    fn the_active_segment_may_go_unless_it_is_empty() {
        let rules = RetentionRules { retention_bytes: 0, ..KEEP_ALL };
        let mut all = segments(&[NOW; 2]);
        assert_eq!(plan_deletion(&all, &rules, NOW), 2);
        all.push(SegmentSummary { end_offset: 20, bytes: 0, max_timestamp: -1 });
        assert_eq!(plan_deletion(&all, &rules, NOW), 2);
        assert_eq!(plan_deletion(&all[2..], &rules, NOW), 0);
        assert_eq!(plan_deletion(&[], &rules, NOW), 0);
    }

    #[test]
    fn rolling() {
        let active = ActiveSegment {
            base_offset: 100,
            bytes: 900,
            first_timestamp: 5000,
            opened_ms: 0,
            index_full: false,
        };
        let incoming = Incoming { bytes: 100, last_offset: 200, max_timestamp: 5100 };
        let rules = RollRules { segment_bytes: 1000, segment_ms: 100 };
        let roll = |active, incoming| plan_roll(&active, &incoming, &rules, NOW);
        assert_eq!(roll(active, incoming), None);
        assert_eq!(roll(active, Incoming { bytes: 101, ..incoming }), Some(RollReason::Size));
        assert_eq!(roll(active, Incoming { max_timestamp: 5101, ..incoming }), Some(RollReason::Time));
        assert_eq!(roll(active, Incoming { max_timestamp: -1, ..incoming }), None);
        assert_eq!(roll(ActiveSegment { index_full: true, ..active }, incoming), Some(RollReason::IndexFull));
        let untimed = ActiveSegment { first_timestamp: -1, ..active };
        assert_eq!(roll(untimed, incoming), Some(RollReason::Time), "by the clock");
        let last = 100 + i64::from(i32::MAX);
        assert_eq!(roll(active, Incoming { last_offset: last, ..incoming }), None);
        assert_eq!(
            roll(active, Incoming { last_offset: last + 1, ..incoming }),
            Some(RollReason::OffsetRange)
        );
        let empty = ActiveSegment { bytes: 0, index_full: true, ..active };
        assert_eq!(roll(empty, Incoming { bytes: 5000, max_timestamp: 9999, ..incoming }), None);
    }
}
