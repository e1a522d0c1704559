//! What one thread counts and records, until it is taken once a second.

use std::collections::BTreeMap;

use crate::result::{Counts, Recorded, histogram};

/// A histogram that takes many equal latencies, one after the other, at the price of one.
#[derive(Default)]
struct RunLength {
    recorded: Recorded,
    run_nanos: u64,
    run_count: u64,
}

impl RunLength {
    #[inline]
    fn record(&mut self, nanos: u64) {
        if nanos == self.run_nanos {
            self.run_count += 1;
        } else {
            self.end_run();
            self.run_nanos = nanos;
            self.run_count = 1;
        }
    }

    fn end_run(&mut self) {
        if self.run_count > 0 {
            self.recorded.0.saturating_record_n(self.run_nanos.max(1), self.run_count);
            self.run_count = 0;
        }
    }

    fn take(&mut self) -> Option<Recorded> {
        self.end_run();
        (!self.recorded.is_empty()).then(|| std::mem::take(&mut self.recorded))
    }
}

/// Counts and latencies of a thread.
#[derive(Default)]
pub struct Recorder {
    /// Since they were last taken.
    pub counts: Counts,
    /// Of what was received, what had been delivered before.
    pub redelivered: u64,
    /// When something was counted last.
    pub counted_at: u64,
    /// Gets and commits that were answered since the beginning.
    pub answered: u64,
    /// For how long this thread was at work since they were last taken, in nanoseconds; waiting for work, asleep or not, is none.
    pub busy_nanos: u64,
    taken: Counts,
    response: RunLength,
    service: RunLength,
    send_lag: RunLength,
    confirm_response: RunLength,
    confirm: RunLength,
    round_trip: RunLength,
    own_lag: RunLength,
    timer_lag: RunLength,
}

/// What a thread had since it was last asked.
#[derive(Clone, Debug, Default)]
pub struct Recordings {
    /// Counts.
    pub counts: Counts,
    /// Of what was received, what had been delivered before.
    pub redelivered: u64,
    /// When something was counted last.
    pub counted_at: u64,
    /// Latencies by their names.
    pub histograms: BTreeMap<String, Recorded>,
    /// The share of the send lag that no broker is to blame for.
    pub own_lag: Option<Recorded>,
    /// How much too late the threads' timers were.
    pub timer_lag: Option<Recorded>,
    /// For how long the thread was at work, in nanoseconds.
    pub busy_nanos: u64,
}

impl Recorder {
    /// From the intended and the actual sending to the receipt.
    #[inline]
    pub fn received(&mut self, response: Option<u64>, service: u64) {
        self.service.record(service);
        if let Some(response) = response {
            self.response.record(response);
        }
    }

    /// From the intended to the actual sending. `is_own`: the broker did not hold it up.
    #[inline]
    pub fn send_lag(&mut self, nanos: u64, is_own: bool) {
        self.send_lag.record(nanos);
        if is_own {
            self.own_lag.record(nanos);
        }
    }

    /// From a request to its reply.
    #[inline]
    pub fn round_trip(&mut self, nanos: u64) {
        self.round_trip.record(nanos);
    }

    /// From the actual sending to the confirm; `response` from the intended one.
    #[inline]
    pub fn confirm(&mut self, response: Option<u64>, nanos: u64) {
        self.confirm.record(nanos);
        if let Some(response) = response {
            self.confirm_response.record(response);
        }
    }

    /// From when a timer was to wake this thread's tick until it did.
    pub fn timer_lag(&mut self, nanos: u64) {
        self.timer_lag.record(nanos);
    }

    /// What was counted since the beginning.
    pub fn all_counts(&self) -> Counts {
        let mut all = self.taken;
        all += self.counts;
        all
    }

    /// Takes all.
    pub fn take(&mut self) -> Recordings {
        self.taken += self.counts;
        let named = [
            (histogram::RESPONSE, &mut self.response),
            (histogram::SERVICE, &mut self.service),
            (histogram::SEND_LAG, &mut self.send_lag),
            (histogram::CONFIRM_RESPONSE, &mut self.confirm_response),
            (histogram::CONFIRM, &mut self.confirm),
            (histogram::ROUND_TRIP, &mut self.round_trip),
        ];
        let taken = named.into_iter().filter_map(|(name, run)| Some((name.to_owned(), run.take()?)));
        Recordings {
            histograms: taken.collect(),
            own_lag: self.own_lag.take(),
            timer_lag: self.timer_lag.take(),
            busy_nanos: std::mem::take(&mut self.busy_nanos),
            counts: std::mem::take(&mut self.counts),
            redelivered: std::mem::take(&mut self.redelivered),
            counted_at: self.counted_at,
        }
    }
}

impl Recordings {
    /// Adds another thread's.
    pub fn add(&mut self, other: Self) {
        self.counts += other.counts;
        self.redelivered += other.redelivered;
        self.counted_at = self.counted_at.max(other.counted_at);
        for (name, recorded) in other.histograms {
            self.histograms.entry(name).or_default().add(&recorded);
        }
        self.busy_nanos += other.busy_nanos;
        for (mine, others) in [(&mut self.own_lag, other.own_lag), (&mut self.timer_lag, other.timer_lag)] {
            if let Some(others) = others {
                mine.get_or_insert_default().add(&others);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value at a quantile, by sorting: what the histogram is to agree with.
    fn exact(sorted: &[u64], quantile: f64) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let rank = (quantile * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }

    fn check(values: &[u64]) {
        let mut halves = [Recorder::default(), Recorder::default()];
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        for (index, &nanos) in values.iter().enumerate() {
            halves[index % 2].received(None, nanos);
        }
        let mut all = Recordings::default();
        halves.iter_mut().for_each(|half| all.add(half.take()));
        assert!(halves[0].take().histograms.is_empty(), "taken twice");
        let recorded = &all.histograms[histogram::SERVICE];
        assert_eq!(recorded.0.len(), values.len() as u64);
        for quantile in [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0] {
            let (found, right) = (recorded.0.value_at_quantile(quantile), exact(&sorted, quantile));
            assert!(found.abs_diff(right) * 1000 <= right, "{quantile}: {found}, not {right}");
        }
    }

    /// Goal: quantiles are right to a thousandth.
    /// Method: runs of equal values, even and skewed distributions from a generator with a fixed seed, against sorting.
    #[test]
    fn quantiles_against_sorted_values() {
        check(&[7; 1000]);
        check(&(1..=100_000).collect::<Vec<_>>());
        let mut random = fastrand::Rng::with_seed(5);
        check(&(0..200_000).map(|_| random.u64(1..50_000_000)).collect::<Vec<_>>());
        check(&(0..200_000).map(|_| (1 << random.u64(0..40)) + random.u64(0..1000)).collect::<Vec<_>>());
    }
}
