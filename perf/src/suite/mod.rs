//! `lepus-perf suite`: the scenarios of a file against one or more brokers.

mod file;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::campaign::order::interleaved;
use crate::campaign::targets::{TargetParser, TargetSpec, check_names};
use crate::campaign::{Campaign, Job, place_text};
use crate::exit::{CommandError, EXIT_CODES, Outcome};
use crate::final_table::Emphasis;
use crate::output_options::OutputOptions;
use crate::result::Origin;
use crate::rounds_table;
use crate::run::Labels;
use crate::units::clock_text;
use crate::versus::pause_seconds;
use crate::view::options::ViewOptions;
use file::{Scenario, Suite};

/// Where neither the file nor the command line names a target.
const DEFAULT_URI: &str = "amqp://guest:guest@127.0.0.1:5672/%2F";
/// Declaring, awaiting the last messages and deleting, in seconds, for the estimate of the whole.
const AROUND_SECONDS: f64 = 0.5;

/// `lepus-perf suite`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct SuiteCommand {
    /// The suite, in TOML; `standard`, `durable` and `quick` are built in
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A broker, as NAME=amqp://user:password@host:port/vhost,pid=N; instead of those in the file
    #[arg(long = "target", value_parser = TargetParser, value_name = "TARGET")]
    pub targets: Vec<TargetSpec>,
    /// Only this scenario; may be given several times
    #[arg(long, value_name = "SCENARIO")]
    pub only: Vec<String>,
    /// Another value for an option of all scenarios, such as time=2
    #[arg(long = "set", value_name = "OPTION=VALUE")]
    pub overrides: Vec<String>,
    /// How often each scenario runs on each broker [default: what the file says, or 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: Option<u32>,
    /// Seconds between runs [default: what the file says, or 1]
    #[arg(long, value_name = "SECONDS", value_parser = pause_seconds)]
    pub pause: Option<f64>,
    /// What the orders of targets are drawn with
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub order_seed: u64,
    /// Show the scenarios and run nothing
    #[arg(long)]
    pub list: bool,
    /// Show each run in its order, and how long all will take; run nothing
    #[arg(long)]
    pub dry_run: bool,
    /// What is shown meanwhile.
    #[command(flatten)]
    pub view: ViewOptions,
    /// What is to become of the results.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// A suite, ready to be run.
struct Prepared {
    suite: Suite,
    targets: Vec<TargetSpec>,
    jobs: Vec<Job>,
    pause_seconds: f64,
}

fn read(command: &SuiteCommand) -> Result<Suite, CommandError> {
    let path = &command.file;
    let text = match (path.to_str(), path.exists()) {
        (Some("standard"), false) => include_str!("../../suites/standard.toml").to_owned(),
        (Some("durable"), false) => include_str!("../../suites/durable.toml").to_owned(),
        (Some("quick"), false) => include_str!("../../suites/quick.toml").to_owned(),
        _ => fs::read_to_string(path)
            .map_err(|error| CommandError::Usage(format!("cannot read {}: {error}", path.display())))?,
    };
    let overrides = overrides(&command.overrides).map_err(CommandError::Usage)?;
    let mut suite =
        file::parse(&text, &overrides).map_err(|fault| CommandError::Usage(format!("{}:{fault}", path.display())))?;
    let names: Vec<&str> = suite.scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    if let Some(unknown) = command.only.iter().find(|only| !names.contains(&only.as_str())) {
        let reason = format!("--only {unknown}: there is no such scenario; there are {}", names.join(", "));
        return Err(CommandError::Usage(reason));
    }
    if !command.only.is_empty() {
        suite.scenarios.retain(|scenario| command.only.contains(&scenario.name));
    }
    Ok(suite)
}

fn overrides(words: &[String]) -> Result<Vec<(String, String)>, String> {
    let split = |word: &String| {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("--set {word}: OPTION=VALUE"))?;
        let (name, value) = (name.trim_start_matches("--").to_owned(), value.to_owned());
        if ["uri", "broker-pid"].contains(&name.as_str()) {
            return Err(format!("--set {word}: it belongs to --target"));
        }
        file::check(&name, std::slice::from_ref(&value)).map_err(|reason| format!("--set {word}: {reason}"))?;
        Ok((name, value))
    };
    words.iter().map(split).collect()
}

