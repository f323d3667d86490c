//! DescribeTransactions (65), version 0: KIP-664.

use penstock_core::admin::describe_transactions;
use penstock_protocol::messages::{DescribeTransactionsRequest, DescribeTransactionsResponse};

use super::RequestContext;

pub(super) async fn handle(
    context: RequestContext,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    context.by_size(request.transactional_ids.len(), move || describe_transactions(&request)).await
}
