//! Consuming load: readers that fetch and skim. Records are never copied nor decoded, only batch headers are read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_format::BatchHeader;
use penstock_protocol::ErrorCode;
use penstock_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use penstock_protocol::messages::fetch_response::PartitionData;
use penstock_protocol::messages::{FetchRequest, FetchResponse};

use crate::client::{ClientError, Cluster, Connection, OffsetSpec, Session, Topic, by_leader, check, retry};
use crate::meter::{Meter, Timeline};
use crate::produce::{RunError, SETUP_TIME, TOPIC_PATIENCE, error_kind};
use crate::report::Totals;
use crate::workers::{Kind, Run, block_on, run_lanes};

/// Between two attempts after a failure.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);

/// A load to consume.
#[derive(Debug, Clone)]
pub struct ConsumeSpec {
    /// Where.
    pub cluster: Cluster,
    /// The topic's name.
    pub topic: String,
    /// Only these partitions.
    pub partitions: Option<Vec<i32>>,
    /// Independent readers, each reading every partition.
    pub readers: usize,
    /// Connections of each reader to each broker; the partitions are spread over them.
    pub connections: usize,
    /// Where to begin.
    pub from: OffsetSpec,
    /// At the end of a partition, begin anew where the reader began.
    pub cycle: bool,
    /// Bounds of a fetch.
    pub fetch: FetchBounds,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub duration: Duration,
    /// Worker threads.
    pub threads: usize,
    /// A line each second.
    pub progress: bool,
}

/// What a fetch asks for.
#[derive(Debug, Clone, Copy)]
pub struct FetchBounds {
    /// Bytes of a whole answer.
    pub max_bytes: i32,
    /// Bytes of a partition in an answer.
    pub partition_max_bytes: i32,
    /// The broker waits for as many bytes.
    pub min_bytes: i32,
    /// At most as long.
    pub max_wait_ms: i32,
}

impl Default for FetchBounds {
    /// As Kafka's own consumer.
    fn default() -> Self {
        FetchBounds { max_bytes: 50 << 20, partition_max_bytes: 1 << 20, min_bytes: 1, max_wait_ms: 500 }
    }
}

/// Where a reader stands in a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    next: i64,
    begin: i64,
}

/// One connection's work.
#[derive(Debug, Clone)]
pub(crate) struct ReadLane {
    places: BTreeMap<i32, Place>,
}

/// What all readers share.
pub(crate) struct ReadContext {
    pub(crate) spec: ConsumeSpec,
    pub(crate) timeline: Timeline,
    /// Which of the run's meters the readers count in.
    pub(crate) kind: usize,
    /// Stamps count from here.
    pub(crate) stamp_epoch: Option<Instant>,
}

/// Runs the load.
pub fn run(spec: ConsumeSpec) -> Result<Totals, RunError> {
    let (_, lanes) = block_on(async {
        let topic = spec.cluster.topic_ready(&spec.topic, TOPIC_PATIENCE).await?;
        let lanes = plan(&spec, &topic).await?;
        Ok::<_, ClientError>((topic, lanes))
    })??;
    let timeline =
        Timeline { start: Instant::now() + SETUP_TIME, warm_up: spec.warm_up, duration: spec.duration };
    let (threads, progress) = (spec.threads, spec.progress);
    let kinds =
        [Kind { name: "consume", latency_of: "fetch to answer, the broker's waiting for data included" }];
    let context = Arc::new(ReadContext { spec, timeline, kind: 0, stamp_epoch: None });
    let work = move |lane, meters| read_lane(Arc::clone(&context), lane, meters);
    let totals = run_lanes(&Run { threads, timeline, kinds: &kinds, progress }, lanes, work)?;
    totals.into_iter().next().ok_or_else(|| RunError::Options("nothing was measured".to_owned()))
}

