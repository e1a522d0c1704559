//! Files that a result is written to, by `run`, `suite` and `export` alike.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::compare::column::{Column, titles};
use crate::plot::{self, Theme};
use crate::result::whole_file::{place, write_whole};
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

    /// Whether one of them is standard output.
    pub fn has_stdout(&self) -> bool {
        self.paths().any(|path| path == Path::new("-"))
    }

    /// Looks whether there is a place for each of them, which is better known before hours of measuring than after.
    ///
    /// # Errors
    /// Where there is none: a sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        if self.paths().filter(|path| *path == Path::new("-")).count() > 1 {
            return Err("only one file can be standard output ('-')".to_owned());
        }
        let mut places = self.paths().map(|path| (path, place(path)));
        match places.find_map(|(path, place)| place.err().map(|reason| (path, reason))) {
            Some((path, reason)) => Err(format!("{}: {reason}", path.display())),
            None => Ok(()),
        }
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let Self { json, csv, hlog, hgrm, svg, png, html } = self;
        [json, csv, hlog, hgrm, svg, png, html].into_iter().filter_map(|path| path.as_deref())
    }
}

/// Writes the files that are asked for: a result that was just measured. What cannot be made or written is returned, and does not
/// keep the others from being written.
pub fn write_outputs(file: &ResultFile, outputs: &OutputOptions) -> Vec<OutputError> {
    let write = |(path, content): (PathBuf, Vec<u8>)| {
        write_whole(&path, &content).map_err(|reason| OutputError { path, reason })
    };
    made(file, outputs, &PlotOptions::default(), "result")
        .into_iter()
        .filter_map(|made| made.and_then(write).err())
        .collect()
}

/// Writes the files that are asked for, after all of them have been made, with a say in the plot and a name for titles. Returns
/// what was written.
///
/// # Errors
/// Where one of them cannot be made or written; those before it are written then.
pub fn write_outputs_with(
    file: &ResultFile,
    outputs: &OutputOptions,
    plot: &PlotOptions,
    name: &str,
) -> Result<Vec<PathBuf>, OutputError> {
    let made = made(file, outputs, plot, name).into_iter().collect::<Result<Vec<_>, _>>()?;
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
) -> Vec<Result<(PathBuf, Vec<u8>), OutputError>> {
    let columns = Column::of_runs(name, file.runs.clone());
    let mut made = Vec::new();
    if let Some(path) = &outputs.json {
        made.push(Ok((path.clone(), file.to_json().into_bytes())));
    }
    if let Some(path) = &outputs.csv {
        made.push(Ok((path.clone(), csv::text(file).into_bytes())));
    }
    if let Some(path) = &outputs.hlog {
        made.push(Ok((path.clone(), hlog::text(file).into_bytes())));
    }
    if let Some(path) = &outputs.hgrm {
        match distributions(&columns, path, plot.histogram.as_deref()) {
            Ok(files) => made.extend(files.into_iter().map(Ok)),
            Err(error) => made.push(Err(error)),
        }
    }
    if let Some(path) = outputs.svg.as_ref().or(outputs.png.as_ref()) {
        match plot::percentiles(&columns.iter().collect::<Vec<_>>(), plot) {
            Ok(drawing) => {
                made.extend(outputs.svg.clone().map(|path| Ok((path, plot::svg::text(&drawing).into_bytes()))));
                made.extend(outputs.png.clone().map(|path| Ok((path, plot::png::octets(&drawing)))));
            }
            Err(reason) => made.push(Err(OutputError { path: path.clone(), reason })),
        }
    }
    if let Some(path) = &outputs.html {
        let origins = [(name.to_owned(), file.origin.clone())];
        let page = compare::tables(&columns, plot.histogram.as_deref())
            .map(|tables| (path.clone(), html::page(&columns, &origins, &tables).into_bytes()));
        made.push(page.map_err(|reason| OutputError { path: path.clone(), reason }));
    }
    made
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
        assert!(write_outputs(&sample::two_brokers(3), &all_in(directory)).is_empty());
        let one = OutputOptions { json: Some(directory.join("one.json")), ..OutputOptions::default() };
        assert!(write_outputs(&sample::one_broker(1.1), &one).is_empty());
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

    /// Goal: what was measured is kept, whatever else cannot be written. Method: no place for one file, no latencies for others.
    #[test]
    fn what_can_be_written_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut file = sample::one_broker(1.0);
        file.runs[0].intervals.iter_mut().for_each(|interval| interval.histograms.clear());
        let csv = Some(directory.path().join("nowhere/run.csv"));
        let outputs = OutputOptions { csv, ..all_in(directory.path()) };
        assert!(outputs.check().expect_err("refused").contains("there is no directory"));
        let unwritten: Vec<PathBuf> = write_outputs(&file, &outputs).into_iter().map(|error| error.path).collect();
        for name in ["nowhere/run.csv", "run.hgrm", "run.svg"] {
            assert!(unwritten.contains(&directory.path().join(name)), "{name} of {unwritten:?}");
        }
        assert!(directory.path().join("run.json").exists() && directory.path().join("run.hlog").exists());
    }

    /// Goal: nothing is written where a plot cannot be made of results that are kept elsewhere.
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
