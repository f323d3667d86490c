//! `check` and `inspect` on directories with damage that was planted, and on some that a crash left.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE, directory};
use crate::command::{Run, penstock, penstock_with, released};

/// A data directory of two shards with a topic `t` of two partitions, whose broker was killed.
fn killed(dir: &Path) -> PathBuf {
    let broker = Broker::start(dir, 2);
    let run =
        |args: &str, input: &[u8]| penstock_with(&format!("{args} --bootstrap {}", broker.kafka), input);
    run("topic create t --partitions 2", b"").ok();
    for n in 0..6 {
        run(&format!("produce t --partition {}", n % 2), format!("record {n}\n").as_bytes()).ok();
    }
    broker.kill();
    let data = dir.join("data");
    released(&data);
    data
}

fn check(data: &Path) -> Run {
    penstock(&format!("check {} --json", data.display()))
}

/// The findings of a check that must have found some.
fn findings(data: &Path) -> Vec<Value> {
    let run = check(data);
    assert_eq!((run.status, run.err.as_str()), (1, ""), "{}", run.out);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    let of = |value: &Value| value["findings"].as_array().unwrap().clone();
    let shards = report["shards"].as_array().unwrap().iter().flat_map(of);
    of(&report).into_iter().chain(shards).collect()
}

/// Flips a bit of a file, and flips it back when dropped.
struct Flipped {
    file: File,
    position: u64,
}

impl Flipped {
    fn new(path: &Path, position: u64) -> Flipped {
        let flipped = Flipped { file: File::options().read(true).write(true).open(path).unwrap(), position };
        flipped.flip();
        flipped
    }

    fn flip(&self) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, self.position).unwrap();
        self.file.write_all_at(&[byte[0] ^ 0x10], self.position).unwrap();
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        self.flip();
    }
}

#[test]
fn damage_of_the_journal_is_found_by_file_and_position() {
    let dir = directory();
    let data = killed(dir.path());
    assert_eq!(check(&data).json()["sound"], json!(true));
    let journal = data.join("shard-0/journal/0000.journal");
    let shown = penstock(&format!("inspect journal {} --json", journal.display())).ok();
    let frames: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // One that a later frame says was stable, with batches in it.
    let stable = frames.iter().map(|frame| frame["durable_seq"].as_u64().unwrap()).max().unwrap();
    let has_batches =
        |frame: &&Value| frame["entries"].as_array().unwrap().iter().any(|e| e["kind"] == "append");
    let frame = frames.iter().filter(has_batches).find(|f| f["seq"].as_u64().unwrap() <= stable).unwrap();
    let position = frame["position"].as_u64().unwrap();
    {
        // Its entries: the frame cannot be read at all.
        let _flipped = Flipped::new(&journal, position + 70);
        let found = findings(&data);
        let named = (found[0]["file"].clone(), found[0]["position"].clone());
        assert_eq!(named, (json!(journal.canonicalize().unwrap()), json!(position)), "{found:?}");
        assert!(found[0]["what"].as_str().unwrap().contains("although it was stable"), "{found:?}");
    }
    {
        // Its batches: the log that they are of is named.
        let last = position + frame["bytes"].as_u64().unwrap() - 1;
        let _flipped = Flipped::new(&journal, last);
        let found = findings(&data);
        let what = found[0]["what"].as_str().unwrap();
        assert!(
            what.contains("acknowledged offsets") && what.contains("0000.journal, position"),
            "{found:?}"
        );
        assert!(found[0]["log"].is_string(), "{found:?}");
    }
    assert_eq!(check(&data).json()["sound"], json!(true));
    // A start makes the same of it.
    let broker = Broker::start(dir.path(), 2);
    let args = format!("consume t --exit-at-end --bootstrap {}", broker.kafka);
    assert_eq!(penstock(&args).ok().lines().count(), 6);
    assert!(broker.stop().success());
}

#[test]
fn a_torn_tail_is_no_damage() {
    let dir = directory();
    let data = killed(dir.path());
    for shard in ["shard-0", "shard-1"] {
        let journal = data.join(shard).join("journal/0000.journal");
        let shown = penstock(&format!("inspect journal {} --json", journal.display())).ok();
        let last: Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
        // The last frame did not reach the disk whole.
        let end = last["position"].as_u64().unwrap() + last["bytes"].as_u64().unwrap() - 1;
        let _flipped = Flipped::new(&journal, end);
        let report = check(&data).json();
        assert_eq!(report["sound"], json!(true), "{report}");
        // A frame without batches is torn as a whole, and then it is as if it were not there.
        if last["entries"].as_array().unwrap().iter().any(|entry| entry["kind"] == "append") {
            let shards = report["shards"].as_array().unwrap();
            assert!(shards.iter().any(|shard| shard["torn_frame"] == last["seq"]), "{report}");
            let said = penstock(&format!("check {}", data.display())).ok();
            assert!(said.contains("was never acknowledged and will be dropped"), "{said}");
        }
    }
}

