//! Whether small commits leave all they have to the journal and write behind, or write it straight to segments.
//!
//! Inline is faster for as long as write behind keeps up. Where it does not, the device takes bytes twice that it has no
//! time for, and what piled up makes commits slow for a while. So after that they go straight for some time, and for
//! twice as long each time that trying again fails; but no longer than the load lasts.

use std::cell::Cell;

use crate::state::add;

/// Ticks that commits go straight after write behind fell behind, the first time and at most.
pub(crate) const TICKS_MIN: u32 = 8;
const TICKS_MAX: u32 = 512;
/// Ticks in a row with less than half the load after which commits may go inline again.
const TICKS_LOW: u32 = 3;

/// See the module. Its clock is [`crate::Store::tick`], about once a second.
#[derive(Debug)]
pub(crate) struct Inline {
    /// Ticks for which commits still go straight.
    straight: Cell<u32>,
    /// What comes next, should write behind fall behind again.
    next: Cell<u32>,
    /// Ticks since commits may go inline again.
    held: Cell<u32>,
    /// Some did since then.
    used: Cell<bool>,
    /// Bytes committed since the last tick, and in the one before.
    bytes: Cell<u64>,
    bytes_before: Cell<u64>,
    /// Bytes a tick that were too many, and ticks in a row with less than half of them.
    too_many: Cell<u64>,
    low: Cell<u32>,
}

impl Default for Inline {
    fn default() -> Self {
        Inline {
            straight: Cell::new(0),
            next: Cell::new(TICKS_MIN),
            held: Cell::new(0),
            used: Cell::new(false),
            bytes: Cell::new(0),
            bytes_before: Cell::new(0),
            too_many: Cell::new(0),
            low: Cell::new(0),
        }
    }
}

impl Inline {
    /// So much is committed.
    pub(crate) fn note(&self, bytes: usize) {
        add(&self.bytes, bytes as u64);
    }

    /// Whether a small commit goes inline, now that write behind `keeps_up` or does not.
    pub(crate) fn may(&self, keeps_up: bool) -> bool {
        if self.straight.get() > 0 {
            return false;
        }
        if keeps_up {
            self.used.set(true);
            return true;
        }
        if self.used.replace(false) {
            self.straight.set(self.next.get());
            self.next.set((2 * self.next.get()).min(TICKS_MAX));
            self.too_many.set(self.bytes.get().max(self.bytes_before.get()));
            self.low.set(0);
        }
        false
    }

    /// Time goes by. What held for as long as commits would have gone straight makes that shorter again.
    pub(crate) fn tick(&self) {
        let bytes = self.bytes.replace(0);
        self.bytes_before.set(bytes);
        if self.straight.get() > 0 {
            let low = bytes < self.too_many.get() / 2;
            self.low.set(if low { self.low.get() + 1 } else { 0 });
            let over = self.low.get() >= TICKS_LOW;
            self.straight.set(if over { 0 } else { self.straight.get() - 1 });
            self.held.set(0);
            return;
        }
        self.held.set(self.held.get() + 1);
        if self.held.get() >= self.next.get() {
            self.held.set(0);
            self.next.set((self.next.get() / 2).max(TICKS_MIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: usize = 1000;

    /// Ticks with so many bytes each until commits may go inline again.
    fn ticks_straight(inline: &Inline, bytes: usize) -> u32 {
        let ticks = (0..).find(|_| {
            let may = inline.may(true);
            inline.note(bytes);
            inline.tick();
            may
        });
        ticks.unwrap()
    }

    /// Goes inline and falls behind so many times, and says how long commits then went straight.
    fn fail(inline: &Inline, times: usize) -> Vec<u32> {
        let once = |_| {
            assert!(inline.may(true));
            inline.note(LOAD);
            assert!(!inline.may(false));
            assert!(!inline.may(true), "not at once");
            ticks_straight(inline, LOAD)
        };
        (0..times).map(once).collect()
    }

    #[test]
    fn each_failure_has_commits_go_straight_for_twice_as_long() {
        let inline = Inline::default();
        assert!(!inline.may(false), "nothing went inline that could have failed");
        assert_eq!(fail(&inline, 8), [8, 16, 32, 64, 128, 256, 512, 512]);
    }

    #[test]
    fn what_holds_is_trusted_again() {
        let inline = Inline::default();
        assert_eq!(fail(&inline, 3), [8, 16, 32]);
        // 64, then 32 and 16 ticks; one of the first went by.
        for _ in 0..63 + 32 + 16 {
            assert!(inline.may(true));
            inline.tick();
        }
        assert_eq!(fail(&inline, 1), [8]);
    }

    #[test]
    fn less_load_has_another_try() {
        let inline = Inline::default();
        assert_eq!(fail(&inline, 3), [8, 16, 32]);
        inline.note(LOAD);
        assert!(!inline.may(false));
        // A tick that came late and one that came early are not less load.
        for bytes in [0, 2 * LOAD, 0, 0, LOAD / 2] {
            inline.note(bytes);
            inline.tick();
            assert!(!inline.may(true), "{bytes}");
        }
        assert_eq!(ticks_straight(&inline, LOAD / 2 - 1), 3);
    }
}
