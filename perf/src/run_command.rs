//! `lepus-perf run`: one run, and its report on standard output.

use std::process::ExitCode;

use crate::campaign::{Campaign, Job, Made, place_text};
use crate::command_line::RunCommand;
use crate::exit::{CommandError, Outcome};
use crate::final_table::{self, Emphasis};
use crate::result::Origin;
use crate::run::Labels;

/// Runs it. Ctrl-C ends it with the report of what was measured.
///
/// # Errors
/// Where the options make no sense, or there is no place for a file.
pub fn run(command: &RunCommand) -> Result<ExitCode, CommandError> {
    command.run.check().map_err(CommandError::Usage)?;
    let view = command.view.open();
    let mut campaign = Campaign::begin(view, Origin::here(std::env::args()), &command.output)?;
    let labels = Labels { scenario: "run".to_owned(), target_name: None, round: 0 };
    let target_label = place_text(&command.run);
    let job = Job { options: command.run.clone(), labels, target_label, rounds: 1, of: 1 };
    match campaign.make(&job) {
        Made::Complete => {
            campaign.close_view();
            let run = &campaign.runs()[0];
            let report = final_table::text(run, campaign.origin(), Emphasis::of_stdout());
            Ok(campaign.finish(&command.output, &report, false, |_| false))
        }
        // The view has said why.
        Made::Failed { is_usage } => Ok(if is_usage { ExitCode::from(2) } else { Outcome::Wrong.into() }),
        Made::Interrupted => Ok(Outcome::Interrupted.into()),
    }
}
