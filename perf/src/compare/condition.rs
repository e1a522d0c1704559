//! `--fail-if`: conditions that make the exit code 1, such as `p99>+5%`, `p99.9>5ms`, `rate<100k`.

use std::str::FromStr;

use super::bootstrap::Estimate;
use super::metric::Metric;
use super::table::Table;
use crate::units::{parse_duration, parse_rate};

/// What must not be so.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// As the user wrote it.
    pub text: String,
    /// Of what.
    pub metric: Metric,
    is_above: bool,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// By the value of the first column.
    Ratio(f64),
    /// In nanoseconds, or a second.
    Absolute(f64),
}

const USAGE: &str = "METRIC>LIMIT or METRIC<LIMIT, where METRIC is a quantile (p99.9), max, mean, rate, published, confirmed, \
    received, operations, per-cpu, disk or amplification, and LIMIT is relative to the first (+5%, -5%, 1.5x) or absolute \
    (5ms, 100k)";

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.find(['>', '<']).ok_or_else(|| format!("'{text}' has no > or <: {USAGE}"))?;
        let (name, limit) = (text[..at].trim(), text[at + 1..].trim());
        let metric = Metric::from_name(name).ok_or_else(|| format!("'{name}' is nothing that is compared: {USAGE}"))?;
        let limit = Limit::parse(limit, &metric)?;
        Ok(Self { text: text.to_owned(), metric, is_above: text[at..].starts_with('>'), limit })
    }
}

impl Limit {
    fn parse(text: &str, metric: &Metric) -> Result<Self, String> {
        let finite = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        if let Some(percent) = text.strip_suffix('%') {
            if !percent.starts_with(['+', '-']) {
                return Err(format!("'{text}' needs a sign: +{text} or -{text}, relative to the first"));
            }
            let percent = finite(percent).filter(|percent| *percent > -100.0);
            return percent
                .map(|percent| Self::Ratio(1.0 + percent / 100.0))
                .ok_or_else(|| format!("'{text}': {USAGE}"));
        }
        if let Some(factor) = text.strip_suffix('x') {
            let factor = finite(factor).filter(|factor| *factor > 0.0);
            return factor.map(Self::Ratio).ok_or_else(|| format!("'{text}': {USAGE}"));
        }
        let absolute = if metric.is_latency() { parse_duration(text) } else { parse_rate(text) };
        let wanted = match metric {
            Metric::Disk | Metric::Amplification => "a number (1500)",
            _ if metric.is_latency() => "a duration with its unit (5ms)",
            _ => "a rate (100k)",
        };
        absolute.map(Self::Absolute).ok_or_else(|| format!("'{text}' is neither {wanted} nor relative (+5%)"))
    }
}

/// What became of a condition in a table.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// A sentence for each column where it holds.
    pub failures: Vec<String>,
    /// Columns where it could be judged.
    pub judged_count: usize,
    /// A sentence for each column where it could not.
    pub unjudged: Vec<String>,
    /// A sentence for each column whose numbers must not decide anything.
    pub untrusted: Vec<String>,
}

/// What a judgement is made by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Certainty {
    /// The whole interval of confidence has to be beyond the limit.
    pub is_sure: bool,
    /// Columns are judged though some of their runs are invalid or have failed.
    pub is_invalid_allowed: bool,
}

impl Condition {
    /// Judges by the values, or where `is_sure` by the ends of the intervals of confidence: then it holds
    /// only where the whole interval is beyond the limit, and what has no interval is not judged. Nor are columns with runs that
    /// are invalid or have failed, unless `is_invalid_allowed`; a relative limit needs the first one, too. Absolute limits are for every column, relative ones for each but the
    /// first.
    pub fn judge(&self, table: &Table, Certainty { is_sure, is_invalid_allowed }: Certainty) -> Outcome {
        let mut outcome = Outcome::default();
        let first = table.columns[0].estimate(&self.metric);
        let skipped = usize::from(matches!(self.limit, Limit::Ratio(_)));
        if table.columns.len() == skipped {
            let what = if table.heading.is_empty() { &table.columns[0].title } else { &table.heading };
            outcome.unjudged.push(format!("{}: there is nothing to compare {what} with", self.text));
        }
        for column in table.columns.iter().skip(skipped) {
            let estimate = column.estimate(&self.metric);
            let judged = match (self.limit, estimate, first) {
                (Limit::Absolute(_), Some(estimate), _) => Some(estimate.clone()),
                (Limit::Ratio(_), Some(estimate), Some(first)) => estimate.ratio_to(first),
                _ => None,
            };
            let whose = if table.heading.is_empty() {
                column.title.clone()
            } else {
                format!("{} ({})", column.title, table.heading)
            };
            let Some(judged) = judged else {
                outcome.unjudged.push(format!("{}: {} of {whose} is not known", self.text, self.metric.name()));
                continue;
            };
            let doubtful = [Some(column), table.columns.first().filter(|_| skipped > 0)].into_iter().flatten();
            let doubt = doubtful.filter(|_| !is_invalid_allowed).find_map(|shown| Some((shown, shown.doubt()?)));
            if let Some((shown, doubt)) = doubt {
                outcome.untrusted.push(format!("{}: {} {doubt}", self.text, shown.title));
                continue;
            }
            if is_sure && judged.interval.is_none() {
                let why = "has no interval of confidence, which --fail-if-sure needs";
                outcome.untrusted.push(format!("{}: {} of {whose} {why}", self.text, self.metric.name()));
                continue;
            }
            outcome.judged_count += 1;
            let estimate = estimate.expect("it was judged");
            if self.holds(&judged, is_sure) {
                outcome.failures.push(self.sentence(&whose, estimate, &judged, &table.columns[0].title));
            }
        }
        outcome
    }

