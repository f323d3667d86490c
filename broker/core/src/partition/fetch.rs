//! A fetch over the shards that own its partitions: what each reads next, how much, and when there is enough (KIP-74).
//!
//! A machine without I/O. Its driver asks for [`FetchPlan::next_reads`], carries them out side by side, and hands the
//! outcomes to [`FetchPlan::take`], until no read is left. If [`FetchPlan::is_complete`] says no, it waits until a
//! shard's partitions change, says so with [`FetchPlan::wake`], and goes on. What was found stays found.
//!
//! A partition that is refused before it is read (an unknown topic) does not end the wait for the others, as in Apache
//! Kafka: a consumer whose topic was deleted would ask again and again without a pause until it hears of that. A failure
//! that a read meets does.
//!
//! Limits: all records together stay within the fetch's bytes and each partition's within its own, but for one batch:
//! the first found comes whole, however large, because what cannot be read would stop its reader for ever. Shards are
//! read side by side if all that their partitions may give fits, else one after the other in the order in which the
//! request names them first, so that none reads what there is no room for and a client that rotates its partitions
//! gets on with all of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use penstock_protocol::ErrorCode;
use penstock_protocol::messages::FetchRequest;

use super::{EpochEnd, PartitionFailure, PartitionRead};

/// Bytes that a fetch may give however many answers wait to be sent, so that every consumer gets on.
pub const BYTES_MAX_LEAST: usize = 64 << 10;

/// Limits of a whole fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Bytes of all partitions together.
    pub bytes_max: usize,
    /// Bytes that are worth an answer at once.
    pub bytes_min: usize,
    /// Milliseconds to wait for those.
    pub wait_ms: u64,
}

impl FetchLimits {
    /// What a request asks for, within what the broker gives at once. Negative numbers are 0.
    pub fn new(request: &FetchRequest, broker_bytes_max: usize) -> FetchLimits {
        let or_zero = |number: i32| usize::try_from(number).unwrap_or(0);
        let bytes_max = or_zero(request.max_bytes).min(broker_bytes_max);
        FetchLimits {
            bytes_max,
            bytes_min: or_zero(request.min_bytes).min(bytes_max),
            wait_ms: u64::try_from(request.max_wait_ms).unwrap_or(0),
        }
    }
}

/// What a partition gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionData {
    /// Exclusive end of committed records, -1 while unknown.
    pub high_watermark: i64,
    /// Exclusive end of settled records, -1 while unknown.
    pub last_stable_offset: i64,
    /// First readable offset, -1 while unknown.
    pub log_start_offset: i64,
    /// Whole batches in order.
    pub slices: Vec<Bytes>,
    /// Sum of their lengths.
    pub bytes: usize,
    /// Offset after the last record given.
    pub next_offset: i64,
    /// The client's log parted from the leader's here.
    pub diverging: Option<EpochEnd>,
}

impl PartitionData {
    /// Nothing, before anything was read from `offset` on.
    pub fn nothing(offset: i64) -> PartitionData {
        PartitionData {
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            slices: Vec::new(),
            bytes: 0,
            next_offset: offset,
            diverging: None,
        }
    }
}

/// What becomes of a partition of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartOutcome {
    /// It was read.
    Data(PartitionData),
    /// Its leader refused or could not.
    Failed(PartitionFailure),
    /// It was not looked for.
    Refused(ErrorCode),
}

/// Reads of one shard, to be made in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardReads {
    /// Which of [`FetchPlan::shards`] it is.
    pub group: usize,
    /// The partitions' places in the request, with what to read.
    pub reads: Vec<(usize, PartitionRead)>,
    /// Bytes of all of them together.
    pub bytes_max: usize,
    /// Whether the first partition that has data gives a whole batch even beyond its limit.
    pub at_least_one: bool,
    /// Whether a later change of these partitions matters.
    pub watch: bool,
}

/// A fetch under way.
#[derive(Debug)]
pub struct FetchPlan {
    limits: FetchLimits,
    parts: Vec<Part>,
    groups: Vec<Group>,
    /// Groups to read, by their rank.
    due: BTreeSet<usize>,
    /// Bytes found so far.
    bytes: usize,
    /// Bytes that may be found in all, as far as there is memory for them; at most `limits.bytes_max`.
    room: usize,
    /// There is something the client is to hear at once: an error, a log that parted from its own, or more data than
    /// could be taken, for which it had better come again than wait.
    urgent: bool,
}

#[derive(Debug)]
enum Part {
    Reading { read: PartitionRead, data: PartitionData },
    Ended(PartOutcome),
}

/// The partitions of one shard.
#[derive(Debug)]
struct Group {
    shard: usize,
    places: Vec<usize>,
}

impl FetchPlan {
    /// A fetch of these partitions in the order of the request: the shard that owns each and what to read there, or why
    /// it is not read.
    pub fn new(limits: FetchLimits, asked: Vec<Result<(usize, PartitionRead), ErrorCode>>) -> FetchPlan {
        let mut ranks: BTreeMap<usize, usize> = BTreeMap::new();
        let mut groups: Vec<Group> = Vec::new();
        for (place, asked) in asked.iter().enumerate() {
            if let Ok((shard, _)) = asked {
                let rank = *ranks.entry(*shard).or_insert(groups.len());
                match groups.get_mut(rank) {
                    Some(group) => group.places.push(place),
                    None => groups.push(Group { shard: *shard, places: vec![place] }),
                }
            }
        }
        let parts = asked.into_iter().map(|asked| match asked {
            Ok((_, read)) => Part::Reading { read, data: PartitionData::nothing(read.offset) },
            Err(error) => Part::Ended(PartOutcome::Refused(error)),
        });
        let (parts, due) = (parts.collect(), (0..groups.len()).collect());
        FetchPlan { limits, parts, groups, due, bytes: 0, room: limits.bytes_max, urgent: false }
    }

