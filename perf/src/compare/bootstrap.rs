//! Intervals of confidence by resampling.
//!
//! Percentiles are never averaged: whole intervals of a run are drawn, with replacement, as many as there are; their histograms
//! are added, and the quantile is taken of the sum. Where there are several rounds, first rounds are drawn and then intervals
//! of each, so that what differs from round to round counts. Columns that were made in the same rounds have the same rounds
//! drawn: what drifts from round to round hits both, and not their ratio. The interval of confidence reaches from the 2.5th to the 97.5th
//! percentile of what the draws give; that of a ratio is made of the draws of both sides.
//!
//! Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, sections 8 and 13.

use super::metric::Metric;
use crate::compare::column::{Column, Source};
use crate::random::Random;
use crate::result::{Counts, DiskUse, Interval, Run};

/// With fewer intervals nothing can be said.
const INTERVALS_MIN: usize = 5;
/// With fewer messages beyond a quantile nothing can be said of it.
const BEYOND_MIN: f64 = 10.0;

/// A value and how sure it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Of all that was measured.
    pub value: f64,
    /// From, to, with 95 % confidence; `None` where it cannot be given.
    pub interval: Option<(f64, f64)>,
    /// Whether it rests on so few messages that another run may show something else.
    pub is_rare: bool,
    /// What each draw gives; empty where there is no interval.
    draws: Vec<f64>,
}

impl Estimate {
    /// A value without more.
    fn bare(value: f64, is_rare: bool) -> Self {
        Self { value, interval: None, is_rare, draws: Vec::new() }
    }

    /// This by the other; `None` where the other is 0.
    pub fn ratio_to(&self, other: &Self) -> Option<Self> {
        if other.value <= 0.0 {
            return None;
        }
        let ratios = self.draws.iter().zip(&other.draws).filter(|(_, other)| **other > 0.0);
        let draws: Vec<f64> = ratios.map(|(own, other)| own / other).collect();
        let value = self.value / other.value;
        Some(Self { value, interval: interval_of(&draws), is_rare: self.is_rare || other.is_rare, draws: Vec::new() })
    }
}

/// What is drawn follows from these. Columns with the same seed of rounds have the same rounds drawn.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// For rounds.
    pub rounds: u64,
    /// For the intervals of each.
    pub intervals: u64,
}

/// One interval of a run.
struct Unit {
    /// Messages in each of [`Units::values`].
    messages: Vec<u32>,
    counts: Counts,
    seconds: f64,
    broker_cpu_seconds: Option<f64>,
    broker_disk_octets: Option<u64>,
}

/// Latencies in nanoseconds and how many messages had them, rising.
type Buckets = Vec<(u64, u64)>;

/// A column as it is drawn from.
struct Units {
    /// Latencies in nanoseconds, rising.
    values: Vec<f64>,
    rounds: Vec<Vec<Unit>>,
}

/// Sums of some units.
#[derive(Clone)]
struct Sums {
    /// Up to and with each of the values.
    messages: Vec<u64>,
    counts: Counts,
    seconds: f64,
    broker_cpu_seconds: Option<f64>,
    broker_disk_octets: Option<u64>,
}

/// What a column shows of each metric; `None` where it shows nothing of it.
pub fn estimates(
    column: &Column,
    histogram: Option<&str>,
    metrics: &[Metric],
    draws: usize,
    seeds: Seeds,
) -> Vec<Option<Estimate>> {
    if let Source::Distribution(distribution) = &column.source {
        let value = |metric: &Metric| match metric {
            _ if histogram.is_none_or(|name| column.own_name(name).is_none()) => None,
            Metric::Quantile(_, quantile) => distribution.nanos_at(*quantile),
            Metric::Max => distribution.nanos_at(1.0),
            _ => None,
        };
        return metrics.iter().map(|metric| value(metric).map(|value| Estimate::bare(value, false))).collect();
    }
    let units = Units::new(column, histogram.and_then(|name| column.own_name(name)));
    let mut all = units.all();
    let own_cpu: Option<f64> = column.runs().iter().map(|run| run.broker.map(|broker| broker.cpu_seconds)).sum();
    let has_cpu = all.broker_cpu_seconds.is_some();
    // What is said of the whole run is the more exact.
    let cpu_scale =
        own_cpu.zip(all.broker_cpu_seconds).map_or(1.0, |(own, sum)| if sum > 0.0 { own / sum } else { 1.0 });
    all.broker_cpu_seconds = own_cpu.or(all.broker_cpu_seconds);
    let mut random = (Random::new(seeds.rounds), Random::new(seeds.intervals));
    let is_enough = units.rounds.iter().map(Vec::len).sum::<usize>() >= INTERVALS_MIN;
    let sums: Vec<Sums> = (0..if is_enough { draws } else { 0 }).map(|_| units.draw(&mut random, cpu_scale)).collect();
    let estimate = |metric: &Metric| {
        let value = all.value(metric, &units.values)?;
        let is_rare = match metric {
            Metric::Quantile(_, quantile) => (1.0 - quantile) * all.messages_count() as f64 <= BEYOND_MIN,
            _ => false,
        };
        // Nothing that is drawn is beyond the longest that was seen: it has no interval of this kind.
        if is_rare || *metric == Metric::Max || (*metric == Metric::PerCpuSecond && !has_cpu) {
            return Some(Estimate::bare(value, is_rare));
        }
        let draws: Vec<f64> = sums.iter().filter_map(|sums| sums.value(metric, &units.values)).collect();
        Some(Estimate { value, interval: interval_of(&draws), is_rare, draws })
    };
    metrics.iter().map(estimate).collect()
}

