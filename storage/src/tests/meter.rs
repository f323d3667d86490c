//! The steps of commits, as a meter hears of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::disk::sim::{Effect, Fault, Operation};
use crate::{CommitMeter, CommitStep, Ticket};

/// Counts its own calls for a clock.
#[derive(Default)]
struct Heard {
    moment: Cell<u64>,
    steps: RefCell<Vec<(CommitStep, u64, u64)>>,
    commits: RefCell<Vec<(CommitStep, u64)>>,
}

impl Heard {
    fn count(&self, wanted: CommitStep) -> u64 {
        self.steps.borrow().iter().filter(|(step, ..)| *step == wanted).count() as u64
    }
}

impl CommitMeter for Heard {
    fn now(&self) -> u64 {
        self.moment.set(self.moment.get() + 1);
        self.moment.get()
    }

    fn took(&self, step: CommitStep, since: u64, commit: Ticket) {
        let now = self.now();
        self.steps.borrow_mut().push((step, since, now));
        self.commits.borrow_mut().push((step, commit.commit()));
    }
}

#[test]
fn each_commit_is_written_once_and_each_flush_round_ends_before_the_next() {
    let world = world(31);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, small()).await;
        let before = store.stats();
        let heard = Rc::new(Heard::default());
        store.set_meter(heard.clone());
        let log = store.create_log("a-0", log_config()).await.unwrap();
        for round in 0..40 {
            let appended = log.append(vec![batch(1, 100 + 700 * round, 0, 1)], client(0)).unwrap();
            if round % 3 == 0 {
                log.durable(appended.ticket).await.unwrap();
            }
        }
        store.close().await.unwrap();
        let stats = store.stats();
        assert!(stats.commits > before.commits + 13);
        assert_eq!(heard.count(CommitStep::Write), stats.commits - before.commits);
        assert_eq!(heard.count(CommitStep::Flush), stats.flushes - before.flushes);
        let mut last = 0;
        for (step, since, now) in heard.steps.borrow().iter() {
            assert!(since < now);
            if *step == CommitStep::Flush {
                assert!(*since > last, "a round began at {since}, before the one until {last} was over");
                last = *now;
            }
        }
        // Each commit was written before the first round that says that it covers it, and rounds rise.
        let told = heard.commits.borrow();
        let (mut written, mut covered) = (0, 0);
        for (step, commit) in told.iter() {
            match step {
                CommitStep::Write => written = written.max(*commit),
                CommitStep::Flush => {
                    assert!(
                        covered < *commit && *commit <= written,
                        "a round up to {commit} after {covered}"
                    );
                    covered = *commit;
                }
            }
        }
        assert_eq!(covered, written, "the last round covers what was written");
    });
}

#[test]
fn a_step_that_fails_is_not_told() {
    for (operation, told) in [(Operation::Write, [0, 0]), (Operation::Sync, [1, 0])] {
        let world = world(32);
        let disk = world.disk();
        let faults = world.clone();
        world.block_on(async move {
            let (store, _) = open(disk, small()).await;
            let log = store.create_log("a-0", log_config()).await.unwrap();
            let heard = Rc::new(Heard::default());
            store.set_meter(heard.clone());
            let path = "journal".into();
            let effect = Effect::Fail(libc::EIO);
            faults.inject(Fault { operation, path_contains: path, skip: 0, times: 1, effect });
            let lost = log.append(vec![batch(1, 100, 1, 1)], client(0)).unwrap();
            log.durable(lost.ticket).await.unwrap_err();
            assert_eq!([CommitStep::Write, CommitStep::Flush].map(|step| heard.count(step)), told);
        });
    }
}
