//! The metadata log with its snapshots on the simulated disk.

#![allow(clippy::unwrap_used)]

mod crash;
mod recovery;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use penstock_core::config::{BrokerConfig, StaticConfig};
use penstock_core::metadata::{Command, MetadataImage, MetadataMachine, MetadataRecord, encode_snapshot};
use penstock_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use penstock_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use penstock_protocol::{Uuid, WireString};
use penstock_storage::disk::Disk;
use penstock_storage::disk::sim::{SimDisk, SimWorld};
use penstock_storage::{Store, StoreConfig, shard_dir};

use super::log::{METADATA_LOG, MetadataLog, OpenMetadataError, open};

const DATA_DIR: &str = "/data";

/// One run of a node: the store, the metadata log, the machine.
struct Node {
    disk: SimDisk,
    store: Store<SimDisk>,
    machine: MetadataMachine,
    log: MetadataLog<SimDisk>,
}

/// A machine that has replayed nothing. Snapshots are due after so many bytes, or any time.
fn empty_machine(record_bytes: u64) -> MetadataMachine {
    let settings: BTreeMap<String, String> = [
        ("metadata.log.max.record.bytes.between.snapshots".to_owned(), record_bytes.to_string()),
        ("metadata.log.max.snapshot.interval.ms".to_owned(), "0".to_owned()),
    ]
    .into();
    let config = BrokerConfig::from_static(StaticConfig::new(settings).unwrap()).unwrap();
    MetadataMachine::new(WireString::from("cluster"), config, 2)
}

/// Small files, so that little metadata fills many.
fn store_config() -> StoreConfig {
    StoreConfig {
        journal_file_bytes: 256 << 10,
        journal_files: 4,
        segment_bytes_max: 16 << 10,
        recycle_bytes_max: 64 << 10,
        checkpoint_bytes: 256 << 10,
        ..StoreConfig::default()
    }
}

impl Node {
    async fn start(disk: SimDisk, record_bytes: u64) -> Result<Node, OpenMetadataError> {
        let data_dir = Path::new(DATA_DIR);
        let (store, report) =
            Store::open(disk.clone(), &shard_dir(data_dir, 0), store_config(), 0).await.unwrap();
        assert_eq!(report.offline, []);
        let (machine, log) = open(&store, &disk, data_dir, empty_machine(record_bytes), 0).await?;
        Ok(Node { disk, store, machine, log })
    }

    /// Decides, writes and replays.
    async fn run(&mut self, command: &Command) {
        let records = decide(&self.machine, command);
        if !records.is_empty() {
            self.log.write(super::log::batch(&records, 0).unwrap(), 0).await.unwrap();
            records.iter().for_each(|record| self.machine.replay(record).unwrap());
        }
    }

    /// Takes a snapshot if one is due; says whether one was.
    async fn snapshot(&self) -> bool {
        let Some(due) = self.log.due_snapshot(0) else { return false };
        let encoded = encode_snapshot(self.machine.image(), due.offset, due.now_ms);
        self.log.finish_snapshot(due, encoded.map_err(Into::into)).await;
        true
    }

    /// Offsets of the snapshots there are, the oldest first.
    async fn snapshots(&self) -> Vec<String> {
        let entries = self.disk.list(&Path::new(DATA_DIR).join("metadata")).await.unwrap();
        entries.into_iter().map(|entry| entry.name.trim_start_matches('0').to_owned()).collect()
    }
}

/// The records of a command. Topic ids are numbers never used before in this process.
fn decide(machine: &MetadataMachine, command: &Command) -> Vec<MetadataRecord> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let mut draw = || {
        let mut id = [1; 16];
        id[8..].copy_from_slice(&LAST.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Uuid::from_bytes(id)
    };
    machine.handle(command, &mut draw).0
}

fn create(name: &str, partitions: i32) -> Command {
    let config = CreatableTopicConfig {
        name: WireString::from("cleanup.policy"),
        value: Some(WireString::from("compact")),
    };
    let topic = CreatableTopic {
        name: WireString::from(name),
        num_partitions: partitions,
        replication_factor: 1,
        configs: vec![config],
        ..CreatableTopic::default()
    };
    Command::CreateTopics(CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() })
}

fn delete(name: &str) -> Command {
    let request =
        DeleteTopicsRequest { topic_names: vec![WireString::from(name)], ..DeleteTopicsRequest::default() };
    Command::DeleteTopics(request, 5)
}

/// What an image says, however it came about.
fn content(image: &MetadataImage) -> Vec<MetadataRecord> {
    image.records().collect()
}

/// Bytes of all files of the metadata log.
async fn log_bytes(disk: &SimDisk) -> u64 {
    let dir = shard_dir(Path::new(DATA_DIR), 0).join("logs").join(METADATA_LOG);
    disk.list(&dir).await.unwrap().iter().map(|entry| entry.len).sum()
}

fn world(seed: u64) -> SimWorld {
    SimWorld::new(seed)
}
