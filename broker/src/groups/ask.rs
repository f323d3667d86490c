//! Requests to coordinators, from any shard.

use std::rc::Rc;

use futures_util::future::join_all;
use penstock_core::coordinator::{Machine, RequestId};
use penstock_core::group::{
    GroupCall, GroupMachine, GroupRequest, GroupResponse, OFFSETS_TOPIC, partition_for,
};
use penstock_protocol::ErrorCode;
use tokio::sync::oneshot;

use super::Answer;
use crate::shard::{PartitionKey, Shard, ShardReply, ShardRequest};

impl Shard {
    /// Asks the coordinator of a group, wherever it is on this broker.
    pub(crate) async fn coordinate(self: &Rc<Shard>, group_id: &str, call: GroupCall) -> GroupResponse {
        let Some((partition, to)) = self.coordinator_of(group_id) else {
            return GroupMachine::refuse(&call, ErrorCode::CoordinatorNotAvailable);
        };
        let lost = GroupMachine::refuse(&call, ErrorCode::NotCoordinator);
        let (answer, answered) = oneshot::channel();
        if to == self.index {
            self.handle_group(partition, call, answer);
        } else {
            self.ask(to, ShardRequest::Group(partition, Box::new(call), answer)).await;
        }
        // The channel closes unanswered only where its shard has ended.
        answered.await.unwrap_or(lost)
    }

    /// Number of the group's partition, and the shard that has it.
    fn coordinator_of(&self, group_id: &str) -> Option<(i32, usize)> {
        let image = self.shared.image.load();
        let topic = image.topic(OFFSETS_TOPIC)?;
        let partitions = i32::try_from(topic.partitions.len()).ok().filter(|partitions| *partitions > 0)?;
        let partition = partition_for(group_id, partitions);
        let key = PartitionKey { topic_id: topic.id, partition };
        Some((partition, self.shared.shard_of(&key, topic.partition(partition)?.shard)))
    }

    /// Hands a request to a coordinator of this shard.
    pub(crate) fn handle_group(self: &Rc<Shard>, partition: i32, call: GroupCall, answer: Answer) {
        let groups = &self.groups;
        let to = RequestId(groups.requests.get());
        groups.requests.set(to.0 + 1);
        groups.waiting.borrow_mut().insert(to, answer);
        let now_ms = groups.clock.now_ms();
        groups.coordinator.borrow_mut().handle(partition, call, to, now_ms);
        self.carry_out_groups();
    }

    /// Puts one question to every coordinator of this shard that serves.
    pub(crate) async fn ask_groups_here(self: &Rc<Shard>, call: GroupCall) -> Vec<GroupResponse> {
        let serving: Vec<i32> = self.groups.coordinator.borrow().serving().collect();
        let asked = serving.into_iter().map(|partition| {
            let (answer, answered) = oneshot::channel();
            self.handle_group(partition, call.clone(), answer);
            answered
        });
        let asked: Vec<_> = asked.collect();
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Puts one question to every coordinator of this broker that serves.
    pub(crate) async fn ask_groups_everywhere(self: &Rc<Shard>, call: GroupCall) -> Vec<GroupResponse> {
        debug_assert!(matches!(call.request, GroupRequest::List(_)), "only lists are asked of all");
        let asked =
            (0..self.shared.shards).map(|to| self.ask(to, ShardRequest::Groups(Box::new(call.clone()))));
        let replies = join_all(asked).await.into_iter();
        let answers = replies.flat_map(|reply| match reply {
            ShardReply::Groups(answers) => answers,
            _ => unreachable!("a reply has the name of its request"),
        });
        answers.collect()
    }
}
