//! The text of a picture: escaped, with numbers of two decimals, and styles for light and dark.

use std::fmt::Write;

/// Colours that are told apart by most eyes (Okabe and Ito), for a light and for a dark ground, with dashes besides.
const LINES: [(&str, &str, &str); super::RUNS_MAX] = [
    ("#0072b2", "#56b4e9", "none"),
    ("#d55e00", "#ff9e4a", "none"),
    ("#00805f", "#2fd3a5", "none"),
    ("#a8478a", "#e69ccb", "none"),
    ("#0072b2", "#56b4e9", "7 4"),
    ("#d55e00", "#ff9e4a", "7 4"),
    ("#00805f", "#2fd3a5", "7 4"),
    ("#a8478a", "#e69ccb", "7 4"),
];

const STYLE: &str = "text{font-family:system-ui,sans-serif;font-size:13px;fill:#333}\
.title{font-size:17px;font-weight:600;fill:#111}.small{font-size:12px;fill:#666}\
.ground{fill:#fff}.grid{stroke:#e4e4e4;stroke-width:1}.axis{stroke:#888;stroke-width:1}\
.line{fill:none;stroke-width:2;stroke-linejoin:round}";
const STYLE_DARK: &str = "text{fill:#ccc}.title{fill:#f2f2f2}.small{fill:#999}\
.ground{fill:#15181c}.grid{stroke:#2b3036}.axis{stroke:#777}";

/// How text stands to its place.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

pub(super) struct Svg {
    out: String,
}

/// Text for content and for attributes. What XML 1.0 cannot hold at all is replaced.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Two decimals, fewer where they are zeros.
fn coordinate(value: f64) -> String {
    debug_assert!(value.is_finite());
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Svg {
    pub(super) fn new(width: f64, height: f64, title: &str) -> Svg {
        let mut svg = Svg { out: String::new() };
        svg.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}",
            escaped(title)
        ));
        for (index, (light, _, dashes)) in LINES.iter().enumerate() {
            svg.put(format_args!(
                ".s{index}{{stroke:{light};stroke-dasharray:{dashes}}}.d{index}{{fill:{light}}}"
            ));
        }
        svg.put(format_args!("@media (prefers-color-scheme:dark){{{STYLE_DARK}"));
        for (index, (_, dark, _)) in LINES.iter().enumerate() {
            svg.put(format_args!(".s{index}{{stroke:{dark}}}.d{index}{{fill:{dark}}}"));
        }
        svg.put(format_args!("}}</style>\n<rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n"));
        svg
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.out.write_fmt(text);
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(coordinate);
        self.put(format_args!("<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>\n"));
    }

    pub(super) fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y) = (coordinate(at.0), coordinate(at.1));
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>\n",
            escaped(text)
        ));
    }

    /// The line of a run; its name shows when one points at it. A single point is a dot.
    pub(super) fn curve(&mut self, run: usize, name: &str, points: &[(f64, f64)]) {
        let run = run % LINES.len();
        let name = escaped(name);
        match points {
            [] => {}
            [(x, y)] => {
                let (x, y) = (coordinate(*x), coordinate(*y));
                self.put(format_args!(
                    "<circle class=\"d{run}\" cx=\"{x}\" cy=\"{y}\" r=\"4\"><title>{name}</title></circle>\n"
                ));
            }
            _ => {
                let pairs: Vec<String> =
                    points.iter().map(|(x, y)| format!("{},{}", coordinate(*x), coordinate(*y))).collect();
                let points = pairs.join(" ");
                self.put(format_args!(
                    "<polyline class=\"line s{run}\" points=\"{points}\"><title>{name}</title></polyline>\n"
                ));
            }
        }
    }

    /// A short piece of a run's line, for the legend.
    pub(super) fn sample(&mut self, run: usize, at: (f64, f64)) {
        let class = format!("line s{}", run % LINES.len());
        self.line(&class, (at.0, at.1), (at.0 + 26.0, at.1));
    }

    pub(super) fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }
}
