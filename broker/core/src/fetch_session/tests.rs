#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use penstock_protocol::Records;
use penstock_protocol::messages::fetch_request::{FetchTopic, ForgottenTopic};

use super::*;

const EVICTION_MS: i64 = 1000;

/// A request by name: session, epoch, partitions of topic `t` with their offsets, partitions forgotten.
fn request(session: (i32, i32), asked: &[(i32, i64)], forgotten: &[i32]) -> FetchRequest {
    let partitions = asked.iter().map(|(partition, fetch_offset)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        ..FetchPartition::default()
    });
    let topic = WireString::from_static("t");
    FetchRequest {
        session_id: session.0,
        session_epoch: session.1,
        topics: vec![FetchTopic {
            topic: topic.clone(),
            partitions: partitions.collect(),
            ..FetchTopic::default()
        }],
        forgotten_topics_data: vec![ForgottenTopic {
            topic,
            partitions: forgotten.to_vec(),
            ..ForgottenTopic::default()
        }],
        ..FetchRequest::default()
    }
}

fn data(high_watermark: i64, records: bool) -> PartitionData {
    let bytes = if records { Bytes::from_static(b"x") } else { Bytes::new() };
    PartitionData {
        high_watermark,
        log_start_offset: 0,
        records: Some(Records::from(bytes)),
        ..PartitionData::default()
    }
}

fn failed() -> PartitionData {
    PartitionData { error_code: ErrorCode::NotLeaderOrFollower.code(), ..data(-1, false) }
}

fn numbers(context: &FetchContext) -> Vec<(i32, i64)> {
    context.partitions.iter().map(|(name, asked)| (name.partition, asked.fetch_offset)).collect()
}

/// Opens a session over partitions 0..count, all at high watermark 5.
fn open(sessions: &mut FetchSessions, count: i32, now_ms: i64) -> i32 {
    let asked: Vec<(i32, i64)> = (0..count).map(|partition| (partition, 0)).collect();
    let context = sessions.begin(&request((0, 0), &asked, &[]), 12, now_ms).unwrap();
    let told = vec![data(5, false); asked.len()];
    let answer = sessions.finish(&context, &told, now_ms);
    assert!(answer.told.iter().all(|told| *told), "a full answer tells all");
    answer.session_id
}

#[test]
fn only_news_are_told() {
    let mut sessions = FetchSessions::new(10, EVICTION_MS, 1);
    let id = open(&mut sessions, 3, 0);
    assert!(id > 0);
    let next = |sessions: &mut FetchSessions,
                epoch,
                asked: &[(i32, i64)],
                forgotten: &[i32],
                all: &[PartitionData]| {
        let context = sessions.begin(&request((id, epoch), asked, forgotten), 12, 0).unwrap();
        (numbers(&context), sessions.finish(&context, all, 0).told)
    };
    let quiet = [data(5, false), data(5, false), data(5, false)];
    assert_eq!(
        next(&mut sessions, 1, &[], &[], &quiet),
        (vec![(0, 0), (1, 0), (2, 0)], vec![false, false, false])
    );
    let some = [data(6, true), data(5, false), data(6, false)];
    assert_eq!(next(&mut sessions, 2, &[], &[], &some).1, [true, false, true]);
    // What gave records goes to the end; the client says how far it got.
    let rest = [data(5, false), data(6, false), data(6, false)];
    assert_eq!(next(&mut sessions, 3, &[(0, 1)], &[], &rest), (vec![(1, 0), (2, 0), (0, 1)], vec![false; 3]));
    // An error is told each time, and so is its end, even if nothing else has changed.
    assert_eq!(
        next(&mut sessions, 4, &[], &[], &[failed(), data(6, false), data(6, false)]).1,
        [true, false, false]
    );
    assert_eq!(
        next(&mut sessions, 5, &[], &[], &[failed(), data(6, false), data(6, false)]).1,
        [true, false, false]
    );
    assert_eq!(next(&mut sessions, 6, &[], &[], &rest).1, [true, false, false]);
    // Partitions come and go.
    let changed = [data(5, false), data(6, false), data(9, false)];
    assert_eq!(
        next(&mut sessions, 7, &[(7, 3)], &[2], &changed),
        (vec![(1, 0), (0, 1), (7, 3)], vec![false, false, true])
    );
    assert_eq!((sessions.len(), sessions.partitions_len()), (1, 3));
}

