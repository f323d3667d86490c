//! One partition of a fetch on its leader: whether it is read, from where to where, and how much (KIP-74, KIP-320,
//! KIP-595).

use penstock_protocol::messages::fetch_request::FetchPartition;

use super::{EpochEnd, EpochInLog, Isolation, LogView, PartitionFailure, check_leader_epoch, epoch_end};

/// Where to read one partition, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRead {
    /// Offset of the first record wanted.
    pub offset: i64,
    /// Bytes wanted at most.
    pub bytes_max: usize,
    /// The leader epoch that the client claims.
    pub claimed_epoch: Option<i32>,
    /// Epoch of the last record that the client has, if it says so.
    pub last_fetched_epoch: Option<i32>,
}

impl PartitionRead {
    /// What a Fetch request asks of a partition. Negative sizes ask for nothing, negative epochs claim nothing.
    pub fn of(asked: &FetchPartition) -> PartitionRead {
        PartitionRead {
            offset: asked.fetch_offset,
            bytes_max: usize::try_from(asked.partition_max_bytes).unwrap_or(0),
            claimed_epoch: Some(asked.current_leader_epoch).filter(|epoch| *epoch >= 0),
            last_fetched_epoch: Some(asked.last_fetched_epoch).filter(|epoch| *epoch >= 0),
        }
    }
}

/// What to do about a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPlan {
    /// Read up to this offset, exclusive.
    UpTo(i64),
    /// The client's log parted from this one: the largest epoch common to both, and where it ends here.
    Diverging(EpochEnd),
}

/// Decides about a read. `in_log` is what the log says of the read's last fetched epoch, if it has one.
///
/// # Errors
/// If the claimed epoch is not the leader's, or the offset is outside the log.
pub fn plan_read(
    view: &LogView,
    isolation: Isolation,
    read: &PartitionRead,
    in_log: Option<EpochInLog>,
) -> Result<ReadPlan, PartitionFailure> {
    check_leader_epoch(read.claimed_epoch, view.leader_epoch)?;
    if let (Some(last), Some(in_log)) = (read.last_fetched_epoch, in_log) {
        // An epoch that this leader cannot place says nothing of where the logs parted.
        let end = epoch_end(view, last, in_log).ok_or(PartitionFailure::OutOfRange)?;
        if read.offset >= view.log_start_offset && (end.epoch < last || end.end_offset < read.offset) {
            return Ok(ReadPlan::Diverging(end));
        }
    }
    if read.offset < view.log_start_offset || read.offset > view.log_end_offset {
        return Err(PartitionFailure::OutOfRange);
    }
    Ok(ReadPlan::UpTo(view.visible_end(Some(isolation))))
}

/// Bytes that the partitions of one fetch share while they are read one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBudget {
    /// Bytes left for all that follow.
    pub bytes_left: usize,
    /// Nothing was found so far, so the next batch comes whole even if it is larger than the limits allow: no batch is
    /// too large to be read.
    pub at_least_one: bool,
}

impl ReadBudget {
    /// Bytes that a partition may give.
    pub fn limit(&self, read: &PartitionRead) -> usize {
        read.bytes_max.min(self.bytes_left)
    }

    /// Counts what a partition gave.
    pub fn spend(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.at_least_one &= bytes == 0;
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

    fn read(offset: i64) -> PartitionRead {
        PartitionRead { offset, bytes_max: 100, claimed_epoch: None, last_fetched_epoch: None }
    }

    fn plan(read: &PartitionRead, in_log: Option<(i32, i64)>) -> Result<ReadPlan, PartitionFailure> {
        let found = in_log.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset });
        plan_read(&VIEW, Isolation::ReadUncommitted, read, Some(EpochInLog { latest: Some(4), found }))
    }

    #[test]
    fn any_negative_epoch_or_size_of_a_fetch_is_none() {
        let asked = FetchPartition {
            fetch_offset: 5,
            partition_max_bytes: -1,
            current_leader_epoch: -2,
            last_fetched_epoch: -7,
            ..FetchPartition::default()
        };
        assert_eq!(PartitionRead::of(&asked), PartitionRead { bytes_max: 0, ..read(5) });
        let asked = FetchPartition {
            fetch_offset: 5,
            partition_max_bytes: 100,
            current_leader_epoch: 0,
            last_fetched_epoch: 1,
            ..FetchPartition::default()
        };
        let wanted = PartitionRead { claimed_epoch: Some(0), last_fetched_epoch: Some(1), ..read(5) };
        assert_eq!(PartitionRead::of(&asked), wanted);
    }

    #[test]
    fn inside_the_log_up_to_what_may_be_seen() {
        for offset in [10, 30, 31, 40] {
            assert_eq!(plan(&read(offset), None), Ok(ReadPlan::UpTo(30)), "{offset}");
            let committed = plan_read(&VIEW, Isolation::ReadCommitted, &read(offset), None);
            assert_eq!(committed, Ok(ReadPlan::UpTo(25)), "{offset}");
        }
        for offset in [9, 41, -1, i64::MAX] {
            assert_eq!(plan(&read(offset), None), Err(PartitionFailure::OutOfRange), "{offset}");
        }
    }

    #[test]
    fn claimed_epochs_come_first() {
        let old = PartitionRead { claimed_epoch: Some(3), ..read(-1) };
        assert_eq!(plan(&old, None), Err(PartitionFailure::FencedEpoch));
        let new = PartitionRead { claimed_epoch: Some(5), ..read(-1) };
        assert_eq!(plan(&new, None), Err(PartitionFailure::UnknownEpoch));
    }

    #[test]
    fn logs_that_parted() {
        let last = |epoch, offset| PartitionRead { last_fetched_epoch: Some(epoch), ..read(offset) };
        let parted = |epoch, end_offset| Ok(ReadPlan::Diverging(EpochEnd { epoch, end_offset }));
        assert_eq!(plan(&last(2, 15), Some((2, 15))), Ok(ReadPlan::UpTo(30)), "the epoch goes on to there");
        assert_eq!(plan(&last(2, 16), Some((2, 15))), parted(2, 15), "the epoch ended before");
        assert_eq!(plan(&last(3, 12), Some((2, 15))), parted(2, 15), "the epoch is not known here");
        assert_eq!(plan(&last(4, 41), None), parted(4, 40), "beyond the end of the leader's own");
        assert_eq!(plan(&last(5, 12), None), Err(PartitionFailure::OutOfRange), "nobody's epoch");
        assert_eq!(plan(&last(3, 9), Some((2, 15))), Err(PartitionFailure::OutOfRange), "deleted");
    }

    #[test]
    fn the_first_batch_found_ends_the_exception() {
        let mut budget = ReadBudget { bytes_left: 150, at_least_one: true };
        assert_eq!(budget.limit(&read(10)), 100);
        budget.spend(0);
        assert_eq!(budget, ReadBudget { bytes_left: 150, at_least_one: true });
        budget.spend(120);
        assert_eq!(budget, ReadBudget { bytes_left: 30, at_least_one: false });
        assert_eq!(budget.limit(&read(10)), 30);
        budget.spend(31);
        assert_eq!(budget.bytes_left, 0);
    }
}
