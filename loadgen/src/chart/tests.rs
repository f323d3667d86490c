//! Charts are read back by an XML parser: they are well-formed, and their points are the data's.

use super::*;
use crate::series::Point;

fn point(second: u32, megabytes: f64, p99_us: f64) -> Point {
    let from_s = f64::from(second);
    Point {
        from_s,
        to_s: from_s + 1.0,
        records_per_second: megabytes * 1e3,
        megabytes_per_second: megabytes,
        p50_us: p99_us / 4.0,
        p99_us,
        p999_us: p99_us * 2.0,
        max_us: p99_us * 3.0,
    }
}

fn figure(percentiles: &[(f64, f64)], series: Vec<Point>) -> Figure {
    Figure {
        kind: "produce".to_owned(),
        latency_of: "request to answer".to_owned(),
        megabytes_per_second: 80.0,
        percentiles: percentiles.to_vec(),
        series,
    }
}

fn whole() -> Figure {
    let percentiles = [(0.0, 100.0), (0.9, 1_000.0), (0.99, 10_000.0), (0.9999, 10_000.0), (1.0, 100_000.0)];
    figure(&percentiles, vec![point(0, 50.0, 1_000.0), point(1, 100.0, 10_000.0), point(2, 0.0, 0.0)])
}

/// The places of each line's points, by the name that it is titled with. Panics where the text is no XML.
fn curves(svg: &str) -> Vec<(String, Vec<(f64, f64)>)> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let lines =
        document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "polyline")));
    let places = |node: roxmltree::Node<'_, '_>| {
        let pairs = node.attribute("points").unwrap().split(' ');
        pairs
            .map(|pair| pair.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect()
    };
    lines.map(|node| (node.first_element_child().unwrap().text().unwrap().to_owned(), places(node))).collect()
}

/// The place of the mark with this text: the middle of its letters.
fn mark(svg: &str, text: &str) -> (f64, f64) {
    let document = roxmltree::Document::parse(svg).unwrap();
    let node = document.descendants().find(|node| node.is_element() && node.text() == Some(text));
    let node = node.unwrap_or_else(|| panic!("no mark {text}"));
    let at = |name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
    (at("x"), at("y") - 4.5)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.02
}

#[test]
fn latencies_are_where_the_scales_say() {
    let figure = whole();
    let svg = latency(&[Named { name: "run", figure: &figure }]);
    let curves = curves(&svg);
    assert_eq!(curves.len(), 1);
    let points = &curves[0].1;
    assert_eq!(points.len(), figure.percentiles.len(), "no point is left out");
    for (index, (percent, micros)) in
        [("0 %", "100 µs"), ("90 %", "1 ms"), ("99 %", "10 ms")].into_iter().enumerate()
    {
        assert!(close(points[index].0, mark(&svg, percent).0), "{percent}: {points:?}");
        assert!(close(points[index].1, mark(&svg, micros).1), "{micros}: {points:?}");
    }
    assert!(svg.contains(">p99 10 ms, max 100 ms<"), "the legend tells exact values: {svg}");
    assert!(close(points[4].0, mark(&svg, "99.99 %").0), "the highest is at the edge");
}

#[test]
fn seconds_are_where_the_scales_say() {
    let figure = whole();
    let svg = over_time(&[Named { name: "run", figure: &figure }]);
    let curves = curves(&svg);
    let (rates, latencies) = (&curves[0].1, &curves[1].1);
    assert_eq!((rates.len(), latencies.len()), (3, 2), "no latency was measured in the last second");
    assert!(close(rates[1].1, mark(&svg, "100").1), "{rates:?}");
    assert!(close(rates[0].1, (rates[1].1 + rates[2].1) / 2.0), "half of it is half as high");
    assert!(close(rates[1].0 - rates[0].0, rates[2].0 - rates[1].0) && close(rates[0].0, latencies[0].0));
    assert!(close(latencies[1].1, mark(&svg, "10 ms").1) && close(latencies[0].1, mark(&svg, "1 ms").1));
}

