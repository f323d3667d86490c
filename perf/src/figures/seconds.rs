//! Latencies second by second. A disk that stands still for half a second decides the p99 of a whole minute; the p99 of the
//! second in the middle says what the other seconds are like.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// How long something is at work beside a load, or held back, before it is the other's turn: a disk that stands still now and
/// then meets both.
pub(super) const STRETCH: Duration = Duration::from_secs(10);

/// The p99 of each second of a load's `figures` that lies wholly between two moments, in microseconds. Seconds without an
/// answer have none.
pub(super) fn p99s_between(figures: &Value, from: SystemTime, to: SystemTime) -> Vec<f64> {
    let Some(start_ms) = figures["measured_from_unix_ms"].as_u64() else { return Vec::new() };
    let start = UNIX_EPOCH + Duration::from_millis(start_ms);
    let at = |point: &Value, name: &str| {
        let offset = Duration::try_from_secs_f64(point[name].as_f64()?).ok()?;
        Some(start + offset)
    };
    let within = |point: &&Value| {
        at(point, "from_s").is_some_and(|begin| begin >= from)
            && at(point, "to_s").is_some_and(|end| end <= to)
    };
    let points = figures["series"].as_array().map_or(&[][..], Vec::as_slice);
    points.iter().filter(within).filter_map(|point| point["p99_us"].as_f64()).collect()
}

/// The p99 of each second of a load.
pub(super) fn p99s(figures: &Value) -> Vec<f64> {
    p99s_between(figures, UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX)))
}

/// The median and the worst of seconds' p99, and how many there are; nothing of none.
pub(super) fn summary(mut p99s: Vec<f64>) -> Value {
    p99s.sort_by(f64::total_cmp);
    match p99s.last() {
        Some(worst) => json!({ "median": p99s[p99s.len() / 2], "worst": worst, "seconds": p99s.len() }),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_count_that_lie_between() {
        let point =
            |from: f64, p99: Option<f64>| json!({ "from_s": from, "to_s": from + 1.0, "p99_us": p99 });
        let series =
            [(0.0, Some(10.0)), (1.0, Some(50.0)), (2.0, None), (3.0, Some(20.0)), (4.0, Some(70.0))];
        let series: Vec<Value> = series.iter().map(|(from, p99)| point(*from, *p99)).collect();
        let figures = json!({ "measured_from_unix_ms": 5_000, "series": series });
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(p99s_between(&figures, at(6_000), at(9_000)), [50.0, 20.0]);
        assert_eq!(p99s_between(&figures, at(6_001), at(8_999)), [20.0; 0]);
        assert_eq!(p99s(&figures), [10.0, 50.0, 20.0, 70.0]);
        assert_eq!(summary(p99s(&figures)), json!({ "median": 50.0, "worst": 70.0, "seconds": 4 }));
        assert_eq!(summary(Vec::new()), Value::Null);
        assert_eq!(p99s(&json!({})), [0.0; 0]);
    }
}
