//! What the live views know of a run: fed by its intervals, without a clock and without a terminal.

use std::collections::{BTreeMap, VecDeque};

use crate::final_table::COUNTS;
use crate::result::{Interval, Recorded, histogram};

/// Seconds that count as the last ones.
const RECENT_INTERVALS: usize = 5;
/// Seconds that sparklines go back, at most.
const HISTORY_MAX: usize = 512;
/// Summaries of earlier runs that are kept.
const NOTES_MAX: usize = 100;

/// A run that begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Name of the scenario.
    pub scenario: String,
    /// What the user calls the broker, or its URI.
    pub target: String,
    /// From 0.
    pub round: u32,
    /// How many rounds there are.
    pub rounds: u32,
    /// Which run it is, from 0.
    pub index: usize,
    /// How many runs there are; 1: only this one; 0: not known beforehand.
    pub of: usize,
    /// The wanted rate.
    pub rate: Option<f64>,
    /// Whether round trips are what it is about.
    pub is_about_round_trips: bool,
    /// Warm-up in seconds.
    pub warm_up_seconds: f64,
    /// Measured seconds; `None`: until a count is reached or the user ends it.
    pub seconds: Option<f64>,
}

impl Plan {
    /// `latency-1k · lepus · round 2/3 · run 5/18`.
    pub fn title(&self) -> String {
        let mut title = format!("{} · {}", self.scenario, self.target);
        if let Some(rate) = self.rate {
            title += &format!(" · {}/s wanted", crate::units::rate_text(rate));
        }
        if self.rounds > 1 {
            title += &format!(" · round {}/{}", self.round + 1, self.rounds);
        }
        match self.of {
            0 => title += &format!(" · run {}", self.index + 1),
            1 => {}
            of => title += &format!(" · run {}/{of}", self.index + 1),
        }
        title
    }
}

/// A row of rates: its name, the last one, and all before it.
pub struct RateRow {
    /// As in [`COUNTS`], or `backlog`.
    pub name: &'static str,
    /// A second, in the last interval.
    pub last: f64,
    /// Older ones first.
    pub history: Vec<u64>,
}

/// A row of latencies.
pub struct LatencyRow {
    /// Name of the histogram.
    pub name: &'static str,
    /// Of the last seconds.
    pub recent: Option<Recorded>,
    /// Of the measured time so far.
    pub overall: Option<Recorded>,
}

/// All that is shown.
#[derive(Default)]
pub struct State {
    /// The run under way; `None` before the first.
    pub plan: Option<Plan>,
    /// Seconds since the run's start.
    pub elapsed_seconds: f64,
    /// Whether what was seen last does not count.
    pub is_warm_up: bool,
    /// The broker's CPU in the last second, as a part of one processor, where known.
    pub broker_cpu: Option<f64>,
    /// The broker's memory, where known.
    pub broker_resident_octets: Option<u64>,
    /// Summaries of earlier runs, the youngest last.
    pub notes: VecDeque<String>,
    /// Of all runs, the youngest last.
    pub warnings: Vec<String>,
    /// Rates by [`COUNTS`], and the backlog behind them.
    rates: VecDeque<[f64; COUNTS.len() + 1]>,
    recent: VecDeque<BTreeMap<String, Recorded>>,
    overall: BTreeMap<String, Recorded>,
}

impl State {
    /// A run begins; only notes and warnings of earlier ones stay.
    pub fn handle_begin(&mut self, plan: Plan) {
        let (notes, warnings) = (std::mem::take(&mut self.notes), std::mem::take(&mut self.warnings));
        *self = Self { plan: Some(plan), notes, warnings, ..Self::default() };
    }

    /// A second of it is over.
    pub fn handle_interval(&mut self, interval: &Interval) {
        let seconds = interval.seconds.max(1e-9);
        self.elapsed_seconds = interval.start_seconds + interval.seconds;
        self.is_warm_up = interval.is_warm_up;
        self.broker_cpu = interval.broker_cpu_seconds.map(|cpu| cpu / seconds);
        self.broker_resident_octets = interval.broker_resident_octets;
        let mut rates = [0.0; COUNTS.len() + 1];
        for (rate, (_, field)) in rates.iter_mut().zip(COUNTS) {
            *rate = field(&interval.counts) as f64 / seconds;
        }
        rates[COUNTS.len()] = interval.backlog as f64;
        push_limited(&mut self.rates, rates, HISTORY_MAX);
        if !interval.is_warm_up {
            for (name, recorded) in &interval.histograms {
                self.overall.entry(name.clone()).or_default().add(recorded);
            }
        }
        push_limited(&mut self.recent, interval.histograms.clone(), RECENT_INTERVALS);
    }

    /// A run is over.
    pub fn handle_note(&mut self, note: String) {
        push_limited(&mut self.notes, note, NOTES_MAX);
    }

