//! What a run has shown; the JSON file is exactly this.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::client::Product;
use crate::latency::QUANTILES;
use crate::machine::Machine;
use crate::progress::Totals;
use crate::sequence::Faults;

/// The number of the JSON file's format; readers refuse others.
pub const FORMAT: u32 = 1;

/// One run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub lepus_perf_format: u32,
    /// Version of the load generator.
    pub version: &'static str,
    /// The command line.
    pub command: Vec<String>,
    /// When it began, in seconds since 1970.
    pub started_unix_seconds: u64,
    /// Where.
    pub machine: Machine,
    /// What was measured.
    pub broker: Product,
    /// How long was measured, in seconds.
    pub window_seconds: f64,
    /// Messages of the measured time.
    pub window: Totals,
    /// Messages a second.
    pub rates: Rates,
    /// Messages of each second of the measured time.
    pub seconds: Vec<Totals>,
    /// Latencies of messages that were to be sent in the measured time.
    pub latencies: Vec<LatencyReport>,
    /// What the broker has used in the measured time, where its process is known.
    pub broker_usage: Option<BrokerUsage>,
    /// CPU time of the load generator itself in the measured time, in seconds.
    pub load_cpu_seconds: f64,
    /// Was everything right?
    pub check: Check,
}

/// Rates by kind; `None` where there were none.
#[derive(Debug, Serialize)]
pub struct Rates {
    /// Written by producers.
    pub published: Option<Rate>,
    /// Confirmed by the broker.
    pub confirmed: Option<Rate>,
    /// Received by consumers.
    pub received: Option<Rate>,
}

/// Messages a second: over all of the measured time, and of its single seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// All messages by all of the time.
    pub mean: f64,
    /// The second in the middle.
    pub median: f64,
    /// The worst second.
    pub min: f64,
    /// The best second.
    pub max: f64,
}

/// One histogram.
#[derive(Debug, Serialize)]
pub struct LatencyReport {
    /// `response`, `service`, `send-lag` or `confirm`.
    pub name: &'static str,
    /// From when to when.
    pub meaning: &'static str,
    /// Messages.
    pub count: u64,
    /// Mean, in nanoseconds.
    pub mean_nanos: f64,
    /// The longest, in nanoseconds.
    pub max_nanos: u64,
    /// Quantiles by their names, in nanoseconds.
    pub quantiles_nanos: Vec<(&'static str, u64)>,
    /// The whole histogram: values in nanoseconds (to three significant digits) with their counts.
    pub buckets: Vec<(u64, u64)>,
    /// The same, as it was recorded.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

/// The broker's process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BrokerUsage {
    /// Its number.
    pub pid: u32,
    /// User and system time of the measured time, in seconds.
    pub cpu_seconds: f64,
    /// Messages published in one CPU second.
    pub published_per_cpu_second: Option<f64>,
    /// Messages received in one CPU second.
    pub received_per_cpu_second: Option<f64>,
    /// Resident memory before the first message, in octets.
    pub resident_octets_before: u64,
    /// Resident memory at the end of the measured time, in octets.
    pub resident_octets_after: u64,
}

/// Whether everything was right, warm-up included.
#[derive(Debug, Serialize)]
pub struct Check {
    /// All messages, from the first to the last.
    pub totals: Totals,
    /// What was wrong with those that were received.
    #[serde(flatten)]
    pub faults: Faults,
    /// Messages that the broker refused (`basic.nack`).
    pub nacked: u64,
    /// Messages whose confirm did not come.
    pub unconfirmed: u64,
    /// Messages that should have been sent and were not, because the broker did not take them.
    pub unsent: u64,
    /// `connection.blocked` came so many times. No fault.
    pub blocked: u64,
    /// Producers and consumers that have failed, and why.
    pub failures: Vec<String>,
    /// Ctrl-C has ended the run. No fault.
    pub is_interrupted: bool,
}

impl Check {
    /// Everything was right.
    pub fn is_right(&self) -> bool {
        self.faults.is_empty() && self.nacked + self.unconfirmed + self.unsent == 0 && self.failures.is_empty()
    }
}

impl LatencyReport {
    /// Sums the histogram up.
    pub fn new(name: &'static str, meaning: &'static str, histogram: Histogram<u64>) -> Self {
        let quantile = |(name, quantile)| (name, histogram.value_at_quantile(quantile));
        Self {
            name,
            meaning,
            count: histogram.len(),
            mean_nanos: histogram.mean(),
            max_nanos: histogram.max(),
            quantiles_nanos: QUANTILES.map(quantile).to_vec(),
            buckets: histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect(),
            histogram,
        }
    }
}

impl Rate {
    /// Of so many messages in so many seconds, with the counts of the single seconds. `None` where there were none.
    #[allow(clippy::cast_precision_loss, reason = "counts of messages are far below 2^53")]
    pub fn new(count: u64, seconds: f64, mut by_second: Vec<u64>) -> Option<Self> {
        if count == 0 || seconds <= 0.0 {
            return None;
        }
        let mean = count as f64 / seconds;
        by_second.sort_unstable();
        let (Some(&min), Some(&max)) = (by_second.first(), by_second.last()) else {
            return Some(Self { mean, median: mean, min: mean, max: mean });
        };
        let median = (by_second[(by_second.len() - 1) / 2] + by_second[by_second.len() / 2]) as f64 / 2.0;
        Some(Self { mean, median, min: min as f64, max: max as f64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_seconds() {
        let check = |count, seconds, by_second: &[u64], expected: Option<[f64; 4]>| {
            let found =
                Rate::new(count, seconds, by_second.to_vec()).map(|rate| [rate.mean, rate.median, rate.min, rate.max]);
            assert_eq!(found, expected);
        };
        check(0, 2.0, &[0, 0], None);
        check(30, 3.0, &[5, 20, 5], Some([10.0, 5.0, 5.0, 20.0]));
        check(60, 4.0, &[30, 0, 10, 20], Some([15.0, 15.0, 0.0, 30.0]));
        check(30, 0.5, &[], Some([60.0; 4]));
    }

    /// Goal: the JSON has all that was recorded.
    #[test]
    fn buckets_hold_every_message() {
        let mut histogram = Histogram::new(3).expect("valid");
        for nanos in [5, 5, 1000, 123_456_789] {
            histogram.record(nanos).expect("in range");
        }
        let report = LatencyReport::new("service", "", histogram);
        assert_eq!(report.buckets.iter().map(|(_, count)| count).sum::<u64>(), 4);
        assert_eq!(report.buckets[0], (5, 2));
        assert_eq!(report.quantiles_nanos[0], ("p50", 5));
    }
}
