//! Whether the load generator itself kept pace: where it did not, latencies and rates are its own, not the broker's.

use crate::engine::recorder::Recordings;
use crate::options::RunOptions;
use crate::result::{Recorded, Run, histogram};

/// A thread that was at work for more than this part of the time may have been the limit.
const BUSY_PART_MAX: f64 = 0.95;
/// Less time than this says nothing of that, in nanoseconds.
const BUSY_NANOS_MIN: u64 = 500_000_000;
/// So many messages may be later than the limit.
const LAG_QUANTILE: f64 = 0.99;
/// More messages than this, by what has come, will not be sent.
const EXPECTED_MARGIN: f64 = 1.1;
/// Lags of our own above this part of the response times are a part that should be known.
const OWN_PART_MAX: f64 = 0.1;

/// What the threads were late and busy in the measured time.
pub struct Pace {
    own_lag: Recorded,
    timer_lag: Recorded,
    /// Of each thread: for how long it was at work, and measured, in nanoseconds.
    busy: Vec<(u64, u64)>,
}

impl Pace {
    /// Of so many threads, before anything is measured.
    pub fn new(threads: usize) -> Self {
        Self { own_lag: Recorded::default(), timer_lag: Recorded::default(), busy: vec![(0, 0); threads] }
    }

    /// What one thread has recorded within so many nanoseconds.
    pub fn add(&mut self, thread: usize, recordings: &Recordings, nanos: u64) {
        let (busy, measured) = &mut self.busy[thread];
        *busy += recordings.busy_nanos;
        *measured += nanos;
        self.add_late(recordings);
    }

    /// What was recorded after that.
    pub fn add_late(&mut self, recordings: &Recordings) {
        if let Some(own_lag) = &recordings.own_lag {
            self.own_lag.add(own_lag);
        }
        if let Some(timer_lag) = &recordings.timer_lag {
            self.timer_lag.add(timer_lag);
        }
    }

    /// Whether, after this part of the measured time, so many messages were late that the rest of it will not make up for them.
    pub fn is_lost(&self, options: &RunOptions, part: f64) -> bool {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds")]
        let limit_nanos = (options.send_lag_limit * 1e6) as u64;
        let late = self.own_lag.count_above(limit_nanos) as f64;
        let expected = self.own_lag.0.len() as f64 / part.clamp(0.01, 1.0);
        late > expected * (1.0 - LAG_QUANTILE) * EXPECTED_MARGIN
    }

    /// The threads that had hardly anything to wait for, and the part of the time that the busiest was at work.
    fn full_threads(&self) -> (usize, f64) {
        let parts = self.busy.iter().filter(|(_, measured)| *measured >= BUSY_NANOS_MIN);
        let parts = parts.map(|&(busy, measured)| busy as f64 / measured as f64);
        let full: Vec<f64> = parts.filter(|&part| part > BUSY_PART_MAX).collect();
        (full.len(), full.iter().fold(0.0, |most, &part| f64::max(most, part)))
    }

    /// Why latencies must not be trusted.
    pub fn invalid(&self, options: &RunOptions) -> Vec<String> {
        let limit_millis = options.send_lag_limit;
        let lag_millis = millis(&self.own_lag, LAG_QUANTILE);
        if lag_millis > limit_millis {
            return vec![format!(
                "the load generator was late: 1 % of the messages that the broker did not hold up were sent {lag_millis:.1} ms \
                 late or more (--send-lag-limit {limit_millis}); give it cores of its own"
            )];
        }
        match self.full_threads() {
            (full @ 1.., part) if options.is_open_loop() => vec![format!(
                "{full} of the load generator's {} threads had no rest ({:.0} % of the time at work): latencies are partly its \
                 own; give it more cores",
                self.busy.len(),
                part.min(1.0) * 100.0
            )],
            _ => Vec::new(),
        }
    }

    /// What a reader should know of it.
    pub fn warnings(&self, options: &RunOptions, run: &Run) -> Vec<String> {
        let mut warnings = Vec::new();
        if let (full @ 1.., _) = self.full_threads()
            && !options.is_open_loop()
        {
            let threads = self.busy.len();
            warnings.push(format!(
                "{full} of the load generator's {threads} threads had no rest: the broker may do more; give it more cores"
            ));
        }
        let timer_millis = millis(&self.timer_lag, 0.99);
        if options.is_open_loop() && run.invalid.is_empty() && timer_millis > options.send_lag_limit {
            warnings.push(format!(
                "1 % of the load generator's timers were {timer_millis:.1} ms late or more: it may have seen messages as late, \
                 too; give it cores of its own"
            ));
        }
        if let Some(response) = run.histogram(histogram::RESPONSE) {
            let (own, all) = (millis(&self.own_lag, 0.999), millis(&response, 0.999));
            if run.invalid.is_empty() && own > all * OWN_PART_MAX {
                warnings.push(format!(
                    "the load generator's own lag is a part of the response times: {own:.3} ms of {all:.3} ms at p99.9"
                ));
            }
        }
        warnings
    }
}

fn millis(recorded: &Recorded, quantile: f64) -> f64 {
    recorded.0.value_at_quantile(quantile) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a run is given up only where what was late is more than 1 % of all that may still come.
    #[test]
    fn lateness_that_cannot_be_made_up_for() {
        let options = RunOptions::try_parse_from(["-r", "1000", "--send-lag-limit", "1"]).expect("well-formed");
        let lost = |late: u64, part: f64| {
            let mut pace = Pace::new(1);
            pace.own_lag.0.record_n(100, 1000 - late).expect("in bounds");
            pace.own_lag.0.record_n(5_000_000, late).expect("in bounds");
            pace.is_lost(&options, part)
        };
        assert_eq!([lost(0, 0.2), lost(11, 1.0), lost(12, 1.0)], [false, false, true]);
        assert_eq!([lost(54, 0.2), lost(56, 0.2), lost(1000, 0.001)], [false, true, false]);
    }
}
