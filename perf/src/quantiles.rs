//! Which quantiles are shown, and what a histogram of few values can say of them.

use crate::result::Recorded;

/// Those of every table, with their names; the longest, `max`, is quantile 1.
pub const QUANTILES: [(&str, f64); 7] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// The value at a quantile, in nanoseconds; `None` where nothing was recorded.
pub fn at(recorded: &Recorded, quantile: f64) -> Option<u64> {
    (!recorded.is_empty()).then(|| recorded.0.value_at_quantile(quantile))
}

/// Whether so few values cannot tell this quantile from the longest: less than one of them lies beyond it.
pub fn is_beyond_resolution(count: u64, quantile: f64) -> bool {
    #[allow(clippy::cast_precision_loss, reason = "counts that matter here are small")]
    let beyond = count as f64 * (1.0 - quantile);
    // 1 - 0.9999 is not exact: what is a whole by hand must not fall below it here.
    quantile < 1.0 && beyond < 1.0 - 1e-6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: p99.99 needs ten thousand values, p50 two.
    #[test]
    fn resolution() {
        for (quantile, enough) in [(0.5, 2), (0.9, 10), (0.99, 100), (0.999, 1000), (0.9999, 10_000)] {
            assert!(!is_beyond_resolution(enough, quantile), "{quantile}");
            assert!(is_beyond_resolution(enough - 1, quantile), "{quantile}");
        }
        assert!(!is_beyond_resolution(1, 1.0));
    }

    #[test]
    fn nothing_recorded_has_no_quantile() {
        let mut recorded = Recorded::default();
        assert_eq!(at(&recorded, 0.5), None);
        recorded.record(7);
        assert_eq!(at(&recorded, 1.0), Some(7));
    }
}