/// Divides the partitions over lanes and looks up where they begin.
pub(crate) async fn plan(spec: &ConsumeSpec, topic: &Topic) -> Result<Vec<ReadLane>, ClientError> {
    let partitions = topic.select(spec.partitions.as_deref())?;
    // A topic that was just made is led by name before it is in fact.
    let begins = retry(TOPIC_PATIENCE, || spec.cluster.offsets(topic, &partitions, spec.from)).await?;
    let connections = spec.connections.clamp(1, partitions.len().max(1));
    let lane = |connection: usize| {
        let own = begins.iter().skip(connection).step_by(connections);
        ReadLane {
            places: own.map(|(index, begin)| (*index, Place { next: *begin, begin: *begin })).collect(),
        }
    };
    Ok((0..spec.readers).flat_map(|_| (0..connections).map(lane)).collect())
}

/// Reads until the run's end, beginning anew after failures.
pub(crate) async fn read_lane(context: Arc<ReadContext>, lane: ReadLane, meters: Rc<[Meter]>) -> u64 {
    let partitions: Vec<i32> = lane.places.keys().copied().collect();
    let places = Rc::new(RefCell::new(lane.places));
    loop {
        let result = by_leader(&context.spec.cluster, &context.spec.topic, &partitions, |session| {
            let taken: BTreeMap<i32, Place> = places
                .borrow()
                .iter()
                .filter(|(index, _)| session.partitions.contains(index))
                .map(|(i, p)| (*i, *p))
                .collect();
            let reader = Reader {
                context: Arc::clone(&context),
                meters: Rc::clone(&meters),
                places: taken,
                home: Rc::clone(&places),
                turn: 0,
            };
            reader.run(session)
        })
        .await;
        if let Err(error) = result {
            meters[context.kind].error(&error_kind(&error));
        }
        if Instant::now() >= context.timeline.end() {
            return 0;
        }
        tokio::time::sleep(RETRY_BACKOFF).await;
    }
}

/// One connection's reading of the partitions that one broker leads.
struct Reader {
    context: Arc<ReadContext>,
    meters: Rc<[Meter]>,
    places: BTreeMap<i32, Place>,
    /// Where the places go when the session ends.
    home: Rc<RefCell<BTreeMap<i32, Place>>>,
    /// Fetches begin with another partition each time, so that none is starved by the bound of the answer.
    turn: usize,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.home.borrow_mut().extend(self.places.iter().map(|(index, place)| (*index, *place)));
    }
}

impl Reader {
    async fn run(mut self, session: Session) -> Result<(), ClientError> {
        let mut connection: Connection = self.context.spec.cluster.connect(&session.address).await?;
        tokio::time::sleep_until(self.context.timeline.start.into()).await;
        loop {
            let sent = Instant::now();
            if sent >= self.context.timeline.end() {
                return Ok(());
            }
            let request = self.request(&session.topic);
            let end = tokio::time::sleep_until(self.context.timeline.end().into());
            let response = tokio::select! {
                biased;
                response = connection.call(&request) => response?,
                () = end => return Ok(()),
            };
            self.take(&response, sent)?;
            drop(response);
            // A broker that always has an answer ready must not starve the other lanes of this thread.
            tokio::task::consume_budget().await;
        }
    }

    fn request(&mut self, topic: &Topic) -> FetchRequest {
        let bounds = self.context.spec.fetch;
        let ask = |(index, place): (&i32, &Place)| FetchPartition {
            partition: *index,
            fetch_offset: place.next,
            log_start_offset: -1,
            partition_max_bytes: bounds.partition_max_bytes,
            ..FetchPartition::default()
        };
        let mut partitions: Vec<_> = self.places.iter().map(ask).collect();
        let count = partitions.len().max(1);
        partitions.rotate_left(self.turn % count);
        self.turn = (self.turn + 1) % count;
        FetchRequest {
            max_wait_ms: bounds.max_wait_ms,
            min_bytes: bounds.min_bytes,
            max_bytes: bounds.max_bytes,
            topics: vec![FetchTopic { topic: topic.name.clone(), topic_id: topic.id, partitions }],
            ..FetchRequest::default()
        }
    }

