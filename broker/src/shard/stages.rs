//! How long each stage of a request takes, measured by the shard that carries it out.
//!
//! A shard records into readings of its own, without a lock or an atomic. About once a second it hands them over to the
//! admin thread and goes on with empty ones: two sets of readings travel in a circle, so that nothing is copied on the
//! shard, what the admin thread gets is of one moment, and nothing is lost where it does not come to fetch it.
//!
//! A recording is noted in a list first, and counted in its histogram with those behind it: a histogram's memory would have
//! left the caches of the core from one request to the next, and be waited for at each.
//!
//! Bounds: [`READINGS_BYTES_MAX`] for each of the two sets of a shard, whatever is recorded, and [`NOTED_MAX`] recordings.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use hdrhistogram::{Counter, Histogram};
use penstock_storage::{CommitMeter, CommitStep, Ticket};

use super::ShardMetrics;
use super::course::microseconds;

/// Shortest duration told from nothing, and the finest difference told, in nanoseconds.
const LOW_NS: u64 = 16;
/// Longest duration told, in nanoseconds; what takes longer counts as this.
const HIGH_NS: u64 = 60_000_000_000;
/// Significant decimal digits: durations are told to within 1 %, at least.
const DIGITS: u8 = 2;

/// A stage of a request on its shard. One that fails in a stage is not counted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Every request: from the end of the socket operation that brought its first byte until all of it is there and has
    /// its share of the bytes in flight. Includes the time behind earlier requests of the connection in the same buffer.
    Receive,
    /// Every request: from there until its handler has it decoded. For Produce until its batches are checked, and packed
    /// where they have to be; includes the wait for another thread where that one does it.
    Decode,
    /// Appends and reads that another shard sent here: from the sender's wish to send until they are taken. Includes the
    /// sender's wait for a credit.
    Mailbox,
    /// Appends of clients, one for each request and shard: from the hand-over on the shard that owns the partitions until
    /// the batches have their offsets and are part of the running commit. Includes the wait for room.
    Append,
    /// Commits: see [`CommitStep::Write`].
    JournalWrite,
    /// Flush rounds: see [`CommitStep::Flush`].
    Flush,
    /// Every answer: from being ready and next in its connection's line until the socket took its last byte. Answers that
    /// go out in one operation end together.
    Respond,
    /// Whole Produce requests that are answered: from the end of `Receive` to the end of `Respond`.
    Produce,
    /// Whole Fetch requests, in the same way: their wait for records is part of it.
    Fetch,
}

impl Stage {
    /// All stages by their names, in the order of their numbers.
    pub(crate) const ALL: [(Stage, &str); 9] = [
        (Stage::Receive, "receive"),
        (Stage::Decode, "decode"),
        (Stage::Mailbox, "mailbox"),
        (Stage::Append, "append"),
        (Stage::JournalWrite, "journal_write"),
        (Stage::Flush, "flush"),
        (Stage::Respond, "respond"),
        (Stage::Produce, "produce"),
        (Stage::Fetch, "fetch"),
    ];

    /// The whole of a request of this API, for those that are measured.
    pub(crate) fn whole(api_key: i16) -> Option<Stage> {
        match api_key {
            0 => Some(Stage::Produce),
            1 => Some(Stage::Fetch),
            _ => None,
        }
    }
}

/// A histogram of nanoseconds that can take those of any other of these.
pub(crate) fn empty_histogram<C: Counter>() -> Histogram<C> {
    Histogram::new_with_bounds(LOW_NS, HIGH_NS, DIGITS).expect("the bounds are valid for any histogram")
}

/// Memory of one set of readings in bytes, at most.
#[cfg(test)]
pub(crate) const READINGS_BYTES_MAX: usize = 128 << 10;

/// Recordings that are counted together.
const NOTED_MAX: usize = 256;

/// One histogram for each stage.
pub(crate) struct Readings<C: Counter = u32>([Histogram<C>; Stage::ALL.len()]);

impl<C: Counter> Default for Readings<C> {
    fn default() -> Readings<C> {
        Readings(std::array::from_fn(|_| empty_histogram()))
    }
}

impl<C: Counter> Readings<C> {
    /// What was recorded of a stage.
    pub(crate) fn of(&self, stage: Stage) -> &Histogram<C> {
        &self.0[stage as usize]
    }

