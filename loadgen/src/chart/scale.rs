//! From values to places on paper, and the values worth a mark.

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spread {
    Linear,
    /// By their logarithm.
    Log,
    /// Quantiles, by the logarithm of what is above them.
    Tail,
}

/// A scale of `from..=to` in values onto `start..=end` on paper.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    spread: Spread,
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

/// Marks on a linear scale, about.
const MARKS: f64 = 6.0;

impl Scale {
    /// From 0 to a round value at or above `highest`.
    pub(super) fn linear(highest: f64, (start, end): (f64, f64)) -> Scale {
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let step = step_for(highest);
        Scale { spread: Spread::Linear, from: 0.0, to: (highest / step - 1e-9).ceil() * step, start, end }
    }

    /// From 0 to exactly `highest`.
    pub(super) fn exact(highest: f64, (start, end): (f64, f64)) -> Scale {
        let to = if highest > 0.0 { highest } else { 1.0 };
        Scale { spread: Spread::Linear, from: 0.0, to, start, end }
    }

    /// Logarithmic between values of 1, 2 or 5 times a power of ten around the lowest and highest.
    pub(super) fn log(values: impl Iterator<Item = f64>, (start, end): (f64, f64)) -> Scale {
        let (mut lowest, mut highest) = (f64::INFINITY, 0f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (lowest, highest) = (lowest.min(value), highest.max(value));
        }
        if highest == 0.0 {
            (lowest, highest) = (1.0, 10.0);
        }
        let (from, mut to) = (round_down(lowest), round_up(highest));
        if to <= from {
            to = round_up(from * 1.5);
        }
        Scale { spread: Spread::Log, from, to, start, end }
    }

    /// Quantiles from 0 to the one that all but `above` of the values are below.
    pub(super) fn tail(above: f64, (start, end): (f64, f64)) -> Scale {
        Scale { spread: Spread::Tail, from: 0.0, to: 1.0 - above, start, end }
    }

    /// The place of a value; at the edge where it is off the scale.
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = |f: fn(f64) -> f64| (f(value) - f(self.from)) / (f(self.to) - f(self.from));
        let part = match self.spread {
            Spread::Linear => part(|v| v),
            Spread::Log => part(|v| v.max(f64::MIN_POSITIVE).log10()),
            Spread::Tail => part(|v| -(1.0 - v).max(1e-12).log10()),
        };
        self.start + part.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// The values worth a mark.
    pub(super) fn marks(&self) -> Vec<f64> {
        match self.spread {
            Spread::Linear => {
                let step = step_for(self.to);
                let count = (self.to / step + 1e-9).floor() as u32;
                (0..=count).map(|mark| f64::from(mark) * step).collect()
            }
            Spread::Log => {
                let decades = (self.to / self.from).log10();
                let leading: &[f64] = if decades > 4.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let (low, high) = (self.from.log10().floor() as i32, self.to.log10().ceil() as i32);
                let all = (low..=high).flat_map(|power| leading.iter().map(move |d| d * 10f64.powi(power)));
                all.filter(|mark| *mark >= self.from * 0.999 && *mark <= self.to * 1.001).collect()
            }
            Spread::Tail => {
                let all = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];
                all.into_iter().filter(|mark| *mark <= self.to + 1e-12).collect()
            }
        }
    }
}

/// The step between marks: 1, 2 or 5 times a power of ten.
fn step_for(highest: f64) -> f64 {
    round_up(highest / MARKS)
}

fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let digit = value / power;
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| digit <= round * 1.000001);
    round.unwrap_or(10.0) * power
}

fn round_down(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let digit = value / power;
    let round = [5.0, 2.0, 1.0].into_iter().find(|round| digit >= round * 0.999999);
    round.unwrap_or(1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6 * b.abs().max(1.0)
    }

    #[test]
    fn linear_scales_end_at_a_round_value() {
        let scale = Scale::linear(437.0, (100.0, 0.0));
        assert_eq!(scale.marks(), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert!(close(scale.at(0.0), 100.0) && close(scale.at(250.0), 50.0) && close(scale.at(500.0), 0.0));
        assert!(Scale::linear(0.0, (0.0, 1.0)).marks().len() > 1, "nothing measured has a scale as well");
        assert_eq!(Scale::exact(30.0, (0.0, 60.0)).at(30.0), 60.0);
    }

    #[test]
    fn logarithmic_scales_hold_all_values() {
        let scale = Scale::log([230.0, 41_000.0].into_iter(), (0.0, 1.0));
        let marks = scale.marks();
        assert!(close(marks[0], 200.0) && close(marks[marks.len() - 1], 50_000.0), "{marks:?}");
        assert!(scale.at(230.0) > 0.0 && scale.at(41_000.0) < 1.0);
        assert!(close(Scale::log([10.0, 1_000.0].into_iter(), (0.0, 1.0)).at(100.0), 0.5));
        // One value, none, and what is no latency.
        assert!(Scale::log([100.0].into_iter(), (0.0, 1.0)).marks().len() > 1);
        assert!(Scale::log([0.0, f64::NAN].into_iter(), (0.0, 1.0)).marks().len() > 1);
    }

    #[test]
    fn each_nine_is_as_wide_as_the_one_before() {
        let scale = Scale::tail(1e-4, (0.0, 400.0));
        let at: Vec<f64> = [0.0, 0.9, 0.99, 0.999, 0.9999].map(|quantile| scale.at(quantile)).to_vec();
        assert!(at.iter().zip([0.0, 100.0, 200.0, 300.0, 400.0]).all(|(a, b)| close(*a, b)), "{at:?}");
        assert_eq!(scale.at(1.0), 400.0, "the highest is at the edge");
        assert_eq!(scale.marks(), [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999]);
    }
}
