//! The client that behaves: one connection, which must be answered correctly for as long as the attack lasts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_format::{BatchBuilder, NewRecord};
use penstock_protocol::frame::{decode_response, encode_request, frame_len};
use penstock_protocol::messages::create_topics_request::CreatableTopic;
use penstock_protocol::messages::metadata_request::MetadataRequestTopic;
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::messages::{ApiVersionsRequest, CreateTopicsRequest, MetadataRequest, ProduceRequest};
use penstock_protocol::{ApiKey, ErrorCode, Request, Uuid};

/// An answer that takes longer is a stall. Only a broker that hangs takes so long, however busy the machine is.
const STALL: Duration = Duration::from_secs(60);
/// More partitions than shards, so that each shard must answer.
const PARTITIONS: i32 = 8;
const TOPIC: &str = "the-neighbours-own";

pub(crate) struct Neighbour {
    stream: TcpStream,
    correlation_id: i32,
    topic_id: Uuid,
    report: Report,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Report {
    pub(crate) rounds: i64,
    pub(crate) slowest: Duration,
}

impl Neighbour {
    pub(crate) fn connect(address: SocketAddr) -> Neighbour {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(STALL)).unwrap();
        stream.set_write_timeout(Some(STALL)).unwrap();
        let mut neighbour =
            Neighbour { stream, correlation_id: 0, topic_id: Uuid::ZERO, report: Report::default() };
        neighbour.create_topic();
        neighbour
    }

    pub(crate) fn report(&self) -> Report {
        self.report
    }

    fn create_topic(&mut self) {
        let topic = CreatableTopic {
            name: TOPIC.into(),
            num_partitions: PARTITIONS + 1,
            replication_factor: 1,
            ..Default::default()
        };
        let created = self.call(7, &CreateTopicsRequest { topics: vec![topic], ..Default::default() });
        let topic = &created.topics[0];
        assert_eq!(topic.error_code, 0, "{:?}", topic.error_message);
        self.topic_id = topic.topic_id;
    }

    /// The keys of the APIs that the broker serves.
    pub(crate) fn served(&mut self) -> Vec<i16> {
        let versions = self.call(0, &ApiVersionsRequest::default());
        versions.api_keys.iter().map(|api| api.api_key).collect()
    }

    /// ApiVersions, Metadata, and a durable record to every partition; each answer is checked.
    pub(crate) fn round(&mut self) {
        let since = Instant::now();
        let versions = self.call(
            4,
            &ApiVersionsRequest {
                client_software_name: "neighbour".into(),
                client_software_version: "1".into(),
                ..Default::default()
            },
        );
        assert_eq!(versions.error_code, 0);
        assert!(versions.api_keys.iter().any(|api| api.api_key == ApiKey::Produce.code()));

        let named = MetadataRequestTopic { name: Some(TOPIC.into()), ..Default::default() };
        let metadata = self.call(12, &MetadataRequest { topics: Some(vec![named]), ..Default::default() });
        let topic = &metadata.topics[0];
        assert_eq!((topic.error_code, topic.topic_id), (0, self.topic_id));
        assert_eq!(topic.partitions.len(), PARTITIONS as usize + 1);

        let partition = |index| PartitionProduceData { index, records: Some(self.batch().into()) };
        let topic = TopicProduceData {
            topic_id: self.topic_id,
            partition_data: (0..PARTITIONS).map(partition).collect(),
            ..Default::default()
        };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
        let produced = self.call(13, &request);
        let partitions = &produced.responses[0].partition_responses;
        assert_eq!(partitions.len(), PARTITIONS as usize);
        for partition in partitions {
            let error = ErrorCode::from_code(partition.error_code);
            assert!(error.is_none(), "{error}: {:?}", partition.error_message);
            assert_eq!(
                partition.base_offset, self.report.rounds,
                "nobody else writes here, and nothing is lost"
            );
        }
        self.report.rounds += 1;
        self.report.slowest = self.report.slowest.max(since.elapsed());
    }

    /// Has a record appended, to a partition of its own, by a request of which it is the least part: the rest, of so many
    /// bytes, goes to a partition that is not there.
    pub(crate) fn round_within(&mut self, bytes: usize) {
        let rest = Bytes::from(vec![0; bytes]);
        let partition = |index, records: Bytes| PartitionProduceData { index, records: Some(records.into()) };
        let partition_data = vec![partition(PARTITIONS, self.batch()), partition(PARTITIONS + 1, rest)];
        let topic =
            TopicProduceData { topic_id: self.topic_id, partition_data, ..TopicProduceData::default() };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
        let produced = self.call(13, &request);
        let codes: Vec<i16> =
            produced.responses[0].partition_responses.iter().map(|partition| partition.error_code).collect();
        assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.code()]);
    }

    fn batch(&self) -> Bytes {
        let mut batch = BatchBuilder::new();
        let value = self.report.rounds.to_be_bytes();
        // Any time will do, as long as the broker takes it for one.
        let record = NewRecord { timestamp: 1_700_000_000_000, value: Some(&value), ..Default::default() };
        batch.append(&record).unwrap();
        batch.finish().unwrap().to_bytes()
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.correlation_id += 1;
        let client = "neighbour".into();
        for segment in encode_request(self.correlation_id, Some(&client), version, request).unwrap() {
            self.stream.write_all(&segment).unwrap();
        }
        let mut prefix = [0; 4];
        self.read(&mut prefix, R::NAME);
        let mut frame = vec![0; frame_len(&prefix, 16 << 20).unwrap().unwrap()];
        self.read(&mut frame, R::NAME);
        let (correlation_id, response) = decode_response::<R>(Bytes::from(frame), version).unwrap();
        assert_eq!(correlation_id, self.correlation_id);
        response
    }

    fn read(&mut self, buffer: &mut [u8], what: &str) {
        if let Err(error) = self.stream.read_exact(buffer) {
            panic!("no answer to {what} in round {}: {error}", self.report.rounds);
        }
    }
}
