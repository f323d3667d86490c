//! What `--json` wrote, read back. A file of a user's: whatever it holds, it is a run or an error.

use serde_json::Value;

use super::Figure;
use crate::series::{POINTS_MAX, Point};

/// Points of a percentile curve that are read, at most: more than any run writes.
const PERCENTILES_MAX: usize = 1_000;

const NUMBERS: std::ops::RangeInclusive<f64> = 1e-12..=1e15;

/// Why a file is no run.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not JSON.
    #[error("it is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of something else, or of a release that kept no time series.
    #[error("it has no `{0}` as penstock-loadgen writes it with --json")]
    Missing(&'static str),
    /// More points than a run has.
    #[error("its `{0}` has too many points")]
    TooMany(&'static str),
}

/// The figures of a run, from the text that `--json` wrote.
pub fn read(text: &str) -> Result<Vec<Figure>, ReadError> {
    let value: Value = serde_json::from_str(text)?;
    let figures = value["figures"].as_array().ok_or(ReadError::Missing("figures"))?;
    figures.iter().map(figure).collect()
}

fn figure(value: &Value) -> Result<Figure, ReadError> {
    let percentiles = list(value, "percentiles", PERCENTILES_MAX)?;
    let series = list(value, "series", POINTS_MAX)?;
    let pair = |each: &Value| {
        let at = number(&each[0]).filter(|quantile| *quantile <= 1.0);
        at.zip(number(&each[1])).ok_or(ReadError::Missing("percentiles"))
    };
    Ok(Figure {
        kind: value["name"].as_str().ok_or(ReadError::Missing("name"))?.to_owned(),
        latency_of: value["latency_of"].as_str().unwrap_or_default().to_owned(),
        megabytes_per_second: number(&value["megabytes_per_second"])
            .ok_or(ReadError::Missing("megabytes_per_second"))?,
        percentiles: percentiles.iter().map(pair).collect::<Result<_, _>>()?,
        series: series
            .iter()
            .map(|each| point(each).ok_or(ReadError::Missing("series")))
            .collect::<Result<_, _>>()?,
    })
}

fn list<'a>(value: &'a Value, name: &'static str, len_max: usize) -> Result<&'a [Value], ReadError> {
    let list = value[name].as_array().ok_or(ReadError::Missing(name))?;
    if list.len() > len_max { Err(ReadError::TooMany(name)) } else { Ok(list) }
}

/// A number that a run can have: none is so large or so small that a scale would not hold it.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| *number == 0.0 || NUMBERS.contains(number))
}

fn point(value: &Value) -> Option<Point> {
    let of = |name: &str| number(&value[name]);
    Some(Point {
        from_s: of("from_s")?,
        to_s: of("to_s")?,
        records_per_second: of("records_per_second")?,
        megabytes_per_second: of("megabytes_per_second")?,
        p50_us: of("p50_us")?,
        p99_us: of("p99_us")?,
        p999_us: of("p999_us")?,
        max_us: of("max_us")?,
    })
}
