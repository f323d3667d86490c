//! The allocator, and how long it keeps pages that are free.
#![allow(unsafe_code)]

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

/// Request buffers come and go at the rate of the network: this allocator backs them with large pages and frees them
/// for less (decision 5).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3's `mi_option_t`, which its bindings leave out.
const PURGE_DELAY: mi_option_t = 15;
/// Longer than the time from one checkpoint of the journal to the next under full load, over which buffers grow and shrink by
/// hundreds of mebibytes (decision 5).
const PURGE_DELAY_MS: i64 = 30_000;

/// Lets the allocator give free pages back each half minute instead of each second, unless the environment says otherwise
/// (`MIMALLOC_PURGE_DELAY`, in milliseconds; -1 is never). Call it before other threads are there.
pub(crate) fn keep_free_pages() {
    // SAFETY: takes no pointers. The options are plain values that other threads read, of which there are none yet.
    unsafe {
        // Has it look into the environment, which goes before what is set next.
        mi_option_get(PURGE_DELAY);
        mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS);
    }
}

/// Gives back to the system what is free, if that time is over since something came free. The allocator does so by itself only
/// while memory comes and goes; of a load that ended it would keep everything.
pub(crate) fn give_back() {
    // SAFETY: takes no pointers, and may be called at any time from any thread.
    unsafe { mi_collect(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the allocator has itself. The neighbours of the option have 1 and 0, and no other has this.
    const UNSET_MS: i64 = 1000;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        assert!(std::env::var_os("MIMALLOC_PURGE_DELAY").is_none(), "this test needs it unset");
        // SAFETY: takes no pointers. Nobody else sets an option, and what other threads read is one value or the other.
        let value = || unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(value(), UNSET_MS);
        keep_free_pages();
        assert_eq!(value(), PURGE_DELAY_MS);
    }
}
