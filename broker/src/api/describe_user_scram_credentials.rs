//! DescribeUserScramCredentials (50), version 0: KIP-554.

use penstock_core::admin::describe_user_scram_credentials;
use penstock_protocol::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};

use super::RequestContext;

pub(super) async fn handle(
    context: RequestContext,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let named = request.users.as_ref().map_or(0, Vec::len);
    context.by_size(named, move || describe_user_scram_credentials(&request)).await
}
