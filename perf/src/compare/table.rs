//! The comparison as Markdown: goals first, then a table for each scenario. Pure.

use std::fmt::Write;

use serde_json::Value;

use super::cell::RISE_MAX;
use super::peer::PeerKind;

/// What a row shows: its name, where it stands, its unit, and what it is divided by for that.
type Row = (&'static str, &'static str, &'static str, f64);

/// Rows of a scenario's table; those that no peer has are left out.
const ROWS: &[Row] = &[
    ("produce", "/loadgen/produce/megabytes_per_second", "MB/s", 1.0),
    ("produce", "/loadgen/produce/requests_per_second", "requests/s", 1.0),
    ("produce p50", "/loadgen/produce/latency_us/p50", "ms", 1e3),
    ("produce p99", "/loadgen/produce/latency_us/p99", "ms", 1e3),
    ("produce p99.9", "/loadgen/produce/latency_us/p99.9", "ms", 1e3),
    ("consume", "/loadgen/consume/megabytes_per_second", "MB/s", 1.0),
    ("end to end", "/loadgen/end-to-end/megabytes_per_second", "MB/s", 1.0),
    ("end to end p50", "/loadgen/end-to-end/latency_us/p50", "ms", 1e3),
    ("end to end p99", "/loadgen/end-to-end/latency_us/p99", "ms", 1e3),
    ("end to end p99.9", "/loadgen/end-to-end/latency_us/p99.9", "ms", 1e3),
    ("beside it: produce", "/background/produce/megabytes_per_second", "MB/s", 1.0),
    ("beside it: produce p99", "/background/produce/latency_us/p99", "ms", 1e3),
    ("never answered", "/loadgen/produce/unanswered", "requests", 1.0),
    ("under load, warming up and measured", "/loaded_seconds", "s", 1.0),
    ("broker's processor", "/broker/cpu_share", "cores", 1.0),
    ("broker's memory", "/broker/resident_mib", "MiB", 1.0),
    ("written to the device", "/broker/device_bytes_per_byte", "bytes per byte", 1.0),
    ("Kafka's own client", "/kafka-client/megabytes_per_second", "MB/s", 1.0),
    ("Kafka's own client p50", "/kafka-client/latency_us/p50", "ms", 1e3),
    ("Kafka's own client p99", "/kafka-client/latency_us/p99", "ms", 1e3),
    ("Kafka's own client p99.9", "/kafka-client/latency_us/p99.9", "ms", 1e3),
    ("stop", "/restart/stop_seconds", "s", 1.0),
    ("start after a stop", "/restart/seconds_after_stop", "s", 1.0),
    ("start after a kill", "/restart/seconds_after_kill", "s", 1.0),
];

/// The whole report.
pub(super) fn markdown(report: &Value) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut out, report);
    let scenarios = report["scenarios"].as_array().map(Vec::as_slice).unwrap_or_default();
    let _ = goals(&mut out, scenarios);
    for scenario in scenarios {
        let _ = section(&mut out, scenario, report["charts"].as_str());
    }
    out
}

fn head(out: &mut String, report: &Value) -> std::fmt::Result {
    let text = |path: &str| report.pointer(path).map_or_else(String::new, plain);
    writeln!(out, "# Beside Apache Kafka {}, {}\n\n`{}`\n", text("/kafka"), text("/date"), text("/command"))?;
    let virtual_machine = report.pointer("/machine/virtual_machine") == Some(&Value::Bool(true));
    writeln!(
        out,
        "{}, {} cores{}, {} GiB, Linux {}, {}. Broker on core {}, clients on core {}; medians of {} rounds in turn, each {} s \
         after {} s of the same load, up to {} s where one still rose; every peer anew for each.",
        text("/machine/processor"),
        text("/machine/cores"),
        if virtual_machine { " (virtual machine)" } else { "" },
        text("/machine/memory_gib"),
        text("/machine/kernel"),
        text("/machine/file_system"),
        text("/cores/broker"),
        text("/cores/client"),
        text("/rounds"),
        text("/seconds"),
        text("/warm_seconds"),
        text("/warm_seconds_max"),
    )?;
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).map_or("?".to_owned(), rounded);
    writeln!(
        out,
        "What the machine can do with nothing around it: raw group commits {} MB/s (16 files) and {} MB/s (1,000 files); \
         loopback {} MB/s in, {} MB/s out.\n",
        number("/ceilings/raw_writer_16_files/megabytes_per_second"),
        number("/ceilings/raw_writer_1000_files/megabytes_per_second"),
        number("/ceilings/loopback/receive_megabytes_per_second"),
        number("/ceilings/loopback/send_megabytes_per_second"),
    )
}

