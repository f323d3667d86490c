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
/// Length of the values that fill the disk.
const LARGE: usize = 400_000;
/// Length of the values of the topic that stays.
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

/// Produces until every partition refuses; the number of values taken until then.
fn fill(client: &mut Client, told: &mut Acknowledged) -> usize {
    let mut taken = 0;
    let mut refused = 0;
    while refused < PARTITIONS {
        refused = 0;
        for partition in 0..PARTITIONS {
            match next(client, told, "fills", partition) {
                true => taken += 1,
                false => refused += 1,
            }
        }
    }
    taken
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

/// What the log says of a shard's room, in order: whether the disk is full.
fn told_of_room(broker: &Broker, shard: usize) -> Vec<bool> {
    let of_shard = |line: &&str| line.contains(&format!("/shard-{shard} free="));
    broker.logged().lines().filter(of_shard).map(|line| line.contains("the disk is full")).collect()
}

/// Each shard's metrics and its last line in the log say that the disk is full, and most of the reserve is there.
fn tells_of_a_full_disk(broker: &Broker) {
    wait_until("metrics tell", || metric(broker, "disk_full") == [1, 1]);
    for shard in 0..2 {
        assert_eq!(told_of_room(broker, shard).last(), Some(&true), "{}", broker.logged());
    }
    let (free, reserve) = (metric(broker, "disk_free_bytes"), metric(broker, "disk_reserve_bytes"));
    assert!(free[0] > 8 << 20 && free[0] < reserve[0] * 5 / 4, "{free:?} of {reserve:?}");
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
    let filled = fill(&mut client, &mut told);
    assert!(filled * LARGE > 100 << 20, "{filled} values before the disk was full");
    assert!(!next(&mut client, &mut told, "keeps", 0));
    tells_of_a_full_disk(&broker);
    for shard in 0..2 {
        assert_eq!(told_of_room(&broker, shard), [true], "once for each shard:\n{}", broker.logged());
    }
    check(&mut client, &told);
    for n in 0..20 {
        commit(&broker, n);
    }
    client.create_topic("new", 2);

    broker.kill();
    let broker = start(dir);
    let mut client = Client::connect(&broker.kafka);
    check(&mut client, &told);
    // What the reserve had to bear for writes under way is settled, so that there may be room for some values again.
    fill(&mut client, &mut told);
    tells_of_a_full_disk(&broker);
    check(&mut client, &told);
    commit(&broker, 3);

    penstock(&broker, "topic delete fills");
    told.retain(|(topic, _), _| *topic == "keeps");
    for partition in 0..PARTITIONS {
        wait_until("there is room again", || next(&mut client, &mut told, "keeps", partition));
    }
    wait_until("metrics tell", || metric(&broker, "disk_full") == [0, 0]);
    for shard in 0..2 {
        let told = told_of_room(&broker, shard);
        assert!(told.ends_with(&[true, false]), "once for each shard:\n{}", broker.logged());
    }
    client.create_topic("fills", PARTITIONS);
    fill(&mut client, &mut told);
    check(&mut client, &told);
    assert!(broker.stop().success(), "a full disk lets it stop");
    let broker = start(dir);
    check(&mut Client::connect(&broker.kafka), &told);
    broker.kill();
}
