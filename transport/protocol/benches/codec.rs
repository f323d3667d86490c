//! What the data path costs here: decoding Produce, encoding Fetch. `cargo bench -p penstock-protocol`

use bytes::Bytes;
use divan::{Bencher, black_box};
use penstock_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::messages::{FetchResponse, MetadataResponse, ProduceRequest, metadata_response};
use penstock_protocol::{ApiKey, Decoder, Encoder, Message, Uuid, frame};

fn main() {
    divan::main();
}

fn encoded<M: Message>(message: &M, version: i16) -> Bytes {
    let mut encoder = Encoder::new();
    if let Err(error) = message.encode(&mut encoder, version) {
        panic!("{error}");
    }
    encoder.finish_contiguous()
}

fn produce(topics: usize, partitions: i32, records_len: usize) -> ProduceRequest {
    let records = Bytes::from(vec![7; records_len]);
    let partition = |index| PartitionProduceData { index, records: Some(records.clone().into()) };
    let topic = |index: usize| TopicProduceData {
        topic_id: Uuid([index as u8; 16]),
        partition_data: (0..partitions).map(partition).collect(),
        ..Default::default()
    };
    ProduceRequest { acks: -1, topic_data: (0..topics).map(topic).collect(), ..Default::default() }
}

/// The message is dropped outside of the measured time.
fn decode<M: Message>(bencher: Bencher<'_, '_>, body: &Bytes, version: i16) {
    bencher.bench(|| M::decode(&mut Decoder::new(black_box(body.clone())), version));
}

#[divan::bench]
fn decode_produce_1_mib(bencher: Bencher<'_, '_>) {
    decode::<ProduceRequest>(bencher, &encoded(&produce(1, 1, 1 << 20), 13), 13);
}

#[divan::bench]
fn decode_produce_10_topics_10_partitions_10_kib(bencher: Bencher<'_, '_>) {
    decode::<ProduceRequest>(bencher, &encoded(&produce(10, 10, 10 << 10), 13), 13);
}

/// As a broker answers: each partition's records are a 61-byte batch header and a body.
fn fetch(partitions: i32, records_len: usize) -> FetchResponse {
    let (header, body) = (Bytes::from(vec![1; 61]), Bytes::from(vec![2; records_len]));
    let partition = |partition_index| PartitionData {
        partition_index,
        high_watermark: 1000,
        records: Some(vec![header.clone(), body.clone()].into()),
        ..Default::default()
    };
    let partitions = (0..partitions).map(partition).collect();
    FetchResponse {
        responses: vec![FetchableTopicResponse { partitions, ..Default::default() }],
        ..Default::default()
    }
}

#[divan::bench(args = [1, 100])]
fn encode_fetch_10_kib_a_partition(bencher: Bencher<'_, '_>, partitions: i32) {
    let response = fetch(partitions, 10 << 10);
    bencher.bench(|| frame::encode_response(1, ApiKey::Fetch, 17, black_box(&response)));
}

#[divan::bench]
fn decode_metadata_of_1000_partitions(bencher: Bencher<'_, '_>) {
    let partition = |partition_index| metadata_response::MetadataResponsePartition {
        partition_index,
        replica_nodes: vec![1, 2, 3],
        isr_nodes: vec![1, 2, 3],
        ..Default::default()
    };
    let partitions = (0..1000).map(partition).collect();
    let topic = metadata_response::MetadataResponseTopic { partitions, ..Default::default() };
    let response = MetadataResponse { topics: vec![topic], ..Default::default() };
    decode::<MetadataResponse>(bencher, &encoded(&response, 13), 13);
}
