//! Merging runs: which, and how.

use std::io;
use std::rc::Rc;

use super::format::Entry;
use super::run::{Blocks, PIECE_BYTES, Run};
use super::writer::RunWriter;
use super::{Key, RunRecord};
use crate::disk::{BLOCK, Disk};
use crate::producer::Producer;

/// Runs above which some are merged whatever their sizes.
const RUNS_MAX: usize = 8;
/// Fewest runs of similar sizes that are merged.
const SIMILAR_MIN: usize = 4;
/// Bytes that the pieces of all runs merged may take together.
const PIECES_BYTES: usize = 4 << 20;
/// Entries between two looks at whether other tasks want to run.
pub(super) const ENTRIES_PER_TURN: u64 = 512;
/// Sentences about lost blocks of one merge.
const LOST_TOLD_MAX: usize = 16;

/// The first of the newest runs that should be merged; none if they are well as they are. Takes the entries of each, oldest
/// run first.
pub(super) fn choose(sizes: &[u64]) -> Option<usize> {
    let share = |from: &usize| {
        let sizes = sizes[*from..].iter().map(|size| u128::from(*size));
        (sizes.clone().max().unwrap_or(0), sizes.sum::<u128>())
    };
    let similar = |from: &usize| {
        let (largest, total) = share(from);
        largest <= total - largest
    };
    let ripe = (0..(sizes.len() + 1).saturating_sub(SIMILAR_MIN)).find(similar);
    if ripe.is_some() || sizes.len() <= RUNS_MAX {
        return ripe;
    }
    (0..sizes.len() - 1).min_by_key(|from| {
        let (largest, total) = share(from);
        largest * 1_000_000 / total.max(1)
    })
}

/// Bytes that are read at once of each of so many runs.
pub(super) fn piece_bytes(runs: usize) -> usize {
    (PIECES_BYTES / runs.max(1)).clamp(BLOCK, PIECE_BYTES)
}

/// What a merge read and left out.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) dropped: u64,
    /// Producers that a lost block may have told of, and only older runs did.
    pub(super) stale: u64,
    pub(super) lost: Vec<String>,
    /// Lost blocks that no sentence tells of.
    untold: u64,
}

impl Tally {
    fn lose(&mut self, sentence: String) {
        if self.lost.len() < LOST_TOLD_MAX {
            self.lost.push(sentence);
        } else {
            self.untold += 1;
        }
    }

    /// The sentences, with one for those that are too many.
    pub(super) fn told(mut self) -> Vec<String> {
        if self.untold > 0 {
            self.lost.push(format!("{} more blocks were lost", self.untold));
        }
        self.lost
    }
}

/// What [`merge_into`] does with entries.
pub(super) struct Rules<'a, D: Disk> {
    pub(super) keep: &'a dyn Fn(Key, u64, &Producer) -> bool,
    /// Older runs, which are not merged.
    pub(super) older: &'a [Rc<Run<D>>],
}

impl<D: Disk> Rules<'_, D> {
    /// Whether the newest entry of a producer goes. One that an older run may have an entry of stays: else that would be the
    /// newest again.
    fn refuse(&self, entry: &Entry) -> bool {
        !(self.keep)(entry.key, entry.first, &entry.producer)
            && !self.older.iter().any(|run| run.filter.may_have(entry.key))
    }
}

/// Merges `runs`, oldest first, into the run of `writer`. Of a key the newest entry goes on. If a block is lost, what older
/// runs have of its keys may be superseded by what was lost, and goes too; `None` if some of these are not merged.
pub(super) async fn merge_into<D: Disk>(
    disk: &D,
    runs: &[Rc<Run<D>>],
    writer: &mut RunWriter<D>,
    rules: &Rules<'_, D>,
) -> io::Result<Option<Tally>> {
    let mut tally = Tally::default();
    let piece_bytes = piece_bytes(runs.len());
    let mut cursors = Vec::new();
    for run in runs {
        let blocks = Blocks::new(run.clone(), 0..run.blocks(), piece_bytes);
        let mut cursor = Cursor { blocks, entries: Vec::new().into_iter(), head: None, lost: None };
        cursor.advance(&mut tally).await;
        cursors.push(cursor);
    }
    for turn in 1.. {
        if !rules.older.is_empty() && !tally.lost.is_empty() {
            return Ok(None);
        }
        let Some(key) = cursors.iter().filter_map(Cursor::key).min() else { break };
        let mut newest = None;
        for at in (0..cursors.len()).rev() {
            if cursors[at].key() != Some(key) {
                continue;
            }
            let taken = cursors[at].head.take();
            cursors[at].advance(&mut tally).await;
            if newest.is_some() {
                tally.dropped += 1;
            }
            newest = newest.or(taken.map(|entry| (at, entry)));
        }
        let Some((at, entry)) = newest else { break };
        let stale = cursors[at + 1..].iter().any(|newer| newer.may_have_lost(key));
        if rules.refuse(&entry) {
            tally.dropped += 1;
        } else if stale {
            tally.dropped += 1;
            tally.stale += 1;
        } else if writer.push(key, entry.first, &entry.producer) {
            writer.flush().await?;
        }
        if turn % ENTRIES_PER_TURN == 0 {
            disk.yield_now().await;
        }
    }
    Ok(Some(tally))
}

/// Goes through the entries of a run.
struct Cursor<D: Disk> {
    blocks: Blocks<D>,
    entries: std::vec::IntoIter<Entry>,
    head: Option<Entry>,
    /// The keys of blocks lost on the way to the head, or at the end. Those lost before another sound block lie below
    /// the keys that are yet to come.
    lost: Option<(Key, Option<Key>)>,
}

impl<D: Disk> Cursor<D> {
    fn key(&self) -> Option<Key> {
        self.head.as_ref().map(|entry| entry.key)
    }

    async fn advance(&mut self, tally: &mut Tally) {
        self.head = self.entries.next();
        let mut losing = false;
        while self.head.is_none() {
            match self.blocks.next().await {
                None => return,
                Some(Ok(entries)) => {
                    self.entries = entries.into_iter();
                    self.head = self.entries.next();
                }
                Some(Err(error)) => {
                    let (from, to) = self.blocks.range_of_last();
                    let from = self.lost.filter(|_| losing).map_or(from, |(from, _)| from);
                    self.lost = Some((from, to));
                    losing = true;
                    tally.lose(error.to_string());
                }
            }
        }
    }

    /// Whether the key may have been in a block that was lost.
    fn may_have_lost(&self, key: Key) -> bool {
        let last = self.blocks.run().last;
        self.lost.is_some_and(|(from, to)| key >= from && to.map_or(key <= last, |to| key < to))
    }
}

/// Sizes of runs by which [`choose`] goes.
pub(super) fn sizes(records: &[RunRecord]) -> Vec<u64> {
    records.iter().map(|record| record.producers).collect()
}
