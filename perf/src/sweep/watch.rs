//! Whether a step of a sweep is lost before its end: then it need not go on to its full length.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::engine::topology::Topology;
use crate::options::{RunOptions, Workload};
use crate::result::{Interval, histogram};
use crate::run::Progress;
use crate::sweep::objective::Objective;
use crate::units::rate_text;

/// What a broker falls behind by each second, as a part of the rate, and for how many seconds one after the other, until it
/// is beyond its limit: a single stall is shorter.
const BEYOND: [(f64, usize); 2] = [(0.5, 2), (0.25, 3)];
/// Random arrivals differ from their mean by this many standard deviations at most, and by few messages always.
const DEVIATIONS_MAX: f64 = 4.0;
const FLUCTUATION_MESSAGES: f64 = 10.0;
/// Seconds that are measured at least.
const MEASURED_MIN: usize = 2;
/// A shorter interval is the rest of one.
const WHOLE_SECONDS_MIN: f64 = 0.5;
/// More latencies than this, by the rate, will not be recorded.
const EXPECTED_MARGIN: f64 = 1.1;

/// Watches one step.
pub struct Watch<'o> {
    rate: f64,
    /// With how many latencies of each of them at most, and how many were beyond its limit up to now.
    objectives: Vec<(&'o Objective, f64, u64)>,
    /// What was seen, without histograms.
    intervals: Vec<Interval>,
}

impl<'o> Watch<'o> {
    /// Of a step at this rate.
    pub fn new(options: &RunOptions, rate: f64, objectives: &'o [Objective]) -> Self {
        let seconds = options.time().map_or(f64::INFINITY, |time| time.as_secs_f64());
        let copies = Topology::plan(options).copies as f64;
        let expected = |objective: &Objective| match objective.histogram {
            histogram::RESPONSE | histogram::SERVICE => rate * seconds * copies * EXPECTED_MARGIN,
            // How many other round trips there will be nobody knows.
            histogram::ROUND_TRIP if options.workload != Workload::Rpc => f64::INFINITY,
            _ => rate * seconds * EXPECTED_MARGIN,
        };
        let objectives = objectives.iter().map(|objective| (objective, expected(objective), 0)).collect();
        Self { rate, objectives, intervals: Vec::new() }
    }

    /// A second is over. `Break` where the step is lost.
    pub fn observe(&mut self, progress: Progress<'_>) -> ControlFlow<String> {
        let interval = progress.interval;
        self.intervals.push(Interval { histograms: BTreeMap::new(), ..interval.clone() });
        if interval.is_warm_up {
            return ControlFlow::Continue(());
        }
        for (objective, _, above) in &mut self.objectives {
            let recorded = interval.histograms.get(objective.histogram);
            *above += recorded.map_or(0, |recorded| recorded.count_above(objective.limit_nanos));
        }
        if self.intervals.iter().filter(|interval| !interval.is_warm_up).count() < MEASURED_MIN {
            return ControlFlow::Continue(());
        }
        let lost = self.objectives.iter().find(|(objective, expected, above)| objective.is_lost(*above, *expected));
        match (falls_behind(&self.intervals, self.rate), lost) {
            (Some(behind), _) => ControlFlow::Break(format!("it falls behind by {}/s", rate_text(behind))),
            (None, Some((objective, ..))) => ControlFlow::Break(format!("{objective} is missed whatever comes")),
            (None, None) if progress.is_invalid => ControlFlow::Break("the load generator is late".to_owned()),
            (None, None) => ControlFlow::Continue(()),
        }
    }
}

