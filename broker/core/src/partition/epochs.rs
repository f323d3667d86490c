//! Leader epochs: whether client and leader speak of the same leadership (KIP-320), and where an epoch ended (KIP-101,
//! KIP-279).

use super::{LogView, PartitionFailure};

/// In a request, no epoch.
const NO_EPOCH: i32 = -1;

/// The epoch that a ListOffsets or OffsetForLeaderEpoch request claims; `None` if it claims none. (A Fetch request
/// claims none with any negative number.)
pub fn claimed_epoch(claimed: i32) -> Option<i32> {
    (claimed != NO_EPOCH).then_some(claimed)
}

/// Compares the leader epoch that a client claims with the leader's.
///
/// # Errors
/// `FencedEpoch` if the client knows an older leadership, `UnknownEpoch` if a newer one.
pub fn check_leader_epoch(claimed: Option<i32>, current: i32) -> Result<(), PartitionFailure> {
    match claimed {
        Some(claimed) if claimed < current => Err(PartitionFailure::FencedEpoch),
        Some(claimed) if claimed > current => Err(PartitionFailure::UnknownEpoch),
        _ => Ok(()),
    }
}

/// An epoch and the offset where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: i32,
    /// Offset after its last record.
    pub end_offset: i64,
}

/// What the records of a log say of an epoch that was asked for. A log knows the epochs that have records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochInLog {
    /// The newest epoch with records.
    pub latest: Option<i32>,
    /// The largest epoch with records not above the one asked for (itself, if all are above it), with the offset where
    /// the next begins. `None` if the log has nothing newer than what was asked for.
    pub found: Option<EpochEnd>,
}

/// The largest epoch not above `asked` that the leader knows of, and where it ends; `None` if that cannot be said. The
/// leader's own epoch begins where its log ended when it became leader, with or without records, and it goes on.
pub fn epoch_end(view: &LogView, asked: i32, in_log: EpochInLog) -> Option<EpochEnd> {
    let current = view.leader_epoch;
    if asked == NO_EPOCH || asked > current {
        return None;
    }
    if asked == current {
        return Some(EpochEnd { epoch: current, end_offset: view.log_end_offset });
    }
    if asked < 0 {
        // Older than any epoch: all that is left came after it.
        return Some(EpochEnd { epoch: asked, end_offset: view.log_start_offset });
    }
    // Nothing was written since a newer leader took over: the older epochs end where the log does.
    let unwritten = EpochEnd { epoch: in_log.latest.unwrap_or(asked), end_offset: view.log_end_offset };
    Some(in_log.found.unwrap_or(unwritten))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view(leader_epoch: i32, log_start_offset: i64, log_end_offset: i64) -> LogView {
        LogView {
            leader_epoch,
            epoch_start_offset: log_end_offset,
            log_start_offset,
            log_start_epoch: 0,
            last_stable_offset: log_end_offset,
            high_watermark: log_end_offset,
            log_end_offset,
        }
    }

    #[test]
    fn claims_are_compared() {
        assert_eq!(check_leader_epoch(claimed_epoch(-1), 5), Ok(()));
        assert_eq!(check_leader_epoch(claimed_epoch(5), 5), Ok(()));
        for older in [4, 0, -2, i32::MIN] {
            assert_eq!(check_leader_epoch(claimed_epoch(older), 5), Err(PartitionFailure::FencedEpoch));
        }
        assert_eq!(check_leader_epoch(claimed_epoch(6), 5), Err(PartitionFailure::UnknownEpoch));
    }

    #[test]
    fn a_log_without_records_knows_its_leader_alone() {
        let nothing = EpochInLog { latest: None, found: None };
        let view = view(2, 4, 4);
        let end = |epoch| epoch_end(&view, epoch, nothing).map(|end| (end.epoch, end.end_offset));
        assert_eq!(end(2), Some((2, 4)));
        assert_eq!(end(1), Some((1, 4)));
        assert_eq!(end(-2), Some((-2, 4)));
        assert_eq!(end(3), None);
        assert_eq!(end(-1), None);
    }

    /// What a log says of `asked`, from the epochs of its records.
    fn in_log(records: &[i32], start: usize, asked: i32) -> EpochInLog {
        let end = start + records.len();
        let above = records.iter().position(|epoch| *epoch > asked);
        let floor = records.iter().rev().find(|epoch| **epoch <= asked).copied();
        let found = match (floor, above) {
            (Some(epoch), None) if epoch == asked => Some((epoch, end)),
            (_, None) => None,
            (floor, Some(above)) => Some((floor.unwrap_or(asked), start + above)),
        };
        let found = found.map(|(epoch, end)| EpochEnd { epoch, end_offset: i64::try_from(end).unwrap() });
        EpochInLog { latest: records.last().copied(), found: found.filter(|_| asked >= 0) }
    }

    proptest! {
        /// The restatement: epochs that have records, and the leader's at the end of the log; an epoch ends where the
        /// next of them begins.
        #[test]
        fn as_a_list_of_epochs_says(
            runs in prop::collection::vec((1i32..4, 0usize..4), 0..6),
            leader_step in 0i32..3,
            cut: prop::sample::Index,
        ) {
            let (mut epoch, mut records) = (0, Vec::new());
            for (step, count) in runs {
                epoch += step;
                records.extend(std::iter::repeat_n(epoch, count));
            }
            let leader = epoch + leader_step;
            let start = cut.index(records.len() + 1);
            let end = records.len();
            let live = &records[start..];
            let mut known: Vec<(i32, usize)> = Vec::new();
            for (at, epoch) in live.iter().enumerate() {
                if known.last().is_none_or(|last| last.0 != *epoch) {
                    known.push((*epoch, start + at));
                }
            }
            if known.last().is_none_or(|last| last.0 != leader) {
                known.push((leader, end));
            }
            let view = view(leader, i64::try_from(start).unwrap(), i64::try_from(end).unwrap());
            for asked in -3..=leader + 2 {
                let newer = known.iter().find(|(epoch, _)| *epoch > asked);
                let wanted = match (asked, newer) {
                    (-1, _) => None,
                    (asked, _) if asked == leader => Some((leader, end)),
                    (_, None) => None,
                    (asked, Some((_, begin))) => {
                        let floor = known.iter().rev().find(|(epoch, _)| *epoch <= asked);
                        Some((floor.map_or(asked, |floor| floor.0), *begin))
                    }
                };
                let said = epoch_end(&view, asked, in_log(live, start, asked));
                let said = said.map(|end| (end.epoch, usize::try_from(end.end_offset).unwrap()));
                prop_assert_eq!(said, wanted, "epoch {} of {:?}", asked, known);
            }
        }
    }
}
