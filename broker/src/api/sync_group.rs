//! SyncGroup (14), versions 0-5: KIP-345 (static members, 3), KIP-559 (protocol name and type, 5).

use penstock_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::RequestContext;
use super::group_call::coordinate;

pub(super) async fn handle(context: RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let group_id = request.group_id.clone();
    coordinate!(context, &group_id, Sync(request))
}