    /// Adds what others recorded.
    pub(crate) fn add<D: Counter + Into<C>>(&mut self, others: &Readings<D>) {
        for (own, other) in self.0.iter_mut().zip(&others.0).filter(|(_, other)| !other.is_empty()) {
            for cell in other.iter_recorded() {
                own.saturating_record_n(cell.value_iterated_to(), cell.count_at_value().into());
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.0.iter_mut().filter(|own| !own.is_empty()).for_each(Histogram::reset);
    }

    /// Whether nothing was recorded.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Histogram::is_empty)
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|own| own.distinct_values() * size_of::<C>() + size_of_val(own)).sum()
    }
}

/// The way of readings from a shard to the admin thread and back: room for one set each way.
pub(crate) struct Handover {
    full: ArrayQueue<Box<Readings>>,
    empty: ArrayQueue<Box<Readings>>,
    /// Times that the shard had handed over all that it knew.
    rounds: AtomicU64,
}

impl Default for Handover {
    fn default() -> Handover {
        let handover =
            Handover { full: ArrayQueue::new(1), empty: ArrayQueue::new(1), rounds: AtomicU64::new(0) };
        handover.give_back(Box::default());
        handover
    }
}

impl Handover {
    /// What the shard handed over since this was last called, to be given back; and the rounds that this completes.
    pub(crate) fn take(&self) -> (Option<Box<Readings>>, u64) {
        let rounds = self.rounds.load(Ordering::Acquire);
        (self.full.pop(), rounds)
    }

    /// Gives readings back, empty.
    pub(crate) fn give_back(&self, mut readings: Box<Readings>) {
        readings.clear();
        let room = self.empty.push(readings).is_ok();
        assert!(room, "one set of readings travels");
    }
}

/// Commits and flush rounds whose times a shard remembers.
const COMMITS_REMEMBERED: usize = 64;

/// The steps of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitTimes {
    /// When its first write went to the disk.
    pub(crate) began: Instant,
    /// Microseconds of its writes, of the time from there to the flush round that covered it, and of that round.
    pub(crate) took_us: [u32; 3],
}

/// Begin and end of a step, and the (last) commit that it was of.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    commit: u64,
    began_ns: u64,
    ended_ns: u64,
}

/// The last commits, for requests that want to know where their time went.
struct RecentCommits {
    /// By number of the commit.
    writes: [Told; COMMITS_REMEMBERED],
    /// In order; the oldest is at `next`.
    rounds: [Told; COMMITS_REMEMBERED],
    next: usize,
}

impl Default for RecentCommits {
    fn default() -> RecentCommits {
        let none = [Told::default(); COMMITS_REMEMBERED];
        RecentCommits { writes: none, rounds: none, next: 0 }
    }
}

impl RecentCommits {
    fn note(&mut self, step: CommitStep, told: Told) {
        match step {
            CommitStep::Write => self.writes[told.commit as usize % COMMITS_REMEMBERED] = told,
            CommitStep::Flush => {
                self.rounds[self.next] = told;
                self.next = (self.next + 1) % COMMITS_REMEMBERED;
            }
        }
    }

    /// The write of a commit and the round that covered it.
    fn of(&self, commit: u64) -> Option<(Told, Told)> {
        let write = self.writes[commit as usize % COMMITS_REMEMBERED];
        let (newer, older) = self.rounds.split_at(self.next);
        // It is asked for right behind its round: the newest are looked at first.
        let since = newer.iter().rev().chain(older.iter().rev()).take_while(|round| round.commit >= commit);
        let round = since.last()?;
        // The oldest round remembered may have been preceded by the one that covered it.
        let oldest = older.first().filter(|round| round.ended_ns > 0);
        let known = oldest.is_none_or(|oldest| oldest.commit < commit);
        (write.commit == commit && known).then_some((write, *round))
    }
}

/// The recording end, on its shard.
pub(crate) struct Stages {
    /// Stages, how often, and nanoseconds that are not in `current` yet; so many.
    noted: Box<[Cell<(Stage, u32, u64)>; NOTED_MAX]>,
    noted_len: Cell<usize>,
    current: RefCell<Box<Readings>>,
    commits: RefCell<RecentCommits>,
    /// The commit that was asked for last: all its requests ask one after the other.
    asked: Cell<Option<(u64, CommitTimes)>>,
    /// The shard's own, which hold the way out.
    metrics: Arc<ShardMetrics>,
    /// Where the moments of the commit meter count from.
    origin: Instant,
}

