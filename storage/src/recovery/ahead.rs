//! Reads what is replayed next while others are replayed: windows of frames, and what they wrote straight to segments, many
//! shares at once. One after the other they would cost a round trip to the disk each, and there are tens of thousands of them.
//!
//! Nothing that is read here is written before its frame is replayed (see [`super::replay`]). Bounds: three windows, each of
//! [`BYTES_AHEAD`] for its shares and as much for its frames, but for the last of each; [`READS_AT_ONCE`].

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};

use super::chain::{JournalReader, Place};
use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::files::FileError;
use crate::frame::{self, AppendEntry, Entry, FrameHeader};
use crate::segment::Segment;
use crate::state::{LogInner, StoreInner};

/// Bytes of a window's frames, and of its shares.
const BYTES_AHEAD: u64 = 16 << 20;
const READS_AT_ONCE: usize = 64;
/// Longest read.
const READ_BYTES_MAX: u64 = 1 << 20;

/// A share as it stands in its segment: the file and the bytes of the direct range, or what is wrong with them.
pub(super) type Direct<D> = Result<Result<(<D as Disk>::File, Bytes), String>, OpenError>;

/// A frame with what it wrote to segments.
pub(super) struct Ahead<D: Disk> {
    pub header: FrameHeader,
    pub bytes: Bytes,
    pub entries: Vec<Entry>,
    /// By entry; `None` for what is no share, has nothing direct, or is of a log that is not known yet.
    pub direct: Vec<Option<Direct<D>>>,
}

/// A log, and a segment of it.
pub(super) type OfLog<D> = (Rc<LogInner<D>>, Rc<Segment<D>>);

/// Frames that follow each other.
pub(super) type Window<D> = VecDeque<Ahead<D>>;

/// A share to be read, and the frame and entry of a window that it is of.
pub(super) struct Wanted<D: Disk> {
    pub place: (usize, usize),
    pub of: OfLog<D>,
    pub append: AppendEntry,
}

/// The first of these frames and some after it, without what they wrote to segments.
pub(super) async fn frames<D: Disk>(
    reader: &JournalReader<D>,
    places: &[Place],
) -> Result<Window<D>, OpenError> {
    let mut frames = Window::new();
    let (mut frame_bytes, mut direct_bytes) = (0, 0);
    for Place { cursor, header } in places {
        let bytes = reader.frame(&Place { cursor: *cursor, header: *header }).await?;
        let Some(entries) = frame::decode_entries(&bytes, header) else {
            return Err(OpenError::Corrupt(format!(
                "journal frame {} changed while it was read",
                header.seq
            )));
        };
        frame_bytes += bytes.len() as u64;
        for entry in &entries {
            let Entry::Append(append) = entry else { continue };
            direct_bytes += u64::from(append.direct_len);
        }
        let direct = entries.iter().map(|_| None).collect();
        frames.push_back(Ahead { header: *header, bytes, entries, direct });
        if frame_bytes >= BYTES_AHEAD || direct_bytes >= BYTES_AHEAD {
            break;
        }
    }
    Ok(frames)
}

/// Reads what the frames wrote to segments.
pub(super) async fn fill<D: Disk>(
    store: &StoreInner<D>,
    mut frames: Window<D>,
    wanted: Vec<Wanted<D>>,
) -> Window<D> {
    let read = async |Wanted { place, of: (log, segment), append }: Wanted<D>| {
        (place, read_direct(store, &log, &segment, &append).await)
    };
    let mut reads = stream::iter(wanted).map(read).buffer_unordered(READS_AT_ONCE);
    while let Some(((frame, at), direct)) = reads.next().await {
        frames[frame].direct[at] = Some(direct);
    }
    drop(reads);
    frames
}

/// Reads a share's direct range.
pub(super) async fn read_direct<D: Disk>(
    store: &StoreInner<D>,
    log: &LogInner<D>,
    segment: &Rc<Segment<D>>,
    append: &AppendEntry,
) -> Direct<D> {
    let failed = |error| OpenError::io(segment.path.display())(error);
    let file = match store.files.get(&store.disk, log, segment).await {
        Ok(file) => file,
        Err(FileError::Io(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(error));
        }
        Err(error) => return Ok(Err(error.to_string())),
    };
    let direct = append.direct();
    let mut at = direct.start;
    let mut out = BytesMut::new();
    while at < direct.end {
        let len = (direct.end - at).min(READ_BYTES_MAX) as usize;
        let data = file.read_at(at, len).await.map_err(failed)?;
        if data.is_empty() {
            return Ok(Err(format!("segment file ends at {at}")));
        }
        at += data.len() as u64;
        if at == direct.end && out.is_empty() {
            // Most shares are read at once.
            return Ok(Ok((file, data.freeze())));
        }
        out.reserve(append.direct_len as usize - out.len());
        out.extend_from_slice(&data);
    }
    Ok(Ok((file, out.freeze())))
}
