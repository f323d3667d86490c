//! The journal's files.

use std::path::Path;

use penstock_storage::offline::view::{self, EntryView};
use serde_json::{Value, json};

use crate::command::Failure;
use crate::command::files::HostFiles;
use crate::command::output::Output;

pub(super) fn journal(files: &HostFiles, out: &mut Output, path: &Path) -> Result<(), Failure> {
    if !out.is_json() {
        out.line(path.display().to_string())?;
    }
    view::frames(files, path, |frame| {
        if out.is_json() {
            let entries: Vec<_> = frame.entries.iter().map(entry_document).collect();
            out.json_line(&json!({
                "file": path.display().to_string(), "position": frame.position, "run": frame.run,
                "seq": frame.seq, "durable_seq": frame.durable_seq, "bytes": frame.len, "entries": entries,
            }))?;
            return Ok(());
        }
        let (position, run, seq) = (frame.position, frame.run, frame.seq);
        let (durable, len) = (frame.durable_seq, frame.len);
        out.line(format!("frame {seq} of run {run} at {position}: {len} bytes, stable up to {durable}"))?;
        for entry in &frame.entries {
            out.line(format!("  {}", entry_line(entry)))?;
        }
        Ok(())
    })
}

fn entry_line(entry: &EntryView) -> String {
    match entry {
        EntryView::Append {
            log_id,
            segment,
            position,
            len,
            direct_len,
            batches,
            first_offset,
            next_offset,
        } => {
            format!(
                "append to log {log_id}: offsets {first_offset} to {}, batches {batches}, segment {segment}, \
                 position {position}, {len} bytes of which {direct_len} direct",
                next_offset - 1
            )
        }
        EntryView::Create { log_id, name } => format!("create log {log_id}: {name}"),
        EntryView::Remove { log_id } => format!("remove log {log_id}"),
        EntryView::StartOffset { log_id, offset } => format!("log {log_id} begins at offset {offset}"),
    }
}

fn entry_document(entry: &EntryView) -> Value {
    match entry {
        EntryView::Append {
            log_id,
            segment,
            position,
            len,
            direct_len,
            batches,
            first_offset,
            next_offset,
        } => {
            json!({
                "kind": "append", "log_id": log_id, "segment": segment, "position": position, "bytes": len,
                "direct_bytes": direct_len, "batches": batches, "first_offset": first_offset,
                "next_offset": next_offset,
            })
        }
        EntryView::Create { log_id, name } => json!({ "kind": "create", "log_id": log_id, "name": name }),
        EntryView::Remove { log_id } => json!({ "kind": "remove", "log_id": log_id }),
        EntryView::StartOffset { log_id, offset } => {
            json!({ "kind": "start_offset", "log_id": log_id, "offset": offset })
        }
    }
}
