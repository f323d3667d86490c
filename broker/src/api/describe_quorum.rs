//! DescribeQuorum (55), versions 0-2: KIP-595, KIP-836 (times of replicas, 1), KIP-853 (directories and endpoints, 2).

use penstock_core::admin::{Quorum, describe_quorum};
use penstock_protocol::WireString;
use penstock_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

use super::RequestContext;
use crate::metadata::LEADER_EPOCH;
use crate::runtime::task;

pub(super) async fn handle(
    context: RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let high_watermark = context.shard.metadata_end().await;
    let shared = context.shard.shared.clone();
    let (host, port) = &shared.advertised;
    // It has no listener of its own.
    let name = shared.config.listeners.first().map_or("PLAINTEXT", |listener| listener.name.as_str());
    let quorum = Quorum {
        node_id: shared.config.node_id,
        leader_epoch: LEADER_EPOCH,
        high_watermark,
        now_ms: task::now_ms(),
        listener: (WireString::from(name), WireString::from(host.as_str()), *port),
    };
    let named = request.topics.iter().map(|topic| 1 + topic.partitions.len()).sum();
    let version = context.version;
    context.by_size(named, move || describe_quorum(&request, version, &quorum)).await
}
