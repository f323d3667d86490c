//! LeaveGroup (13), versions 0-5: KIP-345 (several members, 3), KIP-800 (reasons, 5).

use penstock_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::RequestContext;
use super::group_call::coordinate;

pub(super) async fn handle(context: RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let group_id = request.group_id.clone();
    coordinate!(context, &group_id, Leave(request))
}
