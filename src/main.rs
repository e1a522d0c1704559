//! The broker's binary: arguments, then the server.

use std::process::ExitCode;

use clap::Parser;
use lepus::server;
use lepus::server::config::CommandLine;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = CommandLine::parse().into_serve_options();
    match server::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("lepus: {reason}");
            ExitCode::FAILURE
        }
    }
}
