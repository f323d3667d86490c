//! From a Fetch request's partitions to reads, and from what was read to its answer.

use penstock_core::fetch_session::PartitionName;
use penstock_core::metadata::{MetadataImage, TopicImage};
use penstock_core::partition::fetch::PartOutcome;
use penstock_core::partition::{Isolation, PartitionRead};
use penstock_protocol::messages::fetch_request::FetchPartition;
use penstock_protocol::messages::fetch_response::{EpochEndOffset, PartitionData};
use penstock_protocol::{ErrorCode, Records};

use super::scatter;
use crate::shard::{PartitionKey, Shard};

/// Where a partition is and what to read there.
pub(super) fn locate(
    shard: &Shard,
    topic: Result<&TopicImage, ErrorCode>,
    asked: &FetchPartition,
) -> Result<(PartitionKey, usize, PartitionRead), ErrorCode> {
    let (key, to) = scatter::locate(shard, topic?, asked.partition)?;
    Ok((key, to, PartitionRead::of(asked)))
}

/// The topic that a fetch names: by id from version 13, by name before.
pub(super) fn find_topic<'a>(
    image: &'a MetadataImage,
    by_id: bool,
    name: &PartitionName,
) -> Result<&'a TopicImage, ErrorCode> {
    match by_id {
        true => image.topic_by_id(name.topic_id).map(|topic| &**topic).ok_or(ErrorCode::UnknownTopicId),
        false => image.topic(&name.topic).map(|topic| &**topic).ok_or(ErrorCode::UnknownTopicOrPartition),
    }
}

/// A partition's answer.
pub(super) fn respond(partition: i32, outcome: PartOutcome, isolation: Isolation) -> PartitionData {
    let empty = PartitionData {
        partition_index: partition,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        // Null records break librdkafka.
        records: Some(Records::default()),
        ..PartitionData::default()
    };
    // As Apache Kafka has it: an empty list where nothing was looked for, null where it failed.
    let (refused, failed) = (Some(Vec::new()), None);
    let data = match outcome {
        PartOutcome::Refused(error) => {
            return PartitionData { error_code: error.code(), aborted_transactions: refused, ..empty };
        }
        PartOutcome::Failed(failure) => {
            let error_code = failure.code().code();
            return PartitionData { error_code, aborted_transactions: failed, ..empty };
        }
        PartOutcome::Data(data) => data,
    };
    let diverging_epoch = data.diverging.map_or_else(EpochEndOffset::default, |diverging| EpochEndOffset {
        epoch: diverging.epoch,
        end_offset: diverging.end_offset,
    });
    PartitionData {
        high_watermark: data.high_watermark,
        last_stable_offset: data.last_stable_offset,
        log_start_offset: data.log_start_offset,
        aborted_transactions: (isolation == Isolation::ReadCommitted).then(Vec::new),
        diverging_epoch,
        records: Some(Records::from(data.slices)),
        ..empty
    }
}
