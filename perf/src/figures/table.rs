//! Ratios between figures of one run, and all of it as a table.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// A ratio of a figure to what limits it.
struct Ratio {
    name: &'static str,
    of: &'static str,
    to: &'static [Limit],
    target: Target,
}

/// What a ratio should be; without bounds it is shown for comparison.
#[derive(Clone, Copy)]
struct Target {
    at_least: Option<f64>,
    at_most: Option<f64>,
}

const NO_TARGET: Target = Target { at_least: None, at_most: None };

const fn at_least(least: f64) -> Target {
    Target { at_least: Some(least), at_most: None }
}

const fn at_most(most: f64) -> Target {
    Target { at_least: None, at_most: Some(most) }
}

impl Target {
    /// None without a target.
    fn is_met(self, ratio: f64) -> Option<bool> {
        let (least, most) = (self.at_least, self.at_most);
        (least.is_some() || most.is_some())
            .then(|| least.is_none_or(|least| ratio >= least) && most.is_none_or(|most| ratio <= most))
    }

    fn text(self) -> String {
        let least = self.at_least.map(|least| format!("≥ {least}"));
        least.or(self.at_most.map(|most| format!("≤ {most}"))).unwrap_or_default()
    }
}

/// A limit: the mean of what was measured of it before and after, as far as it was.
type Limit = &'static [&'static str];

