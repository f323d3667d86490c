//! DescribeAcls (29), versions 1-3: KIP-140, KIP-290 (pattern types). There is no authorizer yet, and so no rule.

use penstock_protocol::ErrorCode;
use penstock_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::RequestContext;

pub(super) async fn handle(_: RequestContext, _: DescribeAclsRequest) -> DescribeAclsResponse {
    let error = ErrorCode::SecurityDisabled;
    DescribeAclsResponse {
        error_code: error.code(),
        // In the words that people look for.
        error_message: Some("No Authorizer is configured on the broker".into()),
        ..DescribeAclsResponse::default()
    }
}
