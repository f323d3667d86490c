//! What shards ask of each other, and the loop that answers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use penstock_core::group::{GroupCall, GroupResponse};
use penstock_core::metadata::{Answer, Command, MetadataImage};
use penstock_core::partition::PartitionFailure;
use penstock_core::partition::fetch::PartitionData;
use penstock_protocol::{ErrorCode, Uuid};
use penstock_storage::ProducerState;

use super::{
    AppendOutcomes, PartitionAppend, PartitionKey, PartitionQuery, QueryAnswer, ReadRequest, Shard, Stage,
};
use crate::runtime::mailbox::Incoming;
use crate::runtime::task;

/// Messages handled before other tasks of the shard get their turn.
const BATCH: usize = 64;

/// What one shard asks of another.
pub(crate) enum ShardRequest {
    /// Append to partitions.
    Append(Vec<PartitionAppend>),
    /// Read partitions.
    Read(ReadRequest),
    /// Answer questions about partitions.
    Query(Vec<PartitionQuery>),
    /// Measure the logs of partitions.
    Measure(Vec<PartitionKey>),
    /// Tell of the idempotent producers of partitions.
    Producers(Vec<PartitionKey>),
    /// Bring the partitions of these topics to what the image says.
    Apply(Arc<MetadataImage>, Arc<[Uuid]>),
    /// Change metadata; shard 0 does.
    Metadata(Command),
    /// Tell how far the metadata log is; shard 0 does.
    MetadataEnd,
    /// Ask the coordinator in this partition of `__consumer_offsets`; its answer goes its own way.
    Group(i32, Box<GroupCall>, crate::groups::Answer),
    /// Ask every coordinator.
    Groups(Box<GroupCall>),
}

/// The answer of the same name.
pub(crate) enum ShardReply {
    Append(AppendOutcomes),
    Read(Vec<Result<PartitionData, PartitionFailure>>),
    Query(Vec<Result<QueryAnswer, PartitionFailure>>),
    /// Bytes of each log; `None` where the partition is not here.
    Measure(Vec<Option<u64>>),
    Producers(Vec<Result<Vec<ProducerState>, PartitionFailure>>),
    Apply(Result<(), String>),
    Metadata(Result<Answer, ErrorCode>),
    /// Exclusive end of what is stable.
    MetadataEnd(i64),
    /// The request was handed over.
    Group,
    Groups(Vec<GroupResponse>),
}

/// Carries out a request on its own shard.
pub(super) async fn execute(shard: &Rc<Shard>, request: ShardRequest) -> ShardReply {
    match request {
        ShardRequest::Append(appends) => {
            ShardReply::Append(shard.append(appends.into(), None, Instant::now()).await.finish().await)
        }
        ShardRequest::Read(request) => ShardReply::Read(shard.read(request).await),
        ShardRequest::Query(queries) => ShardReply::Query(shard.query(queries).await),
        ShardRequest::Measure(keys) => ShardReply::Measure(shard.measure(keys).await),
        ShardRequest::Producers(keys) => ShardReply::Producers(shard.producers(keys).await),
        ShardRequest::Apply(image, topics) => ShardReply::Apply(shard.apply(&image, &topics).await),
        ShardRequest::Metadata(command) => ShardReply::Metadata(shard.metadata(command).await),
        ShardRequest::MetadataEnd => ShardReply::MetadataEnd(shard.metadata_end().await),
        ShardRequest::Group(partition, call, answer) => {
            shard.handle_group(partition, *call, answer);
            ShardReply::Group
        }
        ShardRequest::Groups(call) => ShardReply::Groups(shard.ask_groups_here(*call).await),
    }
}

/// Answers other shards for as long as the shard runs. Appends join the shard's line in the order in which they
/// came; everything else proceeds side by side, bounded by the senders' credits.
pub(crate) async fn serve_inbox(shard: Rc<Shard>) {
    loop {
        for _ in 0..BATCH {
            let Incoming::Request(request) = shard.post.receive().await else { continue };
            let own = shard.clone();
            let now = Instant::now();
            if matches!(request.body, ShardRequest::Append(_) | ShardRequest::Read(_)) {
                own.stages.record(Stage::Mailbox, now.saturating_duration_since(request.sent));
            }
            match request.body {
                ShardRequest::Append(appends) => {
                    // Its place in line is taken here, not when the task first runs.
                    let append = own.append(appends.into(), Some(request.sent), now);
                    task::spawn("append for another shard", async move {
                        let outcomes = append.await.finish().await;
                        own.post.reply(request.from, ShardReply::Append(outcomes));
                    });
                }
                body => task::spawn("work for another shard", async move {
                    let reply = execute(&own, body).await;
                    own.post.reply(request.from, reply);
                }),
            }
        }
        task::yield_now().await;
    }
}
