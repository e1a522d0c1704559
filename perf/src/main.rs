//! The program: reads the command line, does it, tells by its exit code how it went.
#![allow(clippy::doc_markdown, reason = "RabbitMQ and LavinMQ are names, not code")]

use std::process::ExitCode;

use clap::Parser;
use lepus_perf::command_line::{Command, CommandLine};
use lepus_perf::{compare, export, run_command, suite, sweep, versus};

fn main() -> ExitCode {
    let outcome = match CommandLine::parse().command {
        Command::Run(command) => run_command::run(&command),
        Command::Sweep(command) => sweep::sweep(&command),
        Command::Versus(command) => versus::versus(&command),
        Command::Suite(command) => suite::suite(&command),
        Command::Compare(options) => return ended(compare::compare(&options)),
        Command::Export(options) => return ended(export::export(&options).map(|()| ExitCode::SUCCESS)),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("lepus-perf: {error}");
        error.code()
    })
}

/// Where a comparison or an export could not be made, the code is 2; 1 is for conditions that do not hold.
fn ended(outcome: Result<ExitCode, impl std::fmt::Display>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("lepus-perf: {error}");
        ExitCode::from(2)
    })
}
