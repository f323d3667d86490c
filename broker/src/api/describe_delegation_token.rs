//! DescribeDelegationToken (41), versions 1-3: KIP-48, KIP-373 (requesters, 3). Nobody is authenticated yet, and tokens
//! are told to nobody else.

use penstock_protocol::ErrorCode;
use penstock_protocol::messages::{DescribeDelegationTokenRequest, DescribeDelegationTokenResponse};

use super::RequestContext;

pub(super) async fn handle(
    _: RequestContext,
    _: DescribeDelegationTokenRequest,
) -> DescribeDelegationTokenResponse {
    DescribeDelegationTokenResponse {
        error_code: ErrorCode::DelegationTokenRequestNotAllowed.code(),
        ..DescribeDelegationTokenResponse::default()
    }
}
