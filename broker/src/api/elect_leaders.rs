//! ElectLeaders (43), versions 0-2: KIP-183, KIP-460 (unclean elections, 1).

use penstock_core::admin::elect_leaders;
use penstock_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use super::RequestContext;

pub(super) async fn handle(context: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let image = context.shard.shared.image.load_full();
    let topics = request.topic_partitions.as_ref();
    let named = topics.map(|topics| topics.iter().map(|topic| 1 + topic.partitions.len()).sum());
    let entries = named.unwrap_or(image.topics().len() + image.partitions_len());
    context.by_size(entries, move || elect_leaders(&request, &image)).await
}
