//! OffsetDelete (47), version 0: KIP-496.

use penstock_core::group::api::offset_delete::{merge, resolve};
use penstock_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::RequestContext;
use super::group_call::coordinate;

pub(super) async fn handle(
    context: RequestContext,
    mut request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let image = context.shard.shared.image.load_full();
    let errors = resolve(&mut request, &image);
    let group_id = request.group_id.clone();
    merge(errors, coordinate!(context, &group_id, DeleteOffsets(request)))
}