    /// The rates that this run has, and its backlog.
    pub fn rate_rows(&self) -> Vec<RateRow> {
        let names = COUNTS.iter().map(|(name, _)| *name).chain(["backlog"]);
        let Some(last) = self.rates.back() else { return Vec::new() };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are small and not negative")]
        let whole = |rate: f64| rate.round() as u64;
        names
            .enumerate()
            .filter(|(index, name)| *name == "backlog" || self.rates.iter().any(|rates| rates[*index] > 0.0))
            .map(|(index, name)| {
                let history = self.rates.iter().map(|rates| whole(rates[index])).collect();
                RateRow { name, last: last[index], history }
            })
            .collect()
    }

    /// The latencies that this run has.
    pub fn latency_rows(&self) -> Vec<LatencyRow> {
        let row = |(name, _): (&'static str, &str)| {
            let mut recent: Option<Recorded> = None;
            for recorded in self.recent.iter().filter_map(|histograms| histograms.get(name)) {
                recent.get_or_insert_default().add(recorded);
            }
            let filled = |recorded: Option<Recorded>| recorded.filter(|recorded| !recorded.is_empty());
            let (recent, overall) = (filled(recent), filled(self.overall.get(name).cloned()));
            (recent.is_some() || overall.is_some()).then_some(LatencyRow { name, recent, overall })
        };
        histogram::ALL.into_iter().filter_map(row).collect()
    }

    /// How far the warm-up or the measuring is, from 0 to 1; `None` where its end is not known.
    pub fn progress(&self) -> Option<f64> {
        let plan = self.plan.as_ref()?;
        let (done, whole) = if self.is_in_warm_up() {
            (self.elapsed_seconds, plan.warm_up_seconds)
        } else {
            (self.elapsed_seconds - plan.warm_up_seconds, plan.seconds?)
        };
        Some(if whole > 0.0 { (done / whole).clamp(0.0, 1.0) } else { 1.0 })
    }

    /// Whether the run is in its warm-up now.
    pub fn is_in_warm_up(&self) -> bool {
        // The last second of the warm-up is over when it is seen.
        self.plan.as_ref().is_some_and(|plan| self.elapsed_seconds + 0.05 < plan.warm_up_seconds)
    }
}

fn push_limited<T>(queue: &mut VecDeque<T>, value: T, length_max: usize) {
    queue.push_back(value);
    if queue.len() > length_max {
        queue.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_runs::interval_of;

    fn plan() -> Plan {
        Plan {
            scenario: "s".to_owned(),
            target: "t".to_owned(),
            warm_up_seconds: 1.0,
            seconds: Some(4.0),
            ..Plan::default()
        }
    }

    /// Goal: warm-up counts in the last seconds but not overall; the last seconds are five.
    #[test]
    fn recent_and_overall() {
        let mut state = State::default();
        state.handle_begin(plan());
        let mut warm_up = interval_of(0, &[("response", &[9_000])]);
        warm_up.is_warm_up = true;
        state.handle_interval(&warm_up);
        let max = |recorded: &Option<Recorded>| recorded.as_ref().map(|recorded| recorded.0.len());
        let row = &state.latency_rows()[0];
        assert_eq!((row.name, max(&row.recent), max(&row.overall)), ("response", Some(1), None));
        for second in 1..=7 {
            state.handle_interval(&interval_of(second, &[("response", &[10])]));
        }
        let row = &state.latency_rows()[0];
        assert_eq!((max(&row.recent), max(&row.overall)), (Some(5), Some(7)));
    }

    /// Goal: the gauge goes from 0 to 1 twice, first in the warm-up.
    #[test]
    fn progress() {
        let mut state = State::default();
        assert_eq!(state.progress(), None);
        state.handle_begin(plan());
        assert_eq!((state.progress(), state.is_in_warm_up()), (Some(0.0), true));
        state.handle_interval(&interval_of(0, &[]));
        assert_eq!((state.progress(), state.is_in_warm_up()), (Some(0.0), false));
        state.handle_interval(&interval_of(3, &[]));
        assert_eq!(state.progress(), Some(0.75));
        state.handle_interval(&interval_of(30, &[]));
        assert_eq!(state.progress(), Some(1.0));
        state.handle_begin(Plan { seconds: None, warm_up_seconds: 0.0, ..plan() });
        assert_eq!(state.progress(), None);
    }

    /// Goal: what a run does not count has no row; the backlog always has.
    #[test]
    fn rows_of_what_is_counted() {
        let mut state = State::default();
        assert!(state.rate_rows().is_empty());
        state.handle_begin(plan());
        state.handle_interval(&interval_of(0, &[("response", &[1, 2, 3])]));
        let names: Vec<_> = state.rate_rows().iter().map(|row| (row.name, row.history.clone())).collect();
        assert_eq!(names, [("published", vec![3]), ("received", vec![3]), ("backlog", vec![0])]);
    }

    #[test]
    fn titles() {
        assert_eq!(Plan { of: 1, ..plan() }.title(), "s · t");
        let plan = Plan { rate: Some(5e4), round: 1, rounds: 3, index: 4, of: 18, ..plan() };
        assert_eq!(plan.title(), "s · t · 50,000/s wanted · round 2/3 · run 5/18");
    }
}
