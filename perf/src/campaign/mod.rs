//! Several runs in one process: made one after the other, shown, collected, and written together, also where some fail or
//! the user ends them early.

pub mod order;
pub mod targets;

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crate::exit::{CommandError, Outcome};
use crate::interrupt;
use crate::options::RunOptions;
use crate::output_options::{OutputOptions, write_outputs};
use crate::result::quantile;
use crate::result::{Origin, ResultFile, Run, SCHEMA, histogram};
use crate::run::{Labels, Observe, Progress, RunError, measure};
use crate::units::{duration_text, rate_text};
use crate::view::{Plan, View};

/// How often a pause looks whether the user wants the end.
const LOOK_UP: Duration = Duration::from_millis(50);
/// A run that was interrupted and has less of its measured time than this is not complete.
const COMPLETE_PART_MIN: f64 = 0.99;

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to run, and where.
    pub options: RunOptions,
    /// How it is called in results.
    pub labels: Labels,
    /// How the broker is called until it has said its name.
    pub target_label: String,
    /// How many rounds there are.
    pub rounds: u32,
    /// How many runs there are; 0: not known beforehand.
    pub of: usize,
}

impl Job {
    /// What the view shows of the `index`th run.
    fn plan(&self, index: usize) -> Plan {
        Plan {
            scenario: self.labels.scenario.clone(),
            target: self.target_label.clone(),
            round: self.labels.round,
            rounds: self.rounds,
            index,
            of: self.of,
            rate: self.options.rate,
            is_about_round_trips: self.options.is_about_round_trips(),
            warm_up_seconds: self.options.warmup().as_secs_f64(),
            seconds: self.options.time().map(|time| time.as_secs_f64()),
        }
    }
}

/// Where a workload runs, while no name of it is known.
pub fn place_text(options: &RunOptions) -> String {
    options.uri.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Runs made so far.
pub struct Campaign {
    view: Option<View>,
    origin: Origin,
    runs: Vec<Run>,
    failures: Vec<Failure>,
    begun: usize,
    is_cut_short: bool,
}

/// A run that came to no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Of which scenario.
    pub scenario: String,
    /// Against which broker, as the user calls it.
    pub target: String,
    /// Why; a sentence.
    pub reason: String,
}

/// What has become of a job.
pub enum Made {
    /// It is complete, and the last one of [`Campaign::runs`].
    Complete,
    /// It came to no result; the view has said why. `is_usage`: because its options make no sense.
    Failed {
        /// Nothing was tried.
        is_usage: bool,
    },
    /// The user has ended it before its time; it is not kept.
    Interrupted,
}

impl Campaign {
    /// Begins one. Signals are heard from here on.
    ///
    /// # Errors
    /// Where they cannot be, or there is no place for what is to be written.
    pub fn begin(view: View, origin: Origin, output: &OutputOptions) -> Result<Self, CommandError> {
        output.check().map_err(CommandError::Usage)?;
        interrupt::listen().map_err(|error| CommandError::Failed(format!("listening to signals: {error}")))?;
        Ok(Self { view: Some(view), origin, runs: Vec::new(), failures: Vec::new(), begun: 0, is_cut_short: false })
    }

    /// Complete runs, in the order in which they were made.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Runs that came to no result.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// The origin of all of them.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Makes one run.
    pub fn make(&mut self, job: &Job) -> Made {
        self.make_watched(job, &mut |_| ControlFlow::Continue(()))
    }

