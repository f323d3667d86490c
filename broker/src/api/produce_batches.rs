//! From the records field of a Produce request to batches fit for the log.
//!
//! The log keeps the batches as slices of what was received, but for small ones of large requests, which are copied: see
//! [`unpinned`].
//!
//! Plain batches are checked on the shard, in place. What has to be compressed or decompressed goes to the worker
//! pool; the connection's next request begins only afterwards, which keeps its order.

use bytes::Bytes;
use penstock_core::config::{StoredCompression, TopicConfig};
use penstock_core::partition::batch_error;
use penstock_format::{
    Batch, BatchError, Origin, TargetCompression, ValidateError, ValidateRules, needs_codec, prepare,
};
use penstock_protocol::messages::produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse};
use penstock_protocol::{ErrorCode, Records, WireString};

use crate::runtime::task;
use crate::runtime::workers::ShardWorkers;
use crate::shard::Shard;

/// The first Produce version that may carry zstd (KIP-110).
const ZSTD_VERSION: i16 = 7;

/// Bytes of received requests that each byte of a batch may keep in memory.
pub(crate) const PINNED_PER_BODY_MAX: usize = 4;

/// Why a partition's records were refused, as the client is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) error: ErrorCode,
    pub(super) message: Option<String>,
    pub(super) records: Vec<BatchIndexAndErrorMessage>,
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Refusal {
        Refusal { error, message: None, records: Vec::new() }
    }
}

impl Refusal {
    fn new(error: ErrorCode, message: String) -> Refusal {
        Refusal { error, message: Some(message), records: Vec::new() }
    }

    /// The refusal as a partition's answer.
    pub(super) fn respond(self, index: i32) -> PartitionProduceResponse {
        PartitionProduceResponse {
            index,
            error_code: self.error.code(),
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: self.records,
            error_message: self.message.map(WireString::from),
            ..PartitionProduceResponse::default()
        }
    }
}

/// The batch of a records field; a request carries exactly one per partition.
pub(super) fn parse(records: Option<&Records>) -> Result<Batch, Refusal> {
    let bytes = records.map(Records::to_bytes).unwrap_or_default();
    if bytes.is_empty() {
        let why = "a produce request needs a record batch for each partition".to_owned();
        return Err(Refusal::new(ErrorCode::InvalidRecord, why));
    }
    let batch = Batch::parse_only(&bytes).map_err(|error| of_batch(&error))?;
    if batch.header.is_transactional() {
        let why = "transactions are not served by this version of the broker".to_owned();
        return Err(Refusal::new(ErrorCode::InvalidTxnState, why));
    }
    Ok(batch)
}

/// What a topic asks of its batches.
#[derive(Clone, Copy)]
pub(super) struct Demands {
    rules: ValidateRules,
    target: TargetCompression,
}

impl Demands {
    pub(super) fn new(shard: &Shard, topic: &TopicConfig, version: i16) -> Demands {
        let rules = ValidateRules {
            origin: Origin::Client,
            compacted: topic.compact,
            message_bytes_max: topic.max_message_bytes,
            timestamp_type: topic.timestamp_type,
            before_max_ms: topic.timestamp_before_max_ms,
            after_max_ms: topic.timestamp_after_max_ms,
            zstd_allowed: version >= ZSTD_VERSION,
            // What could not have been sent plain is not taken packed.
            decompressed_bytes_max: shard.shared.config.socket_request_max_bytes,
        };
        let target = match topic.compression {
            StoredCompression::Producer => TargetCompression::Producer,
            StoredCompression::Codec(codec, level) => TargetCompression::Codec(codec, Some(level)),
        };
        Demands { rules, target }
    }

    /// Whether the batch has to be compressed or decompressed, which is not done on a shard.
    pub(super) fn needs_codec(&self, batch: &Batch) -> bool {
        needs_codec(batch, self.target)
    }

    /// Validates a batch and brings it into the form that the topic stores.
    pub(super) fn prepare(self, batch: Batch, now_ms: i64) -> Result<Batch, Refusal> {
        let prepared = prepare(batch, &self.rules, self.target, now_ms);
        prepared.map(|prepared| prepared.batch).map_err(of_validation)
    }

    /// The same on a worker's thread.
    pub(super) async fn prepare_beside(self, batch: Batch, workers: &ShardWorkers) -> Result<Batch, Refusal> {
        let now_ms = task::now_ms();
        let prepared = workers.run(move || prepare(batch, &self.rules, self.target, now_ms)).await;
        // The bytes were more than a codec could bear: they are the client's fault, the panic is ours.
        let prepared = prepared.map_err(|_| Refusal::from(ErrorCode::CorruptMessage))?;
        prepared.map(|prepared| prepared.batch).map_err(of_validation)
    }
}

/// The batch on its own where it is less than a quarter of the piece of memory it lies in, its request's. Otherwise it stays a
/// slice, which keeps all of that in memory for as long as it is cached: at most four times what it counts for there.
pub(super) fn unpinned(batch: Batch, piece_bytes: usize) -> Batch {
    if batch.body.len() >= piece_bytes.div_ceil(PINNED_PER_BODY_MAX) {
        return batch;
    }
    Batch { body: Bytes::copy_from_slice(&batch.body), ..batch }
}

fn of_batch(error: &BatchError) -> Refusal {
    Refusal::new(batch_error(error.kind()), error.to_string())
}

fn of_validation(error: ValidateError) -> Refusal {
    let code = batch_error(error.kind());
    let message = error.to_string();
    let records = match error {
        ValidateError::Rejected { errors, .. } => errors
            .iter()
            .map(|reject| BatchIndexAndErrorMessage {
                batch_index: reject.batch_index,
                batch_index_error_message: Some(WireString::from(reject.reason.to_string())),
            })
            .collect(),
        _ => Vec::new(),
    };
    Refusal { error: code, message: Some(message), records }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use penstock_format::{BatchBuilder, NewRecord};

    use super::*;

    /// Whether a batch with a body of `body` bytes keeps a request of `request` bytes in memory.
    fn pins(body: usize, request: usize) -> bool {
        let mut builder = BatchBuilder::new();
        builder.append(&NewRecord::default()).unwrap();
        let header = builder.finish().unwrap().header;
        let buffer = Bytes::from(vec![7; request]);
        let batch = Batch { header, body: buffer.slice(request - body..) };
        let kept = unpinned(batch, request);
        assert_eq!(kept.body, vec![7; body]);
        !buffer.is_unique()
    }

    /// A batch of a few bytes once kept a request of a mebibyte in memory, and the cache counted the few bytes.
    #[test]
    fn a_batch_keeps_at_most_four_times_its_bytes() {
        assert!(!pins(1, 1 << 20) && !pins(100, 1000) && !pins(249, 1000) && !pins(250, 1001));
        assert!(pins(250, 1000) && pins(251, 1001) && pins(999, 1000));
    }
}