    fn take(&mut self, response: &FetchResponse, sent: Instant) -> Result<(), ClientError> {
        check(response.error_code, || "fetching".to_owned())?;
        let now = Instant::now();
        let (mut records, mut bytes) = (0, 0);
        for data in response.responses.iter().flat_map(|topic| &topic.partitions) {
            let (taken_records, taken_bytes) = self.take_partition(data, now)?;
            records += taken_records;
            bytes += taken_bytes;
        }
        let meter = &self.meters[self.context.kind];
        match self.context.stamp_epoch {
            Some(_) => meter.count(1, records, bytes),
            None => meter.request_done(records, bytes, now - sent),
        }
        Ok(())
    }

    fn take_partition(&mut self, data: &PartitionData, now: Instant) -> Result<(u64, u64), ClientError> {
        let Some(place) = self.places.get_mut(&data.partition_index) else {
            return Err(ClientError::Protocol(format!(
                "partition {} was not asked for",
                data.partition_index
            )));
        };
        if data.error_code == ErrorCode::OffsetOutOfRange as i16 {
            self.meters[self.context.kind].error(ErrorCode::OffsetOutOfRange.name());
            place.next = data.log_start_offset.max(0);
            place.begin = place.next;
            return Ok((0, 0));
        }
        check(data.error_code, || format!("fetching partition {}", data.partition_index))?;
        let (mut records, mut bytes) = (0, 0);
        for slice in data.records.iter().flat_map(|records| records.slices()) {
            let skimmed = skim(slice, &mut place.next, |batch| {
                if let Some(epoch) = self.context.stamp_epoch
                    && let Some(stamp) = crate::produce::stamp_of(batch)
                {
                    self.meters[self.context.kind].latency(now.saturating_duration_since(epoch + stamp));
                }
            })?;
            records += skimmed;
            bytes += slice.len() as u64;
        }
        // An empty partition has nothing to begin anew with: its fetches wait.
        if self.context.spec.cycle && place.next >= data.high_watermark && data.high_watermark > place.begin {
            place.next = place.begin;
        }
        Ok((records, bytes))
    }
}

/// Walks the batches of a fetched slice, of which the last may be cut off: counts records from `next` on, and moves it.
fn skim(slice: &[u8], next: &mut i64, mut on_batch: impl FnMut(&[u8])) -> Result<u64, ClientError> {
    let (mut rest, mut records) = (slice, 0);
    while rest.len() >= penstock_format::BATCH_HEADER_LEN {
        let header = BatchHeader::parse(rest)
            .map_err(|error| ClientError::Protocol(format!("a fetched batch cannot be read: {error}")))?;
        if header.total_len() > rest.len() {
            break;
        }
        if header.next_offset() > *next {
            // A fetch may begin in the middle of a batch: its earlier records were not asked for.
            let before = (*next - header.base_offset).max(0) as u64;
            records += (header.record_count.max(0) as u64).saturating_sub(before);
            on_batch(rest);
            *next = header.next_offset();
        }
        rest = &rest[header.total_len()..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_format::{BatchBuilder, NewRecord};

    fn batch(base_offset: i64, records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new().base_offset(base_offset);
        for _ in 0..records {
            builder.append(&NewRecord { value: Some(b"value"), ..NewRecord::default() }).unwrap();
        }
        builder.finish().unwrap().to_bytes().to_vec()
    }

    #[test]
    fn skimming_counts_from_the_asked_offset_and_stops_at_a_cut_batch() {
        let mut bytes = batch(10, 5);
        bytes.extend(batch(15, 3));
        let cut = batch(18, 4);
        bytes.extend(&cut[..cut.len() - 1]);
        let (mut next, mut batches) = (12, 0);
        assert_eq!(skim(&bytes, &mut next, |_| batches += 1).unwrap(), 6);
        assert_eq!((next, batches), (18, 2));
        // The same bytes again are not counted again.
        assert_eq!(skim(&bytes, &mut next, |_| batches += 1).unwrap(), 0);
        assert_eq!((next, batches), (18, 2));
    }

    #[test]
    fn what_is_not_a_batch_is_an_error() {
        let mut next = 0;
        assert!(skim(&[0; 100], &mut next, |_| ()).is_err());
    }
}
