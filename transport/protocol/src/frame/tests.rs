use bytes::Bytes;

use super::*;
use crate::messages::{
    ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, ProduceRequest, ProduceResponse,
};

/// The frame without its length prefix, which must be right.
fn unprefixed(segments: &[Bytes]) -> Bytes {
    let frame: Vec<u8> = segments.iter().flatten().copied().collect();
    assert_eq!(frame_len(&frame, 1 << 20), Ok(Some(frame.len() - LENGTH_LEN)));
    Bytes::from(frame).split_off(LENGTH_LEN)
}

#[test]
fn request_and_response_come_back() {
    let client = WireString::from("a client");
    let request = ApiVersionsRequest { client_software_name: "x".into(), ..Default::default() };
    let segments = encode_request(7, Some(&client), 3, &request).unwrap();
    let frame = RequestFrame::parse(unprefixed(&segments)).unwrap();
    assert_eq!((frame.api, frame.version, frame.correlation_id), (ApiKey::ApiVersions, 3, 7));
    assert_eq!(frame.client_id, Some(client));
    assert_eq!(frame.decode::<ApiVersionsRequest>(), Ok(request));

    let response = ApiVersionsResponse { error_code: 35, ..Default::default() };
    let segments = encode_response(7, ApiKey::ApiVersions, 3, &response).unwrap();
    let frame = unprefixed(&segments);
    assert_eq!(frame[..6], [0, 0, 0, 7, 0, 35], "ApiVersions answers with header 0, without tags");
    assert_eq!(decode_response::<ApiVersionsRequest>(frame, 3), Ok((7, response)));

    let response = ProduceResponse { throttle_time_ms: 9, ..Default::default() };
    let segments = encode_response(8, ApiKey::Produce, 9, &response).unwrap();
    let frame = unprefixed(&segments);
    assert_eq!(frame[..], [0, 0, 0, 8, 0, 1, 0, 0, 0, 9, 0], "others answer flexible versions with header 1");
    assert_eq!(decode_response::<ProduceRequest>(frame, 9), Ok((8, response)));
}

#[test]
fn an_unknown_version_of_api_versions_still_has_a_header() {
    // Key 18, version 99, correlation id 5, client id null, no tags, a body that nobody can know.
    let frame = Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 0, 1, 2, 3]);
    let frame = RequestFrame::parse(frame).unwrap();
    assert_eq!((frame.correlation_id, frame.is_version_valid()), (5, false));
    assert_eq!(frame.body[..], [1, 2, 3]);
    assert!(frame.decode::<ApiVersionsRequest>().is_err());
}

#[test]
fn bytes_after_a_request_are_ignored() {
    // librdkafka 2.16, Metadata of version 13 for all topics: null topics, two flags, no tags, and then 01 00 00.
    let frame = [&[0, 3, 0, 13, 0, 0, 0, 5, 0xff, 0xff, 0][..], &[0, 0, 0, 0, 1, 0, 0]].concat();
    let request = RequestFrame::parse(frame.into()).unwrap().decode::<MetadataRequest>().unwrap();
    assert_eq!((request.topics, request.allow_auto_topic_creation), (None, false));
}

#[test]
fn unknown_keys_and_cut_headers_are_errors() {
    let frame = Bytes::from_static(&[3, 18, 0, 0, 0, 0, 0, 5, 0xff, 0xff]);
    assert_eq!(RequestFrame::parse(frame).unwrap_err(), FrameError::ApiUnknown(786));
    for len in 0..10 {
        let frame = Bytes::from_static(&[0, 18, 0, 0, 0, 0, 0, 5, 0xff, 0xff]).slice(..len);
        assert!(matches!(RequestFrame::parse(frame), Err(FrameError::Header(_))), "cut at {len}");
    }
}

#[test]
fn lengths_are_judged_before_anything_is_read() {
    assert_eq!(frame_len(&[0, 0, 1], 100), Ok(None));
    assert_eq!(frame_len(&[0, 0, 0, 100], 100), Ok(Some(100)));
    assert_eq!(frame_len(&[0, 0, 0, 101], 100), Err(FrameError::TooLarge { len: 101, max: 100 }));
    assert_eq!(frame_len(&[0xff; 4], 100), Err(FrameError::LengthInvalid(-1)));
    assert_eq!(frame_len(&[0, 0, 0, 7], 100), Err(FrameError::LengthInvalid(7)));
}

#[test]
fn foreign_protocols_are_named() {
    assert_eq!(sniff(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]), Foreign::Tls);
    assert_eq!(sniff(b"GET / HTTP/1.1\r\n"), Foreign::Http("GET"));
    assert_eq!(sniff(b"PRI * HTTP/2.0\r\n"), Foreign::Http("PRI"));
    assert_eq!(sniff(b"SSH-2.0-OpenSSH_9.7"), Foreign::Ssh);
    assert_eq!(sniff(b"PROXY TCP4 "), Foreign::Proxy);
    assert_eq!(sniff(b"\r\n\r\n\0\r\nQUIT\n!"), Foreign::Proxy);
    assert_eq!(sniff(b"hello, world"), Foreign::Garbage);
    assert_eq!(sniff(&[0xff; 16]), Foreign::Garbage);
    assert_eq!(sniff(&[0, 0, 0, 20, 0, 18, 0, 4, 0, 0]), Foreign::Kafka);
    assert_eq!(sniff(&[]), Foreign::Garbage);
    assert_eq!(sniff(b"GET / HTTP/1.1\r\n").to_string(), "an HTTP GET request");
}