impl Stages {
    pub(crate) fn new(metrics: Arc<ShardMetrics>) -> Stages {
        Stages {
            noted: Box::new([const { Cell::new((Stage::Receive, 0, 0)) }; NOTED_MAX]),
            noted_len: Cell::new(0),
            current: RefCell::default(),
            commits: RefCell::default(),
            asked: Cell::default(),
            metrics,
            origin: Instant::now(),
        }
    }

    /// Notes that a stage of one request took so long.
    pub(crate) fn record(&self, stage: Stage, took: Duration) {
        self.record_all(stage, took, 1);
    }

    /// Notes that a stage of so many requests took so long.
    pub(crate) fn record_all(&self, stage: Stage, took: Duration, requests: u32) {
        let at = self.noted_len.get();
        self.noted[at].set((stage, requests, nanoseconds(took)));
        self.noted_len.set(at + 1);
        if at + 1 == NOTED_MAX {
            self.count();
        }
    }

    /// Counts what was noted in the histograms.
    fn count(&self) {
        let mut current = self.current.borrow_mut();
        for (stage, requests, ns) in self.noted[..self.noted_len.replace(0)].iter().map(Cell::get) {
            current.0[stage as usize].saturating_record_n(ns, requests);
        }
    }

    /// The steps of a commit, if it is one of the last and stable.
    pub(crate) fn commit(&self, commit: u64) -> Option<CommitTimes> {
        if let Some((_, times)) = self.asked.get().filter(|(asked, _)| *asked == commit) {
            return Some(times);
        }
        let (write, flush) = self.commits.borrow().of(commit)?;
        let marks = [write.began_ns, write.ended_ns, flush.began_ns, flush.ended_ns];
        let us = |at: usize| microseconds(Duration::from_nanos(marks[at + 1].saturating_sub(marks[at])));
        let began = self.origin + Duration::from_nanos(write.began_ns);
        let times = CommitTimes { began, took_us: [us(0), us(1), us(2)] };
        self.asked.set(Some((commit, times)));
        Some(times)
    }