#[test]
fn sessions_that_are_not_what_the_client_thinks() {
    let mut sessions = FetchSessions::new(10, EVICTION_MS, 1);
    let id = open(&mut sessions, 1, 0);
    let mut error = |session, version| sessions.begin(&request(session, &[], &[]), version, 0).unwrap_err();
    assert_eq!(error((id + 1, 1), 12), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(error((id, 2), 12), ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(error((id, 1), 13), ErrorCode::FetchSessionTopicIdError);
    // The same request again: the epoch has moved on.
    let first = sessions.begin(&request((id, 1), &[], &[]), 12, 0).unwrap();
    assert_eq!(
        sessions.begin(&request((id, 1), &[], &[]), 12, 0).unwrap_err(),
        ErrorCode::InvalidFetchSessionEpoch
    );
    // A second one overtakes while the first is read.
    let second = sessions.begin(&request((id, 2), &[], &[]), 12, 0).unwrap();
    assert_eq!(sessions.finish(&first, &[data(5, false)], 0).error, ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(sessions.finish(&second, &[data(5, false)], 0).error, ErrorCode::None);
    // Everything forgotten, or the final epoch: the session ends.
    let last = sessions.begin(&request((id, 3), &[], &[0]), 12, 0).unwrap();
    assert_eq!(sessions.finish(&last, &[], 0).session_id, 0);
    assert!(sessions.is_empty());
    let id = open(&mut sessions, 2, 0);
    let last = sessions.begin(&request((id, -1), &[(0, 0)], &[]), 12, 0).unwrap();
    assert_eq!(sessions.finish(&last, &[data(5, false)], 0).session_id, 0);
    assert_eq!((sessions.len(), sessions.partitions_len()), (0, 0));
}

#[test]
fn a_partition_named_twice_counts_once() {
    let mut sessions = FetchSessions::new(10, EVICTION_MS, 1);
    let context = sessions.begin(&request((0, -1), &[(1, 5), (0, 6), (1, 7)], &[]), 12, 0).unwrap();
    assert_eq!(numbers(&context), [(1, 7), (0, 6)]);
}

#[test]
fn who_makes_room_for_whom() {
    let mut sessions = FetchSessions::new(2, EVICTION_MS, u32::MAX);
    let small = open(&mut sessions, 1, 0);
    let large = open(&mut sessions, 5, 0);
    assert_eq!((small, large), (1, 2), "ids begin anew after the last one");
    // Nobody is old: no room, whatever the size.
    assert_eq!(open(&mut sessions, 9, 500), 0);
    // In use, but old: a larger one takes the place of the smallest.
    let mut use_at = |id, epoch, now_ms| {
        let context = sessions.begin(&request((id, epoch), &[], &[]), 12, now_ms).unwrap();
        let told = vec![data(5, false); context.partitions.len()];
        sessions.finish(&context, &told, now_ms);
    };
    use_at(small, 1, 900);
    use_at(large, 1, 900);
    use_at(small, 2, 1500);
    use_at(large, 2, 1500);
    let medium = open(&mut sessions, 3, 1600);
    assert!(medium > 0);
    let gone = sessions.begin(&request((small, 3), &[], &[]), 12, 1600).unwrap_err();
    assert_eq!(gone, ErrorCode::FetchSessionIdNotFound);
    assert_eq!(open(&mut sessions, 2, 1600), 0, "smaller than all that is old");
    // Unused for long: it goes for anyone.
    assert!(open(&mut sessions, 1, 2501) > 0);
    assert_eq!(
        sessions.begin(&request((large, 3), &[], &[]), 12, 2501).unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );
    assert_eq!((sessions.len(), sessions.partitions_len(), sessions.evictions()), (2, 4, 2));
    // A follower's session takes the place of any consumer's.
    let mut follower = request((0, 0), &[(0, 0)], &[]);
    follower.replica_id = 2;
    let context = sessions.begin(&follower, 12, 2502).unwrap();
    assert!(sessions.finish(&context, &[data(5, false)], 2502).session_id > 0);
}

#[test]
fn evicted_while_it_is_read() {
    let mut sessions = FetchSessions::new(1, EVICTION_MS, 1);
    let id = open(&mut sessions, 1, 0);
    let context = sessions.begin(&request((id, 1), &[], &[]), 12, 0).unwrap();
    assert!(open(&mut sessions, 1, 5000) > 0);
    let answer = sessions.finish(&context, &[data(5, false)], 5000);
    assert_eq!(answer, FetchAnswer { session_id: id, error: ErrorCode::None, told: vec![true] });
}

#[test]
fn slots_of_zero_serve_without_sessions() {
    let mut sessions = FetchSessions::new(0, EVICTION_MS, 1);
    assert_eq!(open(&mut sessions, 1, 0), 0);
}

#[test]
fn epochs() {
    assert_eq!([next_epoch(0), next_epoch(1), next_epoch(i32::MAX), next_epoch(-1)], [1, 2, 1, -1]);
}
