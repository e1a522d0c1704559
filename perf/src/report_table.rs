//! The report as people read it.

use std::fmt;

use crate::report::{Check, Rate, Report};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { broker, machine, .. } = self;
        let name = if broker.product.is_empty() { "unknown broker" } else { &broker.product };
        writeln!(f, "{name} {} on {}, {} cores, {}", broker.version, machine.cpu_model, machine.cores, machine.kernel)?;
        writeln!(f, "measured {:.1} s; load on cores {:?}\n", self.window_seconds, machine.load_cores)?;
        writeln!(f, "{:<22}{:>12}{:>12}{:>12}{:>12}", "messages a second", "median", "min", "max", "mean")?;
        let rates = [
            ("published", self.rates.published),
            ("confirmed", self.rates.confirmed),
            ("received", self.rates.received),
        ];
        for (name, rate) in rates {
            if let Some(Rate { mean, median, min, max }) = rate {
                writeln!(f, "  {name:<20}{median:>12.0}{min:>12.0}{max:>12.0}{mean:>12.0}")?;
            }
        }
        self.write_latencies(f)?;
        if let Some(usage) = &self.broker_usage {
            write!(f, "\nbroker {}: {:.2} CPU seconds", usage.pid, usage.cpu_seconds)?;
            for (name, rate) in
                [("published", usage.published_per_cpu_second), ("received", usage.received_per_cpu_second)]
            {
                if let Some(rate) = rate {
                    write!(f, ", {rate:.0} {name} in each")?;
                }
            }
            let (before, after) = (mebibytes(usage.resident_octets_before), mebibytes(usage.resident_octets_after));
            writeln!(f, "; {before:.1} MiB resident before, {after:.1} MiB after")?;
        }
        writeln!(f, "load: {:.2} CPU seconds", self.load_cpu_seconds)?;
        write_check(f, &self.check)
    }
}

impl Report {
    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.latencies.first() else { return Ok(()) };
        write!(f, "\n{:<12}", "latency")?;
        for (name, _) in &first.quantiles_nanos {
            write!(f, "{name:>10}")?;
        }
        writeln!(f, "{:>10}  {:>11}", "max", "messages")?;
        for latency in &self.latencies {
            write!(f, "  {:<10}", latency.name)?;
            for (_, nanos) in &latency.quantiles_nanos {
                write!(f, "{:>10}", duration_text(*nanos))?;
            }
            writeln!(f, "{:>10}  {:>11}  {}", duration_text(latency.max_nanos), latency.count, latency.meaning)?;
        }
        Ok(())
    }
}

fn write_check(f: &mut fmt::Formatter<'_>, check: &Check) -> fmt::Result {
    let totals = check.totals;
    write!(f, "\n{} published, {} received", totals.published, totals.received)?;
    let faults = [
        ("lost", check.faults.lost),
        ("doubled", check.faults.duplicated),
        ("reordered", check.faults.reordered),
        ("foreign", check.faults.foreign),
        ("refused", check.nacked),
        ("unconfirmed", check.unconfirmed),
        ("not sent in time", check.unsent),
    ];
    for (name, count) in faults.into_iter().filter(|(_, count)| *count > 0) {
        write!(f, ", {count} {}", name.to_uppercase())?;
    }
    if check.blocked > 0 {
        write!(f, ", publishers blocked {} times", check.blocked)?;
    }
    if check.is_interrupted {
        write!(f, ", interrupted")?;
    }
    writeln!(f, "{}", if check.is_right() { ": all right" } else { ": NOT RIGHT" })?;
    for failure in &check.failures {
        writeln!(f, "  {failure}")?;
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "memory is far below 2^53 octets")]
fn mebibytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}

/// Three significant digits and a unit.
pub fn duration_text(nanos: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let nanos_text = |unit: f64, name: &str| {
        let value = nanos as f64 / unit;
        let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        format!("{value:.decimals$} {name}")
    };
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => nanos_text(1e3, "us"),
        1_000_000..1_000_000_000 => nanos_text(1e6, "ms"),
        _ => nanos_text(1e9, "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::duration_text;

    #[test]
    fn three_digits_and_a_unit() {
        let check = |nanos, text: &str| assert_eq!(duration_text(nanos), text);
        check(0, "0 ns");
        check(999, "999 ns");
        check(1_000, "1.00 us");
        check(12_345, "12.3 us");
        check(123_456, "123 us");
        check(9_996_000, "10.0 ms");
        check(1_234_567_890, "1.23 s");
    }
}
