#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use penstock_protocol::{Uuid, WireString};
use proptest::prelude::*;

use super::*;
use crate::group::partition_for;

/// Keys and values as Apache Kafka 4.3.1 writes them; the file says how they were made.
const VECTORS: &str = include_str!("../../../testdata/consumer-offsets-records.txt");

fn unhex(hex: &str) -> Bytes {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn vectors() -> impl Iterator<Item = (&'static str, i16, Bytes)> {
    VECTORS.lines().filter(|line| !line.starts_with('#') && !line.starts_with("partition-of")).map(|line| {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        (word(), word().parse().unwrap(), unhex(word()))
    })
}

fn text(text: &str) -> WireString {
    WireString::from(text)
}

fn offset(name: &str) -> OffsetValue {
    let value = |offset, leader_epoch, metadata: &str, commit_ms, expire_ms| {
        let metadata = text(metadata);
        OffsetValue { offset, leader_epoch, metadata, commit_ms, expire_ms, topic_id: Uuid::ZERO }
    };
    match name {
        "plain" => value(42, 5, "note", 1_700_000_000_123, -1),
        "expiring" => value(i64::MAX, -1, "", 1, 1_700_000_099_999),
        "topic-id" => {
            let topic_id = Uuid::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
            OffsetValue { topic_id, ..value(0, 0, "é", -1, -1) }
        }
        other => unreachable!("{other}"),
    }
}

fn member(member_id: &str, instance_id: Option<&str>, bytes: (&[u8], &[u8])) -> MemberValue {
    MemberValue {
        member_id: text(member_id),
        instance_id: instance_id.map(text),
        client_id: text("c"),
        client_host: text("/127.0.0.1"),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 45_000,
        subscription: Bytes::copy_from_slice(bytes.0),
        assignment: Bytes::copy_from_slice(bytes.1),
    }
}

fn group(name: &str) -> GroupValue {
    let first = member("c-1", None, (&[0, 1, 2], &[9, 8]));
    let second = MemberValue {
        client_id: text(""),
        client_host: text("/10.0.0.2"),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        ..member("i-2", Some("i"), (&[], &[255]))
    };
    let members = match name {
        "plain" => vec![first],
        "static" => vec![first, second],
        "empty" => Vec::new(),
        other => unreachable!("{other}"),
    };
    if name == "empty" {
        let (protocol_type, since_ms) = (text(""), 17);
        return GroupValue { protocol_type, generation: 0, protocol: None, leader: None, since_ms, members };
    }
    GroupValue {
        protocol_type: text("consumer"),
        generation: 3,
        protocol: Some(text("range")),
        leader: Some(text("c-1")),
        since_ms: 1_700_000_000_456,
        members,
    }
}

/// What a value reads as in a version that lacks some of its fields.
fn older_offset(mut value: OffsetValue, version: i16) -> OffsetValue {
    if version < 3 {
        value.leader_epoch = -1;
    }
    if version < 4 {
        value.topic_id = Uuid::ZERO;
    }
    value
}

fn older_group(mut value: GroupValue, version: i16) -> GroupValue {
    if version < 2 {
        value.since_ms = -1;
    }
    for member in &mut value.members {
        if version < 1 {
            member.rebalance_timeout_ms = -1;
        }
        if version < 3 {
            member.instance_id = None;
        }
    }
    value
}

#[test]
fn keys_and_values_are_those_of_kafka_to_the_byte() {
    let mut seen = 0;
    for (name, version, bytes) in vectors() {
        let (kind, name) = name.split_once('.').unwrap();
        match kind {
            "offset-key" => {
                let (group, topic, partition) = match name {
                    "plain" => ("orders", "events", 7),
                    _ => ("grüße-日本", "t", i32::MAX),
                };
                let key = OffsetKey { group: text(group), topic: text(topic), partition };
                let record = GroupRecord::Offset(key, None);
                assert_eq!(record.encode().key, bytes, "{name}");
                assert_eq!(GroupRecord::decode(Some(&bytes), None), Ok(Some(record)), "{name}");
            }
            "group-key" => {
                let record = GroupRecord::Group(text(if name == "plain" { "orders" } else { "" }), None);
                assert_eq!(record.encode().key, bytes, "{name}");
                assert_eq!(GroupRecord::decode(Some(&bytes), None), Ok(Some(record)), "{name}");
            }
            "offset-value" => {
                let value = offset(name);
                assert_eq!(value.encode_as(version), bytes, "{name} {version}");
                assert_eq!(OffsetValue::decode(&bytes), Ok(older_offset(value, version)), "{name} {version}");
            }
            "group-value" => {
                let value = group(name);
                assert_eq!(value.encode_as(version), bytes, "{name} {version}");
                assert_eq!(GroupValue::decode(&bytes), Ok(older_group(value, version)), "{name} {version}");
            }
            other => unreachable!("{other}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 24);
}

#[test]
fn versions_written_are_those_of_kafka() {
    assert_eq!(offset("plain").encode()[..2], [0, 4]);
    assert_eq!(offset("expiring").encode()[..2], [0, 1]);
    assert_eq!(group("plain").encode()[..2], [0, 3]);
}

#[test]
fn groups_belong_to_the_partition_that_java_computes() {
    let mut seen = 0;
    for line in VECTORS.lines().filter_map(|line| line.strip_prefix("partition-of ")) {
        let (id, partitions) = line.split_once("- ").unwrap();
        let id = String::from_utf8(unhex(id).to_vec()).unwrap();
        let (of_50, of_7) = partitions.split_once(',').unwrap();
        assert_eq!(partition_for(&id, 50), of_50.parse().unwrap(), "{id}");
        assert_eq!(partition_for(&id, 7), of_7.parse().unwrap(), "{id}");
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn kinds_of_newer_group_types_are_passed_over() {
    let key = Bytes::from_static(&[0, 3, 0, 1, b'g']);
    assert_eq!(GroupRecord::decode(Some(&key), None), Ok(None));
    assert_eq!(GroupRecord::decode(None, None), Err(RecordError::NoKey));
    let key = Bytes::from_static(&[0, 2, 0, 1, b'g']);
    let newer = Bytes::from_static(&[0, 5]);
    assert_eq!(GroupRecord::decode(Some(&key), Some(&newer)), Err(RecordError::Version(5)));
}

#[test]
fn every_truncation_is_an_error() {
    for (name, version, bytes) in vectors().filter(|(name, ..)| name.contains("value")) {
        for len in 0..bytes.len() {
            let cut = bytes.slice(..len);
            let failed = if name.starts_with("offset") {
                OffsetValue::decode(&cut).is_err()
            } else {
                GroupValue::decode(&cut).is_err()
            };
            assert!(failed, "{name} {version} cut to {len}");
        }
    }
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0i16..4) {
        let mut bytes = bytes;
        if bytes.len() > 1 {
            bytes[0] = 0;
            bytes[1] = kind as u8;
        }
        let bytes = Bytes::from(bytes);
        let _ = GroupRecord::decode(Some(&bytes), Some(&bytes));
        let _ = OffsetValue::decode(&bytes);
        if let Ok(value) = GroupValue::decode(&bytes) {
            prop_assert!(value.members.len() <= bytes.len());
        }
    }
}
