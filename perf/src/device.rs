//! What a block device was made to write, by the kernel's own count.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The unit of the kernel's counts, whatever the device's own sectors are.
const SECTOR_BYTES: u64 = 512;
/// Of the counts of a device: reads, reads merged, sectors read, time, writes, writes merged, sectors written.
const SECTORS_WRITTEN: usize = 6;

/// The device that holds a directory.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    counts: PathBuf,
}

impl Device {
    /// An error where the directory lies on no block device of its own (an overlay, a network file system).
    pub(crate) fn holding(path: &Path) -> io::Result<Device> {
        let number = fs::metadata(path)?.dev();
        let (major, minor) = (libc::major(number), libc::minor(number));
        let counts = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        match counts.exists() {
            true => Ok(Device { counts }),
            false => Err(io::Error::other(format!("{} lies on no block device that counts", path.display()))),
        }
    }

    /// Bytes written since the machine started, by all its processes.
    pub(crate) fn written_bytes(&self) -> io::Result<u64> {
        let text = fs::read_to_string(&self.counts)?;
        written_of(&text).ok_or_else(|| io::Error::other("the device's counts cannot be read"))
    }
}

fn written_of(counts: &str) -> Option<u64> {
    let sectors: u64 = counts.split_whitespace().nth(SECTORS_WRITTEN)?.parse().ok()?;
    sectors.checked_mul(SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_written_are_the_seventh_count() {
        assert_eq!(written_of(" 46 29 263 233 442 486 4487 412 0 326 667 15 1 19 1 6 1\n"), Some(4487 * 512));
        assert_eq!(written_of("1 2 3"), None);
        assert_eq!(written_of("1 2 3 4 5 6 x"), None);
    }
}
