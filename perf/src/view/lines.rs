//! A line a second, for logs and pipes.

use crate::result::{Interval, histogram};
use crate::units::{count_text, duration_text, rate_text};

use super::state::{Plan, State};

/// The lines of one run after the other.
#[derive(Default)]
pub struct Lines {
    state: State,
}

impl Lines {
    /// A run begins.
    pub fn begin(&mut self, plan: Plan) {
        self.state.handle_begin(plan);
    }

    /// Whether runs have to be told from each other.
    pub fn is_one_of_many(&self) -> bool {
        self.state.plan.as_ref().is_some_and(|plan| plan.of != 1)
    }

    /// The second that is over: time, rates, latency of this second, backlog.
    pub fn line(&mut self, interval: &Interval) -> String {
        self.state.handle_interval(interval);
        let mut line = format!("{:>5.0} s", interval.start_seconds + interval.seconds);
        line += if interval.is_warm_up { "  warm-up" } else { "         " };
        for row in self.state.rate_rows() {
            match row.name {
                "backlog" | "acknowledged" => {}
                name => line += &format!("  {name} {:>9}/s", rate_text(row.last)),
            }
        }
        let is_about_round_trips = self.state.plan.as_ref().is_some_and(|plan| plan.is_about_round_trips);
        let recorded = histogram::by_worth(is_about_round_trips).find_map(|name| {
            interval.histograms.get(name).filter(|recorded| !recorded.is_empty()).map(|recorded| (name, recorded))
        });
        if let Some((name, recorded)) = recorded {
            let [p50, p99, max] =
                [0.5, 0.99, 1.0].map(|quantile| duration_text(recorded.0.value_at_quantile(quantile)));
            line += &format!("  {name} p50 {p50:>7} p99 {p99:>7} max {max:>7}");
        }
        line + &format!("  backlog {}", count_text(interval.backlog))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_runs::interval_of;

    /// Goal: a line has time, phase, rates, the preferred latency and the backlog; nothing of it where nothing came.
    #[test]
    fn lines_of_seconds() {
        let mut lines = Lines::default();
        lines.begin(Plan::default());
        let mut interval = interval_of(0, &[("service", &[1000, 2000]), ("response", &[1500])]);
        interval.is_warm_up = true;
        let line = lines.line(&interval);
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected =
            "1 s warm-up published 2.00/s received 2.00/s response p50 1.50 µs p99 1.50 µs max 1.50 µs backlog 0";
        assert_eq!(words, expected.split(' ').collect::<Vec<_>>());
        lines.begin(Plan { is_about_round_trips: true, ..Plan::default() });
        let line = lines.line(&interval_of(0, &[("service", &[1000]), ("round-trip", &[2000])]));
        assert!(line.contains("round-trip p50 2.00 µs"), "{line}");
        let line = lines.line(&interval_of(1, &[]));
        assert!(line.contains("received") && line.contains(" 0/s") && !line.contains("p50"), "{line}");
    }
}
