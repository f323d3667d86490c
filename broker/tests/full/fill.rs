//! Producers fill the disk until they are refused; all else goes on, a killed broker comes back to the same, and deletion
//! makes room.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use penstock_format::{Records, split_batches};
use penstock_protocol::ErrorCode;

use crate::broker::{Broker, PATIENCE};
use crate::client::{Client, FETCH, PRODUCE, fetch, produce};

const PARTITIONS: i32 = 4;
/// Length of the values that fill the disk: straight to segments.
const LARGE: usize = 400_000;
/// Length of the values of the topic that stays: through the journal.
const SMALL: usize = 300;

/// Values acknowledged, by topic and partition: how many there are says what they are.
type Acknowledged = BTreeMap<(&'static str, i32), usize>;

fn value(topic: &str, partition: i32, number: usize, len: usize) -> String {
    let mut value = format!("{topic}-{partition}-{number} ");
    value.extend(std::iter::repeat_n((b'a' + (number % 26) as u8) as char, len - value.len()));
    value
}

fn len_of(topic: &str) -> usize {
    if topic == "fills" { LARGE } else { SMALL }
}

/// Produces the next value of a partition; says whether it was taken.
fn next(client: &mut Client, told: &mut Acknowledged, topic: &'static str, partition: i32) -> bool {
    let count = told.entry((topic, partition)).or_default();
    let value = value(topic, partition, *count, len_of(topic));
    let response = client.call(PRODUCE, &produce(topic, partition, &value, -1));
    let answer = &response.responses[0].partition_responses[0];
    match answer.error_code {
        0 => {
            assert_eq!(
                answer.base_offset as usize, *count,
                "{topic}-{partition}: nothing refused was written"
            );
            *count += 1;
            true
        }
        code => {
            assert_eq!(code, ErrorCode::KafkaStorageError.code(), "{answer:?}");
            false
        }
    }
}

/// Produces until every partition refuses.
fn fill(client: &mut Client, told: &mut Acknowledged) {
    let mut refused = 0;
    while refused < PARTITIONS {
        refused = 0;
        for partition in 0..PARTITIONS {
            refused += i32::from(!next(client, told, "fills", partition));
        }
    }
}

/// Everything acknowledged is there, and nothing else but what came after it.
fn check(client: &mut Client, told: &Acknowledged) {
    for ((topic, partition), count) in told {
        let mut offset = 0;
        while offset < *count {
            let response =
                client.call(FETCH, &fetch(topic, &[(*partition, i64::try_from(offset).unwrap())], 0));
            let answer = &response.responses[0].partitions[0];
            assert_eq!(answer.error_code, 0, "{topic}-{partition} at {offset}");
            let bytes = answer.records.as_ref().unwrap().to_bytes();
            let batches = split_batches(&bytes, usize::MAX).unwrap();
            assert!(!batches.is_empty(), "{topic}-{partition} ends at {offset} instead of {count}");
            for batch in batches {
                assert!(batch.crc_ok());
                for record in Records::open(&batch, 1 << 20).unwrap().iter() {
                    let expected = value(topic, *partition, offset, len_of(topic));
                    assert!(
                        record.unwrap().value.unwrap() == expected.as_bytes(),
                        "{topic}-{partition} {offset}"
                    );
                    offset += 1;
                }
            }
        }
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn penstock(broker: &Broker, args: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    let output = command.args(args.split(' ')).args(["--bootstrap", &broker.kafka]).output().unwrap();
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Commits an offset of a group, as its coordinator takes it.
fn commit(broker: &Broker, offset: usize) {
    penstock(broker, &format!("group reset-offsets g --topic keeps:0 --to-offset {offset} --execute"));
}

/// The value of a metric on each shard.
fn metric(broker: &Broker, name: &str) -> Vec<u64> {
    let page = broker.get("/metrics");
    let lines = page.lines().filter_map(|line| line.strip_prefix(&format!("penstock_{name}{{")));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

fn start(dir: &Path) -> Broker {
    Broker::start_with(dir, 2, &["offsets.topic.num.partitions=4"])
}

/// The steps of the module's first line.
pub(crate) fn refuses_and_resumes(dir: &Path) {
    let mut told = Acknowledged::new();
    let broker = start(dir);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("keeps", PARTITIONS);
    client.create_topic("fills", PARTITIONS);
    for n in 0..400 {
        assert!(next(&mut client, &mut told, "keeps", n % PARTITIONS));
    }
    commit(&broker, 7);
    fill(&mut client, &mut told);
    let filled: usize = (0..PARTITIONS).map(|partition| told[&("fills", partition)]).sum();
    assert!(filled * LARGE > 100 << 20, "{filled} values before the disk was full");
    assert!(!next(&mut client, &mut told, "keeps", 0));

    wait_until("metrics tell", || metric(&broker, "disk_full") == [1, 1]);
    let lines = |what: &str| broker.logged().lines().filter(|line| line.contains(what)).count();
    assert_eq!(lines("the disk is full"), 2, "once for each shard:\n{}", broker.logged());
    let (free, reserve) = (metric(&broker, "disk_free_bytes"), metric(&broker, "disk_reserve_bytes"));
    assert!(free[0] > 8 << 20 && free[0] < reserve[0] * 5 / 4, "{free:?} of {reserve:?}");
    check(&mut client, &told);
    for n in 0..20 {
        commit(&broker, n);
    }
    client.create_topic("new", 2);

    broker.kill();
    let broker = start(dir);
    let mut client = Client::connect(&broker.kafka);
    check(&mut client, &told);
    assert!(!next(&mut client, &mut told, "fills", 0), "still full");
    commit(&broker, 3);

    penstock(&broker, "topic delete fills");
    told.retain(|(topic, _), _| *topic == "keeps");
    for partition in 0..PARTITIONS {
        wait_until("there is room again", || next(&mut client, &mut told, "keeps", partition));
    }
    wait_until("metrics tell", || metric(&broker, "disk_full") == [0, 0]);
    let ended = broker.logged().lines().filter(|line| line.contains("there is room again")).count();
    assert_eq!(ended, 2, "once for each shard:\n{}", broker.logged());
    client.create_topic("fills", PARTITIONS);
    fill(&mut client, &mut told);
    check(&mut client, &told);
    assert!(broker.stop().success(), "a full disk lets it stop");
    let broker = start(dir);
    check(&mut Client::connect(&broker.kafka), &told);
    broker.kill();
}
