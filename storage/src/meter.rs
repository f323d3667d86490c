//! How long the steps of a commit take, for whoever asks. The engine knows no clock: a meter brings its own.

use crate::disk::Disk;
use crate::log::Ticket;
use crate::state::StoreInner;

/// A step of every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitStep {
    /// From handing the commit's first write to the disk until the last is complete: the journal frame, and beside it the
    /// shares that go straight to their segments. One of them for each commit; those of several commits may overlap.
    Write,
    /// One flush round: from its first flush until every file that its commits wrote is flushed. It covers one commit or
    /// more, and one round ends before the next begins.
    Flush,
}

/// Whoever measures the steps of commits.
pub trait CommitMeter {
    /// The present moment, in a unit of the meter's own.
    fn now(&self) -> u64;

    /// A step that began at the moment `since` has succeeded just now, for the commit of that ticket; a flush round also for
    /// those before it that no earlier round covered. Steps that fail are not told.
    fn took(&self, step: CommitStep, since: u64, commit: Ticket);
}

impl<D: Disk> StoreInner<D> {
    /// Runs a step under the meter, if there is one.
    pub(crate) async fn metered(
        &self,
        step: CommitStep,
        commit: Ticket,
        run: impl Future<Output = bool>,
    ) -> bool {
        let Some(meter) = self.meter.get() else { return run.await };
        let since = meter.now();
        let succeeded = run.await;
        if succeeded {
            meter.took(step, since, commit);
        }
        succeeded
    }
}
