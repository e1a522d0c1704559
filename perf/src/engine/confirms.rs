//! Which messages wait for their confirm, since when, and how many more may.

use crate::engine::recorder::Recorder;
use crate::engine::sequence::NotTaken;

/// Publisher confirms of one channel. Delivery tags begin at 1.
pub struct ConfirmWindow {
    outstanding_max: u64,
    /// Send time by tag modulo its length; 0 where the tag does not wait.
    sent_at: Vec<u64>,
    /// When it was to be sent, likewise; empty where the loop is closed.
    intended_at: Vec<u64>,
    published: u64,
    /// All tags up to this are settled.
    settled_up_to: u64,
    outstanding: u64,
}

/// The number of the message that has this delivery tag: the channel's first one has number 0 and tag 1.
fn number_of(tag: u64) -> u64 {
    tag - 1
}

/// What the broker said of some messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has them.
    Ack,
    /// It did not take them.
    Nack,
}

/// `basic.ack` or `basic.nack` to a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Delivery tag.
    pub tag: u64,
    /// All before it, too.
    pub multiple: bool,
    /// Which of the two it is.
    pub verdict: Verdict,
}

impl ConfirmWindow {
    /// At most `outstanding_max` messages wait, and at least 1. `is_open_loop`: they have times at which they were to be sent.
    pub fn new(outstanding_max: u64, is_open_loop: bool) -> Self {
        let outstanding_max = outstanding_max.max(1);
        // Confirms may come out of order: room for as many settled ones between the oldest and the youngest.
        let length = (outstanding_max * 4).next_power_of_two();
        let sent_at = vec![0; usize::try_from(length).expect("the window fits into memory")];
        let intended_at = if is_open_loop { sent_at.clone() } else { Vec::new() };
        Self { outstanding_max, sent_at, intended_at, published: 0, settled_up_to: 0, outstanding: 0 }
    }

    #[inline]
    fn index(&self, tag: u64) -> usize {
        let mask = self.sent_at.len() - 1;
        #[allow(clippy::cast_possible_truncation, reason = "the mask takes the low bits only")]
        let low_bits = tag as usize & mask;
        low_bits
    }

    #[inline]
    fn slot(&mut self, tag: u64) -> &mut u64 {
        let index = self.index(tag);
        &mut self.sent_at[index]
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

    /// `count` more were sent at `now`; in an open loop they were to be sent at `intended`.
    pub fn publish(&mut self, count: u64, now: u64, intended: &[u64]) {
        assert!(count <= self.room(), "published beyond the window");
        let first = self.published + 1;
        for tag in first..first + count {
            *self.slot(tag) = now.max(1);
        }
        if !self.intended_at.is_empty() {
            assert_eq!(intended.len() as u64, count, "each has its time");
            for (tag, &intended) in (first..).zip(intended) {
                let index = self.index(tag);
                self.intended_at[index] = intended;
            }
        }
        self.published += count;
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

    /// `basic.ack` or `basic.nack` has come; counts are recorded, and latencies of what was taken; `not_taken` gets the numbers
    /// of what was not. Tags that wait for nothing are ignored.
    pub fn settle(&mut self, settled: Settled, now: u64, not_taken: &mut NotTaken, recorder: &mut Recorder) {
        let Settled { tag, multiple, verdict } = settled;
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
                Verdict::Ack => {
                    recorder.counts.confirmed += 1;
                    let intended = self.intended_at.get(self.index(tag));
                    let response = intended.map(|&intended| now.saturating_sub(intended));
                    recorder.confirm(response, now.saturating_sub(sent));
                }
                Verdict::Nack => {
                    recorder.counts.refused += 1;
                    not_taken.insert(number_of(tag)..number_of(tag) + 1);
                }
            }
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

    fn settle(
        window: &mut ConfirmWindow,
        settled: (u64, bool, Verdict),
        now: u64,
        recorder: &mut Recorder,
    ) -> NotTaken {
        let (tag, multiple, verdict) = settled;
        let mut not_taken = NotTaken::default();
        window.settle(Settled { tag, multiple, verdict }, now, &mut not_taken, recorder);
        not_taken
    }

    /// Goal: single and multiple confirms, in order and out of order, settle each message once, with its own latency, and those
    /// that are refused are known by their numbers.
    #[test]
    fn confirms_settle_once() {
        let mut window = ConfirmWindow::new(4, true);
        let mut recorder = Recorder::default();
        window.publish(4, 100, &[10, 20, 30, 40]);
        assert_eq!((window.room(), window.outstanding()), (0, 4));
        settle(&mut window, (3, false, Verdict::Ack), 150, &mut recorder);
        settle(&mut window, (3, false, Verdict::Ack), 151, &mut recorder);
        assert_eq!((window.room(), recorder.counts.confirmed), (1, 1));
        settle(&mut window, (2, true, Verdict::Ack), 160, &mut recorder);
        assert_eq!((window.room(), recorder.counts.confirmed, window.settled_up_to), (3, 3, 3));
        settle(&mut window, (9, true, Verdict::Ack), 160, &mut recorder);
        let refused = settle(&mut window, (4, true, Verdict::Nack), 170, &mut recorder);
        assert_eq!(refused.numbers().flatten().collect::<Vec<_>>(), [3]);
        assert_eq!((window.room(), window.outstanding()), (4, 0));
        let recordings = recorder.take();
        assert_eq!((recordings.counts.confirmed, recordings.counts.refused), (3, 1));
        let histogram = |name| &recordings.histograms[name].0;
        let confirm = histogram(crate::result::histogram::CONFIRM);
        assert_eq!((confirm.len(), confirm.max(), confirm.min()), (3, 60, 50));
        let response = histogram(crate::result::histogram::CONFIRM_RESPONSE);
        assert_eq!((response.len(), response.max(), response.min()), (3, 150, 120));
    }

    /// Goal: a first message whose confirm stays away holds the window after its span, not before, and nothing wraps.
    #[test]
    fn a_late_first_confirm_bounds_the_span() {
        let mut window = ConfirmWindow::new(4, false);
        let mut recorder = Recorder::default();
        window.publish(1, 1, &[]);
        while window.room() > 0 {
            window.publish(1, 1, &[]);
            let tag = window.published;
            settle(&mut window, (tag, false, Verdict::Ack), 2, &mut recorder);
        }
        assert_eq!((window.published, window.outstanding()), (16, 1));
        settle(&mut window, (1, false, Verdict::Ack), 2, &mut recorder);
        assert_eq!((window.room(), window.settled_up_to), (4, 16));
    }

    #[test]
    fn what_was_not_sent_does_not_wait() {
        let mut window = ConfirmWindow::new(4, false);
        window.publish(4, 1, &[]);
        window.take_back(3);
        assert_eq!((window.room(), window.outstanding()), (3, 1));
    }
}
