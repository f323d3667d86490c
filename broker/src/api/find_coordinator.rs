//! FindCoordinator (10), versions 0-6: KIP-98 (key types, 1), KIP-699 (several keys, 4), KIP-932 (shares, 6).
//!
//! The first request for a group makes `__consumer_offsets`.

use penstock_core::group::api::find_coordinator::{Endpoint, answer, lacks_topic, offsets_topic};
use penstock_core::metadata::Command;
use penstock_protocol::WireString;
use penstock_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::RequestContext;

/// Brokers that can hold replicas: this one.
const BROKERS: i16 = 1;

pub(super) async fn handle(
    context: RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let shared = &context.shard.shared;
    let image = shared.image.load_full();
    if lacks_topic(&request, &image) {
        let topic = offsets_topic(&image.broker().group, BROKERS);
        // Whether it was made, by us or by somebody quicker, is seen below.
        if let Err(error) = context.shard.metadata(Command::CreateTopics(topic)).await {
            tracing::warn!("the topic of groups cannot be made: {error:?}");
        }
    }
    let image = shared.image.load_full();
    let (host, port) = &shared.advertised;
    let here = Endpoint { host: WireString::from(host.as_str()), port: i32::from(*port) };
    let node_id = image.broker().node_id;
    answer(&request, context.version, &image, |node| (node == node_id).then(|| here.clone()))
}
