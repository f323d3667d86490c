//! ListOffsets: from a timestamp, or one of the numbers below 0 that mean a place, to an offset (KIP-79, KIP-734,
//! KIP-405, KIP-1005, KIP-1023), for whoever may see it (KIP-98) and once it is sure (KIP-207).
//!
//! There is no tiered storage: the local log is the whole log, and nothing was ever uploaded.

use penstock_protocol::ErrorCode;

use super::{Isolation, LogView, PartitionFailure, check_leader_epoch};

/// Replica id of a consumer; others may see the log to its end.
const CONSUMER: i32 = -1;
/// The first version that knows OFFSET_NOT_AVAILABLE (KIP-207).
const NOT_AVAILABLE_VERSION: i16 = 5;

/// What a timestamp asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedOffset {
    /// The end of what may be seen.
    Latest,
    /// The first readable offset.
    Earliest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first readable offset on this node's own disk.
    EarliestLocal,
    /// The last offset in tiered storage.
    LatestTiered,
    /// The first offset that tiered storage still waits for.
    EarliestPendingUpload,
    /// The first record with at least this timestamp in milliseconds.
    AtTime(i64),
}

impl WantedOffset {
    /// What `timestamp` means in a version of ListOffsets.
    ///
    /// # Errors
    /// `UnsupportedVersion` for a negative number without a meaning there.
    pub fn of(timestamp: i64, version: i16) -> Result<WantedOffset, ErrorCode> {
        let (wanted, since) = match timestamp {
            -1 => (WantedOffset::Latest, 1),
            -2 => (WantedOffset::Earliest, 1),
            -3 => (WantedOffset::MaxTimestamp, 7),
            -4 => (WantedOffset::EarliestLocal, 8),
            -5 => (WantedOffset::LatestTiered, 9),
            -6 => (WantedOffset::EarliestPendingUpload, 11),
            time if time >= 0 => (WantedOffset::AtTime(time), 0),
            _ => return Err(ErrorCode::UnsupportedVersion),
        };
        if version >= since { Ok(wanted) } else { Err(ErrorCode::UnsupportedVersion) }
    }
}

/// A question about one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetQuestion {
    /// What is wanted.
    pub wanted: WantedOffset,
    /// What the client may see; `None` if it is no consumer.
    pub isolation: Option<Isolation>,
    /// The leader epoch that it claims.
    pub claimed_epoch: Option<i32>,
}

/// An offset with what is known of the record there; -1 each for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds.
    pub timestamp: i64,
    /// The record's leader epoch.
    pub leader_epoch: i32,
}

impl FoundOffset {
    /// There is no such offset, and that is no error.
    pub const NOTHING: FoundOffset = FoundOffset { offset: -1, timestamp: -1, leader_epoch: -1 };
}

/// How a question goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetStep {
    /// It is answered.
    Done(FoundOffset),
    /// The log has to be searched; [`OffsetQuestion::finish`] takes what it gives.
    Search(Search),
}

/// What to look for in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// The first record with at least this timestamp in milliseconds.
    AtTime(i64),
    /// The first of the records with the largest timestamp.
    MaxTimestamp,
}

impl OffsetQuestion {
    /// The isolation under which a replica id sees a log, given the level in its request.
    pub fn isolation_of(replica_id: i32, level: Isolation) -> Option<Isolation> {
        (replica_id == CONSUMER).then_some(level)
    }

    /// Answers from the log's offsets, or says what to look for.
    ///
    /// # Errors
    /// If the claimed epoch is not the leader's, or the end is not yet sure.
    pub fn begin(&self, view: &LogView) -> Result<OffsetStep, PartitionFailure> {
        check_leader_epoch(self.claimed_epoch, view.leader_epoch)?;
        Ok(match self.wanted {
            WantedOffset::Latest => {
                self.check_sure(view)?;
                let offset = view.visible_end(self.isolation);
                OffsetStep::Done(FoundOffset { offset, timestamp: -1, leader_epoch: view.leader_epoch })
            }
            WantedOffset::Earliest | WantedOffset::EarliestLocal => OffsetStep::Done(FoundOffset {
                offset: view.log_start_offset,
                timestamp: -1,
                leader_epoch: view.log_start_epoch,
            }),
            WantedOffset::LatestTiered | WantedOffset::EarliestPendingUpload => {
                OffsetStep::Done(FoundOffset::NOTHING)
            }
            WantedOffset::MaxTimestamp => OffsetStep::Search(Search::MaxTimestamp),
            WantedOffset::AtTime(time) => OffsetStep::Search(Search::AtTime(time)),
        })
    }

