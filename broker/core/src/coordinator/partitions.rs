//! The runtimes of one shard, by partition of the internal topic.

use std::collections::{BTreeMap, VecDeque};

use penstock_protocol::ErrorCode;

use super::runtime::Effects;
use super::{AppendId, Effect, Machine, RequestId, Runtime};

enum Slot<M: Machine> {
    Loading(Runtime<M>),
    Active(Runtime<M>),
}

/// Every partition of an internal topic that one shard leads.
///
/// A partition that was not begun is answered for with NOT_COORDINATOR, one that is still loading with
/// COORDINATOR_LOAD_IN_PROGRESS. Partitions are independent of each other: their records, appends and timers never mix.
pub struct Partitions<M: Machine> {
    slots: BTreeMap<i32, Slot<M>>,
    effects: Effects<M>,
    /// Appends of partitions unloaded so far: a late report on one of them must not name an append of their next life.
    appends_before: u64,
}

impl<M: Machine> Default for Partitions<M> {
    fn default() -> Partitions<M> {
        Partitions { slots: BTreeMap::new(), effects: VecDeque::new(), appends_before: 0 }
    }
}

impl<M: Machine> Partitions<M> {
    /// Leadership was gained: loading begins with an empty machine.
    ///
    /// # Panics
    /// If the partition was begun already: unload it first.
    pub fn begin(&mut self, partition: i32, machine: M) {
        let runtime = Runtime::new(partition, machine, self.appends_before);
        let old = self.slots.insert(partition, Slot::Loading(runtime));
        assert!(old.is_none(), "a partition is unloaded before it is loaded again");
    }

    /// Replays one durable record, in log order, while loading.
    pub fn load(&mut self, partition: i32, record: &M::Record, now_ms: i64) {
        if let Some(Slot::Loading(runtime)) = self.slots.get_mut(&partition) {
            runtime.replay(record, now_ms);
        }
    }

    /// All of the log is replayed: the partition serves.
    pub fn loaded(&mut self, partition: i32, now_ms: i64) {
        let Some(Slot::Loading(mut runtime)) = self.slots.remove(&partition) else { return };
        runtime.act(now_ms, &mut self.effects, |machine, out| machine.loaded(now_ms, out));
        self.slots.insert(partition, Slot::Active(runtime));
    }

    /// Leadership was lost, or nobody knows how an append ended: everything that waits is answered with `code`
    /// (NOT_COORDINATOR), and the partition is forgotten. Reports on its appends are ignored from now on.
    pub fn unload(&mut self, partition: i32, code: ErrorCode) {
        if let Some(Slot::Loading(runtime) | Slot::Active(runtime)) = self.slots.remove(&partition) {
            self.appends_before = self.appends_before.max(runtime.appends());
            runtime.unload(code, &mut self.effects);
        }
    }

    /// Hands a request to the machine of its partition.
    pub fn handle(&mut self, partition: i32, request: M::Request, to: RequestId, now_ms: i64) {
        let code = match self.slots.get_mut(&partition) {
            Some(Slot::Active(runtime)) => {
                runtime.handle(request, to, now_ms, &mut self.effects);
                return;
            }
            Some(Slot::Loading(_)) => ErrorCode::CoordinatorLoadInProgress,
            None => ErrorCode::NotCoordinator,
        };
        let response = M::refuse(&request, code);
        self.effects.push_back(Effect::Reply { to, response });
    }

    /// The append, and with it all earlier ones of the partition, is durable.
    pub fn append_done(&mut self, partition: i32, append: AppendId, now_ms: i64) {
        if let Some(Slot::Active(runtime)) = self.slots.get_mut(&partition) {
            runtime.append_done(append, now_ms, &mut self.effects);
        }
    }

    /// The append is not in the log and never will be. Later appends of the partition must not be made either: their
    /// effects are withdrawn here, and those taken already must not reach the log. Where it is unknown whether an append
    /// reached the log, unload and load instead.
    pub fn append_failed(&mut self, partition: i32, append: AppendId, code: ErrorCode, now_ms: i64) {
        if let Some(Slot::Active(runtime)) = self.slots.get_mut(&partition) {
            runtime.append_failed(append, code, now_ms, &mut self.effects);
        }
    }

    /// When [`Partitions::handle_timeout`] has something to do, in milliseconds since the Unix epoch.
    pub fn poll_timeout(&self) -> Option<i64> {
        self.active().filter_map(|(_, runtime)| runtime.machine().poll_timeout()).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now_ms: i64) {
        for slot in self.slots.values_mut() {
            let Slot::Active(runtime) = slot else { continue };
            if runtime.machine().poll_timeout().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
                runtime.act(now_ms, &mut self.effects, |machine, out| machine.handle_timeout(now_ms, out));
            }
        }
    }

    /// The next thing to do. Take effects one at a time and in order: a failed append withdraws those behind it.
    pub fn poll_effect(&mut self) -> Option<Effect<M::Record, M::Response>> {
        self.effects.pop_front()
    }

    /// The machine of a partition that serves.
    pub fn machine(&self, partition: i32) -> Option<&M> {
        match self.slots.get(&partition)? {
            Slot::Active(runtime) => Some(runtime.machine()),
            Slot::Loading(_) => None,
        }
    }

    /// Partitions that serve, rising.
    pub fn serving(&self) -> impl Iterator<Item = i32> {
        self.active().map(|(partition, _)| partition)
    }

    fn active(&self) -> impl Iterator<Item = (i32, &Runtime<M>)> {
        self.slots.iter().filter_map(|(partition, slot)| match slot {
            Slot::Active(runtime) => Some((*partition, runtime)),
            Slot::Loading(_) => None,
        })
    }
}