fn goals(out: &mut String, scenarios: &[Value]) -> std::fmt::Result {
    out.push_str("| goal | against | wanted | found | |\n|---|---|---:|---:|---|\n");
    let mut reasons = String::new();
    for scenario in scenarios {
        for goal in scenario["goals"].as_array().into_iter().flatten() {
            let wanted = match (goal["at_least"].as_f64(), goal["at_most"].as_f64()) {
                (Some(least), _) => format!("≥ {least}"),
                (_, most) => format!("≤ {}", most.unwrap_or(0.0)),
            };
            let against = &scenario["medians"][plain(&goal["against"]).as_str()];
            let verdict = match goal["is_met"].as_bool() {
                Some(true) if still_rose(against) => "met, against one that was not warm",
                Some(true) => "met",
                Some(false) => "**behind**",
                None => "not measured",
            };
            let what = format!("{}: {}", plain(&scenario["name"]), label(&plain(&goal["figure"])));
            let found = goal["ratio"].as_f64().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            writeln!(out, "| {what} | {} | {wanted} | {found} | {verdict} |", plain(&goal["against"]))?;
            if goal["is_met"].as_bool() == Some(false)
                && let Some(why) = goal["why"].as_str()
            {
                writeln!(reasons, "Behind in {what}: {why}\n")?;
            }
        }
    }
    writeln!(out, "\n{reasons}")
}

fn section(out: &mut String, scenario: &Value, charts: Option<&str>) -> std::fmt::Result {
    let name = plain(&scenario["name"]);
    writeln!(out, "## {name}\n{}\n", plain(&scenario["about"]))?;
    let medians = &scenario["medians"];
    let peers: Vec<PeerKind> =
        PeerKind::all().into_iter().filter(|peer| medians.get(peer.name()).is_some()).collect();
    let titles: String = peers.iter().map(|peer| format!(" {} |", peer.title())).collect();
    writeln!(out, "| |{titles} |\n|---|{}---|", "---:|".repeat(peers.len()))?;
    for (what, pointer, unit, divisor) in ROWS {
        let found: Vec<Option<f64>> =
            peers.iter().map(|peer| medians[peer.name()].pointer(pointer).and_then(Value::as_f64)).collect();
        // That nothing was left unanswered needs no row.
        if found.iter().flatten().next().is_none()
            || (pointer.ends_with("unanswered") && found.iter().flatten().all(|count| *count == 0.0))
        {
            continue;
        }
        let cell =
            |value: &Option<f64>| value.map_or(" |".to_owned(), |v| format!(" {} |", rounded(v / divisor)));
        let cells: String = found.iter().map(cell).collect();
        writeln!(out, "| {what} |{cells} {unit} |")?;
    }
    out.push('\n');
    for peer in peers.iter().filter(|peer| still_rose(&medians[peer.name()])) {
        writeln!(
            out,
            "{} was not warm: it still rose within the measured part. Repeat with a longer `--warm-max`.\n",
            peer.title()
        )?;
    }
    for failure in scenario["failures"].as_array().into_iter().flatten() {
        writeln!(out, "Failed: {}\n", plain(failure))?;
    }
    for chart in scenario["charts"].as_array().into_iter().flatten() {
        writeln!(out, "![{name}]({}/{})\n", charts.unwrap_or("."), plain(chart))?;
    }
    Ok(())
}

/// Whether a load at the maximum went faster and faster.
fn still_rose(medians: &Value) -> bool {
    medians.pointer("/loadgen/produce/rise").and_then(Value::as_f64).is_some_and(|rise| rise > RISE_MAX)
}

/// What people call a figure.
fn label(pointer: &str) -> String {
    let row = ROWS.iter().find(|(_, known, ..)| *known == pointer);
    row.map_or_else(|| pointer.to_owned(), |(what, _, unit, _)| format!("{what}, {unit}"))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn rounded(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn goals_failures_and_figures_are_shown() {
        let goal = |ratio: Option<f64>, is_met: Option<bool>| {
            json!({ "figure": "/loadgen/produce/latency_us/p99.9", "against": "kafka", "at_most": 0.5,
                    "ratio": ratio, "is_met": is_met, "why": "the disk" })
        };
        let report = json!({
            "kafka": "4.3.1", "date": "2026-01-02", "charts": "c", "rounds": 2,
            "scenarios": [{
                "name": "half", "about": "About.", "charts": ["half-produce-latency.svg"],
                "goals": [goal(Some(0.25), Some(true)), goal(Some(0.75), Some(false)), goal(None, None)],
                "failures": ["round 2, kafka: it died"],
                "medians": {
                    "penstock": { "loadgen": { "produce": { "latency_us": { "p99.9": 2500.0 }, "unanswered": 0 } } },
                    "kafka": { "loadgen": { "produce": { "latency_us": { "p99.9": 10000.0 }, "unanswered": 0, "rise": 0.2 } } },
                },
            }],
        });
        let text = markdown(&report);
        for part in [
            "# Beside Apache Kafka 4.3.1, 2026-01-02",
            "| half: produce p99.9, ms | kafka | ≤ 0.5 | 0.25 | met, against one that was not warm |",
            "| half: produce p99.9, ms | kafka | ≤ 0.5 | 0.75 | **behind** |",
            "| half: produce p99.9, ms | kafka | ≤ 0.5 | - | not measured |",
            "Behind in half: produce p99.9, ms: the disk",
            "| | Penstock | Kafka | |",
            "| produce p99.9 | 2.50 | 10.0 | ms |",
            "\nKafka was not warm",
            "Failed: round 2, kafka: it died",
            "![half](c/half-produce-latency.svg)",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("never answered"), "{text}");
    }
}
