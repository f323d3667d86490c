//! One machine and the appends it waits for.

use std::collections::VecDeque;

use penstock_protocol::ErrorCode;

use super::{AppendId, Effect, Machine, Origin, Refusable, RequestId};

/// Most appends of one partition that are under way. Beyond it requests are refused until some have ended.
pub const APPENDS_IN_FLIGHT_MAX: usize = 10_000;

/// Where a machine puts what it decided. The runtime takes it from there.
pub struct Outbox<M: Machine> {
    writes: Vec<Write<M>>,
    answers: Vec<(RequestId, M::Response)>,
    reads: Vec<(RequestId, M::Response)>,
}

struct Write<M: Machine> {
    records: Vec<M::Record>,
    answer: Option<(RequestId, M::Response)>,
    resume: Option<M::Resume>,
}

impl<M: Machine> Outbox<M> {
    pub(super) fn new() -> Outbox<M> {
        Outbox { writes: Vec::new(), answers: Vec::new(), reads: Vec::new() }
    }

    /// Answers at once: the answer tells of soft state alone.
    pub fn answer(&mut self, to: RequestId, response: M::Response) {
        self.answers.push((to, response));
    }

    /// Answers once everything that is on its way to the log now is durable: the answer tells of durable state.
    pub fn answer_when_durable(&mut self, to: RequestId, response: M::Response) {
        self.reads.push((to, response));
    }

    /// Appends records; the answer, if there is one, goes out once they are durable.
    ///
    /// # Panics
    /// Without a record.
    pub fn write(
        &mut self,
        records: Vec<M::Record>,
        answer: Option<(RequestId, M::Response)>,
        resume: Option<M::Resume>,
    ) {
        assert!(!records.is_empty(), "an append has records");
        self.writes.push(Write { records, answer, resume });
    }

    /// Whether anything is to be appended.
    pub fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }
}

struct InFlight<M: Machine> {
    id: AppendId,
    undos: Vec<M::Undo>,
    held: Vec<(RequestId, M::Response)>,
    resume: Option<M::Resume>,
}

/// A machine, its appends under way, and the answers that wait for them.
pub struct Runtime<M: Machine> {
    partition: i32,
    machine: M,
    appends: u64,
    in_flight: VecDeque<InFlight<M>>,
}

/// What leaves the runtimes of a shard, in order.
pub(super) type Effects<M> = VecDeque<Effect<<M as Machine>::Record, <M as Machine>::Response>>;

impl<M: Machine> Runtime<M> {
    /// A machine before any record, whose appends are numbered on from `appends`.
    pub(super) fn new(partition: i32, machine: M, appends: u64) -> Runtime<M> {
        Runtime { partition, machine, appends, in_flight: VecDeque::new() }
    }

    /// The number of the last append.
    pub(super) fn appends(&self) -> u64 {
        self.appends
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Replays a record of the log.
    pub(super) fn replay(&mut self, record: &M::Record, now_ms: i64) {
        debug_assert!(self.in_flight.is_empty(), "loading comes before appending");
        self.machine.replay(record, Origin::Log, now_ms);
    }

    /// Lets the machine do something, and carries out what it decided.
    pub(super) fn act(
        &mut self,
        now_ms: i64,
        effects: &mut Effects<M>,
        action: impl FnOnce(&mut M, &mut Outbox<M>),
    ) {
        let mut out = Outbox::new();
        action(&mut self.machine, &mut out);
        for write in out.writes {
            self.begin_append(write, now_ms, effects);
        }
        for (to, response) in out.answers {
            effects.push_back(Effect::Reply { to, response });
        }
        for (to, response) in out.reads {
            match self.in_flight.back_mut() {
                Some(last) => last.held.push((to, response)),
                None => effects.push_back(Effect::Reply { to, response }),
            }
        }
    }

    pub(super) fn handle(
        &mut self,
        request: M::Request,
        to: RequestId,
        now_ms: i64,
        effects: &mut Effects<M>,
    ) {
        if self.in_flight.len() >= APPENDS_IN_FLIGHT_MAX {
            let response = M::refuse(&request, ErrorCode::CoordinatorNotAvailable);
            effects.push_back(Effect::Reply { to, response });
            return;
        }
        self.act(now_ms, effects, |machine, out| machine.handle(request, to, now_ms, out));
    }

    fn begin_append(&mut self, write: Write<M>, now_ms: i64, effects: &mut Effects<M>) {
        self.appends += 1;
        let id = AppendId(self.appends);
        let replay = |record: &M::Record| self.machine.replay(record, Origin::Own, now_ms);
        let undos = write.records.iter().filter_map(replay).collect();
        let held = write.answer.into_iter().collect();
        self.in_flight.push_back(InFlight { id, undos, held, resume: write.resume });
        effects.push_back(Effect::Append { partition: self.partition, append: id, records: write.records });
    }

    /// The append and all before it are durable. Those that have ended already are passed over.
    pub(super) fn append_done(&mut self, append: AppendId, now_ms: i64, effects: &mut Effects<M>) {
        while self.in_flight.front().is_some_and(|first| first.id <= append) {
            let Some(done) = self.in_flight.pop_front() else { return };
            for (to, response) in done.held {
                effects.push_back(Effect::Reply { to, response });
            }
            if let Some(resume) = done.resume {
                self.act(now_ms, effects, |machine, out| machine.resume(resume, Ok(()), now_ms, out));
            }
        }
    }

    /// The append is not in the log and never will be, and neither is any after it: those decided on state that is now
    /// taken back, so they are refused with an error that clients repeat.
    pub(super) fn append_failed(
        &mut self,
        append: AppendId,
        code: ErrorCode,
        now_ms: i64,
        effects: &mut Effects<M>,
    ) {
        let mut failed = VecDeque::new();
        while self.in_flight.back().is_some_and(|last| last.id >= append) {
            let Some(mut last) = self.in_flight.pop_back() else { break };
            while let Some(undo) = last.undos.pop() {
                self.machine.revert(undo);
            }
            failed.push_front(last);
        }
        let partition = self.partition;
        effects.retain(|effect| match effect {
            Effect::Append { partition: of, append: id, .. } => *of != partition || *id < append,
            Effect::Reply { .. } => true,
        });
        for end in failed {
            let code = if end.id == append { code } else { ErrorCode::CoordinatorNotAvailable };
            for (to, response) in end.held {
                effects.push_back(Effect::Reply { to, response: response.refused(code) });
            }
            if let Some(resume) = end.resume {
                self.act(now_ms, effects, |machine, out| machine.resume(resume, Err(code), now_ms, out));
            }
        }
    }

    /// Answers everything that waits with `code`. Appends under way may or may not become durable.
    pub(super) fn unload(mut self, code: ErrorCode, effects: &mut Effects<M>) {
        let partition = self.partition;
        effects.retain(|effect| !matches!(effect, Effect::Append { partition: of, .. } if *of == partition));
        for end in std::mem::take(&mut self.in_flight) {
            for (to, response) in end.held {
                effects.push_back(Effect::Reply { to, response: response.refused(code) });
            }
        }
        let mut out = Outbox::new();
        self.machine.unload(code, &mut out);
        debug_assert!(out.writes.is_empty(), "nothing is written once leadership is lost");
        for (to, response) in out.answers.into_iter().chain(out.reads) {
            effects.push_back(Effect::Reply { to, response });
        }
    }
}
