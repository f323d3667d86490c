//! Loads against the broker that keeps nothing: every request is answered, none is lost at the end of a run.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use penstock_format::Compression;
use penstock_loadgen::client::{Cluster, OffsetSpec};
use penstock_loadgen::consume::{self, ConsumeSpec, FetchBounds};
use penstock_loadgen::null::{self, NullBroker};
use penstock_loadgen::payload::{Payload, PayloadSpec};
use penstock_loadgen::produce::{self, ProduceSpec};
use penstock_loadgen::quantity::Rate;
use penstock_loadgen::report::Totals;

const PARTITIONS: i32 = 6;

fn payload() -> PayloadSpec {
    let compression = Compression::None;
    PayloadSpec { record_size: 100, batch_records: 10, compression, keys: None, random: 1.0 }
}

fn cluster() -> Cluster {
    let batch = Payload::encode(&payload(), PARTITIONS).unwrap().batch(0).cloned();
    let address = null::start(NullBroker { partitions: PARTITIONS, batch }).unwrap();
    Cluster::new(&address.to_string(), "test")
}

fn load() -> ProduceSpec {
    ProduceSpec {
        cluster: cluster(),
        topic: "t".to_owned(),
        create: None,
        partitions: None,
        payload: payload(),
        producers: 2,
        connections: 2,
        acks: -1,
        idempotent: false,
        rate: None,
        in_flight: 5,
        batches_per_request: 1,
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(300),
        threads: 2,
        progress: false,
    }
}

fn assert_whole(totals: &Totals) {
    assert!(totals.counts.records > 0 && totals.counts.requests > 0);
    assert_eq!((totals.counts.error_count(), totals.unanswered), (0, 0), "{:?}", totals.counts.errors);
}

#[test]
fn every_way_to_produce_is_answered() {
    for spec in [
        load(),
        ProduceSpec { idempotent: true, batches_per_request: 3, ..load() },
        ProduceSpec { rate: Some(Rate::Records(5000.0)), connections: 1, ..load() },
        ProduceSpec { partitions: Some(vec![1, 4]), connections: 9, ..load() },
        ProduceSpec { payload: PayloadSpec { keys: Some(50), ..payload() }, ..load() },
    ] {
        let totals = produce::run(spec).unwrap();
        assert_whole(&totals);
        assert!(totals.counts.latency.len() >= totals.counts.requests);
    }
}

#[test]
fn without_acknowledgements_requests_are_counted_as_they_leave() {
    let totals = produce::run(ProduceSpec { acks: 0, ..load() }).unwrap();
    assert_whole(&totals);
    assert!(totals.counts.latency.is_empty());
}

#[test]
fn fetches_are_counted_and_skimmed() {
    let spec = ConsumeSpec {
        cluster: cluster(),
        topic: "t".to_owned(),
        partitions: None,
        readers: 2,
        connections: 2,
        from: OffsetSpec::Earliest,
        cycle: false,
        fetch: FetchBounds { max_bytes: 100_000, ..FetchBounds::default() },
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(300),
        threads: 1,
        progress: false,
    };
    let totals = consume::run(spec).unwrap();
    assert_whole(&totals);
    assert_eq!(totals.counts.records % 10, 0, "whole batches of ten");
}
