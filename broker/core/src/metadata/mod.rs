//! The cluster's metadata: topics, partitions, configs, producer ids.
//!
//! A machine in the house's form: [`MetadataMachine::handle`] takes a command and answers with records and a response,
//! and changes nothing; [`MetadataMachine::replay`] alone changes state, one record at a time. Whoever drives it appends
//! the records of one command to a log as one batch, makes them stable, and replays them; at start it replays the last
//! snapshot and what the log holds after it.
//! The same records in the same order give the same state, always.
//!
//! Readers see a [`MetadataImage`]: an immutable snapshot, cheap to clone, shared by all shards.

mod configs;
mod deletion;
mod image;
mod machine;
mod names;
mod partitions;
mod reassignments;
mod record;
mod schedule;
mod shards;
mod snapshot;
mod topics;
mod weight;

pub use image::{MetadataImage, PartitionImage, TopicImage};
pub use machine::{Answer, Command, MetadataMachine, PRODUCER_ID_BLOCK_LEN, ReplayError};
pub use names::{is_internal, validate_topic_name};
pub use reassignments::alter_partition_reassignments;
pub use record::{MetadataRecord, RecordError};
pub use schedule::{SnapshotBounds, SnapshotCleanup, SnapshotSchedule, plan_cleanup};
pub use snapshot::{
    EncodeSnapshotError, SNAPSHOT_BYTES_MAX, Snapshot, SnapshotError, decode_snapshot, encode_snapshot,
};

use penstock_protocol::{ErrorCode, WireString};

/// Most partitions that one request may create, as in Apache Kafka.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// Resource types of configs, as numbered on the wire.
pub mod resource_type {
    /// A topic.
    pub const TOPIC: i8 = 2;
    /// A broker, or with an empty name all brokers.
    pub const BROKER: i8 = 4;
    /// The loggers of a broker.
    pub const BROKER_LOGGER: i8 = 8;
    /// A subscription to metrics of clients (KIP-714).
    pub const CLIENT_METRICS: i8 = 16;
    /// A group (KIP-848).
    pub const GROUP: i8 = 32;

    /// Whether there are resources of this number.
    pub fn is_known(kind: i8) -> bool {
        [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP].contains(&kind)
    }
}

/// A refusal: Kafka's code and what to tell the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Kafka's code.
    pub code: ErrorCode,
    /// A sentence for the client; the code's own when `None`.
    pub message: Option<String>,
}

impl ApiError {
    /// A refusal with a sentence of its own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { code, message: Some(message.into()) }
    }

    /// The sentence for the wire.
    pub fn wire_message(&self) -> Option<WireString> {
        match &self.message {
            Some(message) => Some(WireString::from(message.as_str())),
            None => Some(WireString::from(self.code.message())),
        }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> ApiError {
        ApiError { code, message: None }
    }
}