/// By how many messages a second a run falls behind, where it is so many for some seconds that another trial would tell nothing:
/// what was not sent in time, and what was sent and not received.
pub fn falls_behind(intervals: &[Interval], rate: f64) -> Option<f64> {
    let mut backlog = 0.0;
    let mut behind = Vec::new();
    for interval in intervals {
        let unsent = rate * interval.seconds - interval.counts.published as f64;
        let growth = interval.backlog as f64 - backlog;
        backlog = interval.backlog as f64;
        if !interval.is_warm_up && interval.seconds >= WHOLE_SECONDS_MIN {
            behind.push((unsent + growth) / interval.seconds);
        }
    }
    let fluctuation = DEVIATIONS_MAX * rate.sqrt() + FLUCTUATION_MESSAGES;
    let is_beyond = |(part, seconds): (f64, usize)| {
        let last = behind.len().checked_sub(seconds).map(|from| &behind[from..]);
        last.is_some_and(|last| last.iter().all(|&behind| behind > (rate * part).max(fluctuation)))
    };
    BEYOND.into_iter().any(is_beyond).then(|| behind.last().copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_runs::interval_of;

    /// Seconds at 1000 a second: what was published, and the backlog after it; the first is warm-up.
    fn seconds(all: &[(u64, u64)]) -> Vec<Interval> {
        let of = |(second, &(published, backlog)): (u32, &(u64, u64))| {
            let mut interval = interval_of(second, &[]);
            (interval.counts.published, interval.backlog, interval.is_warm_up) = (published, backlog, second == 0);
            interval
        };
        (0..).zip(all).map(of).collect()
    }

    /// Goal: a broker that takes half of the rate, or delivers half of it, is given up after two seconds, one that takes two
    /// thirds after three; a stall of a second, a backlog of the warm-up, a broker that catches up are not.
    #[test]
    fn what_falls_behind() {
        let check = |all: &[(u64, u64)], expected: Option<f64>| {
            assert_eq!(falls_behind(&seconds(all), 1000.0), expected, "{all:?}");
        };
        check(&[(1000, 0), (400, 0), (400, 0)], Some(600.0));
        check(&[(1000, 0), (1000, 600), (1000, 1200)], Some(600.0));
        check(&[(1000, 600), (800, 1000), (800, 1400)], Some(600.0));
        check(&[(1000, 0), (667, 0), (667, 0)], None);
        check(&[(1000, 0), (667, 0), (667, 0), (667, 0)], Some(333.0));
        check(&[(1000, 0), (1000, 990), (1000, 1100), (1000, 40)], None);
        check(&[(1000, 50_000), (1000, 50_100), (1000, 50_000)], None);
        check(&[(1000, 0), (100, 0), (1900, 0), (1000, 0)], None);
        check(&[], None);
        assert_eq!(falls_behind(&seconds(&[(10, 0), (4, 0), (4, 0), (3, 0)]), 10.0), None, "few messages fluctuate");
    }

    /// Goal: an objective is given up once more latencies are beyond it than all that come may have, and not before.
    /// Method: 1000 a second for 5 seconds, so 55 of at most 5500 may be beyond p99.
    #[test]
    fn objectives_that_are_lost() {
        let options = RunOptions::try_parse_from(["-r", "1000", "-z", "5"]).expect("well-formed");
        let watch = |text: &str, late: [usize; 3], is_invalid: bool| {
            let objectives = [text.parse().expect("well-formed")];
            let mut watch = Watch::new(&options, 1000.0, &objectives);
            let ends = late.into_iter().zip(0..).map(|(late, second)| {
                let latencies: Vec<u64> =
                    (0..1000).map(|index| if index < late { 6_000_000 } else { 1_000_000 }).collect();
                let interval = interval_of(second, &[("response", &latencies)]);
                watch.observe(Progress { interval: &interval, is_invalid }).break_value().unwrap_or_default()
            });
            ends.collect::<Vec<_>>()
        };
        assert_eq!(watch("p99<5ms", [50, 5, 0], false), ["", "", ""]);
        assert_eq!(
            watch("p99<5ms", [50, 6, 0], false),
            ["", "p99<5.00ms is missed whatever comes", "p99<5.00ms is missed whatever comes"]
        );
        assert!(watch("max<5ms", [1, 0, 0], false)[1].contains("max<5.00ms"));
        assert_eq!(watch("mean<1ms", [1000; 3], false), ["", "", ""]);
        assert_eq!(watch("confirm:p99<1ms", [1000; 3], false), ["", "", ""]);
        assert!(watch("p99<5ms", [0; 3], true)[1].contains("is late"));
    }
}
