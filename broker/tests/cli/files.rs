//! `inspect` and `check`, on directories that a broker left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::broker::{Broker, directory};
use crate::command::{penstock, penstock_with, released, rows};

/// Records produced, each as a batch of its own.
const BATCHES: usize = 5;

/// Fills a data directory with a topic `t` of one partition, and ends its broker.
fn filled(dir: &Path, shards: usize, end: impl FnOnce(Broker)) -> PathBuf {
    let broker = Broker::start(dir, shards);
    penstock(&format!("topic create t --config retention.ms=-1 --bootstrap {}", broker.kafka)).ok();
    for n in 0..BATCHES {
        let args = format!("produce t --compression gzip --bootstrap {}", broker.kafka);
        penstock_with(&args, format!("record {n}\n").as_bytes()).ok();
    }
    end(broker);
    let data = dir.join("data");
    released(&data);
    data
}

/// The only segment of topic `t`.
fn segment(data: &Path) -> PathBuf {
    let shards = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path().join("logs"));
    let logs = shards.filter(|path| path.is_dir()).flat_map(|logs| fs::read_dir(logs).unwrap());
    let mut segments = logs
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("__cluster_metadata"))
        .map(|path| path.join("00000000000000000000.log"));
    let found = segments.next().unwrap();
    assert!(segments.next().is_none());
    found
}

/// All files with their contents.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_directory_is_clean_however_its_broker_ended_and_stays_as_it_is() {
    for (shards, kill) in [(1, false), (2, true)] {
        let dir = directory();
        let end = |broker: Broker| if kill { broker.kill() } else { assert!(broker.stop().success()) };
        let data = filled(dir.path(), shards, end);
        let before = contents(&data);
        let said = penstock(&format!("check {}", data.display())).ok();
        assert!(said.ends_with(": sound\n"), "{said}");
        assert_eq!(said.contains("not closed: the next start replays"), kill, "{said}");
        let report = penstock(&format!("check {} --json", data.display())).json();
        assert_eq!(report["sound"], json!(true));
        let seen = report["shards"].as_array().unwrap();
        assert_eq!(seen.len(), shards);
        let batches: u64 = seen.iter().map(|shard| shard["batches"].as_u64().unwrap()).sum();
        assert!(batches > BATCHES as u64, "those of the metadata log too: {report}");
        for what in ["segment", "journal", "checkpoint", "producers", "metadata"] {
            let path = if what == "segment" && !kill { segment(&data) } else { data.clone() };
            if what != "segment" || !kill {
                penstock(&format!("inspect {what} {}", path.display())).ok();
            }
        }
        assert!(before == contents(&data), "looking changes nothing");
    }
}

#[test]
fn a_flipped_bit_is_reported_by_log_and_offset() {
    let dir = directory();
    let data = filled(dir.path(), 1, |broker| assert!(broker.stop().success()));
    let path = segment(&data);
    let listed = json_lines(&penstock(&format!("inspect segment {} --json", path.display())).ok());
    let batch = &listed[1 + 3];
    assert_eq!((&batch["base_offset"], &batch["crc_ok"]), (&json!(3), &json!(true)));
    let position = usize::try_from(batch["position"].as_u64().unwrap()).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[position + 65] ^= 1;
    fs::write(&path, bytes).unwrap();

    let found = penstock(&format!("check {}", data.display()));
    assert_eq!((found.status, found.err.as_str()), (1, ""), "{}", found.out);
    let line = found.out.lines().find(|line| line.contains("topic t, partition 0, offset 3: ")).unwrap();
    let place = format!("{}, position {position}: ", path.display());
    assert!(line.contains(&place) && line.ends_with("the batch does not match its crc"), "{line}");
    assert!(found.out.ends_with(": 1 finding\n"), "{}", found.out);
    let found = penstock(&format!("check {} --json", data.display()));
    let report: Value = serde_json::from_str(&found.out).unwrap();
    let finding = &report["shards"][0]["findings"][0];
    assert_eq!(
        (&report["sound"], &finding["topic"], &finding["offset"]),
        (&json!(false), &json!("t"), &json!(3))
    );
    let listed = penstock(&format!("inspect segment {}", path.display())).ok();
    assert_eq!(listed.lines().filter(|line| line.ends_with("WRONG")).count(), 1, "{listed}");

    fs::write(&path, whole).unwrap();
    penstock(&format!("check {}", data.display())).ok();
    fs::remove_file(&path).unwrap();
    let found = penstock(&format!("check {}", data.display()));
    assert!(found.status == 1 && found.out.contains("is missing"), "{}", found.out);
}

