//! The allocator, and how long it keeps pages that are free.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_collect, mi_free, mi_malloc, mi_malloc_aligned, mi_option_get, mi_option_set_default, mi_option_t,
    mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// Request buffers come and go at the rate of the network: this allocator backs them with large pages and frees them
/// for less (decision 5).
#[global_allocator]
static ALLOCATOR: Heap = Heap;

/// mimalloc, asked for an alignment only where it would not give that anyway: asked, it goes a longer way, by which it may come
/// to larger blocks than it needs, unless those of that size are a power of two up to 4 KiB or a small one is at hand (decision 19).
struct Heap;

impl Heap {
    /// Alignment that all its memory has, whatever the size: its blocks have lengths of whole words, and begin at multiples of
    /// that.
    const ALIGN_ALWAYS: usize = size_of::<usize>();

    fn is_plain(layout: Layout) -> bool {
        layout.align() <= Heap::ALIGN_ALWAYS
    }
}

// SAFETY: mimalloc's functions do what these ask for: memory of at least that size, aligned as asked or by `ALIGN_ALWAYS`, or
// null. Its size classes are multiples of a word (`mi_bin`), and the first block of a page lies at one
// (`mi_arenas_page_alloc_fresh`). `mi_free` takes either kind, and a layout keeps to its kind. None of them unwinds.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: takes no pointers, and any size; the alignment is a power of two.
        let memory = unsafe {
            if Heap::is_plain(layout) {
                mi_malloc(layout.size())
            } else {
                mi_malloc_aligned(layout.size(), layout.align())
            }
        };
        memory.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let memory = unsafe {
            if Heap::is_plain(layout) {
                mi_zalloc(layout.size())
            } else {
                mi_zalloc_aligned(layout.size(), layout.align())
            }
        };
        memory.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: it came from here, and is given back once.
        unsafe { mi_free(memory.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: it came from here with this layout; where that fails it stays as it is.
        let memory = unsafe {
            if Heap::is_plain(layout) {
                mi_realloc(memory.cast(), size)
            } else {
                mi_realloc_aligned(memory.cast(), size, layout.align())
            }
        };
        memory.cast()
    }
}

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

    /// Sizes up to those that have pages of their own, some held while others come and go, grown, shrunk, and zeroed.
    #[test]
    #[allow(clippy::unwrap_used)]
    fn memory_is_aligned_zeroed_and_kept() {
        for align in [1, 2, 4, 8, 16, 64, 4096] {
            let mut held = Vec::new();
            for size in (1..1200).chain((1200..300_000).step_by(1111)) {
                let layout = Layout::from_size_align(size, align).unwrap();
                let grown = Layout::from_size_align(size + size / 2 + 1, align).unwrap();
                // SAFETY: each is freed once, with its layout, and written to within it.
                unsafe {
                    let zeroed = ALLOCATOR.alloc_zeroed(layout);
                    assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|byte| *byte == 0));
                    let memory = ALLOCATOR.alloc(layout);
                    assert!(is_aligned(zeroed, align) && is_aligned(memory, align), "size {size}");
                    memory.write_bytes(size as u8, size);
                    let memory = ALLOCATOR.realloc(memory, layout, grown.size());
                    assert!(is_aligned(memory, align), "size {size}");
                    let kept = std::slice::from_raw_parts(memory, size);
                    assert!(kept.iter().all(|byte| *byte == size as u8), "size {size}, alignment {align}");
                    zeroed.write_bytes(0xff, size);
                    let half = Layout::from_size_align(size.div_ceil(2), align).unwrap();
                    let zeroed = ALLOCATOR.realloc(zeroed, layout, half.size());
                    assert!(is_aligned(zeroed, align) && *zeroed.add(half.size() - 1) == 0xff, "size {size}");
                    ALLOCATOR.dealloc(zeroed, half);
                    held.push((memory, grown));
                }
                if held.len() > 50 {
                    let (memory, layout) = held.swap_remove(size % 50);
                    // SAFETY: it is not held any more.
                    unsafe { ALLOCATOR.dealloc(memory, layout) };
                }
            }
            for (memory, layout) in held {
                // SAFETY: as above.
                unsafe { ALLOCATOR.dealloc(memory, layout) };
            }
        }
    }

    fn is_aligned(memory: *const u8, align: usize) -> bool {
        !memory.is_null() && (memory as usize).is_multiple_of(align)
    }

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
