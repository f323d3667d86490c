//! Verifies everything of one store.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::segment::BatchView;
use super::store::{OfflineLog, OfflineSegment, OfflineStore, OpenFault};
use super::{Files, read_whole};
use crate::disk::BLOCK;
use crate::epochs::{EpochStart, LeaderEpochs};
use crate::index::{IndexError, SegmentIdentity, SegmentIndex};
use crate::indexes::FILE_LEN_MAX;
use crate::producer::ProducerTable;
use crate::segment::{DATA_START, SegmentHeader};
use crate::spill::{self, RunRecord};

/// Findings of one store that are kept; a disk full of damage has as many as it has batches.
pub const FINDINGS_MAX: usize = 10_000;

/// Something that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The log; none where the store as a whole is meant.
    pub log: Option<String>,
    /// The first offset affected, as far as it is known.
    pub offset: Option<i64>,
    /// Base offset of the segment.
    pub segment: Option<i64>,
    /// The file; none where no single one is meant.
    pub file: Option<PathBuf>,
    /// Position in the file, in bytes.
    pub position: Option<u64>,
    /// What it is, in words.
    pub what: String,
}

impl Finding {
    /// Something about a store, or all of a data directory.
    pub fn new(what: String) -> Finding {
        Finding { log: None, offset: None, segment: None, file: None, position: None, what }
    }

    fn of_log(log: &OfflineLog, what: String) -> Finding {
        Finding { log: Some(log.name.clone()), ..Finding::new(what) }
    }
}

/// What a check saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Logs.
    pub logs: u64,
    /// Segments.
    pub segments: u64,
    /// Batches.
    pub batches: u64,
    /// Bytes of batches.
    pub bytes: u64,
    /// Journal frames that the next start would replay.
    pub frames: u64,
    /// The first frame, if there is one, that was being written at a crash and that nobody was told of; the next start
    /// drops it.
    pub torn: Option<u64>,
    /// What is not right, the first [`FINDINGS_MAX`] of it; empty if all is.
    pub findings: Vec<Finding>,
    /// What was found besides.
    pub more_findings: u64,
}

impl CheckReport {
    /// Number of findings, those left out too.
    pub fn found(&self) -> u64 {
        self.findings.len() as u64 + self.more_findings
    }

    /// Adds a finding, or counts it if there are too many already.
    pub fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }
}

/// Verifies the store in `dir`: checkpoint, journal, every batch's crc, the chain of offsets and epochs of every log,
/// segment headers, indexes, producer snapshots and the files of producers. Damage is reported, not an error; errors are what keeps it from
/// being looked for.
pub fn check_store(files: &impl Files, dir: &Path) -> Result<CheckReport, OpenFault> {
    let store = match OfflineStore::open(files, dir) {
        Err(OpenFault::Damaged { path, reason }) => {
            let what = format!("{reason}; nothing else of this store can be told");
            let finding = Finding { file: Some(path), ..Finding::new(what) };
            return Ok(CheckReport { findings: vec![finding], ..CheckReport::default() });
        }
        store => store?,
    };
    let mut report = CheckReport {
        logs: store.logs.len() as u64,
        frames: store.frames,
        torn: store.torn,
        findings: store.findings.clone(),
        ..CheckReport::default()
    };
    for log in store.logs() {
        let epochs = check_record(log, &mut report);
        check_log(files, log, epochs, &mut report);
    }
    for run in &store.runs {
        check_run(files, dir, run, &mut report);
    }
    Ok(report)
}

/// A file of producers that are not in memory.
fn check_run(files: &impl Files, dir: &Path, run: &RunRecord, report: &mut CheckReport) {
    let path = spill::path_in(dir, run.number);
    let faults = match files.size(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            vec![(0, "this file of producers is missing".to_owned())]
        }
        Err(error) => vec![(0, error.to_string())],
        Ok(len) => spill::check(run, len, &|range| files.read(&path, range.start, range.end - range.start)),
    };
    for (position, what) in faults {
        let (file, position) = (Some(path.clone()), Some(position));
        report.add(Finding { file, position, ..Finding::new(what) });
    }
}

