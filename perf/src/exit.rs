//! How the process ends, for scripts.

use std::fmt;
use std::process::ExitCode;

/// What an exit code says. The numbers are part of the interface; `--help` tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: everything was right.
    Right,
    /// 1: messages were lost, doubled, out of order, corrupted or refused; a run or target failed; an objective was missed.
    Wrong,
    /// 3: nothing was wrong, but the load generator was late: latencies of a run must not be trusted.
    Invalid,
    /// 130: interrupted before everything was done; what was done has been written.
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Right => ExitCode::SUCCESS,
            Outcome::Wrong => ExitCode::from(1),
            Outcome::Invalid => ExitCode::from(3),
            Outcome::Interrupted => ExitCode::from(130),
        }
    }
}

/// Why a command came to nothing; a whole sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Exit code 2: what is asked for makes no sense, or is wrongly written.
    Usage(String),
    /// Exit code 1: it makes sense, and failed.
    Failed(String),
}

impl CommandError {
    /// The code that scripts see.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        })
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(sentence) | Self::Failed(sentence)) = self;
        f.write_str(sentence)
    }
}

impl std::error::Error for CommandError {}

/// For `--help` of every command that runs something.
pub const EXIT_CODES: &str = "Exit codes:
  0    all right
  1    messages were lost, duplicated, reordered, corrupted or refused; a run or target failed; an objective was missed
  2    the command line or a suite is wrong, or there is no place for a file; nothing was run
  3    nothing was wrong with the broker, but a run is INVALID: the load generator was late
  130  interrupted before the planned end; what was complete is shown and written";