/// The lowest of `to` counts: more than the lower of two limits nothing can give.
const RATIOS: &[Ratio] = &[
    Ratio {
        name: "durable produce, 16 partitions, to the lower of raw writer and loopback",
        of: "/produce_16_partitions/megabytes_per_second",
        to: &[
            &["/raw_writer_16_files/megabytes_per_second", "/raw_writer_16_files_after/megabytes_per_second"],
            &["/loopback/receive_megabytes_per_second"],
        ],
        target: at_least(0.9),
    },
    Ratio {
        name: "durable produce, 1,000 partitions, to the lower of raw writer and loopback",
        of: "/produce_1000_partitions/megabytes_per_second",
        to: &[
            &[
                "/raw_writer_1000_files/megabytes_per_second",
                "/raw_writer_1000_files_after/megabytes_per_second",
            ],
            &["/loopback/receive_megabytes_per_second"],
        ],
        target: NO_TARGET,
    },
    shown(
        "durable produce, 1,000 partitions to 16",
        "/produce_1000_partitions/megabytes_per_second",
        &[&["/produce_16_partitions/megabytes_per_second"]],
    ),
    held(
        "p99 at half load to a raw write and flush's at the same load",
        "/produce_half_load/latency_us/p99",
        &[&["/raw_writer_half_load/commit_us/p99"]],
        at_most(2.0),
    ),
    shown(
        "p99.9 at half load to a raw write and flush's at the same load",
        "/produce_half_load/latency_us/p99.9",
        &[&["/raw_writer_half_load/commit_us/p99.9"]],
    ),
    shown(
        "p99 at half load to a raw write and flush's, of the median second",
        "/produce_half_load/p99_us_of_seconds/median",
        &[&["/raw_writer_half_load/p99_us_of_seconds/median"]],
    ),
    held(
        "p99 at half load beside the cleaner to without, of the median second",
        "/cleaning/cleaned/p99_us_of_seconds/median",
        &[&["/cleaning/not_cleaned/p99_us_of_seconds/median"]],
        at_most(1.2),
    ),
    shown(
        "p99 at half load beside the cleaner to without, of the worst second",
        "/cleaning/cleaned/p99_us_of_seconds/worst",
        &[&["/cleaning/not_cleaned/p99_us_of_seconds/worst"]],
    ),
    held(
        "100 keyed producers, 1,000 partitions, to durable produce, 16 partitions",
        "/produce_keyed_1000_partitions/megabytes_per_second",
        &[&["/produce_16_partitions/megabytes_per_second"]],
        at_least(0.7),
    ),
    shown(
        "100 keyed producers, 1,000 partitions, to a raw writer of such shares",
        "/produce_keyed_1000_partitions/megabytes_per_second",
        &[&["/raw_writer_1000_files_16_kib/megabytes_per_second"]],
    ),
    shown(
        "a raw writer of such shares to durable produce, 16 partitions",
        "/raw_writer_1000_files_16_kib/megabytes_per_second",
        &[&["/produce_16_partitions/megabytes_per_second"]],
    ),
    shown(
        "100 keyed producers, 10,000 partitions to 1,000",
        "/produce_keyed_10000_partitions/megabytes_per_second",
        &[&["/produce_keyed_1000_partitions/megabytes_per_second"]],
    ),
    held(
        "p99 of the first touch of 1,000 partitions to the next",
        "/touch_1000_partitions/first/latency_us/p99",
        &[&["/touch_1000_partitions/later/latency_us/p99"]],
        at_most(1.0),
    ),
    shown(
        "median of the first touch of 1,000 partitions to the next",
        "/touch_1000_partitions/first/latency_us/p50",
        &[&["/touch_1000_partitions/later/latency_us/p50"]],
    ),
    held(
        "p99 of the first touch of 10,000 partitions to the next",
        "/touch_10000_partitions/first/latency_us/p99",
        &[&["/touch_10000_partitions/later/latency_us/p99"]],
        at_most(1.0),
    ),
    shown(
        "median of the first touch of 10,000 partitions to the next",
        "/touch_10000_partitions/first/latency_us/p50",
        &[&["/touch_10000_partitions/later/latency_us/p50"]],
    ),
    held(
        "1 KiB requests, 100 connections, to a bare echo",
        "/produce_small_100_connections/requests_per_second",
        &[&["/echo_100_connections/requests_per_second"]],
        at_least(0.7),
    ),
    held(
        "1 KiB requests, 1,000 connections, to a bare echo",
        "/produce_small_1000_connections/requests_per_second",
        &[&["/echo_1000_connections/requests_per_second"]],
        at_least(0.7),
    ),
    held(
        "fetch, 1 reader, to a bare sender",
        "/fetch_tail/readers_1/megabytes_per_second",
        &[&["/send_large/connections_1/megabytes_per_second"]],
        at_least(0.8),
    ),
    held(
        "fetch, 5 readers, to a bare sender",
        "/fetch_tail/readers_5/megabytes_per_second",
        &[&["/send_large/connections_5/megabytes_per_second"]],
        at_least(0.8),
    ),
    held(
        "cold read beside half load to a bare reader's",
        "/fetch_cold/beside_reader/read_megabytes_per_second",
        &[&["/fetch_cold/beside_bare_reader/read_megabytes_per_second"]],
        at_least(1.0),
    ),
    held(
        "p99 at half load beside a cold reader to alone, of the median second",
        "/fetch_cold/beside_reader/p99_us_of_seconds/median",
        &[&["/fetch_cold/alone/p99_us_of_seconds/median"]],
        at_most(1.2),
    ),
    shown(
        "p99 at half load beside a bare cold reader to alone, of the median second",
        "/fetch_cold/beside_bare_reader/p99_us_of_seconds/median",
        &[&["/fetch_cold/alone/p99_us_of_seconds/median"]],
    ),
    shown(
        "p99 at half load to alone, beside a bare cold reader at the rate of the fetches, of the median second",
        "/fetch_cold/beside_paced_reader/p99_us_of_seconds/median",
        &[&["/fetch_cold/alone/p99_us_of_seconds/median"]],
    ),
];

/// A ratio without a target.
const fn shown(name: &'static str, of: &'static str, to: &'static [Limit]) -> Ratio {
    Ratio { name, of, to, target: NO_TARGET }
}

const fn held(name: &'static str, of: &'static str, to: &'static [Limit], target: Target) -> Ratio {
    Ratio { name, of, to, target }
}

