//! One simulated file: what reads see, what is stable, and the changes in between.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::Crash;
use crate::disk::{AlignedBuf, BLOCK};

/// A device writes a sector wholly or not at all.
const SECTOR: usize = 512;

pub(super) type InodeRef = Rc<RefCell<Inode>>;

#[derive(Default)]
pub(super) struct Inode {
    current: Content,
    stable: Content,
    /// Changes that are not known to be stable.
    pending: Vec<Pending>,
    begun: u64,
    completed: u64,
}

/// Whole blocks by number; an absent block reads as zeros.
#[derive(Default, Clone)]
struct Content {
    blocks: BTreeMap<u64, Bytes>,
    size: u64,
}

struct Pending {
    id: u64,
    change: Change,
    state: State,
}

#[derive(Clone)]
enum Change {
    Write { position: u64, data: Bytes },
    Allocate { size: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its write failed: it may or may not be on the disk, and no sync vouches for it.
    Failed,
    /// A sync that covered it failed: no later sync of the same process vouches for it.
    Doubtful,
    /// Completed, with its number in the order of completion.
    Completed(u64),
    InFlight,
}

impl Inode {
    pub(super) fn new_ref() -> InodeRef {
        InodeRef::default()
    }

    /// A file of this content, all of it stable.
    pub(super) fn stable_ref(content: &Bytes) -> InodeRef {
        let mut stable = Content { size: content.len() as u64, ..Content::default() };
        for (number, at) in (0..content.len()).step_by(BLOCK).enumerate() {
            let block = content.slice(at..content.len().min(at + BLOCK));
            if block.iter().any(|byte| *byte != 0) {
                stable.blocks.insert(number as u64, whole_block(block));
            }
        }
        Rc::new(RefCell::new(Inode { current: stable.clone(), stable, ..Inode::default() }))
    }

    pub(super) fn size(&self) -> u64 {
        self.current.size
    }

    /// How many changes completed so far: what a sync called now covers.
    pub(super) fn completed(&self) -> u64 {
        self.completed
    }

    pub(super) fn begin_write(&mut self, position: u64, data: Bytes) -> u64 {
        let change = Change::Write { position, data };
        let overlap = |other: &Pending| other.state == State::InFlight && other.change.overlaps(&change);
        assert!(!self.pending.iter().any(overlap), "overlapping writes in flight at {position}");
        self.begun += 1;
        self.pending.push(Pending { id: self.begun, change, state: State::InFlight });
        self.begun
    }

    pub(super) fn finish_write(&mut self, id: u64) {
        self.completed += 1;
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
            pending.state = State::Completed(self.completed);
            self.current.apply(&pending.change);
        }
    }

