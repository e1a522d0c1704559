//! Result files as CSV: a row for each run (`kind` is `run`, measured time only), followed by one for each of its intervals
//! (`kind` is `interval`). `FORMAT.md` names the columns. Rates are a second; a field that does not apply is empty.

use std::collections::BTreeSet;

use super::quantile::QUANTILES;
use super::{Check, Counts, Interval, Recorded, ResultFile, Run, histogram};

const CONTEXT: [&str; 10] =
    ["kind", "scenario", "target", "product", "version", "rate", "round", "start_seconds", "seconds", "is_warm_up"];
const COUNTS: [&str; 10] = [
    "published",
    "published_octets",
    "confirmed",
    "refused",
    "returned",
    "received",
    "acknowledged",
    "requeued",
    "rejected",
    "operations",
];
const RATES: [&str; 4] =
    ["published_per_second", "confirmed_per_second", "received_per_second", "operations_per_second"];
const BROKER: [&str; 5] =
    ["backlog", "broker_cpu_seconds", "broker_resident_octets", "broker_disk_octets", "broker_write_calls"];
const RUN: [&str; 6] = ["lost", "duplicated", "reordered", "corrupted", "client_cpu_seconds", "invalid"];

/// The whole file, with a line of names first.
pub fn text(file: &ResultFile) -> String {
    let names = histogram_names(&file.runs);
    let mut text = String::new();
    let fixed = [CONTEXT.as_slice(), &COUNTS, &RATES, &BROKER, &RUN].concat();
    let mut header: Vec<String> = fixed.into_iter().map(str::to_owned).collect();
    for name in &names {
        header.push(format!("{name}_count"));
        header.extend(QUANTILES.map(|(quantile, _)| format!("{name}_{quantile}_nanos")));
        header.push(format!("{name}_max_nanos"));
    }
    push_row(&mut text, &header);
    for run in &file.runs {
        push_row(&mut text, &run_row(run, &names));
        run.intervals.iter().for_each(|interval| push_row(&mut text, &interval_row(run, interval, &names)));
    }
    text
}

/// In the order in which they are shown, then others by name.
fn histogram_names(runs: &[Run]) -> Vec<String> {
    let mut others: BTreeSet<&String> =
        runs.iter().flat_map(|run| &run.intervals).flat_map(|interval| interval.histograms.keys()).collect();
    let mut names: Vec<String> =
        histogram::ALL.iter().map(|(name, _)| (*name).to_owned()).filter(|name| others.remove(name)).collect();
    names.extend(others.into_iter().cloned());
    names
}

fn run_row(run: &Run, names: &[String]) -> Vec<String> {
    let (counts, seconds) = run.measured_counts();
    let start = run.measured().next().map_or(0.0, |interval| interval.start_seconds);
    let mut row = context(run, "run", start, seconds, "");
    push_counts(&mut row, counts, seconds);
    row.push(run.measured().last().map_or_else(String::new, |interval| interval.backlog.to_string()));
    row.push(run.broker.map_or_else(String::new, |broker| broker.cpu_seconds.to_string()));
    row.push(run.broker.map_or_else(String::new, |broker| broker.resident_octets_max.to_string()));
    row.push(number(run.broker.and_then(|broker| broker.disk_octets)));
    row.push(number(run.broker.and_then(|broker| broker.write_calls)));
    let Check { lost, duplicated, reordered, corrupted, .. } = run.check;
    row.extend([lost, duplicated, reordered, corrupted].map(|count| count.to_string()));
    row.extend([run.client_cpu_seconds.to_string(), run.invalid.join("; ")]);
    names.iter().for_each(|name| push_latencies(&mut row, run.histogram(name).as_ref()));
    row
}

