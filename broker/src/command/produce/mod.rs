//! `penstock produce`: the lines of stdin as records.
//!
//! Lines go out as soon as no further one is waiting, or a batch is full, one request at a time and each partition in
//! order. A request that a broker refused for the moment is sent again, for at most [`RETRY_PATIENCE`]; as the producer is
//! not idempotent, a record may then be there twice.

mod input;

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use penstock_format::{BatchBuilder, Compression, NewRecord};
use penstock_protocol::messages::ProduceRequest;
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::messages::produce_response::PartitionProduceResponse;
use penstock_protocol::partitioner::partition_of;
use penstock_protocol::{Records, WireString};
use serde_json::json;

use super::output::{Output, counted};
use super::{Failure, Remote, assignment, time};
use crate::client::{ClientError, Cluster, OPERATION_TIMEOUT_MS, RETRY_PATIENCE, Topic, check};
use input::{Input, Line, read_lines};

/// Bytes of records collected before they are sent; below the default of Kafka's `max.message.bytes`.
const ROUND_BYTES_MAX: usize = 512 << 10;
/// What the format adds to a record without headers, at most (KIP-98): its lengths, offset, timestamp and attributes.
const RECORD_BYTES_MAX: usize = 36;
/// What the format adds to each header, at most: two lengths.
const HEADER_BYTES_MAX: usize = 10;
/// How long a line waits for company.
const LINGER: Duration = Duration::from_millis(5);

/// What `produce` takes.
#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    /// The topic; it must exist.
    topic: String,
    /// The partition [default: by the key's hash as Kafka's Java client does, without a key one after the other].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// What stands between key and value of each line [default: lines are values].
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header of every record, before those that its line has; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    header: Vec<(String, String)>,
    /// What a line of stdin is.
    #[arg(long, value_enum, default_value = "text")]
    input: Input,
    /// Who has to have a record before it counts.
    #[arg(long, value_enum, default_value = "all")]
    acks: Acks,
    /// Codec of the batches.
    #[arg(long, value_enum, default_value = "none")]
    compression: Codec,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Acks {
    /// Nobody is asked.
    #[value(name = "0")]
    None,
    /// The leader.
    #[value(name = "1")]
    Leader,
    /// All in-sync replicas.
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// What was acknowledged of a partition.
#[derive(Debug, Clone, Copy)]
struct Written {
    records: u64,
    /// First and last offset; none with acks 0.
    offsets: Option<(i64, i64)>,
}

struct Producer<'a> {
    args: &'a ProduceArgs,
    cluster: Cluster,
    topic: Topic,
    /// Where lines without a key go now.
    sticky: usize,
    round: BTreeMap<i32, BatchBuilder>,
    round_bytes: usize,
    lines: u64,
    written: BTreeMap<i32, Written>,
}

pub(crate) fn run(args: &ProduceArgs) -> Result<(), Failure> {
    if args.key_separator.as_deref() == Some("") {
        return Err(Failure::Usage("--key-separator must not be empty".to_owned()));
    }
    let mut cluster = args.remote.cluster()?;
    let topic = cluster.topic(&args.topic)?;
    if let Some(partition) = args.partition {
        topic.select(&[partition])?;
    }
    // Runs of one line each spread over the partitions too.
    let sticky = usize::try_from(time::now_ms()).unwrap_or(0);
    let mut producer = Producer {
        args,
        cluster,
        topic,
        sticky,
        round: BTreeMap::new(),
        round_bytes: 0,
        lines: 0,
        written: BTreeMap::new(),
    };
    let produced = producer.produce(&read_lines());
    let reported = producer.report(produced.is_ok());
    // What was not produced counts more than that nobody reads about it.
    produced.and(reported)
}

