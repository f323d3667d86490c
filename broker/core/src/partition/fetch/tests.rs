#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::partition::ReadBudget;

const LIMITS: FetchLimits = FetchLimits { bytes_max: 1000, bytes_min: 1, wait_ms: 500 };

fn read(bytes_max: usize) -> PartitionRead {
    PartitionRead { offset: 0, bytes_max, claimed_epoch: None, last_fetched_epoch: None }
}

/// A partition of batches of one record each, with these lengths.
type Log = Vec<usize>;

/// What a shard does with one read: whole batches within the limit, or the first of them.
fn read_log(log: &Log, read: &PartitionRead, limit: usize, at_least_one: bool) -> PartitionData {
    let from = usize::try_from(read.offset).unwrap();
    let mut data = PartitionData::nothing(read.offset);
    data.high_watermark = i64::try_from(log.len()).unwrap();
    data.last_stable_offset = data.high_watermark;
    for length in &log[from..] {
        if data.bytes + length > limit && !(at_least_one && data.bytes == 0) {
            break;
        }
        data.bytes += length;
        data.next_offset += 1;
        data.slices.push(Bytes::from(vec![0; *length]));
    }
    data
}

/// What a shard does with its reads.
fn read_shard(logs: &[Log], reads: &ShardReads) -> Vec<Result<PartitionData, PartitionFailure>> {
    let mut budget = ReadBudget { bytes_left: reads.bytes_max, at_least_one: reads.at_least_one };
    let each = reads.reads.iter().map(|(place, read)| {
        let data = read_log(&logs[*place], read, budget.limit(read), budget.at_least_one);
        budget.spend(data.bytes);
        Ok(data)
    });
    each.collect()
}

/// Carries out all reads that are due; the number of rounds they took.
fn run(plan: &mut FetchPlan, logs: &[Log]) -> usize {
    for rounds in 0.. {
        let reads = plan.next_reads();
        if reads.is_empty() {
            return rounds;
        }
        let outcomes: Vec<_> = reads.iter().map(|reads| read_shard(logs, reads)).collect();
        for (reads, outcomes) in reads.iter().zip(outcomes) {
            plan.take(reads, outcomes);
        }
    }
    unreachable!("rounds are counted without end")
}

fn bytes_of(plan: FetchPlan) -> Vec<usize> {
    let each = plan.finish().map(|outcome| match outcome {
        PartOutcome::Data(data) => {
            assert_eq!(data.bytes, data.slices.iter().map(Bytes::len).sum::<usize>());
            data.bytes
        }
        other => panic!("{other:?}"),
    });
    each.collect()
}

fn plan(limits: FetchLimits, asked: &[(usize, usize)]) -> FetchPlan {
    FetchPlan::new(limits, asked.iter().map(|(shard, bytes_max)| Ok((*shard, read(*bytes_max)))).collect())
}

#[test]
fn limits_of_a_request() {
    let request = |max_bytes, min_bytes, max_wait_ms| FetchRequest {
        max_bytes,
        min_bytes,
        max_wait_ms,
        ..FetchRequest::default()
    };
    let limits = |bytes_max, bytes_min, wait_ms| FetchLimits { bytes_max, bytes_min, wait_ms };
    assert_eq!(FetchLimits::new(&request(1000, 10, 5), 5000), limits(1000, 10, 5));
    assert_eq!(FetchLimits::new(&request(9000, 8000, 5), 5000), limits(5000, 5000, 5));
    assert_eq!(FetchLimits::new(&request(-1, -1, -1), 5000), limits(0, 0, 0));
    let huge = request(i32::MAX, 1, 0);
    let limits = FetchLimits::new(&huge, 1 << 20);
    let mut plan = plan(limits, &[(0, usize::MAX)]);
    assert_eq!(
        [plan.make_room(1 << 30), plan.make_room(100_000), plan.make_room(0)],
        [1 << 20, 100_000, BYTES_MAX_LEAST]
    );
    assert_eq!(plan.next_reads()[0].bytes_max, BYTES_MAX_LEAST);
}

#[test]
fn shards_are_read_side_by_side_where_all_fits() {
    let logs = vec![vec![10; 100], vec![10; 3], vec![10; 100]];
    let mut fits = plan(LIMITS, &[(1, 300), (0, 300), (1, 400)]);
    assert_eq!(fits.shards().collect::<Vec<_>>(), [1, 0]);
    assert_eq!(run(&mut fits, &logs), 1);
    assert_eq!(bytes_of(fits), [300, 30, 400]);
}

