//! ListPartitionReassignments (46), version 0: KIP-455. No partition is on its way to other nodes: there are none.

use penstock_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::RequestContext;

pub(super) async fn handle(
    _: RequestContext,
    _: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
