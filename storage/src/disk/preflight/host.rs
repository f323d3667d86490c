//! What the standard library does not ask the host. Unsafe for three system calls that fill a structure.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Name of the file system type below `path`, if it is one of the common ones (statfs(2)).
pub(super) fn file_system(path: &Path) -> io::Result<Option<&'static str>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: a NUL-terminated path, and a structure that the call fills.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled by the successful call (and zeroed before: all fields are integers).
    let kind = unsafe { stat.assume_init() }.f_type;
    Ok(match kind {
        0xef53 => Some("ext4"),
        0x5846_5342 => Some("xfs"),
        0x9123_683e => Some("btrfs"),
        0x0102_1994 => Some("tmpfs"),
        0x8584_58f6 => Some("ramfs"),
        0x794c_7630 => Some("overlayfs"),
        0x2fc1_2fc1 => Some("zfs"),
        0x6969 => Some("nfs"),
        0x0102_1997 => Some("9p"),
        0x6573_5546 => Some("fuse"),
        0x9fa0 => Some("proc"),
        _ => None,
    })
}

/// Size of the volume below `path`, and what an ordinary process may still write there, in bytes (statvfs(3)).
pub(super) fn volume_bytes(path: &Path) -> io::Result<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: a NUL-terminated path, and a structure that the call fills.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled by the successful call (and zeroed before: all fields are integers).
    let stat = unsafe { stat.assume_init() };
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}

/// The soft limit of locked memory in bytes, `None` if it cannot be asked; unlimited is `u64::MAX`.
pub(super) fn memlock_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills the structure it is given.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (asked == 0).then_some(limit.rlim_cur)
}