fn prepare(command: &SuiteCommand) -> Result<Prepared, CommandError> {
    let mut suite = read(command)?;
    let mut targets =
        if command.targets.is_empty() { std::mem::take(&mut suite.targets) } else { command.targets.clone() };
    if targets.is_empty() {
        targets.push(TargetSpec::new(None, DEFAULT_URI, None).map_err(CommandError::Usage)?);
    }
    check_names(&targets).map_err(CommandError::Usage)?;
    let rounds = command.rounds.or(suite.rounds).unwrap_or(1);
    let places = interleaved(suite.scenarios.len(), targets.len(), rounds, command.order_seed);
    let of = places.len().max(2);
    let mut jobs = Vec::with_capacity(places.len());
    for place in places {
        let (scenario, target) = (&suite.scenarios[place.scenario], &targets[place.target]);
        let mut options = scenario.options.clone();
        for (name, value) in target.options() {
            options = options.with(name, &value).map_err(CommandError::Usage)?;
        }
        let labels = Labels { scenario: scenario.name.clone(), target_name: target.name.clone(), round: place.round };
        jobs.push(Job { options, labels, target_label: target.label(), rounds, of });
    }
    let pause_seconds = command.pause.or(suite.pause_seconds).unwrap_or(1.0);
    Ok(Prepared { suite, targets, jobs, pause_seconds })
}

/// Runs the suite and shows, for each scenario, the targets side by side.
///
/// # Errors
/// Where the file or the options are wrong, or there is no place for a result.
pub fn suite(command: &SuiteCommand) -> Result<ExitCode, CommandError> {
    if command.list {
        print!("{}", list(&read(command)?.scenarios));
        return Ok(Outcome::Right.into());
    }
    let prepared = prepare(command)?;
    if command.dry_run {
        print!("{}", dry_run(&prepared));
        return Ok(Outcome::Right.into());
    }
    let mut campaign = Campaign::begin(command.view.open(), Origin::here(std::env::args()), &command.output)?;
    campaign.make_all(&prepared.jobs, Duration::from_secs_f64(prepared.pause_seconds));
    campaign.close_view();
    let labels: Vec<String> = prepared.targets.iter().map(TargetSpec::label).collect();
    let report = rounds_table::text(&campaign, &labels, Emphasis::of_stdout());
    Ok(campaign.finish(&command.output, &report, false, |_| false))
}

fn list(scenarios: &[Scenario]) -> String {
    let width = scenarios.iter().map(|scenario| scenario.name.chars().count()).max().unwrap_or(0);
    let line =
        |scenario: &Scenario| format!("{:<width$}  {}", scenario.name, scenario.about).trim_end().to_owned() + "\n";
    scenarios.iter().map(line).collect()
}

/// The command line of each run, and how long all will take.
fn dry_run(prepared: &Prepared) -> String {
    let (mut text, mut seconds, mut is_exact) = (String::new(), 0.0, true);
    for job in &prepared.jobs {
        let scenario = prepared.suite.scenarios.iter().find(|scenario| scenario.name == job.labels.scenario);
        let words =
            scenario.map(|scenario| scenario.words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
        text += &format!(
            "# round {}, {}, {}\nlepus-perf run --uri {} {}\n",
            job.labels.round + 1,
            job.labels.scenario,
            job.target_label,
            quoted(&place_text(&job.options)),
            words.unwrap_or_default()
        );
        is_exact &= job.options.time().is_some();
        seconds += job.options.warmup().as_secs_f64() + job.options.time().map_or(0.0, |time| time.as_secs_f64());
        seconds += AROUND_SECONDS + prepared.pause_seconds;
    }
    let at_least = if is_exact { "about" } else { "at least" };
    text + &format!("# {} runs, {at_least} {}\n", prepared.jobs.len(), clock_text(seconds))
}

/// As a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=@%,+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        for (word, expected) in
            [("--rate=5", "--rate=5"), ("a b", "'a b'"), ("", "''"), ("it's", r"'it'\''s'"), ("$x", "'$x'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn overrides_are_checked() {
        let check = |word: &str, reason: &str| {
            let fault = overrides(&[word.to_owned()]).expect_err(word);
            assert!(fault.contains(reason), "{word}: {fault}");
        };
        check("time", "OPTION=VALUE");
        check("tiem=5", "is 'time' meant");
        check("time=x", "invalid value");
        check("uri=amqp://h", "--target");
        let found = overrides(&["--time=2".to_owned(), "flag=persistent".to_owned()]).expect("well-formed");
        assert_eq!(found[0], ("time".to_owned(), "2".to_owned()));
    }
}
