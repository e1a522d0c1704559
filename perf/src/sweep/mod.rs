//! `lepus-perf sweep`: one workload at rising rates, and the highest rate that is kept.

mod backlog_trend;
mod judge;
mod objective;
pub mod search;
mod table;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::campaign::{Campaign, Job, Made, place_text};
use crate::exit::{CommandError, EXIT_CODES};
use crate::final_table::Emphasis;
use crate::options::RunOptions;
use crate::output_options::OutputOptions;
use crate::result::Origin;
use crate::run::Labels;
use crate::sweep::objective::Objective;
use crate::sweep::search::{Search, Verdict, ladder};
use crate::versus::pause_seconds;
use crate::view::options::ViewOptions;
pub use judge::Judgement;
use judge::judge;
use watch::Watch;

/// A step's warm-up and measured time, where the user says nothing, in seconds.
const STEP_TIMES: [(&str, &str); 2] = [("warmup", "1"), ("time", "5")];

/// Intervals of a second that a trend of the backlog needs.
const STEP_SECONDS_MIN: u64 = 3;

/// `lepus-perf sweep`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct SweepCommand {
    /// What a rate must keep, as p99.9<5ms, max<1s or confirm:p99<2ms (histograms: response, service, send-lag, confirm,
    /// round-trip). Several may be given. Always: what is wanted is sent, the backlog stays flat, nothing is lost
    #[arg(long = "objective", value_name = "OBJECTIVE")]
    pub objectives: Vec<Objective>,
    /// The lowest rate, in messages a second
    #[arg(long, default_value_t = 1000.0, value_name = "RATE")]
    pub from: f64,
    /// The highest rate
    #[arg(long, default_value_t = 1_000_000.0, value_name = "RATE")]
    pub to: f64,
    /// From one rate to the next
    #[arg(long, default_value_t = 2.0, value_name = "FACTOR")]
    pub factor: f64,
    /// These rates instead, as 1000,5000,20000
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["from", "to", "factor"], value_name = "RATES")]
    pub rates: Vec<f64>,
    /// How near the result is to come to the limit, in percent
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    pub precision: f64,
    /// At most so many rates between the highest kept and the lowest missed one; 0: only the rates given
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub bisections: u32,
    /// Seconds between steps
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = pause_seconds)]
    pub pause: f64,
    /// What is shown meanwhile.
    #[command(flatten)]
    pub view: ViewOptions,
    /// The workload; a step has a warm-up of 1 and a time of 5 seconds where nothing else is said.
    #[command(flatten)]
    pub run: RunOptions,
    /// What is to become of the results.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// A rate that was tried.
pub struct Step {
    /// As it was wanted.
    pub rate: f64,
    /// Which of the runs it is.
    pub run: usize,
    /// What it has shown.
    pub judgement: Judgement,
}

/// The search and the options of its steps.
///
/// # Errors
/// Where the options make no sense.
fn prepare(command: &SweepCommand) -> Result<(Search, RunOptions), String> {
    if command.run.rate.is_some() {
        return Err("--rate is what a sweep varies: give --from and --to, or --rates".to_owned());
    }
    if command.rates.iter().any(|rate| !(*rate > 0.0 && rate.is_finite())) {
        return Err("--rates: each is above 0".to_owned());
    }
    if !(command.precision > 0.0 && command.precision <= 100.0) {
        return Err("--precision: above 0 and at most 100 percent".to_owned());
    }
    if command.run.count.is_some() || command.run.time == Some(0) {
        return Err("a sweep's steps end by --time, in seconds".to_owned());
    }
    if command.run.time.is_some_and(|seconds| seconds < STEP_SECONDS_MIN) {
        return Err(format!(
            "--time: at least {STEP_SECONDS_MIN} seconds, or nobody could tell whether the backlog grows"
        ));
    }
    let rates = if command.rates.is_empty() {
        ladder(command.from, command.to, command.factor)?
    } else {
        command.rates.clone()
    };
    // What contradicts a rate is told before the first step.
    let mut options = command.run.with("rate", &rates[0].to_string())?;
    for (name, value) in STEP_TIMES.into_iter().filter(|(name, _)| !command.run.is_given(name)) {
        options = options.with(name, value)?;
    }
    Ok((Search::new(rates, command.precision / 100.0, command.bisections), options))
}

