//! A broker that keeps nothing, to find out how fast the client alone is: it answers every Produce at once, and every Fetch
//! with the same batch again. It serves what this client asks for, not what others may.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use penstock_format::{Batch, BatchHeader};
use penstock_protocol::frame::{RequestFrame, encode_response, frame_len};
use penstock_protocol::messages::api_versions_response::ApiVersion;
use penstock_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use penstock_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use penstock_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use penstock_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use penstock_protocol::messages::{
    ApiVersionsResponse, FetchRequest, FetchResponse, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
};
use penstock_protocol::{ApiKey, Message, Records, Uuid, WireString};

use crate::workers::block_on;

const FRAME_LEN_MAX: usize = 256 << 20;
const SERVED: [ApiKey; 6] = [
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::ApiVersions,
    ApiKey::InitProducerId,
];
const END_OFFSET: i64 = 1 << 40;

/// What the null broker pretends.
#[derive(Debug, Clone)]
pub struct NullBroker {
    /// Partitions of every topic.
    pub partitions: i32,
    /// What every fetch gives, over and over; none for nothing.
    pub batch: Option<Batch>,
}

/// Starts a null broker on a free port of the loopback, in a thread of its own that lives as long as the process.
pub fn start(broker: NullBroker) -> io::Result<SocketAddr> {
    let (ready, address) = mpsc::channel();
    thread::spawn(move || {
        let served = block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let port = listener.local_addr()?.port();
            let _ = ready.send(listener.local_addr()?);
            let broker = Arc::new(broker);
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::task::spawn_local(serve(stream, Arc::clone(&broker), port));
            }
        });
        // Only an accept that fails ends it; the connections are then gone, which the client reports.
        served.and_then(|result: io::Result<()>| result)
    });
    address.recv().map_err(io::Error::other)
}

async fn serve(mut stream: TcpStream, broker: Arc<NullBroker>, port: u16) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(1 << 20);
    loop {
        let len = loop {
            match frame_len(&buffer, FRAME_LEN_MAX).map_err(io::Error::other)? {
                Some(len) if buffer.len() >= 4 + len => break len,
                need => {
                    let missing = need.map_or(4, |len| 4 + len).saturating_sub(buffer.len());
                    if buffer.capacity() - buffer.len() < missing {
                        buffer.reserve(missing + (256 << 10));
                    }
                    if stream.read_buf(&mut buffer).await? == 0 {
                        return Ok(());
                    }
                }
            }
        };
        buffer.advance(4);
        let frame = RequestFrame::parse(buffer.split_to(len).freeze()).map_err(io::Error::other)?;
        if let Some(segments) = broker.answer(&frame, port)? {
            for segment in segments {
                stream.write_all(&segment).await?;
            }
        }
    }
}

impl NullBroker {
    fn answer(&self, frame: &RequestFrame, port: u16) -> io::Result<Option<Vec<Bytes>>> {
        match frame.api {
            ApiKey::Produce => {
                let request: ProduceRequest = frame.decode().map_err(io::Error::other)?;
                if request.acks == 0 {
                    return Ok(None);
                }
                reply(frame, &produced(&request))
            }
            ApiKey::Fetch => reply(frame, &self.fetched(&frame.decode().map_err(io::Error::other)?)),
            ApiKey::Metadata => {
                reply(frame, &self.metadata(&frame.decode().map_err(io::Error::other)?, port))
            }
            ApiKey::ListOffsets => reply(frame, &offsets(&frame.decode().map_err(io::Error::other)?)),
            ApiKey::InitProducerId => {
                reply(frame, &InitProducerIdResponse { producer_id: 1, ..InitProducerIdResponse::default() })
            }
            ApiKey::ApiVersions => reply(frame, &versions()),
            other => Err(io::Error::other(format!("the null broker does not serve {other}"))),
        }
    }

    fn metadata(&self, request: &MetadataRequest, port: u16) -> MetadataResponse {
        let partition = |index| MetadataResponsePartition {
            partition_index: index,
            leader_id: 1,
            ..MetadataResponsePartition::default()
        };
        let topics = request.topics.iter().flatten().map(|topic| MetadataResponseTopic {
            name: topic.name.clone(),
            topic_id: Uuid::ONE,
            partitions: (0..self.partitions).map(partition).collect(),
            ..MetadataResponseTopic::default()
        });
        let host = WireString::from_static("127.0.0.1");
        let broker = MetadataResponseBroker { node_id: 1, host, port: i32::from(port), rack: None };
        MetadataResponse { brokers: vec![broker], topics: topics.collect(), ..MetadataResponse::default() }
    }

    /// As many copies of the batch as fit the partition's bound, at rising offsets.
    fn fetched(&self, request: &FetchRequest) -> FetchResponse {
        let mut left = i64::from(request.max_bytes);
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let bound = i64::from(asked.partition_max_bytes).min(left).max(0);
                let records = self.copies(asked.fetch_offset, bound as usize);
                left -= records.len() as i64;
                PartitionData {
                    partition_index: asked.partition,
                    high_watermark: END_OFFSET,
                    last_stable_offset: END_OFFSET,
                    log_start_offset: 0,
                    records: Some(records),
                    ..PartitionData::default()
                }
            });
            FetchableTopicResponse {
                topic: topic.topic.clone(),
                topic_id: topic.topic_id,
                partitions: partitions.collect(),
            }
        });
        FetchResponse { responses: topics.collect(), ..FetchResponse::default() }
    }

    fn copies(&self, from: i64, bound: usize) -> Records {
        let Some(batch) = &self.batch else {
            return Records::default();
        };
        let mut slices = Vec::new();
        let mut base_offset = from;
        for _ in 0..bound / batch.len() {
            let header = BatchHeader { base_offset, ..batch.header };
            slices.push(Bytes::copy_from_slice(&header.to_array()));
            slices.push(batch.body.clone());
            base_offset = header.next_offset();
        }
        Records::from(slices)
    }
}

fn reply<R: Message>(frame: &RequestFrame, response: &R) -> io::Result<Option<Vec<Bytes>>> {
    encode_response(frame.correlation_id, frame.api, frame.version, response)
        .map(Some)
        .map_err(io::Error::other)
}

fn versions() -> ApiVersionsResponse {
    let served = SERVED.iter().map(|api| ApiVersion {
        api_key: api.code(),
        min_version: api.stable_versions().min,
        max_version: api.stable_versions().max,
    });
    ApiVersionsResponse { api_keys: served.collect(), ..ApiVersionsResponse::default() }
}

fn produced(request: &ProduceRequest) -> ProduceResponse {
    let topics = request.topic_data.iter().map(|topic| TopicProduceResponse {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partition_responses: topic
            .partition_data
            .iter()
            .map(|data| PartitionProduceResponse { index: data.index, ..PartitionProduceResponse::default() })
            .collect(),
    });
    ProduceResponse { responses: topics.collect(), ..ProduceResponse::default() }
}

fn offsets(request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = request.topics.iter().map(|topic| ListOffsetsTopicResponse {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|asked| ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                offset: 0,
                ..ListOffsetsPartitionResponse::default()
            })
            .collect(),
    });
    ListOffsetsResponse { topics: topics.collect(), ..ListOffsetsResponse::default() }
}
