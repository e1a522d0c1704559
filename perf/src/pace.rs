//! When which message should be sent: the open loop.

/// A constant rate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: u64,
    nanos_per_message: f64,
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "nanoseconds of hours and counts of messages stay far below 2^53"
)]
impl Pace {
    /// `rate` messages a second, the first at `start` nanoseconds.
    pub fn new(start: u64, rate: f64) -> Self {
        assert!(rate > 0.0, "a pace needs a rate");
        Self { start, nanos_per_message: 1e9 / rate }
    }

    /// When the message with this number should be sent.
    #[inline]
    pub fn intended(&self, number: u64) -> u64 {
        self.start + (number as f64 * self.nanos_per_message) as u64
    }

    /// How many messages should have been sent by `now`, itself included.
    #[inline]
    pub fn due(&self, now: u64) -> u64 {
        if now < self.start {
            return 0;
        }
        let mut due = ((now - self.start) as f64 / self.nanos_per_message) as u64 + 1;
        // The two roundings may differ by one: `intended` has the last word.
        while due > 0 && self.intended(due - 1) > now {
            due -= 1;
        }
        while self.intended(due) <= now {
            due += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a message is due at its intended time, not a nanosecond earlier.
    /// Method: both sides of the limit, at rates that divide a second and at some that do not.
    #[test]
    fn due_from_the_intended_time_on() {
        for rate in [0.5, 1.0, 3.0, 7777.7, 1e6, 3e6] {
            let pace = Pace::new(1_000, rate);
            assert_eq!(pace.due(999), 0);
            for number in (0..100).chain([1_000_003, 123_456_789]) {
                let at = pace.intended(number);
                assert!(pace.due(at) > number, "{rate}/s, message {number}");
                assert!(pace.due(at - 1) <= number, "{rate}/s, message {number}");
            }
        }
        assert_eq!(Pace::new(0, 20_000.0).intended(20_000 * 60), 60_000_000_000);
    }
}