/// Rows of the table: what, where it stands, unit.
const ROWS: &[(&str, &str, &str)] = &[
    ("raw writer, 16 files, 1 MiB groups", "/raw_writer_16_files/megabytes_per_second", "MB/s"),
    ("  after the produce", "/raw_writer_16_files_after/megabytes_per_second", "MB/s"),
    ("raw writer, 1,000 files, 1 MiB groups", "/raw_writer_1000_files/megabytes_per_second", "MB/s"),
    ("  after the produce", "/raw_writer_1000_files_after/megabytes_per_second", "MB/s"),
    ("loopback, to the broker's core", "/loopback/receive_megabytes_per_second", "MB/s"),
    ("loopback, from the broker's core", "/loopback/send_megabytes_per_second", "MB/s"),
    ("loopback, 1 KiB echo, 16 connections", "/loopback/echo_requests_per_second", "requests/s"),
    ("client alone, producing to nothing", "/client_produce/megabytes_per_second", "MB/s"),
    ("client alone, consuming from nothing", "/client_consume/megabytes_per_second", "MB/s"),
    ("durable produce, 16 partitions", "/produce_16_partitions/megabytes_per_second", "MB/s"),
    ("  broker processor time", "/produce_16_partitions/broker/cpu_seconds_per_gb", "s/GB"),
    ("  broker memory", "/produce_16_partitions/broker/resident_mib", "MiB"),
    ("  written to the device", "/produce_16_partitions/broker/device_bytes_per_byte", "bytes per byte"),
    ("  written by the process", "/produce_16_partitions/broker/process_bytes_per_byte", "bytes per byte"),
    ("durable produce, 1,000 partitions", "/produce_1000_partitions/megabytes_per_second", "MB/s"),
    ("  written to the device", "/produce_1000_partitions/broker/device_bytes_per_byte", "bytes per byte"),
    ("durable produce at half load", "/produce_half_load/megabytes_per_second", "MB/s"),
    ("  p50", "/produce_half_load/latency_us/p50", "us"),
    ("  p99", "/produce_half_load/latency_us/p99", "us"),
    ("  p99.9", "/produce_half_load/latency_us/p99.9", "us"),
    ("  p99 of the median second", "/produce_half_load/p99_us_of_seconds/median", "us"),
    ("raw write and flush at that load, p99", "/raw_writer_half_load/commit_us/p99", "us"),
    ("  p99.9", "/raw_writer_half_load/commit_us/p99.9", "us"),
    ("  p99 of the median second", "/raw_writer_half_load/p99_us_of_seconds/median", "us"),
    (
        "half load and compacted topics of 30 MB/s, not cleaned, p99 of the median second",
        "/cleaning/not_cleaned/p99_us_of_seconds/median",
        "us",
    ),
    ("  of the worst second", "/cleaning/not_cleaned/p99_us_of_seconds/worst", "us"),
    ("  cleaned, p99 of the median second", "/cleaning/cleaned/p99_us_of_seconds/median", "us"),
    ("  of the worst second", "/cleaning/cleaned/p99_us_of_seconds/worst", "us"),
    ("  read by the cleaner", "/cleaning/cleaned/cleaner_megabytes_per_second", "MB/s"),
    (
        "raw writer, 1,000 files, shares of 16 KiB, 4 MiB groups",
        "/raw_writer_1000_files_16_kib/megabytes_per_second",
        "MB/s",
    ),
    (
        "100 keyed producers, 1,000 partitions, 16 KiB",
        "/produce_keyed_1000_partitions/megabytes_per_second",
        "MB/s",
    ),
    (
        "  written to the device",
        "/produce_keyed_1000_partitions/broker/device_bytes_per_byte",
        "bytes per byte",
    ),
    (
        "100 keyed producers, 10,000 partitions, 16 KiB",
        "/produce_keyed_10000_partitions/megabytes_per_second",
        "MB/s",
    ),
    (
        "  written to the device",
        "/produce_keyed_10000_partitions/broker/device_bytes_per_byte",
        "bytes per byte",
    ),
    ("first touch of 1,000 partitions, p99", "/touch_1000_partitions/first/latency_us/p99", "us"),
    ("  the next, p99", "/touch_1000_partitions/later/latency_us/p99", "us"),
    ("first touch of 10,000 partitions, p99", "/touch_10000_partitions/first/latency_us/p99", "us"),
    ("  the next, p99", "/touch_10000_partitions/later/latency_us/p99", "us"),
    ("1 KiB requests, 100 connections", "/produce_small_100_connections/requests_per_second", "requests/s"),
    ("  a bare echo", "/echo_100_connections/requests_per_second", "requests/s"),
    (
        "1 KiB requests, 1,000 connections",
        "/produce_small_1000_connections/requests_per_second",
        "requests/s",
    ),
    ("  a bare echo", "/echo_1000_connections/requests_per_second", "requests/s"),
    ("fetch at the tail, 1 reader", "/fetch_tail/readers_1/megabytes_per_second", "MB/s"),
    ("fetch at the tail, 5 readers", "/fetch_tail/readers_5/megabytes_per_second", "MB/s"),
    ("  a bare sender, 1 connection", "/send_large/connections_1/megabytes_per_second", "MB/s"),
    ("  a bare sender, 5 connections", "/send_large/connections_5/megabytes_per_second", "MB/s"),
    (
        "cold read beside producing at half load",
        "/fetch_cold/beside_reader/read_megabytes_per_second",
        "MB/s",
    ),
    ("  p99 of producing, of the median second", "/fetch_cold/beside_reader/p99_us_of_seconds/median", "us"),
    ("  of the worst second", "/fetch_cold/beside_reader/p99_us_of_seconds/worst", "us"),
    ("  a bare reader instead", "/fetch_cold/beside_bare_reader/read_megabytes_per_second", "MB/s"),
    ("  p99 of the median second", "/fetch_cold/beside_bare_reader/p99_us_of_seconds/median", "us"),
    ("  of the worst second", "/fetch_cold/beside_bare_reader/p99_us_of_seconds/worst", "us"),
    ("  one at the rate of the fetches", "/fetch_cold/beside_paced_reader/read_megabytes_per_second", "MB/s"),
    ("  p99 of the median second", "/fetch_cold/beside_paced_reader/p99_us_of_seconds/median", "us"),
    ("  of the worst second", "/fetch_cold/beside_paced_reader/p99_us_of_seconds/worst", "us"),
    ("  no reader, p99 of the median second", "/fetch_cold/alone/p99_us_of_seconds/median", "us"),
    ("  of the worst second", "/fetch_cold/alone/p99_us_of_seconds/worst", "us"),
    ("idle, 16 partitions", "/idle/cpu_percent", "% of a core"),
    ("idle, 10,000 partitions", "/memory/cpu_percent", "% of a core"),
    ("memory, 10,000 partitions", "/memory/bytes_per_partition", "bytes/partition"),
];

