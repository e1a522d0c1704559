//! `lepus-perf`, a load generator for AMQP 0-9-1 brokers: Lepus, RabbitMQ, LavinMQ.
//!
//! The way of a run: [`options`] says what is asked for, [`topology`] declares it, [`run`] starts a thread for each
//! [`producer`] and [`consumer`], samples their counters ([`progress`]) once a second and ends them. A producer stamps
//! each body with its number and times ([`stamp`]); a consumer reads the stamp, checks the order ([`sequence`]) and
//! records latencies ([`latency`]). [`report`] is what comes of it.
//!
//! Kept results: [`result`] reads and writes them, [`output_options`] says in which formats, [`mod@column`] groups them for
//! [`compare`], [`plot`] and [`html`].
//!
//! * Latency under a rate is measured from when a message *should have been* sent: a broker that stalls cannot hide it.
//! * Nothing is allocated per message.
//! * A message that is lost, doubled or out of order makes the exit code non-zero.
#![allow(clippy::doc_markdown, reason = "RabbitMQ and LavinMQ are names, not code")]

mod batch;
mod client;
mod clock;
mod column;
mod compare;
mod confirms;
mod consumer;
mod export;
mod html;
mod interrupt;
mod latency;
mod machine;
mod options;
#[allow(dead_code, reason = "what runs fills results follows")]
mod output_options;
mod pace;
mod plot;
mod process;
mod producer;
mod progress;
#[allow(dead_code, reason = "what draws arrival times follows")]
mod random;
mod report;
mod report_table;
#[allow(dead_code, reason = "what fills results follows")]
mod result;
mod run;
mod sequence;
mod stamp;
mod topology;
mod units;
mod uri;
mod whole_file;

use std::process::ExitCode;

use clap::Parser;
use options::{Command, CommandLine};

fn main() -> ExitCode {
    /// Where a comparison or an export could not be made; 1 is for conditions that hold.
    const IMPOSSIBLE: u8 = 2;
    let outcome = match CommandLine::parse().command {
        Command::Run(options) => run::run(&options).map_err(|failure| (failure.to_string(), ExitCode::FAILURE)),
        Command::Compare(options) => {
            compare::compare(&options).map_err(|failure| (failure.to_string(), IMPOSSIBLE.into()))
        }
        Command::Export(options) => export::export(&options)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|failure| (failure.to_string(), IMPOSSIBLE.into())),
    };
    outcome.unwrap_or_else(|(reason, code)| {
        eprintln!("lepus-perf: {reason}");
        code
    })
}
