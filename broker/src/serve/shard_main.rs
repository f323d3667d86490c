//! One shard's life on its own thread, stage by stage as the main thread orders.

use std::cell::Cell;
use std::fs::File;
use std::net::{Shutdown, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use penstock_core::config::BrokerConfig;
use penstock_core::config::memory::{MemoryPart, MemoryPlan, SPILLED_PRODUCERS};
use penstock_core::metadata::MetadataMachine;
use penstock_protocol::WireString;
use penstock_storage::disk::real::RealDisk;
use penstock_storage::disk::ring::{Ring, RingOptions};
use penstock_storage::disk::workers::Workers as DiskWorkers;
use penstock_storage::{ReadAheadConfig, RecoveryReport, Resharding, Store, StoreConfig, reshard, shard_dir};
use tokio::sync::mpsc::UnboundedReceiver;

use super::stages::{Event, Order, Report};
use crate::metadata::{self, Driver, RandomIds};
use crate::network::{connections, listener};
use crate::runtime::guard::Pulse;
use crate::runtime::task;
use crate::runtime::workers::Workers;
use crate::shard::{
    PartitionKey, Shard, ShardDisk, ShardParts, Shared, cleaner_config, periodic, serve_inbox,
};

/// Time between two looks whether all connections have ended.
const DRAIN_POLL: Duration = Duration::from_millis(5);
/// Size of one journal file in bytes.
const JOURNAL_FILE_BYTES: u64 = 32 << 20;
/// Bytes of batches that a start after a kill has to replay, in all shards together while there are 2 to 8: the stores' settings
/// say what may come on top.
const REPLAYED_BYTES: u64 = 3 << 29;
/// Part of the file system that segment files kept for reuse may have, in all shards together.
const RECYCLE_VOLUME_PART: u64 = 16;

/// What a shard starts with.
pub(super) struct Seat {
    pub(super) index: usize,
    pub(super) dir: PathBuf,
    /// The lock on `dir`.
    pub(super) lock: File,
    pub(super) shards: usize,
    /// Segment files that the store may hold open.
    pub(super) segment_files: usize,
    pub(super) config: BrokerConfig,
    pub(super) memory: MemoryPlan,
    pub(super) listener: TcpListener,
    pub(super) pulse: Arc<Pulse>,
    pub(super) disk_workers: DiskWorkers,
    /// Works for the cleaners of all shards.
    pub(super) computers: DiskWorkers,
    /// Key of the hash that stands for records' keys in cleaning.
    pub(super) cleaner_hash_key: [u64; 2],
    pub(super) workers: Workers,
    pub(super) desk: Workers,
    pub(super) orders: UnboundedReceiver<Order>,
    pub(super) events: Sender<Event>,
}

/// Runs the shard until it is closed, or reports why it cannot go on.
pub(super) async fn run(mut seat: Seat) {
    let pulse = seat.pulse.clone();
    if let Err(reason) = pulse.attend(stages(&mut seat)).await {
        seat.send(Event::Failed(format!("shard {}: {reason}", seat.index)));
    }
}

async fn stages(seat: &mut Seat) -> Result<(), String> {
    let ring = Ring::new(RingOptions::default()).map_err(|e| format!("cannot set up its ring: {e}"))?;
    ring.hold_open(&seat.lock).map_err(|e| format!("cannot hold the lock of its directory: {e}"))?;
    let disk = RealDisk::new(ring.clone(), seat.disk_workers.clone());
    let disk = disk.with_computers(seat.computers.clone());
    let Some((store, driver)) = seat.open(&disk).await? else { return Ok(()) };
    let Some(Order::Run(shared)) = seat.orders.recv().await else { return Ok(()) };
    let shard = seat.start(shared, (ring.clone(), store), driver).await?;
    let Some(Order::Accept) = seat.orders.recv().await else { return Ok(()) };
    let listener = Rc::new(seat.listener.try_clone().map_err(|e| format!("cannot use its listener: {e}"))?);
    task::spawn("listener", listener::run(shard.clone(), listener));
    seat.report(Report::Accepting);

    let Some(Order::Drain) = seat.orders.recv().await else { return Ok(()) };
    shard.start_draining();
    // Ends the accept under way. It fails only on a socket that does not listen any more.
    let _ = socket2::SockRef::from(&seat.listener).shutdown(Shutdown::Both);
    while shard.connections.len() > 0 {
        if let Ok(Order::Hurry) = seat.orders.try_recv() {
            shard.connections.close();
        }
        task::sleep(DRAIN_POLL).await;
    }
    seat.report(Report::Drained);
    while !matches!(seat.orders.recv().await, Some(Order::Close) | None) {}
    shard.store.close().await.map_err(|e| format!("cannot close its store: {e}"))?;
    ring.shutdown().await;
    seat.report(Report::Closed);
    Ok(())
}

impl Seat {
    fn send(&self, event: Event) {
        // The main thread is gone only when the process is ending.
        let _ = self.events.send(event);
    }

    fn report(&self, report: Report) {
        self.send(Event::Shard(self.index, report));
    }

    /// Up to the open store, and on shard 0 the replayed metadata.
    async fn open(&mut self, disk: &ShardDisk) -> Result<Option<(Store<ShardDisk>, Option<Driver>)>, String> {
        loop {
            match self.orders.recv().await {
                Some(Order::Reshard) => {
                    self.reshard(disk).await?;
                    self.report(Report::Resharded);
                }
                Some(Order::Open { cluster_id }) => {
                    let store = self.open_store(disk, self.index).await?;
                    let driver = match self.index {
                        0 => Some(self.open_metadata(&store, disk, &cluster_id).await?),
                        _ => None,
                    };
                    let names = store.logs().into_iter().map(|log| log.name());
                    let keys = names.filter_map(|name| PartitionKey::from_log_name(&name)).collect();
                    let image = driver.as_ref().map(|driver| Box::new(driver.image()));
                    self.report(Report::Opened(keys, image));
                    return Ok(Some((store, driver)));
                }
                _ => return Ok(None),
            }
        }
    }

    async fn open_store(&self, disk: &ShardDisk, index: usize) -> Result<Store<ShardDisk>, String> {
        let dir = shard_dir(&self.dir, index);
        let opened = Store::open(disk.clone(), &dir, self.store_config(index), task::now_ms()).await;
        let (store, report) = opened.map_err(|e| format!("cannot open {}: {e}", dir.display()))?;
        log_recovery(index, &report);
        Ok(store)
    }

    async fn open_metadata(
        &self,
        store: &Store<ShardDisk>,
        disk: &ShardDisk,
        cluster_id: &str,
    ) -> Result<Driver, String> {
        let machine = MetadataMachine::new(WireString::from(cluster_id), self.config.clone(), self.shards);
        let opened = metadata::open(store, disk, &self.dir, machine, task::now_ms()).await;
        let (machine, log) = opened.map_err(|e| e.to_string())?;
        Driver::new(machine, log).map_err(|e| format!("cannot open /dev/urandom: {e}"))
    }

    /// Up to running: partitions open, other shards answered.
    async fn start(
        &self,
        shared: Arc<Shared>,
        (ring, store): (Ring, Store<ShardDisk>),
        driver: Option<Driver>,
    ) -> Result<Rc<Shard>, String> {
        let doorbell = ring.doorbell();
        shared.mailboxes.set_doorbell(self.index, doorbell.clone());
        let (workers, desk) =
            (self.workers.for_shard(Some(doorbell.clone())), self.desk.for_shard(Some(doorbell)));
        let random = RandomIds::open().map_err(|e| format!("cannot open /dev/urandom: {e}"))?;
        let (index, cleaner_hash_key) = (self.index, self.cleaner_hash_key);
        let parts = ShardParts { index, shared, ring, store, workers, desk, random, cleaner_hash_key };
        let shard = Shard::new(parts);
        if let Some(driver) = driver {
            // A shard is new here, so nobody has set it before.
            let _ = shard.metadata.set(driver);
        }
        shard.open_partitions().await?;
        task::spawn("inbox", serve_inbox(shard.clone()));
        task::spawn("sweep of connections", connections::sweep(shard.clone()));
        task::spawn("periodic work", periodic(shard.clone()));
        self.report(Report::Running);
        Ok(shard)
    }
}

/// Files of a shard's journal.
pub(super) fn journal_files(config: &BrokerConfig) -> u32 {
    let files = (config.limits.journal_bytes / JOURNAL_FILE_BYTES).max(4);
    u32::try_from(files).unwrap_or(u32::MAX)
}

/// Bytes of a shard's batches that a start after a kill may have to replay. All shards read from the same disk.
fn replayed_bytes(shards: usize) -> u64 {
    (REPLAYED_BYTES / shards.max(1) as u64).clamp(REPLAYED_BYTES / 8, REPLAYED_BYTES / 2)
}

impl Seat {
    fn store_config(&self, shard: usize) -> StoreConfig {
        let bytes = |part: MemoryPart| usize::try_from(self.memory.bytes(part)).unwrap_or(usize::MAX);
        let config = &self.config;
        let read_ahead = usize::try_from(self.memory.read_ahead()).unwrap_or(usize::MAX);
        let replayed_bytes = replayed_bytes(self.shards);
        StoreConfig {
            id_space: u16::try_from(shard).unwrap_or(u16::MAX),
            journal_file_bytes: JOURNAL_FILE_BYTES,
            journal_files: journal_files(config),
            open_files_max: self.segment_files,
            unsettled_bytes_max: bytes(MemoryPart::Unflushed),
            cache_bytes_max: bytes(MemoryPart::Cache) - read_ahead,
            read_ahead: ReadAheadConfig { bytes_max: read_ahead, ..ReadAheadConfig::default() },
            frame_bytes_max: bytes(MemoryPart::Frames),
            index_bytes_max: bytes(MemoryPart::Indexes),
            recycle_volume_part: RECYCLE_VOLUME_PART.saturating_mul(self.shards as u64),
            checkpoint_bytes: replayed_bytes / 4 * 3,
            checkpoint_late_bytes_max: replayed_bytes / 4,
            reserve_bytes: config.limits.disk_reserve_bytes,
            retention_check_interval_ms: config.retention_check_interval_ms,
            producers_per_log_max: config.limits.partition_producers,
            producers_max: self.memory.producers(),
            spilled_producers_max: self.memory.producers() as u64 * SPILLED_PRODUCERS,
            scrub_bytes_per_second: config.limits.scrub_bytes_per_second,
            cleaner: cleaner_config(
                &config.cleaner,
                self.memory.bytes(MemoryPart::Cleaner),
                self.shards,
                self.cleaner_hash_key,
            ),
            ..StoreConfig::default()
        }
    }
}

fn log_recovery(shard: usize, report: &RecoveryReport) {
    if report.frames_replayed > 0 || report.torn_tail {
        tracing::info!(
            shard,
            frames = report.frames_replayed,
            bytes = report.bytes_replayed,
            torn_tail = report.torn_tail,
            "recovered from the journal"
        );
    }
    if report.files_renewed > 0 {
        tracing::warn!(
            shard,
            files = report.files_renewed,
            "the device refused to write segment files, which were made anew"
        );
    }
    if !report.producers_lost.is_empty() {
        let files = report.producers_lost.len();
        tracing::warn!(shard, files, "files of producers cannot be used: whoever is in them may begin anew");
    }
    for (log, reason) in &report.offline {
        tracing::error!(shard, log, "log is offline: {reason}");
    }
}

impl Seat {
    /// Spreads the partitions evenly over the shards there are now; the broker's own logs stay on shard 0.
    async fn reshard(&self, disk: &ShardDisk) -> Result<(), String> {
        let seen = Cell::new(0);
        let assign = |name: &str, shard: usize| match PartitionKey::from_log_name(name) {
            Some(_) => seen.replace(seen.get() + 1) % self.shards,
            None => shard.min(self.shards - 1),
        };
        let resharding = Resharding { to: self.shards, assign: &assign };
        let config = self.store_config(self.index);
        let moved = reshard(disk, &self.dir, &config, &resharding, task::now_ms()).await;
        let moved = moved.map_err(|e| format!("cannot move logs between shards: {e}"))?;
        tracing::info!(moved, shards = self.shards, "logs were moved to their shards");
        Ok(())
    }
}
