//! AlterPartitionReassignments (45), versions 0-1: KIP-455, KIP-860 (keeping the replication factor, 1).

use penstock_core::metadata::alter_partition_reassignments;
use penstock_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

use super::RequestContext;

pub(super) async fn handle(
    context: RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let image = context.shard.shared.image.load_full();
    let entries = request.topics.iter().map(|topic| 1 + topic.partitions.len()).sum();
    context.by_size(entries, move || alter_partition_reassignments(&request, &image)).await
}
