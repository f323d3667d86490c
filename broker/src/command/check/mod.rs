//! `penstock check`: verifies a data directory that no broker has open. Nothing is written.
//!
//! The lock is taken as a reader takes it: several checks may run at once, and a broker that is started meanwhile waits
//! and then refuses. What a crash tore and nobody was told of is no damage; the next start drops it.

mod metadata;

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use penstock_core::metadata::MetadataImage;
use penstock_storage::offline::{CheckReport, Finding, OpenFault, check_store};
use penstock_storage::{reshard_plan_path, shard_dir};
use serde_json::{Value, json};

use super::files::{HostFiles, shards};
use super::output::{Output, counted};
use super::{Failure, USAGE};
use crate::serve::data_dir::{DataDir, DataDirError, Meta};
use crate::shard::PartitionKey;
use metadata::check_metadata;
pub(super) use metadata::{metadata_records, read_snapshot};

/// Exit status: something was found.
const FOUND: u8 = 1;
/// What each shard's directory has from its first start on.
const CHECKPOINT: &str = "checkpoint";
/// Exit status: it could not be checked.
const UNCHECKED: u8 = USAGE;

/// What `check` takes.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The data directory.
    dir: PathBuf,
    /// Print JSON, for scripts.
    #[arg(long)]
    json: bool,
}

/// What was seen of a data directory.
struct Report {
    /// What is not right outside of the shards.
    findings: Vec<Finding>,
    shards: Vec<Shard>,
    /// Says which log is whose, as far as the metadata could be followed.
    image: Option<MetadataImage>,
}

/// What was seen of one shard.
struct Shard {
    number: usize,
    report: CheckReport,
}

impl Report {
    fn found(&self) -> u64 {
        self.findings.len() as u64 + self.shards.iter().map(|shard| shard.report.found()).sum::<u64>()
    }

    /// Topic and partition of a log; none for logs of another kind, and of topics that the metadata does not know.
    fn partition(&self, log: Option<&str>) -> Option<(&str, i32)> {
        let key = PartitionKey::from_log_name(log?)?;
        let topic = self.image.as_ref()?.topic_by_id(key.topic_id)?;
        Some((topic.name.as_str(), key.partition))
    }

    /// Where a finding is, whose it is, what it is.
    fn line(&self, finding: &Finding) -> String {
        let mut place = finding.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        if let Some(position) = finding.position {
            place.push_str(&format!(", position {position}"));
        }
        let mut whose = match (self.partition(finding.log.as_deref()), &finding.log) {
            (Some((topic, partition)), _) => format!("topic {topic}, partition {partition}"),
            (None, log) => log.as_ref().map(|log| format!("log {log}")).unwrap_or_default(),
        };
        if let Some(offset) = finding.offset {
            whose.push_str(&format!(", offset {offset}"));
        }
        let parts = [place, whose, finding.what.clone()];
        let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        format!("  {}", parts.join(": "))
    }

    fn finding_document(&self, finding: &Finding) -> Value {
        let partition = self.partition(finding.log.as_deref());
        json!({
            "file": finding.file.as_ref().map(|file| file.display().to_string()), "position": finding.position,
            "log": finding.log, "topic": partition.map(|(topic, _)| topic),
            "partition": partition.map(|(_, partition)| partition), "offset": finding.offset,
            "segment": finding.segment, "what": finding.what,
        })
    }

    fn documents(&self, findings: &[Finding]) -> Vec<Value> {
        findings.iter().map(|finding| self.finding_document(finding)).collect()
    }
}

#[allow(clippy::print_stderr, reason = "the error is for whoever typed the command")]
pub(crate) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let report = match check(&args.dir) {
        Ok(report) => report,
        Err(why) => {
            eprintln!("penstock: {why}");
            return Err(Failure::Said(UNCHECKED));
        }
    };
    let found = report.found();
    match tell(&report, args) {
        Err(Failure::Output(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("penstock: cannot write the result: {error}");
            Err(Failure::Said(UNCHECKED))
        }
        // Whether anybody reads it to its end or not.
        _ if found > 0 => Err(Failure::Said(FOUND)),
        told => told,
    }
}

/// Prints what was found.
fn tell(report: &Report, args: &CheckArgs) -> Result<(), Failure> {
    let mut out = Output::new(args.json);
    let found = report.found();
    if args.json {
        out.document(&json!({
            "sound": found == 0, "findings": report.documents(&report.findings),
            "shards": report.shards.iter().map(|shard| shard_document(report, shard)).collect::<Vec<_>>(),
        }))?;
    } else {
        for shard in &report.shards {
            print(&mut out, report, shard)?;
        }
        report.findings.iter().try_for_each(|finding| out.line(report.line(finding)))?;
        let verdict = if found == 0 { "sound".to_owned() } else { counted(found, "finding") };
        out.line(format!("{}: {verdict}", args.dir.display()))?;
    }
    Ok(out.finish()?)
}

