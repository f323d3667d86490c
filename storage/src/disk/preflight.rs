//! Looks, before anything starts, whether the host gives what the storage needs. Each [`Refusal`] displays as one
//! sentence that says what is missing and what to do.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use io_uring::IoUring;

use super::{AlignedBuf, BLOCK};

mod host;

/// Locked memory that an executor's rings need, in bytes (glommio refuses to start below it).
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Why the host cannot serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `kernel.io_uring_disabled` forbids io_uring; its value.
    IoUringDisabled(u8),
    /// A seccomp filter or security module forbids io_uring.
    IoUringForbidden,
    /// The kernel is older than the ring's features.
    KernelTooOld,
    /// Creating a ring failed for another reason.
    IoUring(String),
    /// `RLIMIT_MEMLOCK` in bytes is below [`MEMLOCK_BYTES_MIN`].
    MemlockTooSmall(u64),
    /// The directory cannot be created, entered or written.
    NotWritable(PathBuf, String),
    /// No space for a probe file.
    Full(PathBuf),
    /// The file system refuses direct I/O in blocks of 4 KiB; its name if known.
    NoDirectIo(PathBuf, Option<&'static str>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::IoUringDisabled(1) => write!(
                f,
                "io_uring is reserved for privileged processes on this host (kernel.io_uring_disabled = 1): run \
                 `sysctl -w kernel.io_uring_disabled=0`, or put this user into the group kernel.io_uring_group"
            ),
            Refusal::IoUringDisabled(value) => write!(
                f,
                "io_uring is disabled on this host (kernel.io_uring_disabled = {value}): run \
                 `sysctl -w kernel.io_uring_disabled=0`"
            ),
            Refusal::IoUringForbidden => write!(
                f,
                "io_uring is forbidden to this process, as container runtimes do by default: allow io_uring_setup, \
                 io_uring_enter and io_uring_register in its seccomp profile (docker: `--security-opt seccomp=unconfined`)"
            ),
            Refusal::KernelTooOld => {
                write!(
                    f,
                    "this Linux kernel is too old: io_uring with deferred task work needs Linux 6.1 or newer"
                )
            }
            Refusal::IoUring(error) => {
                write!(
                    f,
                    "io_uring does not start ({error}): check the limits of this process and free memory"
                )
            }
            Refusal::MemlockTooSmall(bytes) => write!(
                f,
                "this process may lock {} KiB of memory and needs {} KiB: raise it with `ulimit -l unlimited`, or \
                 LimitMEMLOCK=infinity in a systemd unit",
                bytes >> 10,
                MEMLOCK_BYTES_MIN >> 10
            ),
            Refusal::NotWritable(dir, error) => write!(
                f,
                "the data directory {} cannot be written ({error}): create it and give it to the user of this \
                 process, or choose another",
                dir.display()
            ),
            Refusal::Full(dir) => {
                write!(
                    f,
                    "the file system of {} is full: free some space, or choose another directory",
                    dir.display()
                )
            }
            Refusal::NoDirectIo(dir, name) => write!(
                f,
                "the file system of {} ({}) does not support direct I/O in blocks of 4 KiB: choose a directory on ext4 or xfs",
                dir.display(),
                name.unwrap_or("of unknown type")
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// Checks kernel, limits and the directory, which it creates where missing. Blocks: call it before shards start.
pub fn check(dir: &Path) -> Result<(), Refusal> {
    check_ring()?;
    check_memlock()?;
    check_directory(dir)
}

/// One sentence of warning if what is written below `dir` does not outlive the machine's memory.
pub fn warning(dir: &Path) -> Option<String> {
    let name = host::file_system(dir).ok().flatten()?;
    matches!(name, "tmpfs" | "ramfs").then(|| {
        format!(
            "{} is on {name}, which keeps nothing when the machine stops: use a directory on ext4 or xfs for data \
             that matters",
            dir.display()
        )
    })
}

/// Size of the volume that holds `dir`, and what an ordinary process may still write there, in bytes. Blocks for as
/// long as the file system takes.
pub fn volume_bytes(dir: &Path) -> io::Result<(u64, u64)> {
    host::volume_bytes(dir)
}

fn check_ring() -> Result<(), Refusal> {
    let built: io::Result<IoUring> =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().build(8);
    let Err(error) = built else { return Ok(()) };
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Err(ring_refusal(&error, disabled))
}

/// What a failure to create a ring means, given `kernel.io_uring_disabled`.
fn ring_refusal(error: &io::Error, disabled: u8) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EPERM) if disabled > 0 => Refusal::IoUringDisabled(disabled),
        Some(libc::EPERM | libc::EACCES) => Refusal::IoUringForbidden,
        // Filters answer ENOSYS as well as kernels without it.
        Some(libc::ENOSYS) => Refusal::IoUringForbidden,
        Some(libc::EINVAL) => Refusal::KernelTooOld,
        _ => Refusal::IoUring(error.to_string()),
    }
}

