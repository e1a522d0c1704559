//! Commands on a data directory that no broker uses: what is in it, whether all of it is sound, and keeping what can be kept.
//!
//! They lock the directory as a broker does. But for salvaging they change nothing. A driver.

mod remains;
mod report;
mod salvage;

use crate::server::config::{InspectOptions, RecoverOptions};
use crate::server::start_error::StartError;
use remains::{Depth, Remains};
use rustix::fs::Mode;
use std::io::{self, Write};
use std::process::ExitCode;

/// Tells what is in a data directory. Fails (1) where something is damaged.
///
/// # Errors
/// Why it cannot be looked at.
pub fn inspect(options: &InspectOptions) -> Result<ExitCode, StartError> {
    let remains = Remains::look(&options.data_dir, Depth::AsAStart)?;
    tell(&if options.json { report::json(&remains) } else { report::text(&remains) });
    Ok(exit_code(&remains))
}

/// Verifies all that is in a data directory, or keeps what can be kept. Fails (1) where something is damaged and stays so.
///
/// # Errors
/// Why it cannot be looked at, or not be changed.
pub fn recover(options: &RecoverOptions) -> Result<ExitCode, StartError> {
    let remains = Remains::look(&options.data_dir, Depth::Everything)?;
    let directory = remains.data_dir.path().to_owned();
    tell(&report::verified(&remains));
    if remains.damages.is_empty() {
        tell("Nothing is damaged.\n");
        return Ok(ExitCode::SUCCESS);
    }
    if !options.salvage {
        tell(&format!("A broker does not start with this. {}.\n", remedy_in_full(&directory)));
        return Ok(exit_code(&remains));
    }
    // As a broker does: what lies there is for this user alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    tell(&salvage::salvage(remains)?);
    Ok(ExitCode::SUCCESS)
}

fn remedy_in_full(directory: &std::path::Path) -> String {
    format!("'lepus recover --salvage {}' keeps what can be kept", directory.display())
}

fn exit_code(remains: &Remains) -> ExitCode {
    if remains.damages.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Who has read enough and closed the pipe does not mind.
fn tell(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
