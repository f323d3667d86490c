//! JoinGroup (11), versions 0-9: KIP-62 (rebalance timeout, 1), KIP-394 (member ids, 4), KIP-345 (static members, 5), KIP-800 (reasons, 8), KIP-814 (skipped assignment, 9).

use penstock_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::RequestContext;
use super::group_call::coordinate;

pub(super) async fn handle(context: RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    let group_id = request.group_id.clone();
    coordinate!(context, &group_id, Join(request))
}
