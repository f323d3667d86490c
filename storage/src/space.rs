//! Room on the file system: a reserve below which clients' appends are refused, so that the broker's own data,
//! checkpoints, indexes and what retention needs still find some.
//!
//! The volume is asked once a second ([`crate::Store::tick`]), after each eighth of the reserve that this store took
//! itself, and when an operation finds no space. Before appends are refused, segment files kept for reuse go. Appends are
//! taken again only when a quarter more than the reserve is free, so that they are not refused and taken in turn.
//!
//! What the reserve has to bear grows by what is acknowledged and has no room in its segment yet, and by the files of
//! the journal that are still to be made (as far as they are no more than an eighth of the volume).

use std::cell::Cell;
use std::rc::Rc;

use crate::disk::{Disk, Volume};
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, StoreInner, add};

/// The reserve where none is configured: a hundredth of the volume within these bounds, and at most
/// [`VOLUME_SHARE_MAX`] of it.
const RESERVE_BYTES: std::ops::RangeInclusive<u64> = (256 << 20)..=(2 << 30);
/// Most of a small volume that is kept back: one part in so many.
const VOLUME_SHARE_MAX: u64 = 16;
/// Most of the volume that is kept for journal files not made yet: one part in so many.
const JOURNAL_SHARE_MAX: u64 = 8;

/// Times that the volume is asked again before appends are refused for what was taken meanwhile.
const ASKED_AGAIN_MAX: u32 = 3;

/// What a store knows of the room on its file system.
pub(crate) struct Space {
    /// The reserve as configured.
    configured: Option<u64>,
    /// As it was asked last; `None` if it could not be asked.
    volume: Cell<Option<Volume>>,
    /// Bytes that this store took since.
    taken: Cell<u64>,
    /// Bytes that have to be free for clients' appends to be taken.
    wanted: Cell<u64>,
    low: Cell<bool>,
    asking: Cell<bool>,
    /// The last line of the log said that appends are refused.
    told: Cell<bool>,
}

/// The reserve of a volume of so many bytes.
pub(crate) fn reserve_bytes(configured: Option<u64>, total: u64) -> u64 {
    let by_size = (total / 100).clamp(*RESERVE_BYTES.start(), *RESERVE_BYTES.end());
    configured.unwrap_or(by_size.min(total / VOLUME_SHARE_MAX))
}

/// Whether so little is free that clients' appends are refused.
fn is_low(was_low: bool, usable: u64, wanted: u64) -> bool {
    usable < if was_low { wanted.saturating_add(wanted / 4) } else { wanted }
}

impl Space {
    pub(crate) fn new(configured: Option<u64>) -> Space {
        Space {
            configured,
            volume: Cell::new(None),
            taken: Cell::new(0),
            wanted: Cell::new(0),
            low: Cell::new(false),
            asking: Cell::new(false),
            told: Cell::new(false),
        }
    }

    /// Bytes free as far as is known; `None` if that cannot be asked.
    pub(crate) fn usable(&self) -> Option<u64> {
        Some(self.volume.get()?.usable_bytes.saturating_sub(self.taken.get()))
    }

    /// Bytes that have to be free for clients' appends to be taken.
    pub(crate) fn wanted(&self) -> u64 {
        self.wanted.get()
    }

    /// Whether less is free than has to be.
    pub(crate) fn is_low(&self) -> bool {
        self.low.get()
    }

    /// Whether taking `bytes` more would go to the reserve.
    pub(crate) fn is_tight(&self, bytes: u64) -> bool {
        self.usable().is_some_and(|usable| usable < self.wanted.get().saturating_add(bytes))
    }
}

impl<D: Disk> StoreInner<D> {
    /// Bytes of segment files that may be kept for reuse.
    pub(crate) fn recycle_bytes_max(&self) -> u64 {
        let total = self.space.volume.get().map_or(0, |volume| volume.total_bytes);
        let part = total.checked_div(self.config.recycle_volume_part).unwrap_or(0);
        part.max(self.config.recycle_bytes_max)
    }

    /// Whether appends of clients are refused for want of room.
    pub(crate) fn refuses_clients(&self) -> bool {
        self.space.is_low() || self.disk_full.get() > 0
    }

    /// The store took `bytes` of the volume.
    pub(crate) fn took_space(self: &Rc<Self>, bytes: u64) {
        add(&self.space.taken, bytes);
        let reserve = self.space.volume.get().map_or(0, |volume| self.reserve(volume));
        if self.space.taken.get() > reserve / 8 || self.space.is_tight(0) {
            self.ask_for_space();
        }
    }

    /// Has the volume asked soon, unless it is being asked.
    pub(crate) fn ask_for_space(self: &Rc<Self>) {
        if !self.space.asking.get() && !self.stopped.get() {
            let store = self.clone();
            self.spawn("room", async move { store.look_at_space().await });
        }
    }

