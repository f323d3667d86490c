//! Every vector decodes to its value and encodes to its bytes; no beginning of it decodes.

use std::collections::BTreeSet;

use crate::codec::{CODECS, Codec};
use crate::corpus::vectors;
use crate::debug_tree::Tree;

#[test]
fn every_vector_decodes_to_its_value_and_encodes_to_its_bytes() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 1392 + 10, "Apache Kafka's, and those of our own records");
    assert_eq!(vectors.iter().filter(|vector| vector.body != vector.again).count(), 12);
    for vector in &vectors {
        let at = format!("{} {} {}", vector.message, vector.version, vector.name);
        let codec = Codec::named(&vector.message);
        let decoded = (codec.decode)(vector.body.clone(), vector.version)
            .unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(decoded.again, vector.again, "{at}");
        let value = if decoded.debug == codec.name {
            Tree::Structure(Vec::new())
        } else {
            Tree::parse(&decoded.debug)
        };
        value.assert_matches(&vector.value, &at);
    }
}

#[test]
fn every_version_of_every_message_has_a_vector() {
    let covered: BTreeSet<_> = vectors().into_iter().map(|vector| (vector.message, vector.version)).collect();
    let missing: Vec<_> = CODECS
        .iter()
        .flat_map(|codec| codec.versions.iter().map(|version| (codec.name.to_owned(), version)))
        .filter(|version| !covered.contains(version))
        .collect();
    assert_eq!(missing, []);
}

#[test]
fn no_vector_decodes_when_cut_anywhere() {
    for vector in vectors() {
        let codec = Codec::named(&vector.message);
        for len in 0..vector.body.len() {
            let cut = (codec.check)(vector.body.slice(..len), vector.version);
            assert!(cut.is_err(), "{} {} {} cut at {len}", vector.message, vector.version, vector.name);
        }
    }
}

#[test]
fn other_versions_are_refused() {
    for codec in CODECS {
        for version in [codec.versions.min - 1, codec.versions.max + 1, i16::MIN, i16::MAX] {
            assert!((codec.check)(bytes::Bytes::new(), version).is_err(), "{} {version}", codec.name);
        }
    }
}
