//! `config`: shown, set, unset.

use serde_json::json;

use crate::broker::{Broker, directory};
use crate::command::{penstock, rows};

#[test]
fn configs_of_topics() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    run("topic create t").ok();
    let own = "config get topic t retention.ms cleanup.policy";
    let before = rows(&run(own).ok()).iter().map(|row| row[2].to_owned()).collect::<Vec<_>>();
    assert_eq!(before, ["default", "default"]);
    assert_eq!(run("config set topic t retention.ms=5 segment.bytes=1048576").ok(), "altered topic t\n");
    let said = run("config get topic t").ok();
    assert_eq!(rows(&said), [["retention.ms", "5", "topic"], ["segment.bytes", "1048576", "topic"]]);
    let shown = run("config get topic t retention.ms --json").json();
    assert_eq!((&shown[0]["value"], &shown[0]["source"]), (&json!("5"), &json!("topic")));
    assert_eq!(run("config unset topic t segment.bytes").ok(), "altered topic t\n");
    assert_eq!(rows(&run("config get topic t").ok()), [["retention.ms", "5", "topic"]]);
    assert!(rows(&run("config get topic t --all").ok()).len() > 10);
    for (args, expected) in [
        ("config get topic t nonsense", "has no config nonsense; --all shows those there are"),
        ("config set topic t nonsense=1", "nonsense"),
        ("config set topic t retention.ms=x", "retention.ms"),
        ("config get topic u", "configs of topic u: "),
    ] {
        let said = run(args).failed(1);
        assert!(said.contains(expected), "{args}: {said}");
    }
}

#[test]
fn configs_of_brokers() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 1, &["node.id=7"]);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    assert_eq!(
        rows(&run("config get broker 7 node.id").ok()),
        [["node.id", "7", "start", "of", "the", "broker"]]
    );
    let said = run("config get broker 8").failed(1);
    assert!(said.contains("there is no broker 8; node ids are 7"), "{said}");
}
