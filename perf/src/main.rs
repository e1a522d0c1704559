//! The program: reads the command line, does it, tells by its exit code how it went: 0 all right, 1 something was not, 2
//! the command line is wrong.
#![allow(clippy::doc_markdown, reason = "RabbitMQ and LavinMQ are names, not code")]

use std::process::ExitCode;

use clap::Parser;
use lepus_perf::interrupt;
use lepus_perf::options::{Command, CommandLine, RunCommand};
use lepus_perf::result::{Origin, ResultFile, SCHEMA};
use lepus_perf::run::{Labels, RunError, measure};
use lepus_perf::table;

fn main() -> ExitCode {
    let Command::Run(command) = CommandLine::parse().command;
    match run(&command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lepus-perf: {error}");
            if matches!(error, RunError::Options(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: &RunCommand) -> Result<ExitCode, RunError> {
    interrupt::listen().map_err(|error| RunError::System("listening to signals".to_owned(), error))?;
    let origin = Origin::here(std::env::args());
    let labels = Labels { scenario: "run".to_owned(), target_name: None, round: 0 };
    let run = measure(&command.run, &labels, &mut |interval| {
        if !command.output.quiet {
            eprintln!("{}", table::line(interval));
        }
    })?;
    print!("{}", table::of_run(&run));
    let is_right = run.is_right();
    if let Some(path) = &command.output.json {
        let file = ResultFile { schema: SCHEMA.to_owned(), origin, runs: vec![run] };
        let mut text = serde_json::to_string(&file).expect("a result has no maps with odd keys");
        text.push('\n');
        std::fs::write(path, text).map_err(|error| RunError::System(format!("writing {}", path.display()), error))?;
    }
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
