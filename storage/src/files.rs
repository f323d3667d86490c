//! Segment files held open: opened when needed, the longest unused closed beyond a limit (second chance).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};

use crate::disk::{BLOCK, Disk, DiskFile};
use crate::segment::{Segment, SegmentHeader};
use crate::state::LogInner;

/// Why a segment's file cannot be used.
#[derive(Debug)]
pub(crate) enum FileError {
    /// The disk's answer.
    Io(io::Error),
    /// It is not the file that the log knows.
    Foreign,
    /// Written by a newer version of this software.
    NewerVersion(u16),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Io(error) => error.fmt(f),
            FileError::NewerVersion(version) => write!(f, "segment has format version {version}"),
            FileError::Foreign => f.write_str("header block is not this segment's"),
        }
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> FileError {
        FileError::Io(error)
    }
}

/// The open segment files of a store.
pub(crate) struct OpenFiles<D: Disk> {
    limit: usize,
    open: Cell<usize>,
    clock: RefCell<VecDeque<Weak<Segment<D>>>>,
}

impl<D: Disk> OpenFiles<D> {
    pub(crate) fn new(limit: usize) -> OpenFiles<D> {
        OpenFiles { limit: limit.max(1), open: Cell::new(0), clock: RefCell::default() }
    }

    /// Files open now.
    pub(crate) fn count(&self) -> usize {
        self.open.get()
    }

    /// The segment's file, if it is open.
    pub(crate) fn opened(&self, segment: &Segment<D>) -> Option<D::File> {
        segment.used.set(true);
        segment.file.borrow().clone()
    }

    /// The segment's file, opened and its header checked if need be.
    pub(crate) async fn get(
        &self,
        disk: &D,
        log: &LogInner<D>,
        segment: &Rc<Segment<D>>,
    ) -> Result<D::File, FileError> {
        if let Some(file) = self.opened(segment) {
            return Ok(file);
        }
        let file = disk.open(&segment.path).await?;
        let block = file.read_at(0, BLOCK).await?;
        let header = SegmentHeader::decode(&block);
        let ours = header.is_some_and(|header| {
            (header.log_id, header.base, header.life) == (log.id, segment.base, segment.life)
        });
        if let Some(version) = SegmentHeader::newer_version(&block) {
            return Err(FileError::NewerVersion(version));
        }
        if !ours {
            return Err(FileError::Foreign);
        }
        segment.prepared_to.set(segment.prepared_to.get().max(file.size()));
        Ok(self.keep(segment, file))
    }

    /// Keeps `file` open for the segment (or the one that another task opened meanwhile).
    pub(crate) fn keep(&self, segment: &Rc<Segment<D>>, file: D::File) -> D::File {
        if let Some(open) = self.opened(segment) {
            return open;
        }
        *segment.file.borrow_mut() = Some(file.clone());
        segment.used.set(true);
        self.open.set(self.open.get() + 1);
        self.clock.borrow_mut().push_back(Rc::downgrade(segment));
        self.shrink();
        file
    }

    /// Closes the segment's file. Operations in flight keep their own handle.
    pub(crate) fn close(&self, segment: &Segment<D>) {
        if segment.file.borrow_mut().take().is_some() {
            self.open.set(self.open.get() - 1);
        }
    }

    fn shrink(&self) {
        let mut clock = self.clock.borrow_mut();
        let mut looks = clock.len() * 2;
        while (self.open.get() > self.limit || clock.len() > self.limit * 2) && looks > 0 {
            looks -= 1;
            let Some(oldest) = clock.pop_front() else { return };
            let Some(segment) = oldest.upgrade().filter(|segment| segment.file.borrow().is_some()) else {
                continue;
            };
            if segment.used.replace(false) {
                clock.push_back(oldest);
            } else {
                self.close(&segment);
            }
        }
    }
}
