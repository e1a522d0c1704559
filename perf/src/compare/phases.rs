//! What runs of several phases come to: a backlog is piled up, then consumed, and its rates are two.

use crate::result::{Phase, Run};
use crate::units::rate_text;

/// The median rate of each phase over the rounds; `None` where there are no phases.
pub fn note(title: &str, runs: &[Run]) -> Option<String> {
    let rate = |phase: &Phase| (phase.seconds > 0.0).then(|| phase.messages as f64 / phase.seconds);
    let phases = runs.first()?.phases.iter().filter_map(|first| {
        let of_run = |run: &Run| run.phases.iter().find(|phase| phase.name == first.name).and_then(rate);
        let mut rates: Vec<f64> = runs.iter().filter_map(of_run).collect();
        rates.sort_unstable_by(f64::total_cmp);
        let (&low, &high) = (rates.get((rates.len().max(1) - 1) / 2)?, rates.get(rates.len() / 2)?);
        Some(format!("{} {}/s", first.name, rate_text(f64::midpoint(low, high))))
    });
    let phases: Vec<String> = phases.collect();
    (!phases.is_empty()).then(|| format!("{title}: {} (each phase's own time)", phases.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::sample;

    #[test]
    fn medians_of_rounds() {
        let run = |rates: &[(&str, u64)]| {
            let phase = |&(name, messages): &(&str, u64)| Phase { name: name.to_owned(), seconds: 2.0, messages };
            Run { phases: rates.iter().map(phase).collect(), ..sample::bare("a", "Lepus", 0) }
        };
        let rounds = [200, 1000, 600].map(|messages| run(&[("publish", messages), ("consume", 2 * messages)]));
        assert_eq!(note("a", &rounds).as_deref(), Some("a: publish 300/s, consume 600/s (each phase's own time)"));
        assert_eq!(note("a", &rounds[..2]).as_deref(), Some("a: publish 300/s, consume 600/s (each phase's own time)"));
        assert_eq!((note("a", &[run(&[])]), note("a", &[])), (None, None));
    }
}
