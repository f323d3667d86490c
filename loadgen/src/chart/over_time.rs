//! Throughput over time, and below it the 99th percentile of latency, on the same seconds.

use super::latency::{LEFT, LEGEND_ROW, RIGHT, WIDTH, latency_marks, legend};
use super::scale::Scale;
use super::svg::{Anchor, Svg};
use super::{Named, micros_text, number_text};
use crate::series::Point;

const PANEL_HEIGHT: f64 = 220.0;
/// Between the panels: the lower one's name.
const GAP: f64 = 48.0;

/// The picture of these runs over time.
pub fn over_time(runs: &[Named<'_>]) -> String {
    let kind = runs.first().map_or("run", |run| run.figure.kind.as_str());
    let top = 92.0 + LEGEND_ROW * runs.len() as f64;
    let upper = (top, top + PANEL_HEIGHT);
    let lower = (upper.1 + GAP, upper.1 + GAP + PANEL_HEIGHT);
    let title = format!("{kind}: throughput and latency over time");
    let mut svg = Svg::new(WIDTH, lower.1 + 62.0, &title);
    svg.text("title", (LEFT, 34.0), Anchor::Start, &title);
    legend(&mut svg, runs, 46.0, |run| {
        let highest = run.figure.series.iter().map(|point| point.p99_us).fold(0.0, f64::max);
        let rate = number_text(run.figure.megabytes_per_second);
        if highest > 0.0 {
            format!("{rate} MB/s on the whole, p99 of up to {}", micros_text(highest))
        } else {
            format!("{rate} MB/s on the whole")
        }
    });
    let points = || runs.iter().flat_map(|run| &run.figure.series);
    let x = Scale::exact(points().map(|point| point.to_s).fold(0.0, f64::max), (LEFT, RIGHT));
    let rate =
        Scale::linear(points().map(|p| p.megabytes_per_second).fold(0.0, f64::max), (upper.1, upper.0));
    let late = Scale::log(points().map(|point| point.p99_us), (lower.1, lower.0));
    svg.text("small", (LEFT, upper.0 - 10.0), Anchor::Start, "MB/s");
    for mark in rate.marks() {
        svg.line("grid", (LEFT, rate.at(mark)), (RIGHT, rate.at(mark)));
        svg.text("", (LEFT - 10.0, rate.at(mark) + 4.5), Anchor::End, &number_text(mark));
    }
    svg.text("small", (LEFT, lower.0 - 10.0), Anchor::Start, "latency, 99th percentile");
    latency_marks(&mut svg, &late);
    for panel in [upper, lower] {
        for mark in x.marks() {
            svg.line("grid", (x.at(mark), panel.0), (x.at(mark), panel.1));
        }
        svg.line("axis", (LEFT, panel.1), (RIGHT, panel.1));
    }
    for mark in x.marks() {
        svg.text("", (x.at(mark), lower.1 + 20.0), Anchor::Middle, &number_text(mark));
    }
    svg.text("small", ((LEFT + RIGHT) / 2.0, lower.1 + 44.0), Anchor::Middle, "seconds");
    let middle = |point: &Point| x.at((point.from_s + point.to_s) / 2.0);
    for (index, run) in runs.iter().enumerate() {
        let series = &run.figure.series;
        let rates: Vec<_> = series.iter().map(|p| (middle(p), rate.at(p.megabytes_per_second))).collect();
        svg.curve(index, run.name, &rates);
        // A second without an answer has no latency: the line goes on where there is one again.
        let answered = series.iter().filter(|point| point.p99_us > 0.0);
        let latencies: Vec<_> = answered.map(|p| (middle(p), late.at(p.p99_us))).collect();
        svg.curve(index, run.name, &latencies);
    }
    if points().next().is_none() {
        svg.text(
            "",
            ((LEFT + RIGHT) / 2.0, (upper.0 + upper.1) / 2.0),
            Anchor::Middle,
            "nothing was measured",
        );
    }
    svg.finish()
}
