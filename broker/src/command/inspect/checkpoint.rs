//! Checkpoints, and the producer snapshots in them.

use std::path::Path;

use penstock_storage::offline::view::{self, CheckpointView, LogView};
use serde_json::{Value, json};

use crate::command::Failure;
use crate::command::files::HostFiles;
use crate::command::output::{Output, Table};
use crate::command::time::format_ms;

pub(super) fn producers(files: &HostFiles, out: &mut Output, path: &Path) -> Result<(), Failure> {
    let checkpoint = view::checkpoint(files, path)?;
    let headings = ["LOG", "PRODUCER", "EPOCH", "LAST SEQUENCE", "LAST OFFSET", "TRANSACTION", "LAST SEEN"];
    let mut table = Table::new(&headings);
    for log in &checkpoint.logs {
        let producers = log.producers();
        let producers = producers.map_err(|error| Failure::Failed(format!("log {}: {error}", log.name)))?;
        for (id, producer) in &producers {
            let last_offset = producer.batches().last().map(|batch| batch.last_offset);
            let transaction = producer.transaction_first_offset;
            if out.is_json() {
                out.json_line(&json!({
                    "log": log.name, "producer_id": id, "epoch": producer.epoch,
                    "last_sequence": producer.last_sequence(), "last_offset": last_offset,
                    "transaction_first_offset": transaction, "last_seen_ms": producer.last_seen_ms,
                }))?;
                continue;
            }
            let optional = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
            table.row(vec![
                log.name.clone(),
                id.to_string(),
                producer.epoch.to_string(),
                producer.last_sequence().to_string(),
                optional(last_offset),
                optional(transaction),
                format_ms(producer.last_seen_ms),
            ]);
        }
    }
    if out.is_json() {
        return Ok(());
    }
    out.line(path.display().to_string())?;
    Ok(out.table(&table)?)
}

pub(super) fn checkpoint(files: &HostFiles, out: &mut Output, path: &Path) -> Result<(), Failure> {
    let checkpoint = view::checkpoint(files, path)?;
    if out.is_json() {
        return Ok(out.json_line(&checkpoint_document(path, &checkpoint))?);
    }
    let state = if checkpoint.clean { "closed" } else { "not closed after it" };
    out.line(format!("{}: run {}, {state}", path.display(), checkpoint.run))?;
    out.line(format!(
        "journal: frame {} begins in file {} at {}; {} files of {} bytes",
        checkpoint.redo_seq,
        checkpoint.redo_file,
        checkpoint.redo_position,
        checkpoint.journal_files,
        checkpoint.journal_file_bytes
    ))?;
    for log in &checkpoint.logs {
        log_lines(out, log)?;
    }
    for run in &checkpoint.runs {
        out.line(format!(
            "producers on disk: {:016x}.run, {} of them, {} bytes",
            run.number, run.producers, run.len
        ))?;
    }
    Ok(())
}

fn log_lines(out: &mut Output, log: &LogView) -> Result<(), Failure> {
    let producers =
        log.producers().map_or("a damaged snapshot of".to_owned(), |found| found.len().to_string());
    out.line(format!(
        "log {} (id {}): offsets {} to {}, {producers} producers",
        log.name, log.id, log.start_offset, log.end_offset
    ))?;
    if !log.damage.is_empty() {
        out.line(format!("  offline: {}", log.damage))?;
    }
    for (epoch, offset) in &log.epochs {
        out.line(format!("  leader epoch {epoch} from offset {offset}"))?;
    }
    for segment in &log.segments {
        out.line(format!(
            "  segment {}: life {}, end {}, largest timestamp {}",
            segment.base,
            segment.life,
            segment.end,
            format_ms(segment.max_timestamp)
        ))?;
    }
    Ok(())
}

fn checkpoint_document(path: &Path, checkpoint: &CheckpointView) -> Value {
    let log = |log: &LogView| {
        let segment = |segment: &view::SegmentView| {
            json!({
                "base": segment.base, "life": segment.life, "end": segment.end,
                "max_timestamp": segment.max_timestamp,
            })
        };
        let epoch = |(epoch, offset): &(i32, i64)| json!({ "epoch": epoch, "offset": offset });
        json!({
            "name": log.name, "id": log.id, "start_offset": log.start_offset, "end_offset": log.end_offset,
            "segments": log.segments.iter().map(segment).collect::<Vec<_>>(),
            "epochs": log.epochs.iter().map(epoch).collect::<Vec<_>>(),
            "producers": log.producers().ok().map(|producers| producers.len()), "damage": log.damage,
        })
    };
    let run = |run: &view::RunView| json!({ "file": format!("{:016x}.run", run.number), "bytes": run.len, "producers": run.producers });
    json!({
        "file": path.display().to_string(), "run": checkpoint.run, "clean": checkpoint.clean,
        "redo": {
            "seq": checkpoint.redo_seq, "file": checkpoint.redo_file, "position": checkpoint.redo_position,
        },
        "journal": { "files": checkpoint.journal_files, "file_bytes": checkpoint.journal_file_bytes },
        "logs": checkpoint.logs.iter().map(log).collect::<Vec<_>>(),
        "producer_runs": checkpoint.runs.iter().map(run).collect::<Vec<_>>(),
    })
}