/// The ratios whose sides were both measured.
pub(crate) fn ratios(figures: &Map<String, Value>) -> Value {
    let figures = Value::Object(figures.clone());
    let mut found = Map::new();
    for ratio in RATIOS {
        let limits: Option<Vec<f64>> = ratio.to.iter().map(|limit| mean(&figures, limit)).collect();
        let limit = limits.and_then(|limits| limits.into_iter().reduce(f64::min));
        if let (Some(value), Some(limit)) = (number(&figures, ratio.of), limit)
            && limit > 0.0
        {
            found.insert(ratio.name.to_owned(), json!((value / limit * 1000.0).round() / 1000.0));
        }
    }
    Value::Object(found)
}

/// The whole report as Markdown.
pub(crate) fn markdown(report: &Value) -> String {
    let text = |path: &str| report.pointer(path).map_or_else(String::new, plain);
    let mut out = format!("# Figures of {}\n\n", text("/date"));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "`{}`\n", text("/command"));
    let _ = writeln!(
        out,
        "{}, {} cores{}, {} GiB, Linux {}, {}. Broker on core {}, client on core {}; each measurement {} s after a \
         warm-up of {} s.\n",
        text("/machine/processor"),
        text("/machine/cores"),
        if report.pointer("/machine/virtual_machine") == Some(&json!(true)) {
            " (virtual machine)"
        } else {
            ""
        },
        text("/machine/memory_gib"),
        text("/machine/kernel"),
        text("/machine/file_system"),
        text("/cores/broker"),
        text("/cores/client"),
        text("/seconds"),
        text("/warm_up_seconds"),
    );
    out.push_str("| what | figure | |\n|---|---:|---|\n");
    let figures = report.pointer("/figures").cloned().unwrap_or_default();
    for (what, path, unit) in ROWS {
        if let Some(value) = number(&figures, path) {
            let _ = writeln!(out, "| {what} | {} | {unit} |", rounded(value));
        }
    }
    out.push_str("\n| ratio | | wanted | |\n|---|---:|---:|---|\n");
    let found = report.pointer("/ratios").and_then(Value::as_object);
    for ratio in RATIOS {
        let Some(value) = found.and_then(|found| found.get(ratio.name)?.as_f64()) else { continue };
        let verdict = match ratio.target.is_met(value) {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        let _ = writeln!(out, "| {} | {value} | {} | {verdict} |", ratio.name, ratio.target.text());
    }
    let failed =
        figures.as_object().into_iter().flatten().filter(|(_, figure)| figure.get("failed").is_some());
    for (name, figure) in failed {
        let _ = writeln!(out, "\n{name} failed: {}", plain(&figure["failed"]));
    }
    out
}

