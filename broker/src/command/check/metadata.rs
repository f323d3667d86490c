//! Whether the metadata can be followed, from every place where a start may begin: nothing, or a snapshot.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use penstock_core::config::{BrokerConfig, Overrides, StaticConfig};
use penstock_core::metadata::{
    MetadataImage, MetadataMachine, MetadataRecord, SNAPSHOT_BYTES_MAX, Snapshot, SnapshotError,
    decode_snapshot,
};
use penstock_format::Records;
use penstock_protocol::WireString;
use penstock_storage::offline::{BatchView, Files, Finding, OfflineLog, OfflineStore, OpenFault};
use penstock_storage::shard_dir;

use crate::command::files::HostFiles;
use crate::metadata::{METADATA_LOG, snapshot_offset, snapshots_dir};
use crate::serve::data_dir::Meta;

/// Bound on the records of one metadata batch, unpacked.
const RECORDS_BYTES_MAX: usize = 64 << 20;

/// Snapshots with their files, oldest first.
type Snapshots = Vec<(PathBuf, Snapshot)>;

/// Follows the metadata, record by record; gives what does not hold, and what it leads to as far as it does. Damage of
/// the log's batches is found elsewhere.
pub(super) fn check_metadata(
    files: &HostFiles,
    data_dir: &Path,
    meta: &Meta,
) -> Result<(Vec<Finding>, Option<MetadataImage>), OpenFault> {
    let store = match OfflineStore::open(files, &shard_dir(data_dir, 0)) {
        // That was found already.
        Err(OpenFault::Damaged { .. }) => return Ok((Vec::new(), None)),
        store => store?,
    };
    let (snapshots, mut findings) = read_snapshots(files, data_dir)?;
    let Some(log) = store.log(METADATA_LOG) else {
        findings.push(finding(None, "there is no metadata log: topics and configs are lost".to_owned()));
        return Ok((findings, None));
    };
    let cluster_id = WireString::from(meta.cluster_id.as_str());
    // How the broker was configured does not change what may follow what.
    let config = StaticConfig::new(Overrides::new()).and_then(BrokerConfig::from_static);
    let Ok(config) = config else { unreachable!("the defaults are valid") };
    let start = || MetadataMachine::new(cluster_id.clone(), config.clone(), meta.shards);
    let mut image = None;
    if log.start_offset == 0 {
        let mut machine = start();
        findings.extend(follow(files, log, (&mut machine, 0)));
        image = Some(machine.image().clone());
    }
    for (file, snapshot) in snapshots {
        let damaged = |what: String| Finding { file: Some(file.clone()), ..Finding::new(what) };
        if snapshot.offset > log.end_offset {
            let (offset, end) = (snapshot.offset, log.end_offset);
            findings.push(damaged(format!("it is of offset {offset}, but the metadata log ends at {end}")));
            continue;
        }
        let mut machine = start();
        if let Err(what) = replay_snapshot(&mut machine, &snapshot) {
            findings.push(damaged(what));
            continue;
        }
        // One that the log no longer reaches is of no use, and no harm.
        if snapshot.offset >= log.start_offset {
            findings.extend(follow(files, log, (&mut machine, snapshot.offset)));
            image = Some(machine.image().clone());
        }
    }
    if image.is_none() {
        let start = log.start_offset;
        let what = format!("the log begins at offset {start}, and no sound snapshot says what was before");
        findings.push(finding(Some(start), what));
    }
    // One damaged record is met on each way that leads over it.
    findings.dedup();
    Ok((findings, image))
}

/// The sound snapshots, with their files, and what is wrong with the others.
fn read_snapshots(files: &HostFiles, data_dir: &Path) -> Result<(Snapshots, Vec<Finding>), OpenFault> {
    let (mut found, mut findings) = (Snapshots::new(), Vec::new());
    for path in snapshot_files(files, data_dir)? {
        let fault = match read_snapshot(files, &path)? {
            Ok(snapshot) => {
                found.push((path, snapshot));
                continue;
            }
            Err(SnapshotError::NewerVersion(version)) => {
                return Err(OpenFault::NewerVersion { path, version });
            }
            Err(fault @ SnapshotError::Damaged) => fault,
        };
        findings.push(Finding { file: Some(path), ..Finding::new(format!("metadata snapshot: {fault}")) });
    }
    Ok((found, findings))
}

