//! `group`. A group is made by setting its offsets, which needs no member.
//!
//! With `PENSTOCK_CLI_GROUPS=HOST:PORT` the tests run against that broker, of whatever make, else against one of their own.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE, directory};
use crate::command::{Run, penstock, penstock_with, rows};

/// A first member does not wait for others.
const NO_DELAY: &[&str] = &["group.initial.rebalance.delay.ms=0"];

#[test]
fn offsets_are_set_shown_and_deleted() {
    let dir = directory();
    let own = std::env::var("PENSTOCK_CLI_GROUPS").is_err().then(|| Broker::start(dir.path(), 2));
    let address =
        own.as_ref().map_or_else(|| std::env::var("PENSTOCK_CLI_GROUPS").unwrap(), |own| own.kafka.clone());
    let run = |args: &str| -> Run { penstock(&format!("{args} --bootstrap {address}")) };
    let unique = std::process::id();
    let (group, topic) = (format!("cli-group-{unique}"), format!("cli-topic-{unique}"));
    run(&format!("topic create {topic} --partitions 2")).ok();
    let produce = format!("produce {topic} --partition 1 --bootstrap {address}");
    penstock_with(&produce, b"1\n2\n3\n4\n5\n").ok();

    let dry = run(&format!("group reset-offsets {group} --topic {topic} --to-latest")).ok();
    assert!(dry.contains("nothing was changed; --execute does it"), "{dry}");
    run(&format!("group describe {group}")).failed(1);
    let reset = format!("group reset-offsets {group} --topic {topic}:1 --to-offset 2 --execute --json");
    let offset = json!({ "topic": topic, "partition": 1, "before": null, "after": 2 });
    assert_eq!(run(&reset).json(), json!({ "group": group, "executed": true, "offsets": [offset] }));

    let said = run(&format!("group describe {group}")).ok();
    let row: Vec<&str> = said.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row, [&topic, "1", "2", "5", "3", "-"], "{said}");
    let described = run(&format!("group describe {group} --json")).json();
    assert_eq!(described["partitions"][0]["lag"], json!(3));
    assert_eq!((&described["state"], &described["members"]), (&json!("Empty"), &json!([])));
    let listed = run("group list").ok();
    assert!(rows(&listed).iter().any(|row| row[0] == group && row[2] == "Empty"), "{listed}");

    let after = |place: &str| {
        let reset = format!("group reset-offsets {group} --all-topics {place} --execute --json");
        run(&reset).json()["offsets"][0]["after"].clone()
    };
    assert_eq!(after("--shift-by 2"), json!(4));
    assert_eq!(after("--shift-by -100"), json!(0), "no farther than there are records");
    assert_eq!(after("--to-offset 100"), json!(5));
    assert_eq!(after("--to-earliest"), json!(0));
    assert_eq!(after("--to-datetime 2100-01-01T00:00:00.000"), json!(5));
    assert_eq!(after("--to-datetime 0"), json!(0));
    assert_eq!(after("--by-duration PT0S"), json!(5));
    assert_eq!(after("--by-duration P1D"), json!(0));
    assert_eq!(after("--to-latest"), json!(5));

    assert_eq!(run(&format!("group delete {group}")).ok(), format!("deleted group {group}\n"));
    for args in [format!("group describe {group}"), format!("group delete {group}")] {
        let said = run(&args).failed(1);
        assert!(said.contains("(GROUP_ID_NOT_FOUND); `penstock group list`"), "{said}");
    }
    let said = run(&format!("group reset-offsets {group} --topic {topic} --shift-by 1")).failed(1);
    assert!(said.contains("no offset on partition 0") && said.contains("--to-offset"), "{said}");
    run(&format!("topic delete {topic}")).ok();
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 2, NO_DELAY);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    run("topic create t --partitions 4").ok();
    let input: String = (0..100).map(|n| format!("{n}={n}\n")).collect();
    penstock_with(&format!("produce t --key-separator = --bootstrap {}", broker.kafka), input.as_bytes())
        .ok();
    let mut seen: Vec<u32> = Vec::new();
    for max in [1, 30, 1000] {
        let said = run(&format!("consume t --group g --exit-at-end --max {max}")).ok();
        let before = seen.len();
        seen.extend(said.lines().map(|line| line.parse::<u32>().unwrap()));
        assert_eq!(seen.len() - before, max.min(100 - before));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>(), "each once");
    assert_eq!(run("consume t --group g --exit-at-end").ok(), "");
    let described = run("group describe g --json").json();
    assert_eq!((&described["state"], &described["members"]), (&json!("Empty"), &json!([])), "it has left");
    let lags = described["partitions"].as_array().unwrap().iter().map(|row| row["lag"].as_i64().unwrap());
    assert_eq!(lags.sum::<i64>(), 0, "{described}");

    run("group reset-offsets g --topic t --to-earliest --execute").ok();
    assert_eq!(lines(&run("consume t --group g --exit-at-end").ok()), 100);
    assert_eq!(lines(&run("consume t --group other --from end --exit-at-end").ok()), 0);
    for (args, expected) in [
        ("consume nothing --group g", "(UNKNOWN_TOPIC_OR_PARTITION)"),
        ("group delete nothing", "(GROUP_ID_NOT_FOUND)"),
    ] {
        let said = run(args).failed(1);
        assert!(said.contains(expected), "{args}: {said}");
    }
    run("consume t --group g --partition 0").failed(2);
}

