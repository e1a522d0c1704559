//! `lepus-perf compare`: files side by side, with ratios to the first, intervals of confidence, and conditions that fail.

mod bootstrap;
pub mod column;
mod condition;
mod durability;
mod metric;
mod phases;
mod table;
mod text;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value as Json, json};

use crate::export::check_scenarios;
use crate::output_options::{OutputError, PlotOptions};
use crate::result::whole_file::write_whole;
use crate::result::{FileError, Origin};
use crate::units::parse_duration;
use crate::{html, plot};
use column::{Column, ForeignUnits};
use condition::{Certainty, Condition};
use metric::Metric;
pub use table::Table;
pub use text::{Look, table_text};

/// Exit code where a condition of `--fail-if` holds.
const EXIT_CONDITION: u8 = 1;

/// `lepus-perf compare`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Files: results of lepus-perf (.json), interval logs (.hlog) and percentile distributions (.hgrm) of any tool.

Rounds of the same scenario, target and rate in a file count as one. Ratios are to the first column. \
Intervals in brackets hold the true value with 95 % confidence; they come from drawing rounds and intervals of them anew. \
They are too narrow where there are only few rounds. Rounds of several columns of one file are drawn together, since they \
were made side by side.

Exit code: 0; 1 where a condition of --fail-if holds; 2 for a wrong command line, a file that cannot be read, or a condition \
that could not be judged: because nothing is known, because a run is INVALID or has failed (unless --allow-invalid), or \
because --fail-if-sure finds no interval of confidence.")]
pub struct CompareOptions {
    /// Files; the first is what the others are compared with
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only this scenario; may be given several times. Files that name no scenarios are compared with each
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<String>,
    #[command(flatten)]
    plot: PlotOptions,
    /// Exit with 1 where this holds, such as 'p99>+5%' (relative to the first), 'p99.9>5ms', 'max>1.5x', 'rate<100k',
    /// 'per-cpu<-10%', 'disk>+5%' (octets written for a message), 'amplification>1.5'; may be given several times. Absolute limits are for every file, the first included
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Condition>,
    /// Conditions hold only where the whole interval of confidence is beyond the limit; by default where the value is
    #[arg(long)]
    fail_if_sure: bool,
    /// Judge conditions also by runs that are INVALID or have failed
    #[arg(long)]
    allow_invalid: bool,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
    /// Draw the percentiles of all files into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The same as pixels
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Write a page with plots and tables of all files, which needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Unit of values in .hgrm files: ns, us, ms, s
    #[arg(long, value_name = "UNIT", default_value = "ms", value_parser = parse_unit)]
    hgrm_unit: f64,
    /// Unit of values in .hlog files: ns, us, ms, s
    #[arg(long, value_name = "UNIT", default_value = "ns", value_parser = parse_unit)]
    hlog_unit: f64,
    /// How often to draw for the intervals of confidence; 0: none are given
    #[arg(long, value_name = "N", default_value_t = 2000)]
    draws: usize,
    /// What is drawn follows from this number
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn parse_unit(text: &str) -> Result<f64, String> {
    parse_duration(&format!("1{text}")).ok_or_else(|| "one of ns, us, ms, s".to_owned())
}

/// Why files were not compared.
#[derive(Debug)]
pub enum CompareError {
    /// A file that cannot be read.
    File(FileError),
    /// A file that cannot be written.
    Output(OutputError),
    /// What is asked for cannot be had; a sentence.
    Impossible(String),
}

impl std::fmt::Display for CompareError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Output(error) => error.fmt(f),
            Self::Impossible(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for CompareError {}

impl From<FileError> for CompareError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// Prints the tables on standard output, and writes the files that are asked for.
///
/// # Errors
/// Where a file cannot be read or written, or a condition could not be judged.
pub fn compare(options: &CompareOptions) -> Result<ExitCode, CompareError> {
    let units = ForeignUnits { hgrm_nanos: options.hgrm_unit, hlog_nanos: options.hlog_unit };
    let (mut columns, mut origins): (Vec<Column>, Vec<(String, Origin)>) = (Vec::new(), Vec::new());
    for path in &options.files {
        let (found, origin) = column::load(path, units)?;
        origins.extend(origin.map(|origin| (path.display().to_string(), origin)));
        columns.extend(found);
    }
    let scenarios: Vec<&str> = columns.iter().map(|column| column.scenario.as_str()).collect();
    check_scenarios(&options.only, &scenarios).map_err(CompareError::Impossible)?;
    columns.retain(|column| {
        options.only.is_empty() || column.scenario.is_empty() || options.only.contains(&column.scenario)
    });
    let metrics: Vec<Metric> = options.fail_if.iter().map(|condition| condition.metric.clone()).collect();
    let tables = table::tables_of(&columns, options.plot.histogram.as_deref(), &metrics, options.draws, options.seed)
        .map_err(CompareError::Impossible)?;
    let (judged, unjudged) = judge(options, &tables);
    let printed = if options.json {
        format!("{}\n", serde_json::to_string_pretty(&json_of(&tables, &judged)).expect("numbers and texts"))
    } else {
        let look = look();
        tables.iter().map(|table| text::table_text(table, look)).collect::<Vec<_>>().join("\n")
    };
    write_files(options, &columns, &origins, &tables)?;
    match io::stdout().lock().write_all(printed.as_bytes()) {
        // Who reads has seen enough, such as `head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        outcome => outcome.map_err(|error| CompareError::Impossible(format!("standard output: {error}")))?,
    }
    for sentence in &judged {
        eprintln!("lepus-perf: failed: {sentence}");
    }
    if !unjudged.is_empty() {
        return Err(CompareError::Impossible(format!("--fail-if cannot be judged: {}", unjudged.join("; "))));
    }
    Ok(if judged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONDITION) })
}

