//! Tagged fields, on bytes written by hand.

use bytes::Bytes;
use penstock_protocol::messages::{ApiVersionsResponse, HeartbeatResponse};
use penstock_protocol::{DecodeError, DecodeFault, Decoder, Encoder, Message};

/// HeartbeatResponse 4: throttle time 1, error code 2, then tagged fields, none of which the schema knows.
fn heartbeat(tags: &[u8]) -> Result<HeartbeatResponse, DecodeError> {
    let body = [&[0, 0, 0, 1, 0, 2], tags].concat();
    let mut decoder = Decoder::new(Bytes::from(body));
    let message = HeartbeatResponse::decode(&mut decoder, 4)?;
    decoder.finish()?;
    Ok(message)
}

#[test]
fn unknown_tags_are_skipped() {
    let expected = HeartbeatResponse { throttle_time_ms: 1, error_code: 2 };
    assert_eq!(heartbeat(&[0]), Ok(expected.clone()));
    // Tag 0 with three bytes, tag 5 with none, tag 300 with one.
    assert_eq!(heartbeat(&[3, 0, 3, 9, 9, 9, 5, 0, 0xac, 2, 1, 7]), Ok(expected));
}

#[test]
fn tags_out_of_order_doubled_or_cut_are_errors() {
    let fault = |tags| heartbeat(tags).unwrap_err().fault;
    assert_eq!(fault(&[2, 5, 0, 4, 0]), DecodeFault::TagOrder(4));
    assert_eq!(fault(&[2, 5, 0, 5, 0]), DecodeFault::TagOrder(5));
    assert_eq!(fault(&[1, 5, 2, 0]), DecodeFault::Truncated { needed: 2, remaining: 1 });
    assert_eq!(fault(&[2, 5, 0]), DecodeFault::Truncated { needed: 1, remaining: 0 });
    assert_eq!(fault(&[0, 0]), DecodeFault::TrailingBytes(1));
    // Four billion tags are announced; each would take two bytes, so that the end comes first.
    assert_eq!(fault(&[0xff, 0xff, 0xff, 0xff, 0x0f]), DecodeFault::Truncated { needed: 1, remaining: 0 });
}

#[test]
fn known_tags_stand_between_unknown_ones() {
    // ApiVersionsResponse 3: no error, no APIs, throttle time 0; tag 1 (features epoch 7) before the unknown tag 9.
    let epoch = [1, 8, 0, 0, 0, 0, 0, 0, 0, 7];
    let body = [&[0, 0, 1, 0, 0, 0, 0, 2][..], &epoch, &[9, 1, 0xee]].concat();
    let message = ApiVersionsResponse::decode(&mut Decoder::new(Bytes::from(body)), 3).unwrap();
    assert_eq!(message, ApiVersionsResponse { finalized_features_epoch: 7, ..Default::default() });

    // The same with a length that is wrong for what it holds.
    for (len, fault) in [(9, DecodeFault::TagLength(1)), (7, DecodeFault::TagLength(1))] {
        let mut body = [&[0, 0, 1, 0, 0, 0, 0, 1][..], &epoch, &[0, 0, 0]].concat();
        body[9] = len;
        let error = ApiVersionsResponse::decode(&mut Decoder::new(Bytes::from(body)), 3).unwrap_err();
        assert_eq!(error.fault, fault);
    }
}

#[test]
fn a_tagged_field_longer_than_127_bytes_gets_a_longer_length() {
    use penstock_protocol::messages::api_versions_response::SupportedFeatureKey;

    for name_len in [1, 100, 115, 116, 117, 118, 119, 120, 200, 20_000] {
        let feature =
            SupportedFeatureKey { name: "n".repeat(name_len).into(), min_version: 1, max_version: 2 };
        let message = ApiVersionsResponse {
            supported_features: vec![feature],
            zk_migration_ready: true,
            ..Default::default()
        };
        let mut encoder = Encoder::new();
        message.encode(&mut encoder, 3).unwrap();
        let mut decoder = Decoder::new(encoder.finish_contiguous());
        assert_eq!(ApiVersionsResponse::decode(&mut decoder, 3), Ok(message));
        decoder.finish().unwrap();
    }
}
