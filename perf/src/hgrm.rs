//! `.hgrm`: percentile distributions as HdrHistogram writes them and its plotter reads them.
//!
//! Four columns: value, percentile as a fraction, count up to there, 1/(1-percentile); lines that begin with `#` are
//! remarks. Values are milliseconds, which is what the plotter takes them for unless told otherwise.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Steps to each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
const NANOS_PER_MILLISECOND: f64 = 1e6;

/// How the remark with a histogram's name begins; other tools have none.
const NAME_REMARK: &str = "#[Histogram = ";

/// The distribution of a histogram in nanoseconds, with its name in a remark.
#[allow(clippy::cast_precision_loss, reason = "latencies are far below 2^53 nanoseconds")]
pub fn text(name: &str, histogram: &Histogram<u64>) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| writeln!(text, "{arguments}").expect("a string takes any text");
    line(format_args!("{:>16} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)"));
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64 / NANOS_PER_MILLISECOND, step.quantile_iterated_to());
        if quantile < 1.0 {
            line(format_args!("{value:16.6} {quantile:14.12} {count:>10} {:>14.2}", 1.0 / (1.0 - quantile)));
        } else {
            line(format_args!("{value:16.6} {quantile:14.12} {count:>10} {:>14}", "inf"));
        }
    }
    let milliseconds = |nanos: f64| nanos / NANOS_PER_MILLISECOND;
    let (mean, deviation) = (milliseconds(histogram.mean()), milliseconds(histogram.stdev()));
    line(format_args!("#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]"));
    let max = milliseconds(histogram.max() as f64);
    line(format_args!("#[Max     = {max:12.6}, Total count    = {:12}]", histogram.len()));
    line(format_args!("{NAME_REMARK}{name}]"));
    line(format_args!("#[Values in milliseconds]"));
    text
}

/// Points of a distribution: quantile and nanoseconds, both rising.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// What was measured; empty where the file does not say.
    pub name: String,
    points: Vec<(f64, u64)>,
}

impl Distribution {
    /// Reads what [`text`] or another tool has written, in milliseconds.
    ///
    /// # Errors
    /// The number of the line, from 1, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut points: Vec<(f64, u64)> = Vec::new();
        let name = text.lines().find_map(|line| line.strip_prefix(NAME_REMARK)?.strip_suffix(']')).unwrap_or_default();
        let name = name.to_owned();
        let is_content = |line: &str| !line.is_empty() && !line.starts_with('#') && !line.starts_with("Value");
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if !is_content(line) {
                continue;
            }
            let mut fields = line.split_whitespace().map(str::parse::<f64>);
            let (Some(Ok(value)), Some(Ok(quantile))) = (fields.next(), fields.next()) else {
                return Err((
                    number,
                    "not a line of a percentile distribution: value, percentile, count, 1/(1-percentile)",
                ));
            };
            if !(0.0..=1.0).contains(&quantile) || !(0.0..=1e15).contains(&value) {
                return Err((number, "a percentile is a fraction from 0 to 1, a value is not negative"));
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
            let nanos = (value * NANOS_PER_MILLISECOND).round() as u64;
            if points.last().is_some_and(|&(q, n)| quantile < q || nanos < n) {
                return Err((number, "percentiles and values have to rise"));
            }
            points.push((quantile, nanos));
        }
        if points.is_empty() { Err((text.lines().count(), "no percentiles in it")) } else { Ok(Self { name, points }) }
    }

    /// The value of the first point at or beyond a quantile; `None` where the file does not reach as far.
    pub fn nanos_at(&self, quantile: f64) -> Option<u64> {
        // Percentiles are written with twelve digits.
        self.points.iter().find(|(q, _)| *q >= quantile - 1e-12).map(|&(_, nanos)| nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::QUANTILES;

    /// Goal: what was written is read back, as exact as its steps are.
    #[test]
    fn a_distribution_comes_back() {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid");
        for nanos in 1..=100_000_u64 {
            histogram.record(nanos * 100).expect("in range");
        }
        let text = text("service", &histogram);
        let distribution = Distribution::parse(&text).expect("our own file");
        assert_eq!(distribution.name, "service");
        for (name, quantile) in QUANTILES {
            let (found, right) =
                (distribution.nanos_at(quantile).expect("there"), histogram.value_at_quantile(quantile));
            // A step above: the next of five to the half of what is left.
            assert!(found >= right && found <= right + right / 10, "{name}: {found} {right}");
        }
        assert_eq!(distribution.nanos_at(1.0), Some(histogram.max()));
        assert!(
            text.lines().all(|line| line.is_empty() || line.starts_with('#') || line.split_whitespace().count() == 4)
        );
    }

    /// Goal: files of the Java and C tools are read: another width, a last line of three columns.
    #[test]
    fn files_of_other_tools() {
        let text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n       1.234 0.000000000000          1           1.00\n   \
                    5.000 0.990000000000         99         100.00\n       9.999 1.000000000000        100\n#[Mean = 1]\n";
        let distribution = Distribution::parse(text).expect("well-formed");
        assert_eq!(distribution.nanos_at(0.5), Some(5_000_000));
        assert_eq!(distribution.nanos_at(0.0), Some(1_234_000));
    }

    #[test]
    fn faults_name_their_line() {
        let line = |text: &str| Distribution::parse(text).map_err(|(line, _)| line);
        assert_eq!(line("1 0.5 1 2\nx y z\n"), Err(2));
        assert_eq!(line("1 1.5 1 2\n"), Err(1));
        assert_eq!(line("1 0.5 1 2\n\n0.5 0.9 1 2\n"), Err(3));
        assert_eq!(line("\n\n"), Err(2));
    }
}
