//! Which shard owns which partition.
//!
//! A topic's partitions are spread evenly over the shards first, so that one busy topic keeps all cores busy; among
//! shards that have equally many of the topic, the one with the fewest partitions of all topics is taken.

use penstock_protocol::messages::PartitionChangeRecord;

use super::machine::MetadataMachine;
use super::record::MetadataRecord;

/// Chooses shards for new partitions, keeping count of what it chose.
pub(super) struct ShardChooser {
    loads: Vec<usize>,
}

impl ShardChooser {
    pub(super) fn new(machine: &MetadataMachine) -> ShardChooser {
        let loads = (0..machine.shards()).map(|shard| machine.shard_loads.get(shard).copied().unwrap_or(0));
        ShardChooser { loads: loads.collect() }
    }

    /// Shards for `count` more partitions of a topic, of which `existing` are placed already.
    pub(super) fn choose(&mut self, existing: impl Iterator<Item = usize>, count: usize) -> Vec<usize> {
        let mut of_topic = vec![0usize; self.loads.len()];
        for shard in existing {
            if let Some(own) = of_topic.get_mut(shard) {
                *own += 1;
            }
        }
        let mut chosen = Vec::with_capacity(count);
        for _ in 0..count {
            let shards = 0..self.loads.len();
            let best = shards
                .min_by_key(|shard| (of_topic[*shard], self.loads[*shard]))
                .expect("at least one shard");
            of_topic[best] += 1;
            self.loads[best] += 1;
            chosen.push(best);
        }
        chosen
    }
}

/// Moves that leave no partition on a shard that is gone and even out the rest, topic by topic, moving no more than
/// that needs.
pub(super) fn assign(machine: &MetadataMachine) -> Vec<MetadataRecord> {
    let shards = machine.shards();
    let mut loads = vec![0usize; shards];
    let mut records = Vec::new();
    for topic in machine.image.topics() {
        let count = topic.partitions.len();
        let (least, extra) = (count / shards, count % shards);
        let mut kept = vec![0usize; shards];
        let mut with_extra = 0;
        let mut homeless = Vec::new();
        for (index, partition) in topic.partitions.iter().enumerate() {
            let own = partition.shard;
            let room = own < shards && (kept[own] < least || (kept[own] == least && with_extra < extra));
            if !room {
                homeless.push(index);
                continue;
            }
            with_extra += usize::from(kept[own] == least);
            kept[own] += 1;
            loads[own] += 1;
        }
        for index in homeless {
            let best =
                (0..shards).min_by_key(|shard| (kept[*shard], loads[*shard])).expect("at least one shard");
            kept[best] += 1;
            loads[best] += 1;
            records.push(MetadataRecord::PartitionChange(PartitionChangeRecord {
                topic_id: topic.id,
                partition_id: i32::try_from(index).expect("partitions are counted in i32"),
                shard: i32::try_from(best).expect("shards are few"),
                ..PartitionChangeRecord::default()
            }));
        }
    }
    records
}