/// The files of the metadata snapshots in a data directory, oldest first.
fn snapshot_files(files: &HostFiles, data_dir: &Path) -> Result<Vec<PathBuf>, OpenFault> {
    let dir = snapshots_dir(data_dir);
    let entries = match files.list(&dir) {
        // Data directories of earlier versions have none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        entries => entries.map_err(|error| OpenFault::Io { path: dir.clone(), error })?,
    };
    let named = entries.iter().filter(|entry| !entry.is_dir && snapshot_offset(&entry.name).is_some());
    Ok(named.map(|entry| dir.join(&entry.name)).collect())
}

/// Reads a metadata snapshot. The inner error says what is wrong with it.
pub(in crate::command) fn read_snapshot(
    files: &HostFiles,
    path: &Path,
) -> Result<Result<Snapshot, SnapshotError>, OpenFault> {
    let read = || {
        let size = files.size(path)?;
        files.read(path, 0, size.min(SNAPSHOT_BYTES_MAX as u64))
    };
    let bytes = read().map_err(|error| OpenFault::Io { path: path.to_owned(), error })?;
    let named = path.file_name().and_then(|name| name.to_str()).and_then(snapshot_offset);
    Ok(decode_snapshot(&bytes).and_then(|snapshot| match named {
        Some(offset) if offset != snapshot.offset => Err(SnapshotError::Damaged),
        _ => Ok(snapshot),
    }))
}

fn replay_snapshot(machine: &mut MetadataMachine, snapshot: &Snapshot) -> Result<(), String> {
    for (at, record) in snapshot.records.iter().enumerate() {
        let decoded = MetadataRecord::decode(record.clone());
        let decoded = decoded.map_err(|error| format!("metadata snapshot, record {at}: {error}"))?;
        let replayed = machine.replay(&decoded);
        replayed.map_err(|error| format!("metadata snapshot, record {at} does not follow: {error}"))?;
    }
    Ok(())
}

/// Replays the log from an offset on; gives what cannot follow.
fn follow(
    files: &HostFiles,
    log: &OfflineLog,
    (machine, from): (&mut MetadataMachine, i64),
) -> Option<Finding> {
    for segment in &log.segments {
        for view in segment.batches(files) {
            // Damage of batches was found already, and what follows cannot be judged without them.
            let view = view.ok().filter(|view| view.crc_ok)?;
            let records = match metadata_records(&view) {
                Ok(records) => records,
                Err((offset, what)) => return Some(finding(Some(offset), what)),
            };
            for (offset, record) in records.into_iter().filter(|(offset, _)| *offset >= from) {
                if let Err(error) = machine.replay(&record) {
                    return Some(finding(Some(offset), format!("the record does not follow: {error}")));
                }
            }
        }
    }
    None
}

fn finding(offset: Option<i64>, what: String) -> Finding {
    Finding { log: Some(METADATA_LOG.to_owned()), offset, ..Finding::new(what) }
}

/// The metadata records of a batch with their offsets; or the offset of one that cannot be read, and why.
pub(in crate::command) fn metadata_records(
    view: &BatchView,
) -> Result<Vec<(i64, MetadataRecord)>, (i64, String)> {
    let base = view.batch.header.base_offset;
    let fault = |error: &dyn std::fmt::Display| (base, format!("the batch cannot be read: {error}"));
    let records = Records::open(&view.batch, RECORDS_BYTES_MAX).map_err(|error| fault(&error))?;
    let mut found = Vec::new();
    for record in &records {
        let record = record.map_err(|error| fault(&error))?;
        let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
        let decoded = MetadataRecord::decode(value);
        found.push((record.offset, decoded.map_err(|error| (record.offset, error.to_string()))?));
    }
    Ok(found)
}