    fn holds(&self, judged: &Estimate, is_sure: bool) -> bool {
        let (Limit::Ratio(limit) | Limit::Absolute(limit)) = self.limit;
        let (low, high) = judged.interval.filter(|_| is_sure).unwrap_or((judged.value, judged.value));
        if self.is_above { low > limit } else { high < limit }
    }

    fn sentence(&self, whose: &str, estimate: &Estimate, judged: &Estimate, first: &str) -> String {
        let metric = &self.metric;
        let percent = |ratio: f64| format!("{:+.1} %", (ratio - 1.0) * 100.0);
        let value = metric.text(estimate.value);
        let name = metric.name();
        match self.limit {
            Limit::Ratio(limit) => {
                let range = judged.interval.map_or_else(
                    || "no interval of confidence".to_owned(),
                    |(from, to)| format!("95 % interval {} to {}", percent(from), percent(to)),
                );
                let (is, than) = (percent(judged.value), percent(limit));
                format!("{}: {name} of {whose} is {value}, {is} to {first} (limit {than}; {range})", self.text)
            }
            Limit::Absolute(limit) => {
                let range = judged.interval.map_or_else(
                    || "no interval of confidence".to_owned(),
                    |(from, to)| format!("95 % interval {} to {}", metric.text(from), metric.text(to)),
                );
                let by = percent(estimate.value / limit);
                format!(
                    "{}: {name} of {whose} is {value}, {by} to the limit of {} ({range})",
                    self.text,
                    metric.text(limit)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tables_of;
    use super::*;
    use crate::compare::column::Column;
    use crate::result::sample;

    fn table() -> Table {
        let [a, b] = [("a", 1.0), ("b", 1.1)]
            .map(|(name, factor)| Column::of_runs(name, sample::one_broker(factor).runs).remove(0));
        tables_of(&[a, b], None, &[], 300, 1).expect("comparable").remove(0)
    }

    /// Goal: latencies a tenth longer are found above, and not below, the limits around that.
    #[test]
    fn limits_on_both_sides() {
        let table = table();
        let check = |text: &str, is_sure: bool, expected: usize| {
            let outcome = text
                .parse::<Condition>()
                .expect("well-formed")
                .judge(&table, Certainty { is_sure, ..Certainty::default() });
            assert_eq!(outcome.failures.len(), expected, "{text}: {outcome:?}");
            assert!(outcome.judged_count > 0, "{text}");
        };
        check("p50>+5%", false, 1);
        check("p50>+5%", true, 1);
        check("p50 > 1.05x", false, 1);
        check("p50>+15%", false, 0);
        check("p50<+15%", true, 1);
        check("p50<-5%", false, 0);
        check("p50>1us", false, 2);
        check("p50>1s", false, 0);
        check("max<1s", false, 2);
        check("rate<100k", false, 2);
        check("rate<-1%", false, 0);
        check("received<4k", false, 0);
    }

    /// Goal: a value beyond the limit by less than its uncertainty fails only where certainty is not asked for.
    #[test]
    fn only_what_is_sure() {
        let table = table();
        let metric = Metric::from_name("p99").expect("a name");
        let ratio =
            table.columns[1].estimate(&metric).and_then(|one| one.ratio_to(table.columns[0].estimate(&metric)?));
        let ratio = ratio.expect("there");
        let (from, _) = ratio.interval.expect("18 intervals");
        let condition: Condition = format!("p99>{}x", f64::midpoint(from, ratio.value)).parse().expect("well-formed");
        assert_eq!(condition.judge(&table, Certainty::default()).failures.len(), 1);
        assert_eq!(condition.judge(&table, Certainty { is_sure: true, ..Certainty::default() }).failures.len(), 0);
    }

    /// Goal: numbers of runs that are invalid or have failed decide nothing, of whichever side of a ratio they are, unless they
    /// are allowed; nor do bare values where certainty is asked for.
    #[test]
    fn what_must_not_decide() {
        let judged = |table: &Table, text: &str, certainty| {
            let outcome = text.parse::<Condition>().expect("well-formed").judge(table, certainty);
            (outcome.failures.len(), outcome.judged_count, outcome.untrusted.len())
        };
        let (usual, sure) = (Certainty::default(), Certainty { is_sure: true, ..Certainty::default() });
        let allowed = Certainty { is_invalid_allowed: true, ..usual };
        for column in 0..2 {
            for is_failure in [false, true] {
                let mut table = table();
                let shown = &mut table.columns[column];
                let sentences = if is_failure { &mut shown.failures } else { &mut shown.invalid };
                sentences.push("late".to_owned());
                assert_eq!(judged(&table, "p50>+5%", usual), (0, 0, 1));
                assert_eq!(judged(&table, "p50>+5%", allowed), (1, 1, 0));
                assert_eq!(judged(&table, "p50>1us", usual), (1, 1, 1));
            }
        }
        assert_eq!(judged(&table(), "max>1us", usual), (2, 2, 0));
        assert_eq!(judged(&table(), "max>1us", sure), (0, 0, 2));
    }

    #[test]
    fn refusals() {
        for (text, expected) in [
            ("p99", "no > or <"),
            ("p101>5ms", "nothing that is compared"),
            ("foo>5ms", "nothing that is compared"),
            ("p99>5%", "needs a sign"),
            ("p99>5", "a duration with its unit"),
            ("rate<5ms", "a rate"),
            ("p99>+x%", "METRIC"),
            ("p99>-100%", "METRIC"),
            ("p99>=5ms", "a duration with its unit"),
            ("p99>", "a duration"),
        ] {
            let reason = text.parse::<Condition>().expect_err("refused");
            assert!(reason.contains(expected), "{text}: {reason}");
        }
    }
}
