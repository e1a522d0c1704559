//! How numbers are written for people, and read: durations, rates, counts, octets.

/// Name of a unit of time and how many nanoseconds it has.
pub type Unit = (&'static str, f64);

const UNITS: [Unit; 4] = [("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];

/// The unit that a duration is written in.
pub fn unit_of(nanos: f64) -> Unit {
    // A value that would be rounded to 1000 belongs to the next.
    UNITS.into_iter().rev().find(|(_, size)| nanos.abs() >= size * 0.9995).unwrap_or(UNITS[0])
}

/// `1.23 ms`.
pub fn nanos_text(nanos: f64) -> String {
    let unit = unit_of(nanos);
    format!("{} {}", number_in(nanos, unit), unit.0)
}

/// The number alone, in a given unit.
pub fn number_in(nanos: f64, (name, size): Unit) -> String {
    if name == "ns" { format!("{nanos:.0}") } else { three_digits(nanos / size) }
}

/// A duration in whole nanoseconds: `870 ns`, `1.24 ms`, `12.0 s`.
pub fn duration_text(nanos: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    nanos_text(nanos as f64)
}

/// Three significant digits; all of them before the decimal point.
pub fn three_digits(value: f64) -> String {
    let size = value.abs();
    let decimals = if size < 9.995 { 2 } else { usize::from(size < 99.95) };
    format!("{value:.decimals$}")
}

/// A ratio: three significant digits, or two where it is below 1, however small.
pub fn ratio_text(ratio: f64) -> String {
    let size = ratio.abs();
    if size >= 0.0995 || size == 0.0 || !size.is_finite() {
        return three_digits(ratio);
    }
    if size < 0.000_095 {
        return format!("{ratio:.1e}");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 2 to 5")]
    let zeros = (-size.log10()).ceil() as usize;
    format!("{ratio:.0$}", zeros + 1)
}

/// `12.3k`, `1.23M`.
pub fn short_rate_text(rate: f64) -> String {
    let size = rate.abs();
    if size < 999.5 {
        if size < 99.95 && size.fract() != 0.0 { three_digits(rate) } else { format!("{rate:.0}") }
    } else if size < 999_500.0 {
        format!("{}k", three_digits(rate / 1e3))
    } else {
        format!("{}M", three_digits(rate / 1e6))
    }
}

/// `5ms`, `1.5 s`, `200us`, in nanoseconds; `None` where it is no duration with its unit.
pub fn parse_duration(text: &str) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let size = match unit.trim() {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "min" => 60e9,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * size)
}

/// `100k`, `1.5M/s`, `20000`; `None` where it is no rate.
pub fn parse_rate(text: &str) -> Option<f64> {
    let text = text.trim();
    let text = text.strip_suffix("/s").unwrap_or(text);
    let (number, factor) = match text.chars().last()? {
        'k' | 'K' => (&text[..text.len() - 1], 1e3),
        'M' => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let rate = number.trim().parse::<f64>().ok()? * factor;
    (rate.is_finite() && rate >= 0.0).then_some(rate)
}

/// Octets, in powers of 1024: `512 B`, `1.50 GiB`.
pub fn octets_text(octets: u64) -> String {
    const NAMES: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if octets < 1024 {
        return format!("{octets} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = octets as f64 / 1024.0;
    let mut unit = 0;
    while unit + 1 < NAMES.len() && value >= 1024.0 {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), NAMES[unit])
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

    /// Goal: small ratios keep digits that say something.
    #[test]
    fn ratios() {
        for (ratio, expected) in [
            (123.4, "123"),
            (12.34, "12.3"),
            (1.0, "1.00"),
            (0.857, "0.86"),
            (0.1, "0.10"),
            (0.0999, "0.10"),
            (0.042, "0.042"),
            (0.004_16, "0.0042"),
            (0.000_41, "0.00041"),
            (0.000_001_23, "1.2e-6"),
            (0.0, "0.00"),
        ] {
            assert_eq!(ratio_text(ratio), expected, "{ratio}");
        }
    }

    #[test]
    fn durations() {
        for (nanos, text) in [
            (0.0, "0 ns"),
            (999.0, "999 ns"),
            (1_000.0, "1.00 µs"),
            (12_345.0, "12.3 µs"),
            (123_456.0, "123 µs"),
            (999_999.0, "1.00 ms"),
            (9_996_000.0, "10.0 ms"),
            (1_234_567_890.0, "1.23 s"),
            (3_600e9, "3600 s"),
        ] {
            assert_eq!(nanos_text(nanos), text);
        }
        for (text, nanos) in
            [("5ms", Some(5e6)), ("1.5 s", Some(1.5e9)), ("200us", Some(2e5)), ("5", None), ("ms", None)]
        {
            assert_eq!(parse_duration(text), nanos, "{text}");
        }
    }

    #[test]
    fn rates() {
        for (rate, text) in [(0.0, "0"), (2.5, "2.50"), (999.0, "999"), (20_000.0, "20.0k"), (999_900.0, "1.00M")] {
            assert_eq!(short_rate_text(rate), text);
        }
        for (text, rate) in
            [("100k", Some(1e5)), ("1.5M/s", Some(1.5e6)), ("20000", Some(2e4)), ("x", None), ("-1", None)]
        {
            assert_eq!(parse_rate(text), rate, "{text}");
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
