//! DeleteRecords (21), versions 0-2: KIP-107.

use penstock_core::metadata::is_internal;
use penstock_protocol::ErrorCode;
use penstock_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use penstock_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::{RequestContext, scatter};
use crate::runtime::pace::Pace;
use crate::shard::{PartitionQuery, Query};

/// Low watermark of a partition that gave none.
const NO_LOW_WATERMARK: i64 = -1;

pub(super) async fn handle(context: RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let shard = &context.shard;
    let image = shard.shared.image.load_full();
    let mut queries = Vec::new();
    let mut pace = Pace::new();
    for topic in &request.topics {
        // Records of topics that compaction alone may thin out are not deleted by offset.
        let compacted =
            image.topic(&topic.name).is_some_and(|topic| topic.config.compact && !topic.config.delete);
        for partition in &topic.partitions {
            pace.step(1).await;
            let located = scatter::locate_by_name(shard, &image, &topic.name, partition.partition_index);
            queries.push(match located {
                Ok(_) if is_internal(&topic.name) => Err(ErrorCode::InvalidTopicException),
                Ok(_) if compacted => Err(ErrorCode::PolicyViolation),
                Ok((key, to)) => {
                    let query = Query::DeleteBefore(partition.offset);
                    Ok((to, PartitionQuery { key, query }))
                }
                Err(error) => Err(error),
            });
        }
    }
    let mut outcomes = scatter::query(shard, queries).await.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(&mut outcomes).map(|(partition, outcome)| {
            let partition_index = partition.partition_index;
            let (low_watermark, error) = match outcome {
                Ok(answer) => (answer.offset, ErrorCode::None),
                Err(error) => (NO_LOW_WATERMARK, error),
            };
            DeleteRecordsPartitionResult { partition_index, low_watermark, error_code: error.code() }
        });
        DeleteRecordsTopicResult { partitions: partitions.collect(), name: topic.name }
    });
    DeleteRecordsResponse { topics: topics.collect(), ..DeleteRecordsResponse::default() }
}
