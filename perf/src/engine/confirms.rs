//! Which messages wait for their confirm, since when, and how many more may.

use crate::engine::recorder::Recorder;

/// Publisher confirms of one channel. Delivery tags begin at 1.
pub struct ConfirmWindow {
    outstanding_max: u64,
    /// Send time by tag modulo its length; 0 where the tag does not wait.
    sent_at: Vec<u64>,
    published: u64,
    /// All tags up to this are settled.
    settled_up_to: u64,
    outstanding: u64,
}

/// What the broker said of some messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has them.
    Ack,
    /// It did not take them.
    Nack,
}

impl ConfirmWindow {
    /// At most `outstanding_max` messages wait, and at least 1.
    pub fn new(outstanding_max: u64) -> Self {
        let outstanding_max = outstanding_max.max(1);
        // Confirms may come out of order: room for as many settled ones between the oldest and the youngest.
        let length = (outstanding_max * 4).next_power_of_two();
        let sent_at = vec![0; usize::try_from(length).expect("the window fits into memory")];
        Self { outstanding_max, sent_at, published: 0, settled_up_to: 0, outstanding: 0 }
    }

    #[inline]
    fn slot(&mut self, tag: u64) -> &mut u64 {
        let mask = self.sent_at.len() - 1;
        #[allow(clippy::cast_possible_truncation, reason = "the mask takes the low bits only")]
        &mut self.sent_at[tag as usize & mask]
    }

    /// How many more may be sent now.
    pub fn room(&self) -> u64 {
        let span = self.sent_at.len() as u64 - (self.published - self.settled_up_to);
        (self.outstanding_max - self.outstanding).min(span)
    }

    /// Waiting for confirms is better than to dribble single messages: less than an eighth of the window is free.
    pub fn is_nearly_full(&self) -> bool {
        self.room() < (self.outstanding_max / 8).max(1)
    }

    /// `count` more were sent at `now`.
    pub fn publish(&mut self, count: u64, now: u64) {
        assert!(count <= self.room(), "published beyond the window");
        for _ in 0..count {
            self.published += 1;
            let tag = self.published;
            *self.slot(tag) = now.max(1);
        }
        self.outstanding += count;
    }

    /// The last `count` messages were not sent after all.
    pub fn take_back(&mut self, count: u64) {
        for _ in 0..count {
            let tag = self.published;
            *self.slot(tag) = 0;
            self.published -= 1;
        }
        self.outstanding -= count;
    }

    /// `basic.ack` or `basic.nack` has come; counts and latencies are recorded. Tags that wait for nothing are ignored.
    pub fn settle(&mut self, tag: u64, multiple: bool, verdict: Verdict, now: u64, recorder: &mut Recorder) {
        if tag > self.published || tag <= self.settled_up_to {
            return;
        }
        let first = if multiple { self.settled_up_to + 1 } else { tag };
        for tag in first..=tag {
            let sent = std::mem::take(self.slot(tag));
            if sent == 0 {
                continue;
            }
            self.outstanding -= 1;
            match verdict {
                Verdict::Ack => recorder.counts.confirmed += 1,
                Verdict::Nack => recorder.counts.refused += 1,
            }
            recorder.confirm(now.saturating_sub(sent));
        }
        while self.settled_up_to < self.published {
            let tag = self.settled_up_to + 1;
            if *self.slot(tag) != 0 {
                break;
            }
            self.settled_up_to = tag;
        }
    }

    /// How many wait.
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: single and multiple confirms, in order and out of order, settle each message once, with its own latency.
    #[test]
    fn confirms_settle_once() {
        let mut window = ConfirmWindow::new(4);
        let mut recorder = Recorder::default();
        window.publish(4, 100);
        assert_eq!((window.room(), window.outstanding()), (0, 4));
        window.settle(3, false, Verdict::Ack, 150, &mut recorder);
        window.settle(3, false, Verdict::Ack, 151, &mut recorder);
        assert_eq!((window.room(), recorder.counts.confirmed), (1, 1));
        window.settle(2, true, Verdict::Ack, 160, &mut recorder);
        assert_eq!((window.room(), recorder.counts.confirmed, window.settled_up_to), (3, 3, 3));
        window.settle(9, true, Verdict::Ack, 160, &mut recorder);
        window.settle(4, true, Verdict::Nack, 170, &mut recorder);
        assert_eq!((window.room(), window.outstanding()), (4, 0));
        let recordings = recorder.take();
        assert_eq!((recordings.counts.confirmed, recordings.counts.refused), (3, 1));
        let histogram = &recordings.histograms[crate::result::histogram::CONFIRM].0;
        assert_eq!((histogram.len(), histogram.max(), histogram.min()), (4, 70, 50));
    }

    /// Goal: a first message whose confirm stays away holds the window after its span, not before, and nothing wraps.
    #[test]
    fn a_late_first_confirm_bounds_the_span() {
        let mut window = ConfirmWindow::new(4);
        let mut recorder = Recorder::default();
        window.publish(1, 1);
        while window.room() > 0 {
            window.publish(1, 1);
            let tag = window.published;
            window.settle(tag, false, Verdict::Ack, 2, &mut recorder);
        }
        assert_eq!((window.published, window.outstanding()), (16, 1));
        window.settle(1, false, Verdict::Ack, 2, &mut recorder);
        assert_eq!((window.room(), window.settled_up_to), (4, 16));
    }

    #[test]
    fn what_was_not_sent_does_not_wait() {
        let mut window = ConfirmWindow::new(4);
        window.publish(4, 1);
        window.take_back(3);
        assert_eq!((window.room(), window.outstanding()), (3, 1));
    }
}
