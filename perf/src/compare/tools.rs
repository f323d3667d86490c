//! Kafka's own measuring tools against any peer: a second witness beside penstock-loadgen, one that is not ours.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::kafka::KafkaSpec;
use super::scenario::{KafkaClient, Tool};
use crate::process;

/// Memory as in Kafka's own scripts of these tools.
const JVM: [&str; 2] = ["-Xmx512M", "-server"];
/// What the tools call a megabyte.
const TOOL_MEGABYTE: f64 = (1 << 20) as f64;
/// More records than any run has.
const RECORDS_WITHOUT_END: u64 = 1 << 50;
/// How long a tool may take beyond its own time.
const SLACK: Duration = Duration::from_secs(120);

/// What a run of a tool needs.
#[derive(Debug, Clone)]
pub(super) struct ToolRun<'a> {
    pub(super) kafka: &'a KafkaSpec,
    pub(super) client: &'a KafkaClient,
    pub(super) core: usize,
    pub(super) address: &'a str,
    pub(super) topic: &'a str,
    pub(super) warm: Duration,
    pub(super) duration: Duration,
    /// Records a second that are produced; none for the maximum.
    pub(super) rate: Option<f64>,
    /// Records that are there to consume.
    pub(super) filled_records: u64,
}

/// Runs the tool and gives what it found.
pub(super) fn run(run: &ToolRun<'_>) -> io::Result<Value> {
    let mut command = run.kafka.java(&JVM);
    command.args(arguments(run)).stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
    let child = process::spawn_pinned(&mut command, Some(run.core))?;
    let lines = Reading { child, started: Instant::now() }.lines(run)?;
    let found = match (run.client.tool, run.rate) {
        (Tool::Producer, None) => produced_at_maximum(&lines, run),
        (Tool::Producer, Some(_)) => produced_at_rate(&lines, run.client.record_size),
        (Tool::Consumer, _) => consumed(&lines),
    };
    found.ok_or_else(|| {
        let last = lines.last().map_or("nothing", |line| line.text.as_str());
        io::Error::other(format!("Kafka's own tool told nothing that could be read; its last line: {last}"))
    })
}

/// Class and arguments.
fn arguments(run: &ToolRun<'_>) -> Vec<String> {
    let seconds = |duration: Duration| duration.as_secs_f64();
    let mut args: Vec<String> = match run.client.tool {
        Tool::Producer => {
            let records = |span| run.rate.map(|rate| (rate * seconds(span)).ceil() as u64);
            let (warm, measured) = (records(run.warm), records(run.duration));
            let all = warm.zip(measured).map_or(RECORDS_WITHOUT_END, |(warm, measured)| warm + measured);
            let mut args = vec![
                "org.apache.kafka.tools.ProducerPerformance".to_owned(),
                format!("--num-records={all}"),
                format!("--throughput={}", run.rate.map_or(-1, |rate| rate as i64)),
                format!("--record-size={}", run.client.record_size),
            ];
            args.extend(
                warm.filter(|records| *records > 0).map(|records| format!("--warmup-records={records}")),
            );
            args
        }
        Tool::Consumer => vec![
            "org.apache.kafka.tools.ConsumerPerformance".to_owned(),
            format!("--num-records={}", run.filled_records),
            "--timeout=60000".to_owned(),
        ],
    };
    args.extend(["--reporting-interval=1000".to_owned(), format!("--topic={}", run.topic)]);
    args.extend(["--bootstrap-server".to_owned(), run.address.to_owned()]);
    // One takes all properties behind the option's name, the other each behind a name of its own.
    for (at, property) in run.client.properties.iter().enumerate() {
        if at == 0 || run.client.tool == Tool::Consumer {
            args.push("--command-property".to_owned());
        }
        args.push(property.clone());
    }
    args
}

/// A line of output and when it came, from the start.
#[derive(Debug, Clone)]
struct Line {
    at: Duration,
    text: String,
}

/// A tool that runs. Dropping it ends it.
struct Reading {
    child: Child,
    started: Instant,
}

