//! A private io_uring over a fixed set of files and one buffer: whole-block writes, flushes, completions.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, types};

/// Block size of direct I/O here.
pub(crate) const BLOCK: usize = 4096;

/// What an operation was for; handed back with its completion.
pub(crate) type Tag = u64;

/// A write of whole blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockWrite {
    /// Number of the file.
    pub(crate) file: usize,
    /// First byte in the buffer.
    pub(crate) from: usize,
    /// Bytes.
    pub(crate) len: usize,
    /// First byte in the file.
    pub(crate) position: u64,
}

/// The ring, with the files and the buffer that its operations use.
pub(crate) struct DirectRing {
    ring: IoUring,
    files: Vec<File>,
    buffer: BlockBuffer,
    in_flight: usize,
}

impl DirectRing {
    /// A ring over `files`, writing from a buffer of `buffer_len` bytes (whole blocks) filled with `fill`.
    pub(crate) fn new(files: Vec<File>, buffer_len: usize, fill: u8) -> io::Result<DirectRing> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(4096)?;
        Ok(DirectRing { ring, files, buffer: BlockBuffer::new(buffer_len, fill), in_flight: 0 })
    }

    /// Starts a write.
    pub(crate) fn write(&mut self, write: BlockWrite, tag: Tag) -> io::Result<()> {
        let BlockWrite { file, from, len, position } = write;
        assert!(
            from.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK) && position.is_multiple_of(BLOCK as u64)
        );
        assert!(from + len <= self.buffer.layout.size());
        // SAFETY: `from + len` lies within the buffer (asserted), so the pointer stays in its allocation.
        let pointer = unsafe { self.buffer.start.add(from) };
        let fd = types::Fd(self.files[file].as_raw_fd());
        let entry = opcode::Write::new(fd, pointer, len as u32).offset(position).build().user_data(tag);
        self.push(entry)
    }

    /// Starts an fdatasync of file number `file`.
    pub(crate) fn sync(&mut self, file: usize, tag: Tag) -> io::Result<()> {
        let fd = types::Fd(self.files[file].as_raw_fd());
        self.push(opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build().user_data(tag))
    }

    /// Submits what was started, waits for at least one completion, and gives the tags of all that completed to `done`.
    /// An operation that failed is an error.
    pub(crate) fn wait(&mut self, done: &mut Vec<Tag>) -> io::Result<()> {
        self.ring.submit_and_wait(usize::from(self.in_flight > 0))?;
        for entry in self.ring.completion() {
            self.in_flight -= 1;
            done.push(check(&entry)?);
        }
        Ok(())
    }

    fn push(&mut self, entry: io_uring::squeue::Entry) -> io::Result<()> {
        // SAFETY: the operation uses a descriptor in `self.files` and memory in `self.buffer`, both owned by `self`;
        // `drop` waits for every operation before they go. The buffer is only ever read by the kernel (writes).
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        self.in_flight += 1;
        Ok(())
    }
}

impl Drop for DirectRing {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.ring.submit_and_wait(1).is_err() {
                // Nothing is known of the operations under way: their memory must stay, so the process ends here.
                std::process::abort();
            }
            self.in_flight -= self.ring.completion().count();
        }
    }
}

fn check(entry: &cqueue::Entry) -> io::Result<Tag> {
    match entry.result() {
        result if result < 0 => Err(io::Error::from_raw_os_error(-result)),
        _ => Ok(entry.user_data()),
    }
}

/// Memory aligned to a block, as O_DIRECT asks.
struct BlockBuffer {
    start: *mut u8,
    layout: Layout,
}

impl BlockBuffer {
    fn new(len: usize, fill: u8) -> BlockBuffer {
        assert!(len > 0 && len.is_multiple_of(BLOCK));
        let Ok(layout) = Layout::from_size_align(len, BLOCK) else {
            unreachable!("whole blocks, power-of-two alignment")
        };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: `start` points to `len` bytes that were just allocated and nobody else knows.
        unsafe { std::ptr::write_bytes(start, fill, len) };
        BlockBuffer { start, layout }
    }
}

impl Drop for BlockBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed only here.
        unsafe { dealloc(self.start, self.layout) };
    }
}
