//! The commands of `lepus-perf`.

use clap::{Args, Parser, Subcommand};

use crate::compare::CompareOptions;
use crate::exit::EXIT_CODES;
use crate::export::ExportOptions;
use crate::options::RunOptions;
use crate::output_options::OutputOptions;
use crate::suite::SuiteCommand;
use crate::sweep::SweepCommand;
use crate::versus::VersusCommand;
use crate::view::options::ViewOptions;

/// A load generator for AMQP 0-9-1 brokers: Lepus, RabbitMQ, LavinMQ.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one workload: a live view on standard error, the result on standard output
    Run(Box<RunCommand>),
    /// Find the highest rate that keeps objectives such as p99.9<5ms
    Sweep(Box<SweepCommand>),
    /// Run one workload against several brokers in turn, and show them side by side
    Versus(Box<VersusCommand>),
    /// Run the scenarios of a file
    Suite(Box<SuiteCommand>),
    /// Compare the latencies and rates of runs: side by side, with ratios to the first and intervals of confidence
    Compare(CompareOptions),
    /// Write a kept result in another format: CSV, HdrHistogram's, SVG, PNG, HTML
    Export(ExportOptions),
}

/// `lepus-perf run`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct RunCommand {
    /// The workload.
    #[command(flatten)]
    pub run: RunOptions,
    /// What is shown meanwhile.
    #[command(flatten)]
    pub view: ViewOptions,
    /// What is to become of its result.
    #[command(flatten)]
    pub output: OutputOptions,
}
