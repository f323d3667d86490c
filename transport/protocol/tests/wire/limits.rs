//! Hostile counts: refused before anything is allocated for them, or held to the limits.

use bytes::Bytes;
use penstock_protocol::messages::metadata_request::MetadataRequestTopic;
use penstock_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest};
use penstock_protocol::{DecodeFault, Decoder, Limits, Message, WireString};

use crate::allocation::peak_of;
use crate::codec::CODECS;
use crate::mutations::memory_max;

fn fault_of<M: Message>(body: Bytes, version: i16) -> DecodeFault {
    M::decode(&mut Decoder::new(body), version).unwrap_err().fault
}

/// What is taken in can be given back: Apache Kafka refuses such a string too, in both notations.
#[test]
fn a_compact_string_is_no_longer_than_a_plain_one() {
    let named = |length: usize| {
        let name = WireString::from("n".repeat(length));
        let topics =
            vec![MetadataRequestTopic { name: Some(name.clone()), ..MetadataRequestTopic::default() }];
        // One topic, its name, no tags; what follows: no creation, no operations, no tags.
        let mut body = vec![2];
        let mut count = length + 1;
        while count >= 0x80 {
            body.push(count as u8 | 0x80);
            count >>= 7;
        }
        body.push(count as u8);
        body.extend(name.as_bytes());
        body.extend([0, 0, 0, 0, 0]);
        (Bytes::from(body), topics)
    };
    let (body, topics) = named(32_767);
    let decoded = MetadataRequest::decode(&mut Decoder::new(body), 9).unwrap();
    assert_eq!(decoded.topics, Some(topics));
    assert_eq!(fault_of::<MetadataRequest>(named(32_768).0, 9), DecodeFault::StringTooLong(32_768));
}

#[test]
fn a_count_beyond_the_remaining_bytes_is_refused_without_allocating() {
    // A null transactional id, acks, timeout, and two billion topics in the remaining three bytes.
    let body = Bytes::from_static(&[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3]);
    let (fault, peak) = peak_of(|| fault_of::<ProduceRequest>(body.clone(), 3));
    assert_eq!(fault, DecodeFault::Truncated { needed: 3 * 0x7fff_ffff, remaining: 3 });
    assert_eq!(peak, 0);
    // The same in the compact form.
    let body = Bytes::from_static(&[0, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3]);
    let (fault, peak) = peak_of(|| fault_of::<ProduceRequest>(body.clone(), 9));
    assert_eq!(fault, DecodeFault::Truncated { needed: 3 * 0xffff_fffe, remaining: 3 });
    assert_eq!(peak, 0);
}

#[test]
fn a_mebibyte_of_any_byte_stays_within_the_bound_in_every_version() {
    for fill in [0, 1, 2, 0x10] {
        let body = Bytes::from(vec![fill; 1 << 20]);
        for codec in CODECS {
            for version in codec.versions.iter() {
                let (_, peak) = peak_of(|| (codec.check)(body.clone(), version));
                assert!(peak <= memory_max(body.len()), "{} {version}: {peak} bytes", codec.name);
            }
        }
    }
}

#[test]
fn a_count_that_fits_but_needs_too_much_memory_is_refused() {
    // Half a million topics with empty names, two bytes each on the wire and more than 32 in memory.
    let mut body = (500_000u32).to_be_bytes().to_vec();
    body.resize(1_000_004, 0);
    let body = Bytes::from(body);
    let (fault, peak) = peak_of(|| fault_of::<MetadataRequest>(body, 0));
    assert_eq!(fault, DecodeFault::TooMuchMemory);
    assert_eq!(peak, 0);
}

