//! What a run found: totals of the measured part, as a table, as JSON and as an HdrHistogram log.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde_json::{Value, json};

use crate::chart::Figure;
use crate::meter::Counts;
use crate::series::{MeasuredInterval, Point, over_time, percentiles};

/// The quantiles that a report shows, with their names.
pub const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("max", 1.0),
];

/// The totals of one kind of work (produce, consume, end to end) over the measured part of a run.
#[derive(Debug, Clone)]
pub struct Totals {
    /// What was measured: `produce`, `consume`, `end-to-end`.
    pub name: &'static str,
    /// What `latency` means, in words.
    pub latency_of: &'static str,
    /// When measuring began.
    pub measured_from: SystemTime,
    /// How long was measured.
    pub elapsed: Duration,
    /// What happened in that time; latencies include those of the drain.
    pub counts: Counts,
    /// Requests that had no answer when the drain was given up.
    pub unanswered: u64,
    /// Measured intervals of a second each.
    pub intervals: Vec<MeasuredInterval>,
}

impl Totals {
    /// Records in a second.
    pub fn records_per_second(&self) -> f64 {
        self.counts.records as f64 / self.seconds()
    }

    /// Record batch bytes in a second, in units of a million bytes.
    pub fn megabytes_per_second(&self) -> f64 {
        self.counts.bytes as f64 / 1e6 / self.seconds()
    }

    /// Requests in a second.
    pub fn requests_per_second(&self) -> f64 {
        self.counts.requests as f64 / self.seconds()
    }

    fn seconds(&self) -> f64 {
        self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The totals as JSON; latencies in microseconds.
    pub fn to_json(&self) -> Value {
        let latency = &self.counts.latency;
        let mut quantiles = serde_json::Map::new();
        for (name, quantile) in QUANTILES {
            quantiles.insert(name.to_owned(), json!(micros(latency.value_at_quantile(quantile))));
        }
        quantiles.insert("mean".to_owned(), json!(latency.mean() / 1e3));
        quantiles.insert("count".to_owned(), json!(latency.len()));
        json!({
            "name": self.name,
            "measured_from_unix_ms": unix_ms(self.measured_from),
            "seconds": self.elapsed.as_secs_f64(),
            "requests": self.counts.requests,
            "records": self.counts.records,
            "bytes": self.counts.bytes,
            "requests_per_second": self.requests_per_second(),
            "records_per_second": self.records_per_second(),
            "megabytes_per_second": self.megabytes_per_second(),
            "errors": self.counts.errors,
            "unanswered": self.unanswered,
            "latency_of": self.latency_of,
            "latency_us": quantiles,
            "percentiles": percentiles(latency),
            "series": over_time(&self.intervals).iter().map(point_json).collect::<Vec<_>>(),
        })
    }

    /// What charts are drawn from.
    pub fn to_figure(&self) -> Figure {
        Figure {
            kind: self.name.to_owned(),
            latency_of: self.latency_of.to_owned(),
            megabytes_per_second: self.megabytes_per_second(),
            percentiles: percentiles(&self.counts.latency),
            series: over_time(&self.intervals),
        }
    }

    /// Writes the totals as a table for people.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<11} {:.1} s: {} records, {} requests, {:.1} MB",
            self.name,
            self.elapsed.as_secs_f64(),
            self.counts.records,
            self.counts.requests,
            self.counts.bytes as f64 / 1e6
        )?;
        writeln!(
            out,
            "  rate      {:.0} records/s   {:.1} MB/s   {:.0} requests/s",
            self.records_per_second(),
            self.megabytes_per_second(),
            self.requests_per_second()
        )?;
        if !self.counts.latency.is_empty() {
            writeln!(out, "  latency   {} (ms)", self.latency_of)?;
            let names: String = QUANTILES.iter().map(|(name, _)| format!("{name:>11}")).collect();
            let values: String = QUANTILES
                .iter()
                .map(|(_, quantile)| {
                    format!("{:>11.3}", self.counts.latency.value_at_quantile(*quantile) as f64 / 1e6)
                })
                .collect();
            writeln!(out, "  {names}\n  {values}")?;
        }
        for (name, count) in &self.counts.errors {
            writeln!(out, "  error     {count} x {name}")?;
        }
        if self.unanswered > 0 {
            writeln!(out, "  error     {} requests were never answered", self.unanswered)?;
        }
        Ok(())
    }
}