impl Reading {
    /// All lines until its end; at the maximum, where it knows no end, until the time is over.
    fn lines(&mut self, run: &ToolRun<'_>) -> io::Result<Vec<Line>> {
        let Some(stdout) = self.child.stdout.take() else {
            return Err(io::Error::other("Kafka's own tool has no output"));
        };
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(text);
            }
        });
        let ends_itself = run.client.tool == Tool::Consumer || run.rate.is_some();
        let time = run.warm + run.duration + if ends_itself { SLACK } else { Duration::ZERO };
        let mut lines = Vec::new();
        loop {
            let left = time.saturating_sub(self.started.elapsed());
            match receiver.recv_timeout(left) {
                Ok(text) => lines.push(Line { at: self.started.elapsed(), text }),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if ends_itself => {
                    return Err(io::Error::other("Kafka's own tool does not end"));
                }
                Err(RecvTimeoutError::Timeout) => return Ok(lines),
            }
        }
        match self.child.wait()?.success() {
            true => Ok(lines),
            false => Err(io::Error::other(format!(
                "Kafka's own tool failed; its last line: {}",
                lines.last().map_or("none", |line| line.text.as_str())
            ))),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number before `unit`, such as the 934.0 in `934.0 records/sec`.
fn before(text: &str, unit: &str) -> Option<f64> {
    let end = text.find(unit)?;
    let number = text[..end].trim_end().rsplit([' ', '(', ',']).next()?;
    number.parse().ok()
}

/// From the lines of each second behind the warm-up: records by the time that they took.
fn produced_at_maximum(lines: &[Line], run: &ToolRun<'_>) -> Option<Value> {
    let (mut records, mut seconds, mut latency_sum, mut latency_max) = (0.0, 0.0, 0.0, 0.0f64);
    for line in lines.iter().filter(|line| line.at > run.warm) {
        let (Some(count), Some(rate)) =
            (before(&line.text, "records sent"), before(&line.text, "records/sec"))
        else {
            continue;
        };
        if rate > 0.0 {
            records += count;
            seconds += count / rate;
            latency_sum += count * before(&line.text, "ms avg latency")?;
            latency_max = latency_max.max(before(&line.text, "ms max latency")?);
        }
    }
    (seconds > 0.0).then(|| {
        json!({
            "records_per_second": records / seconds,
            "megabytes_per_second": records / seconds * run.client.record_size as f64 / 1e6,
            "latency_us": { "mean": latency_sum / records * 1e3, "max": latency_max * 1e3 },
        })
    })
}

/// From the summary: that of the steady state, where there is one.
fn produced_at_rate(lines: &[Line], record_size: u64) -> Option<Value> {
    let line = &lines.iter().rev().find(|line| line.text.contains("99.9th"))?.text;
    let rate = before(line, "records/sec")?;
    let micros = |unit| before(line, unit).map(|millis| millis * 1e3);
    Some(json!({
        "records_per_second": rate,
        "megabytes_per_second": rate * record_size as f64 / 1e6,
        "latency_us": {
            "mean": micros("ms avg latency")?,
            "p50": micros("ms 50th")?,
            "p99": micros("ms 99th")?,
            "p99.9": micros("ms 99.9th")?,
            "max": micros("ms max latency")?,
        },
    }))
}

/// From the summary's columns; rates without the time that it took to join the group.
fn consumed(lines: &[Line]) -> Option<Value> {
    let at = lines.iter().position(|line| line.text.contains("fetch.MB.sec"))?;
    let split = |text: &str| text.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>();
    let (names, values) = (split(&lines[at].text), split(&lines.get(at + 1)?.text));
    let value = |name: &str| {
        let column = names.iter().position(|known| known == name)?;
        values.get(column)?.parse::<f64>().ok()
    };
    Some(json!({
        "records_per_second": value("fetch.nMsg.sec")?,
        "megabytes_per_second": value("fetch.MB.sec")? * TOOL_MEGABYTE / 1e6,
    }))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn lines(texts: &[(u64, &str)]) -> Vec<Line> {
        let line = |(at, text): &(u64, &str)| Line { at: Duration::from_secs(*at), text: (*text).to_owned() };
        texts.iter().map(line).collect()
    }

    fn with<T>(tool: Tool, rate: Option<f64>, look: impl FnOnce(&ToolRun<'_>) -> T) -> T {
        let kafka = KafkaSpec { jars: PathBuf::new(), data_dir: PathBuf::new(), core: 0 };
        let client = KafkaClient { tool, record_size: 1000, properties: vec!["acks=all".to_owned()] };
        look(&ToolRun {
            kafka: &kafka,
            client: &client,
            core: 1,
            address: "a:1",
            topic: "t",
            warm: Duration::from_secs(2),
            duration: Duration::from_secs(10),
            rate,
            filled_records: 77,
        })
    }

    #[test]
    fn the_maximum_counts_from_the_warm_up_on() {
        let told = lines(&[
            (
                1,
                "934 records sent, 934.0 records/sec (0.91 MB/sec), 206.7 ms avg latency, 796.0 ms max latency.",
            ),
            (
                3,
                "20000 records sent, 20000.0 records/sec (19.5 MB/sec), 5.0 ms avg latency, 79.0 ms max latency.",
            ),
            (
                4,
                "40000 records sent, 20000.0 records/sec (19.5 MB/sec), 2.0 ms avg latency, 10.0 ms max latency.",
            ),
        ]);
        let found = with(Tool::Producer, None, |run| produced_at_maximum(&told, run)).unwrap();
        assert_eq!(found["records_per_second"], 20000.0);
        assert_eq!(found["megabytes_per_second"], 20.0);
        assert_eq!(found["latency_us"]["mean"], 3000.0);
        assert_eq!(found["latency_us"]["max"], 79000.0);
        assert!(with(Tool::Producer, None, |run| produced_at_maximum(&told[..1], run)).is_none());
    }

    #[test]
    fn a_rate_has_percentiles_of_its_steady_state() {
        let told = lines(&[
            (
                9,
                "200000 records sent, 37292.560134 records/sec (36.42 MB/sec), 635.58 ms avg latency, 1022.00 ms max latency, 600 ms 50th, 932 ms 95th, 982 ms 99th, 1009 ms 99.9th.",
            ),
            (
                9,
                "100000 steady state records sent, 45913.5 records/sec (44.84 MB/sec), 516.08 ms avg latency, 651.00 ms max latency, 525 ms 50th, 609 ms 95th, 625 ms 99th, 644 ms 99.9th.",
            ),
        ]);
        let found = produced_at_rate(&told, 1000).unwrap();
        assert_eq!(found["records_per_second"], 45913.5);
        assert_eq!(found["latency_us"]["p99"], 625e3);
        assert_eq!(found["latency_us"]["p99.9"], 644e3);
        assert!(produced_at_rate(&told[..0], 1000).is_none());
    }

    #[test]
    fn consuming_is_read_from_columns() {
        let told = lines(&[
            (
                1,
                "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec",
            ),
            (
                1,
                "2026-11-21 11:00:11:859, 2026-11-21 11:00:14:191, 195.3125, 83.7532, 200000, 85763.2, 742, 1590, 100.0, 125786.5",
            ),
        ]);
        let found = consumed(&told).unwrap();
        assert_eq!(found["records_per_second"], 125786.5);
        assert!((found["megabytes_per_second"].as_f64().unwrap() - 104.8576).abs() < 1e-9);
        assert!(consumed(&told[..1]).is_none() && consumed(&[]).is_none());
    }

    #[test]
    fn arguments_follow_from_rate_and_tool() {
        let joined = |tool, rate| with(tool, rate, |run| arguments(run).join(" "));
        let at_rate = joined(Tool::Producer, Some(100.0));
        for part in
            ["--num-records=1200", "--warmup-records=200", "--throughput=100", "--command-property acks=all"]
        {
            assert!(at_rate.contains(part), "{part} in {at_rate}");
        }
        let maximum = joined(Tool::Producer, None);
        assert!(maximum.contains("--throughput=-1") && !maximum.contains("warmup"), "{maximum}");
        assert!(joined(Tool::Consumer, None).contains("--num-records=77"));
    }
}
