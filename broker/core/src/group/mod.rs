//! Consumer groups of the classic protocol, and committed offsets: the group coordinator.
//!
//! [`GroupCoordinator`] is what a shard keeps: one [`GroupMachine`] for each partition of `__consumer_offsets` that the
//! shard leads, under the common runtime of [`crate::coordinator`]. A group belongs to the partition
//! [`partition_for`] names. Requests and answers are the protocol's own messages, one group at a time; [`api`] holds
//! what handlers do before and after (topic ids, older versions, where a coordinator is).
//!
//! Durable state is what `replay` of the records of `__consumer_offsets` builds: committed offsets, and which groups
//! exist with which members and assignments. Soft state is a running group's: who has joined, parked requests, timers;
//! only the files under `machine` change it. As in Apache Kafka, a group's soft state runs ahead of the log, and only
//! what a leader's SyncGroup, a static member's return or the last member's leaving make of it is written.
//!
//! Sources: KIP-62 (rebalance timeout), 134 (delayed first rebalance), 211 (offset expiry), 229 (DeleteGroups),
//! 345 (static members), 394 (member ids), 429 (cooperative rebalancing, which is the clients' own affair: the
//! coordinator carries their bytes), 496 (OffsetDelete), 518 and 848 (filters of ListGroups), 699 and 709 (batches),
//! 800 (reasons), 814 (skipped assignment).
//!
//! Bounds, and what happens at them: see [`GroupConfig`]. A parked JoinGroup or SyncGroup belongs to a member and a member
//! has at most one of each; a second one ends the first with REBALANCE_IN_PROGRESS.

pub mod api;
mod classic;
mod config;
mod machine;
mod member;
mod partition;
mod records;
mod request;

pub use config::GroupConfig;
pub use machine::GroupMachine;
pub use partition::partition_for;
pub use records::{GroupRecord, GroupValue, KeyValue, MemberValue, OffsetKey, OffsetValue, RecordError};
pub use request::{Caller, GroupCall, GroupRequest, GroupResponse};

/// The coordinators of one shard.
pub type GroupCoordinator = crate::coordinator::Partitions<GroupMachine>;

/// What a [`GroupCoordinator`] asks of its driver.
pub type GroupEffect = crate::coordinator::Effect<GroupRecord, GroupResponse>;

/// The topic that keeps groups and offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
