//! Latency by percentile, with each nine as wide as the one before it, as HdrHistogram plots it.

use super::scale::Scale;
use super::svg::{Anchor, Svg};
use super::{Named, micros_text};

pub(super) const WIDTH: f64 = 960.0;
pub(super) const LEFT: f64 = 76.0;
pub(super) const RIGHT: f64 = WIDTH - 40.0;
pub(super) const LEGEND_ROW: f64 = 20.0;
const PLOT_HEIGHT: f64 = 380.0;
const NAME_LEN_MAX: usize = 36;
/// The scale reaches 99.99 % at least and 99.9999 % at most.
const ABOVE_MAX: f64 = 1e-4;
const ABOVE_MIN: f64 = 1e-6;

/// The picture of these runs' latencies.
pub fn latency(runs: &[Named<'_>]) -> String {
    let kind = runs.first().map_or("latency", |run| run.figure.kind.as_str());
    let top = 78.0 + LEGEND_ROW * runs.len() as f64;
    let bottom = top + PLOT_HEIGHT;
    let mut svg = Svg::new(WIDTH, bottom + 62.0, &format!("{kind}: latency by percentile"));
    svg.text("title", (LEFT, 34.0), Anchor::Start, &format!("{kind}: latency by percentile"));
    let what = runs.first().map_or("", |run| run.figure.latency_of.as_str());
    svg.text("small", (LEFT, 54.0), Anchor::Start, &shortened(what, 120));
    legend(&mut svg, runs, 66.0, |run| {
        let of = &run.figure.percentiles;
        let at =
            |quantile: f64| of.iter().find(|(q, _)| (q - quantile).abs() < 1e-9).map(|(_, micros)| *micros);
        [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)]
            .into_iter()
            .filter_map(|(name, quantile)| Some(format!("{name} {}", micros_text(at(quantile)?))))
            .collect::<Vec<_>>()
            .join(", ")
    });
    let lowest_above =
        runs.iter().flat_map(|run| &run.figure.percentiles).map(|(quantile, _)| 1.0 - quantile);
    let above = lowest_above.filter(|above| *above > 1e-12).fold(ABOVE_MAX, f64::min).max(ABOVE_MIN);
    let x = Scale::tail(above, (LEFT, RIGHT));
    let values = runs.iter().flat_map(|run| &run.figure.percentiles).map(|(_, micros)| *micros);
    let y = Scale::log(values, (bottom, top));
    for mark in x.marks() {
        svg.line("grid", (x.at(mark), top), (x.at(mark), bottom));
        svg.text("", (x.at(mark), bottom + 20.0), Anchor::Middle, &percent_text(mark));
    }
    latency_marks(&mut svg, &y);
    svg.line("axis", (LEFT, bottom), (RIGHT, bottom));
    svg.text("small", ((LEFT + RIGHT) / 2.0, bottom + 44.0), Anchor::Middle, "percentile");
    for (index, run) in runs.iter().enumerate() {
        let points: Vec<_> =
            run.figure.percentiles.iter().map(|(q, micros)| (x.at(*q), y.at(*micros))).collect();
        svg.curve(index, run.name, &points);
    }
    if runs.iter().all(|run| run.figure.percentiles.is_empty()) {
        svg.text(
            "",
            ((LEFT + RIGHT) / 2.0, (top + bottom) / 2.0),
            Anchor::Middle,
            "no latencies were measured",
        );
    }
    svg.finish()
}

/// The lines and texts of a latency axis.
pub(super) fn latency_marks(svg: &mut Svg, y: &Scale) {
    for mark in y.marks() {
        svg.line("grid", (LEFT, y.at(mark)), (RIGHT, y.at(mark)));
        svg.text("", (LEFT - 10.0, y.at(mark) + 4.5), Anchor::End, &micros_text(mark));
    }
}

/// A row for each run: its line, its name and what `tells` says of it.
pub(super) fn legend(svg: &mut Svg, runs: &[Named<'_>], top: f64, tells: impl Fn(&Named<'_>) -> String) {
    for (index, run) in runs.iter().enumerate() {
        let y = top + LEGEND_ROW * (index as f64 + 0.5);
        svg.sample(index, (LEFT, y));
        svg.text("", (LEFT + 36.0, y + 4.5), Anchor::Start, &shortened(run.name, NAME_LEN_MAX));
        svg.text("small", (LEFT + 320.0, y + 4.5), Anchor::Start, &tells(run));
    }
}

/// The text, or its beginning and its end where it is longer.
fn shortened(text: &str, len_max: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= len_max {
        return text.to_owned();
    }
    let half = (len_max - 1) / 2;
    let (begin, end) = (&letters[..half], &letters[letters.len() - half..]);
    begin.iter().chain(&['…']).chain(end).collect()
}

fn percent_text(quantile: f64) -> String {
    let text = format!("{:.4}", quantile * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}
