//! One bit of a whole data directory is flipped while no broker runs on it: files of topics, of the metadata, of groups, of
//! the shards. What the next start then serves is what was acknowledged, or it says what is lost; the offline check finds it.
//!
//! Of each file a seeded sample, six bits by default and `PENSTOCK_DIRECTORY_FLIPS` of them where that is set. What becomes of
//! each single bit of a shard's files is tested by the storage package, without processes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use penstock_format::split_batches;
use penstock_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use penstock_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use penstock_protocol::messages::{FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest};
use penstock_protocol::{ErrorCode, WireString};

use crate::broker::{Broker, PATIENCE, directory};
use crate::client::{Client, FETCH, fetch, values_in};

const SHARDS: usize = 2;
const SETTINGS: [&str; 3] = [
    "offsets.topic.num.partitions=1",
    "offsets.topic.replication.factor=1",
    "metadata.log.max.record.bytes.between.snapshots=2000",
];
const FIND_COORDINATOR: i16 = 2;
const OFFSET_COMMIT: i16 = 7;
const OFFSET_FETCH: i16 = 5;
const BLOCK: usize = 4096;
/// Where bytes are not zero, or this near to one that is not, they mean something.
const NEAR: usize = 8;

/// What was acknowledged: the values of each partition, and the group's offset in it.
struct Truth {
    values: BTreeMap<i32, Vec<String>>,
    committed: BTreeMap<i32, i64>,
}

/// A directory as a broker left it: of each file its length and its blocks that are not all zero.
struct Image {
    files: BTreeMap<PathBuf, (u64, BTreeMap<u64, Vec<u8>>)>,
}

impl Image {
    fn take(dir: &Path) -> Image {
        let mut files = BTreeMap::new();
        collect(dir, dir, &mut files);
        Image { files }
    }

    /// Puts the directory back as it was.
    fn restore(&self, dir: &Path) {
        if dir.exists() {
            fs::remove_dir_all(dir).unwrap();
        }
        for (name, (len, blocks)) in &self.files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = File::create(&path).unwrap();
            file.set_len(*len).unwrap();
            for (position, block) in blocks {
                file.write_all_at(block, *position).unwrap();
            }
        }
    }

    /// Bits to flip: of each file some, where bytes mean something.
    fn flips(&self, of_each: usize) -> Vec<Flip> {
        let mut random = oorandom::Rand64::new(21);
        let mut flips = Vec::new();
        for (name, (_, blocks)) in &self.files {
            let mut told = Vec::new();
            for (position, block) in blocks {
                let near = |at: usize| &block[at.saturating_sub(NEAR)..block.len().min(at + NEAR + 1)];
                let means = |at: &usize| near(*at).iter().any(|byte| *byte != 0);
                told.extend((0..block.len()).filter(means).map(|at| position + at as u64));
            }
            for _ in 0..of_each.min(told.len()) {
                let at = told[random.rand_range(0..told.len() as u64) as usize];
                flips.push(Flip { name: name.clone(), at, bit: random.rand_range(0..8) as u8 });
            }
        }
        flips
    }
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<PathBuf, (u64, BTreeMap<u64, Vec<u8>>)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
            continue;
        }
        let content = fs::read(&path).unwrap();
        let blocks = content.chunks(BLOCK).enumerate();
        let told = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        let told = told.map(|(number, block)| ((number * BLOCK) as u64, block.to_vec())).collect();
        files.insert(path.strip_prefix(root).unwrap().to_owned(), (content.len() as u64, told));
    }
}

#[derive(Debug)]
struct Flip {
    name: PathBuf,
    at: u64,
    bit: u8,
}

impl Flip {
    fn apply(&self, dir: &Path) {
        let file = File::options().read(true).write(true).open(dir.join(&self.name)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << self.bit)], self.at).unwrap();
    }
}

/// What became of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Intact,
    /// Something cannot be read, and the answer says so.
    Lost,
    /// The broker does not start, and names the file.
    Refused,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A topic of three partitions, one of them in several segments; records of a closed life and of a killed one; a group.
fn write(dir: &Path) -> Truth {
    let mut values: BTreeMap<i32, Vec<String>> = (0..3).map(|partition| (partition, Vec::new())).collect();
    let large = "penstock ".repeat(40_000);
    for life in 0..2 {
        let broker = Broker::start_with(dir, SHARDS, &SETTINGS);
        let mut client = Client::connect(&broker.kafka);
        if life == 0 {
            client.create_topic("flips", 3);
        }
        for number in 0..6 {
            for (partition, values) in &mut values {
                let value = match partition {
                    0 => format!("{life}-{number} {large}"),
                    _ => format!("{life}-{number} of partition {partition}"),
                };
                client.produce("flips", *partition, &value);
                values.push(value);
            }
        }
        match life {
            0 => assert!(broker.stop().success()),
            _ => {
                let committed = BTreeMap::from([(0, 3), (1, 7), (2, 11)]);
                commit(&mut client, &committed);
                vouched(dir);
                broker.kill();
                released(&dir.join("data"));
                return Truth { values, committed };
            }
        }
    }
    unreachable!("the second life ends it")
}

