//! Failures of the shards as Kafka's error codes, all in one place.

use penstock_format::ErrorKind;
use penstock_protocol::ErrorCode;
use penstock_storage::producer::ProducerError;

use crate::shard::{AppendFailure, AppendRefusal, QueryFailure, ReadFailure};

pub(super) fn of_read(failure: ReadFailure) -> ErrorCode {
    match failure {
        // The partition is being opened, moved or removed: the client asks for metadata and comes again.
        ReadFailure::NotHere => ErrorCode::UnknownTopicOrPartition,
        ReadFailure::FencedEpoch => ErrorCode::FencedLeaderEpoch,
        ReadFailure::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
        ReadFailure::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadFailure::Corrupt => ErrorCode::CorruptMessage,
        ReadFailure::Storage => ErrorCode::KafkaStorageError,
    }
}

pub(super) fn of_query(failure: QueryFailure) -> ErrorCode {
    match failure {
        QueryFailure::Read(failure) => of_read(failure),
        QueryFailure::OutOfRange => ErrorCode::OffsetOutOfRange,
        // Retriable, and true: another change of this log has the turn.
        QueryFailure::Busy => ErrorCode::RequestTimedOut,
    }
}

pub(super) fn of_append(failure: &AppendFailure) -> ErrorCode {
    match failure {
        AppendFailure::NotHere => ErrorCode::UnknownTopicOrPartition,
        AppendFailure::NotWritten => ErrorCode::KafkaStorageError,
        AppendFailure::Refused(refusal) => match refusal {
            AppendRefusal::Offline | AppendRefusal::DiskFull => ErrorCode::KafkaStorageError,
            AppendRefusal::Unavailable => ErrorCode::NotLeaderOrFollower,
            AppendRefusal::TooLarge => ErrorCode::RecordListTooLarge,
            AppendRefusal::Producer(error) => match error {
                ProducerError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
                ProducerError::InvalidEpoch { .. } => ErrorCode::InvalidProducerEpoch,
                ProducerError::TooMany { .. } => ErrorCode::NotEnoughReplicas,
            },
        },
    }
}

pub(super) fn of_batch(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::Corrupt => ErrorCode::CorruptMessage,
        ErrorKind::TooLarge => ErrorCode::MessageTooLarge,
        ErrorKind::InvalidRecord => ErrorCode::InvalidRecord,
        ErrorKind::InvalidTimestamp => ErrorCode::InvalidTimestamp,
        ErrorKind::UnsupportedCompression => ErrorCode::UnsupportedCompressionType,
        ErrorKind::UnsupportedFormat => ErrorCode::UnsupportedForMessageFormat,
    }
}