#[test]
fn damaged_metadata_is_reported() {
    let dir = directory();
    let data = filled(dir.path(), 1, |broker| assert!(broker.stop().success()));
    let path = data.join("shard-0/logs/__cluster_metadata/00000000000000000000.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 70] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = penstock(&format!("check {}", data.display()));
    assert!(found.status == 1 && found.out.contains("log __cluster_metadata, offset 0"), "{}", found.out);
    let said = penstock(&format!("inspect metadata {}", data.display())).failed(1);
    assert!(said.contains("000.log, position 4096: ") && said.contains("penstock check"), "{said}");
}

#[test]
fn what_cannot_be_checked_has_a_status_of_its_own() {
    let dir = directory();
    let mut running = String::new();
    let data = filled(dir.path(), 1, |broker| {
        running = penstock(&format!("check {}", dir.path().join("data").display())).failed(2);
        assert!(broker.stop().success());
    });
    assert!(running.contains("a broker runs on") && running.contains("stop it first"), "{running}");
    let said = penstock("check /no/such/directory").failed(2);
    assert!(said.contains("/no/such/directory") && said.contains("--data-dir"), "{said}");
    let said = penstock(&format!("check {}", dir.path().display())).failed(2);
    assert!(said.contains("no data directory"), "{said}");
    let meta = data.join("penstock.meta");
    fs::write(&meta, "format=3\n").unwrap();
    let said = penstock(&format!("check {}", data.display())).failed(2);
    assert!(said.contains("newer version") && said.contains("upgrade"), "{said}");
}

#[test]
fn files_are_shown_in_words_and_in_json() {
    let dir = directory();
    let data = filled(dir.path(), 1, |broker| assert!(broker.stop().success()));
    let show = |what: &str, path: &Path| penstock(&format!("inspect {what} {}", path.display())).ok();
    let json = |what: &str, path: &Path| {
        json_lines(&penstock(&format!("inspect {what} {} --json", path.display())).ok())
    };
    let path = segment(&data);
    let said = show("segment", &path);
    let table: Vec<&str> = said.lines().skip(2).collect();
    let table = table.join("\n");
    assert!(said.contains(": log ") && table.starts_with("OFFSET"), "{said}");
    let shown: Vec<(&str, &str, &str)> = rows(&table).iter().map(|row| (row[0], row[5], row[11])).collect();
    let expected: Vec<String> = (0..BATCHES).map(|n| n.to_string()).collect();
    assert_eq!(shown, expected.iter().map(|n| (n.as_str(), "gzip", "ok")).collect::<Vec<_>>());
    assert_eq!(json("segment", path.parent().unwrap()).len(), 1 + BATCHES, "the directory of a log");

    let of_t = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let checkpoint = &json("checkpoint", &data)[0];
    assert_eq!(checkpoint["clean"], json!(true));
    let log = checkpoint["logs"].as_array().unwrap().iter().find(|log| log["name"] == of_t).unwrap();
    assert_eq!((&log["start_offset"], &log["end_offset"]), (&json!(0), &json!(BATCHES)));
    assert!(show("checkpoint", &data.join("shard-0")).contains(&format!("log {of_t}")));
    let frames = json("journal", &data.join("shard-0/journal"));
    let appends = frames.iter().flat_map(|frame| frame["entries"].as_array().unwrap());
    let of_log = appends.filter(|entry| entry["kind"] == "append" && entry["log_id"] == log["id"]);
    assert_eq!(of_log.count(), BATCHES);
    assert!(show("journal", &data).contains("append to log"));
    let records = json("metadata", &data);
    let kinds: Vec<&str> = records.iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert!(
        kinds.contains(&"topic") && kinds.contains(&"partition") && kinds.contains(&"config"),
        "{kinds:?}"
    );
    assert!(show("metadata", &data).contains(r#"name="t""#));
    assert!(show("producers", &data).contains("PRODUCER"));

    for (what, path) in
        [("segment", "/no/such/file"), ("journal", "/no/such/file"), ("index", "/no/such/file")]
    {
        let said = penstock(&format!("inspect {what} {path}")).failed(1);
        assert!(said.contains(path) && said.contains("that is there"), "{said}");
    }
    let other = data.join("penstock.meta");
    for what in ["segment", "index", "checkpoint", "producers"] {
        let said = penstock(&format!("inspect {what} {}", other.display())).failed(1);
        assert!(said.contains("is it a file of this kind?"), "{what}: {said}");
    }
    let said = penstock(&format!("inspect index {}", data.display())).failed(1);
    assert!(said.contains("holds no file"), "{said}");
}
