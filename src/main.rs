//! The broker's binary: arguments, then the server.

use std::process::ExitCode;

use clap::Parser;
use lepus::server::config::{Command, CommandLine};
use lepus::server::{self, offline};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match CommandLine::parse().into_command() {
        Command::Serve(options) => server::run(options).map(|()| ExitCode::SUCCESS),
        Command::Inspect(options) => offline::inspect(&options),
        Command::Recover(options) => offline::recover(&options),
    };
    match done {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("lepus: {reason}");
            ExitCode::FAILURE
        }
    }
}
