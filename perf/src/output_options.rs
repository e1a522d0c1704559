//! Files that a result is written to, by `run`, `suite` and `export` alike.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::compare::column::{Column, titles};
use crate::plot::{self, Theme};
use crate::result::whole_file::write_whole;
use crate::result::{ResultFile, csv, hgrm, hlog};
use crate::{compare, html};

/// Which files to write. A file is written whole or not at all; `-` is standard output.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Files")]
pub struct OutputOptions {
    /// Write the whole result, which `compare` and `export` read
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a row for each run and interval
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write HdrHistogram's interval log, with a tag for each histogram
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Write the percentile distribution in milliseconds, as HdrHistogram's plotter reads it; further histograms, targets,
    /// scenarios and rates get files with their names beside it
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Draw the percentiles
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Draw the percentiles as pixels
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Write a page with all plots and tables, which needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// How percentiles are drawn.
#[derive(Clone, Debug, Default, Args)]
pub struct PlotOptions {
    /// Histogram: response, service, send-lag, confirm, round-trip [default: the first of them that all have]
    #[arg(long, value_name = "NAME")]
    pub histogram: Option<String>,
    /// Colours of --svg and --png
    #[arg(long, value_enum, default_value = "light", value_name = "THEME")]
    pub theme: Theme,
    /// Logarithmic latencies in --svg and --png
    #[arg(long)]
    pub log_y: bool,
}

/// A file that could not be written.
#[derive(Debug)]
pub struct OutputError {
    /// Which.
    pub path: PathBuf,
    /// A clause for the user.
    pub reason: String,
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for OutputError {}

impl OutputOptions {
    /// Whether no file is asked for.
    pub fn is_empty(&self) -> bool {
        let Self { json, csv, hlog, hgrm, svg, png, html } = self;
        [json, csv, hlog, hgrm, svg, png, html].iter().all(|path| path.is_none())
    }
}

/// Writes the files that are asked for, after all of them have been made.
///
/// # Errors
/// Where one of them cannot be made or written; those before it are written then.
pub fn write_outputs(file: &ResultFile, outputs: &OutputOptions) -> Result<(), OutputError> {
    write_outputs_with(file, outputs, &PlotOptions::default(), "result").map(|_| ())
}

/// As [`write_outputs`], with a say in the plot and a name for titles; returns what was written.
///
/// # Errors
/// As [`write_outputs`].
pub fn write_outputs_with(
    file: &ResultFile,
    outputs: &OutputOptions,
    plot: &PlotOptions,
    name: &str,
) -> Result<Vec<PathBuf>, OutputError> {
    let made = made(file, outputs, plot, name)?;
    for (path, content) in &made {
        write_whole(path, content).map_err(|reason| OutputError { path: path.clone(), reason })?;
    }
    Ok(made.into_iter().map(|(path, _)| path).collect())
}

fn made(
    file: &ResultFile,
    outputs: &OutputOptions,
    plot: &PlotOptions,
    name: &str,
) -> Result<Vec<(PathBuf, Vec<u8>)>, OutputError> {
    let columns = Column::of_runs(name, file.runs.clone());
    let mut made: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    if let Some(path) = &outputs.json {
        made.push((path.clone(), file.to_json().into_bytes()));
    }
    if let Some(path) = &outputs.csv {
        made.push((path.clone(), csv::text(file).into_bytes()));
    }
    if let Some(path) = &outputs.hlog {
        made.push((path.clone(), hlog::text(file).into_bytes()));
    }
    if let Some(path) = &outputs.hgrm {
        made.extend(distributions(&columns, path, plot.histogram.as_deref())?);
    }
    if let Some(path) = outputs.svg.as_ref().or(outputs.png.as_ref()) {
        let fault = |reason| OutputError { path: path.clone(), reason };
        let drawing = plot::percentiles(&columns.iter().collect::<Vec<_>>(), plot).map_err(fault)?;
        made.extend(outputs.svg.clone().map(|path| (path, plot::svg::text(&drawing).into_bytes())));
        made.extend(outputs.png.clone().map(|path| (path, plot::png::octets(&drawing))));
    }
    if let Some(path) = &outputs.html {
        let fault = |reason| OutputError { path: path.clone(), reason };
        let tables = compare::tables(&columns, plot.histogram.as_deref()).map_err(fault)?;
        let origins = [(name.to_owned(), file.origin.clone())];
        made.push((path.clone(), html::page(&columns, &origins, &tables).into_bytes()));
    }
    Ok(made)
}

/// One file for each column and histogram, or for each column where a histogram is asked for.
fn distributions(
    columns: &[Column],
    path: &Path,
    wanted: Option<&str>,
) -> Result<Vec<(PathBuf, Vec<u8>)>, OutputError> {
    let mut files = Vec::new();
    for (column, title) in columns.iter().zip(titles(&columns.iter().collect::<Vec<_>>())) {
        let names: Vec<String> = match wanted {
            Some(name) => vec![name.to_owned()],
            None => column.histogram_names(),
        };
        for (index, name) in names.iter().enumerate() {
            let mut parts = Vec::new();
            parts.extend((columns.len() > 1).then(|| title.clone()));
            parts.extend((index > 0).then(|| name.clone()));
            let Some(recorded) = column.histogram(name) else {
                let reason = format!("{title} has no histogram '{name}'");
                return Err(OutputError { path: path.to_owned(), reason });
            };
            files.push((named(path, &parts), hgrm::text(name, &recorded).into_bytes()));
        }
    }
    if files.is_empty() {
        return Err(OutputError { path: path.to_owned(), reason: "there are no latencies to write".to_owned() });
    }
    Ok(files)
}

/// `run.hgrm` becomes `run.confirm.hgrm`. What is odd in names of files becomes `_`.
fn named(path: &Path, parts: &[String]) -> PathBuf {
    if parts.is_empty() || path == Path::new("-") {
        return path.to_owned();
    }
    let plain = |c: char| if c.is_alphanumeric() || ['-', '_', '.'].contains(&c) { c } else { '_' };
    let parts: Vec<String> = parts.iter().map(|part| part.chars().map(plain).collect()).collect();
    let (stem, parts) = (path.file_stem().unwrap_or_default().to_string_lossy(), parts.join("."));
    path.with_file_name(match path.extension() {
        Some(extension) => format!("{stem}.{parts}.{}", extension.to_string_lossy()),
        None => format!("{stem}.{parts}"),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::result::sample;

    fn all_in(directory: &Path) -> OutputOptions {
        let path = |name: &str| Some(directory.join(name));
        OutputOptions {
            json: path("run.json"),
            csv: path("run.csv"),
            hlog: path("run.hlog"),
            hgrm: path("run.hgrm"),
            svg: path("run.svg"),
            png: path("run.png"),
            html: path("run.html"),
        }
    }

    /// Goal: each kind of file is written, nothing else, and what can be read is read back.
    ///
    /// `LEPUS_PERF_SAMPLES` names a directory that keeps them, for `tests/results`.
    #[test]
    fn each_kind_is_written() {
        let temporary = tempfile::tempdir().expect("a directory");
        let kept = std::env::var_os("LEPUS_PERF_SAMPLES").map(PathBuf::from);
        let directory = kept.as_deref().unwrap_or(temporary.path());
        write_outputs(&sample::two_brokers(3), &all_in(directory)).expect("written");
        let one = OutputOptions { json: Some(directory.join("one.json")), ..OutputOptions::default() };
        write_outputs(&sample::one_broker(1.1), &one).expect("written");
        for name in ["run.json", "run.hlog", "run.lepus.hgrm", "run.rabbitmq.confirm.hgrm", "one.json"] {
            let (columns, _) =
                crate::compare::column::load(&directory.join(name), crate::compare::column::ForeignUnits::default())
                    .expect(name);
            assert!(!columns.is_empty());
        }
        let count = fs::read_dir(directory).expect("there").count();
        assert_eq!(count, 7 + 8, "a .hgrm file for each of two brokers and four histograms");
    }

    #[test]
    fn further_files_are_named_after_the_first() {
        let check = |path: &str, parts: &[&str], expected: &str| {
            let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            assert_eq!(named(Path::new(path), &parts), Path::new(expected));
        };
        check("/a/run.hgrm", &["confirm"], "/a/run.confirm.hgrm");
        check("run", &["confirm"], "run.confirm");
        check("run.hgrm", &["a/b c", "confirm"], "run.a_b_c.confirm.hgrm");
    }

    /// Goal: nothing is written where a plot cannot be made.
    #[test]
    fn all_are_made_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let plot = PlotOptions { histogram: Some("round-trip".to_owned()), ..PlotOptions::default() };
        let error =
            write_outputs_with(&sample::one_broker(1.0), &all_in(directory.path()), &plot, "x").expect_err("refused");
        assert!(error.to_string().contains("no histogram 'round-trip'"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0);
    }
}
