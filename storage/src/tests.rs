//! The store on the simulated disk, through its public face.

mod basics;
mod changes;
mod clean;
mod clean_faults;
mod crash;
mod damage;
mod failures;
mod faults;
mod flips;
mod full;
mod inline;
mod large;
mod lookups;
mod meter;
mod offline;
mod old_damage;
mod read_ahead;
mod renewals;
mod replayed;
mod reshards;
mod scrubs;
mod spills;
mod spills_at_once;
mod versions;

use std::path::Path;

use bytes::Bytes;
use penstock_format::{Batch, BatchHeader, split_batches};

use crate::disk::sim::{SimDisk, SimWorld};
use crate::{
    AppendContext, Log, LogConfig, Origin, ReadAheadConfig, ReadBatches, RecoveryReport, Store, StoreConfig,
};

pub(crate) const DIR: &str = "/data/shard-0";

/// Limits small enough that every bound is met.
pub(crate) fn small() -> StoreConfig {
    StoreConfig {
        id_space: 0,
        journal_file_bytes: 256 << 10,
        journal_files: 4,
        unsettled_bytes_max: 128 << 10,
        cache_bytes_max: 96 << 10,
        index_bytes_max: 1 << 20,
        index_worth_bytes: 8 << 10,
        open_files_max: 3,
        segment_bytes_max: 128 << 10,
        recycle_bytes_max: 1 << 20,
        direct_bytes_min: 16 << 10,
        inline_commit_bytes_max: 0,
        commit_bytes_target: 64 << 10,
        checkpoint_bytes: 512 << 10,
        checkpoint_step_bytes: 1,
        retention_check_interval_ms: 0,
        producers_per_log_max: 100,
        producers_max: 150,
        read_ahead: ReadAheadConfig {
            bytes_max: 64 << 10,
            stretch_bytes: 8 << 10,
            stretches_max: 4,
            in_flight_bytes_max: 24 << 10,
            in_flight_bytes_beside_commits: 16 << 10,
            readers_per_log_max: 2,
            readers_max: 3,
        },
        ..StoreConfig::default()
    }
}

pub(crate) async fn open(disk: SimDisk, config: StoreConfig) -> (Store<SimDisk>, RecoveryReport) {
    Store::open(disk, Path::new(DIR), config, 1000).await.unwrap_or_else(|error| panic!("open: {error}"))
}

/// A batch of `count` records whose body is filled by `fill`.
pub(crate) fn batch(count: i32, len: usize, fill: u64, timestamp: i64) -> Batch {
    let header = BatchHeader {
        last_offset_delta: count - 1,
        record_count: count,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        ..BatchHeader::default()
    };
    let body: Vec<u8> = (0..len.saturating_sub(61)).map(|at| (fill as usize * 31 + at * 7) as u8).collect();
    Batch::seal(header, Bytes::from(body)).unwrap()
}

pub(crate) fn client(now_ms: i64) -> AppendContext {
    AppendContext { leader_epoch: 3, now_ms, origin: Origin::Client }
}

/// All batches of the log from its start, as a reader gets them.
pub(crate) async fn read_all(log: &Log<SimDisk>) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut from = log.log_start_offset();
    loop {
        let found =
            log.read(from, 50_000, i64::MAX, true).await.unwrap_or_else(|error| panic!("read: {error}"));
        if found.bytes == 0 {
            assert_eq!(from, log.log_end_offset(), "reads reach the end");
            return batches;
        }
        batches.extend(join(&found));
        from = found.next_offset;
    }
}

/// The batches in an answer.
pub(crate) fn join(found: &ReadBatches) -> Vec<Batch> {
    let bytes: Vec<u8> = found.slices.iter().flat_map(|slice| slice.to_vec()).collect();
    assert_eq!(bytes.len(), found.bytes);
    split_batches(&Bytes::from(bytes), usize::MAX).unwrap()
}

pub(crate) fn log_config() -> LogConfig {
    LogConfig::default()
}

pub(crate) fn world(seed: u64) -> SimWorld {
    SimWorld::new(seed)
}
