//! `lepus-perf export`: a kept result in any other format.

use std::path::PathBuf;

use clap::Args;

use crate::output_options::{OutputError, OutputOptions, PlotOptions, write_outputs_with};
use crate::result::{FileError, ResultFile};

/// `lepus-perf export`.
#[derive(Clone, Debug, Args)]
pub struct ExportOptions {
    /// Result, as --json has written it
    #[arg(value_name = "RESULT")]
    file: PathBuf,
    /// Only runs of this scenario; may be given several times
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<String>,
    #[command(flatten)]
    outputs: OutputOptions,
    #[command(flatten)]
    plot: PlotOptions,
}

/// Why nothing was exported.
#[derive(Debug)]
pub enum ExportError {
    /// The result cannot be read.
    File(FileError),
    /// A file cannot be made or written.
    Output(OutputError),
    /// A scenario is not in it; a sentence.
    Scenario(String),
    /// No file is asked for.
    Nothing,
}

impl std::fmt::Display for ExportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Output(error) => error.fmt(f),
            Self::Scenario(reason) => f.write_str(reason),
            Self::Nothing => f.write_str(
                "what to write? Give --csv, --hlog, --hgrm, --svg, --png, --html or --json with the name of a file",
            ),
        }
    }
}

impl std::error::Error for ExportError {}

/// Writes the files that are asked for, and says on standard error which.
///
/// # Errors
/// Where the result cannot be read, or a file cannot be made or written.
pub fn export(options: &ExportOptions) -> Result<(), ExportError> {
    if options.outputs.is_empty() {
        return Err(ExportError::Nothing);
    }
    let mut file = ResultFile::read(&options.file).map_err(ExportError::File)?;
    let scenarios: Vec<&str> = file.runs.iter().map(|run| run.scenario.as_str()).collect();
    check_scenarios(&options.only, &scenarios).map_err(ExportError::Scenario)?;
    file.runs.retain(|run| options.only.is_empty() || options.only.contains(&run.scenario));
    let name = options.file.with_extension("").to_string_lossy().into_owned();
    let written = write_outputs_with(&file, &options.outputs, &options.plot, &name).map_err(ExportError::Output)?;
    for path in written.iter().filter(|path| path.as_os_str() != "-") {
        eprintln!("lepus-perf: wrote {}", path.display());
    }
    Ok(())
}

/// Whether each scenario that is asked for is there.
///
/// # Errors
/// A sentence that names those that are.
pub fn check_scenarios(only: &[String], there: &[&str]) -> Result<(), String> {
    let Some(unknown) = only.iter().find(|only| !there.contains(&only.as_str())) else { return Ok(()) };
    let mut names: Vec<&str> = Vec::new();
    there.iter().filter(|name| !name.is_empty()).for_each(|name| {
        if !names.contains(name) {
            names.push(name);
        }
    });
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Err(format!("--only {unknown}: there is no such scenario; there are {names}"))
}
