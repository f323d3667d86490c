//! Reading a file of a failing device that is copied to another one: what it does not give it is asked for again after a pause,
//! since it may give it yet. Nothing is put in the place of what stays unread: the copy fails then, and the old file and the
//! journal stay as they are.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::prepare::passes;

/// Times that a read is asked for.
const READS_MAX: usize = 3;
/// Pause before it is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads `len` bytes, whole blocks, as [`DiskFile::read_at`] does. An error says where; one that passes comes at once and as
/// it is.
pub(crate) async fn read_at<D: Disk>(
    disk: &D,
    file: &D::File,
    position: u64,
    len: usize,
) -> io::Result<Bytes> {
    let mut reads = 1;
    loop {
        match file.read_at(position, len).await {
            Ok(data) => return Ok(data.freeze()),
            Err(error) if passes(&error) => return Err(error),
            Err(error) if reads >= READS_MAX => {
                let what = format!("{len} bytes from position {position} on cannot be read: {error}");
                return Err(io::Error::other(what));
            }
            Err(_) => disk.sleep(PAUSE).await,
        }
        reads += 1;
    }
}
