//! Segment files held open: opened when needed, the longest unused closed beyond a limit (second chance).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};

use penstock_format::{Batch, BatchHeader};

use crate::disk::{BLOCK, Disk, DiskFile};
use crate::plan::block_ceil;
use crate::segment::{DATA_START, Segment, SegmentHeader};
use crate::state::LogInner;

/// Why a segment's file cannot be used.
#[derive(Debug)]
pub(crate) enum FileError {
    /// The disk's answer.
    Io(io::Error),
    /// It is not the file that the log knows.
    Foreign,
    /// The header is damaged, and so is what would show that the file is the one meant.
    Damaged,
    /// Written by a newer version of this software.
    NewerVersion(u16),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Io(error) => error.fmt(f),
            FileError::NewerVersion(version) => {
                let supported = crate::segment::VERSION;
                write!(
                    f,
                    "it has format version {version}, and this version of penstock reads up to {supported}"
                )
            }
            FileError::Foreign => f.write_str("header block is that of another segment"),
            FileError::Damaged => f.write_str("header block is damaged"),
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

    /// The segment's file, opened if need be; its header is checked the first time.
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
        if !segment.known.get() {
            check_header(&file, log, segment).await?;
        }
        segment.prepared_to.set(segment.prepared_to.get().max(file.size()));
        // Nobody closes what is kept open for a segment that left its log meanwhile.
        Ok(if segment.retired.get() { file } else { self.keep(segment, file) })
    }

    /// Keeps `file` open for the segment (or the one that another task opened meanwhile).
    pub(crate) fn keep(&self, segment: &Rc<Segment<D>>, file: D::File) -> D::File {
        if let Some(open) = self.opened(segment) {
            return open;
        }
        *segment.file.borrow_mut() = Some(file.clone());
        segment.known.set(true);
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

/// Whether the file is that of the segment, by its header or, where that is damaged, by its first batch.
async fn check_header<D: Disk>(
    file: &D::File,
    log: &LogInner<D>,
    segment: &Segment<D>,
) -> Result<(), FileError> {
    let block = file.read_at(0, BLOCK).await?;
    match SegmentHeader::decode(&block) {
        Some(header) if is_of(&header, log, segment) => {}
        Some(_) => return Err(FileError::Foreign),
        None => {
            if let Some(version) = SegmentHeader::newer_version(&block) {
                return Err(FileError::NewerVersion(version));
            }
            // The name says which file it is, and every batch is held against the log when it is read.
            if !begins_right(file, segment).await? {
                return Err(FileError::Damaged);
            }
            let path = segment.path.display();
            tracing::error!(log = %log.name, "{path}: its header is damaged; its batches are read nonetheless");
        }
    }
    Ok(())
}

/// Whether a header is that of the segment.
pub(crate) fn is_of<D: Disk>(header: &SegmentHeader, log: &LogInner<D>, segment: &Segment<D>) -> bool {
    (header.log_id, header.base, header.life) == (log.id, segment.base, segment.life)
}

/// Whether the first batch in the file is whole and begins where the segment does; in a cleaned one, whose name no other
/// file ever had, there or later.
pub(crate) async fn begins_right<D: Disk>(file: &D::File, segment: &Segment<D>) -> io::Result<bool> {
    let block = file.read_at(DATA_START, BLOCK).await?;
    let Ok(header) = BatchHeader::parse(&block) else { return Ok(false) };
    let len = header.total_len();
    let begins =
        if segment.cleaned { header.base_offset >= segment.base } else { header.base_offset == segment.base };
    if !begins || DATA_START + len as u64 > segment.end.get() {
        return Ok(false);
    }
    let batch = file.read_at(DATA_START, block_ceil(len as u64) as usize).await?;
    Ok(Batch::parse(&batch.freeze()).is_ok_and(|(batch, _)| batch.crc_ok()))
}