impl Producer<'_> {
    fn produce(&mut self, lines: &Receiver<io::Result<Vec<u8>>>) -> Result<(), Failure> {
        loop {
            let line = match self.round.is_empty() {
                true => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => lines.recv_timeout(LINGER),
            };
            match line {
                Ok(line) => {
                    let line =
                        line.map_err(|error| Failure::Failed(format!("cannot read stdin: {error}")))?;
                    self.take(line)?;
                    if self.round_bytes >= ROUND_BYTES_MAX {
                        self.send()?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.send()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return if self.round.is_empty() { Ok(()) } else { self.send() };
                }
            }
        }
    }

    /// Adds a line to the round.
    fn take(&mut self, line: Vec<u8>) -> Result<(), Failure> {
        self.lines += 1;
        let number = self.lines;
        let line = match self.args.input {
            Input::Text => Line::of_text(line, self.args.key_separator.as_deref()),
            Input::Json => Line::of_json(&line),
        };
        let line = line.map_err(|why| Failure::Failed(format!("line {number} {why}")))?;
        let partition = self.partition(line.key.as_deref());
        let of_all = self.args.header.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes())));
        let own = line.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        let headers: Vec<_> = of_all.chain(own).collect();
        // A batch that this line would make too large goes first.
        let of_all_bytes: usize = self.args.header.iter().map(|(name, value)| name.len() + value.len()).sum();
        let record_bytes = line.len() + of_all_bytes + RECORD_BYTES_MAX + HEADER_BYTES_MAX * headers.len();
        if self.round_bytes > 0 && self.round_bytes + record_bytes > ROUND_BYTES_MAX {
            self.send()?;
        }
        let compression = self.args.compression.of_format();
        let batch =
            self.round.entry(partition).or_insert_with(|| BatchBuilder::new().compression(compression, None));
        let record = NewRecord {
            timestamp: line.timestamp.unwrap_or_else(time::now_ms),
            key: line.key.as_deref(),
            value: line.value.as_deref(),
            headers: &headers,
        };
        batch
            .append(&record)
            .map_err(|error| Failure::Failed(format!("line {number} is no record: {error}")))?;
        self.round_bytes += record_bytes;
        Ok(())
    }

    fn partition(&self, key: Option<&[u8]>) -> i32 {
        let partitions = &self.topic.partitions;
        match (self.args.partition, key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, i32::try_from(partitions.len()).unwrap_or(i32::MAX)),
            (None, None) => {
                // Only partitions that have a leader, as Kafka's clients do.
                let led: Vec<_> = partitions.iter().filter(|p| p.leader_address.is_some()).collect();
                let choice = if led.is_empty() { partitions.iter().collect() } else { led };
                choice.get(self.sticky % choice.len().max(1)).map_or(0, |partition| partition.index)
            }
        }
    }

    /// Sends the round, again where a broker could not take it yet, until all of it is acknowledged.
    fn send(&mut self) -> Result<(), Failure> {
        self.sticky = self.sticky.wrapping_add(1);
        self.round_bytes = 0;
        let mut left = BTreeMap::new();
        for (partition, batch) in std::mem::take(&mut self.round) {
            let records = batch.record_count();
            let batch = batch.finish().map_err(|error| Failure::Failed(error.to_string()))?;
            left.insert(partition, (Records::from(batch.to_slices().to_vec()), records));
        }
        let deadline = Instant::now() + RETRY_PATIENCE;
        loop {
            let error = match self.send_once(&mut left) {
                Ok(()) => return Ok(()),
                Err(Failure::Client(error)) if error.may_pass() && Instant::now() < deadline => error,
                Err(error) => return Err(error),
            };
            thread::sleep(Duration::from_millis(100));
            self.topic = self.cluster.topic(&self.topic.name).map_err(|_| error)?;
        }
    }

    /// One request to each leader. Takes what was acknowledged out of `left`; fails with the worst error of the rest.
    fn send_once(&mut self, left: &mut BTreeMap<i32, (Records, i32)>) -> Result<(), Failure> {
        let partitions: Vec<i32> = left.keys().copied().collect();
        let mut worst: Option<ClientError> = None;
        for (address, partitions) in self.topic.by_leader(&partitions)? {
            let request = self.request(&partitions, left);
            if self.args.acks == Acks::None {
                let version = self.cluster.version::<ProduceRequest>(&address)?;
                self.cluster.connection(&address)?.send(version, &request)?;
                for partition in partitions {
                    if let Some((_, records)) = left.remove(&partition) {
                        self.note(partition, records, None);
                    }
                }
                continue;
            }
            let response = self.cluster.call_at(&address, &request)?;
            for answer in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
                let Some(error) = self.judge(answer) else {
                    if let Some((_, records)) = left.remove(&answer.index) {
                        self.note(answer.index, records, Some(answer.base_offset));
                    }
                    continue;
                };
                if worst.as_ref().is_none_or(ClientError::may_pass) {
                    worst = Some(error);
                }
            }
        }
        match worst {
            Some(error) => Err(error.into()),
            None if left.is_empty() => Ok(()),
            None => Err(super::topic::nothing_said("Produce")),
        }
    }

    /// Why a batch was refused, if it was.
    fn judge(&self, answer: &PartitionProduceResponse) -> Option<ClientError> {
        let of_records =
            answer.record_errors.iter().find_map(|error| error.batch_index_error_message.as_deref());
        let message = of_records.or(answer.error_message.as_deref());
        let what = || format!("producing to partition {} of topic {}", answer.index, self.topic.name);
        check(answer.error_code, message, what).err()
    }

    fn request(&self, partitions: &[i32], left: &BTreeMap<i32, (Records, i32)>) -> ProduceRequest {
        let data = |partition: &i32| {
            let records = left.get(partition).map(|(records, _)| records.clone());
            PartitionProduceData { index: *partition, records }
        };
        let topic = TopicProduceData {
            name: WireString::from(self.topic.name.as_str()),
            topic_id: self.topic.id,
            partition_data: partitions.iter().map(data).collect(),
        };
        ProduceRequest {
            acks: match self.args.acks {
                Acks::None => 0,
                Acks::Leader => 1,
                Acks::All => -1,
            },
            timeout_ms: OPERATION_TIMEOUT_MS,
            topic_data: vec![topic],
            ..ProduceRequest::default()
        }
    }

    fn note(&mut self, partition: i32, records: i32, base_offset: Option<i64>) {
        let offsets = base_offset.map(|base| (base, base + i64::from(records) - 1));
        let written = self.written.entry(partition).or_insert(Written { records: 0, offsets });
        written.records += u64::try_from(records).unwrap_or(0);
        written.offsets = match (written.offsets, offsets) {
            (Some((first, _)), Some((_, last))) => Some((first, last)),
            (known, new) => known.or(new),
        };
    }

    /// Says what was written, also when not everything could be.
    fn report(&self, done: bool) -> Result<(), Failure> {
        let mut out: Output = self.args.remote.output();
        let records: u64 = self.written.values().map(|written| written.records).sum();
        if out.is_json() {
            let partition = |(partition, written): (&i32, &Written)| {
                json!({
                    "partition": partition, "records": written.records,
                    "first_offset": written.offsets.map(|(first, _)| first),
                    "last_offset": written.offsets.map(|(_, last)| last),
                })
            };
            let partitions: Vec<_> = self.written.iter().map(partition).collect();
            out.document(
                &json!({ "topic": self.topic.name, "records": records, "complete": done, "partitions": partitions }),
            )?;
        } else {
            out.line(format!("produced {} to topic {}", counted(records, "record"), self.topic.name))?;
        }
        Ok(out.finish()?)
    }
}

impl Codec {
    fn of_format(self) -> Compression {
        match self {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}
