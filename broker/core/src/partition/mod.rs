//! Decisions about one partition on the node that leads it: who may ask, what may be seen, where offsets lie, how much
//! a fetch gives, and what a failure is called on the wire.
//!
//! Everything here is a function of a [`LogView`], a moment's picture of a log, and of what the client asked. A driver
//! makes the picture, reads or searches where it is told to, and hands back what it found.

mod deletion;
mod epochs;
mod failure;
pub mod fetch;
mod offsets;
mod read;

pub use deletion::deletion_offset;
pub use epochs::{EpochEnd, EpochInLog, check_leader_epoch, claimed_epoch, epoch_end};
pub use failure::{AppendFailure, PartitionFailure, batch_error, enough_in_sync};
pub use offsets::{FoundOffset, OffsetQuestion, OffsetStep, Search, WantedOffset, offset_error};
pub use read::{PartitionRead, ReadBudget, ReadPlan, plan_read};

use penstock_protocol::ErrorCode;

/// A log as its leader sees it at one moment.
///
/// Invariant: `log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogView {
    /// Epoch of the present leadership.
    pub leader_epoch: i32,
    /// Where the log ended when that epoch began.
    pub epoch_start_offset: i64,
    /// First readable offset.
    pub log_start_offset: i64,
    /// Epoch of the record there, or of the leader where there is no record.
    pub log_start_epoch: i32,
    /// Exclusive end of what belongs to no open transaction (KIP-98).
    pub last_stable_offset: i64,
    /// Exclusive end of committed records.
    pub high_watermark: i64,
    /// Offset that the next record gets.
    pub log_end_offset: i64,
}

impl LogView {
    /// Exclusive end of what may be seen; without an isolation level, to the end of the log.
    pub fn visible_end(&self, isolation: Option<Isolation>) -> i64 {
        debug_assert!(
            self.log_start_offset <= self.last_stable_offset
                && self.last_stable_offset <= self.high_watermark
                && self.high_watermark <= self.log_end_offset,
            "offsets out of order: {self:?}"
        );
        match isolation {
            Some(Isolation::ReadCommitted) => self.last_stable_offset,
            Some(Isolation::ReadUncommitted) => self.high_watermark,
            None => self.log_end_offset,
        }
    }
}

/// What a consumer wants to see of transactions (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All committed records, those of open and aborted transactions included.
    ReadUncommitted,
    /// Records of settled transactions, and records outside of transactions, up to the first open transaction.
    ReadCommitted,
}

impl Isolation {
    /// The level of this number.
    ///
    /// # Errors
    /// `UnknownServerError` for a number without a level: it is what Apache Kafka answers.
    pub fn of(level: i8) -> Result<Isolation, ErrorCode> {
        match level {
            0 => Ok(Isolation::ReadUncommitted),
            1 => Ok(Isolation::ReadCommitted),
            _ => Err(ErrorCode::UnknownServerError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_sees_up_to_its_own_end() {
        let view = LogView {
            leader_epoch: 3,
            epoch_start_offset: 5,
            log_start_offset: 1,
            log_start_epoch: 2,
            last_stable_offset: 7,
            high_watermark: 8,
            log_end_offset: 9,
        };
        assert_eq!(view.visible_end(Some(Isolation::ReadCommitted)), 7);
        assert_eq!(view.visible_end(Some(Isolation::ReadUncommitted)), 8);
        assert_eq!(view.visible_end(None), 9);
    }

    #[test]
    fn levels_are_those_of_the_protocol() {
        assert_eq!(Isolation::of(0), Ok(Isolation::ReadUncommitted));
        assert_eq!(Isolation::of(1), Ok(Isolation::ReadCommitted));
        for unknown in [-1, 2, i8::MAX] {
            assert_eq!(Isolation::of(unknown), Err(ErrorCode::UnknownServerError));
        }
    }
}
