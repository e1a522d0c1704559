//! Whether a run at a rate was one that could go on for ever: everything sent and received in time, a flat backlog, and the
//! objectives kept.

use crate::result::Run;
use crate::sweep::backlog_trend::BacklogTrend;
use crate::sweep::objective::{Objective, Outcome};
use crate::sweep::search::Verdict;
use crate::sweep::watch::falls_behind;
use crate::units::{duration_text, rate_text};

/// Less than this part of the wanted rate is not the wanted rate.
const ACHIEVED_PART_MIN: f64 = 0.99;
/// Poisson arrivals differ from their mean by this many standard deviations at most, or something is wrong.
const DEVIATIONS_MAX: f64 = 4.0;
/// Below this part of the wanted rate, or with a backlog that grows by as much as the rest, another trial tells nothing.
const FAR_BEYOND_PART: f64 = 0.75;

/// What a run at a wanted rate has shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// For the search.
    pub verdict: Verdict,
    /// Messages published a second.
    pub achieved: f64,
    /// How the backlog went.
    pub trend: BacklogTrend,
    /// Why it was missed, the worst first; empty where it was kept.
    pub reasons: Vec<String>,
    /// Whether it was missed by the load generator alone.
    pub is_generators: bool,
}

/// Judges a run.
///
/// # Errors
/// A sentence where an objective is about something that such runs do not measure.
pub fn judge(run: &Run, rate: f64, objectives: &[Objective]) -> Result<Judgement, String> {
    let (counts, seconds) = run.measured_counts();
    let achieved = if seconds > 0.0 { counts.published as f64 / seconds } else { 0.0 };
    let trend = BacklogTrend::of(run);
    let mut reasons = Vec::new();
    if run.has_faults() {
        let check = &run.check;
        let faults = [
            (check.lost, "lost"),
            (check.duplicated, "duplicated"),
            (check.reordered, "reordered"),
            (check.corrupted, "corrupted"),
            (check.totals.refused, "refused"),
        ];
        reasons.extend(faults.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")));
    }
    let chance = DEVIATIONS_MAX * (rate * seconds).sqrt() / seconds.max(1e-9);
    if achieved < rate * ACHIEVED_PART_MIN - chance {
        reasons.push(format!("only {:.0} % of the rate", 100.0 * achieved / rate));
    }
    if trend.grows(rate) {
        reasons.push(format!("backlog grows by {}/s", rate_text(trend.slope)));
    }
    for objective in objectives {
        match objective.outcome(run) {
            Outcome::Kept(_) => {}
            Outcome::Missed(nanos) => reasons.push(format!("{objective}: {}", duration_text(nanos))),
            // A broker that delivers nothing keeps no objective; else the workload has no such latency.
            Outcome::Unknown if counts.published == 0 || counts.received == 0 => {
                reasons.push(format!("{objective}: nothing came"));
            }
            Outcome::Unknown => {
                return Err(format!(
                    "--objective {objective}: this workload measures no '{}' latency",
                    objective.histogram
                ));
            }
        }
    }
    reasons.extend(run.invalid.iter().cloned());
    reasons.extend(run.failures.iter().cloned());
    let is_far = achieved < rate * FAR_BEYOND_PART
        || trend.grows(rate) && trend.slope > rate * (1.0 - FAR_BEYOND_PART)
        || falls_behind(&run.intervals, rate).is_some();
    let verdict = match (reasons.is_empty(), is_far) {
        (true, _) => Verdict::Kept,
        (false, true) => Verdict::FarBeyond,
        (false, false) => Verdict::Missed,
    };
    let is_generators = !reasons.is_empty() && reasons.len() == run.invalid.len();
    Ok(Judgement { verdict, achieved, trend, reasons, is_generators })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_runs::{interval_of, run_of_intervals};

    /// Five seconds at 1000 a second, of which so many are published each, with these backlogs.
    fn run(published: u64, backlogs: [u64; 5]) -> Run {
        let intervals = (0..5).zip(backlogs).map(|(second, backlog)| {
            let mut interval = interval_of(second, &[("response", &[1_000_000; 100])]);
            (interval.counts.published, interval.backlog) = (published, backlog);
            interval
        });
        run_of_intervals(intervals.collect())
    }

    #[track_caller]
    fn check(run: &Run, objective: &str, verdict: Verdict, reason: &str) {
        let judgement = judge(run, 1000.0, &[objective.parse().expect("well-formed")]).expect("judged");
        assert_eq!(judgement.verdict, verdict, "{judgement:?}");
        let reasons = judgement.reasons.join("; ");
        assert!(reasons.contains(reason) && reasons.is_empty() == reason.is_empty(), "{reasons}");
    }

    /// Goal: each condition alone makes a run miss, and says so.
    #[test]
    fn each_condition() {
        let flat = [3, 9, 0, 4, 5];
        check(&run(1000, flat), "max<2ms", Verdict::Kept, "");
        check(&run(1000, flat), "max<900us", Verdict::Missed, "max<900µs: 1.00 ms");
        // 1 % below, and four deviations of 5000 arrivals: 933.
        check(&run(934, flat), "max<2ms", Verdict::Kept, "");
        check(&run(932, flat), "max<2ms", Verdict::Missed, "only 93 % of the rate");
        check(&run(600, flat), "max<2ms", Verdict::FarBeyond, "only 60 %");
        check(&run(1000, [50, 100, 150, 200, 250]), "max<2ms", Verdict::Missed, "backlog grows by 50.0/s");
        check(&run(1000, [500, 1000, 1500, 2000, 2500]), "max<2ms", Verdict::FarBeyond, "backlog grows by 500/s");
        let mut wrong = run(1000, flat);
        wrong.check.lost = 2;
        check(&wrong, "max<2ms", Verdict::Missed, "2 lost");
        let mut late = run(1000, flat);
        late.invalid.push("sent too late".to_owned());
        check(&late, "max<2ms", Verdict::Missed, "sent too late");
    }

    /// Goal: an objective about what is not measured is an error, not a miss; one about what did not come is a miss.
    #[test]
    fn objectives_without_a_latency() {
        let objectives = ["confirm:p99<1ms".parse().expect("well-formed")];
        let fault = judge(&run(1000, [0; 5]), 1000.0, &objectives).expect_err("not measured");
        assert!(fault.contains("no 'confirm' latency"), "{fault}");
        let nothing = run_of_intervals(Vec::new());
        let judgement = judge(&nothing, 1000.0, &objectives).expect("judged");
        assert_eq!(judgement.verdict, Verdict::FarBeyond);
        assert!(judgement.reasons.iter().any(|reason| reason.ends_with("nothing came")));
    }
}
