//! Ticks of axes.

use crate::units::unit_of;

/// Of latencies.
pub struct Axis {
    /// Nanoseconds and label, rising.
    pub ticks: Vec<(f64, String)>,
    from: f64,
    to: f64,
    is_logarithmic: bool,
}

impl Axis {
    /// From 0 to a round number beyond the longest; all labels have the same unit.
    pub fn linear(longest: f64) -> Self {
        let unit = unit_of(longest);
        let step = round_step(longest / unit.1 / 6.0);
        let mut ticks = Vec::new();
        let mut index = 0.0;
        loop {
            let value = index * step;
            let decimals = if step >= 1.0 { 0.0 } else { (-step.log10()).ceil().max(0.0) };
            ticks.push((value * unit.1, format!("{} {}", decimal(value, decimals), unit.0)));
            if value * unit.1 >= longest {
                return Self { from: 0.0, to: value * unit.1, is_logarithmic: false, ticks };
            }
            index += 1.0;
        }
    }

    /// From and to values of 1, 2 or 5 times a power of ten.
    pub fn logarithmic(shortest: f64, longest: f64) -> Self {
        let (shortest, longest) = (shortest.clamp(1.0, 1e15), longest.clamp(1.0, 1e15));
        let mut values = vec![];
        let mut decade = 10_f64.powf(shortest.log10().floor());
        while decade <= longest * 10.0 {
            values.extend([1.0, 2.0, 5.0].map(|digit| digit * decade));
            decade *= 10.0;
        }
        let first = values.iter().rposition(|&value| value <= shortest * 1.000_001).unwrap_or(0);
        let last =
            values.iter().position(|&value| value >= longest * 0.999_999).unwrap_or(values.len() - 1).max(first + 1);
        let (from, to) = (values[first], values[last]);
        let is_long = to / from > 2e3;
        let label = |nanos: f64| {
            let unit = unit_of(nanos);
            format!("{} {}", decimal(nanos / unit.1, 0.0), unit.0)
        };
        let is_shown = |value: f64| !is_long || (value.log10() - value.log10().round()).abs() < 1e-6;
        let shown = values[first..=last].iter().filter(|&&value| is_shown(value));
        Self { ticks: shown.map(|&value| (value, label(value))).collect(), from, to, is_logarithmic: true }
    }

    /// From 0, the lower end, to 1, the upper.
    pub fn place(&self, nanos: f64) -> f64 {
        if self.is_logarithmic {
            ((nanos.max(self.from) / self.from).ln() / (self.to / self.from).ln()).clamp(0.0, 1.0)
        } else {
            ((nanos - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few digits")]
fn decimal(value: f64, decimals: f64) -> String {
    format!("{value:.*}", decimals as usize)
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|&round| round >= step * 0.999_999)
        .unwrap_or(10.0 * power)
}

/// Places as log10 of 1/(1-percentile), with labels: 0%, 50%, 90%, 99%, 99.9%…, up to a place.
pub fn percentile_ticks(end: f64) -> Vec<(f64, String)> {
    let mut ticks = vec![(0.0, "0%".to_owned()), (2_f64.log10(), "50%".to_owned()), (1.0, "90%".to_owned())];
    let mut label = "99".to_owned();
    let mut place = 2.0;
    while place <= end + 1e-9 && place < 15.0 {
        ticks.push((place, format!("{label}%")));
        label.push_str(if place < 3.0 { ".9" } else { "9" });
        place += 1.0;
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn sensible_ticks() {
        assert_eq!(labels(&Axis::linear(5_300_000.0)), ["0 ms", "1 ms", "2 ms", "3 ms", "4 ms", "5 ms", "6 ms"]);
        assert_eq!(
            labels(&Axis::linear(1_100_000.0)),
            ["0.0 ms", "0.2 ms", "0.4 ms", "0.6 ms", "0.8 ms", "1.0 ms", "1.2 ms"]
        );
        assert_eq!(labels(&Axis::logarithmic(30_000.0, 400_000.0)), ["20 µs", "50 µs", "100 µs", "200 µs", "500 µs"]);
        assert_eq!(
            labels(&Axis::logarithmic(1_000.0, 1e9)),
            ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]
        );
        for (shortest, longest) in [(1.0, 1.0), (0.0, 5.0), (999.0, 1000.0), (1e3, 1e3), (1.0, 3.6e12)] {
            for axis in [Axis::linear(longest), Axis::logarithmic(shortest, longest)] {
                assert!((2..25).contains(&axis.ticks.len()), "{shortest} {longest}: {:?}", axis.ticks);
                assert!(axis.place(longest) <= 1.0 && axis.place(shortest) >= 0.0);
            }
        }
    }

    #[test]
    fn percentiles() {
        let labels: Vec<String> = percentile_ticks(4.3).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0%", "50%", "90%", "99%", "99.9%", "99.99%"]);
    }
}
