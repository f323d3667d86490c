//! What administrators ask of partitions of this shard.

use penstock_core::partition::PartitionFailure;
use penstock_storage::ProducerState;

use super::{PartitionKey, Shard};
use crate::runtime::pace::Pace;

impl Shard {
    /// Bytes of all batches of each partition; `None` where it is not here, or offline: as in Apache Kafka an offline log is
    /// in no directory.
    pub(crate) async fn measure(&self, keys: Vec<PartitionKey>) -> Vec<Option<u64>> {
        let mut sizes = Vec::with_capacity(keys.len());
        let mut pace = Pace::new();
        for key in &keys {
            pace.step(1).await;
            let online = self.partition(key).filter(|partition| partition.log.offline().is_none());
            sizes.push(online.map(|partition| partition.log.size_bytes()));
        }
        sizes
    }

    /// The idempotent producers that each partition knows.
    pub(crate) async fn producers(
        &self,
        keys: Vec<PartitionKey>,
    ) -> Vec<Result<Vec<ProducerState>, PartitionFailure>> {
        let mut told = Vec::with_capacity(keys.len());
        let mut pace = Pace::new();
        for key in &keys {
            let producers = self.partition(key).map(|partition| partition.log.producers());
            pace.step(1 + producers.as_ref().map_or(0, Vec::len)).await;
            told.push(producers.ok_or(PartitionFailure::NotHere));
        }
        told
    }
}
