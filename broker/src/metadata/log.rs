//! The metadata log: records of core as key-less records of ordinary batches, one batch per command, and snapshots that
//! stand for what the log no longer holds.
//!
//! Invariants:
//! - A snapshot is stable before any of the log goes, and the log goes only up to the snapshot before it, which was read
//!   and found sound just then. So a start has a second way, should the newest snapshot be damaged.
//! - A snapshot ends between two commands.
//! - Bound: the log holds what two snapshots lie apart, and one segment before that.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use penstock_core::metadata::{
    EncodeSnapshotError, MetadataMachine, MetadataRecord, RecordError, ReplayError, Snapshot, SnapshotError,
    SnapshotSchedule, plan_cleanup,
};
use penstock_format::{Batch, BatchBuilder, BatchError, BuildError, NewRecord, RecordsError};
use penstock_protocol::EncodeError;
use penstock_storage::disk::Disk;
use penstock_storage::{
    AppendContext, AppendError, Log, LogConfig, Offline, Origin, ReadError, Store, StoreError,
};

use super::snapshots::{ReadSnapshotError, Snapshots};

/// Epoch under which every batch of the log is written: there is no other node that could lead.
pub(crate) const LEADER_EPOCH: i32 = 0;
/// Name of the log, in the store of shard 0.
pub(crate) const METADATA_LOG: &str = "__cluster_metadata";
/// Bytes read at once during replay.
const READ_BYTES: usize = 1 << 20;
/// Bound on one batch's records, packed or not: far above what one command makes.
const RECORDS_BYTES_MAX: usize = 64 << 20;
/// Smallest segment of the log in bytes, however close its snapshots are.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// Why the metadata could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenMetadataError {
    #[error("cannot open the metadata log: {0}")]
    Store(#[from] StoreError),
    #[error("cannot use the directory of metadata snapshots: {0}")]
    Snapshots(io::Error),
    #[error("cannot read the metadata log at offset {0}: {1}")]
    Read(i64, ReadError),
    #[error("the metadata log is damaged at offset {0}: {1}")]
    Batch(i64, BatchError),
    #[error("the metadata log is damaged at offset {0}: {1}")]
    Records(i64, RecordsError),
    #[error("the metadata log cannot be understood at offset {0}: {1}")]
    Record(i64, RecordError),
    #[error("the metadata log cannot be followed at offset {0}: {1}")]
    Replay(i64, ReplayError),
    #[error("the metadata snapshot of offset {0} cannot be understood: {1}")]
    SnapshotRecord(i64, RecordError),
    #[error("the metadata snapshot of offset {0} cannot be followed: {1}")]
    SnapshotReplay(i64, ReplayError),
    #[error(
        "the metadata snapshot of offset {0} was written by a newer version of this program ({1}); upgrade penstock"
    )]
    NewerSnapshot(i64, SnapshotError),
    #[error(
        "the metadata snapshot of offset {0} is ahead of the metadata log, which ends at {1}: acknowledged changes are missing from the log; restore the whole data directory from one backup"
    )]
    SnapshotAhead(i64, i64),
    #[error(
        "the metadata log begins at offset {start}, and no sound snapshot in {dir} says what was before; restore the data directory from a backup"
    )]
    NoSnapshot { start: i64, dir: PathBuf },
}

