//! Intervals of confidence against data whose true quantiles are known.

use super::*;
use crate::result::{Recorded, histogram, sample};

/// A run whose latencies are exponential with a mean, so many intervals of so many messages.
fn exponential(mean: f64, intervals: usize, messages: usize, random: &mut Random) -> Run {
    let mut run = sample::bare("x", "Lepus", 0);
    run.broker = None;
    run.intervals = (0..intervals)
        .map(|_| {
            let mut recorded = Recorded::default();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]
            (0..messages).for_each(|_| recorded.record((-mean * random.unit().ln()) as u64));
            let counts = Counts { received: messages as u64, ..Counts::default() };
            let histograms = [(histogram::SERVICE.to_owned(), recorded)].into();
            Interval { seconds: 1.0, counts, histograms, ..Interval::default() }
        })
        .collect();
    run
}

impl Seeds {
    fn of(seed: u64) -> Self {
        Self { rounds: seed, intervals: !seed }
    }
}

fn p(name: &str) -> Metric {
    Metric::from_name(name).expect("a name")
}

/// Goal: values are those of the merged histogram exactly.
#[test]
fn values_are_those_of_the_histogram() {
    let columns = Column::of_runs("a", sample::two_brokers(2).runs);
    for column in &columns {
        for name in ["response", "confirm"] {
            let histogram = column.histogram(name).expect("there").0;
            let metrics = ["p0", "p50", "p90", "p99", "p99.9", "p99.99", "p100", "max"].map(p);
            let found = estimates(column, Some(name), &metrics, 0, Seeds::of(1));
            for (metric, found) in metrics.iter().zip(found) {
                let quantile = match metric {
                    Metric::Quantile(_, quantile) => *quantile,
                    _ => 1.0,
                };
                let right = histogram.highest_equivalent(histogram.value_at_quantile(quantile));
                assert!((found.expect("there").value - right as f64).abs() < 0.5, "{metric:?}");
            }
        }
    }
}

/// Goal: 95 % intervals hold the truth in about 95 % of experiments.
/// Method: 120 experiments with exponential latencies, whose quantiles are -mean·ln(1-q), of 30 intervals of 200 messages each.
#[test]
fn intervals_hold_the_truth() {
    let mean = 1e4;
    let mut random = Random::new(7);
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        let truth = -mean * f64::ln(1.0 - quantile);
        let mut held = 0;
        for seed in 0..120 {
            let column = Column::of_runs("a", vec![exponential(mean, 30, 200, &mut random)]).remove(0);
            let found = estimates(&column, Some("service"), &[p(name)], 200, Seeds::of(seed)).remove(0).expect("there");
            let (from, to) = found.interval.expect("30 intervals");
            // Values have three digits.
            held += u32::from(from * 0.999 <= truth && truth <= to * 1.001);
        }
        assert!((104..=119).contains(&held), "{name}: {held} of 120");
    }
}

/// Goal: what differs from round to round makes intervals wider, and they still hold the truth mostly.
/// Method: eight rounds, the mean of each drawn; the true median is that of a very large mixture.
#[test]
fn rounds_that_differ_count() {
    let mut random = Random::new(11);
    let mean = |random: &mut Random| 1e4 * (0.5 + random.unit());
    let mut mixture = Recorded::default();
    for _ in 0..500 {
        let run = exponential(mean(&mut random), 1, 200, &mut random);
        mixture.add(&run.histogram("service").expect("there"));
    }
    let truth = mixture.0.value_at_quantile(0.5) as f64;
    let (mut held, mut width) = (0, 0.0);
    for seed in 0..80 {
        let runs = (0..8).map(|_| exponential(mean(&mut random), 5, 100, &mut random)).collect();
        let column = Column::of_runs("a", runs).remove(0);
        let found = estimates(&column, Some("service"), &[p("p50")], 200, Seeds::of(seed)).remove(0).expect("there");
        let (from, to) = found.interval.expect("40 intervals");
        held += u32::from(from <= truth && truth <= to);
        width += (to - from) / truth / 80.0;
    }
    assert!((64..=79).contains(&held), "{held} of 80");
    let column = Column::of_runs("a", vec![exponential(1e4, 40, 100, &mut random)]).remove(0);
    let (from, to) = estimates(&column, Some("service"), &[p("p50")], 200, Seeds::of(1))
        .remove(0)
        .and_then(|one| one.interval)
        .expect("there");
    assert!(width > 2.0 * (to - from) / truth, "{width}");
}

