//! `produce` and `consume`.

use serde_json::{Value, json};

use crate::broker::{Broker, directory};
use crate::command::{Run, penstock, penstock_with};

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn what_is_produced_is_consumed() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    let produce = |args: &str, input: &[u8]| -> Run {
        penstock_with(&format!("produce {args} --bootstrap {}", broker.kafka), input)
    };
    run("topic create t --partitions 1").ok();
    for (at, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        let input = format!("{codec}-1\n{codec}-2\n");
        let said = produce(&format!("t --compression {codec} --json"), input.as_bytes()).json();
        let first = 2 * at;
        let partitions =
            json!([{ "partition": 0, "records": 2, "first_offset": first, "last_offset": first + 1 }]);
        let expected = json!({ "topic": "t", "records": 2, "complete": true, "partitions": partitions });
        assert_eq!(said, expected);
    }
    for acks in ["0", "1"] {
        let said = produce(&format!("t --acks {acks}"), format!("acks {acks}\n").as_bytes()).ok();
        assert_eq!(said, "produced 1 record to topic t\n");
        // With acks 0 nobody says when the record is there: a consumer waits for it.
        let offset = if acks == "0" { 10 } else { 11 };
        let found = run(&format!("consume t --from offset:{offset} --max 1")).ok();
        assert_eq!(found, format!("acks {acks}\n"));
    }
    let all = run("consume t --exit-at-end").ok();
    let expected =
        ["none", "gzip", "snappy", "lz4", "zstd"].map(|codec| format!("{codec}-1\n{codec}-2\n")).concat();
    assert_eq!(all, expected + "acks 0\nacks 1\n");
    assert_eq!(run("consume t --from end --exit-at-end").ok(), "");
    assert_eq!(run("consume t --from time:2100-01-01 --exit-at-end").ok(), "");
    assert_eq!(run("consume t --from time:0 --max 1").ok(), "none-1\n");
    assert_eq!(run("consume t --from offset:3 --max 2").ok(), "gzip-2\nsnappy-1\n");
    assert_eq!(produce("t", b"").ok(), "produced 0 records to topic t\n");
    assert!(broker.stop().success());
}

#[test]
fn keys_choose_partitions_as_in_kafkas_java_client() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    run("topic create t --partitions 4").ok();
    let input = b"21=a\nfoobar=b\na-little-bit-long-string=c\n21=d\n=empty\n";
    let args = format!("produce t --key-separator = --bootstrap {}", broker.kafka);
    assert_eq!(penstock_with(&args, input).ok(), "produced 5 records to topic t\n");
    // murmur2 as of Kafka's own tests, without the sign, modulo 4; that of nothing is 275646681.
    let partition = |hash: i64| (hash & 0x7fff_ffff) % 4;
    for (key, value, hash) in [
        ("21", "a", -973_932_308),
        ("foobar", "b", -790_332_482),
        ("a-little-bit-long-string", "c", -985_981_536),
        ("21", "d", -973_932_308),
        ("", "empty", 275_646_681),
    ] {
        let found =
            run(&format!("consume t --partition {} --exit-at-end --print key,value", partition(hash)));
        let found = found.ok();
        assert!(lines(&found).contains(&format!("{key}\t{value}").as_str()), "{key}: {found}");
    }
    let named = format!("produce t --partition 3 --bootstrap {}", broker.kafka);
    penstock_with(&named, b"here\n").ok();
    assert!(run("consume t --partition 3 --exit-at-end").ok().ends_with("here\n"));
    let said = penstock_with(&args, b"a=1\nno separator\n").failed(1);
    assert!(said.contains("line 2 lacks the key separator"), "{said}");
}

#[test]
fn records_without_keys_spread_and_none_is_lost() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    run("topic create t --partitions 3").ok();
    let input: String = (0..40_000).map(|n| format!("record number {n} of a good many\n")).collect();
    let said = penstock_with(&format!("produce t --json --bootstrap {}", broker.kafka), input.as_bytes());
    let said = said.json();
    assert_eq!(said["records"], json!(40_000));
    assert!(said["partitions"].as_array().unwrap().len() > 1, "batches go round: {said}");
    let consumed = run("consume t --max 40000").ok();
    let mut consumed = lines(&consumed);
    consumed.sort_unstable();
    let mut sent = lines(&input);
    sent.sort_unstable();
    assert!(consumed == sent);
}

