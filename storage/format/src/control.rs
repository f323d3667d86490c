//! Control records: markers in the log that consumers never see.
//!
//! Key: version (2 bytes), type (2 bytes). Value of an end-of-transaction marker: version (2 bytes),
//! coordinator epoch (4 bytes). Fields that later versions add at the end are passed over. Source: Kafka
//! protocol guide, "Control Records"; KIP-98; KIP-595 for the types of the controller quorum's log.

use crate::batch::Batch;
use crate::builder::{BatchBuilder, BuildError, NewRecord};
use crate::header::NO_SEQUENCE;
use crate::records::RecordRef;

/// What a control record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRecord {
    /// The producer's transaction ended.
    EndTransaction {
        /// Whether its records count.
        committed: bool,
        /// Epoch of the transaction coordinator that decided.
        coordinator_epoch: i32,
    },
    /// A type of the controller quorum's log, or one not known here: 2 leader change, 3 and 4 snapshot
    /// header and footer, 5 quorum version, 6 voters.
    Other(i16),
}

/// Why a record is not a control record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlRecordError {
    /// Key missing, too short, or with a negative version.
    #[error("malformed control record key")]
    Key,
    /// Value missing, too short, or with a negative version.
    #[error("malformed control record value")]
    Value,
}

const ABORT: i16 = 0;
const COMMIT: i16 = 1;

impl ControlRecord {
    /// Reads a record of a control batch.
    pub fn parse(record: &RecordRef<'_>) -> Result<ControlRecord, ControlRecordError> {
        let key = record.key.and_then(<[u8]>::first_chunk::<4>).ok_or(ControlRecordError::Key)?;
        let [version_high, version_low, type_high, type_low] = *key;
        if i16::from_be_bytes([version_high, version_low]) < 0 {
            return Err(ControlRecordError::Key);
        }
        let record_type = i16::from_be_bytes([type_high, type_low]);
        if record_type != ABORT && record_type != COMMIT {
            return Ok(ControlRecord::Other(record_type));
        }
        let value = record.value.and_then(<[u8]>::first_chunk::<6>).ok_or(ControlRecordError::Value)?;
        let [version_high, version_low, epoch @ ..] = *value;
        if i16::from_be_bytes([version_high, version_low]) < 0 {
            return Err(ControlRecordError::Value);
        }
        Ok(ControlRecord::EndTransaction {
            committed: record_type == COMMIT,
            coordinator_epoch: i32::from_be_bytes(epoch),
        })
    }
}

/// The end of a producer's transaction, to be written as a batch of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Epoch of the deciding coordinator.
    pub coordinator_epoch: i32,
    /// Whether the records count.
    pub committed: bool,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
}

impl EndTransactionMarker {
    /// The marker's control batch, at offset 0.
    pub fn to_batch(&self) -> Result<Batch, BuildError> {
        let key = [[0, 0], if self.committed { COMMIT } else { ABORT }.to_be_bytes()].concat();
        let value = [&[0u8, 0][..], &self.coordinator_epoch.to_be_bytes()].concat();
        let mut builder = BatchBuilder::new()
            .producer(self.producer_id, self.producer_epoch, NO_SEQUENCE)
            .transactional(true)
            .control(true);
        builder.append(&NewRecord {
            timestamp: self.timestamp,
            key: Some(&key),
            value: Some(&value),
            headers: &[],
        })?;
        builder.finish()
    }
}
