//! Reads partitions from their leaders.

use std::collections::BTreeMap;

use bytes::Bytes;
use penstock_format::{Batch, BatchError, Records};
use penstock_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use penstock_protocol::messages::fetch_response::PartitionData;
use penstock_protocol::messages::{FetchRequest, FetchResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::print::Printer;
use crate::client::{Cluster, OffsetAt, Topic, check};
use crate::command::Failure;

/// How long a broker may wait for records, in milliseconds; among several leaders, all together.
const WAIT_MS: i32 = 500;
const FETCH_BYTES_MAX: i32 = 16 << 20;
const PARTITION_BYTES_MAX: i32 = 1 << 20;
/// Bound on the records of one batch, unpacked.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// How far a partition was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    pub(super) partition: i32,
    /// Offset of the next record to print.
    pub(super) next: i64,
    /// Where to end.
    pub(super) end: Option<i64>,
}

impl Position {
    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

/// The partitions of a topic that are read, and how far they were.
pub(super) struct Reader {
    pub(super) topic: Topic,
    pub(super) positions: Vec<Position>,
}

impl Reader {
    /// Nothing is left to read.
    pub(super) fn is_at_end(&self) -> bool {
        self.positions.iter().all(Position::is_at_end)
    }

    /// The offsets to go on from, by partition.
    pub(super) fn offsets(&self) -> BTreeMap<i32, i64> {
        self.positions.iter().map(|position| (position.partition, position.next)).collect()
    }