    /// Hands over what was recorded, if what was handed over before has been fetched.
    pub(crate) fn hand_over(&self) {
        self.count();
        let mut current = self.current.borrow_mut();
        let handover = &self.metrics.handover;
        if !current.is_empty() {
            let Some(empty) = handover.empty.pop() else { return };
            let full = std::mem::replace(&mut *current, empty);
            let room = handover.full.push(full).is_ok();
            assert!(room, "one set of readings travels");
        }
        handover.rounds.store(handover.rounds.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}

impl CommitMeter for Stages {
    fn now(&self) -> u64 {
        nanoseconds(self.origin.elapsed())
    }

    fn took(&self, step: CommitStep, since: u64, commit: Ticket) {
        let stage = match step {
            CommitStep::Write => Stage::JournalWrite,
            CommitStep::Flush => Stage::Flush,
        };
        let now = self.now();
        self.record(stage, Duration::from_nanos(now.saturating_sub(since)));
        let told = Told { commit: commit.commit(), began_ns: since, ended_ns: now };
        self.commits.borrow_mut().note(step, told);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn stages_stand_by_their_numbers() {
        for (at, (stage, _)) in Stage::ALL.iter().enumerate() {
            assert_eq!(*stage as usize, at);
        }
    }

    #[test]
    fn memory_is_bounded_whatever_is_recorded() {
        let mut readings = Readings::<u32>::default();
        let before = readings.bytes();
        assert!(before < READINGS_BYTES_MAX, "{before}");
        for exponent in 0..64 {
            for histogram in &mut readings.0 {
                histogram.saturating_record(1 << exponent);
            }
        }
        readings.0.iter_mut().for_each(|histogram| histogram.saturating_record(u64::MAX));
        assert_eq!(readings.bytes(), before);
        let flush = readings.of(Stage::Flush);
        assert_eq!(flush.len(), 65);
        assert!(flush.max() >= HIGH_NS && flush.min() <= LOW_NS);
    }

    #[test]
    fn durations_are_told_to_within_a_percent() {
        let stages = Stages::new(Arc::default());
        for ns in [40, 999, 12_345, 7_654_321, 59_000_000_000] {
            stages.current.borrow_mut().clear();
            stages.record(Stage::Decode, Duration::from_nanos(ns));
            stages.count();
            let current = stages.current.borrow();
            let told = current.of(Stage::Decode).value_at_quantile(0.5);
            assert!(told >= ns && told - ns <= (ns / 100).max(LOW_NS), "{ns}: {told}");
        }
    }

    #[test]
    fn what_many_took_alike_counts_for_each() {
        let stages = Stages::new(Arc::default());
        stages.record_all(Stage::Respond, Duration::from_micros(3), 5);
        stages.record(Stage::Respond, Duration::from_micros(7));
        stages.count();
        let current = stages.current.borrow();
        let told = current.of(Stage::Respond);
        assert_eq!((told.len(), told.count_at(3_000), told.count_at(7_000)), (6, 5, 1));
    }

    #[test]
    fn what_is_noted_is_counted_together() {
        let stages = Stages::new(Arc::default());
        for _ in 0..2 * NOTED_MAX + 3 {
            stages.record(Stage::Append, Duration::from_micros(1));
        }
        assert_eq!(stages.current.borrow().of(Stage::Append).len(), 2 * NOTED_MAX as u64);
        assert_eq!(stages.noted_len.get(), 3);
    }

    /// A commit is told with the round that covered it, for as long as both are remembered for certain.
    #[test]
    fn commits_are_remembered_with_their_rounds() {
        let mut recent = RecentCommits::default();
        let told = |commit, began_ns| Told { commit, began_ns, ended_ns: began_ns + 5 };
        for commit in 1..=200 {
            recent.note(CommitStep::Write, told(commit, commit * 10));
            if commit % 3 == 0 {
                recent.note(CommitStep::Flush, told(commit, commit * 10 + 5));
            }
        }
        let of = |commit| recent.of(commit).map(|(write, round)| (write.began_ns, round.began_ns));
        assert_eq!(of(199), None, "not stable yet");
        assert_eq!(of(198), Some((1980, 1985)));
        assert_eq!(of(196), Some((1960, 1985)), "covered by the round of 198");
        assert_eq!(of(195), Some((1950, 1955)));
        assert_eq!(of(137), Some((1370, 1385)));
        assert_eq!(of(136), None, "its place was taken by 200");
        // Rounds of one commit each: those before the oldest one remembered are unknown.
        for commit in 201..=300 {
            recent.note(CommitStep::Flush, told(commit, commit * 10));
        }
        assert_eq!(recent.of(199).map(|(write, _)| write.commit), None);
    }

    /// Nobody fetches for a while: nothing is lost, and no third set is made.
    #[test]
    fn what_is_not_fetched_stays_and_comes_later() {
        let stages = Stages::new(Arc::default());
        let mut total = Readings::<u64>::default();
        let decoded = |total: &Readings<u64>| total.of(Stage::Decode).len();
        stages.hand_over();
        assert!(matches!(stages.metrics.handover.take(), (None, 1)), "nothing to hand over");
        for round in 1..=3 {
            stages.record(Stage::Decode, Duration::from_micros(round));
            stages.hand_over();
        }
        for (wanted, complete) in [(1, 2), (3, 3)] {
            let (readings, rounds) = stages.metrics.handover.take();
            let readings = readings.unwrap();
            assert_eq!(rounds, complete);
            total.add(&readings);
            stages.metrics.handover.give_back(readings);
            stages.hand_over();
            assert_eq!(decoded(&total), wanted);
        }
        assert!(matches!(stages.metrics.handover.take(), (None, 4)));
        assert!(total.of(Stage::Flush).is_empty());
    }

    /// The shard and the admin thread at full speed: in the end each recording was seen once, at its value.
    #[test]
    fn nothing_is_lost_or_seen_twice_between_two_threads() {
        const COUNT: u64 = 200_000;
        let metrics: Arc<ShardMetrics> = Arc::default();
        let shared = metrics.clone();
        let shard = std::thread::spawn(move || {
            let stages = Stages::new(shared);
            for number in 0..COUNT {
                stages.record(Stage::Append, Duration::from_nanos(1000 * (1 + number % 2)));
                if number % 7 == 0 {
                    stages.hand_over();
                }
            }
            stages.hand_over();
            while !stages.current.borrow().is_empty() {
                stages.hand_over();
                std::thread::yield_now();
            }
        });
        let mut total = Readings::<u64>::default();
        loop {
            let ended = shard.is_finished();
            match metrics.handover.take().0 {
                Some(readings) => {
                    total.add(&readings);
                    metrics.handover.give_back(readings);
                }
                None if ended => break,
                None => std::thread::yield_now(),
            }
        }
        shard.join().unwrap();
        let appends = total.of(Stage::Append);
        assert_eq!(appends.len(), COUNT);
        assert_eq!((appends.count_at(1000), appends.count_at(2000)), (COUNT / 2, COUNT / 2));
    }
}