/// What the format adds to a record is most of it where records are short.
#[test]
fn the_shortest_lines_fit_into_batches() {
    const LINES: usize = 150_000;
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    run("topic create t --partitions 1").ok();
    for line in ["7\n", "\n"] {
        let input = line.repeat(LINES);
        let args = format!("produce t --bootstrap {}", broker.kafka);
        assert_eq!(penstock_with(&args, input.as_bytes()).ok(), "produced 150000 records to topic t\n");
    }
    let all = run("consume t --exit-at-end --partition 0 --partition 0").ok();
    assert_eq!(all, "7\n".repeat(LINES) + &"\n".repeat(LINES));
    assert!(broker.stop().success());
}

#[test]
fn json_tells_everything_of_a_record() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let run = |args: &str| penstock(&format!("{args} --bootstrap {}", broker.kafka));
    run("topic create t").ok();
    penstock_with(
        &format!("produce t --key-separator : --bootstrap {}", broker.kafka),
        b"\xff\xfe:v\nk:\xff\n",
    )
    .ok();
    let found = run("consume t --max 2 --json").ok();
    let records: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let timestamp = records[0]["timestamp"].as_i64().unwrap();
    assert!(timestamp > 1_700_000_000_000 && timestamp <= now, "{timestamp}");
    let second = records[1]["timestamp"].clone();
    let expected = [
        json!({ "topic": "t", "partition": 0, "offset": 0, "timestamp": timestamp, "key_base64": "//4=",
            "value": "v", "headers": [] }),
        json!({ "topic": "t", "partition": 0, "offset": 1, "timestamp": second, "key": "k",
            "value_base64": "/w==", "headers": [] }),
    ];
    assert_eq!(records, expected);
}

#[test]
fn what_json_tells_can_be_produced_again() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let run =
        |args: &str, input: &[u8]| penstock_with(&format!("{args} --bootstrap {}", broker.kafka), input);
    run("topic create a --partitions 1", b"").ok();
    run("topic create b --partitions 1", b"").ok();
    let lines = concat!(
        r#"{"key": "k", "value": null, "headers": [{"key": "h", "value_base64": "/w=="}], "timestamp": 1700000000000}"#,
        "\n{\"value\": \"v\"}\n",
    );
    let args = "produce a --input json --header from=test --compression lz4";
    assert_eq!(run(args, lines.as_bytes()).ok(), "produced 2 records to topic a\n");
    let text = run("consume a --max 1 --print partition,offset,timestamp,key,value --separator |", b"").ok();
    assert_eq!(text, "0|0|2023-11-14T22:13:20.000Z|k|null\n");
    assert_eq!(run("consume a --from offset:1 --max 1 --print headers,value", b"").ok(), "from=test\tv\n");
    let first = run("consume a --exit-at-end --json", b"").ok();
    let records: Vec<Value> = first.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let headers = json!([{ "key": "from", "value": "test" }, { "key": "h", "value_base64": "/w==" }]);
    assert_eq!((&records[0]["headers"], &records[0]["value"]), (&headers, &Value::Null));
    run("produce b --input json", first.as_bytes()).ok();
    let again = run("consume b --exit-at-end --json", b"").ok();
    assert_eq!(again, first.replace(r#""topic":"a""#, r#""topic":"b""#));
    let said = run("produce a --input json", b"{\"key\": \"k\"}\nnonsense\n");
    assert_eq!(said.status, 1);
    assert!(said.err.contains("line 2 is no JSON"), "{}", said.err);
}

#[test]
fn refusals_say_what_to_do() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let run = |args: &str| penstock_with(&format!("{args} --bootstrap {}", broker.kafka), b"line\n");
    run("topic create t --config max.message.bytes=100").ok();
    run("produce t").ok();
    for (args, expected) in [
        ("produce u", "`penstock topic list` shows the topics there are"),
        ("produce t --partition 5", "there are 1 partitions, from 0"),
        ("consume u", "(UNKNOWN_TOPIC_OR_PARTITION)"),
        ("consume t --partition 1", "partition 1 of topic t"),
        ("consume t --from offset:7 --max 1", "has no offset 7: there are offsets 0 to 0"),
    ] {
        let said = run(args).failed(1);
        assert!(said.starts_with("penstock: ") && said.contains(expected), "{args}: {said}");
    }
    let long = format!("{}\n", "x".repeat(200));
    let said = penstock_with(&format!("produce t --bootstrap {}", broker.kafka), long.as_bytes()).failed(1);
    assert!(said.contains("(MESSAGE_TOO_LARGE); send smaller records"), "{said}");
}