    /// Nothing of it was written, as far as reads show.
    pub(super) fn refuse_write(&mut self, id: u64) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
            pending.state = State::Failed;
        }
    }

    /// Of every other one the first half of its blocks was written.
    pub(super) fn fail_write(&mut self, id: u64) {
        self.refuse_write(id);
        let Some(pending) = self.pending.iter().find(|pending| pending.id == id && id % 2 == 1) else {
            return;
        };
        if let Change::Write { position, data } = &pending.change {
            let half = data.slice(..data.len() / 2 / BLOCK * BLOCK);
            self.current.apply(&Change::Write { position: *position, data: half });
        }
    }

    pub(super) fn allocate(&mut self, size: u64) {
        self.begun += 1;
        self.completed += 1;
        let change = Change::Allocate { size };
        self.current.apply(&change);
        self.pending.push(Pending { id: self.begun, change, state: State::Completed(self.completed) });
    }

    /// Makes stable what had completed when the sync was called.
    pub(super) fn sync(&mut self, covered: u64) {
        let is_covered = |pending: &Pending| matches!(pending.state, State::Completed(n) if n <= covered);
        let mut synced: Vec<Pending> = self.pending.extract_if(.., |pending| is_covered(pending)).collect();
        // Writes that overlap are never in flight together: they completed in the order in which they began.
        synced.sort_by_key(|pending| pending.id);
        for pending in synced {
            self.stable.apply(&pending.change);
            // What failed below a stable write can no longer come to light.
            self.pending.retain(|other| {
                let failed = matches!(other.state, State::Failed | State::Doubtful);
                !failed || other.id > pending.id || !other.change.overlaps(&pending.change)
            });
        }
    }

    /// Of what the failed sync would have covered every other write is lost, as reads show at once; the rest stays in doubt
    /// for good.
    pub(super) fn fail_sync(&mut self, covered: u64) {
        for pending in &mut self.pending {
            if matches!(pending.state, State::Completed(n) if n <= covered) {
                pending.state = State::Doubtful;
            }
        }
        let is_write = |pending: &Pending| matches!(pending.change, Change::Write { .. });
        self.pending
            .retain(|pending| pending.state != State::Doubtful || !is_write(pending) || pending.id % 2 == 0);
        let mut current = self.stable.clone();
        let done = |pending: &&Pending| matches!(pending.state, State::Doubtful | State::Completed(_));
        let mut left: Vec<_> = self.pending.iter().filter(done).collect();
        left.sort_by_key(|pending| pending.id);
        left.iter().for_each(|pending| current.apply(&pending.change));
        self.current = current;
    }

    pub(super) fn read(&self, position: u64, len: usize) -> AlignedBuf {
        let len = len.min(self.current.size.saturating_sub(position) as usize);
        let mut buf = AlignedBuf::with_capacity(len);
        let first = position / BLOCK as u64;
        for number in first..first + len.div_ceil(BLOCK) as u64 {
            let wanted = BLOCK.min(len - buf.len());
            match self.current.blocks.get(&number) {
                Some(block) => buf.extend_from_slice(&block[..wanted]),
                None => buf.extend_zeros(wanted),
            }
        }
        buf
    }

    /// What is left of the file when the world ends.
    pub(super) fn crash(&mut self, crash: Crash, random: &mut dyn FnMut(u64) -> u64) {
        match crash {
            Crash::Kill => {
                let in_flight = |pending: &Pending| pending.state == State::InFlight;
                let ids: Vec<u64> = self.pending.iter().filter(|p| in_flight(p)).map(|p| p.id).collect();
                for id in ids {
                    if random(2) == 0 {
                        self.finish_write(id);
                    }
                }
                self.pending.retain(|pending| !in_flight(pending));
                // The system tells an error to the process that was killed. The next one's flush asks the device again.
                for pending in self.pending.iter_mut().filter(|pending| pending.state == State::Doubtful) {
                    pending.state = State::Completed(0);
                }
            }
            Crash::PowerLoss => {
                let mut pending = std::mem::take(&mut self.pending);
                pending.sort_by_key(|pending| pending.id);
                // Extremes are as telling as mixtures: sometimes everything went, or everything stayed.
                let fate = random(4);
                for pending in pending {
                    match if fate < 2 { fate } else { random(3) } {
                        0 => {}
                        1 => self.stable.apply(&pending.change),
                        _ => self.stable.apply_torn(&pending.change, random),
                    }
                }
                self.current = self.stable.clone();
            }
        }
    }
}

impl Change {
    fn overlaps(&self, other: &Change) -> bool {
        match (self, other) {
            (Change::Write { position: a, data: x }, Change::Write { position: b, data: y }) => {
                *a < b + y.len() as u64 && *b < a + x.len() as u64
            }
            _ => false,
        }
    }
}

impl Content {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Allocate { size } => self.size = self.size.max(*size),
            Change::Write { position, data } => {
                let first = position / BLOCK as u64;
                for (index, number) in (first..).take(data.len().div_ceil(BLOCK)).enumerate() {
                    let start = index * BLOCK;
                    let block = data.slice(start..data.len().min(start + BLOCK));
                    self.blocks.insert(number, whole_block(block));
                }
                self.size = self.size.max(position + data.len() as u64);
            }
        }
    }

    /// Applies some sectors of a write: a prefix, a suffix, or any; in half of all cases one block comes out as garbage.
    fn apply_torn(&mut self, change: &Change, random: &mut dyn FnMut(u64) -> u64) {
        let Change::Write { position, data } = change else { return };
        let sectors = data.len().div_ceil(SECTOR) as u64;
        let (style, cut) = (random(6), random(sectors + 1));
        let mut torn = Content::default();
        torn.apply(change);
        let first = position / BLOCK as u64;
        let garbage = first + random(data.len().div_ceil(BLOCK).max(1) as u64);
        for (number, new) in torn.blocks {
            let mut block = self.blocks.get(&number).map_or_else(|| vec![0; BLOCK], |old| old.to_vec());
            for (index, sector) in block.chunks_mut(SECTOR).enumerate() {
                let at = (number - first) * (BLOCK / SECTOR) as u64 + index as u64;
                let applied = match style {
                    0 => at < cut,
                    1 => at >= cut,
                    _ => random(2) == 0,
                };
                if style >= 3 && number == garbage {
                    sector.fill(random(256) as u8);
                } else if applied {
                    sector.copy_from_slice(&new[index * SECTOR..][..SECTOR]);
                }
            }
            self.blocks.insert(number, block.into());
        }
        if random(2) == 0 {
            self.size = self.size.max(torn.size);
        }
    }
}

/// Pads the last block of a file written without alignment (`write_small`).
fn whole_block(block: Bytes) -> Bytes {
    if block.len() == BLOCK {
        return block;
    }
    let mut padded = block.to_vec();
    padded.resize(BLOCK, 0);
    padded.into()
}