/// A command made records that cannot be written: a string longer than the protocol can carry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchRecordsError {
    #[error(transparent)]
    Record(#[from] EncodeError),
    #[error(transparent)]
    Batch(#[from] BuildError),
}

/// Why records were not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("metadata records cannot be written: {0}")]
    Unwritable(#[from] BatchRecordsError),
    #[error("metadata log refused an append: {0}")]
    Refused(#[from] AppendError),
    /// Whether they are on the disk is not known.
    #[error("metadata log failed: {0}")]
    Failed(Offline),
    #[error("metadata log holds records beyond offset {0} that were never replayed")]
    NotReplayed(i64),
}

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeSnapshotError {
    #[error(transparent)]
    Encode(#[from] EncodeSnapshotError),
    #[error("it could not be encoded: {0}")]
    Panicked(#[from] crate::runtime::workers::JobPanicked),
    #[error("it could not be written: {0}")]
    Write(io::Error),
}

/// Why what a snapshot made superfluous stays for now.
#[derive(Debug, thiserror::Error)]
enum CleanupError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Log(#[from] StoreError),
}

/// The log with its snapshots.
pub(crate) struct MetadataLog<D: Disk> {
    log: Log<D>,
    snapshots: Snapshots<D>,
    schedule: RefCell<SnapshotSchedule>,
    /// Offset after the last batch that is stable, and so (see [`MetadataLog::write`]) part of the image.
    end: Cell<i64>,
    /// A snapshot is being taken.
    taking: Cell<bool>,
}

/// A snapshot that is due: what it has to cover. Give it to [`MetadataLog::finish_snapshot`].
#[derive(Debug)]
#[must_use = "no other snapshot is taken before this one is finished"]
pub(crate) struct DueSnapshot {
    /// Offset of the first record that is no part of it.
    pub(crate) offset: i64,
    /// When it became due.
    pub(crate) now_ms: i64,
    bytes: u64,
}

/// Opens the log, creating it where it is missing, and brings `machine`, which has replayed nothing, up to its end: by
/// the newest sound snapshot, and what the log holds after it.
pub(crate) async fn open<D: Disk>(
    store: &Store<D>,
    disk: &D,
    data_dir: &Path,
    mut machine: MetadataMachine,
    now_ms: i64,
) -> Result<(MetadataMachine, MetadataLog<D>), OpenMetadataError> {
    let bounds = machine.image().broker().metadata_snapshots;
    // Stable before anything follows from it, whatever the broker's defaults; nothing goes but by snapshots.
    let segment_bytes = bounds.record_bytes.max(SEGMENT_BYTES_MIN);
    let config =
        LogConfig { flush_messages: 1, segment_bytes: segment_bytes.min(1 << 30), ..LogConfig::default() };
    let log = match store.log(METADATA_LOG) {
        Some(log) => log,
        None => store.create_log(METADATA_LOG, config.clone()).await?,
    };
    log.set_config(config);
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    if let Some(offline) = log.offline() {
        return Err(OpenMetadataError::Read(start, ReadError::Offline(offline)));
    }
    let snapshots = Snapshots::open(disk, data_dir).await.map_err(OpenMetadataError::Snapshots)?;
    let last = load_snapshot(&snapshots, &mut machine, start..end).await?;
    let from = last.map_or(start, |(offset, _)| offset);
    let bytes = replay_log(&log, &mut machine, from..end).await?;
    let schedule = SnapshotSchedule::new(bounds, last.map(|(_, written_ms)| written_ms), bytes, now_ms);
    let log = MetadataLog {
        log,
        snapshots,
        schedule: RefCell::new(schedule),
        end: Cell::new(end),
        taking: Cell::new(false),
    };
    Ok((machine, log))
}

impl<D: Disk> MetadataLog<D> {
    /// Offset after the last batch that is stable.
    pub(crate) fn end(&self) -> i64 {
        self.end.get()
    }

    /// Writes one command's records, one command at a time. When it answers, they are stable; the caller replays them
    /// before it writes or takes a snapshot again.
    pub(crate) async fn write(&self, batch: Batch, now_ms: i64) -> Result<(), WriteError> {
        // A caller that was dropped before it replayed: the state is not what the log says.
        if self.log.log_end_offset() != self.end.get() {
            return Err(WriteError::NotReplayed(self.end.get()));
        }
        let bytes = batch.len() as u64;
        let context = AppendContext { leader_epoch: LEADER_EPOCH, now_ms, origin: Origin::Coordinator };
        // Records are a few hundred bytes each and do not wait for room: with a full disk they come first.
        let appended = self.log.append(vec![batch], context)?;
        self.log.durable(appended.ticket).await.map_err(WriteError::Failed)?;
        self.schedule.borrow_mut().grew(bytes);
        self.end.set(appended.last_offset + 1);
        Ok(())
    }

    /// Whether a snapshot has to be taken of the image as it is now.
    pub(crate) fn due_snapshot(&self, now_ms: i64) -> Option<DueSnapshot> {
        let schedule = self.schedule.borrow();
        if self.taking.get() || !schedule.is_due(now_ms) {
            return None;
        }
        self.taking.set(true);
        Some(DueSnapshot { offset: self.end.get(), now_ms, bytes: schedule.bytes_since() })
    }

    /// Writes the snapshot, or notes why there is none, and lets go of what it makes superfluous.
    pub(crate) async fn finish_snapshot(
        &self,
        due: DueSnapshot,
        encoded: Result<Vec<u8>, TakeSnapshotError>,
    ) {
        let written = match encoded {
            Ok(bytes) => self
                .snapshots
                .write(due.offset, bytes.into())
                .await
                .map_err(|e| TakeSnapshotError::Write(e).to_string()),
            Err(error) => Err(error.to_string()),
        };
        let DueSnapshot { offset, now_ms, bytes } = due;
        match written {
            Ok(()) => {
                tracing::debug!(offset, bytes, "metadata snapshot written");
                self.schedule.borrow_mut().taken(bytes, now_ms);
                if let Err(error) = self.clean_up(offset).await {
                    // The next snapshot tries again.
                    tracing::warn!(
                        offset,
                        "metadata that a snapshot made superfluous stays for now: {error}"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(offset, "no metadata snapshot was taken: {error}; it is tried again");
                self.schedule.borrow_mut().failed(now_ms);
            }
        }
        self.taking.set(false);
    }

    /// Lets go of what the snapshot of offset `last`, which is stable, and a sound one before it make superfluous.
    async fn clean_up(&self, last: i64) -> Result<(), CleanupError> {
        let start = self.log.log_start_offset();
        let offsets = self.snapshots.offsets().await?;
        let mut fallback = None;
        for offset in offsets.iter().copied().filter(|offset| (start..last).contains(offset)) {
            match self.snapshots.read(offset).await {
                Ok(_) => {
                    fallback = Some(offset);
                    break;
                }
                Err(error) => tracing::error!(offset, "a metadata snapshot is of no use: {error}"),
            }
        }
        let plan = plan_cleanup(&offsets, fallback);
        if let Some(from) = plan.log_from.filter(|from| *from > start) {
            self.log.delete_records(from).await?;
        }
        for offset in plan.remove {
            self.snapshots.remove(offset).await?;
        }
        Ok(())
    }

    /// Bytes of batches that a start would replay now.
    #[cfg(test)]
    pub(super) fn replay_bytes(&self) -> u64 {
        self.schedule.borrow().bytes_since()
    }
}

/// Replays the newest sound snapshot that the log, which has the offsets `log`, goes on from; gives its offset and the
/// time when it was written.
async fn load_snapshot<D: Disk>(
    snapshots: &Snapshots<D>,
    machine: &mut MetadataMachine,
    log: std::ops::Range<i64>,
) -> Result<Option<(i64, i64)>, OpenMetadataError> {
    let offsets = snapshots.offsets().await.map_err(OpenMetadataError::Snapshots)?;
    for offset in offsets.into_iter().filter(|offset| *offset >= log.start) {
        match snapshots.read(offset).await {
            Ok(_) if offset > log.end => return Err(OpenMetadataError::SnapshotAhead(offset, log.end)),
            Ok(snapshot) => {
                replay_snapshot(machine, &snapshot)?;
                return Ok(Some((offset, snapshot.written_ms)));
            }
            Err(ReadSnapshotError::Content(error @ SnapshotError::NewerVersion(_))) => {
                return Err(OpenMetadataError::NewerSnapshot(offset, error));
            }
            Err(error) => {
                tracing::error!(offset, "a metadata snapshot is of no use, an older one has to do: {error}");
            }
        }
    }
    if log.start > 0 {
        return Err(OpenMetadataError::NoSnapshot { start: log.start, dir: snapshots.dir().to_owned() });
    }
    Ok(None)
}

fn replay_snapshot(machine: &mut MetadataMachine, snapshot: &Snapshot) -> Result<(), OpenMetadataError> {
    let offset = snapshot.offset;
    for record in &snapshot.records {
        // Copied: what the image keeps of it must not pin the whole snapshot.
        let change = MetadataRecord::decode(Bytes::copy_from_slice(record))
            .map_err(|e| OpenMetadataError::SnapshotRecord(offset, e))?;
        machine.replay(&change).map_err(|e| OpenMetadataError::SnapshotReplay(offset, e))?;
    }
    Ok(())
}

/// Replays the records of these offsets; gives the bytes of their batches.
async fn replay_log<D: Disk>(
    log: &Log<D>,
    machine: &mut MetadataMachine,
    offsets: std::ops::Range<i64>,
) -> Result<u64, OpenMetadataError> {
    let (mut next, end) = (offsets.start, offsets.end);
    let mut bytes = 0;
    while next < end {
        let read =
            log.read(next, READ_BYTES, end, true).await.map_err(|e| OpenMetadataError::Read(next, e))?;
        let joined = penstock_protocol::Records::from(read.slices).to_bytes();
        let batches = penstock_format::split_batches(&joined, usize::MAX)
            .map_err(|e| OpenMetadataError::Batch(next, e))?;
        for batch in &batches {
            replay_batch(machine, batch, offsets.start)?;
            bytes += batch.len() as u64;
        }
        if read.next_offset <= next {
            let gap = ReadError::OutOfRange { start: next, end };
            return Err(OpenMetadataError::Read(next, gap));
        }
        next = read.next_offset;
    }
    Ok(bytes)
}

fn replay_batch(machine: &mut MetadataMachine, batch: &Batch, from: i64) -> Result<(), OpenMetadataError> {
    let base = batch.header.base_offset;
    let records = penstock_format::Records::open(batch, RECORDS_BYTES_MAX)
        .map_err(|e| OpenMetadataError::Records(base, e))?;
    for record in records.iter() {
        let record = record.map_err(|e| OpenMetadataError::Records(base, e))?;
        if record.offset < from {
            continue;
        }
        // Copied: what the image keeps of it must not pin the whole read.
        let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
        let change =
            MetadataRecord::decode(value).map_err(|e| OpenMetadataError::Record(record.offset, e))?;
        machine.replay(&change).map_err(|e| OpenMetadataError::Replay(record.offset, e))?;
    }
    Ok(())
}

/// One command's records as a batch.
pub(super) fn batch(records: &[MetadataRecord], now_ms: i64) -> Result<Batch, BatchRecordsError> {
    let mut builder = BatchBuilder::new();
    for record in records {
        let value = record.encode()?;
        builder.append(&NewRecord { timestamp: now_ms, value: Some(&value), ..NewRecord::default() })?;
    }
    Ok(builder.finish()?)
}
