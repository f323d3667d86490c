//! ListConfigResources (74), versions 0-1: KIP-714 (as ListClientMetricsResources, 0), KIP-1142 (every type, 1).

use penstock_core::admin::list_config_resources;
use penstock_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::RequestContext;

pub(super) async fn handle(
    context: RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let image = context.shard.shared.image.load_full();
    let (version, entries) = (context.version, request.resource_types.len() + image.topics().len());
    context.by_size(entries, move || list_config_resources(&request, version, &image)).await
}
