//! Settings of the group coordinator.

/// Settings of the group coordinator, under Kafka's names and own ones. Times are in milliseconds.
///
/// What happens at a bound: a member too many is refused with GROUP_MAX_SIZE_REACHED; a group, an offset, a subscription
/// or an assignment too many with POLICY_VIOLATION, which clients do not repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members (KIP-134).
    pub initial_rebalance_delay_ms: i64,
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: i32,
    /// The lower of `group.max.size` and `penstock.group.members.max`: members of a group.
    pub members_max: usize,
    /// `penstock.group.members.max` once more: ids given to members that have not come back with them yet.
    pub pending_members_max: usize,
    /// `penstock.group.member.bytes.max`: bytes of a member's names and subscriptions, and of its assignment.
    pub member_bytes_max: usize,
    /// `penstock.groups.max`: groups in one partition of `__consumer_offsets`.
    pub groups_max: usize,
    /// `penstock.group.offsets.max`: offsets of one group.
    pub offsets_max: usize,
    /// `offset.metadata.max.bytes`, counted in UTF-16 units as Kafka does.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_check_interval_ms: i64,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.replication.factor`.
    pub offsets_topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`.
    pub offsets_topic_segment_bytes: i64,
}
