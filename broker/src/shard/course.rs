//! The course of one request: which stage of it took how long, for whoever asks afterwards why it was slow.
//!
//! Every request carries one from its first byte to its answer's last, in the memory of whoever works on it: one of its own would
//! have left the caches of the core when the answer comes. Stages write into it what they measure anyway, in whole
//! microseconds; nothing is looked at unless the request turns out to be slow ([`super::slow`]).

use std::time::{Duration, Instant};

use super::{Stage, Stages};

/// A part of a request's time on this broker. They follow each other, and together they are the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// [`Stage::Receive`].
    Receive,
    /// [`Stage::Decode`].
    Decode,
    /// [`Stage::Mailbox`]; of a Produce request for several shards, this and the next five are those of the last one.
    Mailbox,
    /// [`Stage::Append`].
    Append,
    /// From there until the commit's first write goes to the disk.
    CommitWait,
    /// [`Stage::JournalWrite`] of its commit.
    JournalWrite,
    /// From there until the flush round that covers the commit begins.
    FlushWait,
    /// [`Stage::Flush`] of that round.
    Flush,
    /// Fetch: looking for records and reading them, on all shards.
    Read,
    /// Fetch: waiting for records to come, as its client wished. It does not make a request slow.
    Records,
    /// All that no other step tells: the handler's own work, other shards and threads, and the turn behind earlier requests of
    /// the connection.
    Handle,
    /// [`Stage::Respond`].
    Respond,
}

impl Step {
    /// All steps by their names, in the order of their numbers.
    pub(crate) const ALL: [(Step, &str); 12] = [
        (Step::Receive, "receive"),
        (Step::Decode, "decode"),
        (Step::Mailbox, "mailbox"),
        (Step::Append, "append"),
        (Step::CommitWait, "commit_wait"),
        (Step::JournalWrite, "journal_write"),
        (Step::FlushWait, "flush_wait"),
        (Step::Flush, "flush"),
        (Step::Read, "read"),
        (Step::Records, "records"),
        (Step::Handle, "handle"),
        (Step::Respond, "respond"),
    ];
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    /// When all of the request was there.
    pub(crate) arrived: Instant,
    /// Bytes of the request.
    pub(crate) request_bytes: usize,
    took_us: [u32; Step::ALL.len()],
}

impl Course {
    /// Of a request of so many bytes that has just arrived, and was `received` in that time.
    pub(crate) fn new(arrived: Instant, received: Duration, request_bytes: usize) -> Course {
        let mut course = Course { arrived, request_bytes, took_us: Default::default() };
        course.note(Step::Receive, received);
        course
    }

    /// Notes that a step took so long; of one that is done several times, each counts.
    pub(crate) fn note(&mut self, step: Step, took: Duration) {
        let took_us = &mut self.took_us[step as usize];
        *took_us = took_us.saturating_add(microseconds(took));
    }

    /// Notes the steps of an append, unless another shard's took longer.
    pub(crate) fn note_append(&mut self, times: &AppendTimes) {
        let own = &mut self.took_us[Step::Mailbox as usize..=Step::Flush as usize];
        let sum = |took: &[u32]| took.iter().copied().map(u64::from).sum::<u64>();
        if sum(&times.0) > sum(own) {
            own.copy_from_slice(&times.0);
        }
    }

    /// Microseconds of a step.
    pub(crate) fn of(&self, step: Step) -> u32 {
        self.took_us[step as usize]
    }

    /// The request was answered so long after it had arrived, and sending that took so long. From here on the steps together are the whole.
    pub(crate) fn end(&mut self, answered: Duration, sending: Duration) {
        self.note(Step::Respond, sending);
        let told: u64 = Step::ALL[Step::Decode as usize..Step::Handle as usize]
            .iter()
            .map(|(step, _)| u64::from(self.of(*step)))
            .sum();
        self.note(Step::Handle, answered.saturating_sub(Duration::from_micros(told)));
    }

