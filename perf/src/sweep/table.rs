//! What a sweep has found, as text.

use std::fmt::Write as _;

use super::Step;
use crate::final_table::{Emphasis, target_text, wrap};
use crate::result::quantile;
use crate::result::{Origin, Run, histogram};
use crate::sweep::objective::Objective;
use crate::sweep::search::{Search, Verdict};
use crate::units::{duration_text, rate_text};

const FITS: &str = "a string takes any text";
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// A sweep at its end.
pub struct Report<'a> {
    /// In the order of their trials.
    pub steps: &'a [Step],
    /// What was to be kept.
    pub objectives: &'a [Objective],
    /// The search.
    pub search: &'a Search,
    /// Whether it came to its end.
    pub is_done: bool,
}

impl Report<'_> {
    /// The table of rates and the result, at most 80 columns wide.
    pub fn text(&self, runs: &[Run], origin: &Origin, emphasis: Emphasis) -> String {
        let mut text = String::new();
        let Some(first) = runs.first() else { return text };
        writeln!(text, "{}", emphasis.heading(&format!("sweep · {}", target_text(first)))).expect(FITS);
        writeln!(text, "  {}", first.target.uri).expect(FITS);
        if !origin.cpu_model.is_empty() {
            wrap(
                &mut text,
                "  ",
                &format!("{}, {} processors, {}", origin.cpu_model, origin.processors, origin.kernel),
            );
        }
        let name = self.objectives.first().map_or(histogram::RESPONSE, |objective| objective.histogram);
        writeln!(
            text,
            "\n  {:>10}{:>11}{:>10}{:>10}{:>10}{:>11}",
            "a second", "achieved", "p50", "p99", "p99.9", "backlog/s"
        )
        .expect(FITS);
        let mut steps: Vec<&Step> = self.steps.iter().collect();
        steps.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        for step in steps {
            push_row(&mut text, step, &runs[step.run], name, emphasis);
        }
        writeln!(text, "\n  latencies: {name}").expect(FITS);
        text.push_str(&self.result(emphasis));
        text
    }

    fn result(&self, emphasis: Emphasis) -> String {
        let objectives: Vec<String> = self.objectives.iter().map(ToString::to_string).collect();
        let kept = if objectives.is_empty() { String::new() } else { format!(" with {}", objectives.join(", ")) };
        let mut text = String::new();
        let line = match (self.is_done, self.search.highest()) {
            (true, None) => emphasis.wrong(&format!("no rate was kept{kept}: lower --from")),
            (false, None) => "the sweep did not come to its end".to_owned(),
            (is_done, Some(rate)) => {
                let mut line = format!("highest rate kept: {} messages a second{kept}", rate_text(rate));
                if !is_done {
                    line += "; the sweep did not come to its end, so the limit may be higher";
                } else if self.search.is_limit_unknown() {
                    line += "; it is the highest that was tried, so the limit is above it: raise --to";
                } else if self.is_generators_limit(rate) {
                    line += "; the limit is the load generator's, not the broker's: give it more --cores";
                }
                line
            }
        };
        wrap(&mut text, "  ", &line);
        text
    }
}

impl Report<'_> {
    /// Whether the lowest rate that was missed, of those above `kept`, was missed by the load generator alone.
    fn is_generators_limit(&self, kept: f64) -> bool {
        let missed = self.steps.iter().filter(|step| step.rate > kept && step.judgement.verdict != Verdict::Kept);
        missed.min_by(|a, b| a.rate.total_cmp(&b.rate)).is_some_and(|step| step.judgement.is_generators)
    }
}

fn push_row(text: &mut String, step: &Step, run: &Run, name: &str, emphasis: Emphasis) {
    let judgement = &step.judgement;
    let (wanted, achieved) = (rate_text(step.rate), rate_text(judgement.achieved));
    write!(text, "  {wanted:>10}{achieved:>11}").expect(FITS);
    let recorded = run.histogram(name);
    for (_, quantile) in QUANTILES {
        let value = recorded.as_ref().and_then(|recorded| quantile::at(recorded, quantile));
        write!(text, "{:>10}", value.map_or_else(|| "-".to_owned(), duration_text)).expect(FITS);
    }
    let slope = judgement.trend.slope;
    let sign = if slope < 0.0 { "-" } else { "+" };
    write!(text, "{:>11}", format!("{sign}{}", rate_text(slope.abs()))).expect(FITS);
    if judgement.verdict == Verdict::Kept {
        text.push_str("  ok\n");
        return;
    }
    writeln!(text, "  {}", emphasis.wrong("no")).expect(FITS);
    wrap(text, &format!("{:14}", ""), &judgement.reasons.join("; "));
}

#[cfg(test)]
mod tests {
    use super::super::judge::judge;
    use super::*;
    use crate::final_table::COLUMNS_MAX;
    use crate::test_runs::run_of;

    fn report(rates: &[f64], is_done: bool) -> String {
        report_of(rates, is_done, false)
    }

    fn report_of(rates: &[f64], is_done: bool, is_late: bool) -> String {
        let objectives = ["max<2ms".parse().expect("well-formed")];
        let mut search = Search::new(rates.to_vec(), 0.5, 0);
        let (mut steps, mut runs) = (Vec::new(), Vec::new());
        while let Some(rate) = search.poll_rate() {
            let latency = if rate > 100.0 && !is_late { 9_000_000 } else { 1_000_000 };
            let mut run = run_of(&[("response", &[latency; 10])]);
            run.invalid.extend((rate > 100.0 && is_late).then(|| "the load generator had no rest".to_owned()));
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small rate")]
            (run.intervals[0].counts.published = rate as u64);
            let judgement = judge(&run, rate, &objectives).expect("judged");
            search.handle_verdict(rate, judgement.verdict);
            steps.push(Step { rate, run: runs.len(), judgement });
            runs.push(run);
        }
        let report = Report { steps: &steps, objectives: &objectives, search: &search, is_done };
        let text = report.text(&runs, &Origin::default(), Emphasis::Plain);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS_MAX), "{text}");
        text
    }

    /// The text without its line breaks.
    fn flat(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Goal: rates stand in order with why they were missed, and the result says what it is worth.
    #[test]
    fn tables_and_results() {
        let text = report(&[100.0, 1_000_000.0], true);
        assert!(text.contains("1,000,000  1,000,000   9.00 ms   9.00 ms   9.00 ms"), "{text}");
        assert!(text.contains("max<2.00ms: 9.00 ms"), "{text}");
        assert!(text.contains("highest rate kept: 100 messages a second with max<2.00ms\n"), "{text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.contains(" ms  ")).collect();
        assert_eq!(rows.len(), 4, "{text}");
        assert!(flat(&report(&[50.0, 100.0], true)).contains("raise --to"));
        assert!(flat(&report(&[50.0, 100.0], false)).contains("did not come to its end"));
        assert!(flat(&report_of(&[100.0, 200.0], true, true)).contains("is the load generator's"));
        assert!(!text.contains("load generator's"), "{text}");
        assert!(report(&[500.0], true).contains("no rate was kept"));
        let nothing = Report { steps: &[], objectives: &[], search: &Search::new(vec![1.0], 0.5, 0), is_done: false };
        assert_eq!(nothing.text(&[], &Origin::default(), Emphasis::Plain), "");
    }
}