/// What the checkpoint holds of a log besides its segments. Gives the leader epochs that it knows.
fn check_record(log: &OfflineLog, report: &mut CheckReport) -> LeaderEpochs {
    let Some(record) = &log.record else { return LeaderEpochs::new() };
    if !record.damage.is_empty() {
        let what = format!("it is offline since a start found: {}", record.damage);
        report.add(Finding::of_log(log, what));
    }
    if !record.producers.is_empty()
        && let Err(error) = ProducerTable::decode(&record.producers, usize::MAX)
    {
        report.add(Finding::of_log(log, format!("in the checkpoint: {error}")));
    }
    let entry = |&(epoch, start_offset): &(i32, i64)| EpochStart { epoch, start_offset };
    let epochs = LeaderEpochs::from_entries(record.epochs.iter().map(entry).collect());
    if epochs.is_none() {
        report.add(Finding::of_log(log, "leader epochs in the checkpoint do not grow".to_owned()));
    }
    epochs.unwrap_or_default()
}

/// How far the batches of a log were followed.
struct Progress {
    next_offset: i64,
    epoch: i32,
    /// Those that the checkpoint knows, which begin before its end.
    epochs: LeaderEpochs,
    epochs_end: i64,
}

fn check_log(files: &impl Files, log: &OfflineLog, epochs: LeaderEpochs, report: &mut CheckReport) {
    let epochs_end = log.record.as_ref().map_or(0, |record| record.end_offset);
    let mut progress = Progress { next_offset: 0, epoch: -1, epochs, epochs_end };
    for (at, segment) in log.segments.iter().enumerate() {
        report.segments += 1;
        let before = report.found();
        let end_offset = log.segments.get(at + 1).map(|next| next.base);
        progress.next_offset = segment.base;
        check_segment(files, log, segment, (&mut progress, report));
        let end = end_offset.unwrap_or(log.end_offset);
        let has_batches = segment.end > DATA_START;
        // A log ends with its last record; between segments cleaning may have left a gap, and a truncation may have made
        // one the log's end.
        let cleaned_to = log.record.as_ref().map_or(0, |record| record.cleaned_to);
        let ends_right = match end_offset {
            Some(next) => progress.next_offset <= next,
            None if end <= cleaned_to => progress.next_offset <= end,
            None => progress.next_offset == end || !has_batches || log.broken,
        };
        // Where something was found, how the segment ends says nothing more.
        if report.found() == before && !ends_right {
            let what = format!("its batches end at offset {}, not {end}", progress.next_offset);
            report.add(finding(log, segment, (progress.next_offset, segment.end), what));
        }
    }
}

fn finding(
    log: &OfflineLog,
    segment: &OfflineSegment,
    (offset, position): (i64, u64),
    what: String,
) -> Finding {
    Finding {
        offset: Some(offset),
        segment: Some(segment.base),
        file: Some(segment.path.clone()),
        position: Some(position),
        ..Finding::of_log(log, what)
    }
}

fn check_segment(
    files: &impl Files,
    log: &OfflineLog,
    segment: &OfflineSegment,
    (progress, report): (&mut Progress, &mut CheckReport),
) {
    if let Err(what) = check_header(files, log, segment) {
        return report.add(finding(log, segment, (segment.base, 0), what));
    }
    let mut index = match read_index(files, segment) {
        Ok(index) => index,
        Err(what) => {
            let file = Some(index_path(segment));
            report.add(Finding { file, ..finding(log, segment, (segment.base, 0), what) });
            BTreeMap::new()
        }
    };
    for batch in segment.batches(files) {
        let view = match batch {
            Ok(view) => view,
            Err(fault) => {
                let what = format!("{}; what follows in this segment cannot be told", fault.reason());
                return report.add(finding(log, segment, (progress.next_offset, fault.position()), what));
            }
        };
        check_batch(log, segment, &view, (&mut *progress, &mut *report));
        let offset = view.batch.header.base_offset;
        if index.remove(&view.position).is_some_and(|named| named != offset) {
            let what = "the segment's index names another offset here".to_owned();
            report.add(finding(log, segment, (offset, view.position), what));
        }
    }
    if let Some((position, offset)) = index.pop_first() {
        let what = "the segment's index names a batch that is not there".to_owned();
        report.add(finding(log, segment, (offset, position), what));
    }
}