    /// Time from the first byte to the end of what came `behind` the arrival, in microseconds.
    pub(crate) fn whole_us(&self, behind: Duration) -> u64 {
        u64::from(self.of(Step::Receive)) + u64::from(microseconds(behind))
    }

    /// Time since the first byte that counts against the broker (or its network), in microseconds.
    pub(crate) fn busy_us(&self) -> u64 {
        let counts = |step: &&(Step, &str)| step.0 != Step::Records;
        Step::ALL.iter().filter(counts).map(|(step, _)| u64::from(self.of(*step))).sum()
    }

    /// The step that took longest, and its name.
    pub(crate) fn longest(&self) -> (Step, &'static str) {
        let steps = Step::ALL.into_iter().filter(|(step, _)| *step != Step::Records);
        steps.max_by_key(|(step, _)| self.of(*step)).unwrap_or(Step::ALL[0])
    }
}

/// The steps of an append from [`Step::Mailbox`] to [`Step::Flush`], in microseconds, as its shard saw them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AppendTimes([u32; 6]);

impl AppendTimes {
    /// Of an append that took so long on its way here, and until it had taken effect.
    pub(crate) fn new(mailbox: Duration, append: Duration) -> AppendTimes {
        AppendTimes([microseconds(mailbox), microseconds(append), 0, 0, 0, 0])
    }

    /// Adds the steps of the commit that it joined at `appended`, if its shard still knows them.
    pub(crate) fn add_commit(&mut self, stages: &Stages, appended: Instant, commit: u64) {
        let Some(times) = stages.commit(commit) else { return };
        self.0[2] = microseconds(times.began.saturating_duration_since(appended));
        self.0[3..].copy_from_slice(&times.took_us);
    }
}

/// Whole microseconds, at most those of 71 minutes.
pub(super) fn microseconds(duration: Duration) -> u32 {
    let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    seconds.saturating_mul(1_000_000).saturating_add(duration.subsec_micros())
}

/// The stages that are steps by another name stay so.
const _: () = assert!(Stage::Receive as usize == Step::Receive as usize);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn steps_stand_by_their_numbers() {
        for (at, (step, _)) in Step::ALL.iter().enumerate() {
            assert_eq!(*step as usize, at);
        }
    }

    /// Whatever the stages told, the steps together are the time from the first byte to the last.
    #[test]
    fn the_steps_are_the_whole() {
        let arrived = Instant::now();
        let mut course = Course::new(arrived, 3 * MS, 100);
        course.note(Step::Decode, 2 * MS);
        course.note(Step::Read, 5 * MS);
        course.note(Step::Records, 400 * MS);
        course.note(Step::Read, 6 * MS);
        course.end(420 * MS, 30 * MS);
        assert_eq!((course.of(Step::Handle), course.of(Step::Read)), (7_000, 11_000));
        assert_eq!(course.busy_us(), 53_000, "453 ms without the client's own 400");
        assert_eq!(course.longest(), (Step::Respond, "respond"));
    }

    /// Of a request for several shards, the slowest one's append is told, not the sum of all.
    #[test]
    fn the_slowest_append_is_told() {
        let now = Instant::now();
        let mut course = Course::new(now, MS, 100);
        let quick = AppendTimes::new(Duration::ZERO, MS);
        let slow = AppendTimes::new(3 * MS, 4 * MS);
        [quick, slow, quick].iter().for_each(|times| course.note_append(times));
        assert_eq!((course.of(Step::Mailbox), course.of(Step::Append)), (3_000, 4_000));
        course.end(10 * MS, Duration::ZERO);
        assert_eq!((course.of(Step::Handle), course.busy_us()), (3_000, 11_000));
    }

    #[test]
    fn what_takes_for_ever_counts_as_the_longest_that_can_be_told() {
        let now = Instant::now();
        let mut course = Course::new(now, Duration::MAX, 0);
        course.note(Step::Receive, MS);
        assert_eq!(course.of(Step::Receive), u32::MAX);
    }
}
