//! OffsetCommit (8), versions 2-10: KIP-211 (no retention time, 5), KIP-320 (leader epochs, 6), KIP-345 (static members, 7),
//! KIP-848 (member epochs and topic ids, 9 and 10).

use penstock_core::group::api::offset_commit::{merge, resolve};
use penstock_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::RequestContext;
use super::group_call::coordinate;

pub(super) async fn handle(
    context: RequestContext,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let image = context.shard.shared.image.load_full();
    let errors = resolve(&mut request, context.version, &image);
    if request.topics.is_empty() {
        return errors;
    }
    let group_id = request.group_id.clone();
    merge(errors, coordinate!(context, &group_id, CommitOffsets(request)))
}
