//! Which columns stand side by side, and what they show.

use serde::Serialize;

use super::bootstrap::{Estimate, Seeds, estimates};
use super::durability;
use super::metric::Metric;
use super::phases;
use crate::compare::column::{Column, best_common, titles};
use crate::result::{Run, histogram};

/// Columns that are compared with the first of them.
#[derive(Debug)]
pub struct Table {
    /// What all of them have in common: scenario, target, rate; empty where there is one table.
    pub heading: String,
    /// Whose latencies; `None` where the columns have none in common.
    pub histogram: Option<String>,
    /// At least one.
    pub columns: Vec<Shown>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// A column of a table.
#[derive(Debug)]
pub struct Shown {
    /// Tells it from the others.
    pub title: String,
    /// What it was made of.
    pub column: Column,
    /// Each metric that the table was asked for.
    pub estimates: Vec<(Metric, Option<Estimate>)>,
    /// Why its latencies must not be trusted.
    pub invalid: Vec<String>,
    /// What has ended its runs early or kept them from finishing.
    pub failures: Vec<String>,
}

impl Shown {
    /// Why its numbers must not decide anything; `None`: they may.
    pub fn doubt(&self) -> Option<String> {
        let of = |word, sentences: &[String]| sentences.first().map(|sentence| format!("{word}: {sentence}"));
        of("has failed", &self.failures).or_else(|| of("is INVALID", &self.invalid))
    }