#[test]
fn compared_runs_have_the_same_scales_and_a_legend() {
    let slow =
        figure(&[(0.0, 100.0), (0.9, 100_000.0), (1.0, 1e6)], vec![point(0, 10.0, 1e5), point(1, 10.0, 1e6)]);
    let fast = whole();
    let runs = [Named { name: "before", figure: &slow }, Named { name: "after", figure: &fast }];
    for svg in [latency(&runs), over_time(&runs)] {
        let curves = curves(&svg);
        let names: Vec<&str> = curves.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names == ["before", "after"] || names == ["before", "before", "after", "after"], "{names:?}");
        let (before, after) = (mark(&svg, "before"), mark(&svg, "after"));
        assert!(before.0 == after.0 && before.1 < after.1, "a row of the legend each");
    }
    let curves = curves(&latency(&runs));
    assert_eq!(curves[0].1[0], curves[1].1[0], "the same value is at the same place");
    assert!(curves[0].1[1].1 < curves[1].1[1].1, "the slower is above");
}

#[test]
fn names_from_elsewhere_are_text() {
    let name = "<script>alert('x')</script> & \"quoted\" \u{1} ]]>";
    let mut figure = whole();
    figure.kind = name.to_owned();
    figure.latency_of = name.to_owned();
    for svg in [latency(&[Named { name, figure: &figure }]), over_time(&[Named { name, figure: &figure }])] {
        let document = roxmltree::Document::parse(&svg).unwrap();
        assert!(
            document
                .descendants()
                .all(|node| !node.has_tag_name("script") && node.tag_name().name() != "script")
        );
        let wanted = name.replace('\u{1}', "\u{fffd}");
        assert!(curves(&svg).iter().all(|(titled, _)| *titled == wanted));
        assert!(!svg.contains("href") && !svg.contains("url("), "nothing is loaded");
    }
}

#[test]
fn runs_of_nothing_and_of_one_point_are_drawn() {
    let nothing = figure(&[], Vec::new());
    let one = figure(&[(1.0, 500.0)], vec![point(0, 5.0, 500.0)]);
    let idle = figure(&[], vec![point(0, 0.0, 0.0), point(1, 0.0, 0.0)]);
    for (figure, dots) in [(&nothing, 0), (&one, 1), (&idle, 0)] {
        let runs = [Named { name: "run", figure }];
        for (svg, dots) in [(latency(&runs), dots), (over_time(&runs), 2 * dots)] {
            let document = roxmltree::Document::parse(&svg).unwrap();
            let circles = document.descendants().filter(|node| node.tag_name().name() == "circle");
            assert_eq!(circles.count(), dots, "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
    assert!(roxmltree::Document::parse(&latency(&[])).is_ok());
}

#[test]
fn what_is_no_run_is_refused() {
    let run =
        r#"{"figures":[{"name":"produce","megabytes_per_second":1,"percentiles":[[0.5,1]],"series":[]}]}"#;
    assert_eq!(read(run).unwrap()[0].percentiles, [(0.5, 1.0)]);
    assert!(matches!(read("no"), Err(ReadError::Json(_))));
    assert!(matches!(read("[]"), Err(ReadError::Missing("figures"))));
    for (good, bad, missing) in [
        ("\"series\":[]", "\"series\":[{}]", "series"),
        ("\"series\":[]", "\"other\":[]", "series"),
        ("[[0.5,1]]", "[[1.5,1]]", "percentiles"),
        ("[[0.5,1]]", "[[0.5,-1]]", "percentiles"),
        ("[[0.5,1]]", "[[0.5,1e300]]", "percentiles"),
        ("[[0.5,1]]", "[0.5]", "percentiles"),
    ] {
        let error = read(&run.replace(good, bad)).unwrap_err();
        assert!(matches!(error, ReadError::Missing(name) if name == missing), "{bad}: {error}");
    }
    let many = format!("[{}]", vec!["[0.5,1]"; 2_000].join(","));
    assert!(matches!(read(&run.replace("[[0.5,1]]", &many)), Err(ReadError::TooMany("percentiles"))));
}

#[test]
fn numbers_are_written_for_people() {
    let texts = [0.0, 0.25, 1.0, 1.5, 12.34, 99.96, 437.2].map(number_text);
    assert_eq!(texts, ["0", "0.25", "1", "1.5", "12.3", "100", "437"]);
    assert_eq!([250.0, 1_500.0, 2e6].map(micros_text), ["250 µs", "1.5 ms", "2 s"]);
}
