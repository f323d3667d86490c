//! One session: its partitions in the order in which they are read, and what its client last heard of each.

use std::collections::BTreeMap;

use penstock_protocol::ErrorCode;
use penstock_protocol::messages::fetch_request::FetchPartition;
use penstock_protocol::messages::fetch_response::PartitionData;

use super::{INITIAL_EPOCH, PartitionName, next_epoch};

/// A high watermark or start that no partition has, so that the next answer tells the partition.
const NOT_TOLD: i64 = -1;

/// A partition of a session.
#[derive(Clone, Debug)]
struct Cached {
    name: PartitionName,
    asked: FetchPartition,
    high_watermark: i64,
    log_start_offset: i64,
}

/// A session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) by_id: bool,
    /// A follower's: it outlives those of consumers.
    pub(super) privileged: bool,
    pub(super) created_ms: i64,
    pub(super) used_ms: i64,
    /// Partitions with which the cache counts it.
    pub(super) enlisted_len: usize,
    /// The epoch that the next request is to carry.
    pub(super) epoch: i32,
    /// By place in the order of reading; places rise and are not reused.
    ordered: BTreeMap<u64, Cached>,
    places: BTreeMap<PartitionName, u64>,
    next_place: u64,
}

impl Session {
    /// A session of the partitions that a full request read.
    pub(super) fn new(
        by_id: bool,
        privileged: bool,
        now_ms: i64,
        (asked, data): (&[(PartitionName, FetchPartition)], &[PartitionData]),
    ) -> Session {
        let mut session = Session {
            by_id,
            privileged,
            created_ms: now_ms,
            used_ms: now_ms,
            enlisted_len: 0,
            epoch: next_epoch(INITIAL_EPOCH),
            ordered: BTreeMap::new(),
            places: BTreeMap::new(),
            next_place: 0,
        };
        session.update(asked, std::iter::empty());
        for ((name, _), data) in asked.iter().zip(data) {
            session.note(name, data);
        }
        session
    }

    pub(super) fn len(&self) -> usize {
        self.ordered.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ordered.is_empty()
    }

    /// All partitions in the order of reading.
    pub(super) fn partitions(&self) -> Vec<(PartitionName, FetchPartition)> {
        self.ordered.values().map(|cached| (cached.name.clone(), cached.asked.clone())).collect()
    }

    /// Takes in what a request adds or changes, then what it drops.
    pub(super) fn update(
        &mut self,
        asked: &[(PartitionName, FetchPartition)],
        forgotten: impl Iterator<Item = PartitionName>,
    ) {
        for (name, partition) in asked {
            match self.places.get(name) {
                Some(place) => {
                    self.ordered.get_mut(place).expect("each place is filled").asked = partition.clone();
                }
                None => self.push(Cached {
                    name: name.detached(),
                    asked: partition.clone(),
                    high_watermark: NOT_TOLD,
                    log_start_offset: NOT_TOLD,
                }),
            }
        }
        for name in forgotten {
            if let Some(place) = self.places.remove(&name) {
                self.ordered.remove(&place);
            }
        }
    }

    fn push(&mut self, cached: Cached) {
        self.places.insert(cached.name.clone(), self.next_place);
        self.ordered.insert(self.next_place, cached);
        self.next_place += 1;
    }

    /// Notes what the client is about to hear of a partition.
    fn note(&mut self, name: &PartitionName, data: &PartitionData) {
        let Some(place) = self.places.get(name) else { return };
        let cached = self.ordered.get_mut(place).expect("each place is filled");
        cached.log_start_offset = data.log_start_offset;
        // After an error the partition is told again once it is well.
        let failed = data.error_code != ErrorCode::None.code();
        cached.high_watermark = if failed { NOT_TOLD } else { data.high_watermark };
    }

    /// Whether the client is to hear of a partition, which is noted. One that gave records goes to the end of the order,
    /// so that partitions with much to read do not keep the others waiting.
    pub(super) fn tell(&mut self, name: &PartitionName, data: &PartitionData) -> bool {
        // Dropped by the client while it was read.
        let Some(place) = self.places.get(name).copied() else { return true };
        let cached = &self.ordered[&place];
        let records = data.records.as_ref().is_some_and(|records| !records.is_empty());
        let news = records
            || data.error_code != ErrorCode::None.code()
            || cached.high_watermark != data.high_watermark
            || cached.log_start_offset != data.log_start_offset
            || data.preferred_read_replica >= 0
            || data.diverging_epoch.epoch >= 0;
        self.note(name, data);
        if records {
            let cached = self.ordered.remove(&place).expect("each place is filled");
            self.push(cached);
        }
        news
    }
}
