//! What a start and reads make of a flipped bit.

use super::image::{Image, Left, LogTruth, tiny};
use std::io;

use super::*;
use crate::disk::DirEntry;
use crate::offline::{Files, Finding, check_store};
use crate::{BatchSearch, ReadError};

/// What became of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything is there.
    Intact,
    /// Something is lost, and said to be.
    Lost,
    /// The store does not open.
    Refused(String),
}

impl Verdict {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Verdict::Intact => "intact",
            Verdict::Lost => "lost",
            Verdict::Refused(_) => "refused",
        }
    }
}

/// Opens the image and reads all of it. The error says what is neither right nor told.
pub(super) fn judge(image: &Image, left: Left, steps_max: u64) -> Result<Verdict, String> {
    let world = SimWorld::with_files(3, &image.files);
    let (disk, logs) = (world.disk(), image.logs.clone());
    let judged = world.block_on_until(steps_max, async move {
        let (store, report) = match Store::open(disk, Path::new(DIR), tiny(), 1000).await {
            Err(error) => return Ok(Verdict::Refused(error.to_string())),
            Ok(opened) => opened,
        };
        let mut lost = false;
        for (name, truth) in &logs {
            lost |= judge_log(&store, &report, (name, truth), left).await?;
        }
        if store.logs().len() != logs.len() {
            return Err("there are logs that never were".to_owned());
        }
        store.close().await.map_err(|error| format!("close: {error}"))?;
        Ok(if lost { Verdict::Lost } else { Verdict::Intact })
    });
    judged.unwrap_or_else(|| Err("it never ends".to_owned()))
}

impl Files for Image {
    fn read(&self, path: &Path, position: u64, len: u64) -> io::Result<Bytes> {
        let file = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        let from = (position as usize).min(file.len());
        Ok(file.slice(from..(from + len as usize).min(file.len())))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(self.files.get(path).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let names = self.files.keys().filter_map(|path| path.strip_prefix(dir).ok()?.to_str());
        Ok(names.map(|name| DirEntry { name: name.to_owned(), len: 0, is_dir: false }).collect())
    }
}

/// Whether the offline check says the same of a flip in `path`.
pub(super) fn check(image: &Image, path: &Path, verdict: &Verdict) -> Result<(), String> {
    let findings = match check_store(image, Path::new(DIR)) {
        Ok(report) => report.findings,
        Err(fault) => vec![Finding::new(fault.to_string())],
    };
    if *verdict != Verdict::Intact {
        return if findings.is_empty() { Err("the check finds nothing".to_owned()) } else { Ok(()) };
    }
    let harmless = |finding: &Finding| {
        let deleted = finding.log.as_ref().and_then(|log| Some(image.logs.get(log)?.start));
        // A checkpoint has a copy, an index is made again, a header is not needed; deleted records are missed by nobody.
        path.extension().is_none_or(|ending| ending != "log" && ending != "journal")
            || finding.position == Some(0)
            || finding.offset.zip(deleted).is_some_and(|(offset, start)| offset < start)
    };
    match findings.iter().find(|finding| !harmless(finding)) {
        Some(finding) => Err(format!("the check finds {finding:?}")),
        None => Ok(()),
    }
}

/// Whether something of the log is lost and said to be.
async fn judge_log(
    store: &Store<SimDisk>,
    report: &RecoveryReport,
    (name, truth): (&str, &LogTruth),
    left: Left,
) -> Result<bool, String> {
    let Some(log) = store.log(name) else { return Err(format!("log {name} is gone")) };
    if let Some(offline) = log.offline() {
        let told = report.offline.iter().any(|(told, _)| told == name);
        let named =
            offline.reason.contains("segment") && offline.reason.contains(|c: char| c.is_ascii_digit());
        return if told && named { Ok(true) } else { Err(format!("log {name} is offline: {offline}")) };
    }
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let torn = left == Left::Torn && end == truth.last_frame_from;
    if start != truth.start || (end != truth.end && !torn) {
        return Err(format!("log {name} reaches from {start} to {end}"));
    }
    let mut lost = false;
    for offset in start..end {
        lost |= read_one(&log, truth, offset).await?;
    }
    lost |= read_through(&log, truth, end).await?;
    if torn && end != truth.end {
        return Ok(lost);
    }
    lost |= look_up(&log, truth).await?;
    if log.producers() != truth.producers {
        return Err(format!("log {name}: other producers"));
    }
    for batch in truth.batches.values().filter(|batch| batch.header.base_offset >= start) {
        if log.epoch_at(batch.header.base_offset) != Some(batch.header.partition_leader_epoch) {
            return Err(format!("log {name}: another epoch at {}", batch.header.base_offset));
        }
    }
    Ok(lost)
}

fn is_told(log: &Log<SimDisk>, error: &ReadError) -> Result<bool, String> {
    match error {
        ReadError::Corrupt { .. } => Ok(true),
        ReadError::Io(what) if what.contains(&*log.name()) && what.contains("segment") => Ok(true),
        _ => Err(format!("log {}: {error}", log.name())),
    }
}

async fn read_one(log: &Log<SimDisk>, truth: &LogTruth, offset: i64) -> Result<bool, String> {
    let found = match log.read(offset, 1, i64::MAX, true).await {
        Err(error) => return is_told(log, &error),
        Ok(found) => found,
    };
    let due = truth.batch_for(offset);
    if found.bytes == 0 || join(&found) != [due.clone()] || found.first_offset != due.header.base_offset {
        return Err(format!("log {}, offset {offset}: another batch {found:?}", log.name()));
    }
    Ok(false)
}

/// Reads as a consumer does; goes on behind what is damaged.
async fn read_through(log: &Log<SimDisk>, truth: &LogTruth, end: i64) -> Result<bool, String> {
    let mut lost = false;
    let mut from = log.log_start_offset();
    while from < end {
        let found = match log.read(from, 1 << 20, i64::MAX, true).await {
            Err(error) => {
                lost |= is_told(log, &error)?;
                from += 1;
                continue;
            }
            Ok(found) => found,
        };
        if found.bytes == 0 {
            return Err(format!("log {}: nothing at {from}, end {end}", log.name()));
        }
        for batch in join(&found) {
            if *truth.batch_for(from) != batch {
                return Err(format!("log {}, from {from}: another batch", log.name()));
            }
            from = batch.header.next_offset();
        }
    }
    Ok(lost)
}

async fn look_up(log: &Log<SimDisk>, truth: &LogTruth) -> Result<bool, String> {
    let search = async |search: BatchSearch| search.run(1 << 20);
    let mut lost = false;
    for (time, due) in &truth.times {
        match log.offset_for_time(*time, search).await {
            Ok(found) if found == *due => {}
            Ok(found) => return Err(format!("log {}: time {time} gives {found:?}", log.name())),
            Err(error) => lost |= is_told(log, &error)?,
        }
    }
    match log.max_timestamp(search).await {
        Ok(found) if found == truth.newest => Ok(lost),
        Ok(found) => Err(format!("log {}: newest is {found:?}", log.name())),
        Err(error) => is_told(log, &error),
    }
}
