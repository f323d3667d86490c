//! DescribeGroups (15), versions 0-6: KIP-430 (authorized operations, 3), KIP-345 (static members, 4), KIP-1043 (errors of
//! groups that are not there, 6).

use futures_util::future::join_all;
use penstock_core::group::api::GROUP_OPERATIONS;
use penstock_protocol::WireString;
use penstock_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::RequestContext;
use super::group_call::coordinate;
use super::operations::NOT_ASKED;

pub(super) async fn handle(
    context: RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let context = &context;
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { NOT_ASKED };
    let described = request.groups.into_iter().map(|group_id: WireString| async move {
        let mut group = coordinate!(context, &group_id, Describe(group_id.clone()));
        if group.error_code == 0 {
            group.authorized_operations = operations;
        }
        group
    });
    DescribeGroupsResponse { groups: join_all(described).await, ..DescribeGroupsResponse::default() }
}
