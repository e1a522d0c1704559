//! The quantiles of tables, and how they are called.

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
}
