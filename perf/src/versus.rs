//! `lepus-perf versus`: the same workload against several brokers in turn.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::campaign::order::interleaved;
use crate::campaign::targets::{TargetParser, TargetSpec, check_names};
use crate::campaign::{Campaign, Job};
use crate::exit::{CommandError, EXIT_CODES};
use crate::final_table::Emphasis;
use crate::options::RunOptions;
use crate::output_options::OutputOptions;
use crate::result::Origin;
use crate::rounds_table;
use crate::run::Labels;
use crate::view::options::ViewOptions;

/// `lepus-perf versus`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct VersusCommand {
    /// A broker, as NAME=amqp://user:password@host:port/vhost,pid=N; name and pid may be left out. Ratios are to the first
    #[arg(long = "target", value_parser = TargetParser, required = true, value_name = "TARGET")]
    pub targets: Vec<TargetSpec>,
    /// How often each broker is run. In each round every one runs once, in an order drawn anew, so that the drift of a
    /// shared machine hits all alike
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// Seconds between runs
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = pause_seconds)]
    pub pause: f64,
    /// What orders are drawn with
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub order_seed: u64,
    /// What is shown meanwhile.
    #[command(flatten)]
    pub view: ViewOptions,
    /// The workload.
    #[command(flatten)]
    pub run: RunOptions,
    /// What is to become of the results.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// Seconds of a pause, for the command line.
///
/// # Errors
/// Where they are none, or more than a day.
pub fn pause_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "seconds, from 0 to 86400".to_owned())
}

/// The jobs of all rounds.
///
/// # Errors
/// Where options contradict each other.
fn jobs(command: &VersusCommand) -> Result<Vec<Job>, String> {
    check_names(&command.targets)?;
    if let Some(option) = ["uri", "broker-pid"].into_iter().find(|name| command.run.is_given(name)) {
        return Err(format!("--{option} belongs to --target here: --target NAME=amqp://…,pid=N"));
    }
    if command.run.time == Some(0) && command.run.count.is_none() {
        return Err("--time 0 would never come to the second target".to_owned());
    }
    let order = interleaved(1, command.targets.len(), command.rounds, command.order_seed);
    let of = order.len();
    order
        .into_iter()
        .map(|place| {
            let target = &command.targets[place.target];
            let mut options = command.run.clone();
            for (name, value) in target.options() {
                options = options.with(name, &value)?;
            }
            let labels = Labels { scenario: "versus".to_owned(), target_name: target.name.clone(), round: place.round };
            Ok(Job { options, labels, target_label: target.label(), rounds: command.rounds, of: of.max(2) })
        })
        .collect()
}

/// Runs all rounds and shows the targets side by side.
///
/// # Errors
/// Where the options make no sense, or there is no place for a file.
pub fn versus(command: &VersusCommand) -> Result<ExitCode, CommandError> {
    let jobs = jobs(command).map_err(CommandError::Usage)?;
    let mut campaign = Campaign::begin(command.view.open(), Origin::here(std::env::args()), &command.output)?;
    campaign.make_all(&jobs, Duration::from_secs_f64(command.pause));
    campaign.close_view();
    let labels: Vec<String> = command.targets.iter().map(TargetSpec::label).collect();
    let report = rounds_table::text(&campaign, &labels, Emphasis::of_stdout());
    Ok(campaign.finish(&command.output, &report, false, |_| false))
}
