//! Requests that wait in a rebalance: when they are answered, and what is written for them.

use penstock_core::coordinator::RequestId;
use penstock_core::group::{Caller, GroupCall, GroupRecord, GroupResponse};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use crate::command::Words;
use crate::log::{Host, PARTITION, config};

/// When the first rebalance is over: its timers take a millisecond each.
const NOW_MS: i64 = 10;

/// A group of two, `a` (who leads) and `b`, in its first generation; neither has sent SyncGroup.
struct Two {
    host: Host,
    now_ms: i64,
    requests: u64,
    a: WireString,
    b: WireString,
}

impl Two {
    fn new() -> Two {
        let host = Host::new(config(&[("group.initial.rebalance.delay.ms", "0")]), 0);
        let mut two =
            Two { host, now_ms: 0, requests: 0, a: WireString::default(), b: WireString::default() };
        let join = "join v=2 session=30000 rebalance=60000";
        let waiting = [two.ask(&format!("{join} client=a")), two.ask(&format!("{join} client=b"))];
        two.now_ms = NOW_MS;
        // The second member prolongs the first rebalance's delay.
        while let Some(deadline_ms) = two.host.coordinator.poll_timeout().filter(|at_ms| *at_ms <= NOW_MS) {
            two.host.coordinator.handle_timeout(deadline_ms);
        }
        let answers = two.flushed();
        let mut ids = waiting.map(|waited| {
            let Some((_, GroupResponse::Join(joined))) = answers.iter().find(|(to, _)| *to == waited) else {
                panic!("{waited:?} has no answer");
            };
            assert_eq!((joined.error_code, joined.generation_id), (0, 1));
            joined.member_id.clone()
        });
        [two.a, two.b] = std::mem::take(&mut ids);
        two
    }

    fn ask(&mut self, line: &str) -> RequestId {
        let words = Words::of(line);
        self.requests += 1;
        let caller = Caller {
            version: words.number("v", words.newest()) as i16,
            client_id: WireString::from(words.value("client").unwrap_or("c")),
            client_host: WireString::from("/127.0.0.1"),
            fresh_id: Uuid::from_bytes(u128::from(self.requests).to_be_bytes()),
        };
        let call = GroupCall { caller, request: words.request() };
        self.host.coordinator.handle(PARTITION, call, RequestId(self.requests), self.now_ms);
        RequestId(self.requests)
    }

    /// Carries out what is asked for, without flushing; what was answered.
    fn answers(&mut self) -> Vec<(RequestId, GroupResponse)> {
        self.host.drain(NOW_MS, || None);
        std::mem::take(&mut self.host.replies)
    }

    /// Flushes everything; what was answered.
    fn flushed(&mut self) -> Vec<(RequestId, GroupResponse)> {
        self.host.drain(NOW_MS, || None);
        while !self.host.written.is_empty() {
            self.host.flush_one(NOW_MS);
            self.host.drain(NOW_MS, || None);
        }
        std::mem::take(&mut self.host.replies)
    }

    /// Assignments written for a generation, flushed or not.
    fn written(&self, generation: i32) -> usize {
        let unflushed = self.host.written.iter().flat_map(|(_, records)| records);
        let all = self.host.durable.iter().chain(unflushed);
        let is_of = |record: GroupRecord| matches!(record, GroupRecord::Group(_, Some(value)) if value.generation == generation);
        all.filter(|kv| is_of(GroupRecord::decode(Some(&kv.key), kv.value.as_ref()).unwrap().unwrap()))
            .count()
    }
}

fn sync_error(answer: &(RequestId, GroupResponse)) -> (RequestId, ErrorCode) {
    let (to, GroupResponse::Sync(response)) = answer else { panic!("{answer:?} answers no SyncGroup") };
    (*to, ErrorCode::from_code(response.error_code))
}

#[test]
fn a_parked_sync_ends_when_the_next_rebalance_begins() {
    // A follower waits for its assignment when a third member comes. Left waiting, it would learn of the rebalance only
    // when its client gives up, and the others would wait for it as long.
    for line in [
        "join v=2 client=c session=30000 rebalance=60000".to_owned(),
        format!("leave members={}", Two::new().a),
    ] {
        let mut two = Two::new();
        let waits = two.ask(&format!("sync member={} generation=1", two.b.clone()));
        assert!(two.flushed().is_empty(), "the leader has not assigned yet");
        let other = two.ask(&line);
        let answers = two.flushed();
        let syncs: Vec<_> = answers.iter().filter(|(to, _)| *to != other).map(sync_error).collect();
        assert_eq!(syncs, [(waits, ErrorCode::RebalanceInProgress)], "after {line}");
    }
}

#[test]
fn the_leaders_own_sync_ends_with_the_generation_that_it_was_for() {
    // The assignment is on its way to the log, and the rebalance that begins meanwhile makes it void.
    let mut two = Two::new();
    let (a, b) = (two.a.clone(), two.b.clone());
    let follower = two.ask(&format!("sync member={b} generation=1"));
    let leader = two.ask(&format!("sync member={a} generation=1 assign={a}:x,{b}:y"));
    assert!(two.answers().is_empty(), "nobody is told before it is durable");
    two.ask("join v=2 client=c session=30000 rebalance=60000");
    let mut syncs: Vec<_> = two.answers().iter().map(sync_error).collect();
    syncs.sort_by_key(|(to, _)| *to);
    assert_eq!(syncs, [follower, leader].map(|to| (to, ErrorCode::RebalanceInProgress)));
    assert!(two.flushed().is_empty(), "what was written late is told to nobody");
}

#[test]
fn a_repeated_sync_of_the_leader_writes_nothing_again() {
    // The first answer was lost, or is slow: the leader asks again while the record is on its way, and once more after.
    let mut two = Two::new();
    let (a, b) = (two.a.clone(), two.b.clone());
    let first = two.ask(&format!("sync member={a} generation=1 assign={a}:x,{b}:y"));
    let second = two.ask(&format!("sync member={a} generation=1 assign={a}:y,{b}:x"));
    let answers = two.answers();
    assert_eq!(answers.iter().map(sync_error).collect::<Vec<_>>(), [(first, ErrorCode::RebalanceInProgress)]);
    assert_eq!(two.written(1), 1);
    let third = two.ask(&format!("sync member={b} generation=1"));
    let assigned = |answers: Vec<(RequestId, GroupResponse)>| -> Vec<(RequestId, String)> {
        let told = |(to, response)| match response {
            GroupResponse::Sync(sync) if sync.error_code == 0 => {
                (to, String::from_utf8(sync.assignment.to_vec()).unwrap())
            }
            other => panic!("{other:?} assigns nothing"),
        };
        let mut told: Vec<_> = answers.into_iter().map(told).collect();
        told.sort_by_key(|(to, _)| *to);
        told
    };
    assert_eq!(assigned(two.flushed()), [(second, "x".to_owned()), (third, "y".to_owned())]);
    let late = two.ask(&format!("sync member={a} generation=1 assign={a}:y,{b}:x"));
    assert_eq!(assigned(two.flushed()), [(late, "x".to_owned())], "what was written first holds");
    assert_eq!(two.written(1), 1);
}
