//! Whether a backlog grows: the median of the slopes between all its points, which a spike does not move.

use crate::result::Run;

/// A backlog that grows by more than this part of the rate will not stay bounded.
const GROWTH_PART_MAX: f64 = 0.005;
/// Growth that a fluctuation of this many seconds' messages may explain is none.
const FLUCTUATION_SECONDS: f64 = 0.01;
/// Few messages are never a trend.
const FLUCTUATION_MESSAGES: f64 = 10.0;
/// The part of all pairs of points that must ascend more than descend (Kendall's tau) for a trend.
const ASCENT_MIN: f64 = 0.5;
/// More points than this are thinned out; pairs grow as their square.
const POINTS_MAX: usize = 500;

/// How a backlog went on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BacklogTrend {
    /// Messages a second (Theil and Sen's estimate).
    pub slope: f64,
    /// Pairs of points that ascend less those that descend, as a part of all: 1 where it only grows.
    pub ascent: f64,
    /// From the first point to the last, in seconds.
    pub seconds: f64,
}

impl BacklogTrend {
    /// Of the measured time; flat where it has fewer than three points.
    pub fn of(run: &Run) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "backlogs are far below 2^53")]
        let points: Vec<(f64, f64)> = run
            .measured()
            .map(|interval| (interval.start_seconds + interval.seconds, interval.backlog as f64))
            .collect();
        Self::of_points(&points)
    }

    /// `points` are seconds and messages, in the order of time.
    pub fn of_points(points: &[(f64, f64)]) -> Self {
        let stride = points.len().div_ceil(POINTS_MAX).max(1);
        let points: Vec<(f64, f64)> = points.iter().copied().step_by(stride).collect();
        let [first, _, .., last] = points.as_slice() else { return Self::default() };
        let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
        let (mut ascending, mut descending) = (0_u32, 0_u32);
        for (index, from) in points.iter().enumerate() {
            for to in &points[index + 1..] {
                ascending += u32::from(to.1 > from.1);
                descending += u32::from(to.1 < from.1);
                if to.0 > from.0 {
                    slopes.push((to.1 - from.1) / (to.0 - from.0));
                }
            }
        }
        if slopes.is_empty() {
            return Self::default();
        }
        slopes.sort_unstable_by(f64::total_cmp);
        let slope = f64::midpoint(slopes[(slopes.len() - 1) / 2], slopes[slopes.len() / 2]);
        let ascent = (f64::from(ascending) - f64::from(descending)) / slopes.len() as f64;
        Self { slope, ascent, seconds: last.0 - first.0 }
    }

    /// Whether it grows without an end at this rate of messages a second: steadily, by a part of the rate that matters,
    /// and by more than it fluctuates.
    pub fn grows(&self, rate: f64) -> bool {
        let grown = self.slope * self.seconds;
        self.ascent >= ASCENT_MIN
            && self.slope > rate * GROWTH_PART_MAX
            && grown > (rate * FLUCTUATION_SECONDS).max(FLUCTUATION_MESSAGES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn trend(backlogs: impl IntoIterator<Item = f64>) -> BacklogTrend {
        let points: Vec<(f64, f64)> = backlogs.into_iter().zip(0..).map(|(y, x)| (f64::from(x), y)).collect();
        BacklogTrend::of_points(&points)
    }

    /// Goal: only what grows steadily, and by enough, counts; one spike does not, wherever it is.
    #[test]
    fn growth_and_fluctuation() {
        let rate = 10_000.0;
        assert!(trend((0..5).map(|second| 500.0 * f64::from(second))).grows(rate));
        assert!(trend([10.0, 480.0, 1100.0, 900.0, 2000.0]).grows(rate));
        for flat in [
            vec![0.0; 10],
            vec![5.0, 90.0, 3.0, 40.0, 60.0],
            vec![5.0, 5.0, 90_000.0, 5.0, 5.0],
            vec![5.0, 5.0, 5.0, 5.0, 90_000.0],
            vec![90_000.0, 5.0, 5.0, 5.0, 5.0],
            vec![0.0, 20.0, 40.0, 60.0, 80.0],
            vec![4000.0, 3000.0, 2000.0, 1000.0, 0.0],
        ] {
            assert!(!trend(flat.iter().copied()).grows(rate), "{flat:?}");
        }
    }

    /// Goal: too few points, or all at one time, are no trend.
    #[test]
    fn too_little_to_say() {
        assert_eq!(trend([]), BacklogTrend::default());
        assert_eq!(trend([1.0, 1e9]), BacklogTrend::default());
        assert_eq!(BacklogTrend::of_points(&[(1.0, 1.0), (1.0, 5.0), (1.0, 9.0)]), BacklogTrend::default());
    }

    /// Goal: a queue under less than its capacity is flat and under more is not, with every seed.
    /// Method: a random walk with Poisson-like steps at 98 % and 103 % of the capacity, one hundred seeds each.
    #[test]
    fn noisy_queues() {
        let grows = |seed, load: f64| {
            let mut random = Random::new(seed);
            let (capacity, mut backlog) = (20_000.0, 0.0_f64);
            let points = (0..8).map(|_| {
                // Normal by the sum of twelve, with the variance of arrivals and services together.
                let normal: f64 = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
                backlog = (backlog + capacity * (load - 1.0) + normal * (2.0 * capacity).sqrt()).max(0.0);
                backlog
            });
            trend(points.collect::<Vec<_>>()).grows(capacity * load)
        };
        for seed in 0..100 {
            assert!(!grows(seed, 0.98), "seed {seed}");
            assert!(grows(seed, 1.03), "seed {seed}");
        }
    }

    /// Goal: a long run takes a moment, not a minute.
    #[test]
    fn many_points() {
        let trend = trend((0..100_000).map(f64::from));
        assert!((trend.slope - 1.0).abs() < 1e-9 && trend.ascent > 0.999);
    }
}
