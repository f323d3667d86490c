//! `topic`: made, listed, described, altered, deleted.

use serde_json::json;

use crate::broker::{Broker, directory};
use crate::command::{penstock, rows};

#[test]
fn the_life_of_a_topic_in_words() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    assert_eq!(run("topic list").ok(), "NAME  PARTITIONS  REPLICATION\n");
    let said = run("topic create t --partitions 3 --replication 1 --config retention.ms=60000").ok();
    assert_eq!(said, "created topic t with 3 partitions, 1 replica of each\n");
    assert_eq!(rows(&run("topic list").ok()), [["t", "3", "1"]]);

    let said = run("topic describe t").ok();
    let mut lines = said.lines();
    assert!(lines.next().unwrap().starts_with("topic t id "), "{said}");
    assert_eq!(lines.next(), Some("config retention.ms=60000"));
    let table: String = lines.map(|line| format!("{line}\n")).collect();
    assert!(table.starts_with("PARTITION  LEADER  EPOCH  REPLICAS  ISR"), "{said}");
    let indexes: Vec<&str> = rows(&table).iter().map(|row| row[0]).collect();
    assert_eq!(indexes, ["0", "1", "2"]);
    assert!(rows(&table).iter().all(|row| row[1] == row[3] && row[3] == row[4]), "one replica: {said}");

    let changed = "topic alter t --partitions 4 --config retention.bytes=5 --delete-config retention.ms";
    assert_eq!(run(changed).ok(), "altered topic t\n");
    let said = run("topic describe").ok();
    assert!(said.contains("config retention.bytes=5") && !said.contains("retention.ms"), "{said}");
    assert_eq!(rows(&run("topic list").ok()), [["t", "4", "1"]]);
    assert_eq!(run("topic delete t").ok(), "deleted topic t\n");
    assert_eq!(run("topic list").ok(), "NAME  PARTITIONS  REPLICATION\n");
    assert!(broker.stop().success());
}

#[test]
fn the_life_of_a_topic_in_json() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let run = |args: &str| penstock(&format!("{args} --json --bootstrap {}", broker.kafka));
    let made = run("topic create t --partitions 2 --config flush.messages=1").json();
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 22, "{made}");
    let expected = json!({ "name": "t", "created": true, "id": id, "partitions": 2, "replication": 1 });
    assert_eq!(made, expected);
    let again = run("topic create t --if-not-exists").json();
    assert_eq!(again, json!({ "name": "t", "created": false }));
    let listed = run("topic list").json();
    let expected = json!([{ "name": "t", "id": id, "internal": false, "partitions": 2, "replication": 1 }]);
    assert_eq!(listed, expected);
    let described = run("topic describe t").json();
    assert_eq!(described[0]["configs"], json!({ "flush.messages": "1" }));
    let partitions = described[0]["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 2);
    assert_eq!(
        (&partitions[1]["partition"], &partitions[1]["leader"]),
        (&json!(1), &partitions[1]["isr"][0])
    );
    assert_eq!(run("topic alter t --partitions 3").json(), json!({ "name": "t", "altered": true }));
    assert_eq!(run("topic delete t").json(), json!({ "deleted": ["t"] }));
    assert_eq!(run("topic list").json(), json!([]));
}

#[test]
fn refusals_say_what_to_do() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    run("topic create t").ok();
    for (args, expected) in [
        ("topic create t", "creating topic t: "),
        ("topic create t", "(TOPIC_ALREADY_EXISTS); choose another name"),
        ("topic create bad/name", "INVALID_TOPIC_EXCEPTION"),
        ("topic create u --replication 3", "ask for at most as many replicas as there are brokers"),
        ("topic create u --config nonsense=1", "nonsense"),
        ("topic describe u", "`penstock topic list` shows the topics there are"),
        ("topic alter u --partitions 2", "(UNKNOWN_TOPIC_OR_PARTITION)"),
        ("topic alter t --partitions 1", "(INVALID_PARTITIONS)"),
        ("topic delete u", "deleting topic u: "),
    ] {
        let said = run(args).failed(1);
        assert!(said.starts_with("penstock: ") && said.contains(expected), "{args}: {said}");
    }
    let said = run("topic alter t").failed(2);
    assert!(said.contains("--partitions, --config or --delete-config"), "{said}");
    // What can be deleted is, and the rest is named.
    let both = run("topic delete u t");
    assert_eq!((both.status, both.out.as_str()), (1, "deleted topic t\n"));
    assert!(both.err.contains("topic u"), "{}", both.err);
}