    /// The shards that own partitions of this fetch.
    pub fn shards(&self) -> impl Iterator<Item = usize> {
        self.groups.iter().map(|group| group.shard)
    }

    /// Bytes found so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes the next reads fit the `free` bytes of memory, and gives the bytes that they may take. However little is
    /// free, it is [`BYTES_MAX_LEAST`] where the fetch wants as much.
    pub fn make_room(&mut self, free: usize) -> usize {
        let more = self.limits.bytes_max.saturating_sub(self.bytes).min(free.max(BYTES_MAX_LEAST));
        self.room = self.bytes + more;
        more
    }

    /// Partitions of this group changed.
    pub fn wake(&mut self, group: usize) {
        assert!(group < self.groups.len(), "there are {} groups", self.groups.len());
        self.due.insert(group);
    }

    /// The reads to make now, side by side; empty when all was read that is due. The outcomes go to
    /// [`FetchPlan::take`] in the same order.
    pub fn next_reads(&mut self) -> Vec<ShardReads> {
        let left = self.room.saturating_sub(self.bytes);
        let wanted = self.due.iter().map(|group| self.wanted(*group)).fold(0, usize::saturating_add);
        let now = if wanted <= left {
            std::mem::take(&mut self.due)
        } else {
            self.due.pop_first().into_iter().collect()
        };
        now.into_iter().map(|group| self.reads_of(group, left)).collect()
    }

    /// Bytes that a group may still give.
    fn wanted(&self, group: usize) -> usize {
        let reads = self.groups[group].places.iter().filter_map(|place| self.read_of(*place));
        reads.map(|read| read.bytes_max).fold(0, usize::saturating_add)
    }

    fn read_of(&self, place: usize) -> Option<PartitionRead> {
        match &self.parts[place] {
            Part::Reading { read, .. } => Some(*read),
            Part::Ended(_) => None,
        }
    }

    fn reads_of(&self, group: usize, bytes_max: usize) -> ShardReads {
        let places = self.groups[group].places.iter();
        ShardReads {
            group,
            reads: places.filter_map(|place| Some((*place, self.read_of(*place)?))).collect(),
            bytes_max,
            at_least_one: self.bytes == 0,
            watch: self.bytes < self.limits.bytes_min,
        }
    }

    /// Takes what a shard's reads gave.
    ///
    /// # Panics
    /// If there is not exactly one outcome for each read.
    pub fn take(&mut self, reads: &ShardReads, outcomes: Vec<Result<PartitionData, PartitionFailure>>) {
        assert_eq!(reads.reads.len(), outcomes.len(), "each read has an outcome");
        for ((place, _), outcome) in reads.reads.iter().zip(outcomes) {
            self.take_one(*place, outcome);
        }
    }

    fn take_one(&mut self, place: usize, outcome: Result<PartitionData, PartitionFailure>) {
        let Part::Reading { read, data } = &mut self.parts[place] else { return };
        match outcome {
            Ok(new) => {
                data.high_watermark = new.high_watermark;
                data.last_stable_offset = new.last_stable_offset;
                data.log_start_offset = new.log_start_offset;
                data.diverging = new.diverging;
                self.urgent |= new.diverging.is_some();
                // Shards that were read side by side may each have given a batch beyond the limits: the first passes.
                let left = self.room.saturating_sub(self.bytes);
                // A read may end before the log does: at a limit, a segment's end, or where memory begins.
                self.urgent |= new.bytes > 0 && new.next_offset < new.last_stable_offset;
                if new.bytes > 0 && (self.bytes == 0 || new.bytes <= read.bytes_max.min(left)) {
                    data.slices.extend(new.slices);
                    data.bytes += new.bytes;
                    data.next_offset = new.next_offset;
                    self.bytes += new.bytes;
                    read.offset = new.next_offset;
                    read.bytes_max = read.bytes_max.saturating_sub(new.bytes);
                    // The rest of the log follows what was read: no further check against the client's last epoch.
                    read.last_fetched_epoch = None;
                }
            }
            // What was found before it failed is still worth an answer; the next fetch meets the failure.
            Err(_) if data.bytes > 0 => read.bytes_max = 0,
            Err(failure) => {
                self.parts[place] = Part::Ended(PartOutcome::Failed(failure));
                self.urgent = true;
            }
        }
    }

    /// Whether to answer with what was found: it is enough, the client is to hear of something at once, there is nothing
    /// to wait for, or there is no time left.
    pub fn is_complete(&self, time_is_up: bool) -> bool {
        time_is_up
            || self.urgent
            || self.groups.is_empty()
            || self.bytes >= self.limits.bytes_min.min(self.room)
    }

    /// What became of each partition, in the order of the request.
    pub fn finish(self) -> impl Iterator<Item = PartOutcome> {
        self.parts.into_iter().map(|part| match part {
            Part::Reading { data, .. } => PartOutcome::Data(data),
            Part::Ended(outcome) => outcome,
        })
    }
}

#[cfg(test)]
mod tests;
