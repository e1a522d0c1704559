//! How much the user wants to see while runs are made.

use clap::Args;

use crate::view::{Detail, View};

/// What is shown meanwhile, on standard error.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ViewOptions {
    /// A line a second instead of the live screen; without a terminal it is so anyway
    #[arg(long)]
    pub plain: bool,
    /// Nothing but warnings
    #[arg(long)]
    pub quiet: bool,
}

impl ViewOptions {
    /// Opens what is wanted.
    pub fn open(self) -> View {
        View::open(match (self.quiet, self.plain) {
            (true, _) => Detail::Quiet,
            (false, true) => Detail::Lines,
            (false, false) => Detail::Screen,
        })
    }
}
