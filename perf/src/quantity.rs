//! Quantities as people read them: durations, counts, rates, octets, with three significant digits.

/// A duration in nanoseconds: `870 ns`, `1.24 ms`, `12.0 s`.
pub fn duration_text(nanos: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let nanos_exact = nanos as f64;
    scaled(nanos_exact, 1000.0, &["ns", "µs", "ms", "s"], nanos < 1000)
}

/// Octets, in powers of 1024: `512 B`, `1.50 GiB`.
pub fn octets_text(octets: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let octets_exact = octets as f64;
    scaled(octets_exact, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"], octets < 1024)
}

/// Three digits of `value`, in the largest unit that leaves something before the point.
fn scaled(mut value: f64, step: f64, units: &[&str], is_whole: bool) -> String {
    if is_whole {
        return format!("{value:.0} {}", units[0]);
    }
    let mut unit = 0;
    // What would be shown as a thousand of one unit is one of the next.
    while unit + 1 < units.len() && (value >= step || value >= 999.5 && step < 1001.0) {
        value /= step;
        unit += 1;
    }
    format!("{} {}", three_digits(value), units[unit])
}

/// A number with three significant digits, or all of its whole part.
pub fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// A count: `1,234,567`.
pub fn count_text(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate a second: `1,234,567`; below 100 with the digits that matter there.
pub fn rate_text(rate: f64) -> String {
    if !rate.is_finite() {
        return "-".to_owned();
    }
    if rate > 0.0 && rate < 99.95 {
        return three_digits(rate);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are far below 2^64")]
    count_text(rate.round().max(0.0) as u64)
}

/// Seconds since a start, as on a clock: `0:07`, `12:34`, `1:02:03`.
pub fn clock_text(seconds: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "runs end within years")]
    let seconds = seconds.max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: three digits and the unit that fits, on both sides of each limit.
    #[test]
    fn durations() {
        for (nanos, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1000, "1.00 µs"),
            (9_994, "9.99 µs"),
            (9_996, "10.0 µs"),
            (99_960, "100 µs"),
            (999_400, "999 µs"),
            (999_600, "1.00 ms"),
            (1_234_567_890, "1.23 s"),
            (3_600_000_000_000, "3600 s"),
        ] {
            assert_eq!(duration_text(nanos), text);
        }
    }

    #[test]
    fn octets() {
        for (octets, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1 << 20, "1.00 MiB"), (1000 << 20, "1000 MiB")]
        {
            assert_eq!(octets_text(octets), text);
        }
    }

    #[test]
    fn counts_and_rates() {
        for (count, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count_text(count), text);
        }
        for (rate, text) in
            [(0.0, "0"), (0.5, "0.50"), (12.34, "12.3"), (99.96, "100"), (19_999.6, "20,000"), (f64::NAN, "-")]
        {
            assert_eq!(rate_text(rate), text);
        }
        assert_eq!((clock_text(7.9), clock_text(3723.0)), ("0:07".to_owned(), "1:02:03".to_owned()));
    }
}
