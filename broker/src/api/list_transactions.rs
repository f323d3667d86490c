//! ListTransactions (66), versions 0-2: KIP-664, KIP-994 (by duration, 1), KIP-1152 (by a pattern, 2).

use penstock_core::admin::list_transactions;
use penstock_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse};

use super::RequestContext;

pub(super) async fn handle(
    context: RequestContext,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let pattern = request.transactional_id_pattern.as_ref().map_or(0, |pattern| pattern.len());
    context.by_size(request.state_filters.len() + pattern, move || list_transactions(&request)).await
}
