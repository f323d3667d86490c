//! Instructions per request of the hot paths, against a baseline. Pure.
//!
//! Instructions are counted, not timed: a count does not depend on the machine's speed, load or neighbours. What it takes to
//! start a case is taken out by running it twice, with few and with many requests: the difference belongs to the requests.

use std::collections::BTreeMap;

use serde_json::Value;

/// More instructions than the baseline by this part fail.
pub const SLOWER_MAX: f64 = 0.05;
/// Fewer by this part ask for a new baseline, so that what was won is not lost again unseen.
pub const FASTER_WORTH_NOTING: f64 = 0.05;
/// Two runs of the same may differ by this part: maps that are seeded at random, addresses that differ.
pub const NOISE_MAX: f64 = 0.005;

/// Instructions per request by the name of the case.
pub type Counts = BTreeMap<String, f64>;

/// A run of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Requests.
    pub requests: u64,
    /// Instructions of the whole process.
    pub instructions: u64,
}

/// What becomes of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Within the bounds.
    Same,
    /// Fewer instructions than the baseline, by enough to renew it.
    Faster,
    /// Too many.
    Slower,
    /// The baseline does not know it.
    New,
    /// The baseline knows it, and it was not run.
    Gone,
}

/// A case with its counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The case.
    pub name: String,
    /// Instructions per request in the baseline.
    pub baseline: Option<f64>,
    /// Instructions per request now.
    pub found: Option<f64>,
    /// What becomes of it.
    pub verdict: Verdict,
}

impl Verdict {
    /// Whether it fails the gate.
    pub fn fails(self) -> bool {
        matches!(self, Verdict::Slower | Verdict::New | Verdict::Gone)
    }
}

/// The total that callgrind wrote at the end of its file.
pub fn total_of(callgrind: &str) -> Option<u64> {
    let line = callgrind.lines().rev().find_map(|line| line.strip_prefix("totals:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Instructions of one request. None when `many` is not more than `few` in both.
pub fn per_request(few: Run, many: Run) -> Option<f64> {
    let requests = many.requests.checked_sub(few.requests).filter(|requests| *requests > 0)?;
    let instructions = many.instructions.checked_sub(few.instructions)?;
    Some(instructions as f64 / requests as f64)
}

/// By how much a count is above (or below) another, as a part of it.
pub fn change(from: f64, to: f64) -> f64 {
    if from > 0.0 { to / from - 1.0 } else { f64::INFINITY }
}

/// Every case of both, judged.
pub fn judge(baseline: &Counts, found: &Counts) -> Vec<Finding> {
    let mut names: Vec<&String> = baseline.keys().chain(found.keys()).collect();
    names.sort();
    names.dedup();
    let finding = |name: &String| {
        let (before, now) = (baseline.get(name).copied(), found.get(name).copied());
        let verdict = match (before, now) {
            (Some(before), Some(now)) if change(before, now) > SLOWER_MAX => Verdict::Slower,
            (Some(before), Some(now)) if change(before, now) < -FASTER_WORTH_NOTING => Verdict::Faster,
            (Some(_), Some(_)) => Verdict::Same,
            (None, _) => Verdict::New,
            (_, None) => Verdict::Gone,
        };
        Finding { name: name.clone(), baseline: before, found: now, verdict }
    };
    names.into_iter().map(finding).collect()
}

/// Reads a baseline: an object of numbers. The error names the case.
///
/// # Errors
/// If the text is no object of positive numbers.
pub fn read_baseline(text: &str) -> Result<Counts, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let cases = value.as_object().ok_or("not an object of numbers")?;
    let count = |(name, count): (&String, &Value)| match count.as_f64().filter(|count| *count > 0.0) {
        Some(count) => Ok((name.clone(), count)),
        None => Err(format!("`{name}`: {count} is no positive number")),
    };
    cases.iter().map(count).collect()
}

/// A baseline as text, in whole instructions.
pub fn write_baseline(counts: &Counts) -> String {
    let cases = counts.iter().map(|(name, count)| (name.clone(), Value::from(count.round() as u64)));
    format!("{:#}\n", Value::Object(cases.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, f64)]) -> Counts {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn the_total_is_read_from_the_end() {
        assert_eq!(total_of("events: Ir\nfn=a\n1 2\ntotals: 123 4\n"), Some(123));
        assert_eq!(total_of("summary: 5\n"), None);
        assert_eq!(total_of("totals: x"), None);
    }

    #[test]
    fn what_a_start_takes_is_not_counted() {
        let run = |requests, instructions| Run { requests, instructions };
        assert_eq!(per_request(run(10, 1_000_100), run(110, 1_001_100)), Some(10.0));
        assert_eq!(per_request(run(10, 5), run(10, 5)), None);
        assert_eq!(per_request(run(10, 5), run(20, 4)), None);
    }

    #[test]
    fn five_percent_more_fail() {
        let baseline = counts(&[("a", 1000.0), ("b", 1000.0), ("c", 1000.0), ("gone", 1.0)]);
        let found = counts(&[("a", 1051.0), ("b", 1049.0), ("c", 900.0), ("new", 1.0)]);
        let judged: Vec<(String, Verdict)> =
            judge(&baseline, &found).into_iter().map(|finding| (finding.name, finding.verdict)).collect();
        let wanted = [
            ("a", Verdict::Slower),
            ("b", Verdict::Same),
            ("c", Verdict::Faster),
            ("gone", Verdict::Gone),
            ("new", Verdict::New),
        ];
        assert_eq!(judged, wanted.map(|(name, verdict)| (name.to_owned(), verdict)));
        assert_eq!(judged.iter().filter(|(_, verdict)| verdict.fails()).count(), 3);
    }

    #[test]
    fn baselines_read_back() {
        let text = write_baseline(&counts(&[("a", 10.4), ("b", 2.0)]));
        assert_eq!(read_baseline(&text).unwrap(), counts(&[("a", 10.0), ("b", 2.0)]));
        for (text, word) in [("[]", "object"), ("{\"a\":0}", "`a`"), ("{\"a\":\"x\"}", "`a`"), ("{", "EOF")] {
            assert!(read_baseline(text).unwrap_err().contains(word), "{text}");
        }
    }

    #[test]
    fn the_baselines_of_the_project_are_sound() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("baselines");
        let mut read = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!read_baseline(&text).unwrap().is_empty());
            read += 1;
        }
        assert!(read > 0);
    }
}
