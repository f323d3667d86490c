//! ListGroups (16), versions 0-5: KIP-518 (states, 4), KIP-848 (types, 5).

use penstock_core::group::{GroupRequest, GroupResponse};
use penstock_protocol::ErrorCode;
use penstock_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use super::{RequestContext, group_call};

pub(super) async fn handle(context: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let call = group_call::call(&context, GroupRequest::List(request));
    let mut all = ListGroupsResponse::default();
    for answer in context.shard.ask_groups_everywhere(call).await {
        let GroupResponse::List(part) = answer else { unreachable!("an answer has the name of its request") };
        match ErrorCode::from_code(part.error_code) {
            ErrorCode::None => all.groups.extend(part.groups),
            // It was unloaded while it was asked: its groups are another's.
            ErrorCode::NotCoordinator => {}
            _ => return part,
        }
    }
    all
}