fn interval_row(run: &Run, interval: &Interval, names: &[String]) -> Vec<String> {
    let is_warm_up = if interval.is_warm_up { "true" } else { "false" };
    let mut row = context(run, "interval", interval.start_seconds, interval.seconds, is_warm_up);
    push_counts(&mut row, interval.counts, interval.seconds);
    row.push(interval.backlog.to_string());
    row.push(interval.broker_cpu_seconds.map_or_else(String::new, |seconds| seconds.to_string()));
    row.push(number(interval.broker_resident_octets));
    row.push(number(interval.broker_disk_octets));
    row.push(number(interval.broker_write_calls));
    row.extend(RUN.map(|_| String::new()));
    names.iter().for_each(|name| push_latencies(&mut row, interval.histograms.get(name)));
    row
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn context(run: &Run, kind: &str, start_seconds: f64, seconds: f64, is_warm_up: &str) -> Vec<String> {
    vec![
        kind.to_owned(),
        run.scenario.clone(),
        run.target.name.clone(),
        run.target.product.clone(),
        run.target.version.clone(),
        run.rate.map_or_else(String::new, |rate| rate.to_string()),
        run.round.to_string(),
        start_seconds.to_string(),
        seconds.to_string(),
        is_warm_up.to_owned(),
    ]
}

fn push_counts(row: &mut Vec<String>, counts: Counts, seconds: f64) {
    let Counts {
        published,
        published_octets,
        confirmed,
        refused,
        returned,
        received,
        acknowledged,
        requeued,
        rejected,
        operations,
    } = counts;
    let taken = [received, acknowledged, requeued, rejected, operations];
    let all = [published, published_octets, confirmed, refused, returned].into_iter().chain(taken);
    row.extend(all.map(|count| count.to_string()));
    let rate = |count: u64| if seconds > 0.0 { format!("{:.3}", count as f64 / seconds) } else { String::new() };
    row.extend([published, confirmed, received, operations].map(rate));
}

fn push_latencies(row: &mut Vec<String>, recorded: Option<&Recorded>) {
    match recorded.filter(|recorded| !recorded.is_empty()) {
        Some(Recorded(histogram)) => {
            row.push(histogram.len().to_string());
            row.extend(QUANTILES.map(|(_, quantile)| histogram.value_at_quantile(quantile).to_string()));
            row.push(histogram.max().to_string());
        }
        None => row.extend(std::iter::once("0".to_owned()).chain(vec![String::new(); QUANTILES.len() + 1])),
    }
}

/// Quoted as RFC 4180 says. What a spreadsheet would take for a formula gets a quote before it.
fn push_row(text: &mut String, fields: &[String]) {
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        let is_formula =
            field.starts_with(['=', '+', '@', '\t']) || (field.starts_with('-') && field.parse::<f64>().is_err());
        let field = if is_formula { format!("'{field}") } else { field.clone() };
        if field.contains([',', '"', '\n', '\r']) {
            text.push('"');
            text.push_str(&field.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(&field);
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// Goal: each run and interval has its row, with as many fields as names, and the right numbers.
    #[test]
    fn rows() {
        let file = sample::two_brokers(2);
        let text = text(&file);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 1 + 4 * 21);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
        let field = |line: usize, name: &str| {
            lines[line][lines[0].iter().position(|own| *own == name).expect("a column")].to_owned()
        };
        assert_eq!(
            (field(1, "kind"), field(2, "kind"), field(2, "is_warm_up")),
            ("run".into(), "interval".into(), "true".into())
        );
        let right = file.runs[0].histogram("response").expect("there").0.value_at_quantile(0.999);
        assert_eq!(field(1, "response_p99.9_nanos"), right.to_string());
        assert_eq!(field(1, "received"), file.runs[0].measured_counts().0.received.to_string());
    }

    /// Goal: commas, quotes and formulas in names do no harm.
    #[test]
    fn quoting() {
        let check = |field: &str, expected: &str| {
            let mut text = String::new();
            push_row(&mut text, &["x".to_owned(), field.to_owned()]);
            assert_eq!(text, format!("x,{expected}\n"));
        };
        check("a,\"b\"", "\"a,\"\"b\"\"\"");
        check("=1+1", "'=1+1");
        check("-5", "-5");
        check("-x", "'-x");
    }

    /// Goal: FORMAT.md names the columns.
    #[test]
    fn each_column_is_described() {
        let document = include_str!("../../FORMAT.md");
        for name in [CONTEXT.as_slice(), &COUNTS, &RATES, &BROKER, &RUN].concat() {
            assert!(document.contains(&format!("`{name}`")), "{name}");
        }
    }
}