    /// Answers with what the search found, under the view of the log after it.
    ///
    /// # Errors
    /// As [`OffsetQuestion::begin`]: leadership may have passed on during the search.
    pub fn finish(
        &self,
        view: &LogView,
        found: Option<FoundOffset>,
    ) -> Result<FoundOffset, PartitionFailure> {
        check_leader_epoch(self.claimed_epoch, view.leader_epoch)?;
        match found {
            Some(found) if found.offset < view.visible_end(self.isolation) => Ok(found),
            // Nothing, or nothing that may be seen; or there will be, once the watermark is known.
            _ => self.check_sure(view).map(|()| FoundOffset::NOTHING),
        }
    }

    /// A new leader's high watermark may lag behind what was committed before it. Until it has reached the epoch's start,
    /// a consumer would see the log's end go back.
    fn check_sure(&self, view: &LogView) -> Result<(), PartitionFailure> {
        match self.isolation.is_some() && view.epoch_start_offset > view.high_watermark {
            true => Err(PartitionFailure::NotAvailable),
            false => Ok(()),
        }
    }
}

/// The code of a failure in a version of ListOffsets: older ones take an unsure end for a missing leader.
pub fn offset_error(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::OffsetNotAvailable if version < NOT_AVAILABLE_VERSION => ErrorCode::LeaderNotAvailable,
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: LogView = LogView {
        leader_epoch: 4,
        epoch_start_offset: 20,
        log_start_offset: 10,
        log_start_epoch: 2,
        last_stable_offset: 25,
        high_watermark: 30,
        log_end_offset: 40,
    };

    fn question(wanted: WantedOffset) -> OffsetQuestion {
        OffsetQuestion { wanted, isolation: Some(Isolation::ReadUncommitted), claimed_epoch: None }
    }

    fn answer(question: OffsetQuestion, view: &LogView) -> Result<(i64, i32), PartitionFailure> {
        match question.begin(view)? {
            OffsetStep::Done(found) => Ok((found.offset, found.leader_epoch)),
            OffsetStep::Search(_) => panic!("no search expected"),
        }
    }

    fn found(offset: i64) -> FoundOffset {
        FoundOffset { offset, timestamp: 1000 + offset, leader_epoch: 3 }
    }

    #[test]
    fn special_timestamps_have_a_first_version() {
        let cases = [
            (-1, 1, WantedOffset::Latest),
            (-2, 1, WantedOffset::Earliest),
            (-3, 7, WantedOffset::MaxTimestamp),
            (-4, 8, WantedOffset::EarliestLocal),
            (-5, 9, WantedOffset::LatestTiered),
            (-6, 11, WantedOffset::EarliestPendingUpload),
            (0, 1, WantedOffset::AtTime(0)),
            (i64::MAX, 1, WantedOffset::AtTime(i64::MAX)),
        ];
        for (timestamp, since, wanted) in cases {
            assert_eq!(WantedOffset::of(timestamp, since), Ok(wanted));
            if timestamp < 0 {
                assert_eq!(WantedOffset::of(timestamp, since - 1), Err(ErrorCode::UnsupportedVersion));
            }
        }
        for unknown in [-7, i64::MIN] {
            assert_eq!(WantedOffset::of(unknown, 11), Err(ErrorCode::UnsupportedVersion));
        }
    }

    #[test]
    fn the_end_depends_on_who_asks() {
        let latest = question(WantedOffset::Latest);
        assert_eq!(answer(latest, &VIEW), Ok((30, 4)));
        let committed = OffsetQuestion { isolation: Some(Isolation::ReadCommitted), ..latest };
        assert_eq!(answer(committed, &VIEW), Ok((25, 4)));
        for replica_id in [-2, 0, 7] {
            let isolation = OffsetQuestion::isolation_of(replica_id, Isolation::ReadCommitted);
            assert_eq!(answer(OffsetQuestion { isolation, ..latest }, &VIEW), Ok((40, 4)));
        }
        assert_eq!(
            OffsetQuestion::isolation_of(-1, Isolation::ReadCommitted),
            Some(Isolation::ReadCommitted)
        );
    }

    #[test]
    fn the_start_and_what_is_not_tiered() {
        assert_eq!(answer(question(WantedOffset::Earliest), &VIEW), Ok((10, 2)));
        assert_eq!(answer(question(WantedOffset::EarliestLocal), &VIEW), Ok((10, 2)));
        assert_eq!(answer(question(WantedOffset::LatestTiered), &VIEW), Ok((-1, -1)));
        assert_eq!(answer(question(WantedOffset::EarliestPendingUpload), &VIEW), Ok((-1, -1)));
    }

    #[test]
    fn what_a_search_finds_is_told_if_it_may_be_seen() {
        for (wanted, search) in
            [(WantedOffset::AtTime(7), Search::AtTime(7)), (WantedOffset::MaxTimestamp, Search::MaxTimestamp)]
        {
            let asked = question(wanted);
            assert_eq!(asked.begin(&VIEW), Ok(OffsetStep::Search(search)));
            assert_eq!(asked.finish(&VIEW, Some(found(29))), Ok(found(29)));
            assert_eq!(asked.finish(&VIEW, Some(found(30))), Ok(FoundOffset::NOTHING));
            assert_eq!(asked.finish(&VIEW, None), Ok(FoundOffset::NOTHING));
            let committed = OffsetQuestion { isolation: Some(Isolation::ReadCommitted), ..asked };
            assert_eq!(committed.finish(&VIEW, Some(found(29))), Ok(FoundOffset::NOTHING));
            let replica = OffsetQuestion { isolation: None, ..asked };
            assert_eq!(replica.finish(&VIEW, Some(found(39))), Ok(found(39)));
        }
    }

    #[test]
    fn a_lagging_watermark_hides_the_end_and_not_the_beginning() {
        let lagging = LogView { epoch_start_offset: 31, ..VIEW };
        let unsure = PartitionFailure::NotAvailable;
        assert_eq!(answer(question(WantedOffset::Latest), &lagging), Err(unsure));
        assert_eq!(answer(question(WantedOffset::Earliest), &lagging), Ok((10, 2)));
        assert_eq!(answer(question(WantedOffset::LatestTiered), &lagging), Ok((-1, -1)));
        let at_time = question(WantedOffset::AtTime(7));
        assert_eq!(at_time.finish(&lagging, Some(found(29))), Ok(found(29)));
        assert_eq!(at_time.finish(&lagging, Some(found(30))), Err(unsure));
        assert_eq!(at_time.finish(&lagging, None), Err(unsure));
        let replica = OffsetQuestion { isolation: None, ..question(WantedOffset::Latest) };
        assert_eq!(answer(replica, &lagging), Ok((40, 4)));
        assert_eq!(offset_error(unsure.code(), 4), ErrorCode::LeaderNotAvailable);
        assert_eq!(offset_error(unsure.code(), 5), ErrorCode::OffsetNotAvailable);
        assert_eq!(offset_error(ErrorCode::FencedLeaderEpoch, 4), ErrorCode::FencedLeaderEpoch);
    }

    #[test]
    fn epochs_are_checked_before_and_after_a_search() {
        for wanted in [WantedOffset::Latest, WantedOffset::LatestTiered, WantedOffset::AtTime(7)] {
            let old = OffsetQuestion { claimed_epoch: Some(3), ..question(wanted) };
            assert_eq!(old.begin(&VIEW), Err(PartitionFailure::FencedEpoch));
            let new = OffsetQuestion { claimed_epoch: Some(5), ..question(wanted) };
            assert_eq!(new.begin(&VIEW), Err(PartitionFailure::UnknownEpoch));
        }
        let current = OffsetQuestion { claimed_epoch: Some(4), ..question(WantedOffset::AtTime(7)) };
        assert!(current.begin(&VIEW).is_ok());
        let passed_on = LogView { leader_epoch: 5, ..VIEW };
        assert_eq!(current.finish(&passed_on, Some(found(11))), Err(PartitionFailure::FencedEpoch));
    }
}
