//! AlterReplicaLogDirs (34), versions 1-2: KIP-113. There is one directory, where every partition is already.

use penstock_core::admin::alter_replica_log_dirs;
use penstock_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};

use super::RequestContext;

pub(super) async fn handle(
    context: RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let shared = context.shard.shared.clone();
    let topics = request.dirs.iter().flat_map(|dir| &dir.topics);
    let named = topics.map(|topic| 1 + topic.partitions.len()).sum();
    let decide = move || {
        let image = shared.image.load();
        alter_replica_log_dirs(&request, &shared.data_dir.to_string_lossy(), &image)
    };
    context.by_size(named, decide).await
}