#[test]
fn elements_are_limited_over_all_arrays() {
    let limits = Limits { elements_max: 3, ..Limits::DEFAULT };
    // Topics "a" and "b": two elements; each has one partition: four.
    let mut body = vec![0xff, 0xff, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2];
    for name in [b'a', b'b'] {
        body.extend([0, 1, name, 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    }
    let decoder = |limits| Decoder::with_limits(Bytes::from(body.clone()), limits);
    assert!(ProduceRequest::decode(&mut decoder(Limits::DEFAULT), 3).is_ok());
    let error = ProduceRequest::decode(&mut decoder(limits), 3).unwrap_err();
    assert_eq!(error.fault, DecodeFault::TooManyElements(3));
}

#[test]
fn nulls_lengths_and_text_are_checked() {
    // MetadataRequest 0: the list must not be null; 1: it may be.
    assert_eq!(fault_of::<MetadataRequest>(Bytes::from_static(&[0xff; 4]), 0), DecodeFault::Null);
    assert!(MetadataRequest::decode(&mut Decoder::new(Bytes::from_static(&[0xff; 4])), 1).is_ok());
    let length = Bytes::from_static(&[0xff, 0xff, 0xff, 0xfe]);
    assert_eq!(fault_of::<MetadataRequest>(length, 1), DecodeFault::NegativeLength(-2));
    let text = Bytes::from_static(&[0, 0, 0, 1, 0, 2, 0xc3, 0x28]);
    assert_eq!(fault_of::<MetadataRequest>(text, 1), DecodeFault::NotUtf8);
    // A compact length of six bytes, and one of 33 bits.
    let long = |last| Bytes::copy_from_slice(&[0xff, 0xff, 0xff, 0xff, last, 0]);
    assert_eq!(fault_of::<MetadataRequest>(long(0xff), 9), DecodeFault::VarintTooLong);
    assert_eq!(fault_of::<MetadataRequest>(long(0x1f), 9), DecodeFault::VarintTooLong);
}

#[test]
fn values_share_the_buffer_they_came_in() {
    let mut body = vec![0xff, 0xff, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 0];
    body.extend((1_000_000u32).to_be_bytes());
    body.resize(body.len() + 1_000_000, 7);
    let body = Bytes::from(body);
    let within = |slice: &[u8]| body.as_ptr_range().contains(&slice.as_ptr());
    let (request, peak) = peak_of(|| ProduceRequest::decode(&mut Decoder::new(body.clone()), 3).unwrap());
    let records = request.topic_data[0].partition_data[0].records.as_ref().unwrap();
    assert!(within(&records.slices()[0]) && within(request.topic_data[0].name.as_bytes()));
    assert_eq!(records.len(), 1_000_000);
    assert!(peak < 1024, "{peak} bytes for a request of one megabyte");
}

#[test]
fn record_slices_are_moved_into_the_segments() {
    use penstock_protocol::messages::FetchResponse;
    use penstock_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};

    let (header, tail) = (Bytes::from(vec![1; 61]), Bytes::from(vec![2; 100_000]));
    let partition =
        PartitionData { records: Some(vec![header.clone(), tail.clone()].into()), ..Default::default() };
    let topic = FetchableTopicResponse { partitions: vec![partition; 3], ..Default::default() };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    let api = penstock_protocol::ApiKey::Fetch;
    let (segments, peak) =
        peak_of(|| penstock_protocol::frame::encode_response(1, api, 13, &response).unwrap());
    assert_eq!(segments.len(), 10);
    for at in [1, 4, 7] {
        assert_eq!((segments[at].as_ptr(), segments[at + 1].as_ptr()), (header.as_ptr(), tail.as_ptr()));
    }
    assert!(peak < 4096, "{peak} bytes to encode 300 kB of records");
    let len: usize = segments.iter().map(Bytes::len).sum();
    assert_eq!(u32::from_be_bytes(*segments[0].first_chunk().unwrap()) as usize, len - 4);
}

#[test]
fn an_absent_field_is_dropped_or_refused() {
    let encode = |request: &FetchRequest, version| {
        let mut encoder = penstock_protocol::Encoder::new();
        request
            .encode(&mut encoder, version)
            .map(|()| encoder.finish_contiguous())
            .map_err(|error| error.to_string())
    };
    let plain = encode(&FetchRequest::default(), 4);
    // A session id is ignorable: version 4 drops it.
    assert_eq!(encode(&FetchRequest { session_id: 5, ..Default::default() }, 4), plain);
    // Forgotten topics and the replica's state are not.
    let forgotten = FetchRequest { forgotten_topics_data: vec![Default::default()], ..Default::default() };
    let expected = "FetchRequest.forgotten_topics_data is set, but version 4 does not carry it";
    assert_eq!(encode(&forgotten, 4), Err(expected.to_owned()));
    let mut replica = FetchRequest::default();
    replica.replica_state.replica_id = 1;
    assert!(encode(&replica, 14).is_err() && encode(&replica, 15).is_ok());
    assert!(encode(&FetchRequest::default(), 3).is_err());
    // The names of a Metadata request may be null from version 10 on.
    let topic = penstock_protocol::messages::metadata_request::MetadataRequestTopic {
        name: None,
        ..Default::default()
    };
    let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    let mut encoder = penstock_protocol::Encoder::new();
    assert!(request.encode(&mut encoder, 10).is_ok());
    let error = request.encode(&mut encoder, 9).unwrap_err();
    assert_eq!(error.to_string(), "MetadataRequestTopic.name must not be null in this version");
}
