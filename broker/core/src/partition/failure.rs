//! What can go wrong with a partition, and what each is called on the wire: the one place where it is decided.

use penstock_format::ErrorKind;
use penstock_protocol::ErrorCode;

/// Why a partition gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionFailure {
    /// It is not where the metadata says, yet or any more.
    NotHere,
    /// The client knows an older leader epoch.
    FencedEpoch,
    /// The client knows a newer leader epoch.
    UnknownEpoch,
    /// The offset is outside the log, or beyond what the client may touch.
    OutOfRange,
    /// What the new leader took over is not yet known to be committed (KIP-207).
    NotAvailable,
    /// Another change of the log is under way.
    Busy,
    /// The bytes on disk are damaged.
    Corrupt,
    /// The disk failed, now or earlier.
    Storage,
}

impl PartitionFailure {
    /// Kafka's code.
    pub fn code(self) -> ErrorCode {
        match self {
            // It is being opened, moved or removed: the client asks for metadata and comes again.
            PartitionFailure::NotHere => ErrorCode::UnknownTopicOrPartition,
            PartitionFailure::FencedEpoch => ErrorCode::FencedLeaderEpoch,
            PartitionFailure::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
            PartitionFailure::OutOfRange => ErrorCode::OffsetOutOfRange,
            PartitionFailure::NotAvailable => ErrorCode::OffsetNotAvailable,
            // Retriable, and true: another change of this log has the turn.
            PartitionFailure::Busy => ErrorCode::RequestTimedOut,
            PartitionFailure::Corrupt => ErrorCode::CorruptMessage,
            PartitionFailure::Storage => ErrorCode::KafkaStorageError,
        }
    }
}

/// Whether as many replicas are in sync as `acks=all` needs: `min.insync.replicas`, but never more than there are.
pub fn enough_in_sync(in_sync: usize, replicas: usize, min_insync_replicas: i32) -> bool {
    let needed = usize::try_from(min_insync_replicas).unwrap_or(0).min(replicas);
    in_sync >= needed
}

/// Why nothing was appended to a partition, or nothing is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendFailure {
    /// It is not where the metadata says, yet or any more.
    NotHere,
    /// The disk failed before the records were stable.
    NotWritten,
    /// The log cannot be written.
    Offline,
    /// There is no space on the disk.
    DiskFull,
    /// The log is closing or changing.
    Unavailable,
    /// The batches exceed what can be committed at once.
    TooLarge,
    /// The producer's sequence number does not follow.
    OutOfOrderSequence,
    /// The producer's epoch is older than one seen.
    InvalidProducerEpoch,
    /// No further producer can be remembered.
    TooManyProducers,
}

impl AppendFailure {
    /// Kafka's code.
    pub fn code(self) -> ErrorCode {
        match self {
            AppendFailure::NotHere => ErrorCode::UnknownTopicOrPartition,
            AppendFailure::NotWritten | AppendFailure::Offline | AppendFailure::DiskFull => {
                ErrorCode::KafkaStorageError
            }
            AppendFailure::Unavailable => ErrorCode::NotLeaderOrFollower,
            AppendFailure::TooLarge => ErrorCode::RecordListTooLarge,
            AppendFailure::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
            AppendFailure::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
            // Retriable, and nothing was written: as if too few replicas had room for it.
            AppendFailure::TooManyProducers => ErrorCode::NotEnoughReplicas,
        }
    }
}

/// Kafka's code for what is wrong with a record batch.
pub fn batch_error(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::Corrupt => ErrorCode::CorruptMessage,
        ErrorKind::TooLarge => ErrorCode::MessageTooLarge,
        ErrorKind::InvalidRecord => ErrorCode::InvalidRecord,
        ErrorKind::InvalidTimestamp => ErrorCode::InvalidTimestamp,
        ErrorKind::UnsupportedCompression => ErrorCode::UnsupportedCompressionType,
        ErrorKind::UnsupportedFormat => ErrorCode::UnsupportedForMessageFormat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_by_itself_is_retriable() {
        let passing = [
            PartitionFailure::NotHere,
            PartitionFailure::FencedEpoch,
            PartitionFailure::UnknownEpoch,
            PartitionFailure::NotAvailable,
            PartitionFailure::Busy,
            PartitionFailure::Storage,
        ];
        assert!(passing.iter().all(|failure| failure.code().is_retriable()));
        let passing = [
            AppendFailure::NotHere,
            AppendFailure::NotWritten,
            AppendFailure::Offline,
            AppendFailure::DiskFull,
            AppendFailure::Unavailable,
            AppendFailure::TooManyProducers,
        ];
        assert!(passing.iter().all(|failure| failure.code().is_retriable()));
    }

    #[test]
    fn no_more_replicas_are_needed_than_there_are() {
        assert!(enough_in_sync(1, 1, 2), "Apache Kafka compares with the lower of both");
        assert!(enough_in_sync(2, 3, 2) && !enough_in_sync(1, 3, 2));
        assert!(!enough_in_sync(0, 1, 1));
    }

    #[test]
    fn a_clients_fault_is_not_retried() {
        assert!(!PartitionFailure::OutOfRange.code().is_retriable());
        let faults =
            [AppendFailure::TooLarge, AppendFailure::OutOfOrderSequence, AppendFailure::InvalidProducerEpoch];
        assert!(faults.iter().all(|failure| !failure.code().is_retriable()));
        let faults = [
            ErrorKind::TooLarge,
            ErrorKind::InvalidRecord,
            ErrorKind::InvalidTimestamp,
            ErrorKind::UnsupportedCompression,
            ErrorKind::UnsupportedFormat,
        ];
        assert!(faults.iter().all(|kind| !batch_error(*kind).is_retriable()));
    }
}