/// Where 95 % of the draws are.
fn interval_of(draws: &[f64]) -> Option<(f64, f64)> {
    if draws.is_empty() {
        return None;
    }
    let mut sorted = draws.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some((at(&sorted, 0.025), at(&sorted, 0.975)))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index between 0 and the length")]
fn at(sorted: &[f64], quantile: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * quantile).round() as usize]
}

impl Units {
    fn new(column: &Column, histogram: Option<&str>) -> Self {
        let recorded = |interval: &Interval| -> Buckets {
            let recorded = histogram.and_then(|name| interval.histograms.get(name)).map(|recorded| &recorded.0);
            recorded.map_or_else(Vec::new, |histogram| {
                histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
            })
        };
        let mut runs: Vec<&Run> = column.runs().iter().collect();
        runs.sort_by_key(|run| run.round);
        let rounds: Vec<Vec<(&Interval, Buckets)>> = runs
            .into_iter()
            .map(|run| run.measured().map(|interval| (interval, recorded(interval))).collect())
            .collect();
        let mut nanos: Vec<u64> =
            rounds.iter().flatten().flat_map(|(_, buckets)| buckets.iter().map(|bucket| bucket.0)).collect();
        nanos.sort_unstable();
        nanos.dedup();
        let unit = |(interval, buckets): (&Interval, Buckets)| {
            let mut messages = vec![0; nanos.len()];
            for (value, count) in buckets {
                let index = nanos.binary_search(&value).expect("collected above");
                messages[index] = u32::try_from(count).unwrap_or(u32::MAX);
            }
            let Interval { counts, seconds, broker_cpu_seconds, broker_disk_octets, .. } = *interval;
            Unit { messages, counts, seconds, broker_cpu_seconds, broker_disk_octets }
        };
        let rounds: Vec<Vec<Unit>> = rounds.into_iter().map(|round| round.into_iter().map(unit).collect()).collect();
        let rounds = rounds.into_iter().filter(|round| !round.is_empty()).collect();
        Self { values: nanos.into_iter().map(|nanos| nanos as f64).collect(), rounds }
    }

    fn none(&self) -> Sums {
        Sums {
            messages: vec![0; self.values.len()],
            counts: Counts::default(),
            seconds: 0.0,
            broker_cpu_seconds: Some(0.0),
            broker_disk_octets: Some(0),
        }
    }

    fn all(&self) -> Sums {
        let mut sums = self.none();
        self.rounds.iter().flatten().for_each(|unit| sums.add(unit));
        sums.accumulated()
    }

    fn draw(&self, (rounds, intervals): &mut (Random, Random), cpu_scale: f64) -> Sums {
        let mut sums = self.none();
        for _ in 0..self.rounds.len() {
            let round = &self.rounds[rounds.below(self.rounds.len())];
            for _ in 0..round.len() {
                sums.add(&round[intervals.below(round.len())]);
            }
        }
        sums.broker_cpu_seconds = sums.broker_cpu_seconds.map(|seconds| seconds * cpu_scale);
        sums.accumulated()
    }
}

impl Sums {
    fn add(&mut self, unit: &Unit) {
        for (sum, &more) in self.messages.iter_mut().zip(&unit.messages) {
            *sum += u64::from(more);
        }
        self.counts += unit.counts;
        self.seconds += unit.seconds;
        self.broker_cpu_seconds = self.broker_cpu_seconds.zip(unit.broker_cpu_seconds).map(|(sum, more)| sum + more);
        self.broker_disk_octets = self.broker_disk_octets.zip(unit.broker_disk_octets).map(|(sum, more)| sum + more);
    }

    fn accumulated(mut self) -> Self {
        let mut sum = 0;
        for messages in &mut self.messages {
            sum += *messages;
            *messages = sum;
        }
        self
    }

    fn messages_count(&self) -> u64 {
        self.messages.last().copied().unwrap_or(0)
    }

    fn value(&self, metric: &Metric, values: &[f64]) -> Option<f64> {
        let per = |count: u64, time: f64| (count > 0 && time > 0.0).then(|| count as f64 / time);
        let main = match self.counts.primary() {
            // A log of another tool tells nothing but latencies: each is of one message.
            0 => self.messages_count(),
            count => count,
        };
        match metric {
            Metric::Quantile(_, quantile) => self.quantile(*quantile, values),
            Metric::Max => self.quantile(1.0, values),
            Metric::Mean => self.mean(values),
            Metric::Rate => per(main, self.seconds),
            Metric::Published => per(self.counts.published, self.seconds),
            Metric::Confirmed => per(self.counts.confirmed, self.seconds),
            Metric::Received => per(self.counts.received, self.seconds),
            Metric::Operations => per(self.counts.operations, self.seconds),
            Metric::PerCpuSecond => per(main, self.broker_cpu_seconds?),
            Metric::Disk => Some(DiskUse::of(self.counts, self.broker_disk_octets?)?.octets_per_message),
            Metric::Amplification => DiskUse::of(self.counts, self.broker_disk_octets?)?.amplification,
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of messages, at least 1")]
    fn quantile(&self, quantile: f64, values: &[f64]) -> Option<f64> {
        let total = self.messages_count();
        if total == 0 {
            return None;
        }
        // 0.99 * 100 is a little more than 99.
        let rank = ((quantile * total as f64) * (1.0 - 1e-12)).ceil().max(1.0) as u64;
        Some(values[self.messages.partition_point(|&up_to| up_to < rank)])
    }

    fn mean(&self, values: &[f64]) -> Option<f64> {
        let mut before = 0;
        let mut sum = 0.0;
        for (&up_to, value) in self.messages.iter().zip(values) {
            sum += (up_to - before) as f64 * value;
            before = up_to;
        }
        (before > 0).then(|| sum / before as f64)
    }
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
