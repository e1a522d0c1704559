//! The run's clock: nanoseconds since the process began, the same for all threads.

use std::time::{Duration, Instant};

/// Monotonic; copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
}

impl Clock {
    /// Begins now.
    pub fn start() -> Self {
        Self { base: Instant::now() }
    }

    /// Nanoseconds since the clock began; it is good for 78 hours, as long as a stamp has room for them.
    #[inline]
    pub fn nanos(self) -> u64 {
        nanos(self.base.elapsed())
    }

    /// Sleeps until that time; returns at once where it has passed.
    pub fn sleep_until(self, nanos: u64) {
        std::thread::sleep(Duration::from_nanos(nanos.saturating_sub(self.nanos())));
    }
}

/// A duration in nanoseconds; those of more than 584 years count as that.
#[inline]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// For how long producers catch up after the end, at most, in nanoseconds.
const CATCH_UP_NANOS_MAX: u64 = 10_000_000_000;

/// When a run begins and ends, in nanoseconds of its clock. Producers have intended send times in `start..end`; what is received
/// from `measure_from` on is measured.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When producers begin.
    pub start: u64,
    /// When the warm-up is over.
    pub measure_from: u64,
    /// When producers stop; `u64::MAX` where only a count or Ctrl-C ends the run.
    pub end: u64,
}

impl Schedule {
    /// The part of the measured time that is over at a time, from 0 to 1; 1 where it has no planned end.
    pub fn measured_part(&self, at: u64) -> f64 {
        if self.end == u64::MAX || self.end <= self.measure_from {
            return 1.0;
        }
        (at.saturating_sub(self.measure_from) as f64 / (self.end - self.measure_from) as f64).min(1.0)
    }

    /// Until when messages are sent that were due before the end: 10 s after it, or as long as the run was. What is not sent
    /// then is given up, and counted.
    pub fn catch_up_until(&self) -> u64 {
        self.end.saturating_add(CATCH_UP_NANOS_MAX.min(self.end - self.start))
    }
}
