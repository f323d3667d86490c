//! DeleteGroups (42), versions 0-3: KIP-229, KIP-1043 (error messages, 3).

use std::collections::BTreeSet;

use futures_util::future::join_all;
use penstock_protocol::WireString;
use penstock_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::RequestContext;
use super::group_call::coordinate;

pub(super) async fn handle(context: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let context = &context;
    let groups: BTreeSet<WireString> = request.groups_names.into_iter().collect();
    let deleted = groups
        .into_iter()
        .map(|group_id| async move { coordinate!(context, &group_id, Delete(group_id.clone())) });
    DeleteGroupsResponse { results: join_all(deleted).await, ..DeleteGroupsResponse::default() }
}