/// Sentences of the conditions that hold, and of those that cannot be judged though they have to be.
fn judge(options: &CompareOptions, tables: &[Table]) -> (Vec<String>, Vec<String>) {
    let certainty = Certainty { is_sure: options.fail_if_sure, is_invalid_allowed: options.allow_invalid };
    let (mut failures, mut fatal) = (Vec::new(), Vec::new());
    for condition in &options.fail_if {
        let mut judged_count = 0;
        let mut unjudged = Vec::new();
        for table in tables {
            let outcome = condition.judge(table, certainty);
            judged_count += outcome.judged_count;
            failures.extend(outcome.failures);
            unjudged.extend(outcome.unjudged);
            fatal.extend(outcome.untrusted);
        }
        if judged_count == 0 {
            fatal.append(&mut unjudged);
        }
        unjudged.iter().for_each(|sentence| eprintln!("lepus-perf: not judged: {sentence}"));
    }
    (failures, fatal)
}

/// As wide, and as coloured, as standard output is.
pub fn look() -> Look {
    let is_terminal = io::stdout().is_terminal();
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let has_colours =
        is_terminal && variable("NO_COLOR").is_none() && variable("TERM").is_none_or(|term| term != "dumb");
    let columns = variable("COLUMNS").and_then(|text| text.parse().ok());
    let window = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    let width = columns.or_else(|| if is_terminal { window() } else { None }).filter(|&width| width > 0);
    Look { width, has_colours }
}

fn write_files(
    options: &CompareOptions,
    columns: &[Column],
    origins: &[(String, Origin)],
    tables: &[Table],
) -> Result<(), CompareError> {
    let write = |path: &PathBuf, content: &[u8]| {
        let fault = |reason| CompareError::Output(OutputError { path: path.clone(), reason });
        write_whole(path, content).map_err(fault)
    };
    if options.svg.is_some() || options.png.is_some() {
        let drawing =
            plot::percentiles(&columns.iter().collect::<Vec<_>>(), &options.plot).map_err(CompareError::Impossible)?;
        if let Some(path) = &options.svg {
            write(path, plot::svg::text(&drawing).as_bytes())?;
        }
        if let Some(path) = &options.png {
            write(path, &plot::png::octets(&drawing))?;
        }
    }
    if let Some(path) = &options.html {
        write(path, html::page(columns, origins, tables).as_bytes())?;
    }
    Ok(())
}

/// What `--json` prints, and what the page shows as tables.
pub fn json_of(tables: &[Table], failures: &[String]) -> Json {
    let column = |table: &Table, index: usize| {
        let shown = &table.columns[index];
        let values: serde_json::Map<String, Json> = table
            .metrics()
            .iter()
            .map(|metric| (metric.name().to_owned(), json!(table.value(index, metric))))
            .collect();
        let column = &shown.column;
        json!({
            "title": shown.title, "file": column.file, "scenario": column.scenario, "target": column.target,
            "rate": column.rate, "rounds": column.runs().len(), "invalid": shown.invalid,
            "failures": shown.failures, "values": values,
        })
    };
    let table = |table: &Table| {
        json!({
            "heading": table.heading, "histogram": table.histogram, "notes": table.notes,
            "metrics": table.metrics().iter().map(|metric| json!({
                "name": metric.name(), "unit": if metric.is_latency() { "ns" } else { metric.unit().trim() },
                "is_cost": metric.is_cost(),
            })).collect::<Vec<_>>(),
            "columns": (0..table.columns.len()).map(|index| column(table, index)).collect::<Vec<_>>(),
        })
    };
    json!({ "schema": "lepus-perf-compare/1", "tables": tables.iter().map(table).collect::<Vec<_>>(), "failures": failures })
}

/// Tables for a page that shows files without comparing them by conditions.
///
/// # Errors
/// Where the histogram that is asked for is not there.
pub fn tables(columns: &[Column], histogram: Option<&str>) -> Result<Vec<Table>, String> {
    table::tables_of(columns, histogram, &[], 1000, 1)
}
