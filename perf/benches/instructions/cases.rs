//! The hot paths of a produce and a fetch, piece by piece, as often as asked, always with the same input.
//!
//! Sockets and io_uring are not among them: valgrind does not know io_uring, and what the kernel does is no instruction of
//! ours. Storage runs on the simulated disk, whose own instructions count with it.

use std::hint::black_box;
use std::path::Path;

use bytes::Bytes;

use penstock_core::fetch_session::FetchSessions;
use penstock_core::partition::fetch::{FetchLimits, FetchPlan, PartitionData as Found};
use penstock_core::partition::{Isolation, LogView, PartitionRead, ReadPlan, plan_read};
use penstock_format::{Batch, BatchBuilder, NewRecord, ValidateRules, validate};
use penstock_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use penstock_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use penstock_protocol::messages::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};
use penstock_protocol::{ApiKey, Uuid, WireString, frame};
use penstock_storage::disk::sim::{SimDisk, SimWorld};
use penstock_storage::{AppendContext, Log, LogConfig, Origin, Store, StoreConfig};

/// A hot path.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// How often it is run; a tenth of that is what the start is told apart by.
    pub(crate) requests: u64,
    pub(crate) run: fn(u64),
}

const fn case(name: &'static str, requests: u64, run: fn(u64)) -> Case {
    Case { name, requests, run }
}

pub(crate) const ALL: &[Case] = &[
    case("decode_produce_1_partition", 2000, |requests| decode_produce(requests, 1)),
    case("decode_produce_16_partitions", 1000, |requests| decode_produce(requests, 16)),
    case("check_batch_of_1_record", 2000, |requests| check_batch(requests, 1)),
    case("check_batch_of_63_records", 500, |requests| check_batch(requests, 63)),
    case("append_and_commit_1_record", 500, |requests| append(requests, 1, 1)),
    case("append_and_commit_100_x_1_record", 50, |requests| append(requests, 100, 1)),
    case("append_and_commit_16_x_63_records", 50, |requests| append(requests, 16, 63)),
    case("encode_produce_response_16_partitions", 1000, encode_produce_response),
    case("decode_fetch_16_partitions", 1000, decode_fetch),
    case("plan_fetch_16_partitions", 1000, plan_fetch),
    case("fetch_session_16_partitions", 1000, fetch_session),
    case("read_1_mib_at_the_tail", 200, read_tail),
    case("encode_fetch_response_16_partitions", 1000, encode_fetch_response),
];

const NOW_MS: i64 = 1_700_000_000_000;
const RECORD_BYTES: usize = 1024;
const TOPIC: Uuid = Uuid([7; 16]);
const PRODUCE_VERSION: i16 = 13;
const FETCH_VERSION: i16 = 17;

/// Records of 1 KiB, all different.
fn batch(records: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    let mut state = 1u64;
    for index in 0..records {
        let byte = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let value: Vec<u8> = (0..RECORD_BYTES).map(byte).collect();
        let record =
            NewRecord { timestamp: NOW_MS + index as i64, value: Some(&value), ..NewRecord::default() };
        builder.append(&record).expect("fits");
    }
    builder.finish().expect("fits")
}

/// A request as it leaves the socket: one frame, without its length.
fn request_frame<R: penstock_protocol::Request>(request: &R, version: i16) -> Bytes {
    let client = WireString::from_static("client");
    let segments = frame::encode_request(1, Some(&client), version, request).expect("encodes");
    Bytes::from(segments.concat()).slice(4..)
}

fn decode_produce(requests: u64, partitions: i32) {
    let records = batch(1).to_bytes();
    let partition = |index| PartitionProduceData { index, records: Some(records.clone().into()) };
    let topic = TopicProduceData {
        topic_id: TOPIC,
        partition_data: (0..partitions).map(partition).collect(),
        ..Default::default()
    };
    let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..Default::default() };
    let bytes = request_frame(&request, PRODUCE_VERSION);
    for _ in 0..requests {
        let frame = frame::RequestFrame::parse(black_box(bytes.clone())).expect("whole");
        black_box(frame.decode::<ProduceRequest>().expect("sound"));
    }
}

fn check_batch(requests: u64, records: usize) {
    let bytes = batch(records).to_bytes();
    let rules = ValidateRules::default();
    for _ in 0..requests {
        let (batch, _) = Batch::parse(black_box(&bytes)).expect("whole");
        black_box(validate(&batch, &rules, NOW_MS).expect("sound"));
    }
}

/// A store whose journal is small enough to be written anew often, on a disk in memory.
async fn store(disk: SimDisk) -> (Store<SimDisk>, Log<SimDisk>) {
    let config =
        StoreConfig { journal_file_bytes: 4 << 20, unsettled_bytes_max: 8 << 20, ..StoreConfig::default() };
    let (store, _) = Store::open(disk, Path::new("/data"), config, NOW_MS).await.expect("opens");
    let log = LogConfig { segment_bytes: 4 << 20, retention_bytes: 8 << 20, ..LogConfig::default() };
    let log = store.create_log("log", log).await.expect("creates");
    (store, log)
}

async fn append_one(store: &Store<SimDisk>, log: &Log<SimDisk>, batches: Vec<Batch>) {
    let bytes = batches.iter().map(Batch::len).sum();
    let context = AppendContext { leader_epoch: 0, now_ms: NOW_MS, origin: Origin::Client };
    let appended = {
        let _room = store.reserve(bytes).await.expect("room");
        log.append(batches, context).expect("appends")
    };
    log.durable(appended.ticket).await.expect("durable");
}

