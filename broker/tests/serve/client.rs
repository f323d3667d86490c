//! A client of raw frames: what the tests say and hear is what is on the wire.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use penstock_format::{Batch, BatchBuilder, NewRecord, Records, split_batches};
use penstock_protocol::frame::{decode_response, encode_request};
use penstock_protocol::messages::create_topics_request::CreatableTopic;
use penstock_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::messages::{CreateTopicsRequest, FetchRequest, FetchResponse, ProduceRequest};
use penstock_protocol::{Request, WireString};

use crate::broker::PATIENCE;

/// Versions at which topics are named by name.
pub(crate) const PRODUCE: i16 = 9;
pub(crate) const FETCH: i16 = 11;
const CREATE_TOPICS: i16 = 5;

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub(crate) fn connect(address: &str) -> Client {
        Client::over(TcpStream::connect(address).unwrap())
    }

    /// A client on a connection made already.
    pub(crate) fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, correlation_id: 0 }
    }

    /// Sends a request; its correlation id.
    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.try_send(version, request).unwrap()
    }

    /// Sends a request, if the connection is still there.
    pub(crate) fn try_send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<i32> {
        self.correlation_id += 1;
        let name = WireString::from_static("serve-test");
        for slice in encode_request(self.correlation_id, Some(&name), version, request).unwrap() {
            self.stream.write_all(&slice)?;
        }
        Ok(self.correlation_id)
    }

    /// The next answer, which must be to `correlation_id`.
    pub(crate) fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        self.try_receive::<R>(version, correlation_id).unwrap()
    }

    /// The next answer, if the connection lasts that long; it must be to `correlation_id`.
    pub(crate) fn try_receive<R: Request>(
        &mut self,
        version: i16,
        correlation_id: i32,
    ) -> io::Result<R::Response> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame)?;
        let (answered, response) = decode_response::<R>(Bytes::from(frame), version).unwrap();
        assert_eq!(answered, correlation_id, "answers come in the order of the requests");
        Ok(response)
    }

    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.send(version, request);
        self.receive::<R>(version, id)
    }

    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32) {
        let topic = CreatableTopic {
            name: WireString::from(name),
            num_partitions: partitions,
            replication_factor: -1,
            ..CreatableTopic::default()
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 60_000, ..CreateTopicsRequest::default() };
        let response = self.call(CREATE_TOPICS, &request);
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    }

    /// Produces one record with acks=all; its offset.
    pub(crate) fn produce(&mut self, topic: &str, partition: i32, value: &str) -> i64 {
        let response = self.call(PRODUCE, &produce(topic, partition, value, -1));
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "{response:?}");
        answer.base_offset
    }

    /// All values of a partition, from the beginning.
    pub(crate) fn consume(&mut self, topic: &str, partition: i32) -> Vec<String> {
        let mut values = Vec::new();
        loop {
            let offset = i64::try_from(values.len()).unwrap();
            let response = self.call(FETCH, &fetch(topic, &[(partition, offset)], 0));
            let new = values_of(&response);
            if new.is_empty() {
                return values;
            }
            values.extend(new);
        }
    }
}

/// A Produce request of one record.
pub(crate) fn produce(topic: &str, partition: i32, value: &str, acks: i16) -> ProduceRequest {
    let mut batch = BatchBuilder::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let timestamp = i64::try_from(now).unwrap();
    batch.append(&NewRecord { timestamp, value: Some(value.as_bytes()), ..NewRecord::default() }).unwrap();
    produce_batch(topic, partition, &batch.finish().unwrap(), acks)
}

/// A Produce request of one batch.
pub(crate) fn produce_batch(topic: &str, partition: i32, batch: &Batch, acks: i16) -> ProduceRequest {
    let records = Some(batch.to_bytes().into());
    let partition_data = vec![PartitionProduceData { index: partition, records }];
    let name = WireString::from(topic);
    let topic_data = vec![TopicProduceData { name, partition_data, ..TopicProduceData::default() }];
    ProduceRequest { acks, timeout_ms: 30_000, topic_data, ..ProduceRequest::default() }
}

/// A Fetch request of some partitions from given offsets, which waits up to `max_wait_ms` for a byte.
pub(crate) fn fetch(topic: &str, partitions: &[(i32, i64)], max_wait_ms: i32) -> FetchRequest {
    let partitions = partitions.iter().map(|(partition, fetch_offset)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    });
    let topic = WireString::from(topic);
    let topics = vec![FetchTopic { topic, partitions: partitions.collect(), ..FetchTopic::default() }];
    FetchRequest { max_wait_ms, min_bytes: 1, max_bytes: 50 << 20, topics, ..FetchRequest::default() }
}

/// The values of all records in a fetch's answer.
pub(crate) fn values_of(response: &FetchResponse) -> Vec<String> {
    assert_eq!(response.error_code, 0);
    let mut values = Vec::new();
    for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
        assert_eq!(partition.error_code, 0, "{partition:?}");
        let bytes = partition.records.as_ref().unwrap().to_bytes();
        for batch in split_batches(&bytes, usize::MAX).unwrap() {
            assert!(batch.crc_ok());
            values.extend(values_in(&batch));
        }
    }
    values
}

/// The values of a batch's records.
pub(crate) fn values_in(batch: &Batch) -> Vec<String> {
    let records = Records::open(batch, 1 << 20).unwrap();
    let values = records.iter().map(|record| record.unwrap().value.unwrap().to_vec());
    values.map(|value| String::from_utf8(value).unwrap()).collect()
}
