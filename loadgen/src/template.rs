//! Produce requests encoded once and sent many times: only the correlation id changes, and where batches are numbered or
//! stamped, these batches.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use penstock_format::Batch;
use penstock_protocol::messages::ProduceRequest;
use penstock_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use penstock_protocol::{EncodeError, Records, WireString, frame};

use crate::client::Topic;

/// What all requests of a run have in common.
#[derive(Debug, Clone)]
pub struct RequestSpec {
    /// 0, 1, or -1 for all.
    pub acks: i16,
    /// How long the broker may wait for replicas.
    pub timeout_ms: i32,
    /// The version to encode.
    pub version: i16,
    /// The client's name for itself.
    pub client_id: WireString,
}

/// A Produce request that carries one batch for each of its partitions.
#[derive(Debug, Clone)]
pub struct RequestTemplate {
    pieces: Vec<Piece>,
    /// The partitions, in the order of the request.
    pub partitions: Vec<i32>,
    /// Records in all its batches.
    pub records: u64,
    /// Bytes of all its batches.
    pub bytes: u64,
}

#[derive(Debug, Clone)]
enum Piece {
    Fixed(Bytes),
    /// A batch as it was encoded: number in the request, header, body.
    Batch(usize, [Bytes; 2]),
}

/// Place of the correlation id in a request frame: after length, API key and version.
const CORRELATION_ID_AT: std::ops::Range<usize> = 8..12;

impl RequestTemplate {
    /// Encodes a request of `batches`, by partition.
    pub fn encode(spec: &RequestSpec, topic: &Topic, batches: &[(i32, Batch)]) -> Result<Self, EncodeError> {
        let slices: Vec<[Bytes; 2]> = batches.iter().map(|(_, batch)| batch.to_slices()).collect();
        let partition_data = batches.iter().zip(&slices).map(|((index, _), slices)| PartitionProduceData {
            index: *index,
            records: Some(Records::from(slices.to_vec())),
        });
        let request = ProduceRequest {
            transactional_id: None,
            acks: spec.acks,
            timeout_ms: spec.timeout_ms,
            topic_data: vec![TopicProduceData {
                name: topic.name.clone(),
                topic_id: topic.id,
                partition_data: partition_data.collect(),
            }],
        };
        let segments = frame::encode_request(0, Some(&spec.client_id), spec.version, &request)?;
        Ok(RequestTemplate {
            pieces: pieces_of(segments, &slices),
            partitions: batches.iter().map(|(index, _)| *index).collect(),
            records: batches.iter().map(|(_, batch)| batch.header.record_count as u64).sum(),
            bytes: batches.iter().map(|(_, batch)| batch.len() as u64).sum(),
        })
    }

    /// Appends the request to `queue`. `replace` may give another batch of the same length for the batch of a place in
    /// [`RequestTemplate::partitions`].
    pub fn send(
        &self,
        correlation_id: i32,
        queue: &mut VecDeque<Bytes>,
        mut replace: impl FnMut(usize) -> Option<[Bytes; 2]>,
    ) {
        for (at, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Fixed(bytes) if at == 0 => queue.push_back(with_correlation_id(bytes, correlation_id)),
                Piece::Fixed(bytes) => queue.push_back(bytes.clone()),
                Piece::Batch(place, encoded) => match replace(*place) {
                    Some(batch) => {
                        debug_assert_eq!(
                            batch[0].len() + batch[1].len(),
                            encoded[0].len() + encoded[1].len()
                        );
                        queue.extend(batch);
                    }
                    None => queue.extend(encoded.iter().cloned()),
                },
            }
        }
    }
}

/// The segments of an encoded request, with the slices of its batches known again by their addresses.
fn pieces_of(segments: Vec<Bytes>, batches: &[[Bytes; 2]]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut segments = segments.into_iter().peekable();
    let mut place = 0;
    while let Some(segment) = segments.next() {
        match batches.get(place) {
            Some([header, body]) if segment.as_ptr() == header.as_ptr() => {
                // An empty body gives no segment.
                segments.next_if(|next| next.as_ptr() == body.as_ptr());
                pieces.push(Piece::Batch(place, [header.clone(), body.clone()]));
                place += 1;
            }
            _ => pieces.push(Piece::Fixed(segment)),
        }
    }
    assert_eq!(place, batches.len(), "every batch is a part of the request");
    pieces
}

fn with_correlation_id(bytes: &Bytes, correlation_id: i32) -> Bytes {
    let mut patched = BytesMut::from(&bytes[..]);
    patched[CORRELATION_ID_AT].copy_from_slice(&correlation_id.to_be_bytes());
    patched.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_format::{BatchBuilder, NewRecord};
    use penstock_protocol::frame::RequestFrame;

    fn batch(value: &[u8]) -> Batch {
        let mut builder = BatchBuilder::new();
        builder.append(&NewRecord { value: Some(value), ..NewRecord::default() }).unwrap();
        builder.finish().unwrap()
    }

    #[test]
    fn a_sent_template_reads_back_as_the_request() {
        let topic = Topic {
            name: WireString::from("t"),
            id: penstock_protocol::Uuid::ONE,
            partitions: Default::default(),
        };
        // Two partitions share one batch, as they do in a run without keys.
        let (shared, other) = (batch(b"shared"), batch(b"other"));
        let batches = [(3, shared.clone()), (5, shared.clone()), (7, other.clone())];
        for version in [3, 9, 13] {
            let spec = RequestSpec { acks: -1, timeout_ms: 1000, version, client_id: WireString::from("c") };
            let template = RequestTemplate::encode(&spec, &topic, &batches).unwrap();
            assert_eq!(template.records, 3);
            let mut numbered = shared.clone();
            numbered.patch_header(|header| header.base_sequence = 9);
            let mut queue = VecDeque::new();
            template.send(77, &mut queue, |place| (place == 1).then(|| numbered.to_slices()));
            let bytes: Vec<u8> = queue.iter().flat_map(|piece| piece.iter().copied()).collect();
            let bytes = Bytes::from(bytes);
            let request = RequestFrame::parse(bytes.slice(4..)).unwrap();
            assert_eq!(request.correlation_id, 77);
            let request: ProduceRequest = request.decode().unwrap();
            let sent: Vec<_> = request.topic_data[0]
                .partition_data
                .iter()
                .map(|data| (data.index, data.records.as_ref().unwrap().to_bytes()))
                .collect();
            assert_eq!(sent, [(3, shared.to_bytes()), (5, numbered.to_bytes()), (7, other.to_bytes())]);
        }
    }
}