fn mean(figures: &Value, paths: Limit) -> Option<f64> {
    let known: Vec<f64> = paths.iter().filter_map(|path| number(figures, path)).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

fn number(figures: &Value, path: &str) -> Option<f64> {
    figures.pointer(path).and_then(Value::as_f64)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn rounded(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_take_the_lower_limit_and_leave_out_what_is_missing() {
        let figures = json!({
            "produce_16_partitions": { "megabytes_per_second": 900.0 },
            "raw_writer_16_files": { "megabytes_per_second": 1800.0 },
            "loopback": { "receive_megabytes_per_second": 1000.0 },
        });
        let mut figures = figures.as_object().unwrap().clone();
        let found = ratios(&figures);
        assert_eq!(found.as_object().unwrap().len(), 1);
        assert_eq!(found[RATIOS[0].name], 0.9);
        // The disk drifted: what counts is the mean of before and after.
        figures.insert("raw_writer_16_files_after".to_owned(), json!({ "megabytes_per_second": 120.0 }));
        assert_eq!(ratios(&figures)[RATIOS[0].name], 0.938);
    }

    #[test]
    fn targets_have_a_line_on_which_they_are_met() {
        let at_least = Target { at_least: Some(0.8), at_most: None };
        let at_most = Target { at_least: None, at_most: Some(2.0) };
        assert_eq!((at_least.is_met(0.8), at_least.is_met(0.799)), (Some(true), Some(false)));
        assert_eq!((at_most.is_met(2.0), at_most.is_met(2.1)), (Some(true), Some(false)));
        assert_eq!(NO_TARGET.is_met(0.0), None);
        assert_eq!((at_least.text(), at_most.text()), ("≥ 0.8".to_owned(), "≤ 2".to_owned()));
    }

    #[test]
    fn the_table_shows_figures_and_failures() {
        let report = json!({
            "date": "2026-01-02",
            "figures": { "idle": { "cpu_percent": 0.5 }, "memory": { "failed": "no memory" } },
            "ratios": {
                RATIOS[0].name: 0.95,
                RATIOS[1].name: 0.4,
            },
        });
        let text = markdown(&report);
        for part in [
            "# Figures of 2026-01-02",
            "| idle, 16 partitions | 0.50 |",
            "loopback | 0.95 | ≥ 0.9 | met |",
            "loopback | 0.4 |  |  |",
            "memory failed: no memory",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
