//! The quantiles of tables, how they are called, and what a histogram of few values can say of them.

use super::Recorded;

/// Of every table, with their names.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// The quantile that `p99.9` names; `None` where the text is no such name or is not between 0 and 100.
pub fn from_name(name: &str) -> Option<f64> {
    let digits = name.strip_prefix('p')?;
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    // Divided by the parser, which rounds once: 99.9 / 100.0 is not 0.999.
    let quantile: f64 = format!("{digits}e-2").parse().ok()?;
    (0.0..=1.0).contains(&quantile).then_some(quantile)
}

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

    #[test]
    fn names() {
        for (name, quantile) in QUANTILES {
            assert_eq!(from_name(name), Some(quantile), "{name}");
        }
        for name in ["p", "99", "p101", "p-1", "p1e1", "pinf", "max", "p9.9.9"] {
            assert_eq!(from_name(name), None, "{name}");
        }
    }

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
