//! Heap memory aligned to [`BLOCK`], for direct I/O. Unsafe, because the standard library has no safe way to
//! allocate with an alignment, and because the kernel fills buffers behind the compiler's back.
//!
//! Buffers that are dropped go to a small pool of the dropping thread: fresh memory from the system costs a page
//! fault per 4 KiB, more than copying into it. The pool is bounded by [`POOL_BYTES_MAX`].
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytes::Bytes;

use super::BLOCK;

/// Memory kept for reuse by each thread, in bytes.
const POOL_BYTES_MAX: usize = 32 << 20;
/// Buffers above this many bytes are never kept.
const POOLED_CAPACITY_MAX: usize = 4 << 20;
/// Size classes are powers of two: 4 KiB, 8 KiB, ... 4 MiB.
const CLASSES: usize = (POOLED_CAPACITY_MAX / BLOCK).ilog2() as usize + 1;

/// A byte buffer of fixed capacity whose memory starts at a multiple of [`BLOCK`]. It fills like a `Vec` that
/// never reallocates; only initialised bytes are ever visible.
pub struct AlignedBuf {
    memory: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: the buffer owns its memory alone; nothing in it is tied to a thread.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared reference gives only shared access to initialised bytes.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// An empty buffer that takes at least `capacity` bytes (rounded up to a power of two of blocks, or to whole
    /// blocks above 4 MiB).
    pub fn with_capacity(capacity: usize) -> AlignedBuf {
        let capacity = AlignedBuf::capacity_for(capacity);
        let memory = POOL.try_with(|pool| pool.borrow_mut().take(capacity)).ok().flatten();
        let memory = memory.unwrap_or_else(|| {
            let layout = layout(capacity);
            // SAFETY: the layout's size is at least one block, hence not zero.
            NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
        });
        AlignedBuf { memory, capacity, len: 0 }
    }

    /// Bytes of memory that a buffer for `len` bytes takes.
    pub fn capacity_for(len: usize) -> usize {
        let blocks = len.div_ceil(BLOCK).max(1);
        if blocks * BLOCK <= POOLED_CAPACITY_MAX {
            blocks.next_power_of_two() * BLOCK
        } else {
            blocks * BLOCK
        }
    }

    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let mut buf = AlignedBuf::with_capacity(len);
        buf.extend_zeros(len);
        buf
    }

    /// Bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that can still be added.
    pub fn room(&self) -> usize {
        self.capacity - self.len
    }

    /// Adds `bytes` at the end. Panics beyond the capacity.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "aligned buffer overrun");
        // SAFETY: `bytes` cannot overlap memory this buffer owns alone, and the range is within the capacity.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory.as_ptr().add(self.len), bytes.len());
        }
        self.len += bytes.len();
    }

    /// Adds `count` zero bytes at the end. Panics beyond the capacity.
    pub fn extend_zeros(&mut self, count: usize) {
        assert!(count <= self.room(), "aligned buffer overrun");
        // SAFETY: the range is within the capacity and owned.
        unsafe { self.memory.as_ptr().add(self.len).write_bytes(0, count) };
        self.len += count;
    }

    /// Adds zeros up to the next multiple of [`BLOCK`].
    pub fn pad_to_block(&mut self) {
        self.extend_zeros(self.len.next_multiple_of(BLOCK) - self.len);
    }

    /// Shortens it to `len` bytes; does nothing if it is not longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes as a shared, read-only handle, without copying. Its slices at multiples of [`BLOCK`] are aligned.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Start of the memory, for the kernel to fill: `capacity` bytes, valid while the buffer lives.
    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.as_ptr()
    }

    /// Declares the first `len` bytes initialised.
    ///
    /// # Safety
    /// They must have been written (by the kernel), and `len` must not exceed the capacity.
    pub(super) unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.capacity);
        self.len = len;
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are initialised and owned.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the first `len` bytes are initialised, owned, and borrowed alone through `&mut self`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity)
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        let kept = POOL.try_with(|pool| pool.borrow_mut().put(self.memory, self.capacity)).unwrap_or(false);
        if !kept {
            // SAFETY: allocated with this very layout, and not used after.
            unsafe { dealloc(self.memory.as_ptr(), layout(self.capacity)) };
        }
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, BLOCK).unwrap_or_else(|_| panic!("buffer of {capacity} bytes"))
}

/// Free buffers of one thread, by size class.
struct Pool {
    free: [Vec<NonNull<u8>>; CLASSES],
    bytes: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: [const { Vec::new() }; CLASSES], bytes: 0 }) };
}

impl Pool {
    fn take(&mut self, capacity: usize) -> Option<NonNull<u8>> {
        let memory = self.free.get_mut(class(capacity)?)?.pop()?;
        self.bytes -= capacity;
        Some(memory)
    }

    /// Keeps the memory if there is room for it; says whether it did.
    fn put(&mut self, memory: NonNull<u8>, capacity: usize) -> bool {
        let Some(class) = class(capacity) else { return false };
        if self.bytes + capacity > POOL_BYTES_MAX {
            return false;
        }
        self.bytes += capacity;
        self.free[class].push(memory);
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (class, list) in self.free.iter_mut().enumerate() {
            for memory in list.drain(..) {
                // SAFETY: buffers of this class were allocated with this layout and are owned by the pool.
                unsafe { dealloc(memory.as_ptr(), layout(BLOCK << class)) };
            }
        }
    }
}

/// Size class of a capacity, if buffers of that size are pooled.
fn class(capacity: usize) -> Option<usize> {
    let pooled = capacity <= POOLED_CAPACITY_MAX && capacity.is_power_of_two();
    pooled.then(|| (capacity / BLOCK).ilog2() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::is_aligned;

    #[test]
    fn fills_pads_and_freezes_aligned() {
        let mut buf = AlignedBuf::with_capacity(5000);
        assert_eq!(buf.capacity(), 8192);
        buf.extend_from_slice(&[7; 4999]);
        buf.pad_to_block();
        assert_eq!((buf.len(), buf[4998], buf[4999]), (8192, 7, 0));
        let bytes = buf.freeze();
        assert!(is_aligned(&bytes) && is_aligned(&bytes.slice(4096..)) && !is_aligned(&bytes.slice(1..)));
    }

    #[test]
    fn reused_memory_shows_nothing_of_its_past() {
        drop(AlignedBuf::zeroed(4096));
        let mut buf = AlignedBuf::with_capacity(4096);
        buf.extend_from_slice(&[1; 4096]);
        let address = buf.as_ptr();
        drop(buf);
        let again = AlignedBuf::zeroed(100);
        assert_eq!(address, again.as_ptr());
        assert_eq!(&again[..], &[0; 100]);
    }

    #[test]
    fn the_pool_is_bounded_and_large_buffers_bypass_it() {
        let many: Vec<_> = (0..20).map(|_| AlignedBuf::with_capacity(4 << 20)).collect();
        drop(many);
        drop(AlignedBuf::zeroed((4 << 20) + 1));
        POOL.with(|pool| assert!(pool.borrow().bytes <= POOL_BYTES_MAX));
    }

    #[test]
    #[should_panic(expected = "overrun")]
    fn never_grows() {
        AlignedBuf::with_capacity(4096).extend_from_slice(&[0; 4097]);
    }
}
