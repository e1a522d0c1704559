//! What a run must keep: `p99.9<5ms`, `confirm:p99<=2ms`, `max<1s`, `mean<300us`.

use std::fmt;
use std::str::FromStr;

use crate::result::{Run, histogram};
use crate::units::duration_text;

/// A limit on one latency.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Name of the histogram.
    pub histogram: &'static str,
    /// Which of its values.
    pub measure: Measure,
    /// Whether the limit itself is kept (`<=`).
    pub is_inclusive: bool,
    /// In nanoseconds.
    pub limit_nanos: u64,
}

/// One value of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// A quantile, above 0 and at most 1.
    Quantile(f64),
    /// The mean.
    Mean,
}

/// Why an objective cannot be understood; a whole sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectiveFault(String);

impl fmt::Display for ObjectiveFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ObjectiveFault {}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.histogram != histogram::RESPONSE {
            write!(f, "{}:", self.histogram)?;
        }
        match self.measure {
            Measure::Mean => f.write_str("mean")?,
            Measure::Quantile(quantile) if quantile >= 1.0 => f.write_str("max")?,
            // Rounded: 0.999 × 100 is not 99.9 in binary.
            Measure::Quantile(quantile) => write!(f, "p{}", (quantile * 1e10).round() / 1e8)?,
        }
        write!(f, "{}{}", if self.is_inclusive { "<=" } else { "<" }, duration_text(self.limit_nanos).replace(' ', ""))
    }
}

impl FromStr for Objective {
    type Err = ObjectiveFault;

    fn from_str(text: &str) -> Result<Self, ObjectiveFault> {
        let fault = |reason: String| ObjectiveFault(format!("{reason}; an objective looks like p99.9<5ms"));
        let (left, limit) = text.split_once('<').ok_or_else(|| fault("there is no '<'".to_owned()))?;
        let (is_inclusive, limit) = limit.strip_prefix('=').map_or((false, limit), |limit| (true, limit));
        let (name, measure) =
            left.rsplit_once(':').map_or((histogram::RESPONSE, left), |(name, measure)| (name.trim(), measure));
        let names = histogram::ALL.map(|(name, _)| name);
        let histogram = names
            .into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| fault(format!("'{name}' is no histogram; there are {}", names.join(", "))))?;
        let measure = measure_of(measure.trim()).map_err(fault)?;
        let limit_nanos = nanos_of(limit.trim()).map_err(fault)?;
        Ok(Self { histogram, measure, is_inclusive, limit_nanos })
    }
}

fn measure_of(text: &str) -> Result<Measure, String> {
    match text {
        "max" => return Ok(Measure::Quantile(1.0)),
        "mean" => return Ok(Measure::Mean),
        _ => {}
    }
    let is_number = |digits: &&str| digits.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
    let percent = text.strip_prefix('p').filter(is_number).and_then(|digits| digits.parse::<f64>().ok());
    match percent {
        // Rounded, since 99.9 / 100 is not 0.999 in binary.
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(Measure::Quantile((percent * 1e10).round() / 1e12)),
        Some(_) => Err(format!("'{text}' is no percentile: they are above p0 and at most p100")),
        None => Err(format!("'{text}' is none of p50, p99.9 (any percentile), max, mean")),
    }
}

/// `5ms`, `1.5s`, `300us`, `900ns`.
fn nanos_of(text: &str) -> Result<u64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim() {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "" => return Err(format!("'{text}' has no unit: ns, us, ms or s")),
        other => return Err(format!("'{other}' is no unit: ns, us, ms or s")),
    };
    let number: f64 = number.parse().map_err(|_| format!("'{text}' is no duration"))?;
    let nanos = number * scale;
    if !(1.0..=3.6e12).contains(&nanos) {
        return Err(format!("'{text}' is not between 1ns and an hour"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    Ok(nanos.round() as u64)
}

/// How a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It kept the objective: with which value, in nanoseconds.
    Kept(u64),
    /// It did not.
    Missed(u64),
    /// It measured nothing of the kind.
    Unknown,
}

impl Objective {
    /// Whether it is missed whatever comes, where so many latencies are longer than its limit and all will be `expected` at
    /// most. Of a mean nobody knows.
    pub fn is_lost(&self, above: u64, expected: f64) -> bool {
        match self.measure {
            Measure::Quantile(quantile) => above > 0 && above as f64 > expected * (1.0 - quantile),
            Measure::Mean => false,
        }
    }

    /// Whether the measured time of a run kept it.
    pub fn outcome(&self, run: &Run) -> Outcome {
        let Some(recorded) = run.histogram(self.histogram) else { return Outcome::Unknown };
        let value = match self.measure {
            Measure::Quantile(quantile) => recorded.0.value_at_quantile(quantile),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most an hour")]
            Measure::Mean => recorded.0.mean().round() as u64,
        };
        if value < self.limit_nanos || self.is_inclusive && value == self.limit_nanos {
            Outcome::Kept(value)
        } else {
            Outcome::Missed(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_runs::run_of;

    #[test]
    fn well_formed_ones() {
        let check = |text: &str, histogram, measure, is_inclusive, limit_nanos, shown: &str| {
            let found: Objective = text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!(found, Objective { histogram, measure, is_inclusive, limit_nanos });
            assert_eq!(found.to_string(), shown);
            assert_eq!(found.to_string().parse(), Ok(found), "{shown} reads back");
        };
        check("p99.9<5ms", "response", Measure::Quantile(0.999), false, 5_000_000, "p99.9<5.00ms");
        check("confirm:p99 <= 2 ms", "confirm", Measure::Quantile(0.99), true, 2_000_000, "confirm:p99<=2.00ms");
        check("max<1s", "response", Measure::Quantile(1.0), false, 1_000_000_000, "max<1.00s");
        check("p100<1.5s", "response", Measure::Quantile(1.0), false, 1_500_000_000, "max<1.50s");
        check("round-trip:mean<300us", "round-trip", Measure::Mean, false, 300_000, "round-trip:mean<300µs");
        check("p50<900ns", "response", Measure::Quantile(0.5), false, 900, "p50<900ns");
    }

    /// Goal: what cannot be meant is refused with its reason.
    #[test]
    fn faults_say_what_is_wrong() {
        for (text, reason) in [
            ("", "no '<'"),
            ("p99>5ms", "no '<'"),
            ("p99<5", "no unit"),
            ("p99<5h", "'h' is no unit"),
            ("p99<ms", "no duration"),
            ("p99<1.2.3ms", "no duration"),
            ("p99<0ms", "between"),
            ("p99<2000000s", "between"),
            ("p0<5ms", "above p0"),
            ("p101<5ms", "at most p100"),
            ("pinf<5ms", "none of"),
            ("p<5ms", "none of"),
            ("q99<5ms", "none of"),
            ("respons:p99<5ms", "'respons' is no histogram"),
        ] {
            let fault = text.parse::<Objective>().expect_err(text).to_string();
            assert!(fault.contains(reason), "{text}: {fault}");
        }
    }

    /// Goal: on both sides of the limit, and without anything measured.
    #[test]
    fn outcomes() {
        let run = run_of(&[("response", &[100, 200, 300])]);
        let check = |text: &str, expected| {
            assert_eq!(text.parse::<Objective>().expect(text).outcome(&run), expected, "{text}");
        };
        check("max<301ns", Outcome::Kept(300));
        check("max<300ns", Outcome::Missed(300));
        check("max<=300ns", Outcome::Kept(300));
        check("mean<201ns", Outcome::Kept(200));
        check("confirm:p50<1s", Outcome::Unknown);
    }
}