    /// `None` where it is not known.
    pub fn estimate(&self, metric: &Metric) -> Option<&Estimate> {
        self.estimates.iter().find(|(own, _)| own == metric)?.1.as_ref()
    }
}

/// What the machine reads of a value.
#[derive(Serialize)]
pub struct Value {
    /// Nanoseconds, or a second.
    pub value: f64,
    /// 95 %.
    pub interval: Option<(f64, f64)>,
    /// By the first.
    pub ratio: Option<f64>,
    /// 95 %.
    pub ratio_interval: Option<(f64, f64)>,
    /// Few messages are beyond it.
    pub is_rare: bool,
}

/// Puts columns into tables.
///
/// A table holds one scenario where a file has several; one target where there are several files and one of them has several
/// targets; one rate where a file has several and there are several files or targets. Columns whose file does not say stand in
/// each table.
///
/// # Errors
/// A sentence where the histogram that is asked for is not there.
pub fn tables_of(
    columns: &[Column],
    histogram: Option<&str>,
    more_metrics: &[Metric],
    draws: usize,
    seed: u64,
) -> Result<Vec<Table>, String> {
    let mut metrics = Metric::all();
    for metric in more_metrics {
        if !metrics.contains(metric) {
            metrics.push(metric.clone());
        }
    }
    divided(columns)
        .into_iter()
        .map(|(heading, columns)| table(heading, &columns, histogram, &metrics, draws, seed))
        .collect()
}

fn scenario(column: &Column) -> String {
    column.scenario.clone()
}

fn target(column: &Column) -> String {
    column.target.clone()
}

fn rate(column: &Column) -> String {
    if column.scenario.is_empty() && column.rate.is_none() { String::new() } else { column.rate_text() }
}

/// Whether a file has several values of something.
fn varies_in_a_file(columns: &[Column], of: fn(&Column) -> String) -> bool {
    columns.iter().any(|a| columns.iter().any(|b| a.file == b.file && of(a) != of(b)))
}

fn divided(columns: &[Column]) -> Vec<(String, Vec<&Column>)> {
    let has_files = columns.iter().any(|column| column.file != columns[0].file);
    let has_targets = columns.iter().any(|column| column.target != columns[0].target);
    // Of logs of other tools the targets are mere tags: they are not told apart, but shown side by side.
    let named: Vec<Column> = columns.iter().filter(|column| !column.scenario.is_empty()).cloned().collect();
    let mut parts: Vec<fn(&Column) -> String> = Vec::new();
    if varies_in_a_file(&named, scenario) {
        parts.push(scenario);
    }
    if has_files && varies_in_a_file(&named, target) {
        parts.push(target);
    }
    if (has_files || has_targets) && varies_in_a_file(&named, rate) {
        parts.push(rate);
    }
    let key = |column: &Column| {
        let parts: Vec<String> = parts.iter().map(|part| part(column)).filter(|text| !text.is_empty()).collect();
        parts.join(", ")
    };
    let mut keys: Vec<String> = Vec::new();
    for column in columns.iter().filter(|column| !column.scenario.is_empty()) {
        let key = key(column);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        keys.push(String::new());
    }
    let members = |wanted: &str| -> Vec<&Column> {
        columns.iter().filter(|column| column.scenario.is_empty() || key(column) == wanted).collect()
    };
    keys.into_iter().map(|wanted| (wanted.clone(), members(&wanted))).collect()
}

fn table(
    heading: String,
    columns: &[&Column],
    wanted: Option<&str>,
    metrics: &[Metric],
    draws: usize,
    seed: u64,
) -> Result<Table, String> {
    let titles = titles(columns);
    let has = |column: &Column| {
        let names = column.histogram_names();
        let names: Vec<&str> =
            names.iter().map(|name| if name.is_empty() { "one without a name" } else { name }).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let mut notes = Vec::new();
    let histogram = match wanted {
        Some(name) => {
            if let Some((column, title)) =
                columns.iter().zip(&titles).find(|(column, _)| column.own_name(name).is_none())
            {
                let known: Vec<&str> = histogram::ALL.iter().map(|(known, _)| *known).collect();
                let there = has(column);
                return Err(format!("{title} has no histogram '{name}', it has: {there} (all: {})", known.join(", ")));
            }
            Some(name.to_owned())
        }
        None => best_common(columns),
    };
    if histogram.is_none() {
        let each: Vec<String> =
            columns.iter().zip(&titles).map(|(column, title)| format!("{title}: {}", has(column))).collect();
        notes.push(format!("they have no histogram in common; {}", each.join("; ")));
    }
    let pairs: Vec<usize> = (0..columns.len())
        .map(|own| (0..own).find(|&other| are_paired(columns[other], columns[own])).unwrap_or(own))
        .collect();
    let columns: Vec<Shown> = (0_u64..)
        .zip(columns.iter().zip(titles))
        .zip(pairs)
        .map(|((index, (column, title)), pair)| {
            // Columns are drawn independently of each other, but for rounds that they were made in together.
            let seeds = Seeds { rounds: seed ^ !(pair as u64), intervals: seed ^ (index << 32) };
            let found = estimates(column, histogram.as_deref(), metrics, draws, seeds);
            let texts = |of: fn(&Run) -> &[String]| {
                column.runs().iter().flat_map(|run| round_texts(run.round, of(run), column.runs().len())).collect()
            };
            Shown {
                title,
                column: (*column).clone(),
                estimates: metrics.iter().cloned().zip(found).collect(),
                invalid: texts(|run| &run.invalid),
                failures: texts(|run| &run.failures),
            }
        })
        .collect();
    notes.extend(notes_of(&columns));
    Ok(Table { heading, histogram, columns, notes })
}

/// Whether two columns were made in the same rounds: one after the other, so that what drifts hits both.
fn are_paired(a: &Column, b: &Column) -> bool {
    let rounds = |column: &Column| {
        let mut rounds: Vec<u32> = column.runs().iter().map(|run| run.round).collect();
        rounds.sort_unstable();
        rounds
    };
    a.file == b.file && rounds(a).len() > 1 && rounds(a) == rounds(b)
}

fn round_texts(round: u32, texts: &[String], rounds: usize) -> Vec<String> {
    let of = |text: &String| if rounds > 1 { format!("round {round}: {text}") } else { text.clone() };
    texts.iter().map(of).collect()
}

fn notes_of(columns: &[Shown]) -> Vec<String> {
    let mut notes = Vec::new();
    for Shown { title, column, estimates, .. } in columns {
        let runs = column.runs();
        notes.extend(phases::note(title, runs));
        for run in runs {
            notes.extend(
                round_texts(run.round, &run.warnings, runs.len()).into_iter().map(|text| format!("{title}: {text}")),
            );
            if run.has_faults() {
                let check = run.check;
                let faults = [
                    ("lost", check.lost),
                    ("duplicated", check.duplicated),
                    ("reordered", check.reordered),
                    ("corrupted", check.corrupted),
                    ("refused", check.totals.refused),
                ];
                let faults: Vec<String> = faults
                    .iter()
                    .filter(|(_, count)| *count > 0)
                    .map(|(name, count)| format!("{count} {name}"))
                    .collect();
                notes.push(format!("{title}: messages were {} in round {}", faults.join(", "), run.round));
            }
        }
        if runs.is_empty() {
            notes.push(format!("{title}: a mere distribution, of which no intervals of confidence can be given"));
        } else if estimates.iter().filter_map(|(_, one)| one.as_ref()).all(|one| one.interval.is_none()) {
            notes.push(format!("{title}: too few intervals were measured for intervals of confidence"));
        }
    }
    notes.extend(durability::notes(&columns.iter().flat_map(|shown| shown.column.runs()).collect::<Vec<_>>()));
    notes.extend(unchecked_notes(columns));
    let has_intervals =
        |shown: &&Shown| shown.estimates.iter().flat_map(|(_, one)| one).any(|one| one.interval.is_some());
    let single: Vec<&str> = columns
        .iter()
        .filter(|shown| shown.column.runs().len() == 1)
        .filter(has_intervals)
        .map(|shown| shown.title.as_str())
        .collect();
    if !single.is_empty() {
        notes.push(format!(
            "{}: one round, so the intervals of confidence know nothing of what differs from run to run",
            single.join(", ")
        ));
    }
    let distinct = |of: fn(&Column) -> String| {
        let mut all: Vec<String> =
            columns.iter().map(|shown| of(&shown.column)).filter(|text| !text.is_empty()).collect();
        all.sort();
        all.dedup();
        all
    };
    for (what, of) in [("scenarios", scenario as fn(&Column) -> String), ("rates", rate)] {
        let all = distinct(of);
        if all.len() > 1 {
            notes.push(format!("their {what} differ: {}", all.join(", ")));
        }
    }
    notes
}

/// What was not checked, each with the columns of which it is so.
fn unchecked_notes(columns: &[Shown]) -> Vec<String> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    for Shown { title, column, .. } in columns {
        for sentence in column.runs().iter().flat_map(|run| &run.unchecked) {
            match found.iter_mut().find(|(known, _)| known == sentence) {
                Some((_, titles)) if titles.contains(&title.as_str()) => {}
                Some((_, titles)) => titles.push(title),
                None => found.push((sentence, vec![title])),
            }
        }
    }
    found.into_iter().map(|(sentence, titles)| format!("{}: not checked: {sentence}", titles.join(", "))).collect()
}

impl Table {
    /// Metrics that a column knows, in order.
    pub fn metrics(&self) -> Vec<Metric> {
        // Where nobody writes to disk there is nothing to say of it.
        let says = |metric: &Metric, value: f64| value > 0.0 || !matches!(metric, Metric::Disk | Metric::Amplification);
        let known = |metric: &&Metric| {
            self.columns.iter().any(|column| column.estimate(metric).is_some_and(|one| says(metric, one.value)))
        };
        let all = self.columns[0].estimates.iter().map(|(metric, _)| metric);
        // The rate has a line of its own kind already, and is asked for in conditions only.
        let mut metrics: Vec<Metric> = all.filter(known).filter(|metric| **metric != Metric::Rate).cloned().collect();
        metrics.sort_by(|a, b| order(a).total_cmp(&order(b)));
        metrics
    }

    /// A value with its ratio to the first column's.
    pub fn value(&self, column: usize, metric: &Metric) -> Option<Value> {
        let estimate = self.columns[column].estimate(metric)?;
        let first = if column > 0 { self.columns[0].estimate(metric) } else { None };
        let ratio = first.and_then(|first| estimate.ratio_to(first));
        Some(Value {
            value: estimate.value,
            interval: estimate.interval,
            ratio: ratio.as_ref().map(|ratio| ratio.value),
            ratio_interval: ratio.and_then(|ratio| ratio.interval),
            is_rare: estimate.is_rare,
        })
    }
}

/// Quantiles that were asked for besides the usual ones stand where they belong.
fn order(metric: &Metric) -> f64 {
    match metric {
        Metric::Quantile(_, quantile) => *quantile,
        Metric::Max => 2.0,
        Metric::Mean => 3.0,
        _ => 4.0,
    }
}
