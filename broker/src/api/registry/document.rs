//! The table of APIs and versions in `docs/api-versions.md`: ours from the registry, Apache Kafka's as they were recorded,
//! and why they differ. Run with `UPDATE_DOCS=1` to write it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use penstock_protocol::{ApiKey, Versions};

use super::all;

/// Recorded from Apache Kafka, with a reason for each difference.
const TABLE: &str = include_str!("kafka-4.3.1.table");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api-versions.md");
/// The lines of the document that the table stands between.
const BEGIN: &str = "<!-- the table: made by a test -->\n";
const END: &str = "<!-- the end of the table -->\n";

/// One line of the table.
struct Row {
    name: &'static str,
    kafka: Option<Versions>,
    why: Option<&'static str>,
}

fn recorded() -> BTreeMap<i16, Row> {
    let mut rows = BTreeMap::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.splitn(4, " ; ").collect();
        let [key, name, versions, why] = fields[..] else { panic!("four fields: {line}") };
        let kafka = versions.split_once('-').filter(|(min, _)| !min.is_empty());
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("a number: {line}"));
        let kafka = kafka.map(|(min, max)| Versions { min: number(min), max: number(max) });
        let row = Row { name, kafka, why: Some(why).filter(|why| *why != "-") };
        assert!(rows.insert(number(key), row).is_none(), "twice: {line}");
    }
    rows
}

fn shown(versions: Option<Versions>) -> String {
    match versions {
        None => "-".to_owned(),
        Some(Versions { min, max }) if min == max => min.to_string(),
        Some(Versions { min, max }) => format!("{min}-{max}"),
    }
}

fn table(rows: &BTreeMap<i16, Row>) -> String {
    let mut text =
        "| key | API | Penstock | Apache Kafka 4.3.1 | why they differ |\n|---|---|---|---|---|\n".to_owned();
    for (key, row) in rows {
        let (ours, kafka, why) = (shown(ours(*key)), shown(row.kafka), row.why.unwrap_or_default());
        writeln!(text, "| {key} | {} | {ours} | {kafka} | {why} |", row.name).unwrap();
    }
    text
}

fn ours(key: i16) -> Option<Versions> {
    all().iter().find(|api| api.key.code() == key).map(|api| api.advertised)
}

#[test]
fn each_difference_has_a_reason_and_each_reason_a_difference() {
    let rows = recorded();
    for api in all() {
        assert!(rows.contains_key(&api.key.code()), "{} has no row in kafka-4.3.1.table", api.key);
    }
    for (key, row) in &rows {
        assert_eq!(ApiKey::from_code(*key).map(ApiKey::name), Some(row.name), "the name of {key}");
        let (ours, kafka) = (ours(*key), row.kafka);
        assert!(ours.is_some() || kafka.is_some(), "nobody serves {}", row.name);
        match row.why {
            None => assert_eq!(ours, kafka, "{} differs without a reason", row.name),
            Some(_) => assert_ne!(ours, kafka, "{} has a reason and no difference", row.name),
        }
    }
}

#[test]
fn the_document_tells_what_is_served() {
    let stands = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = stands.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let right = [before, BEGIN, &table(&recorded()), END, after].concat();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(DOCUMENT, right).unwrap();
        return;
    }
    assert!(stands == right, "docs/api-versions.md is out of date: run this test with UPDATE_DOCS=1");
}