fn check_batch(
    log: &OfflineLog,
    segment: &OfflineSegment,
    view: &BatchView,
    (progress, report): (&mut Progress, &mut CheckReport),
) {
    let header = view.batch.header;
    report.batches += 1;
    report.bytes += header.total_len() as u64;
    let mut wrong = |what: String| {
        report.add(finding(log, segment, (header.base_offset, view.position), what));
    };
    if !view.crc_ok {
        wrong("the batch does not match its crc".to_owned());
    }
    if header.base_offset < progress.next_offset {
        wrong(format!("the batch's offset goes back behind {}", progress.next_offset));
    }
    // Neither offset nor leader epoch is covered by the crc, but the checkpoint knows the latter. What came after the
    // checkpoint is covered by the journal's digests.
    let last = header.last_offset();
    // Where records were deleted up to the middle of a batch, its epoch is known from there on.
    let known = progress.epochs.epoch_at(header.base_offset.max(log.start_offset.min(last)));
    let known = known.filter(|_| header.base_offset < progress.epochs_end);
    let epoch = header.partition_leader_epoch;
    if epoch < progress.epoch || known.is_some_and(|known| known != epoch) {
        let right = known.unwrap_or(progress.epoch);
        wrong(format!("the batch has leader epoch {epoch}, where {right} is due"));
    }
    progress.next_offset = header.next_offset();
    progress.epoch = known.unwrap_or(epoch).max(progress.epoch);
}

/// The header must be this segment's, unless all bytes of the segment are still in the journal.
fn check_header(files: &impl Files, log: &OfflineLog, segment: &OfflineSegment) -> Result<(), String> {
    if !segment.needs_file {
        return Ok(());
    }
    let block = match files.read(&segment.path, 0, BLOCK as u64) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("the file is missing".to_owned());
        }
        read => read.map_err(|error| error.to_string())?,
    };
    if let Some(version) = SegmentHeader::newer_version(&block) {
        return Err(format!("the segment has format version {version}, which this version does not know"));
    }
    match SegmentHeader::decode(&block) {
        None => Err("the segment's header is damaged".to_owned()),
        Some(header) if (header.log_id, header.base, header.life) != (log.id, segment.base, segment.life) => {
            Err("the segment's header is that of another segment".to_owned())
        }
        Some(_) => Ok(()),
    }
}

fn index_path(segment: &OfflineSegment) -> PathBuf {
    segment.path.with_extension("index")
}

/// Positions and offsets that the segment's index names. A file of another life or end is not used and so not wrong.
fn read_index(files: &impl Files, segment: &OfflineSegment) -> Result<BTreeMap<u64, i64>, String> {
    let path = index_path(segment);
    let bytes = match read_whole(files, &path, FILE_LEN_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        read => read.map_err(|error| error.to_string())?,
    };
    let identity =
        SegmentIdentity { base_offset: segment.base, life: segment.life, end_position: segment.end };
    match SegmentIndex::decode(&bytes, identity, DATA_START) {
        Err(IndexError::OtherSegment) => Ok(BTreeMap::new()),
        Err(error) => Err(format!("{error}; it is made again when it is needed")),
        Ok(index) => Ok(index.batches().map(|batch| (batch.position, batch.base_offset)).collect()),
    }
}