fn commit(client: &mut Client, offsets: &BTreeMap<i32, i64>) {
    let partitions = offsets.iter().map(|(partition, offset)| OffsetCommitRequestPartition {
        partition_index: *partition,
        committed_offset: *offset,
        committed_leader_epoch: -1,
        ..OffsetCommitRequestPartition::default()
    });
    let topic = OffsetCommitRequestTopic {
        name: WireString::from("flips"),
        partitions: partitions.collect(),
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: WireString::from("flippers"),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    find_coordinator(client);
    let since = Instant::now();
    loop {
        let response = client.call(OFFSET_COMMIT, &request);
        let codes: Vec<_> = response.topics[0].partitions.iter().map(|told| told.error_code).collect();
        if codes.iter().all(|code| *code == 0) {
            return;
        }
        // The group's partition is being made.
        assert!(since.elapsed() < PATIENCE, "{codes:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Asks for the group's coordinator, which makes the topic of the offsets.
fn find_coordinator(client: &mut Client) {
    let request =
        FindCoordinatorRequest { key: WireString::from("flippers"), ..FindCoordinatorRequest::default() };
    client.call(FIND_COORDINATOR, &request);
}

/// Waits until later frames vouch for the last ones with content: then no flip can pass for a torn tail.
fn vouched(dir: &Path) {
    let since = Instant::now();
    let told = |shard: usize| {
        let journals = fs::read_dir(dir.join(format!("data/shard-{shard}/journal"))).unwrap();
        let mut frames: Vec<serde_json::Value> = Vec::new();
        for journal in journals {
            let path = journal.unwrap().path();
            let shown = penstock().args(["inspect", "journal", "--json"]).arg(&path).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            frames.extend(shown.lines().map(|line| serde_json::from_str(line).unwrap()));
        }
        let number = |frame: &serde_json::Value, what: &str| frame[what].as_u64().unwrap();
        let durable = frames.iter().map(|frame| number(frame, "durable_seq")).max().unwrap_or(0);
        let full = frames.iter().filter(|frame| !frame["entries"].as_array().unwrap().is_empty());
        full.map(|frame| number(frame, "seq")).max().unwrap_or(0) <= durable
    };
    while !(0..SHARDS).all(told) {
        assert!(since.elapsed() < PATIENCE, "the last frames stay untold");
        thread::sleep(Duration::from_millis(100));
    }
}

fn penstock() -> Command {
    Command::new(env!("CARGO_BIN_EXE_penstock"))
}

/// Waits until the kernel has ended a killed broker's last operations.
fn released(data: &Path) {
    let lock = File::open(data.join("penstock.lock")).unwrap();
    let since = Instant::now();
    while lock.try_lock_shared().is_err() {
        assert!(since.elapsed() < PATIENCE, "somebody has {}", data.display());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Starts the broker and reads everything; an error is what is neither right nor told.
fn judge(dir: &Path, flip: &Flip, truth: &Truth) -> Result<Verdict, String> {
    let broker = match Broker::try_start(dir, SHARDS, &SETTINGS) {
        Ok(broker) => broker,
        Err(said) => {
            let name = flip.name.file_name().unwrap().to_str().unwrap();
            return match said.contains(name) && !said.contains("panicked") {
                true => Ok(Verdict::Refused),
                false => Err(format!("it does not start and does not name the file: {said}")),
            };
        }
    };
    let mut client = Client::connect(&broker.kafka);
    let mut verdicts = Vec::new();
    for (partition, values) in &truth.values {
        verdicts.push(read(&mut client, *partition, values)?);
    }
    verdicts.push(committed(&mut client, &truth.committed)?);
    let lost = verdicts.iter().filter(|verdict| **verdict == Verdict::Lost).count();
    let verdict = verdicts.into_iter().max().unwrap_or(Verdict::Intact);
    let said = broker.logged();
    if said.contains("panicked") {
        return Err(said);
    }
    if verdict == Verdict::Lost && !said.contains("damaged") && !said.contains("corrupt") {
        return Err("a loss that the log does not tell of".to_owned());
    }
    if verdict == Verdict::Lost && lost > 1 {
        return Err(format!("one bit costs {lost} logs"));
    }
    let has_records = flip.name.extension().is_some_and(|ending| ending == "log" || ending == "journal");
    if verdict == Verdict::Lost && !has_records {
        return Err("a file that is made again, and something is lost".to_owned());
    }
    broker.kill();
    released(&dir.join("data"));
    Ok(verdict)
}

/// Reads a partition offset by offset.
fn read(client: &mut Client, partition: i32, values: &[String]) -> Result<Verdict, String> {
    let mut verdict = Verdict::Intact;
    for (offset, value) in values.iter().enumerate() {
        let response = client.call(FETCH, &fetch("flips", &[(partition, offset as i64)], 0));
        let told = &response.responses[0].partitions[0];
        match ErrorCode::from_code(told.error_code) {
            ErrorCode::None => {}
            ErrorCode::CorruptMessage | ErrorCode::KafkaStorageError => {
                verdict = Verdict::Lost;
                continue;
            }
            error => return Err(format!("partition {partition}, offset {offset}: {error:?}")),
        }
        let bytes = told.records.as_ref().map(|records| records.to_bytes()).unwrap_or_default();
        let first = split_batches(&bytes, usize::MAX).ok().and_then(|batches| batches.into_iter().next());
        let right = first.is_some_and(|first| {
            first.crc_ok()
                && first.header.base_offset == offset as i64
                && values_in(&first) == [value.as_str()]
        });
        if !right {
            return Err(format!("partition {partition}, offset {offset}: another record, or none"));
        }
    }
    Ok(verdict)
}

fn committed(client: &mut Client, offsets: &BTreeMap<i32, i64>) -> Result<Verdict, String> {
    let topic = OffsetFetchRequestTopic {
        name: WireString::from("flips"),
        partition_indexes: offsets.keys().copied().collect(),
    };
    let request = OffsetFetchRequest {
        group_id: WireString::from("flippers"),
        topics: Some(vec![topic]),
        ..OffsetFetchRequest::default()
    };
    let since = Instant::now();
    loop {
        let response = client.call(OFFSET_FETCH, &request);
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                let told = response.topics.iter().flat_map(|topic| &topic.partitions);
                let told: BTreeMap<_, _> =
                    told.map(|told| (told.partition_index, told.committed_offset)).collect();
                return match told == *offsets {
                    true => Ok(Verdict::Intact),
                    false => Err(format!("the group has committed {told:?}")),
                };
            }
            ErrorCode::CoordinatorLoadInProgress => {}
            ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator | ErrorCode::KafkaStorageError => {
                return Ok(Verdict::Lost);
            }
            error => return Err(format!("the group's offsets: {error:?}")),
        }
        if since.elapsed() > PATIENCE {
            return Err("the group is loaded for ever".to_owned());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the offline check finds damage in the directory, and what it says.
fn check(data: &Path) -> io::Result<(bool, String)> {
    let run = penstock().arg("check").arg(data).output()?;
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(!said.contains("panicked"), "{said}");
    Ok((!run.status.success(), said))
}

#[test]
fn a_flipped_bit_of_a_data_directory_is_harmless_or_told() {
    let of_each = std::env::var("PENSTOCK_DIRECTORY_FLIPS").map_or(6, |count| count.parse().unwrap());
    let dir = directory();
    let data = dir.path().join("data");
    let truth = write(dir.path());
    let image = Image::take(&data);
    let (damaged, said) = check(&data).unwrap();
    assert!(!damaged, "{said}");
    let (mut tally, mut wrong) = (BTreeMap::<Verdict, usize>::new(), Vec::new());
    for flip in image.flips(of_each) {
        image.restore(&data);
        flip.apply(&data);
        let (damaged, said) = check(&data).unwrap();
        fs::write(dir.path().join("stderr"), "").unwrap();
        match judge(dir.path(), &flip, &truth) {
            Err(why) => {
                let logged = fs::read_to_string(dir.path().join("stderr")).unwrap();
                wrong.push(format!("{flip:?}: {why}; the broker logged\n{logged}"));
            }
            Ok(verdict) => {
                *tally.entry(verdict).or_default() += 1;
                if verdict != Verdict::Intact && !damaged {
                    wrong.push(format!("{flip:?}: {verdict}, but the check finds nothing: {said}"));
                }
                let name = flip.name.file_name().unwrap().to_str().unwrap();
                if damaged && !said.contains(name) && !said.contains("metadata") {
                    wrong.push(format!("{flip:?}: the check does not name the file: {said}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tally:?} go wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(tally.contains_key(&Verdict::Lost) && tally.contains_key(&Verdict::Intact), "{tally:?}");
}
