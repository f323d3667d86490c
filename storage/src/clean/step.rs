//! How a cleaning goes through a segment: a piece is read on the shard, and checked and worked on beside it.

use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;
use penstock_format::BATCH_HEADER_LEN;

use super::pass::{Blocks, Fault, Piece, Placed, Step, StepEnd};
use super::rewrite::{Cleaning, Stop};
use crate::disk::{BLOCK, Disk};
use crate::error::ReadError;
use crate::read::read_piece;
use crate::segment::{DATA_START, Segment};
use crate::state::add;
use crate::walk::Walk;

/// Longest pause at once, so that closing does not wait for long.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Longest wait for commits at once: one of them may wait for room that cleaning makes.
const GIVE_WAY_MAX: Duration = PAUSE_MAX;

/// Work on batches of a segment.
type Work<S> = fn(&mut S, &[Placed]) -> Result<(Step, Option<Blocks>), Fault>;

/// What work on a piece of a segment came to.
pub(super) struct Worked<S> {
    pub state: S,
    /// Where the first batch begins that it is not done with.
    pub next: Walk,
    pub end: StepEnd,
    pub blocks: Option<Blocks>,
}

impl<D: Disk> Cleaning<'_, D> {
    /// From the segment's start to its end.
    pub(super) fn walk(&self, segment: &Segment<D>) -> Walk {
        Walk::at(DATA_START, segment.base, self.limit(segment))
    }

    /// Where the segment ends, and the offset of what follows it.
    fn limit(&self, segment: &Segment<D>) -> (u64, i64) {
        (segment.end.get(), self.log.state.borrow().segment_end_offset(segment.base))
    }

    /// Reads a piece of the segment and has the batches in it checked and worked on beside the shard: one at least,
    /// unless the work ends for another reason than that these were all.
    pub(super) async fn step<S: Send + 'static>(
        &self,
        segment: &Rc<Segment<D>>,
        walk: Walk,
        mut state: S,
        work: Work<S>,
    ) -> Result<Worked<S>, Stop> {
        let fault = |Fault { at, reason }: Fault| {
            Stop::Fault(format!("segment {}, position {at}: {reason}", segment.base))
        };
        let end = segment.end.get();
        let mut len = self.store.cleaner.config.borrow().io_bytes.max(BLOCK) as u64;
        loop {
            let to = end.min(walk.position + len);
            let bytes = self.read(segment, walk.position..to).await?;
            let mut piece = self.piece(segment, walk, bytes);
            let job = move || {
                let (batches, cut) = match piece.batches() {
                    Ok(found) => found,
                    Err(fault) => return (state, piece, Err(fault)),
                };
                let worked = work(&mut state, &batches).map(|(step, blocks)| {
                    let next = match batches.get(step.done) {
                        Some((position, _)) => {
                            let before = step.done.checked_sub(1).and_then(|before| batches.get(before));
                            let due = before.map_or(walk.due, |(_, batch)| batch.header.next_offset());
                            Walk::at(*position, due, piece.limit)
                        }
                        None => piece.walk,
                    };
                    (step, blocks, next, cut)
                });
                (state, piece, worked)
            };
            let (returned, piece, worked) = self.compute(job).await?;
            let (Step { done, end: step_end }, blocks, next, cut) = worked.map_err(fault)?;
            if done > 0 || step_end != StepEnd::All {
                return Ok(Worked { state: returned, next, end: step_end, blocks });
            }
            state = returned;
            if to == end {
                return Err(fault(Fault { at: walk.position, reason: "a batch is cut off".to_owned() }));
            }
            len *= 2;
            // It is not read as a whole before it is likely that its length is right.
            if let Some(cut) = cut.filter(|cut| cut.position > walk.position + len) {
                let head_end = end.min(cut.position + BATCH_HEADER_LEN as u64);
                let head = self.read(segment, cut.position..head_end).await?;
                if !piece.may_end(&cut, &head) {
                    let reason = "nothing begins where a batch ends".to_owned();
                    return Err(fault(Fault { at: walk.position, reason }));
                }
                len = cut.position - walk.position + BATCH_HEADER_LEN as u64;
            }
        }
    }

    async fn read(&self, segment: &Rc<Segment<D>>, range: Range<u64>) -> Result<Bytes, Stop> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.give_way().await;
        let bytes = read_piece(self.store, self.log, segment, range).await;
        let bytes = bytes.map_err(|error| self.failed(&error))?;
        add(&self.store.levels.cleaner_read_bytes, bytes.len() as u64);
        self.pace(bytes.len() as u64).await?;
        Ok(bytes)
    }

    /// What was read from where the walk stands, with what the log knows of it.
    fn piece(&self, segment: &Segment<D>, walk: Walk, bytes: Bytes) -> Piece {
        let limit = self.limit(segment);
        let state = self.log.state.borrow();
        Piece { bytes, walk, limit, epochs: state.epochs.clone(), start_offset: state.start_offset }
    }

    /// Runs a computation beside the shard.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stop> {
        self.store.disk.compute(job).await.map_err(|error| Stop::Failed(error.to_string()))
    }

    /// Waits for the commits that are under way now, but for [`GIVE_WAY_MAX`]: the device does for them first what it has to do.
    /// Those that come meanwhile are not waited for, so that cleaning goes on beside any load.
    pub(super) async fn give_way(&self) {
        let Cleaning { store, .. } = self;
        let last = store.pipeline.last_seq();
        if store.pipeline.durable_seq.get() < last {
            let done = pin!(store.pipeline.wait_durable(store, last));
            select(done, pin!(store.disk.sleep(GIVE_WAY_MAX))).await;
        }
    }

    /// Waits as long as the rate asks for after so many bytes, and lets others go first.
    pub(super) async fn pace(&self, bytes: u64) -> Result<(), Stop> {
        let rate = self.store.cleaner.config.borrow().io_bytes_per_second.max(1);
        let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
        let mut left = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.store.disk.yield_now().await;
        while !left.is_zero() {
            self.check()?;
            let pause = left.min(PAUSE_MAX);
            self.store.disk.sleep(pause).await;
            left -= pause;
        }
        self.check()
    }

    pub(super) fn failed(&self, error: &ReadError) -> Stop {
        match (self.check(), error) {
            (Err(stop), _) => stop,
            // The start moved meanwhile.
            (Ok(()), ReadError::OutOfRange { .. }) => Stop::NotNow,
            (Ok(()), ReadError::Corrupt { .. }) => Stop::Fault(error.to_string()),
            (Ok(()), ReadError::Io(_) | ReadError::Offline(_)) => Stop::Failed(error.to_string()),
        }
    }
}
