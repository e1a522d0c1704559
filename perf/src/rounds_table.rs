//! Rounds of several targets side by side, scenario by scenario: what stands on standard output after `versus` and `suite`.
//!
//! Numbers with their ratios and intervals of confidence are those of [`compare`]; what was wrong, and an
//! overview of many scenarios, come from here.

use std::fmt::Write as _;

use crate::campaign::{Campaign, Failure};
use crate::compare;
use crate::compare::column::Column;
use crate::final_table::{Emphasis, wrap};
use crate::result::quantile;
use crate::result::{Recorded, Run, histogram};
use crate::units::{self, duration_text, rate_text};

const FITS: &str = "a string takes any text";

/// A target with its rounds of one scenario.
type Rounds<'a> = (&'a str, Vec<&'a Run>);

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
    let mut overviews = Vec::new();
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
        let groups: Vec<Rounds> = names
            .into_iter()
            .map(|name| (name, of_scenario.iter().copied().filter(|run| run.target.name == name).collect()))
            .collect();
        writeln!(text, "\n{}", emphasis.heading(scenario)).expect(FITS);
        comparison(&mut text, &of_scenario);
        troubles(&mut text, &groups, emphasis);
        for Failure { target, reason, .. } in failures.iter().filter(|failure| failure.scenario == scenario) {
            tell(&mut text, &format!("{target}: FAILED: {reason}"), emphasis);
        }
        overviews.push((scenario, groups));
    }
    if overviews.len() > 1 {
        overview(&mut text, &overviews, emphasis);
    }
    text
}

/// All metrics of one scenario, with ratios to the first target.
fn comparison(text: &mut String, runs: &[&Run]) {
    let columns = Column::of_runs("", runs.iter().map(|&run| run.clone()).collect());
    if columns.is_empty() {
        return;
    }
    match compare::tables(&columns, None) {
        Ok(tables) => tables.iter().for_each(|table| text.push_str(&compare::table_text(table, compare::look()))),
        Err(reason) => wrap(text, "  ", &reason),
    }
}

/// Of what the workload is about, a second of the measured time.
fn rate(run: &Run) -> f64 {
    let (counts, seconds) = run.measured_counts();
    if seconds > 0.0 { counts.primary() as f64 / seconds } else { 0.0 }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    if values.is_empty() { f64::NAN } else { f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]) }
}

/// A line for each scenario and target, at most 80 columns wide.
fn overview(text: &mut String, scenarios: &[(&str, Vec<Rounds>)], emphasis: Emphasis) {
    let width = |names: &mut dyn Iterator<Item = &str>| names.map(|name| name.chars().count()).max().unwrap_or(0);
    let first_width = width(&mut scenarios.iter().map(|(scenario, _)| *scenario)).clamp(8, 20);
    let second_width =
        width(&mut scenarios.iter().flat_map(|(_, groups)| groups.iter().map(|(target, _)| *target))).clamp(6, 14);
    let cut = |name: &str, width: usize| name.chars().take(width).collect::<String>();
    let head = format!(
        "{:<first_width$} {:<second_width$}{:>11}{:>8}{:>9}{:>9}{:>8}",
        "overview", "", "a second", "ratio", "p50", "p99", "ratio"
    );
    writeln!(text, "\n{}", emphasis.heading(&head)).expect(FITS);
    for (scenario, groups) in scenarios {
        let is_about_round_trips = groups.iter().flat_map(|(_, runs)| runs).all(|run| run.is_about_round_trips());
        let has = |name: &&str| groups.iter().all(|(_, runs)| runs.iter().any(|run| run.histogram(name).is_some()));
        let name = histogram::by_worth(is_about_round_trips).find(has);
        let mut first: Option<(f64, f64)> = None;
        for (target, runs) in groups {
            let rate = median(runs.iter().map(|run| rate(run)).collect());
            let mut pooled = Recorded::default();
            runs.iter().filter_map(|run| run.histogram(name?)).for_each(|recorded| pooled.add(&recorded));
            let at = |quantile| quantile::at(&pooled, quantile);
            let p99 = at(0.99).map_or(f64::NAN, |nanos| nanos as f64);
            let shown = |nanos: Option<u64>| nanos.map_or_else(|| "-".to_owned(), duration_text);
            let (rate_ratio, p99_ratio) = first.map_or_else(Default::default, |(first_rate, first_p99)| {
                (ratio_text(rate, first_rate), ratio_text(p99, first_p99))
            });
            let line = format!(
                "{:<first_width$} {:<second_width$}{:>11}{rate_ratio:>8}{:>9}{:>9}{p99_ratio:>8}",
                if first.is_none() { cut(scenario, first_width) } else { String::new() },
                cut(target, second_width),
                rate_text(rate),
                shown(at(0.5)),
                shown(at(0.99)),
            );
            writeln!(text, "{}", line.trim_end()).expect(FITS);
            first = first.or(Some((rate, p99)));
        }
    }
}

fn ratio_text(value: f64, first: f64) -> String {
    let ratio = value / first;
    if ratio.is_finite() { format!("{}x", units::ratio_text(ratio)) } else { "-".to_owned() }
}

/// What was wrong; warnings stand in the tables.
fn troubles(text: &mut String, groups: &[Rounds], emphasis: Emphasis) {
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
            told.extend(wrong.chain(failed));
        }
        for sentence in told {
            tell(text, &format!("{target}: {sentence}"), emphasis);
        }
    }
}

fn tell(text: &mut String, sentence: &str, emphasis: Emphasis) {
    let mut lines = String::new();
    wrap(&mut lines, "  ", sentence);
    for line in lines.lines() {
        writeln!(text, "{}", emphasis.wrong(line)).expect(FITS);
    }
}
