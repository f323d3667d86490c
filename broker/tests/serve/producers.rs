//! More idempotent producers than memory has room for: a batch that comes again is told from a new one whether its producer
//! is in memory or on disk, and whatever ended the broker meanwhile.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use penstock_format::{BatchBuilder, NewRecord};
use penstock_protocol::messages::{InitProducerIdRequest, ProduceRequest};

use crate::broker::{Broker, PATIENCE, directory};
use crate::client::{Client, PRODUCE, produce_batch};

const INIT_PRODUCER_ID: i16 = 4;
const TOPIC: &str = "many";
const PARTITIONS: i32 = 4;
/// Six for each that the two shards have room for in memory.
const PRODUCERS: usize = 192;
const ROOM: &str = "penstock.shard.producers.max=16";
const RECORDS: usize = 2;
/// Batches of a producer that a log knows.
const KNOWN: usize = 5;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;

/// A producer of one partition.
struct Producer {
    id: i64,
    epoch: i16,
    partition: i32,
    /// First offsets of the batches of this epoch.
    offsets: Vec<i64>,
    /// Batches of earlier epochs.
    earlier: usize,
}

impl Producer {
    fn new(client: &mut Client, partition: i32) -> Producer {
        let nobody = InitProducerIdRequest {
            transactional_id: None,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let told = client.call(INIT_PRODUCER_ID, &nobody);
        assert_eq!(told.error_code, 0);
        let (id, epoch) = (told.producer_id, told.producer_epoch);
        Producer { id, epoch, partition, offsets: Vec::new(), earlier: 0 }
    }

    /// Sends a batch, which may have been sent before.
    fn send(&self, client: &mut Client, epoch: i16, batch: usize) -> i32 {
        let sequence = i32::try_from(batch * RECORDS).unwrap();
        let mut builder = BatchBuilder::new().producer(self.id, epoch, sequence);
        for record in 0..RECORDS {
            let value = format!("{} {epoch} {batch} {record}", self.id);
            builder.append(&NewRecord { value: Some(value.as_bytes()), ..NewRecord::default() }).unwrap();
        }
        client.send(PRODUCE, &produce_batch(TOPIC, self.partition, &builder.finish().unwrap(), -1))
    }

    /// The last batches that its log knows.
    fn known(&self) -> std::ops::Range<usize> {
        self.offsets.len().saturating_sub(KNOWN)..self.offsets.len()
    }

    /// Sends all that the log has to know, a new batch, and once more what it has to know now, before anything is answered.
    fn repeat_and_go_on(&mut self, client: &mut Client) {
        let new = self.offsets.len();
        let mut sent: Vec<_> = self.known().chain([new]).collect();
        sent.extend((new + 1).saturating_sub(KNOWN)..=new);
        let ids: Vec<i32> = sent.iter().map(|batch| self.send(client, self.epoch, *batch)).collect();
        for (batch, id) in sent.into_iter().zip(ids) {
            let (error, offset) = answer(client, id);
            assert_eq!(error, 0, "producer {} batch {batch}", self.id);
            if batch == self.offsets.len() {
                assert!(self.offsets.last().is_none_or(|last| *last < offset), "batch {batch} is new");
                self.offsets.push(offset);
            }
            assert_eq!(offset, self.offsets[batch], "producer {} batch {batch}", self.id);
        }
    }

    /// Begins anew with the next epoch.
    fn begin_epoch(&mut self, client: &mut Client) {
        self.earlier += self.offsets.len();
        self.epoch += 1;
        self.offsets.clear();
        self.repeat_and_go_on(client);
    }
}

/// The error that a Produce request is answered with, and the first offset.
fn answer(client: &mut Client, id: i32) -> (i16, i64) {
    let response = client.receive::<ProduceRequest>(PRODUCE, id);
    let answer = &response.responses[0].partition_responses[0];
    (answer.error_code, answer.base_offset)
}

fn start(dir: &Path) -> Broker {
    Broker::start_with(dir, 2, &[ROOM])
}

/// The sum of a metric over all shards.
fn sum(broker: &Broker, name: &str) -> u64 {
    let page = broker.get("/metrics");
    let of_shards = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    of_shards.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Waits until a metric is as it has to be.
fn until(broker: &Broker, name: &str, is_right: impl Fn(u64) -> bool) {
    let since = Instant::now();
    while !is_right(sum(broker, name)) {
        assert!(since.elapsed() < PATIENCE, "{name} is {}", sum(broker, name));
        thread::sleep(Duration::from_millis(50));
    }
}

/// Each producer repeats itself and goes on, those first that are silent for longest. The first one has a new epoch, and
/// stays fenced from the one before.
fn all_go_on(broker: &Broker, producers: &mut [Producer]) {
    let mut client = Client::connect(&broker.kafka);
    for producer in &mut *producers {
        producer.repeat_and_go_on(&mut client);
    }
    let first = &producers[0];
    let id = first.send(&mut client, first.epoch - 1, 0);
    assert_eq!(answer(&mut client, id).0, INVALID_PRODUCER_EPOCH);
    let id = first.send(&mut client, first.epoch, first.offsets.len() + 1);
    assert_eq!(answer(&mut client, id).0, OUT_OF_ORDER_SEQUENCE_NUMBER);
    for partition in 0..PARTITIONS {
        let own = producers.iter().filter(|producer| producer.partition == partition);
        let batches: usize = own.map(|producer| producer.earlier + producer.offsets.len()).sum();
        let found = client.consume(TOPIC, partition).len();
        assert_eq!(found, batches * RECORDS, "records of partition {partition}, none twice and none missing");
    }
}

/// Memory keeps to its bound, and those beyond it are on disk.
fn check_levels(broker: &Broker) {
    let count = PRODUCERS as u64;
    until(broker, "penstock_spilled_producers", |spilled| spilled >= count - 32);
    until(broker, "penstock_producers_brought_back_total", |brought| brought >= count - 32);
    assert!(sum(broker, "penstock_producers") <= 32);
    assert_eq!(sum(broker, "penstock_producers_forgotten_total"), 0);
}

#[test]
fn batches_that_come_again_are_known_however_many_producers_there_are() {
    let dir = directory();
    let mut broker = start(dir.path());
    let mut client = Client::connect(&broker.kafka);
    client.create_topic(TOPIC, PARTITIONS);
    let mut producers: Vec<Producer> = (0..PARTITIONS)
        .cycle()
        .take(PRODUCERS)
        .map(|partition| Producer::new(&mut client, partition))
        .collect();
    for producer in &mut producers {
        (0..2).for_each(|_| producer.repeat_and_go_on(&mut client));
    }
    producers[0].begin_epoch(&mut client);
    all_go_on(&broker, &mut producers);
    check_levels(&broker);
    // First nothing but the journal tells of them, then a checkpoint names what is on disk, then there are frames behind it.
    for killed in [true, false, true] {
        match killed {
            true => broker.kill(),
            false => assert!(broker.stop().success()),
        }
        broker = start(dir.path());
        all_go_on(&broker, &mut producers);
        check_levels(&broker);
    }
    assert!(broker.stop().success());
    inspect(&dir.path().join("data"));
}

/// What the commands tell of producers on disk.
fn inspect(data: &Path) {
    let penstock = |args: &[&str]| {
        let ended = Command::new(env!("CARGO_BIN_EXE_penstock")).args(args).arg(data).output().unwrap();
        (ended.status.success(), String::from_utf8(ended.stdout).unwrap())
    };
    let (known, said) = penstock(&["inspect", "checkpoint"]);
    assert!(known && said.contains("producers on disk: "), "{said}");
    let (whole, said) = penstock(&["check"]);
    assert!(whole, "{said}");
    let run = fs::read_dir(data.join("shard-1/producers")).unwrap().next().unwrap().unwrap().path();
    let file = File::options().read(true).write(true).open(&run).unwrap();
    let mut entry = [0; 1];
    file.read_exact_at(&mut entry, 4096 + 40).unwrap();
    file.write_all_at(&[!entry[0]], 4096 + 40).unwrap();
    let (whole, said) = penstock(&["check"]);
    assert!(!whole && said.contains(run.file_name().unwrap().to_str().unwrap()), "{said}");
}