/// Makes the steps and shows what came of them.
///
/// # Errors
/// Where the options make no sense, or there is no place for a file.
pub fn sweep(command: &SweepCommand) -> Result<ExitCode, CommandError> {
    let (mut search, options) = prepare(command).map_err(CommandError::Usage)?;
    let mut campaign = Campaign::begin(command.view.open(), Origin::here(std::env::args()), &command.output)?;
    let mut steps: Vec<Step> = Vec::new();
    let (mut trouble, mut is_done) = (None, false);
    while trouble.is_none() {
        let Some(rate) = search.poll_rate() else {
            is_done = true;
            break;
        };
        if !steps.is_empty() {
            campaign.pause(Duration::from_secs_f64(command.pause));
        }
        let round = steps.iter().filter(|step| step.rate.total_cmp(&rate).is_eq()).count();
        let labels =
            Labels { scenario: "sweep".to_owned(), target_name: None, round: u32::try_from(round).unwrap_or(u32::MAX) };
        let options = options.with("rate", &rate.to_string()).map_err(CommandError::Usage)?;
        let target_label = place_text(&options);
        let mut watch = Watch::new(&options, rate, &command.objectives);
        let job = Job { options, labels, target_label, rounds: 1, of: 0 };
        match campaign.make_watched(&job, &mut |progress| watch.observe(progress)) {
            Made::Complete => {}
            Made::Failed { .. } | Made::Interrupted => break,
        }
        let run = campaign.runs().len() - 1;
        match judge(&campaign.runs()[run], rate, &command.objectives) {
            Ok(judgement) => {
                search.handle_verdict(rate, judgement.verdict);
                steps.push(Step { rate, run, judgement });
            }
            Err(sentence) => trouble = Some(sentence),
        }
    }
    campaign.close_view();
    let report = table::Report { steps: &steps, objectives: &command.objectives, search: &search, is_done };
    let report = report.text(campaign.runs(), campaign.origin(), Emphasis::of_stdout());
    if let Some(sentence) = trouble {
        print!("{report}");
        return Err(CommandError::Usage(sentence));
    }
    let is_missed = is_done && search.highest().is_none();
    // A rate that the broker cannot keep leaves messages unsent; that is what was sought, and no fault.
    let is_expected = |run: usize| steps.iter().any(|step| step.run == run && step.judgement.verdict != Verdict::Kept);
    Ok(campaign.finish(&command.output, &report, is_missed, is_expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        sweep: SweepCommand,
    }

    fn prepared(line: &str) -> Result<(Search, RunOptions), String> {
        let words = ["sweep"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|fault| fault.to_string())?;
        prepare(&line.sweep)
    }

    /// Goal: steps are short unless the user says otherwise, and begin at the lowest rate.
    #[test]
    fn steps() {
        let (mut search, options) = prepared("--objective p99<5ms --objective confirm:max<1s -c 10").expect("sensible");
        assert_eq!((options.warmup().as_secs(), options.time().map(|time| time.as_secs())), (1, Some(5)));
        assert_eq!(search.poll_rate(), Some(1000.0));
        let (mut search, options) =
            prepared("--rates 700,500 --time 3 --warmup 0 --arrivals poisson").expect("sensible");
        assert_eq!((options.warmup().as_secs(), options.time().map(|time| time.as_secs())), (0, Some(3)));
        assert_eq!(search.poll_rate(), Some(500.0));
    }

    /// Goal: what makes no sense is refused with a sentence that says why.
    #[test]
    fn refusals() {
        for (line, reason) in [
            ("--rate 5", "what a sweep varies"),
            ("--rates 5,0", "each is above 0"),
            ("--rates 5 --from 3", "cannot be used with"),
            ("--from 10 --to 5", "--from"),
            ("--factor 1", "--factor"),
            ("--count 5", "end by --time"),
            ("--time 0", "end by --time"),
            ("--time 2", "at least 3 seconds"),
            ("--requeue", "--requeue would do nothing"),
            ("--precision 0", "--precision"),
            ("--objective p99<5", "no unit"),
            ("--in-flight 5", "--in-flight"),
        ] {
            let fault = prepared(line).expect_err(line);
            assert!(fault.contains(reason), "{line}: {fault}");
        }
    }
}
