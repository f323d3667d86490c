//! When a metadata snapshot is due, and what it makes superfluous.

/// Pause in milliseconds after a snapshot that failed.
const RETRY_PAUSE_MS: i64 = 30_000;

/// When snapshots are taken, under the meaning of Kafka's configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotBounds {
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub record_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`: longest time that a change waits for a snapshot, in milliseconds.
    /// `None` never takes one for its time alone.
    pub interval_ms: Option<i64>,
}

/// What has happened since the last snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotSchedule {
    bounds: SnapshotBounds,
    bytes_since: u64,
    last_ms: i64,
    not_before_ms: i64,
}

impl SnapshotSchedule {
    /// A schedule after a start at `now_ms`: the last snapshot was written at `last_ms` (at the start, if there is none),
    /// and the log holds `bytes_since` bytes of batches after it.
    pub fn new(
        bounds: SnapshotBounds,
        last_ms: Option<i64>,
        bytes_since: u64,
        now_ms: i64,
    ) -> SnapshotSchedule {
        // A clock that was set back must not put the next snapshot off for as long.
        let last_ms = last_ms.unwrap_or(now_ms).min(now_ms);
        SnapshotSchedule { bounds, bytes_since, last_ms, not_before_ms: i64::MIN }
    }

    /// The metadata log grew by a batch of so many bytes.
    pub fn grew(&mut self, bytes: u64) {
        self.bytes_since += bytes;
    }

    /// Bytes of batches that a start would have to replay.
    pub fn bytes_since(&self) -> u64 {
        self.bytes_since
    }

    /// Whether a snapshot should be taken now.
    pub fn is_due(&self, now_ms: i64) -> bool {
        if self.bytes_since == 0 || now_ms < self.not_before_ms {
            return false;
        }
        let waited = |interval| now_ms.saturating_sub(self.last_ms) >= interval;
        self.bytes_since >= self.bounds.record_bytes || self.bounds.interval_ms.is_some_and(waited)
    }

    /// A snapshot of the image at `now_ms` is stable, which had `bytes` of the bytes since the one before.
    pub fn taken(&mut self, bytes: u64, now_ms: i64) {
        assert!(bytes <= self.bytes_since, "a snapshot holds no more than there was");
        self.bytes_since -= bytes;
        self.last_ms = now_ms;
        self.not_before_ms = i64::MIN;
    }

    /// A snapshot could not be taken: the next attempt comes after a pause.
    pub fn failed(&mut self, now_ms: i64) {
        self.not_before_ms = now_ms.saturating_add(RETRY_PAUSE_MS);
    }
}

/// Snapshots to keep once the newest of all is stable, and how much of the log they make superfluous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotCleanup {
    /// First offset of the log that is still needed; `None` if all of it is.
    pub log_from: Option<i64>,
    /// Offsets of snapshots that may go.
    pub remove: Vec<i64>,
}

/// Decides what goes, given the offsets of all snapshots in any order, and the newest one before the last that was just
/// read and found sound.
///
/// The last snapshot may turn out to be damaged when it is needed. So the sound one before it stays, with the log from
/// there on; without one, the log keeps all that it has.
pub fn plan_cleanup(offsets: &[i64], fallback: Option<i64>) -> SnapshotCleanup {
    let last = offsets.iter().copied().max();
    assert!(fallback < last || last.is_none(), "the fallback is older than the last snapshot");
    let keeps = |offset: i64| Some(offset) == last || Some(offset) == fallback;
    let remove = offsets.iter().copied().filter(|offset| !keeps(*offset)).collect();
    SnapshotCleanup { log_from: fallback, remove }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: SnapshotBounds = SnapshotBounds { record_bytes: 1000, interval_ms: Some(60_000) };

    #[test]
    fn due_by_bytes_or_by_time_and_never_without_a_change() {
        let mut schedule = SnapshotSchedule::new(BOUNDS, Some(5_000), 0, 10_000);
        assert!(!schedule.is_due(1_000_000), "nothing changed");
        schedule.grew(999);
        assert!(!schedule.is_due(64_999));
        assert!(schedule.is_due(65_000), "a minute after the last one, not after the start");
        schedule.grew(1);
        assert!(schedule.is_due(10_000));
        schedule.grew(10);
        schedule.taken(1_000, 70_000);
        assert_eq!(schedule.bytes_since(), 10);
        assert!(!schedule.is_due(129_999));
        assert!(schedule.is_due(130_000));
    }

    #[test]
    fn zero_interval_leaves_bytes_alone() {
        let bounds = SnapshotBounds { interval_ms: None, ..BOUNDS };
        let mut schedule = SnapshotSchedule::new(bounds, None, 999, 0);
        assert!(!schedule.is_due(i64::MAX));
        schedule.grew(1);
        assert!(schedule.is_due(0));
    }

    #[test]
    fn a_failure_is_followed_by_a_pause() {
        let mut schedule = SnapshotSchedule::new(BOUNDS, None, 2_000, 0);
        assert!(schedule.is_due(0));
        schedule.failed(0);
        assert!(!schedule.is_due(RETRY_PAUSE_MS - 1));
        assert!(schedule.is_due(RETRY_PAUSE_MS));
    }

    #[test]
    fn a_clock_set_back_does_not_put_a_snapshot_off() {
        let schedule = SnapshotSchedule::new(BOUNDS, Some(1_000_000), 10, 5_000);
        assert!(schedule.is_due(65_000));
    }

    #[test]
    fn the_last_and_the_sound_one_before_it_stay() {
        let plan = |offsets: &[i64], fallback| {
            let SnapshotCleanup { log_from, remove } = plan_cleanup(offsets, fallback);
            (log_from, remove)
        };
        assert_eq!(plan(&[10], None), (None, vec![]));
        assert_eq!(plan(&[10, 20], Some(10)), (Some(10), vec![]));
        assert_eq!(plan(&[10, 20, 30], Some(20)), (Some(20), vec![10]));
        assert_eq!(plan(&[10, 20, 30], Some(10)), (Some(10), vec![20]), "20 is damaged");
        assert_eq!(plan(&[10, 20, 30], None), (None, vec![10, 20]), "both are");
    }
}