#[test]
fn else_in_the_order_of_the_request() {
    let logs = vec![vec![10; 100], vec![10; 3], vec![10; 100]];
    let mut tight = plan(LIMITS, &[(1, 700), (0, 300), (1, 400)]);
    assert_eq!(run(&mut tight, &logs), 2);
    assert_eq!(bytes_of(tight), [700, 0, 300]);
    let mut rotated = plan(LIMITS, &[(0, 700), (1, 30), (1, 400)]);
    run(&mut rotated, &logs);
    assert_eq!(bytes_of(rotated), [700, 30, 270]);
}

#[test]
fn the_first_batch_comes_whole_and_once() {
    let logs = vec![vec![], vec![5000, 5000], vec![5000], vec![3]];
    // Side by side: two shards give a batch beyond its limit, one is taken.
    let mut first = plan(LIMITS, &[(0, 10), (1, 10), (2, 10), (1, 10)]);
    run(&mut first, &logs);
    assert_eq!(bytes_of(first), [0, 5000, 0, 0]);
    let nothing = FetchLimits { bytes_max: 0, ..LIMITS };
    let mut first = plan(nothing, &[(0, 0), (0, 0), (0, 0), (0, 0)]);
    run(&mut first, &logs);
    assert_eq!(bytes_of(first), [0, 5000, 0, 0]);
    // Nor does anything join it: it alone is more than the fetch may give.
    let mut first = plan(LIMITS, &[(0, 10), (0, 10), (1, 10), (2, 10)]);
    run(&mut first, &logs);
    assert_eq!(bytes_of(first), [0, 5000, 0, 0]);
    let mut later = plan(LIMITS, &[(0, 10), (0, 10), (0, 10), (0, 10)]);
    run(&mut later, &[vec![], vec![4, 5000], vec![5000], vec![3]]);
    assert_eq!(bytes_of(later), [0, 4, 0, 3]);
}

#[test]
fn more_than_could_be_taken_is_not_waited_for() {
    let patient = FetchLimits { bytes_min: 60, ..LIMITS };
    let mut bounded = plan(patient, &[(0, 25)]);
    run(&mut bounded, &[vec![10; 5]]);
    assert!(bounded.is_complete(false), "30 bytes lie there beyond the partition's limit");
    assert_eq!(bytes_of(bounded), [20]);
}

#[test]
fn enough_or_urgent_or_late_is_complete() {
    let logs = vec![vec![10; 5]];
    let patient = FetchLimits { bytes_min: 60, ..LIMITS };
    let mut waiting = plan(patient, &[(0, 100)]);
    run(&mut waiting, &logs);
    assert!(!waiting.is_complete(false) && waiting.is_complete(true));
    let mut content = plan(FetchLimits { bytes_min: 50, ..LIMITS }, &[(0, 100)]);
    run(&mut content, &logs);
    assert!(content.is_complete(false));
    assert!(plan(FetchLimits { bytes_min: 0, ..LIMITS }, &[(0, 100)]).is_complete(false), "wants nothing");
    assert!(plan(patient, &[]).is_complete(false), "asks for nothing");
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let mut beside = FetchPlan::new(patient, vec![Ok((0, read(100))), Err(unknown)]);
    assert!(!beside.is_complete(false), "what is refused does not end the wait for the others");
    run(&mut beside, &[vec![10; 6]]);
    assert!(beside.is_complete(false));
    let outcomes: Vec<PartOutcome> = beside.finish().collect();
    assert_eq!(outcomes[1], PartOutcome::Refused(unknown));
    let refused = FetchPlan::new(patient, vec![Err(unknown)]);
    assert!(refused.is_complete(false), "there is nothing to wait for");
}

#[test]
fn a_failure_or_a_parted_log_is_told_at_once() {
    let patient = FetchLimits { bytes_min: 60, ..LIMITS };
    let mut failing = plan(patient, &[(0, 100)]);
    let reads = failing.next_reads();
    failing.take(&reads[0], vec![Err(PartitionFailure::Storage)]);
    assert!(failing.is_complete(false));
    failing.wake(0);
    assert_eq!(failing.next_reads()[0].reads, [], "it is not read again");
    assert_eq!(failing.finish().next(), Some(PartOutcome::Failed(PartitionFailure::Storage)));
    let mut parted = plan(patient, &[(0, 100)]);
    let reads = parted.next_reads();
    let diverging = Some(EpochEnd { epoch: 1, end_offset: 2 });
    parted.take(&reads[0], vec![Ok(PartitionData { diverging, ..PartitionData::nothing(0) })]);
    assert!(parted.is_complete(false));
}

