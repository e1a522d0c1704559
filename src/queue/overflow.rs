//! The limits on what is ready, and what happens beyond them.
//!
//! As in `RabbitMQ`, only ready messages count, of their octets only the bodies', and what is dropped is what would
//! have been delivered next.

use super::{DeadSink, DeathReason, Queue};
use crate::definitions::QueueOverflow;
use crate::message::MessageView;

impl Queue {
    /// Whether the queue refuses a publish with a body of that many octets.
    ///
    /// [`Queue::enqueue`] asks by itself. Who delivers on arrival asks before, for `RabbitMQ` refuses a message that is
    /// over the limits also where a consumer waits for it.
    #[inline]
    pub fn would_overflow(&self, body_octets: usize) -> bool {
        self.is_limited
            && self.options.overflow != QueueOverflow::DropHead
            && self.is_over_limits(self.ready_count + 1, self.ready_octets + body_octets as u64)
    }

    pub(super) fn is_over_limits(&self, length: u64, octets: u64) -> bool {
        self.options.length_max.is_some_and(|most| length > most)
            || self.options.octets_max.is_some_and(|most| octets > most)
    }

    /// Whether the queue refuses `message`, which it dead-letters then where its options say so.
    pub(super) fn refuses(&self, message: &MessageView<'_>, dead: &mut DeadSink<'_>) -> bool {
        let refuses = self.would_overflow(message.body.len());
        let dead_letters = self.options.overflow == QueueOverflow::RejectPublishDeadLetter;
        if refuses && dead_letters && self.has_dead_letter_exchange() {
            dead(DeathReason::MaxLen, *message);
        }
        refuses
    }

    /// Drops messages from the front until the queue is within its limits; where its overflow is to reject publishes,
    /// nothing. They go to `dead` where the queue has a dead letter exchange. Returns how many those were. Where the front is not in
    /// memory it stops, and is called again once that was read.
    #[cold]
    pub fn drop_excess(&mut self, dead: &mut DeadSink<'_>) -> u64 {
        let mut dropped = 0;
        if self.options.overflow == QueueOverflow::DropHead {
            while self.front().is_some() && self.is_over_limits(self.ready_count, self.ready_octets) {
                self.bury_front(DeathReason::MaxLen, dead);
                dropped += 1;
            }
        }
        dropped
    }
}
