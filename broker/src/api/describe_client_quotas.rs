//! DescribeClientQuotas (48), versions 0-1: KIP-546.

use penstock_core::admin::describe_client_quotas;
use penstock_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use super::RequestContext;

pub(super) async fn handle(
    _: RequestContext,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    describe_client_quotas(&request)
}
