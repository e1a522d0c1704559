//! What is to become of results: files, and what is shown.

use std::path::PathBuf;

use clap::Args;

/// Files to write, and what to show.
#[derive(Clone, Debug, Default, Args)]
pub struct OutputOptions {
    /// Write the whole result to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// No line a second
    #[arg(long)]
    pub quiet: bool,
}
