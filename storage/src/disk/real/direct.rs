//! The file operations of the shard ring. Unsafe because submission entries point to memory: each operation owns
//! its memory and its file in what it keeps, until its completion.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::rc::Rc;

use bytes::Bytes;
use io_uring::{opcode, types};

use crate::disk::AlignedBuf;
use crate::disk::ring::{Buffer, Completed, Keep, Ring};

/// Who owns the descriptor.
pub(super) trait Descriptor: 'static {
    fn file(&self) -> &File;
}

/// Opens the file that is there at `path`, for reading and writing by direct I/O.
pub(super) async fn open(ring: &Ring, path: CString) -> io::Result<File> {
    let flags = libc::O_RDWR | libc::O_DIRECT | libc::O_CLOEXEC;
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).flags(flags).build();
    // SAFETY: the path is kept; its bytes stay where they are when it moves.
    let open = unsafe { ring.submit(entry, Keep { buffer: Buffer::Path(path), owner: None }) };
    let fd = open.await.result?;
    // SAFETY: a descriptor that was just opened, owned by nobody else.
    Ok(unsafe { File::from_raw_fd(fd as RawFd) })
}

/// Writes what one call to the kernel takes of `data`; gives the count.
pub(super) async fn write<D: Descriptor>(
    ring: &Ring,
    file: &Rc<D>,
    data: Bytes,
    position: u64,
) -> io::Result<usize> {
    let len = u32::try_from(data.len()).unwrap_or(1 << 30);
    let fd = types::Fd(file.file().as_raw_fd());
    let entry = opcode::Write::new(fd, data.as_ptr(), len).offset(position).build();
    // SAFETY: `data` and `file` are kept; shared bytes neither move nor change.
    let write = unsafe { ring.submit(entry, Keep::new(Buffer::Bytes(data), file.clone())) };
    Ok(write.await.result? as usize)
}

/// Reads up to `len` bytes to the end of `buf`, which must have room for them; gives `buf` and the count.
pub(super) async fn read<D: Descriptor>(
    ring: &Ring,
    file: &Rc<D>,
    mut buf: AlignedBuf,
    (position, len): (u64, usize),
) -> io::Result<(AlignedBuf, usize)> {
    assert!(len <= buf.room() && u32::try_from(len).is_ok());
    let filled = buf.len();
    let fd = types::Fd(file.file().as_raw_fd());
    // SAFETY: within the capacity, as asserted.
    let target = unsafe { buf.as_mut_ptr().add(filled) };
    let entry = opcode::Read::new(fd, target, len as u32).offset(position).build();
    // SAFETY: `buf` and `file` are kept; nobody else has the buffer, whose memory does not move.
    let read = unsafe { ring.submit(entry, Keep::new(Buffer::Aligned(buf), file.clone())) };
    let Completed { result, keep, .. } = read.await;
    let count = result? as usize;
    let Buffer::Aligned(mut buf) = keep.buffer else { unreachable!("the buffer kept above") };
    assert!(count <= len);
    // SAFETY: the kernel wrote `count` bytes behind the `filled` ones that were initialised before.
    unsafe { buf.set_len(filled + count) };
    Ok((buf, count))
}

/// fdatasync.
pub(super) async fn sync_data<D: Descriptor>(ring: &Ring, file: &Rc<D>) -> io::Result<()> {
    let fd = types::Fd(file.file().as_raw_fd());
    let entry = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
    // SAFETY: no memory; `file` is kept.
    let sync = unsafe { ring.submit(entry, Keep::owner(file.clone())) };
    sync.await.result.map(drop)
}

/// fsync.
pub(super) async fn sync_all<D: Descriptor>(ring: &Ring, file: &Rc<D>) -> io::Result<()> {
    let entry = opcode::Fsync::new(types::Fd(file.file().as_raw_fd())).build();
    // SAFETY: no memory; `file` is kept.
    let sync = unsafe { ring.submit(entry, Keep::owner(file.clone())) };
    sync.await.result.map(drop)
}

/// fallocate, growing the file.
pub(super) async fn allocate<D: Descriptor>(
    ring: &Ring,
    file: &Rc<D>,
    position: u64,
    len: u64,
) -> io::Result<()> {
    let fd = types::Fd(file.file().as_raw_fd());
    let entry = opcode::Fallocate::new(fd, len).offset(position).build();
    // SAFETY: no memory; `file` is kept.
    let allocate = unsafe { ring.submit(entry, Keep::owner(file.clone())) };
    allocate.await.result.map(drop)
}