fn point_json(point: &Point) -> Value {
    json!({
        "from_s": point.from_s,
        "to_s": point.to_s,
        "records_per_second": point.records_per_second,
        "megabytes_per_second": point.megabytes_per_second,
        "p50_us": point.p50_us,
        "p99_us": point.p99_us,
        "p999_us": point.p999_us,
        "max_us": point.max_us,
    })
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Writes `value` to `path`, indented, with a line end.
pub fn write_json(path: &Path, value: &Value) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer_pretty(&mut file, value)?;
    writeln!(file)?;
    file.flush()
}

/// Writes the measured intervals of `totals` as an HdrHistogram interval log (format 1.3), values in nanoseconds,
/// interval maxima in milliseconds, one tag for each kind of work. `started` is the start of the run.
pub fn write_hdr_log(path: &Path, started: SystemTime, totals: &[&Totals]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("Written by penstock-loadgen; values in nanoseconds, Interval_Max in milliseconds")
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(1e6);
    let mut log = builder.begin_log_with(&mut file, &mut serializer)?;
    let mut rows: Vec<_> =
        totals.iter().flat_map(|t| t.intervals.iter().map(move |interval| (t.name, interval))).collect();
    rows.sort_by_key(|(_, interval)| interval.start);
    for (name, interval) in rows {
        let length = interval.end - interval.start;
        log.write_histogram(&interval.latency, interval.start, length, Tag::new(name))
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    drop(log);
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::{new_histogram, record};
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn sample() -> Totals {
        let mut counts = Counts { requests: 10, records: 640, bytes: 655_360, ..Counts::default() };
        counts.errors.insert("NOT_LEADER_OR_FOLLOWER".to_owned(), 2);
        let mut interval = new_histogram();
        for millis in 1..=10 {
            record(&mut interval, Duration::from_millis(millis));
        }
        counts.latency.add(&interval).unwrap();
        Totals {
            name: "produce",
            latency_of: "request, from its intended time",
            measured_from: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            elapsed: Duration::from_secs(2),
            counts,
            unanswered: 0,
            intervals: vec![MeasuredInterval {
                start: Duration::from_secs(1),
                end: Duration::from_secs(2),
                records: 640,
                bytes: 655_360,
                latency: interval,
            }],
        }
    }

    #[test]
    fn table_and_json_agree() {
        let totals = sample();
        let mut table = Vec::new();
        totals.write_table(&mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert!(table.contains("320 records/s"), "{table}");
        assert!(table.contains("2 x NOT_LEADER_OR_FOLLOWER"), "{table}");
        let json = totals.to_json();
        assert_eq!(json["records_per_second"], 320.0);
        assert_eq!(json["measured_from_unix_ms"], 1500);
        let p50 = json["latency_us"]["p50"].as_f64().unwrap();
        assert!((4_990.0..5_010.0).contains(&p50), "{p50}");
    }

    #[test]
    fn json_reads_back_as_what_charts_are_drawn_from() {
        let totals = sample();
        let text = json!({ "figures": [totals.to_json()] }).to_string();
        let (read, own) = (crate::chart::read(&text).unwrap().remove(0), totals.to_figure());
        assert_eq!((&read.kind, read.series.len()), (&own.kind, 1));
        let drawn = |figure: &crate::chart::Figure| {
            let runs = [crate::chart::Named { name: "run", figure }];
            [crate::chart::latency(&runs), crate::chart::over_time(&runs)]
        };
        assert_eq!(drawn(&read), drawn(&own), "to the last digit but those that nobody sees");
    }

    #[test]
    fn hdr_log_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.hlog");
        write_hdr_log(&path, SystemTime::now(), &[&sample()]).unwrap();
        let text = std::fs::read(&path).unwrap();
        assert!(
            text.starts_with(b"#[Histogram log format version 1.3]"),
            "{}",
            String::from_utf8_lossy(&text)
        );
        let mut intervals = 0;
        for entry in IntervalLogIterator::new(&text) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                assert_eq!(interval.tag().unwrap().as_str(), "produce");
                assert!((10.0..10.01).contains(&interval.max()), "milliseconds");
                let bytes = base64_decode(interval.encoded_histogram());
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                assert_eq!(histogram.len(), 10);
                intervals += 1;
            }
        }
        assert_eq!(intervals, 1);
    }

    fn base64_decode(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits: Vec<u32> = text
            .bytes()
            .filter(|&b| b != b'=')
            .map(|b| ALPHABET.iter().position(|&a| a == b).unwrap() as u32)
            .collect();
        let mut out = Vec::new();
        for group in digits.chunks(4) {
            let value = group.iter().enumerate().fold(0, |sum, (i, digit)| sum | digit << (18 - 6 * i));
            out.extend_from_slice(&value.to_be_bytes()[1..group.len()]);
        }
        out
    }
}
