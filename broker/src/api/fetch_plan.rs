//! What a Fetch request reads: its partitions, located, with limits; and what they gave so far.

use penstock_core::fetch_session::PartitionName;
use penstock_core::metadata::{MetadataImage, TopicImage};
use penstock_protocol::messages::fetch_request::FetchPartition;
use penstock_protocol::messages::fetch_response::{self, AbortedTransaction};
use penstock_protocol::{ErrorCode, Records};

use super::{errors, scatter};
use crate::shard::{PartitionData, PartitionRead, ReadFailure, Shard};

/// One partition of a fetch.
pub(super) struct Part {
    partition: i32,
    pub(super) state: State,
}

/// How far a partition is.
pub(super) enum State {
    /// It is refused.
    Refused(ErrorCode),
    /// It is read on a shard; `read` is what is left to read.
    Reading { shard: usize, read: PartitionRead, data: PartitionData },
}

impl Part {
    /// Plans one partition of `topic`, which is an error where the topic is not known.
    pub(super) fn new(shard: &Shard, topic: Result<&TopicImage, ErrorCode>, asked: &FetchPartition) -> Part {
        let located = topic.and_then(|topic| scatter::locate(shard, topic, asked.partition));
        let state = match located {
            Ok((key, to)) => State::Reading {
                shard: to,
                read: PartitionRead {
                    key,
                    offset: asked.fetch_offset,
                    bytes_max: usize::try_from(asked.partition_max_bytes).unwrap_or(0),
                    current_leader_epoch: asked.current_leader_epoch,
                    last_fetched_epoch: asked.last_fetched_epoch,
                },
                data: PartitionData::default(),
            },
            Err(error) => State::Refused(error),
        };
        Part { partition: asked.partition, state }
    }

    /// Bytes it gave so far.
    pub(super) fn bytes(&self) -> usize {
        match &self.state {
            State::Reading { data, .. } => data.bytes,
            State::Refused(_) => 0,
        }
    }

    /// What is left to read; `None` if it is refused.
    pub(super) fn read(&self) -> Option<PartitionRead> {
        match &self.state {
            State::Reading { read, .. } => Some(*read),
            State::Refused(_) => None,
        }
    }

    /// Bytes that it may still give.
    pub(super) fn wanted(&self) -> usize {
        match &self.state {
            State::Reading { read, .. } => read.bytes_max,
            State::Refused(_) => 0,
        }
    }

    /// Whether the client is to hear of it at once: an error, or a log that parted from the client's.
    pub(super) fn is_urgent(&self) -> bool {
        match &self.state {
            State::Reading { data, .. } => data.diverging.is_some(),
            State::Refused(_) => true,
        }
    }

    /// Takes what a read gave, unless it is more than the limits allow: `first` says that nothing has been found so far,
    /// so that a batch beyond the partition's limit passes.
    pub(super) fn take(&mut self, outcome: Result<PartitionData, ReadFailure>, first: bool) {
        let State::Reading { read, data, .. } = &mut self.state else { return };
        match outcome {
            Ok(new) => {
                data.high_watermark = new.high_watermark;
                data.log_start_offset = new.log_start_offset;
                data.diverging = new.diverging;
                if new.bytes > 0 && (first || new.bytes <= read.bytes_max) {
                    data.slices.extend(new.slices);
                    data.bytes += new.bytes;
                    read.offset = new.next_offset;
                    read.bytes_max = read.bytes_max.saturating_sub(new.bytes);
                    // The rest of the log follows what was read: no further check against the client's last epoch.
                    read.last_fetched_epoch = -1;
                }
            }
            // What was found before it failed is still worth an answer; the next fetch meets the failure.
            Err(_) if data.bytes > 0 => read.bytes_max = 0,
            Err(failure) => self.state = State::Refused(errors::of_read(failure)),
        }
    }

    /// The partition's answer.
    pub(super) fn respond(self, read_committed: bool) -> fetch_response::PartitionData {
        let aborted: Option<Vec<AbortedTransaction>> = read_committed.then(Vec::new);
        let empty = fetch_response::PartitionData {
            partition_index: self.partition,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: aborted,
            // Null records break librdkafka.
            records: Some(Records::default()),
            ..fetch_response::PartitionData::default()
        };
        let data = match self.state {
            State::Refused(error) => {
                return fetch_response::PartitionData { error_code: error.code(), ..empty };
            }
            State::Reading { data, .. } => data,
        };
        let diverging_epoch = data.diverging.map_or_else(Default::default, |(epoch, end_offset)| {
            fetch_response::EpochEndOffset { epoch, end_offset }
        });
        fetch_response::PartitionData {
            high_watermark: data.high_watermark,
            // Without transactions every record below the high watermark is settled.
            last_stable_offset: data.high_watermark,
            log_start_offset: data.log_start_offset,
            diverging_epoch,
            records: Some(Records::from(data.slices)),
            ..empty
        }
    }
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
