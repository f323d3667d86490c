//! The naive twin of a log: its batches in a list, and the history of changes that a crash may cut short.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use penstock_format::Batch;

/// A batch as it must be read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) epoch: i32,
    pub(crate) max_timestamp: i64,
    pub(crate) bytes: Bytes,
    /// As sent, to be sent again.
    pub(crate) sent: Batch,
}

impl Written {
    pub(crate) fn new(sent: &Batch, base_offset: i64, epoch: i32) -> Written {
        let mut stored = sent.clone();
        stored.header.base_offset = base_offset;
        stored.header.partition_leader_epoch = epoch;
        Written {
            base_offset,
            last_offset: stored.header.last_offset(),
            epoch,
            max_timestamp: stored.header.max_timestamp,
            bytes: stored.to_bytes(),
            sent: sent.clone(),
        }
    }

    pub(crate) fn producer_id(&self) -> Option<i64> {
        (self.sent.header.producer_id >= 0).then_some(self.sent.header.producer_id)
    }
}

/// What a log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// In order, those below `start` included: they may still tell of producers.
    pub(crate) batches: Vec<Rc<Written>>,
}

impl State {
    /// Batches that must be readable when the log starts at `start`.
    pub(crate) fn readable(&self, start: i64) -> impl Iterator<Item = &Rc<Written>> {
        self.batches.iter().filter(move |batch| batch.last_offset >= start)
    }

    /// Where a truncation to `offset` ends: no batch is cut in two.
    pub(crate) fn end_if_truncated(&self, offset: i64) -> i64 {
        let cut = self.batches.iter().find(|batch| batch.last_offset >= offset);
        cut.map_or(offset.min(self.end), |batch| batch.base_offset.min(offset))
    }

    /// The newest batch of each idempotent producer.
    pub(crate) fn producers(&self) -> BTreeMap<i64, Rc<Written>> {
        let named = |batch: &Rc<Written>| Some((batch.producer_id()?, batch.clone()));
        self.batches.iter().filter_map(named).collect()
    }
}

/// A change of a log, in the order in which changes were asked for.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Create,
    Remove,
    Append(Vec<Rc<Written>>),
    DeleteRecords(i64),
    Truncate(i64),
}

/// A log's history since it was last looked at: what it held then (nothing if it did not exist), what was asked of
/// it since, and how much of that was acknowledged.
#[derive(Default)]
pub(crate) struct Twin {
    base: Option<State>,
    changes: Vec<Change>,
    acknowledged: usize,
    current: Option<State>,
    generation: u64,
}

impl Twin {
    /// Number of creations and removals asked for.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// What the log holds if nothing is lost.
    pub(crate) fn current(&self) -> Option<&State> {
        self.current.as_ref()
    }

    /// Notes a change that is being asked for; gives its number, for [`Twin::acknowledge`].
    pub(crate) fn ask(&mut self, change: Change) -> usize {
        apply(&mut self.current, &change);
        self.generation += u64::from(matches!(change, Change::Create | Change::Remove));
        self.changes.push(change);
        self.changes.len()
    }

    /// The log answered that the newest change did not take place.
    pub(crate) fn refused(&mut self) {
        self.changes.pop();
        self.current = self.after(self.changes.len());
    }

    pub(crate) fn acknowledge(&mut self, number: usize) {
        self.acknowledged = self.acknowledged.max(number);
    }

    /// The log says that everything below `durable` is stable: readers may have seen it.
    pub(crate) fn observe_durable(&mut self, durable: i64) {
        while let Some(Change::Append(batches)) = self.changes.get(self.acknowledged) {
            if batches.iter().any(|batch| batch.last_offset >= durable) {
                return;
            }
            self.acknowledged += 1;
        }
    }

    fn after(&self, changes: usize) -> Option<State> {
        let mut state = self.base.clone();
        self.changes[..changes].iter().for_each(|change| apply(&mut state, change));
        state
    }

    /// Every state that a crash may leave: all that was acknowledged, then a prefix of the rest. Batches of one append
    /// are separate in this: only each batch is all or nothing.
    pub(crate) fn possible(&self) -> Vec<Option<State>> {
        let mut state = self.after(self.acknowledged);
        let mut possible = vec![state.clone()];
        for change in &self.changes[self.acknowledged..] {
            let steps = match change {
                Change::Append(batches) => batches.iter().map(|b| Change::Append(vec![b.clone()])).collect(),
                other => vec![other.clone()],
            };
            for step in steps {
                apply(&mut state, &step);
                possible.push(state.clone());
            }
        }
        possible
    }

    /// The history in words, for messages.
    pub(crate) fn story(&self) -> String {
        let word = |change: &Change| match change {
            Change::Append(batches) => format!("append {}", batches[0].base_offset),
            other => format!("{other:?}"),
        };
        let words: Vec<String> = self.changes.iter().map(word).collect();
        let from = self.base.as_ref().map(|state| state.start..state.end);
        format!("from {from:?}, {} acknowledged of {words:?}", self.acknowledged)
    }

    /// Goes on from what was found.
    pub(crate) fn settle(&mut self, found: Option<State>) {
        self.base = found;
        self.current = self.base.clone();
        self.changes.clear();
        self.acknowledged = 0;
    }
}

fn apply(state: &mut Option<State>, change: &Change) {
    match (state, change) {
        (state, Change::Create) => *state = Some(State::default()),
        (state, Change::Remove) => *state = None,
        (Some(state), Change::Append(batches)) => {
            state.end = batches.last().map_or(state.end, |batch| batch.last_offset + 1);
            state.batches.extend(batches.iter().cloned());
        }
        (Some(state), Change::DeleteRecords(offset)) => state.start = state.start.max(*offset),
        (Some(state), Change::Truncate(offset)) => {
            state.end = state.end_if_truncated(*offset);
            let end = state.end;
            state.batches.retain(|batch| batch.base_offset < end);
            state.start = state.start.min(end);
        }
        (None, change) => panic!("{change:?} of a log that does not exist"),
    }
}
