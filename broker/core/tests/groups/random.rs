//! Random histories: members come, go, crash and lag; appends are slow, fail and are lost with their coordinator.
//!
//! What must hold, whatever happens: in one generation no partition has two owners; a commit that was acknowledged, or
//! that a fetch has shown, is never lost or moved back; each request is answered once; and with live members and no more
//! faults, the group becomes stable.

use std::collections::{BTreeMap, BTreeSet};

use penstock_core::coordinator::RequestId;
use penstock_core::group::{GroupCall, GroupRequest, GroupResponse};
use penstock_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use penstock_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use penstock_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use penstock_protocol::messages::{ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use crate::client::{Client, PARTITIONS, Stage};
use crate::log::{Host, PARTITION, config};

const GROUP: &str = "g";
const SIMPLE: &str = "simple";
/// A group whose offsets and whose self are deleted and come back.
const SCRATCH: &str = "scratch";
const CLIENTS: usize = 6;
const STEPS: usize = 700;
const HISTORIES: u64 = 400;

/// Offsets of one group's only partition: each commit is one higher than the last.
#[derive(Default)]
struct Committed {
    sent: i64,
    acknowledged: i64,
    shown: i64,
}

enum Sent {
    Client(usize),
    Commit(&'static str, i64),
    /// With what the answer has to show at least.
    Fetch(&'static str, i64),
    Other,
}

struct World {
    random: oorandom::Rand64,
    now_ms: i64,
    host: Host,
    is_down: bool,
    faults: bool,
    /// How often, of a hundred steps, the oldest append is flushed.
    flush_percent: u64,
    clients: Vec<Client>,
    requests: u64,
    restarts: usize,
    pending: BTreeMap<u64, Sent>,
    /// By generation and partition.
    owners: BTreeMap<(i32, u8), String>,
    generations: usize,
    committed: BTreeMap<&'static str, Committed>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = oorandom::Rand64::new(u128::from(seed));
        let versions = [0, 2, 4, 5, 8, 9];
        let client = |at: usize| {
            let version = versions[random.rand_range(0..versions.len() as u64) as usize];
            let is_static = at.is_multiple_of(3) && version >= 5;
            Client::new(&format!("c{at}"), is_static, version)
        };
        let clients = (0..CLIENTS).map(client).collect();
        let host = Host::new(config(&[("offsets.retention.check.interval.ms", "30000")]), 0);
        World {
            random,
            now_ms: 0,
            host,
            is_down: false,
            faults: true,
            flush_percent: [4, 20, 60][(seed % 3) as usize],
            clients,
            requests: 0,
            restarts: 0,
            pending: BTreeMap::new(),
            owners: BTreeMap::new(),
            generations: 0,
            committed: [(GROUP, Committed::default()), (SIMPLE, Committed::default())].into(),
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.rand_range(0..100) < percent
    }

    fn pick(&mut self, below: u64) -> u64 {
        self.random.rand_range(0..below)
    }

    fn fresh_id(&mut self) -> Uuid {
        Uuid::from_bytes(
            (u128::from(self.random.rand_u64()) << 64 | u128::from(self.random.rand_u64())).to_be_bytes(),
        )
    }

    fn send(&mut self, call: GroupCall, sent: Sent) {
        self.requests += 1;
        self.pending.insert(self.requests, sent);
        self.host.coordinator.handle(PARTITION, call, RequestId(self.requests), self.now_ms);
        // Now and then several requests are handled before the first append is tried.
        if !self.faults || self.chance(60) {
            self.drain();
        }
    }

    fn drain(&mut self) {
        let faults = self.faults;
        let random = &mut self.random;
        self.host.drain(self.now_ms, || {
            let fails = faults && random.rand_range(0..100) < 5;
            let codes =
                [ErrorCode::NotEnoughReplicas, ErrorCode::MessageTooLarge, ErrorCode::KafkaStorageError];
            fails.then(|| codes[random.rand_range(0..3) as usize])
        });
        if std::mem::take(&mut self.host.removed).iter().any(|group| group == GROUP) {
            self.owners.clear();
        }
        for (RequestId(id), response) in std::mem::take(&mut self.host.replies) {
            let sent = self.pending.remove(&id).expect("a request is answered once");
            self.take(id, sent, response);
        }
    }

    fn take(&mut self, id: u64, sent: Sent, response: GroupResponse) {
        match (sent, response) {
            (Sent::Client(at), response) => {
                let lost = self.faults && self.chance(3);
                let client = &mut self.clients[at];
                if lost || client.waits.map(|(waited, _)| waited) != Some(id) {
                    return;
                }
                client.waits = None;
                if client.take(response, self.now_ms) {
                    self.check_owner(at);
                }
            }
            (Sent::Commit(group, offset), GroupResponse::CommitOffsets(response)) => {
                let code = ErrorCode::from_code(response.topics[0].partitions[0].error_code);
                let committed = self.committed.get_mut(group).unwrap();
                if code == ErrorCode::None {
                    committed.acknowledged = committed.acknowledged.max(offset);
                }
            }
            (Sent::Fetch(group, least), GroupResponse::FetchOffsets(response))
                if response.error_code == 0 =>
            {
                let shown = response.topics[0].partitions[0].committed_offset.max(0);
                let committed = self.committed.get_mut(group).unwrap();
                assert!(shown >= least, "{group}: {shown} is shown after {least} was known");
                assert!(shown <= committed.sent, "{group}: {shown} was never committed");
                committed.shown = committed.shown.max(shown);
            }
            _ => {}
        }
    }

    fn check_owner(&mut self, at: usize) {
        let client = &self.clients[at];
        let Stage::Stable(partitions) = &client.stage else { return };
        let of_generation = (client.generation, 0)..=(client.generation, u8::MAX);
        self.generations += usize::from(self.owners.range(of_generation).next().is_none());
        for partition in partitions {
            let owner = self.owners.entry((client.generation, *partition)).or_insert_with(|| client.owner());
            assert_eq!(*owner, client.owner(), "two owners in generation {}", client.generation);
        }
    }

    /// Everybody who has something to send does so.
    fn let_clients_act(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if client.waits.is_some_and(|(_, until_ms)| until_ms <= self.now_ms) {
                client.waits = None;
            }
            if !client.up || client.waits.is_some() {
                continue;
            }
            let Some((request, patience_ms)) = client.next_request(GROUP, self.now_ms) else { continue };
            let fresh_id = self.fresh_id();
            let client = &mut self.clients[at];
            client.waits = Some((self.requests + 1, self.now_ms + patience_ms));
            let call = client.call(request, fresh_id);
            self.send(call, Sent::Client(at));
        }
    }

    fn commit(&mut self, group: &'static str, at: usize) {
        let client = self.clients[at].clone();
        let committed = self.committed.get_mut(group).unwrap();
        committed.sent += 1;
        let offset = committed.sent;
        let partition = OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
        let topic =
            OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
        let mut request =
            OffsetCommitRequest { group_id: group.into(), topics: vec![topic], ..Default::default() };
        if group == GROUP {
            request.generation_id_or_member_epoch = client.generation;
            request.member_id = client.member_id.clone();
            request.group_instance_id = client.instance_id.clone();
        }
        let call = client.call(GroupRequest::CommitOffsets(request), Uuid::ZERO);
        self.send(call, Sent::Commit(group, offset));
    }

    fn fetch(&mut self, group: &'static str) {
        use penstock_protocol::messages::offset_fetch_request::OffsetFetchRequestTopics;
        let topic =
            OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0], ..Default::default() };
        let asked = OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let known = &self.committed[group];
        let least = known.acknowledged.max(known.shown);
        let request = GroupRequest::FetchOffsets { group: asked, require_stable: false };
        let call = self.clients[0].call(request, Uuid::ZERO);
        self.send(call, Sent::Fetch(group, least));
    }

    fn scratch(&mut self) {
        let partition_index = self.pick(8) as i32;
        let request = match self.pick(8) {
            0 => GroupRequest::Delete(SCRATCH.into()),
            1 => GroupRequest::TopicsDeleted(vec![("s".into(), Uuid::ZERO)]),
            2..4 => {
                let partitions = vec![OffsetDeleteRequestPartition { partition_index }];
                let topics = vec![OffsetDeleteRequestTopic { name: "s".into(), partitions }];
                GroupRequest::DeleteOffsets(OffsetDeleteRequest { group_id: SCRATCH.into(), topics })
            }
            _ => {
                let committed_offset = self.requests as i64;
                let partition =
                    OffsetCommitRequestPartition { partition_index, committed_offset, ..Default::default() };
                let partitions = vec![partition];
                let topic = OffsetCommitRequestTopic { name: "s".into(), partitions, ..Default::default() };
                let group_id = SCRATCH.into();
                let topics = vec![topic];
                GroupRequest::CommitOffsets(OffsetCommitRequest { group_id, topics, ..Default::default() })
            }
        };
        let call = self.clients[0].call(request, Uuid::ZERO);
        self.send(call, Sent::Other);
    }

    fn advance(&mut self, by_ms: i64) {
        self.now_ms += by_ms;
        self.host.coordinator.handle_timeout(self.now_ms);
        self.drain();
    }

    fn restart_coordinator(&mut self) {
        if self.is_down {
            self.host.load(self.now_ms);
            self.restarts += 1;
        } else {
            let kept = self.pick(self.host.written.len() as u64 + 1) as usize;
            self.host.crash(kept, self.now_ms);
        }
        self.is_down = !self.is_down;
        self.drain();
    }

    fn step(&mut self) {
        let at = self.pick(CLIENTS as u64) as usize;
        match self.pick(100) {
            0..3 => self.clients[at].crash(),
            3..12 => self.clients[at].up = true,
            12..15 if self.clients[at].up => {
                let request = self.clients[at].leave_request(GROUP);
                let call = self.clients[at].call(request, Uuid::ZERO);
                self.clients[at].crash();
                self.send(call, Sent::Other);
            }
            15..17 => self.restart_coordinator(),
            17..19 if self.is_down => self.restart_coordinator(),
            19..30 => self.commit(GROUP, at),
            30..36 => self.commit(SIMPLE, at),
            36..44 => self.fetch(GROUP),
            44..48 => self.fetch(SIMPLE),
            48..50 => {
                let call =
                    self.clients[at].call(GroupRequest::List(ListGroupsRequest::default()), Uuid::ZERO);
                self.send(call, Sent::Other);
            }
            50..52 => {
                let call = self.clients[at].call(GroupRequest::Describe(GROUP.into()), Uuid::ZERO);
                self.send(call, Sent::Other);
            }
            52..70 => {
                let by_ms = self.pick(4_000) as i64;
                self.advance(by_ms);
            }
            70..80 => self.scratch(),
            _ => self.let_clients_act(),
        }
        if self.chance(self.flush_percent) {
            self.host.flush_one(self.now_ms);
            self.drain();
        }
    }

    /// No more faults: time passes, and everything comes to rest.
    fn settle(&mut self) {
        self.faults = false;
        self.drain();
        if self.is_down {
            self.restart_coordinator();
        }
        let live = self.clients.iter().filter(|client| client.up).count();
        if live == 0 {
            self.clients[0].up = true;
        }
        for _ in 0..900 {
            self.let_clients_act();
            while !self.host.written.is_empty() {
                self.host.flush_one(self.now_ms);
                self.drain();
            }
            self.advance(1_000);
        }
    }

    fn check_at_rest(&mut self) {
        let live: Vec<&Client> = self.clients.iter().filter(|client| client.up).collect();
        let generations: BTreeSet<i32> = live.iter().map(|client| client.generation).collect();
        assert_eq!(generations.len(), 1, "all live members are of one generation: {live:?}");
        let mut owned = Vec::new();
        for client in &live {
            let Stage::Stable(partitions) = &client.stage else { panic!("{client:?} is not stable") };
            owned.extend(partitions.iter().copied());
        }
        owned.sort_unstable();
        assert_eq!(owned, (0..PARTITIONS).collect::<Vec<u8>>(), "each partition has one owner");
        let parked: Vec<_> = self.pending.keys().collect();
        assert!(parked.is_empty(), "requests {parked:?} were never answered");
        for group in [GROUP, SIMPLE] {
            self.fetch(group);
        }
        assert!(self.pending.is_empty(), "a fetch at rest is answered at once");
    }

    /// A coordinator that starts from the log knows what this one knows.
    fn check_reloaded(&mut self) {
        let mut told = Vec::new();
        for _ in 0..2 {
            let all_of = |group: &str| GroupRequest::FetchOffsets {
                group: OffsetFetchRequestGroup { group_id: group.into(), topics: None, ..Default::default() },
                require_stable: true,
            };
            let list = GroupRequest::List(ListGroupsRequest::default());
            let describe = GroupRequest::Describe(GROUP.into());
            for request in [describe, list, all_of(GROUP), all_of(SIMPLE), all_of(SCRATCH)] {
                let call = self.clients[0].call(request, Uuid::ZERO);
                self.host.coordinator.handle(PARTITION, call, RequestId(0), self.now_ms);
            }
            self.host.drain(self.now_ms, || None);
            told.push(std::mem::take(&mut self.host.replies));
            self.host.crash(0, self.now_ms);
            self.host.load(self.now_ms);
        }
        assert_eq!(told[0], told[1]);
        let (_, GroupResponse::Describe(group)) = &told[0][0] else { panic!("a description") };
        assert_eq!(group.group_state, WireString::from("Stable"));
    }
}

#[test]
fn groups_survive_random_histories() {
    let (mut generations, mut acknowledged, mut restarts) = (0, 0, 0);
    for seed in 0..HISTORIES {
        let run = move || {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
            }
            world.settle();
            world.check_at_rest();
            world.check_reloaded();
            let acknowledged = world.committed.values().map(|committed| committed.acknowledged).sum::<i64>();
            (world.generations, acknowledged, world.restarts)
        };
        match std::panic::catch_unwind(run) {
            Ok(seen) => {
                generations += seen.0;
                acknowledged += seen.1;
                restarts += seen.2;
            }
            Err(fault) => panic!("history {seed}: {:?}", fault.downcast_ref::<String>()),
        }
    }
    // The histories are worth something: they get somewhere in spite of all faults.
    assert!(generations > 4 * HISTORIES as usize, "{generations} generations");
    assert!(acknowledged > 20 * HISTORIES as i64, "{acknowledged} commits");
    assert!(restarts > 3 * HISTORIES as usize, "{restarts} restarts");
}
