//! `lepus-perf compare`: quantiles of several runs side by side, with their ratios to the first.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;

use crate::hgrm::Distribution;
use crate::latency::QUANTILES;
use crate::options::CompareOptions;
use crate::report::FORMAT;
use crate::report_table::duration_text;

/// A file that cannot be compared.
#[derive(Debug)]
pub struct FileError {
    path: PathBuf,
    /// From 1; `None` where it is about the whole.
    line: Option<usize>,
    reason: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.reason)
    }
}

impl std::error::Error for FileError {}

/// The part of a JSON report that is compared.
#[derive(Deserialize)]
struct JsonReport {
    lepus_perf_format: u32,
    latencies: Vec<JsonLatency>,
}

#[derive(Deserialize)]
struct JsonLatency {
    name: String,
    max_nanos: u64,
    quantiles_nanos: Vec<(String, u64)>,
}

/// One histogram of one file.
#[derive(Debug, PartialEq)]
struct Column {
    /// In nanoseconds, in the order of [`QUANTILES`] and then the maximum.
    values: Vec<Option<u64>>,
}

/// A file's histograms by name; those in `.hgrm` files of other tools have none.
struct Run {
    title: String,
    columns: Vec<(String, Column)>,
}

/// Prints the tables.
///
/// # Errors
/// Where a file cannot be read.
pub fn compare(options: &CompareOptions) -> Result<ExitCode, FileError> {
    let runs = options.files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    print!("{}", tables(&runs));
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Run, FileError> {
    let fault = |line, reason: String| FileError { path: path.to_owned(), line, reason };
    let text = fs::read_to_string(path).map_err(|error| fault(None, error.to_string()))?;
    let title = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    if text.trim_start().starts_with('{') {
        let report: JsonReport = serde_json::from_str(&text)
            .map_err(|error| fault(Some(error.line()), format!("no report of lepus-perf: {error}")))?;
        if report.lepus_perf_format != FORMAT {
            let reason = format!("format {} is not {FORMAT}, the one known here", report.lepus_perf_format);
            return Err(fault(None, reason));
        }
        return Ok(Run { title, columns: report.latencies.into_iter().map(json_column).collect() });
    }
    let distribution = Distribution::parse(&text).map_err(|(line, reason)| fault(Some(line), reason.to_owned()))?;
    let quantiles = QUANTILES.iter().map(|(_, quantile)| *quantile).chain([1.0]);
    let values = quantiles.map(|quantile| distribution.nanos_at(quantile)).collect();
    Ok(Run { title, columns: vec![(distribution.name, Column { values })] })
}

fn json_column(latency: JsonLatency) -> (String, Column) {
    let value = |wanted: &str| latency.quantiles_nanos.iter().find(|(name, _)| name == wanted).map(|(_, nanos)| *nanos);
    let values = QUANTILES.iter().map(|(name, _)| value(name)).chain([Some(latency.max_nanos)]).collect();
    (latency.name, Column { values })
}

/// One table for each name of a histogram, in the order of their first appearance. Nameless ones stand in every table.
fn tables(runs: &[Run]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in runs.iter().flat_map(|run| &run.columns) {
        if !name.is_empty() && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    if names.is_empty() {
        names.push("");
    }
    let mut text = String::new();
    for name in names {
        let columns: Vec<(&str, &Column)> = runs
            .iter()
            .flat_map(|run| run.columns.iter().map(|(name, column)| (run.title.as_str(), name, column)))
            .filter(|(_, own, _)| own.is_empty() || own.as_str() == name)
            .map(|(title, _, column)| (title, column))
            .collect();
        if !text.is_empty() {
            text.push('\n');
        }
        table(&mut text, name, &columns);
    }
    text
}

const FITS: &str = "a string takes any text";

fn table(text: &mut String, name: &str, columns: &[(&str, &Column)]) {
    let width = columns.iter().map(|(title, _)| title.chars().count()).max().unwrap_or(0).max(10) + 2;
    write!(text, "{:<10}", if name.is_empty() { "latency" } else { name }).expect(FITS);
    for (index, (title, _)) in columns.iter().enumerate() {
        write!(text, "{title:>width$}{}", if index == 0 { "" } else { "   ratio" }).expect(FITS);
    }
    text.push('\n');
    let rows = QUANTILES.iter().map(|(name, _)| *name).chain(["max"]);
    for (row, name) in rows.enumerate() {
        write!(text, "{name:<10}").expect(FITS);
        let first = columns[0].1.values[row];
        for (index, (_, column)) in columns.iter().enumerate() {
            let value = column.values[row];
            write!(text, "{:>width$}", value.map_or_else(|| "-".to_owned(), duration_text)).expect(FITS);
            if index > 0 {
                write!(text, "{:>8}", ratio_text(value, first)).expect(FITS);
            }
        }
        text.push('\n');
    }
}

#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
fn ratio_text(value: Option<u64>, first: Option<u64>) -> String {
    match (value, first) {
        (Some(value), Some(first @ 1..)) => format!("{:.2}x", value as f64 / first as f64),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(title: &str, name: &str, values: [u64; 7]) -> Run {
        let values = values.map(Some).to_vec();
        Run { title: title.to_owned(), columns: vec![(name.to_owned(), Column { values })] }
    }

    #[test]
    fn ratios_are_to_the_first() {
        let text = tables(&[run("a.json", "response", [1000; 7]), run("b.json", "response", [2500; 7])]);
        let line = text.lines().find(|line| line.starts_with("p99 ")).expect("a line for p99");
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["p99", "1.00", "us", "2.50", "us", "2.50x"]);
        assert_eq!(text.lines().count(), 8);
    }

    /// Goal: histograms of equal name stand together; one without a name stands beside each.
    #[test]
    fn one_table_for_each_name() {
        let text = tables(&[run("a", "response", [1; 7]), run("b", "confirm", [2; 7]), run("c", "", [3; 7])]);
        let titles: Vec<Vec<&str>> =
            text.lines().filter(|line| line.contains("ratio")).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(titles, [["response", "a", "c", "ratio"], ["confirm", "b", "c", "ratio"]]);
    }

    /// Goal: what is no report is refused by file, line and reason.
    #[test]
    fn foreign_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let check = |text: &str, expected: &str| {
            let path = directory.path().join("file");
            fs::write(&path, text).expect("written");
            let fault = read(&path).err().expect("refused").to_string();
            assert!(fault.contains(expected), "{fault}");
        };
        check("{\n\"a\": }", "file:2: no report");
        check("{}", "file:1: no report");
        check("{\"lepus_perf_format\": 99, \"latencies\": []}", "format 99");
        check("1 0.5 1 2\nhello\n", "file:2: not a line");
        assert!(read(Path::new("/nonexistent/x")).is_err());
    }
}