/// Where a group begins is looked for once: what comes while nobody reads is read later.
#[test]
fn a_group_that_begins_at_the_end_misses_nothing_from_then_on() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 1, NO_DELAY);
    let run = |args: &str| -> Run { penstock(&format!("{args} --bootstrap {}", broker.kafka)) };
    let produce =
        |input: &[u8]| penstock_with(&format!("produce t --bootstrap {}", broker.kafka), input).ok();
    run("topic create t --partitions 1").ok();
    produce(b"before\n");
    let read = || run("consume t --group g --from end --exit-at-end").ok();
    assert_eq!(read(), "");
    produce(b"after\n");
    assert_eq!((read(), read()), ("after\n".to_owned(), String::new()));
    assert!(broker.stop().success());
}

#[test]
fn members_share_partitions_and_leave_on_a_signal() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 2, NO_DELAY);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    run("topic create t --partitions 4").ok();
    let args = format!("consume t --group g --print partition,value --bootstrap {}", broker.kafka);
    let members = || -> Vec<usize> {
        let described = run("group describe g --json");
        // The group is made by its first member.
        if described.status != 0 || described.out.is_empty() {
            return Vec::new();
        }
        let described = described.json();
        let of = |member: &Value| member["partitions"].as_array().unwrap().len();
        described["members"].as_array().unwrap().iter().map(of).collect()
    };
    let until = |expected: &[usize]| {
        let since = Instant::now();
        while members() != expected {
            assert!(since.elapsed() < PATIENCE, "{:?}, not {expected:?}", members());
            thread::sleep(Duration::from_millis(50));
        }
    };
    let mut first = Member::start(&args);
    until(&[4]);
    let mut second = Member::start(&args);
    until(&[2, 2]);
    let refused = run("group reset-offsets g --all-topics --to-latest --execute").failed(1);
    assert!(refused.contains("has 2 members") && refused.contains("stop them first"), "{refused}");
    for partition in 0..4 {
        let produce = format!("produce t --partition {partition} --bootstrap {}", broker.kafka);
        penstock_with(&produce, format!("{partition}\n").as_bytes()).ok();
    }
    let mut seen: Vec<String> = Vec::new();
    for member in [&mut first, &mut second] {
        seen.extend((0..2).map(|_| member.line()));
    }
    seen.sort_unstable();
    assert_eq!(seen, ["0\t0", "1\t1", "2\t2", "3\t3"]);
    first.interrupt();
    until(&[4]);
    second.interrupt();
    until(&[]);
    // What both had printed was committed.
    assert_eq!(run("consume t --group g --exit-at-end").ok(), "");
}

/// A consumer that runs until it is told to end.
struct Member {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Member {
    fn start(args: &str) -> Member {
        let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .args(args.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Member { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// SIGINT, which it has to end well on.
    fn interrupt(mut self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(text: &str) -> usize {
    text.lines().count()
}
