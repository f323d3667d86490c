//! Segments and their indexes.

use std::path::Path;

use penstock_storage::offline::view;
use penstock_storage::offline::{BatchFault, BatchView, Batches, Files};
use serde_json::json;

use crate::command::Failure;
use crate::command::files::HostFiles;
use crate::command::output::{Output, Table};
use crate::command::time::format_ms;

pub(super) fn segment(files: &HostFiles, out: &mut Output, path: &Path) -> Result<(), Failure> {
    let header = view::segment_header(files, path)?;
    let size = files.size(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    let known_end = known_end(files, path, (header.log_id, header.base, header.life));
    let end = known_end.unwrap_or(size);
    if out.is_json() {
        out.json_line(&json!({
            "file": path.display().to_string(), "log": header.log_name, "log_id": header.log_id,
            "base": header.base, "life": header.life, "end": known_end,
        }))?;
    } else {
        let (log, id, base, life) = (&header.log_name, header.log_id, header.base, header.life);
        out.line(format!("{}: log {log} (id {id}), base offset {base}, life {life}", path.display()))?;
        match known_end {
            Some(end) => {
                out.line(format!("ends at {end} as of the checkpoint; what the journal adds is not shown"))?
            }
            None => out.line("no checkpoint tells where it ends: batches at the end may be left over")?,
        }
    }
    let batches = Batches::of_file(files, path, end);
    let mut rows = BatchRows::default();
    let mut next_offset = header.base;
    for batch in batches {
        match batch {
            Ok(view) => {
                // Without a known end, batches that do not go on are left over from the file's earlier life.
                if known_end.is_none() && (!view.crc_ok || view.batch.header.base_offset < next_offset) {
                    break;
                }
                next_offset = view.batch.header.next_offset();
                rows.batch(out, &view)?;
            }
            Err(BatchFault::NoBatch { .. }) if known_end.is_none() => {}
            Err(fault) => {
                rows.flush(out)?;
                return Err(Failure::Failed(format!("{}: {fault}; see `penstock check`", path.display())));
            }
        }
    }
    rows.flush(out)
}

/// Where the checkpoint of the store that the file lies in says that the segment ends.
fn known_end(files: &HostFiles, path: &Path, (id, base, life): (u64, i64, u64)) -> Option<u64> {
    let store = path.parent()?.parent()?.parent()?;
    let checkpoint = view::checkpoint(files, &store.join("checkpoint")).ok()?;
    let log = checkpoint.logs.into_iter().find(|log| log.id == id)?;
    let segment = log.segments.into_iter().find(|segment| (segment.base, segment.life) == (base, life))?;
    Some(segment.end)
}

/// Rows of a table that is printed in pieces, so that a segment of any size takes little memory.
#[derive(Default)]
struct BatchRows {
    table: Option<Table>,
    rows: usize,
}

impl BatchRows {
    const AT_ONCE: usize = 1000;

    fn batch(&mut self, out: &mut Output, view: &BatchView) -> Result<(), Failure> {
        let header = &view.batch.header;
        let codec = header.compression().map_or("unknown", |codec| codec.name());
        let kind = match (header.is_control(), header.is_transactional()) {
            (true, _) => "control",
            (false, true) => "transactional",
            (false, false) => "data",
        };
        if out.is_json() {
            out.json_line(&json!({
                "base_offset": header.base_offset, "last_offset": header.last_offset(),
                "position": view.position, "bytes": header.total_len(), "records": header.record_count,
                "codec": codec, "leader_epoch": header.partition_leader_epoch, "kind": kind,
                "producer_id": header.producer_id, "producer_epoch": header.producer_epoch,
                "base_sequence": header.base_sequence, "max_timestamp": header.max_timestamp,
                "crc_ok": view.crc_ok,
            }))?;
            return Ok(());
        }
        let headings = [
            "OFFSET", "LAST", "POSITION", "BYTES", "RECORDS", "CODEC", "EPOCH", "PRODUCER", "SEQUENCE",
            "KIND", "TIME", "CRC",
        ];
        let table = self.table.get_or_insert_with(|| Table::new(&headings));
        let optional = |number: i64| if number < 0 { "-".to_owned() } else { number.to_string() };
        table.row(vec![
            header.base_offset.to_string(),
            header.last_offset().to_string(),
            view.position.to_string(),
            header.total_len().to_string(),
            header.record_count.to_string(),
            codec.to_owned(),
            optional(header.partition_leader_epoch.into()),
            optional(header.producer_id),
            optional(header.base_sequence.into()),
            kind.to_owned(),
            format_ms(header.max_timestamp),
            if view.crc_ok { "ok" } else { "WRONG" }.to_owned(),
        ]);
        self.rows += 1;
        if self.rows == Self::AT_ONCE { self.flush(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut Output) -> Result<(), Failure> {
        self.rows = 0;
        match self.table.take() {
            Some(table) => Ok(out.table(&table)?),
            None => Ok(()),
        }
    }
}

pub(super) fn index(files: &HostFiles, out: &mut Output, path: &Path) -> Result<(), Failure> {
    let index = view::index(files, path)?;
    if out.is_json() {
        let batch = |(offset, position): &(i64, u64)| json!({ "offset": offset, "position": position });
        return Ok(out.json_line(&json!({
            "file": path.display().to_string(), "base": index.base, "life": index.life, "end": index.end,
            "max_timestamp": index.max_timestamp,
            "entries": index.batches.iter().map(batch).collect::<Vec<_>>(),
        }))?);
    }
    out.line(format!(
        "{}: base offset {}, life {}, end {}, largest timestamp {}",
        path.display(),
        index.base,
        index.life,
        index.end,
        format_ms(index.max_timestamp)
    ))?;
    let mut table = Table::new(&["OFFSET", "POSITION"]);
    for (offset, position) in &index.batches {
        table.row(vec![offset.to_string(), position.to_string()]);
    }
    Ok(out.table(&table)?)
}