    /// Makes one run, which `watch` may end.
    pub fn make_watched(&mut self, job: &Job, watch: &mut Observe<'_>) -> Made {
        if interrupt::is_requested() {
            self.is_cut_short = true;
            return Made::Interrupted;
        }
        let plan = job.plan(self.begun);
        let title = plan.title();
        self.begun += 1;
        let Some(view) = &mut self.view else { unreachable!("the view is closed at the end only") };
        view.begin(plan);
        let mut observe = |progress: Progress<'_>| {
            view.observe(progress.interval);
            watch(progress)
        };
        match measure(&job.options, &job.labels, &mut observe) {
            Ok(run) if is_incomplete(&run, &job.options) && job.of != 1 => {
                self.is_cut_short = true;
                view.finish(&format!("{title}: interrupted, not kept"));
                Made::Interrupted
            }
            Ok(mut run) => {
                self.is_cut_short |= is_incomplete(&run, &job.options);
                view.finish(&format!("{title}: {}", summary(&run)));
                shrink(&mut run);
                self.runs.push(run);
                Made::Complete
            }
            Err(_) if interrupt::is_requested() => {
                self.is_cut_short = true;
                view.finish(&format!("{title}: interrupted before it began"));
                Made::Interrupted
            }
            Err(error) => {
                let sentence = if job.of == 1 { error.to_string() } else { format!("{title}: {error}") };
                view.warn(&sentence);
                let (scenario, target) = (job.labels.scenario.clone(), job.target_label.clone());
                self.failures.push(Failure { scenario, target, reason: error.to_string() });
                Made::Failed { is_usage: matches!(error, RunError::Options(_)) }
            }
        }
    }

    /// Waits, unless the user wants the end.
    pub fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while !interrupt::is_requested() && Instant::now() < until {
            thread::sleep(LOOK_UP.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Makes these runs, with pauses between them. A target whose run of a scenario fails is left out of that scenario's
    /// later rounds.
    pub fn make_all(&mut self, jobs: &[Job], pause: Duration) {
        let mut failed: Vec<(&str, &str)> = Vec::new();
        for (index, job) in jobs.iter().enumerate() {
            let key = (job.labels.scenario.as_str(), job.target_label.as_str());
            if failed.contains(&key) {
                continue;
            }
            if index > 0 {
                self.pause(pause);
            }
            // Those that are left out count, so that the last one is the last of all.
            self.begun = index;
            match self.make(job) {
                Made::Complete => {}
                Made::Failed { .. } => failed.push(key),
                Made::Interrupted => break,
            }
        }
    }

    /// Gives the terminal back, so that the result can be printed.
    pub fn close_view(&mut self) {
        self.view = None;
    }

    /// Writes all that is complete, shows the report, and says how it went. `is_missed`: an objective was missed. `is_expected`
    /// tells of which runs, by their numbers, failures and latencies that cannot be trusted were to be expected; faults never are.
    ///
    /// What cannot be written is told of, and keeps nothing else from being written.
    pub fn finish(
        mut self,
        output: &OutputOptions,
        report: &str,
        is_missed: bool,
        is_expected: impl Fn(usize) -> bool,
    ) -> ExitCode {
        self.close_view();
        let is_run_wrong = |(index, run): (usize, &Run)| run.has_faults() || !run.is_right() && !is_expected(index);
        let is_wrong = is_missed || !self.failures.is_empty() || self.runs.iter().enumerate().any(is_run_wrong);
        let is_invalid = |(index, run): (usize, &Run)| !run.invalid.is_empty() && !is_expected(index);
        let has_invalid = self.runs.iter().enumerate().any(is_invalid);
        let file = ResultFile { schema: SCHEMA.to_owned(), origin: self.origin, runs: self.runs };
        let unwritten = if file.runs.is_empty() { Vec::new() } else { write_outputs(&file, output) };
        unwritten.iter().for_each(|error| eprintln!("lepus-perf: {error}"));
        let is_shown = show(report, output);
        match (is_wrong, self.is_cut_short, unwritten.is_empty() && is_shown, has_invalid) {
            (true, ..) | (false, false, false, _) => Outcome::Wrong,
            (false, true, ..) => Outcome::Interrupted,
            (false, false, true, true) => Outcome::Invalid,
            (false, false, true, false) => Outcome::Right,
        }
        .into()
    }
}

/// Prints a report to standard output, or, where a result goes there, to standard error. Whether that could be done.
fn show(report: &str, output: &OutputOptions) -> bool {
    if output.has_stdout() {
        eprint!("{report}");
        return true;
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(report.as_bytes()).and_then(|()| stdout.flush()) {
        // Who has read enough has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("lepus-perf: standard output: {error}");
            false
        }
        _ => true,
    }
}

/// Whether the user has ended it before its planned time. One without a planned end is always complete.
fn is_incomplete(run: &Run, options: &RunOptions) -> bool {
    let (_, measured) = run.measured_counts();
    let is_short = match (options.time(), options.count) {
        (Some(time), None) => measured < time.as_secs_f64() * COMPLETE_PART_MIN,
        (_, Some(count)) => run.check.totals.published.max(run.check.totals.received) < count,
        (None, None) => false,
    };
    interrupt::is_requested() && is_short
}

/// Histograms are recorded with room for an hour; in the hundreds of runs of a suite that would be gigabytes.
fn shrink(run: &mut Run) {
    for interval in &mut run.intervals {
        interval.histograms.retain(|_, recorded| !recorded.is_empty());
        for recorded in interval.histograms.values_mut() {
            let (low, high, digits) = (1, recorded.0.max().max(2), recorded.0.sigfig());
            let Ok(mut small) = hdrhistogram::Histogram::new_with_bounds(low, high, digits) else { continue };
            small.auto(true);
            if small.add(&recorded.0).is_ok() {
                recorded.0 = small;
            }
        }
    }
}

/// A run in a few words: its rate and its latency, or what was wrong.
fn summary(run: &Run) -> String {
    let (counts, seconds) = run.measured_counts();
    let mut text = format!("{}/s", rate_text(if seconds > 0.0 { counts.primary() as f64 / seconds } else { 0.0 }));
    let mut names = histogram::by_worth(run.is_about_round_trips());
    if let Some(recorded) = names.find_map(|name| run.histogram(name)) {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let value = quantile::at(&recorded, quantile).unwrap_or(0);
            text += &format!(", {name} {}", duration_text(value));
        }
    }
    if run.has_faults() {
        text += ", WRONG";
    }
    if !run.failures.is_empty() {
        text += ", FAILED";
    }
    if !run.invalid.is_empty() {
        text += ", INVALID";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_runs::run_of;

    /// Goal: what is kept in less memory is the same.
    #[test]
    fn shrunk_runs_are_the_same() {
        let mut values: Vec<u64> = (0..5000).map(|index| 1 + index * index).collect();
        values.push(3_000_000_000_000);
        for values in [&values[..], &values[..5000], &[1], &[]] {
            let run = run_of(&[("response", values)]);
            let mut small = run.clone();
            shrink(&mut small);
            assert_eq!(small.histogram("response"), run.histogram("response"));
            assert!(small.intervals[0].histograms.values().all(|recorded| !recorded.is_empty()));
        }
        let mut small = run_of(&[("response", &[900_000])]);
        let whole = small.intervals[0].histograms["response"].0.distinct_values();
        shrink(&mut small);
        assert!(small.intervals[0].histograms["response"].0.distinct_values() * 2 < whole);
    }

    #[test]
    fn summaries() {
        let mut run = run_of(&[("response", &[1000; 10])]);
        assert_eq!(summary(&run), "10.0/s, p50 1.00 µs, p99 1.00 µs, p99.9 1.00 µs");
        run.check.lost = 1;
        run.invalid.push("late".to_owned());
        assert!(summary(&run).ends_with(", WRONG, INVALID"));
    }
}
