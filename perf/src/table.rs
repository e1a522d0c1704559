//! A run as people read it.

use std::fmt::Write;

use crate::result::{Check, Counts, Interval, Run, histogram};

/// One line for about a second.
pub fn line(interval: &Interval) -> String {
    let Counts { published, confirmed, received, .. } = interval.counts;
    let each = |count: u64| count as f64 / interval.seconds.max(1e-9);
    let (published, confirmed, received) = (each(published), each(confirmed), each(received));
    let phase = if interval.is_warm_up { "  warm-up" } else { "" };
    format!(
        "{:>4.0} s  published {published:>9.0}/s  confirmed {confirmed:>9.0}/s  received {received:>9.0}/s  backlog \
         {:>9}{phase}",
        interval.start_seconds + interval.seconds,
        interval.backlog
    )
}

/// The whole.
pub fn of_run(run: &Run) -> String {
    let mut text = String::new();
    let (counts, seconds) = run.measured_counts();
    let _ = writeln!(text, "{}, measured {seconds:.1} s", run.target.name);
    for (name, count) in [
        ("published", counts.published),
        ("confirmed", counts.confirmed),
        ("received", counts.received),
        ("operations", counts.operations),
    ] {
        if count > 0 {
            let _ = writeln!(text, "{name:<12}{:>12.0} a second", count as f64 / seconds);
        }
    }
    for (name, meaning) in histogram::ALL {
        let Some(recorded) = run.histogram(name) else { continue };
        let _ = write!(text, "{name:<12}");
        for (quantile_name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            let _ = write!(text, "  {quantile_name} {:>9}", duration_text(recorded.0.value_at_quantile(quantile)));
        }
        let _ = writeln!(text, "  {meaning}");
    }
    let Check { totals, lost, duplicated, reordered, corrupted } = run.check;
    let _ = write!(text, "{} published, {} received", totals.published, totals.received);
    if totals.operations > 0 {
        let _ = write!(text, ", {} operations", totals.operations);
    }
    for (name, count) in [
        ("lost", lost),
        ("duplicated", duplicated),
        ("reordered", reordered),
        ("corrupted", corrupted),
        ("refused", totals.refused),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {}", name.to_uppercase());
        }
    }
    let _ = writeln!(text, "{}", if run.is_right() { ": all right" } else { ": NOT RIGHT" });
    for sentence in run.failures.iter().chain(&run.invalid).chain(&run.warnings) {
        let _ = writeln!(text, "  {sentence}");
    }
    text
}

/// Three significant digits and a unit.
fn duration_text(nanos: u64) -> String {
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