#[test]
fn what_was_found_stays_when_reading_goes_on() {
    let mut logs = vec![vec![10; 2], vec![]];
    let mut growing = plan(FetchLimits { bytes_min: 45, ..LIMITS }, &[(0, 35), (1, 100)]);
    let reads = growing.next_reads();
    assert!(reads.iter().all(|reads| reads.watch && reads.at_least_one));
    for reads in &reads {
        growing.take(reads, read_shard(&logs, reads));
    }
    assert!(growing.next_reads().is_empty() && !growing.is_complete(false));
    logs[0].push(10);
    growing.wake(0);
    let reads = growing.next_reads();
    assert_eq!(reads.len(), 1, "the other shard did not change");
    assert_eq!((reads[0].reads[0].1.offset, reads[0].reads[0].1.bytes_max), (2, 15));
    assert!(!reads[0].at_least_one);
    growing.take(&reads[0], read_shard(&logs, &reads[0]));
    assert!(!growing.is_complete(false));
    // The partition fails, having given something; its limit is used up.
    growing.wake(0);
    let reads = growing.next_reads();
    growing.take(&reads[0], vec![Err(PartitionFailure::Storage)]);
    assert!(!growing.is_complete(false));
    logs[1].push(20);
    growing.wake(1);
    assert_eq!(run(&mut growing, &logs), 1);
    assert!(growing.is_complete(false));
    assert_eq!(bytes_of(growing), [30, 20]);
}

/// The restatement for one shard: partitions in order, each within its limit and what is left, but for the first batch.
fn in_one_go(logs: &[Log], limits: &[usize], bytes_max: usize) -> Vec<usize> {
    let mut found = 0;
    let each = logs.iter().zip(limits).map(|(log, limit)| {
        let mut given = 0;
        for length in log {
            let fits = given + length <= *limit && found + length <= bytes_max;
            if !fits && found > 0 {
                break;
            }
            given += length;
            found += length;
        }
        given
    });
    each.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn one_shard_reads_as_one_loop_would(
        parts in prop::collection::vec((prop::collection::vec(1usize..60, 0..5), 0usize..120), 1..6),
        bytes_max in 0usize..300,
    ) {
        let logs: Vec<Log> = parts.iter().map(|part| part.0.clone()).collect();
        let limits: Vec<usize> = parts.iter().map(|part| part.1).collect();
        let asked: Vec<_> = limits.iter().map(|limit| (0, *limit)).collect();
        let mut plan = plan(FetchLimits { bytes_max, ..LIMITS }, &asked);
        run(&mut plan, &logs);
        prop_assert_eq!(bytes_of(plan), in_one_go(&logs, &limits, bytes_max));
    }

    #[test]
    fn many_shards_keep_the_limits_and_give_something(
        parts in prop::collection::vec((0usize..4, prop::collection::vec(1usize..60, 0..5), 0usize..120), 1..8),
        bytes_max in 0usize..300,
    ) {
        let logs: Vec<Log> = parts.iter().map(|part| part.1.clone()).collect();
        let asked: Vec<_> = parts.iter().map(|part| (part.0, part.2)).collect();
        let mut plan = plan(FetchLimits { bytes_max, ..LIMITS }, &asked);
        let rounds = run(&mut plan, &logs);
        prop_assert!(rounds <= 4, "{} rounds", rounds);
        let total = plan.bytes();
        let given = bytes_of(plan);
        prop_assert_eq!(total, given.iter().sum::<usize>());
        prop_assert_eq!(total > 0, logs.iter().any(|log| !log.is_empty()));
        // At most one partition is beyond its limit, by a single batch and as the first that gave anything.
        let beyond: Vec<usize> = (0..parts.len()).filter(|at| given[*at] > parts[*at].2).collect();
        prop_assert!(beyond.len() <= 1);
        prop_assert!(beyond.iter().all(|at| given[*at] == logs[*at][0]));
        let first_batches = logs.iter().zip(&given).filter(|(_, given)| **given > 0);
        let whole = first_batches.filter(|(log, given)| log[0] == **given).map(|(log, _)| log[0]).max();
        prop_assert!(total <= bytes_max || Some(total) == whole, "{} of {}", total, bytes_max);
    }
}