/// Checks all shards. The error says why that was not possible, and what to do.
fn check(path: &Path) -> Result<Report, String> {
    let dir = DataDir::lock_to_read(path).map_err(|error| error.to_string())?;
    let files = HostFiles::default();
    let numbers = shards(&files, dir.path()).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut report = Report { findings: Vec::new(), shards: Vec::new(), image: None };
    let meta = read_meta(&dir, numbers.len(), &mut report.findings)?;
    if reshard_plan_path(dir.path()).exists() || meta.shards == Meta::MOVING {
        return Err(format!(
            "logs of {} are being moved between shards: start the broker once, which finishes that, and stop it",
            path.display()
        ));
    }
    for number in &numbers {
        let checked = check_store(&files, &shard_dir(dir.path(), *number)).map_err(unchecked)?;
        report.shards.push(Shard { number: *number, report: checked });
    }
    // The data directory is marked as one only after each of its shards has a checkpoint.
    let marked = report.findings.is_empty();
    for shard in report.shards.iter_mut().filter(|shard| marked && shard.number < meta.shards) {
        let file = shard_dir(dir.path(), shard.number).join(CHECKPOINT);
        if matches!(file.try_exists(), Ok(false)) && shard.report.findings.is_empty() {
            let what = "it is missing: what this shard held is lost".to_owned();
            shard.report.add(Finding { file: Some(file), ..Finding::new(what) });
        }
    }
    for number in (0..meta.shards).filter(|number| !numbers.contains(number)) {
        let spread = counted(meta.shards as u64, "shard");
        let what = format!("the directory is missing, although the data is spread over {spread}");
        let file = Some(shard_dir(dir.path(), number));
        report.findings.push(Finding { file, ..Finding::new(what) });
    }
    if let Some(shard) = report.shards.iter_mut().find(|shard| shard.number == 0) {
        let (found, image) = check_metadata(&files, dir.path(), &meta).map_err(unchecked)?;
        found.into_iter().for_each(|finding| shard.report.add(finding));
        report.image = image;
    }
    Ok(report)
}

/// Whose data it is. Where that is damaged, what can be told from the rest.
fn read_meta(dir: &DataDir, shards: usize, findings: &mut Vec<Finding>) -> Result<Meta, String> {
    let (file, what) = match dir.read_meta() {
        Ok(Some(meta)) => return Ok(meta),
        Ok(None) if shards == 0 => {
            return Err(format!("{} is no data directory, or was never used", dir.path().display()));
        }
        Ok(None) => (dir.meta_path(), "it is missing, although there are shards".to_owned()),
        Err(DataDirError::Damaged(file, why)) => (file, format!("it is damaged ({why})")),
        Err(error) => return Err(error.to_string()),
    };
    findings.push(Finding { file: Some(file), ..Finding::new(what) });
    Ok(Meta { cluster_id: String::new(), node_id: 0, shards: shards.max(1) })
}

fn unchecked(fault: OpenFault) -> String {
    let remedy = match fault {
        OpenFault::NewerVersion { .. } => "check it with the version of penstock that wrote it",
        OpenFault::Io { .. } | OpenFault::Damaged { .. } => {
            "run this as a user who may read it, and see the system's log for the disk"
        }
    };
    format!("{fault}; {remedy}")
}

fn print(out: &mut Output, all: &Report, shard: &Shard) -> Result<(), Failure> {
    let report = &shard.report;
    out.line(format!(
        "shard {}: {}, {}, {} of {}",
        shard.number,
        counted(report.logs, "log"),
        counted(report.segments, "segment"),
        if report.batches == 1 { "1 batch".to_owned() } else { format!("{} batches", report.batches) },
        counted(report.bytes, "byte"),
    ))?;
    if report.frames > 0 || report.torn.is_some() {
        let torn = report.torn.map(|seq| {
            format!("; frame {seq} was being written when the broker ended, was never acknowledged and will be dropped")
        });
        let frames = counted(report.frames, "journal frame");
        out.line(format!("  not closed: the next start replays {frames}{}", torn.unwrap_or_default()))?;
    }
    report.findings.iter().try_for_each(|finding| out.line(all.line(finding)))?;
    if report.more_findings > 0 {
        out.line(format!("  and {} more", report.more_findings))?;
    }
    Ok(())
}

fn shard_document(all: &Report, shard: &Shard) -> Value {
    let report = &shard.report;
    json!({
        "shard": shard.number, "logs": report.logs, "segments": report.segments, "batches": report.batches,
        "bytes": report.bytes, "journal_frames": report.frames, "torn_frame": report.torn,
        "more_findings": report.more_findings,
        "findings": all.documents(&report.findings),
    })
}
