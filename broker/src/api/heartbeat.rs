//! Heartbeat (12), versions 0-4: KIP-345 (static members, 3).

use penstock_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::RequestContext;
use super::group_call::coordinate;

pub(super) async fn handle(context: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let group_id = request.group_id.clone();
    coordinate!(context, &group_id, Heartbeat(request))
}