/// Goal: the interval of a ratio holds the true ratio, and tells a difference of a tenth from none.
#[test]
fn ratios() {
    let mut random = Random::new(5);
    let mut estimate = |mean: f64| {
        let column = Column::of_runs("a", vec![exponential(mean, 30, 1000, &mut random)]).remove(0);
        estimates(&column, Some("service"), &[p("p90")], 1000, Seeds::of(3)).remove(0).expect("there")
    };
    let (first, slower, same) = (estimate(1e4), estimate(1.1e4), estimate(1e4));
    let (from, to) = slower.ratio_to(&first).and_then(|ratio| ratio.interval).expect("there");
    assert!(from > 1.0 && from < 1.1 && 1.1 < to + 0.02, "{from} {to}");
    let (from, to) = same.ratio_to(&first).and_then(|ratio| ratio.interval).expect("there");
    assert!(from < 1.0 && to > 1.0, "{from} {to}");
}

/// Goal: where nothing can be said nothing is said: the longest, few intervals, few messages beyond; a seed gives the same.
#[test]
fn no_intervals_without_grounds() {
    let mut random = Random::new(5);
    let column =
        |intervals, random: &mut Random| Column::of_runs("a", vec![exponential(1e4, intervals, 100, random)]).remove(0);
    let metrics = ["p50", "p99.9", "max", "rate"].map(p);
    let many = column(10, &mut random);
    let found: Vec<Estimate> =
        estimates(&many, Some("service"), &metrics, 50, Seeds::of(1)).into_iter().flatten().collect();
    assert_eq!(found.iter().map(|one| one.interval.is_some()).collect::<Vec<_>>(), [true, false, false, true]);
    assert!(found[1].is_rare && !found[0].is_rare);
    assert_eq!(
        found,
        estimates(&many, Some("service"), &metrics, 50, Seeds::of(1)).into_iter().flatten().collect::<Vec<_>>()
    );
    assert_ne!(
        found[0].draws,
        estimates(&many, Some("service"), &metrics, 50, Seeds::of(2)).remove(0).expect("there").draws
    );
    let few = column(4, &mut random);
    assert!(
        estimates(&few, Some("service"), &metrics, 50, Seeds::of(1)).iter().flatten().all(|one| one.interval.is_none())
    );
    assert_eq!(estimates(&many, Some("confirm"), &metrics[..1], 50, Seeds::of(1)), [None]);
}

/// Goal: what drifts from round to round does not blur the ratio of columns that were made in the same rounds.
/// Method: six rounds whose mean is up to three times another's, the second column always a fifth slower.
#[test]
fn rounds_are_drawn_in_pairs() {
    let mut random = Random::new(3);
    let means = [1e4, 3e4, 1.5e4, 2.5e4, 1e4, 2e4];
    let mut column = |factor: f64| {
        let runs = (0..).zip(means).map(|(round, mean)| {
            let run = exponential(mean * factor, 5, 1000, &mut random);
            Run { round, ..run }
        });
        Column::of_runs("a", runs.collect()).remove(0)
    };
    let (first, mut second) = (column(1.0), column(1.2));
    // Rounds belong together by their numbers, wherever they stand in the file.
    let Source::Runs(runs) = &mut second.source else { panic!("runs") };
    runs.reverse();
    let width = |rounds: [u64; 2]| {
        let estimate = |column, rounds, intervals| {
            estimates(column, Some("service"), &[p("p50")], 1000, Seeds { rounds, intervals }).remove(0).expect("there")
        };
        let ratio = estimate(&second, rounds[1], 2).ratio_to(&estimate(&first, rounds[0], 1)).expect("there");
        let (from, to) = ratio.interval.expect("30 intervals");
        assert!(from < 1.2 && 1.2 < to, "{from} {to}");
        to - from
    };
    let (paired, unpaired) = (width([7, 7]), width([7, 8]));
    assert!(paired * 3.0 < unpaired, "{paired} {unpaired}");
}
