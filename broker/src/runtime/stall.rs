//! Who held a shard's core, seen from outside.
//!
//! A shard runs one task at a time until that waits, and everything else on its core waits as long. The park guard looks at
//! each shard's board at every beat; where it finds one turn of one task twice, that task has held the core at least
//! from the first look to the last. Looking costs the shard nothing, so short stalls between two looks stay unseen.

use std::time::{Duration, Instant};

use penstock_storage::disk::tasks::Running;

/// Shortest time that is reported. Of a turn that lasts this long the guard sees all but a beat at either end.
pub(crate) const STALL_MIN: Duration = Duration::from_millis(100);
/// A turn that lasts as long is reported before it is over: it may never be.
pub(crate) const STALL_LONG: Duration = Duration::from_secs(5);

/// A task held the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stall {
    pub(crate) task: &'static str,
    pub(crate) note: u16,
    /// For at least as long.
    pub(crate) held: Duration,
    /// It goes on.
    pub(crate) ongoing: bool,
    /// Of that time, what the thread ran and what it waited for a core, if the system tells: a thread that could not run
    /// was held up by something else on its core, and the task is not to blame.
    pub(crate) core: Option<CoreTimes>,
}

/// What the system tells of a thread's use of its core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CoreTimes {
    pub(crate) ran: Duration,
    pub(crate) waited: Duration,
}

/// One shard's turns as the looks found them.
#[derive(Debug, Default)]
pub(crate) struct StallWatch(Option<Seen>);

/// A turn that a look found.
#[derive(Debug)]
struct Seen {
    running: Running,
    first: Instant,
    last: Instant,
    core_first: Option<CoreTimes>,
    core_last: Option<CoreTimes>,
    reported: bool,
}

impl StallWatch {
    /// Notes what a look found at `now`, and gives a stall that is over, or has become long. `core` is asked only
    /// where a turn goes on.
    pub(crate) fn look(
        &mut self,
        found: Option<Running>,
        now: Instant,
        core: impl Fn() -> Option<CoreTimes>,
    ) -> Option<Stall> {
        if let (Some(seen), Some(found)) = (&mut self.0, found)
            && seen.running.turn == found.turn
            && seen.running.task == found.task
        {
            seen.last = now;
            seen.running.note = found.note;
            seen.core_last = core();
            seen.core_first = seen.core_first.or(seen.core_last);
            let long = seen.last - seen.first >= STALL_LONG && !seen.reported;
            seen.reported |= long;
            return long.then(|| seen.stall(true));
        }
        let seen = |running| Seen {
            running,
            first: now,
            last: now,
            core_first: None,
            core_last: None,
            reported: false,
        };
        let before = std::mem::replace(&mut self.0, found.map(seen))?;
        (before.last - before.first >= STALL_MIN).then(|| before.stall(false))
    }

    /// Whether a turn was going on at the last look.
    pub(crate) fn is_suspicious(&self) -> bool {
        self.0.is_some()
    }
}

impl Seen {
    fn stall(&self, ongoing: bool) -> Stall {
        let core = self.core_first.zip(self.core_last).map(|(first, last)| CoreTimes {
            ran: last.ran.saturating_sub(first.ran),
            waited: last.waited.saturating_sub(first.waited),
        });
        Stall {
            task: self.running.task,
            note: self.running.note,
            held: self.last - self.first,
            ongoing,
            core,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(turn: u64) -> Option<Running> {
        Some(Running { task: "task", note: 1, turn })
    }

    fn core() -> Option<CoreTimes> {
        None
    }

    #[test]
    fn a_turn_that_is_found_again_is_told_when_it_is_over() {
        let (mut watch, start) = (StallWatch::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for ms in [0, 10, 95, 130] {
            assert_eq!(watch.look(turn(7), at(ms), core), None);
            assert!(watch.is_suspicious());
        }
        let held = Duration::from_millis(130);
        let stall = Stall { task: "task", note: 1, held, ongoing: false, core: None };
        assert_eq!(watch.look(turn(9), at(140), core), Some(stall));
        assert_eq!(watch.look(None, at(150), core), None);
        assert!(!watch.is_suspicious());
    }

    #[test]
    fn a_busy_shard_and_short_turns_are_no_stalls() {
        let (mut watch, start) = (StallWatch::default(), Instant::now());
        for (look, found) in
            [turn(1), turn(900), turn(900), turn(1800), None, turn(1801)].into_iter().enumerate()
        {
            let now = start + Duration::from_millis(60 * look as u64);
            assert_eq!(watch.look(found, now, core), None, "look {look}");
        }
    }

    #[test]
    fn what_does_not_end_is_told_once_before_its_end_and_once_after() {
        let (mut watch, start) = (StallWatch::default(), Instant::now());
        let reports: Vec<_> = (0..120)
            .filter_map(|look| {
                let found = if look < 100 { turn(3) } else { None };
                let stall = watch.look(found, start + Duration::from_millis(100 * look), core)?;
                Some((look, stall.ongoing, stall.held.as_millis()))
            })
            .collect();
        assert_eq!(reports, [(50, true, 5000), (100, false, 9900)]);
    }

    /// The system's numbers are differences over the looks of one turn.
    #[test]
    fn core_times_are_those_of_the_turn() {
        let (mut watch, start) = (StallWatch::default(), Instant::now());
        let ms = Duration::from_millis;
        for look in 0..4 {
            let core = move || Some(CoreTimes { ran: ms(1000 + 90 * look), waited: ms(10 * look) });
            watch.look(turn(1), start + ms(100 * look), core);
        }
        let stall = watch.look(None, start + ms(400), core);
        let core = stall.and_then(|stall| stall.core);
        assert_eq!(
            core,
            Some(CoreTimes { ran: ms(180), waited: ms(20) }),
            "from the second look to the fourth"
        );
    }
}
