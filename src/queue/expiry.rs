//! Messages whose time is up.
//!
//! As in `RabbitMQ`, a message expires at the head of the queue only: one that stands behind another without a limit,
//! or below one of a higher priority, stays until it comes to the front.

use super::{DeadSink, DeathReason, Queue};

impl Queue {
    /// Removes messages from the front that have expired at `now`, in milliseconds, `most` of them at the most, and
    /// returns how many those were. They go to `dead` where the queue has a dead letter exchange.
    pub fn expire(&mut self, now: u64, most: usize, dead: &mut DeadSink<'_>) -> usize {
        let mut expired = 0;
        while expired < most && self.next_expiry().is_some_and(|expires_at| expires_at <= now) {
            self.bury_front(DeathReason::Expired, dead);
            expired += 1;
        }
        expired
    }

    /// Whether it may hold messages that expire some time, at the front or not, ready or not.
    pub fn may_expire(&self) -> bool {
        self.has_expiring && self.message_count() > 0
    }

    /// When the front message expires, in milliseconds. `None` where it does not, or nothing is ready.
    #[inline]
    pub fn next_expiry(&self) -> Option<u64> {
        if !self.has_expiring {
            return None;
        }
        self.front()?.expires_at
    }
}