fn append(requests: u64, batches: usize, records: usize) {
    let world = SimWorld::new(1);
    let disk = world.disk();
    let batch = batch(records);
    world.block_on(async move {
        let (store, log) = store(disk).await;
        for request in 0..requests {
            append_one(&store, &log, vec![batch.clone(); batches]).await;
            if request % 100 == 99 {
                store.tick(NOW_MS).await;
            }
        }
    });
}

fn read_tail(requests: u64) {
    let world = SimWorld::new(1);
    let disk = world.disk();
    let batch = batch(63);
    world.block_on(async move {
        let (store, log) = store(disk).await;
        append_one(&store, &log, vec![batch; 16]).await;
        let end = log.durable_offset();
        for _ in 0..requests {
            let found = log.read(0, 1 << 20, end, true).await.expect("reads");
            assert!(black_box(found).bytes > 0);
        }
    });
}

fn encode_produce_response(requests: u64) {
    for _ in 0..requests {
        let partition = |index| PartitionProduceResponse { index, base_offset: 1000, ..Default::default() };
        let topic = TopicProduceResponse {
            topic_id: TOPIC,
            partition_responses: (0..16).map(partition).collect(),
            ..Default::default()
        };
        let response = ProduceResponse { responses: vec![topic], ..Default::default() };
        let encoded = frame::encode_response(1, ApiKey::Produce, PRODUCE_VERSION, black_box(&response));
        black_box(encoded.expect("encodes"));
    }
}

fn fetch_partition(partition: i32) -> FetchPartition {
    FetchPartition { partition, fetch_offset: 500, partition_max_bytes: 1 << 20, ..Default::default() }
}

/// `session`: id and epoch; an incremental fetch names no partition that stays as it was.
fn fetch_request((session_id, session_epoch): (i32, i32), partitions: i32) -> FetchRequest {
    let topic = FetchTopic {
        topic_id: TOPIC,
        partitions: (0..partitions).map(fetch_partition).collect(),
        ..Default::default()
    };
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        session_id,
        session_epoch,
        topics: vec![topic],
        ..Default::default()
    }
}

fn decode_fetch(requests: u64) {
    let bytes = request_frame(&fetch_request((0, -1), 16), FETCH_VERSION);
    for _ in 0..requests {
        let frame = frame::RequestFrame::parse(black_box(bytes.clone())).expect("whole");
        black_box(frame.decode::<FetchRequest>().expect("sound"));
    }
}

/// Where each partition is read and how the answer's bytes are spread, for partitions that all have data.
fn plan_fetch(requests: u64) {
    let request = fetch_request((0, -1), 16);
    let slices = vec![Bytes::from_static(&[1; 61]), Bytes::from_static(&[2; 1024])];
    let view = LogView {
        leader_epoch: 0,
        epoch_start_offset: 0,
        log_start_offset: 0,
        log_start_epoch: 0,
        last_stable_offset: 1000,
        high_watermark: 1000,
        log_end_offset: 1000,
    };
    for _ in 0..requests {
        let limits = FetchLimits::new(black_box(&request), 100 << 20);
        let asked = request.topics[0].partitions.iter().map(|asked| Ok((0, PartitionRead::of(asked))));
        let mut plan = FetchPlan::new(limits, asked.collect());
        for reads in plan.next_reads() {
            let outcome = |(_, read): &(usize, PartitionRead)| {
                let planned = plan_read(&view, Isolation::ReadUncommitted, read, None)?;
                let ReadPlan::UpTo(next_offset) = planned else { return Ok(Found::nothing(read.offset)) };
                Ok(Found { slices: slices.clone(), bytes: 1085, next_offset, ..Found::nothing(read.offset) })
            };
            let outcomes = reads.reads.iter().map(outcome).collect();
            plan.take(&reads, outcomes);
        }
        assert!(plan.is_complete(false));
        black_box(plan.finish().collect::<Vec<_>>());
    }
}

/// A consumer's session that goes on: each fetch names no partition anew, each answer tells all of them.
fn fetch_session(requests: u64) {
    let mut sessions = FetchSessions::new(1000, 120_000, 1);
    let answer = |partition_index| PartitionData {
        partition_index,
        high_watermark: 1000,
        records: Some(Bytes::from_static(&[1; 1024]).into()),
        ..Default::default()
    };
    let data: Vec<PartitionData> = (0..16).map(answer).collect();
    let begun = sessions.begin(&fetch_request((0, 0), 16), FETCH_VERSION, NOW_MS).expect("begins");
    let session_id = sessions.finish(&begun, &data, NOW_MS).session_id;
    for epoch in (1..).take(requests as usize) {
        let mut request = fetch_request((session_id, epoch), 0);
        request.topics.clear();
        let context = sessions.begin(black_box(&request), FETCH_VERSION, NOW_MS).expect("goes on");
        assert_eq!(context.partitions.len(), data.len());
        black_box(sessions.finish(&context, &data, NOW_MS));
    }
}

/// As the broker answers: each partition's records are a 61-byte header and a body, which are not copied.
fn encode_fetch_response(requests: u64) {
    let (header, body) = (Bytes::from(vec![1; 61]), Bytes::from(vec![2; 64 << 10]));
    for _ in 0..requests {
        let partition = |partition_index| PartitionData {
            partition_index,
            high_watermark: 1000,
            records: Some(vec![header.clone(), body.clone()].into()),
            ..Default::default()
        };
        let topic = FetchableTopicResponse {
            topic_id: TOPIC,
            partitions: (0..16).map(partition).collect(),
            ..Default::default()
        };
        let response = FetchResponse { responses: vec![topic], ..Default::default() };
        let encoded = frame::encode_response(1, ApiKey::Fetch, FETCH_VERSION, black_box(&response));
        black_box(encoded.expect("encodes"));
    }
}
