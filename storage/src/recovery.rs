//! Opening a store: checkpoint, then the journal's frames from the redo position on.
//!
//! The chain of frames ends at the first that is not wholly valid: its own bytes, its inline bytes, or what it wrote
//! straight to segments. Beyond the highest frame known to have been stable that is a torn tail, which was never
//! acknowledged and is dropped; at or below it, it is corruption: of the journal, then the store does not open; of one
//! log's share, then that log goes offline. Afterwards everything is settled, under a new run and a new checkpoint.

mod admit;
mod ahead;
mod chain;
mod renew;
mod replay;
mod share;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;

use futures_util::future::join3;

use crate::checkpoint::{self, Checkpoint, Encoder, LogRecord};
use crate::checkpoint_file::{self, checkpoint_path, load_checkpoint};
use crate::config::{LogConfig, StoreConfig};
use crate::cuts::Cuts;
use crate::disk::{DirEntry, Disk};
use crate::epochs::{EpochStart, LeaderEpochs};
use crate::error::{Offline, OpenError};
use crate::index::SegmentIndex;
use crate::indexes::index_path;
use crate::journal::journal_dir;
use crate::look::look_at_active_segments;
use crate::plan::block_ceil;
use crate::producer::{ProducerTable, SNAPSHOT_VERSION, SnapshotError};
use crate::recycle::recycle_dir;
use crate::segment::{DATA_START, Segment};
use crate::spill::RunRecord;
use crate::state::{LogInner, StoreInner, logs_dir};
use crate::store::RecoveryReport;
use chain::{Chain, JournalReader};
use renew::{Refused, renew_all};
use replay::Replay;

/// Opens the store up to the point where its tasks may start.
pub(crate) async fn recover<D: Disk>(
    disk: D,
    dir: &Path,
    config: StoreConfig,
    now_ms: i64,
) -> Result<(Rc<StoreInner<D>>, RecoveryReport), OpenError> {
    config.check().map_err(OpenError::Config)?;
    make_dirs(&disk, dir).await?;
    let checkpoint = load_checkpoint(&disk, dir).await?;
    let mut report = RecoveryReport::default();
    let Checkpoint { redo, logs, runs } = checkpoint;
    let reader = JournalReader::open(&disk, dir, redo).await?;
    let mut chain = chain::scan(&reader).await?;
    let mut renewed = BTreeSet::new();
    let (store, lost) = loop {
        let store = StoreInner::new(disk.clone(), dir, config.clone(), redo.run + 1, chain.next_seq);
        for record in &logs {
            let log = load_log(&store, record, now_ms)?;
            store.logs.borrow_mut().insert(log.name.clone(), log);
        }
        let lost = open_runs(&store, &runs).await?;
        let refused = Refused::default();
        match replay_chain(&store, &reader, &mut chain, (now_ms, &refused), &mut report).await {
            Ok(true) => break (store, lost),
            Ok(false) => {}
            Err(error) => renew_all(&store, &refused, &mut renewed, error).await?,
        }
    };
    report.files_renewed = renewed.len();
    report.producers_lost = lost;
    report.torn_tail = chain.torn;
    report.frames_replayed = chain.frames.len() as u64;
    drop_deleted(&store);
    write_checkpoint(&store).await?;
    // Only now: until that checkpoint stands, another recovery may read what is of no use after it.
    let crashed = !redo.clean || chain.torn || report.frames_replayed > 0;
    if crashed {
        sweep(&store).await.map_err(OpenError::io("removing leftovers"))?;
    }
    if let Err(error) = store.spilled.sweep(&store.disk).await {
        tracing::warn!(dir = %dir.display(), "removing files of producers that are left over: {error}");
    }
    store.journal.open(&store.disk).await.map_err(OpenError::io("preparing the journal"))?;
    let lives = crashed.then(|| lives(&store));
    let opened = store.recycle.open(&store.disk, lives.as_ref()).await;
    opened.map_err(OpenError::io("preparing the recycle directory"))?;
    look_at_active_segments(&store).await;
    report.logs = store.logs.borrow().len();
    for log in store.logs.borrow().values() {
        if let Some(offline) = &log.state.borrow().offline {
            report.offline.push((log.name.to_string(), offline.reason.to_string()));
        }
    }
    Ok((store, report))
}