    /// One fetch from each leader; prints what came.
    pub(super) fn round(&mut self, cluster: &mut Cluster, printer: &mut Printer<'_>) -> Result<(), Failure> {
        let open: Vec<i32> = self.positions.iter().filter(|p| !p.is_at_end()).map(|p| p.partition).collect();
        let leaders = self.topic.by_leader(&open)?;
        let wait_ms = WAIT_MS / i32::try_from(leaders.len()).unwrap_or(WAIT_MS).max(1);
        for (address, partitions) in leaders {
            let response = cluster.call_at(&address, &self.request(&partitions, wait_ms))?;
            check(response.error_code, None, || format!("fetching from {address}"))?;
            for data in partitions_of(&response) {
                let position = self.positions.iter_mut().find(|p| p.partition == data.partition_index);
                let Some(position) = position else { continue };
                if data.error_code == ErrorCode::OffsetOutOfRange.code() {
                    return Err(out_of_range(cluster, &self.topic, position));
                }
                take(&self.topic, data, position, printer)?;
                if printer.is_done() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn request(&self, partitions: &[i32], max_wait_ms: i32) -> FetchRequest {
        let partition = |position: &Position| FetchPartition {
            partition: position.partition,
            fetch_offset: position.next,
            partition_max_bytes: PARTITION_BYTES_MAX,
            ..FetchPartition::default()
        };
        let asked = self.positions.iter().filter(|position| partitions.contains(&position.partition));
        let topics = vec![FetchTopic {
            topic: WireString::from(self.topic.name.as_str()),
            topic_id: self.topic.id,
            partitions: asked.map(partition).collect(),
        }];
        FetchRequest {
            max_wait_ms,
            min_bytes: 1,
            max_bytes: FETCH_BYTES_MAX,
            topics,
            ..FetchRequest::default()
        }
    }
}

/// Says which offsets there are instead.
fn out_of_range(cluster: &mut Cluster, topic: &Topic, position: &Position) -> Failure {
    let partition = position.partition;
    let mut ask = |at| cluster.offsets(&topic.name, &[partition], at).ok()?.get(&partition).copied();
    let there = match (ask(OffsetAt::Earliest), ask(OffsetAt::Latest)) {
        (Some(first), Some(end)) if first < end => format!("there are offsets {first} to {}", end - 1),
        (Some(_), Some(end)) => format!("it is empty, and its next offset is {end}"),
        _ => "the leader has another range of offsets".to_owned(),
    };
    Failure::Failed(format!(
        "partition {partition} of topic {} has no offset {}: {there}; begin elsewhere with --from, or of a group with \
         `penstock group reset-offsets`",
        topic.name, position.next
    ))
}

fn partitions_of(response: &FetchResponse) -> impl Iterator<Item = &PartitionData> {
    response.responses.iter().flat_map(|topic| &topic.partitions)
}

/// Prints what came of one partition, and moves its position.
fn take(
    topic: &Topic,
    data: &PartitionData,
    position: &mut Position,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let partition = position.partition;
    let place = || format!("partition {partition} of topic {}", topic.name);
    check(data.error_code, None, || format!("reading {}", place()))?;
    let mut rest = data.records.as_ref().map(|records| records.to_bytes()).unwrap_or_default();
    let before = position.next;
    let arrived = rest.len();
    while let Some((batch, len)) = next_batch(&rest).map_err(|why| damaged(&place(), position.next, &why))? {
        rest = rest.slice(len..);
        if batch.header.is_control() {
            position.next = position.next.max(batch.header.next_offset());
            continue;
        }
        print_batch(topic, &batch, position, printer)?;
        if printer.is_done() || position.is_at_end() {
            return Ok(());
        }
    }
    if position.next == before && arrived > 0 {
        return Err(damaged(&place(), position.next, &format!("{arrived} bytes hold no whole batch")));
    }
    Ok(())
}

/// The batch in front, whole and right; none if the rest is a beginning that the broker cut off.
fn next_batch(bytes: &Bytes) -> Result<Option<(Batch, usize)>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match Batch::parse(bytes) {
        Ok((batch, _)) if !batch.crc_ok() => Err("a batch does not match its crc".to_owned()),
        Ok(found) => Ok(Some(found)),
        Err(BatchError::Truncated { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn print_batch(
    topic: &Topic,
    batch: &Batch,
    position: &mut Position,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let place = format!("partition {} of topic {}", position.partition, topic.name);
    let fail = |error: &dyn std::fmt::Display| damaged(&place, batch.header.base_offset, &error.to_string());
    let records = Records::open(batch, BATCH_BYTES_MAX).map_err(|error| fail(&error))?;
    for record in &records {
        let record = record.map_err(|error| fail(&error))?;
        // The first batch may begin before what was asked for.
        if record.offset < position.next {
            continue;
        }
        if printer.is_done() {
            return Ok(());
        }
        if let Some(end) = position.end.filter(|end| record.offset >= *end) {
            // Compaction may have left nothing between.
            position.next = position.next.max(end);
            return Ok(());
        }
        printer.print(&topic.name, position.partition, &record)?;
        position.next = record.offset + 1;
    }
    // Offsets that compaction emptied at the batch's end.
    position.next = position.next.max(batch.header.next_offset());
    Ok(())
}

fn damaged(place: &str, offset: i64, why: &str) -> Failure {
    Failure::Failed(format!(
        "what came of {place} from offset {offset} on cannot be read: {why}; try another replica, or read on with \
         --from offset:{}",
        offset.saturating_add(1)
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use penstock_format::{BatchBuilder, NewRecord};

    use super::*;

    #[test]
    fn a_batch_cut_short_waits_and_a_damaged_one_is_refused() {
        let mut batch = BatchBuilder::new();
        batch.append(&NewRecord { value: Some(b"value"), ..NewRecord::default() }).unwrap();
        let whole = batch.finish().unwrap().to_bytes();
        assert_eq!(next_batch(&whole).unwrap().unwrap().1, whole.len());
        assert_eq!(next_batch(&whole.slice(..whole.len() - 1)), Ok(None));
        let mut bad = whole.to_vec();
        bad[whole.len() - 1] ^= 1;
        assert!(next_batch(&Bytes::from(bad)).is_err());
    }
}
