//! Rounds of several targets side by side, scenario by scenario: what stands on standard output after `versus` and `suite`.

use std::fmt::Write as _;

use crate::campaign::{Campaign, Failure};
use crate::final_table::{Emphasis, wrap};
use crate::quantiles;
use crate::quantity::{duration_text, rate_text};
use crate::result::{Recorded, Run, histogram};

const FITS: &str = "a string takes any text";

/// The tables; targets in the order of `targets`, as they were named; others behind them.
pub fn text(campaign: &Campaign, targets: &[String], emphasis: Emphasis) -> String {
    let (runs, failures, origin) = (campaign.runs(), campaign.failures(), campaign.origin());
    let mut text = String::new();
    if runs.is_empty() && failures.is_empty() {
        return text;
    }
    if !origin.cpu_model.is_empty() {
        wrap(&mut text, "", &format!("{}, {} processors, {}", origin.cpu_model, origin.processors, origin.kernel));
    }
    let mut scenarios: Vec<&str> = Vec::new();
    let all = runs.iter().map(|run| &run.scenario).chain(failures.iter().map(|failure| &failure.scenario));
    for scenario in all {
        if !scenarios.contains(&scenario.as_str()) {
            scenarios.push(scenario);
        }
    }
    for scenario in scenarios {
        let mut names: Vec<&str> = Vec::new();
        let mut of_scenario: Vec<&Run> = runs.iter().filter(|run| run.scenario == scenario).collect();
        of_scenario
            .sort_by_key(|run| targets.iter().position(|name| *name == run.target.name).unwrap_or(targets.len()));
        of_scenario.iter().for_each(|run| {
            if !names.contains(&run.target.name.as_str()) {
                names.push(&run.target.name);
            }
        });
        let groups: Vec<(&str, Vec<&Run>)> = names
            .into_iter()
            .map(|name| (name, of_scenario.iter().copied().filter(|run| run.target.name == name).collect()))
            .collect();
        writeln!(text, "\n{}", emphasis.heading(scenario)).expect(FITS);
        if !groups.is_empty() {
            table(&mut text, &groups);
        }
        troubles(&mut text, &groups, emphasis);
        for Failure { target, reason, .. } in failures.iter().filter(|failure| failure.scenario == scenario) {
            tell(&mut text, &format!("{target}: FAILED: {reason}"), true, emphasis);
        }
    }
    text
}

/// Received a second (or published, or operations), in the measured time.
fn rate(run: &Run) -> f64 {
    let (counts, seconds) = run.measured_counts();
    let count =
        [counts.received, counts.published, counts.operations].into_iter().find(|count| *count > 0).unwrap_or(0);
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    if values.is_empty() { f64::NAN } else { f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]) }
}

fn table(text: &mut String, groups: &[(&str, Vec<&Run>)]) {
    let preferred = [histogram::RESPONSE, histogram::SERVICE, histogram::ROUND_TRIP, histogram::CONFIRM];
    let has = |name: &&str| groups.iter().any(|(_, runs)| runs.iter().any(|run| run.histogram(name).is_some()));
    let name = preferred.into_iter().find(has);
    let width = groups.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).clamp(8, 26);
    writeln!(
        text,
        "  {:<width$}{:>7}{:>12}{:>7}{:>10}{:>10}{:>10}",
        name.unwrap_or(""),
        "rounds",
        "a second",
        "ratio",
        "p50",
        "p99",
        "p99.9"
    )
    .expect(FITS);
    let mut first = None;
    for (target, runs) in groups {
        let rate = median(runs.iter().map(|run| rate(run)).collect());
        let ratio =
            first.map_or_else(
                String::new,
                |first: f64| if first > 0.0 { format!("{:.2}x", rate / first) } else { "-".to_owned() },
            );
        first = first.or(Some(rate));
        let target: String = target.chars().take(width).collect();
        write!(text, "  {target:<width$}{:>7}{:>12}{ratio:>7}", runs.len(), rate_text(rate)).expect(FITS);
        let mut pooled = Recorded::default();
        runs.iter().filter_map(|run| run.histogram(name?)).for_each(|recorded| pooled.add(&recorded));
        for quantile in [0.5, 0.99, 0.999] {
            let value = quantiles::at(&pooled, quantile).map_or_else(|| "-".to_owned(), duration_text);
            write!(text, "{value:>10}").expect(FITS);
        }
        text.push('\n');
    }
}

/// What was wrong, each sentence once for each target.
fn troubles(text: &mut String, groups: &[(&str, Vec<&Run>)], emphasis: Emphasis) {
    for (target, runs) in groups {
        let mut told: Vec<String> = Vec::new();
        for run in runs {
            let check = run.check;
            let faults = [
                (check.lost, "lost"),
                (check.duplicated, "duplicated"),
                (check.reordered, "reordered"),
                (check.corrupted, "corrupted"),
                (check.totals.refused, "refused"),
            ];
            let faults = faults.iter().filter(|(count, _)| *count > 0);
            let wrong = faults.map(|(count, name)| format!("WRONG in round {}: {count} {name}", run.round + 1));
            let failed = run.failures.iter().map(|sentence| format!("FAILED in round {}: {sentence}", run.round + 1));
            let invalid = run.invalid.iter().map(|sentence| format!("INVALID in round {}: {sentence}", run.round + 1));
            told.extend(wrong.chain(failed).chain(invalid));
            for warning in run.warnings.iter().map(|sentence| format!("warning: {sentence}")) {
                if !told.contains(&warning) {
                    told.push(warning);
                }
            }
        }
        for sentence in told {
            tell(text, &format!("{target}: {sentence}"), !sentence.starts_with("warning"), emphasis);
        }
    }
}

fn tell(text: &mut String, sentence: &str, is_wrong: bool, emphasis: Emphasis) {
    let mut lines = String::new();
    wrap(&mut lines, "  ", sentence);
    for line in lines.lines() {
        writeln!(text, "{}", if is_wrong { emphasis.wrong(line) } else { emphasis.warning(line) }).expect(FITS);
    }
}