/// Makes the runs of producers ready that the checkpoint names; says which cannot be used. The start goes on without them.
async fn open_runs<D: Disk>(store: &Rc<StoreInner<D>>, runs: &[RunRecord]) -> Result<Vec<String>, OpenError> {
    let lost = store.spilled.open(&store.disk, runs).await?;
    for (run, why) in &lost {
        tracing::error!(producers = run.producers, "producers on disk are unknown: {why}");
    }
    Ok(lost.into_iter().map(|(_, why)| why).collect())
}

/// Lives of all segments.
fn lives<D: Disk>(store: &StoreInner<D>) -> BTreeSet<u64> {
    let logs = store.logs.borrow();
    let lives = logs.values().map(|log| {
        let state = log.state.borrow();
        state.segments.iter().map(|segment| segment.life).collect::<Vec<_>>()
    });
    lives.flatten().collect()
}

async fn make_dirs<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    let make = async || {
        for part in [logs_dir(dir), journal_dir(dir), recycle_dir(dir)] {
            disk.create_dir_all(&part).await?;
        }
        // All the way up: a killed process may have left ancestors that exist and are not stable.
        for ancestor in dir.ancestors() {
            let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
            match disk.sync_dir(ancestor).await {
                Err(error) if is_foreign(&error) && ancestor != dir => break,
                synced => synced?,
            }
        }
        Ok(())
    };
    make().await.map_err(OpenError::io(dir.display()))
}

/// Whether an ancestor that gives this error was not made by us: we may not open it, its file system cannot be written,
/// or has no flush of directories, as some that are not on a disk.
fn is_foreign(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
        || matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EROFS))
}

fn load_log<D: Disk>(
    store: &Rc<StoreInner<D>>,
    record: &LogRecord,
    now_ms: i64,
) -> Result<Rc<LogInner<D>>, OpenError> {
    let damaged = |what: &str| OpenError::Corrupt(format!("checkpoint of log {}: {what}", record.name));
    let log = LogInner::new(&store.config, record.id, &record.name, LogConfig::default());
    let mut state = log.state.borrow_mut();
    let dir = store.log_dir(&record.name);
    for known in &record.segments {
        if known.end < DATA_START || state.segments.back().is_some_and(|last| last.base >= known.base) {
            return Err(damaged("segments do not follow each other"));
        }
        let segment = Segment::named(&dir, (known.base, known.life, known.cleaned), now_ms);
        segment.end.set(known.end);
        segment.max_timestamp.set((known.max_timestamp, known.max_timestamp_offset));
        segment.first_timestamp.set(known.first_timestamp);
        segment.horizon_ms.set(known.horizon_ms);
        segment.prepared_to.set(block_ceil(known.end));
        segment.indexed_from.set(known.end);
        *segment.index.borrow_mut() = SegmentIndex::new(known.base, known.end);
        state.segments.push_back(segment);
    }
    let entry = |&(epoch, start_offset): &(i32, i64)| EpochStart { epoch, start_offset };
    state.epochs = LeaderEpochs::from_entries(record.epochs.iter().map(entry).collect())
        .ok_or_else(|| damaged("epochs do not grow"))?;
    if !record.producers.is_empty() {
        let decoded = ProducerTable::decode(&record.producers, usize::MAX);
        let refused = |error| match error {
            SnapshotError::NewerVersion(found) => {
                let file =
                    format!("{}: producers of log {}", checkpoint_path(&store.dir).display(), record.name);
                OpenError::NewerVersion { file, found, supported: SNAPSHOT_VERSION }
            }
            SnapshotError::Damaged => damaged(&error.to_string()),
        };
        let producers = decoded.map_err(refused)?.0;
        state.producers.replace(producers.bounded(store.config.producers_per_log_max));
    }
    (state.start_offset, state.end_offset) = (record.start_offset, record.end_offset);
    state.durable_offset = record.end_offset;
    state.cleaned_to = record.cleaned_to;
    state.cuts = Cuts::from_records(&record.cuts);
    if !record.damage.is_empty() {
        state.offline = Some(Offline::new(&record.damage));
        state.damaged = true;
    }
    log.has_dir.set(!state.segments.is_empty());
    drop(state);
    Ok(log)
}

