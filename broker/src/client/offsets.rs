//! Offsets of partitions, asked of their leaders.

use std::collections::BTreeMap;

use penstock_protocol::messages::ListOffsetsRequest;
use penstock_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use penstock_protocol::{ErrorCode, WireString};

use super::{ClientError, Cluster, OPERATION_TIMEOUT_MS, check, retry};

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffsetAt {
    /// The first record there is.
    Earliest,
    /// After the last record that consumers may read.
    Latest,
    /// The first record whose timestamp is this or later, in milliseconds.
    Time(i64),
}

impl OffsetAt {
    /// As ListOffsets has it.
    fn timestamp(self) -> i64 {
        match self {
            OffsetAt::Latest => -1,
            OffsetAt::Earliest => -2,
            OffsetAt::Time(timestamp) => timestamp,
        }
    }
}

impl Cluster {
    /// The offset of each of `partitions` at `at`; the log's end where no record is as late as a time. Waits while a
    /// leader is being found.
    pub(crate) fn offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        at: OffsetAt,
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        let mut offsets = self.listed(topic, partitions, at)?;
        let none: Vec<i32> =
            offsets.iter().filter(|(_, offset)| **offset < 0).map(|(index, _)| *index).collect();
        if !none.is_empty() {
            offsets.extend(self.listed(topic, &none, OffsetAt::Latest)?);
        }
        Ok(offsets)
    }

    fn listed(
        &mut self,
        topic: &str,
        partitions: &[i32],
        at: OffsetAt,
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        // A topic that is not there will not come; a partition may, while its leader is not known yet.
        self.topic(topic)?.select(partitions)?;
        let offsets = retry(|| self.list_once(topic, partitions, at))?;
        match partitions.iter().find(|index| !offsets.contains_key(index)) {
            Some(index) => Err(ClientError::Refused {
                what: format!("offset of partition {index} of topic {topic}"),
                code: ErrorCode::UnknownServerError,
                message: Some("the answer lacks it".to_owned()),
            }),
            None => Ok(offsets),
        }
    }

    fn list_once(
        &mut self,
        topic: &str,
        partitions: &[i32],
        at: OffsetAt,
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        let mut offsets = BTreeMap::new();
        for (address, partitions) in self.topic(topic)?.by_leader(partitions)? {
            let ask = |index: &i32| ListOffsetsPartition {
                partition_index: *index,
                current_leader_epoch: -1,
                timestamp: at.timestamp(),
            };
            let topics = vec![ListOffsetsTopic {
                name: WireString::from(topic),
                partitions: partitions.iter().map(ask).collect(),
            }];
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics,
                timeout_ms: OPERATION_TIMEOUT_MS,
                ..ListOffsetsRequest::default()
            };
            let response = self.call_at(&address, &request)?;
            for found in response.topics.iter().flat_map(|topic| &topic.partitions) {
                check(found.error_code, None, || {
                    format!("offset of partition {} of topic {topic}", found.partition_index)
                })?;
                offsets.insert(found.partition_index, found.offset);
            }
        }
        Ok(offsets)
    }
}