    /// Asks the volume and decides whether clients' appends are taken.
    pub(crate) async fn look_at_space(self: &Rc<Self>) {
        if self.space.asking.replace(true) {
            return;
        }
        self.ask_volume().await;
        let mut again = ASKED_AGAIN_MAX;
        // What was taken while it was asked is perhaps in its answer already, and would count twice.
        while self.would_be_low() && self.space.taken.get() > 0 && again > 0 {
            again -= 1;
            self.ask_volume().await;
        }
        if self.would_be_low() && self.recycle.drop_spares(&self.disk).await {
            self.ask_volume().await;
        }
        self.space.asking.set(false);
        self.space.low.set(self.would_be_low());
        self.tell_of_space("");
    }

    async fn ask_volume(&self) {
        let (before, asked, unmade) = loop {
            let unmade = self.journal.known_unmade_bytes().await;
            let before = self.space.taken.get();
            let asked = self.disk.volume(&self.dir).await;
            // Of a journal file that took its room meanwhile nobody knows whether the answer has that. There are few, each is
            // made once, and who fails to make one pauses: it is asked again seldom.
            if self.journal.unmade_bytes() == Some(unmade) {
                break (before, asked, unmade);
            }
        };
        if let (Err(error), Some(_)) = (&asked, self.space.volume.get()) {
            tracing::warn!(dir = %self.dir.display(), "the volume cannot be asked for its room: {error}");
        }
        self.space.volume.set(asked.ok());
        // What was taken meanwhile is perhaps not in the answer.
        self.space.taken.set(self.space.taken.get() - before);
        let wanted = self.space.volume.get().map_or(0, |volume| {
            let journal = unmade.min(volume.total_bytes / JOURNAL_SHARE_MAX);
            self.reserve(volume).saturating_add(journal).saturating_add(self.unprepared_bytes())
        });
        self.space.wanted.set(wanted);
    }

    fn reserve(&self, volume: Volume) -> u64 {
        reserve_bytes(self.space.configured, volume.total_bytes)
    }

    fn would_be_low(&self) -> bool {
        let Space { low, wanted, .. } = &self.space;
        self.space.usable().is_some_and(|usable| is_low(low.get(), usable, wanted.get()))
    }

    /// Bytes appended for which their segments have no room yet.
    fn unprepared_bytes(&self) -> u64 {
        let of_log = |log: &Rc<LogInner<D>>| {
            let state = log.state.borrow();
            let unsettled = |segment: &&Rc<Segment<D>>| !segment.pending.borrow().is_empty();
            let missing = state.segments.iter().rev().take_while(unsettled).map(|segment| {
                let room = segment.prepared_to.get().max(DATA_START);
                segment.end.get().saturating_sub(room)
            });
            missing.sum::<u64>()
        };
        self.dirty.borrow().iter().map(of_log).sum()
    }

    /// One line in the log when appends begin to be refused, for `reason` or for want of free bytes, and one when they
    /// are taken again; whoever waits looks again.
    pub(crate) fn tell_of_space(&self, reason: &str) {
        let refuses = self.refuses_clients();
        if self.space.told.replace(refuses) == refuses {
            return;
        }
        let dir = self.dir.display();
        let (free, wanted) = (self.space.usable().unwrap_or(0), self.space.wanted());
        match (refuses, reason) {
            (true, "") => tracing::warn!(
                %dir, free, wanted,
                "the disk is full: clients' appends are refused until records or topics are deleted or there is room"
            ),
            (true, reason) => {
                tracing::warn!(%dir, free, wanted, "clients' appends are refused for want of room: {reason}");
            }
            (false, _) => {
                tracing::warn!(%dir, free, wanted, "there is room again: clients' appends are taken")
            }
        }
        self.room.wake_all();
        self.work.wake_all();
        self.spiller.changed.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_fits_the_volume() {
        let (mib, gib) = (1 << 20, 1 << 30);
        assert_eq!(reserve_bytes(None, 300 * mib), 300 * mib / 16, "a small volume");
        assert_eq!(reserve_bytes(None, 10 * gib), 256 * mib);
        assert_eq!(reserve_bytes(None, 100 * gib), gib);
        assert_eq!(reserve_bytes(None, 10_000 * gib), 2 * gib);
        assert_eq!(reserve_bytes(Some(5), 10 * gib), 5);
    }

    #[test]
    fn what_was_refused_is_taken_only_with_some_room_to_spare() {
        assert!(!is_low(false, 1000, 1000) && is_low(false, 999, 1000));
        assert!(is_low(true, 1249, 1000) && !is_low(true, 1250, 1000));
        assert!(!is_low(true, 0, 0));
    }
}