/// Replays the chain. Says no, and settles nothing, if it had to be cut so that it must be replayed from the start.
async fn replay_chain<D: Disk>(
    store: &Rc<StoreInner<D>>,
    reader: &JournalReader<D>,
    chain: &mut Chain,
    (now_ms, refused): (i64, &Refused<D>),
    report: &mut RecoveryReport,
) -> Result<bool, OpenError> {
    let mut replay = Replay::new(store, chain, now_ms, refused);
    let mut torn_at = None;
    let (mut told, mut filled) = (ahead::frames(reader, &chain.frames).await?, ahead::Window::new());
    let (mut read, mut replayed) = (told.len(), 0);
    while !(told.is_empty() && filled.is_empty()) {
        let wanted = replay.wanted(&told);
        let replaying = filled.len();
        let (torn, next, is_filled) = join3(
            replay.window(filled),
            ahead::frames(reader, &chain.frames[read..]),
            ahead::fill(store, told, wanted),
        )
        .await;
        if let Some(at) = torn? {
            torn_at = Some(replayed + at);
            break;
        }
        replayed += replaying;
        (told, filled) = (next?, is_filled);
        read += told.len();
    }
    let Some(index) = torn_at else {
        report.bytes_replayed = replay.bytes();
        replay.finish().await?;
        return Ok(true);
    };
    drop(replay);
    chain.cut(index);
    Ok(false)
}

/// Lets go of segments that lie wholly before their log's start.
fn drop_deleted<D: Disk>(store: &StoreInner<D>) {
    for log in store.logs.borrow().values() {
        let mut state = log.state.borrow_mut();
        state.durable_offset = state.end_offset;
        while let Some(front) = state.segments.front().cloned() {
            if state.segment_end_offset(front.base) > state.start_offset {
                break;
            }
            store.files.close(&front);
            state.segments.pop_front();
        }
    }
}

/// Removes directories of no log and files of no segment: what a crash left between a change and its clean-up.
async fn sweep<D: Disk>(store: &StoreInner<D>) -> std::io::Result<()> {
    let dir = logs_dir(&store.dir);
    store.logs.borrow().values().for_each(|log| log.has_dir.set(false));
    for entry in store.disk.list(&dir).await? {
        let path = dir.join(&entry.name);
        let log = store.logs.borrow().get(entry.name.as_str()).cloned();
        match log {
            Some(log) if entry.is_dir => {
                log.has_dir.set(true);
                for file in store.disk.list(&path).await? {
                    if !is_of_log(&log, &file) {
                        store.disk.remove(&path.join(&file.name)).await?;
                    }
                }
            }
            _ if entry.is_dir => store.disk.remove_dir_all(&path).await?,
            _ => store.disk.remove(&path).await?,
        }
    }
    store.disk.sync_dir(&dir).await
}

fn is_of_log<D: Disk>(log: &LogInner<D>, file: &DirEntry) -> bool {
    // Behind the damage there are acknowledged records in segments that only frames knew.
    if log.state.borrow().damaged {
        return true;
    }
    let name = Path::new(&file.name);
    let is_its = |segment: &Segment<D>| {
        segment.path.file_name().is_some_and(|of| of == name)
            || index_path(segment).file_name().is_some_and(|of| of == name)
    };
    log.state.borrow().segments.iter().any(|segment| is_its(segment))
}

/// The first checkpoint of the run: from here on frames of older runs mean nothing.
async fn write_checkpoint<D: Disk>(store: &Rc<StoreInner<D>>) -> Result<(), OpenError> {
    let mut encoder = Encoder::new();
    for log in store.logs.borrow().values() {
        encoder.log(&log.state.borrow().record(log));
    }
    let seq = store.pipeline.last_seq() + 1;
    let redo = store.journal.redo(store.run, seq, crate::journal::Cursor::default(), false);
    let bytes = encoder.finish(&redo, &store.spilled.records());
    let failed = || OpenError::io(checkpoint_path(&store.dir).display().to_string());
    checkpoint::check_len(&bytes).map_err(failed())?;
    checkpoint_file::write_first(&store.disk, &store.dir, bytes.into()).await.map_err(failed())
}