#[test]
fn damage_beside_the_shards_is_found() {
    let dir = directory();
    let data = killed(dir.path());
    let meta = data.join("penstock.meta");
    let whole = fs::read_to_string(&meta).unwrap();
    for bad in ["junk".to_owned(), whole.replace("shards=2", "shards=99999999")] {
        fs::write(&meta, bad).unwrap();
        let found = findings(&data);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["file"], json!(meta.canonicalize().unwrap()));
        assert!(found[0]["what"].as_str().unwrap().contains("it is damaged"), "{found:?}");
    }
    fs::remove_file(&meta).unwrap();
    assert!(findings(&data)[0]["what"].as_str().unwrap().contains("it is missing"));
    fs::write(&meta, &whole).unwrap();

    fs::rename(data.join("shard-1"), dir.path().join("away")).unwrap();
    let found = findings(&data);
    assert!(found[0]["what"].as_str().unwrap().contains("spread over 2 shards"), "{found:?}");
    // As of a file system that is not mounted.
    fs::create_dir(data.join("shard-1")).unwrap();
    let found = findings(&data);
    assert!(found[0]["what"].as_str().unwrap().contains("what this shard held is lost"), "{found:?}");
    fs::remove_dir(data.join("shard-1")).unwrap();
    fs::rename(dir.path().join("away"), data.join("shard-1")).unwrap();

    let checkpoint = data.join("shard-1/checkpoint");
    let flipped = Flipped::new(&checkpoint, 20);
    let found = findings(&data);
    assert_eq!(found[0]["file"], json!(checkpoint.canonicalize().unwrap()), "{found:?}");
    for what in ["checkpoint", "producers"] {
        let said = penstock(&format!("inspect {what} {}", checkpoint.display())).failed(1);
        assert!(said.contains("checkpoint: it is no checkpoint, or damaged"), "{said}");
    }
    drop(flipped);
    assert_eq!(check(&data).json()["sound"], json!(true));
}

#[test]
fn snapshots_of_the_metadata_are_shown_and_checked() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 2, &["metadata.log.max.record.bytes.between.snapshots=1"]);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    let since = Instant::now();
    for n in 0.. {
        run(&format!("topic create t{n}")).ok();
        // The log loses its beginning with the third.
        let named = fs::read_dir(dir.path().join("data/metadata")).unwrap();
        let mut names: Vec<_> =
            named.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        if names.len() == 2 && names[0] > format!("{:020}", 9) {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{names:?}");
        thread::sleep(Duration::from_millis(100));
    }
    let beside = penstock(&format!("inspect snapshot {}", dir.path().join("data").display()));
    assert!(
        beside.status == 0 && beside.err.contains("a broker runs on this data directory"),
        "{}",
        beside.err
    );
    let said = penstock(&format!("check {}", dir.path().join("data").display())).failed(2);
    assert!(said.contains("a broker runs on") && said.contains("stop it first"), "{said}");
    assert!(broker.stop().success());
    let data = dir.path().join("data");
    released(&data);
    assert_eq!(check(&data).json()["sound"], json!(true));
    let files = fs::read_dir(data.join("metadata")).unwrap().map(|entry| entry.unwrap().path());
    let newest = files.max().unwrap();
    let shown = penstock(&format!("inspect snapshot {} --json", newest.display())).ok();
    let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["records"], json!(lines.len() - 1));
    assert!(lines[1..].iter().any(|line| line["record"]["name"] == "t0"), "{shown}");
    let log = penstock(&format!("inspect metadata {} --json", data.display())).ok();
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert!(first["offset"].as_i64().unwrap() > 0, "what snapshots stand for is gone: {first}");

    let _flipped = Flipped::new(&newest, 60);
    let found = findings(&data);
    assert_eq!(found[0]["file"], json!(newest.canonicalize().unwrap()), "{found:?}");
    assert!(found[0]["what"].as_str().unwrap().contains("metadata snapshot: it is damaged"), "{found:?}");
    let said = penstock(&format!("inspect snapshot {}", newest.display())).failed(1);
    assert!(said.contains("no metadata snapshot, or a damaged one; see `penstock check`"), "{said}");
}
