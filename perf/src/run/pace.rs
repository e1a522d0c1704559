//! Whether the load generator itself kept pace: where it did not, latencies and rates are its own, not the broker's.

use crate::engine::recorder::Recordings;
use crate::options::RunOptions;
use crate::result::{Recorded, Run, histogram};

/// Under a rate a thread that was at work for more than this part of the time hears of messages so late that it distorts their
/// median; above the second part their tail. Measured against a clean reader of the same broker, see `CALIBRATION.md`: at 0.79 the
/// median is right and p90 1.4 times too long, at 0.88 they are 1.3 and more, at 0.91 2.8 times.
const BUSY_PART_MAX: f64 = 0.90;
const BUSY_PART_SEEN: f64 = 0.80;
/// As fast as it goes a thread takes what there is in ever larger batches, and is at work for 0.99 of the time long before it is the
/// limit; but above that it may be, unless the broker is as busy.
const FULL_PART_MIN: f64 = 0.99;
const BROKER_FULL_PART: f64 = 0.9;
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

    /// The part of the time that the busiest thread was at work; `None` where too little was measured.
    pub fn busy_part(&self) -> Option<f64> {
        let parts = self.busy.iter().filter(|(_, measured)| *measured >= BUSY_NANOS_MIN);
        parts.map(|&(busy, measured)| (busy as f64 / measured as f64).min(1.0)).reduce(f64::max)
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
        match self.busy_part() {
            Some(part) if options.is_open_loop() && part > BUSY_PART_MAX => vec![format!(
                "the load generator had no rest (a thread was at work for {:.0} % of the time): latencies are partly its own; give \
                 it more cores",
                part * 100.0
            )],
            _ => Vec::new(),
        }
    }

    /// What a reader should know of it.
    pub fn warnings(&self, options: &RunOptions, run: &Run) -> Vec<String> {
        let mut warnings = Vec::new();
        let busy_part = self.busy_part().unwrap_or(0.0);
        if !options.is_open_loop() && busy_part > FULL_PART_MIN && !is_broker_full(run) {
            warnings.push("the load generator had no rest: the broker may do more; give it more cores".to_owned());
        }
        if options.is_open_loop() && run.invalid.is_empty() && busy_part > BUSY_PART_SEEN {
            warnings.push(format!(
                "the load generator was at work for {:.0} % of the time: the longest latencies are partly its own; give it more \
                 cores",
                busy_part * 100.0
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

/// Whether the broker had as much to do as its cores can.
fn is_broker_full(run: &Run) -> bool {
    let (_, seconds) = run.measured_counts();
    let cores = run.target.cores.len() as f64;
    run.broker.is_some_and(|broker| cores > 0.0 && broker.cpu_seconds > seconds * cores * BROKER_FULL_PART)
}

fn millis(recorded: &Recorded, quantile: f64) -> f64 {
    recorded.0.value_at_quantile(quantile) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::BrokerUse;
    use crate::test_runs::run_of;

    /// Goal: how busy a thread was makes a paced run invalid or worth a word, and one without a rate worth a word where the broker
    /// is not the limit; of less than half a second nothing is said.
    #[test]
    fn threads_without_rest() {
        let check = |line: &str, busy: u64, measured: u64, broker_seconds: f64, expected: (usize, usize)| {
            let options = RunOptions::try_parse_from(line.split_whitespace()).expect("well-formed");
            let mut pace = Pace::new(2);
            pace.busy = vec![(0, measured), (busy, measured)];
            let mut run = run_of(&[]);
            run.broker = Some(BrokerUse { cpu_seconds: broker_seconds, ..BrokerUse::default() });
            run.target.cores = vec![0];
            run.invalid = pace.invalid(&options);
            assert_eq!((run.invalid.len(), pace.warnings(&options, &run).len()), expected, "{line} {busy}");
        };
        let second = 1_000_000_000;
        check("-r 5", 790_000_000, second, 0.0, (0, 0));
        check("-r 5", 810_000_000, second, 0.0, (0, 1));
        check("-r 5", 890_000_000, second, 0.0, (0, 1));
        check("-r 5", 910_000_000, second, 0.0, (1, 0));
        check("-r 5", 400_000_000, 400_000_000, 0.0, (0, 0));
        check("", 989_000_000, second, 0.5, (0, 0));
        check("", 991_000_000, second, 0.5, (0, 1));
        check("", 991_000_000, second, 0.95, (0, 0));
    }

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
