//! Goes through what runs tell of one log.

use std::rc::Rc;

use super::FindError;
use super::format::Entry;
use super::merge::{ENTRIES_PER_TURN, piece_bytes};
use super::run::{Blocks, Run};
use crate::disk::Disk;
use crate::producer::Producer;

/// Shows `visit` the newest entry of each producer of the log, by ascending id. Runs are given oldest first.
pub(super) async fn each_of<D: Disk>(
    disk: &D,
    runs: &[Rc<Run<D>>],
    log: u64,
    mut visit: impl FnMut(u64, i64, Producer),
) -> Result<(), FindError> {
    let piece_bytes = piece_bytes(runs.len());
    let mut cursors = Vec::new();
    for run in runs {
        let span = run.span((log, i64::MIN), (log, i64::MAX));
        let blocks = Blocks::new(run.clone(), span, piece_bytes);
        let mut cursor = Cursor { log, blocks, entries: Vec::new().into_iter(), head: None };
        cursor.advance().await?;
        cursors.push(cursor);
    }
    for turn in 1.. {
        let Some(id) = cursors.iter().filter_map(Cursor::id).min() else { break };
        let mut newest = None;
        for cursor in cursors.iter_mut().filter(|cursor| cursor.id() == Some(id)) {
            newest = cursor.head.take();
            cursor.advance().await?;
        }
        if let Some(Entry { first, producer, .. }) = newest {
            visit(first, id, producer);
        }
        if turn % ENTRIES_PER_TURN == 0 {
            disk.yield_now().await;
        }
    }
    Ok(())
}

/// Goes through a run's entries of the log.
struct Cursor<D: Disk> {
    log: u64,
    blocks: Blocks<D>,
    entries: std::vec::IntoIter<Entry>,
    head: Option<Entry>,
}

impl<D: Disk> Cursor<D> {
    fn id(&self) -> Option<i64> {
        self.head.as_ref().map(|entry| entry.key.1)
    }

    async fn advance(&mut self) -> Result<(), FindError> {
        loop {
            self.head = self.entries.find(|entry| entry.key.0 == self.log);
            if self.head.is_some() {
                return Ok(());
            }
            match self.blocks.next().await {
                Some(entries) => self.entries = entries?.into_iter(),
                None => return Ok(()),
            }
        }
    }
}
