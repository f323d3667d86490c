//! The metadata log: records of core as key-less records of ordinary batches, one batch per command.

use bytes::Bytes;
use penstock_core::config::BrokerConfig;
use penstock_core::metadata::{MetadataMachine, MetadataRecord, RecordError, ReplayError};
use penstock_format::{Batch, BatchBuilder, BatchError, BuildError, NewRecord, RecordsError};
use penstock_protocol::{EncodeError, WireString};
use penstock_storage::{LogConfig, ReadError, Store, StoreError};

use crate::shard::{ShardDisk, ShardLog};

/// Name of the log, in the store of shard 0.
pub(crate) const METADATA_LOG: &str = "__cluster_metadata";
/// Bytes read at once during replay.
const READ_BYTES: usize = 1 << 20;
/// Bound on one batch's records, packed or not: far above what one command makes.
const RECORDS_BYTES_MAX: usize = 64 << 20;

/// Why the metadata could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenMetadataError {
    #[error("cannot open the metadata log: {0}")]
    Store(#[from] StoreError),
    #[error("cannot read the metadata log at offset {0}: {1}")]
    Read(i64, ReadError),
    #[error("the metadata log is damaged at offset {0}: {1}")]
    Batch(i64, BatchError),
    #[error("the metadata log is damaged at offset {0}: {1}")]
    Records(i64, RecordsError),
    #[error("the metadata log cannot be understood at offset {0}: {1}")]
    Record(i64, RecordError),
    #[error("the metadata log cannot be followed at offset {0}: {1}")]
    Replay(i64, ReplayError),
}

/// Opens the log, creating it where it is missing, and replays it.
pub(crate) async fn open(
    store: &Store<ShardDisk>,
    cluster_id: &str,
    config: &BrokerConfig,
    shards: usize,
) -> Result<(MetadataMachine, ShardLog), OpenMetadataError> {
    // Stable before anything follows from it, whatever the broker's defaults; nothing of it is ever deleted.
    let log_config = LogConfig { flush_messages: 1, ..LogConfig::default() };
    let log = match store.log(METADATA_LOG) {
        Some(log) => log,
        None => store.create_log(METADATA_LOG, log_config.clone()).await?,
    };
    log.set_config(log_config);
    let mut machine = MetadataMachine::new(WireString::from(cluster_id), config.clone(), shards);
    let end = log.log_end_offset();
    let mut next = log.log_start_offset();
    while next < end {
        let read =
            log.read(next, READ_BYTES, end, true).await.map_err(|e| OpenMetadataError::Read(next, e))?;
        let joined = penstock_protocol::Records::from(read.slices).to_bytes();
        let batches = penstock_format::split_batches(&joined, usize::MAX)
            .map_err(|e| OpenMetadataError::Batch(next, e))?;
        for batch in &batches {
            replay_batch(&mut machine, batch)?;
        }
        if read.next_offset <= next {
            let gap = ReadError::OutOfRange { start: next, end };
            return Err(OpenMetadataError::Read(next, gap));
        }
        next = read.next_offset;
    }
    Ok((machine, log))
}

fn replay_batch(machine: &mut MetadataMachine, batch: &Batch) -> Result<(), OpenMetadataError> {
    let base = batch.header.base_offset;
    let records = penstock_format::Records::open(batch, RECORDS_BYTES_MAX)
        .map_err(|e| OpenMetadataError::Records(base, e))?;
    for record in records.iter() {
        let record = record.map_err(|e| OpenMetadataError::Records(base, e))?;
        // Copied: what the image keeps of it must not pin the whole read.
        let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
        let change =
            MetadataRecord::decode(value).map_err(|e| OpenMetadataError::Record(record.offset, e))?;
        machine.replay(&change).map_err(|e| OpenMetadataError::Replay(record.offset, e))?;
    }
    Ok(())
}

/// One command's records as a batch.
pub(super) fn batch(records: &[MetadataRecord], now_ms: i64) -> Result<Batch, WriteError> {
    let mut builder = BatchBuilder::new();
    for record in records {
        let value = record.encode()?;
        builder.append(&NewRecord { timestamp: now_ms, value: Some(&value), ..NewRecord::default() })?;
    }
    Ok(builder.finish()?)
}

/// A command made records that cannot be written: a string longer than the protocol can carry.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Record(#[from] EncodeError),
    #[error(transparent)]
    Batch(#[from] BuildError),
}
