//! Charts of runs as SVG: latency by percentile, and throughput and latency over time; several runs on the same scales.
//!
//! Pure: figures in, text out. The text is a document of its own, without scripts, fonts or anything else from elsewhere,
//! and readable on light and dark. Points are drawn where the data says, none is smoothed or left out.
//! Bounds: [`RUNS_MAX`] runs in a chart; each has the points of [`crate::series`].

use crate::series::Point;

mod latency;
mod over_time;
mod read;
mod scale;
mod svg;
#[cfg(test)]
mod tests;

pub use latency::latency;
pub use over_time::over_time;
pub use read::{ReadError, read};

/// Runs in one chart: more than these nobody tells apart.
pub const RUNS_MAX: usize = 8;

/// What a run found of one kind of work.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// `produce`, `consume`, `end-to-end`.
    pub kind: String,
    /// What the latencies mean, in words.
    pub latency_of: String,
    /// The whole run's megabytes in a second.
    pub megabytes_per_second: f64,
    /// Quantiles and latencies in microseconds, rising.
    pub percentiles: Vec<(f64, f64)>,
    /// The run over time.
    pub series: Vec<Point>,
}

/// A figure and the run that it is of.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// The figure.
    pub figure: &'a Figure,
}

/// A latency as people write it.
pub(crate) fn micros_text(micros: f64) -> String {
    let (value, unit) = match micros {
        m if m < 1e3 => (m, "µs"),
        m if m < 1e6 => (m / 1e3, "ms"),
        m => (m / 1e6, "s"),
    };
    format!("{} {unit}", number_text(value))
}

/// Three digits that matter, and no zeros at the end that do not.
pub(crate) fn number_text(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 99.95 || v == 0.0 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}
