//! Latency histograms: nanoseconds from 1 to an hour, to three significant digits.

use hdrhistogram::Histogram;

/// Longer latencies count as this.
const NANOS_MAX: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// The quantiles of every table, with their names.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// A histogram that takes many equal latencies, one after the other, at the price of one.
pub struct Latencies {
    histogram: Histogram<u64>,
    run_nanos: u64,
    run_count: u64,
}

impl Latencies {
    /// Empty.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, NANOS_MAX, SIGNIFICANT_DIGITS).expect("the bounds are valid");
        Self { histogram, run_nanos: 0, run_count: 0 }
    }

    /// One more message took so long.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        if nanos == self.run_nanos {
            self.run_count += 1;
        } else {
            self.end_run();
            self.run_nanos = nanos;
            self.run_count = 1;
        }
    }

    fn end_run(&mut self) {
        if self.run_count > 0 {
            self.histogram.saturating_record_n(self.run_nanos.max(1), self.run_count);
            self.run_count = 0;
        }
    }

    /// All that was recorded.
    pub fn into_histogram(mut self) -> Histogram<u64> {
        self.end_run();
        self.histogram
    }
}

/// All histograms as one; `None` where nothing was recorded.
pub fn merged(all: impl IntoIterator<Item = Latencies>) -> Option<Histogram<u64>> {
    let mut sum = Latencies::new().into_histogram();
    for latencies in all {
        sum.add(latencies.into_histogram()).expect("all have the same bounds");
    }
    (!sum.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value at a quantile, by sorting: what the histogram is to agree with.
    fn exact(sorted: &[u64], quantile: f64) -> u64 {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small"
        )]
        let rank = (quantile * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }

    fn check(values: &[u64]) {
        let mut halves = [Latencies::new(), Latencies::new()];
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        for (index, &nanos) in values.iter().enumerate() {
            halves[index % 2].record(nanos);
        }
        let histogram = merged(halves).expect("something was recorded");
        assert_eq!(histogram.len(), values.len() as u64);
        for (name, quantile) in QUANTILES.into_iter().chain([("max", 1.0)]) {
            let (found, right) = (histogram.value_at_quantile(quantile), exact(&sorted, quantile));
            assert!(found.abs_diff(right) * 1000 <= right, "{name}: {found}, not {right}");
        }
    }

    /// Goal: quantiles are right to a thousandth.
    /// Method: runs of equal values, even and skewed distributions from a generator with a fixed seed, against sorting.
    #[test]
    fn quantiles_against_sorted_values() {
        check(&[7; 1000]);
        check(&(1..=100_000).collect::<Vec<_>>());
        let mut state = 88_172_645_463_325_252_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        check(&(0..200_000).map(|_| 1 + next() % 50_000_000).collect::<Vec<_>>());
        check(&(0..200_000).map(|_| (1 << (next() % 40)) + next() % 1000).collect::<Vec<_>>());
    }

    /// Goal: nothing is lost at the ends of the range.
    #[test]
    fn the_ends_of_the_range() {
        let mut latencies = Latencies::new();
        latencies.record(0);
        latencies.record(u64::MAX);
        let histogram = latencies.into_histogram();
        assert_eq!(histogram.len(), 2);
        assert!(histogram.max() >= NANOS_MAX);
        assert!(merged([Latencies::new()]).is_none());
    }
}