fn check_memlock() -> Result<(), Refusal> {
    match host::memlock_limit() {
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => Err(Refusal::MemlockTooSmall(bytes)),
        _ => Ok(()),
    }
}

fn check_directory(dir: &Path) -> Result<(), Refusal> {
    let refuse = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Refusal::Full(dir.to_owned()),
        Some(libc::EINVAL | libc::EOPNOTSUPP) => {
            Refusal::NoDirectIo(dir.to_owned(), host::file_system(dir).ok().flatten())
        }
        _ => Refusal::NotWritable(dir.to_owned(), error.to_string()),
    };
    fs::create_dir_all(dir).map_err(|error| Refusal::NotWritable(dir.to_owned(), error.to_string()))?;
    let probe = dir.join(format!("probe-{}.tmp", std::process::id()));
    let result = probe_direct_io(&probe).map_err(refuse);
    // It may not exist if its creation was refused.
    let _ = fs::remove_file(&probe);
    result
}

fn probe_direct_io(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let file = options.open(path)?;
    file.write_all_at(&AlignedBuf::zeroed(BLOCK), 0)?;
    file.sync_all()?;
    file.read_exact_at(&mut AlignedBuf::zeroed(BLOCK), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_good_enough_to_test_on() {
        let dir = tempfile::tempdir().unwrap();
        check(&dir.path().join("new/data")).unwrap();
        assert!(fs::read_dir(dir.path().join("new/data")).unwrap().next().is_none(), "no probe is left");
    }

    #[test]
    fn a_file_system_without_direct_io_is_named() {
        // /proc refuses new files, so the name lookup is tested apart.
        assert_eq!(host::file_system(Path::new("/proc")).unwrap(), Some("proc"));
        let refusal = check_directory(Path::new("/proc/penstock")).unwrap_err();
        assert!(matches!(refusal, Refusal::NotWritable(..)), "{refusal}");
    }

    #[test]
    fn a_volume_has_room_within_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let (total, usable) = volume_bytes(dir.path()).unwrap();
        assert!(total > 0 && usable <= total, "{usable} of {total}");
        assert!(volume_bytes(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn failures_are_told_apart_and_each_is_one_sentence_with_a_remedy() {
        let refusal = |errno, disabled| ring_refusal(&io::Error::from_raw_os_error(errno), disabled);
        assert_eq!(refusal(libc::EPERM, 2), Refusal::IoUringDisabled(2));
        assert_eq!(refusal(libc::EPERM, 0), Refusal::IoUringForbidden);
        assert_eq!(refusal(libc::ENOSYS, 0), Refusal::IoUringForbidden);
        assert_eq!(refusal(libc::EINVAL, 0), Refusal::KernelTooOld);
        let all = [
            Refusal::IoUringDisabled(1),
            Refusal::IoUringDisabled(2),
            Refusal::IoUringForbidden,
            Refusal::KernelTooOld,
            refusal(libc::ENOMEM, 0),
            Refusal::MemlockTooSmall(64 << 10),
            Refusal::NotWritable("/data".into(), "permission denied".into()),
            Refusal::Full("/data".into()),
            Refusal::NoDirectIo("/data".into(), Some("9p")),
        ];
        for refusal in all {
            let sentence = refusal.to_string();
            assert!(
                !sentence.contains('\n') && !sentence.contains("  ") && sentence.contains(": "),
                "{sentence}"
            );
        }
    }
}
