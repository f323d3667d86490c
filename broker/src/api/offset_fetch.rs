//! OffsetFetch (9), versions 1-10: KIP-320 (leader epochs, 5), KIP-447 (stable offsets, 7), KIP-709 (several groups, 8),
//! KIP-848 (member epochs and topic ids, 9 and 10).

use futures_util::future::join_all;
use penstock_core::group::api::offset_fetch::{answer, complete, groups_of};
use penstock_core::group::{GroupRequest, GroupResponse};
use penstock_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};

use super::{RequestContext, group_call};

pub(super) async fn handle(context: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let image = context.shard.shared.image.load_full();
    let (version, require_stable) = (context.version, request.require_stable);
    let (context, image) = (&context, &image);
    let groups = groups_of(request, version, image).into_iter().map(|asked| async move {
        let group_id = asked.group.group_id.clone();
        let request = GroupRequest::FetchOffsets { group: asked.group, require_stable };
        match context.shard.coordinate(&group_id, group_call::call(context, request)).await {
            GroupResponse::FetchOffsets(group) => complete(group, asked.errors, version, image),
            _ => unreachable!("an answer has the name of its request"),
        }
    });
    answer(join_all(groups).await, version)
}
