//! The allocator, and how long it keeps pages that are free.
#![allow(unsafe_code)]

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set, mi_option_t};
use mimalloc::MiMalloc;

/// Request buffers come and go at the rate of the network: this allocator backs them with large pages and frees them
/// for less (decision 5).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3's `mi_option_t`, which its bindings leave out.
const PURGE_DELAY: mi_option_t = 15;
/// What the allocator has itself.
const PURGE_DELAY_UNSET_MS: i64 = 1000;
/// Longer than the time from one checkpoint of the journal to the next under full load, over which buffers grow and shrink by
/// hundreds of mebibytes (decision 5).
const PURGE_DELAY_MS: i64 = 30_000;

/// Lets the allocator keep free pages for half a minute, unless the environment says otherwise (`MIMALLOC_PURGE_DELAY`, in
/// milliseconds; -1 is for ever). Call it before there is a load.
pub(crate) fn keep_free_pages() {
    // SAFETY: takes no pointers, and may be called at any time from any thread.
    unsafe {
        if mi_option_get(PURGE_DELAY) == PURGE_DELAY_UNSET_MS {
            mi_option_set(PURGE_DELAY, PURGE_DELAY_MS);
        }
    }
}

/// Gives back to the system what has been free for longer than that. The allocator does so by itself only while memory comes
/// and goes; of a load that ended it would keep everything.
pub(crate) fn give_back() {
    // SAFETY: takes no pointers, and may be called at any time from any thread.
    unsafe { mi_collect(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: as above.
        let value = || unsafe { mi_option_get(PURGE_DELAY) };
        // Its neighbours have 1 and 0: nothing else has this value from the start.
        assert_eq!(value(), PURGE_DELAY_UNSET_MS);
        keep_free_pages();
        assert_eq!(value(), PURGE_DELAY_MS);
        keep_free_pages();
        assert_eq!(value(), PURGE_DELAY_MS);
    }
}
