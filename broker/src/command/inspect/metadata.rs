//! The metadata log and its snapshots.

use std::path::Path;

use penstock_core::metadata::{MetadataRecord, SnapshotError};
use penstock_storage::offline::OfflineStore;
use penstock_storage::shard_dir;
use serde_json::{Value, json};

use crate::command::Failure;
use crate::command::check::{metadata_records, read_snapshot};
use crate::command::files::HostFiles;
use crate::command::output::{Output, counted};
use crate::command::time::format_ms;
use crate::metadata::METADATA_LOG;

pub(super) fn metadata(files: &HostFiles, out: &mut Output, path: &Path) -> Result<(), Failure> {
    let shard = shard_dir(path, 0);
    let dir = if shard.is_dir() { shard } else { path.to_owned() };
    let store = OfflineStore::open(files, &dir)?;
    let log = store.log(METADATA_LOG).ok_or_else(|| {
        Failure::Failed(format!(
            "{} holds no metadata log; name the data directory, or shard 0",
            path.display()
        ))
    })?;
    for segment in &log.segments {
        let unreadable = |position: u64, why: &dyn std::fmt::Display| {
            let file = segment.path.display();
            Failure::Failed(format!("{file}, position {position}: {why}; see `penstock check`"))
        };
        for view in segment.batches(files) {
            let view = view.map_err(|fault| unreadable(fault.position(), &fault.reason()))?;
            if !view.crc_ok {
                return Err(unreadable(view.position, &"the batch does not match its crc"));
            }
            let records = metadata_records(&view)
                .map_err(|(offset, why)| unreadable(view.position, &format!("offset {offset}: {why}")))?;
            // What a snapshot stands for may still be in the first segment.
            for (offset, record) in records.into_iter().filter(|(offset, _)| *offset >= log.start_offset) {
                line(out, Some(offset), &record)?;
            }
        }
    }
    Ok(())
}

pub(super) fn snapshot(files: &HostFiles, out: &mut Output, path: &Path) -> Result<(), Failure> {
    let unreadable = |why: &dyn std::fmt::Display| {
        Failure::Failed(format!("{}: {why}; see `penstock check`", path.display()))
    };
    let snapshot = read_snapshot(files, path)?.map_err(|fault| match fault {
        SnapshotError::NewerVersion(_) => unreadable(&fault),
        SnapshotError::Damaged => unreadable(&"it is no metadata snapshot, or a damaged one"),
    })?;
    let (offset, records) = (snapshot.offset, snapshot.records.len());
    if out.is_json() {
        out.json_line(&json!({
            "file": path.display().to_string(), "offset": offset, "written_ms": snapshot.written_ms,
            "records": records,
        }))?;
    } else {
        let (path, written) = (path.display(), format_ms(snapshot.written_ms));
        let records = counted(records as u64, "record");
        out.line(format!("{path}: all below offset {offset}, written {written}, {records}"))?;
    }
    for (at, record) in snapshot.records.into_iter().enumerate() {
        let decoded = MetadataRecord::decode(record);
        line(out, None, &decoded.map_err(|why| unreadable(&format!("record {at}: {why}")))?)?;
    }
    Ok(())
}

/// Shows a record; those of snapshots have no offset.
fn line(out: &mut Output, offset: Option<i64>, record: &MetadataRecord) -> Result<(), Failure> {
    let (kind, fields) = record_fields(record);
    if out.is_json() {
        return Ok(out.json_line(&json!({ "offset": offset, "kind": kind, "record": fields }))?);
    }
    let fields = fields.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    let offset = offset.map(|offset| format!("{offset}  ")).unwrap_or_default();
    Ok(out.line(format!("{offset}{kind}  {}", fields.join(" ")))?)
}

/// The kind of a record and its fields.
fn record_fields(record: &MetadataRecord) -> (&'static str, Value) {
    match record {
        MetadataRecord::Topic(topic) => {
            ("topic", json!({ "name": topic.name.as_str(), "id": topic.topic_id.to_string() }))
        }
        MetadataRecord::Partition(partition) => (
            "partition",
            json!({
                "topic_id": partition.topic_id.to_string(), "partition": partition.partition_id,
                "shard": partition.shard, "replicas": partition.replicas, "isr": partition.isr,
                "leader": partition.leader, "leader_epoch": partition.leader_epoch,
                "partition_epoch": partition.partition_epoch,
            }),
        ),
        MetadataRecord::PartitionChange(change) => (
            "partition_change",
            json!({
                "topic_id": change.topic_id.to_string(), "partition": change.partition_id,
                "shard": change.shard, "leader": change.leader, "leader_epoch": change.leader_epoch,
                "isr": change.isr, "replicas": change.replicas,
            }),
        ),
        MetadataRecord::Config(config) => (
            "config",
            json!({
                "resource_type": config.resource_type, "resource": config.resource_name.as_str(),
                "name": config.name.as_str(), "value": config.value.as_deref(),
            }),
        ),
        MetadataRecord::RemoveTopic(topic) => ("remove_topic", json!({ "id": topic.topic_id.to_string() })),
        MetadataRecord::ProducerIds(block) => (
            "producer_ids",
            json!({
                "broker": block.broker_id, "broker_epoch": block.broker_epoch,
                "next_producer_id": block.next_producer_id,
            }),
        ),
        MetadataRecord::FeatureLevel(feature) => {
            ("feature_level", json!({ "name": feature.name.as_str(), "level": feature.level }))
        }
    }
}
