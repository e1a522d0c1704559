//! `lepus-perf`, a load generator for AMQP 0-9-1 brokers: Lepus, RabbitMQ, LavinMQ.
//!
//! The way of a run: [`options`] says what is asked for, [`topology`] declares it, [`run`] starts a thread for each
//! [`producer`] and [`consumer`], samples their counters ([`progress`]) once a second and ends them. A producer stamps
//! each body with its number and times ([`stamp`]); a consumer reads the stamp, checks the order ([`sequence`]) and
//! records latencies ([`latency`]). [`report`] is what comes of it, [`hgrm`] and [`compare`] deal in files of it.
//!
//! * Latency under a rate is measured from when a message *should have been* sent: a broker that stalls cannot hide it.
//! * Nothing is allocated per message.
//! * A message that is lost, doubled or out of order makes the exit code non-zero.
#![allow(clippy::doc_markdown, reason = "RabbitMQ and LavinMQ are names, not code")]

mod batch;
mod client;
mod clock;
mod compare;
mod confirms;
mod consumer;
mod hgrm;
mod interrupt;
mod latency;
mod machine;
mod options;
mod pace;
mod process;
mod producer;
mod progress;
mod report;
mod report_table;
#[allow(dead_code, reason = "the content of result files; what fills and shows it follows")]
mod result;
mod run;
mod sequence;
mod stamp;
mod topology;
mod uri;

use std::process::ExitCode;

use clap::Parser;
use options::{Command, CommandLine};

fn main() -> ExitCode {
    let outcome = match CommandLine::parse().command {
        Command::Run(options) => run::run(&options).map_err(|failure| failure.to_string()),
        Command::Compare(options) => compare::compare(&options).map_err(|failure| failure.to_string()),
    };
    match outcome {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("lepus-perf: {reason}");
            ExitCode::FAILURE
        }
    }
}
