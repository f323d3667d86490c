//! DescribeLogDirs (35), versions 1-5: KIP-113, KIP-827 (bytes of the volume, 4), KIP-1066 (cordoned directories, 5).

use penstock_core::admin::{Volume, describe_log_dirs, partitions_to_measure};
use penstock_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use penstock_storage::disk::preflight::volume_bytes;

use super::{RequestContext, scatter};
use crate::shard::{PartitionKey, ShardReply, ShardRequest};

pub(super) async fn handle(
    context: RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let shard = &context.shard;
    let shared = shard.shared.clone();
    let image = shared.image.load_full();
    let topics = request.topics.as_ref();
    let named = topics.map(|topics| topics.iter().map(|topic| 1 + topic.partitions.len()).sum());
    let entries = named.unwrap_or(image.partitions_len());
    let choose = move || {
        let places = partitions_to_measure(&request, &image);
        let located = places.iter().map(|place| {
            let key = PartitionKey { topic_id: place.topic_id, partition: place.partition };
            Ok((shared.shard_of(&key, place.shard), key))
        });
        let located = located.collect();
        (places, located)
    };
    let (places, located) = context.by_size(entries, choose).await;
    let sizes = scatter::ask(shard, located, ShardRequest::Measure, |reply| match reply {
        ShardReply::Measure(sizes) => sizes,
        _ => unreachable!("a reply has the name of its request"),
    });
    let sizes: Vec<Option<u64>> = sizes.await.into_iter().map(|size| size.ok().flatten()).collect();
    let (volume, path) = (volume(&context).await, shard.shared.data_dir.to_string_lossy().into_owned());
    context.by_size(entries, move || describe_log_dirs(&path, volume, &places, &sizes)).await
}

/// The volume below the data directory. Beside the shard: a file system may take its time to answer.
async fn volume(context: &RequestContext) -> Option<Volume> {
    let shared = context.shard.shared.clone();
    match context.shard.desk.run(move || volume_bytes(&shared.data_dir)).await {
        Ok(Ok((total_bytes, usable_bytes))) => Some(Volume { total_bytes, usable_bytes }),
        Ok(Err(error)) => {
            tracing::error!("the volume of the data directory cannot be asked: {error}");
            None
        }
        // The worker has told of its panic.
        Err(_) => None,
    }
}
