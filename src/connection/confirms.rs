//! Publisher confirms of one channel: which publishes have reached all their queues, and what to tell the publisher.
//!
//! Numbers grow by one with each publish. On the wire they start at 1; inside each incarnation of a channel has numbers of
//! its own, so that what a shard answers late to a channel that was closed says nothing to the one opened in its place.
//! What is decided in order is told with one `multiple`; what is decided ahead of an undecided one is told singly, so that
//! a slow queue does not hold back the others.
//!
//! Source: RabbitMQ, "Consumer Acknowledgements and Publisher Confirms".

use std::collections::VecDeque;

/// Bits of a number that count publishes; those above tell the incarnation.
const COUNT_BITS: u32 = 40;

/// One `basic.ack` or `basic.nack` to be sent to a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The number of the (last) publish that is meant.
    pub number: u64,
    /// Whether all up to it are meant.
    pub multiple: bool,
    /// `basic.ack`, else `basic.nack`.
    pub accepted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Undecided {
    queues_left: u32,
    rejected: bool,
    told: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Confirms {
    /// What numbers are above those on the wire.
    base: u64,
    /// The number that the next publish gets.
    next: u64,
    /// Publishes from the oldest undecided one on; the first has the number `next - undecided.len()`.
    undecided: VecDeque<Undecided>,
    /// All up to this number were told.
    told_through: u64,
    /// Decided and accepted in order, not told yet, up to this number.
    accepted_through: u64,
    singles: Vec<Verdict>,
}

impl Confirms {
    /// Nothing was published yet. `incarnation` tells this channel from those before it with the same number.
    pub fn new(incarnation: u32) -> Self {
        let base = u64::from(incarnation) << COUNT_BITS;
        Self {
            base,
            next: base + 1,
            undecided: VecDeque::new(),
            told_through: base,
            accepted_through: base,
            singles: Vec::new(),
        }
    }

    /// The number that the next publish will get.
    #[inline]
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Takes note of a publish. `queues_left` queues on other shards have yet to answer; `rejected` if one refused it already.
    #[inline]
    pub fn publish(&mut self, queues_left: u32, rejected: bool) {
        let number = self.next;
        self.next += 1;
        if self.undecided.is_empty() && queues_left == 0 && !rejected {
            self.accepted_through = number;
            return;
        }
        self.undecided.push_back(Undecided { queues_left, rejected, told: false });
        if queues_left == 0 {
            self.decide(number);
        }
    }

    /// A queue on another shard answered for the publish with this number.
    pub fn answer(&mut self, number: u64, accepted: bool) {
        let first = self.next - self.undecided.len() as u64;
        let Some(undecided) =
            number.checked_sub(first).and_then(|at| self.undecided.get_mut(usize::try_from(at).ok()?))
        else {
            return;
        };
        assert!(undecided.queues_left > 0, "a queue answered twice for one publish");
        undecided.queues_left -= 1;
        undecided.rejected |= !accepted;
        if undecided.queues_left == 0 {
            self.decide(number);
        }
    }

    /// Whether every publish was decided.
    pub fn is_settled(&self) -> bool {
        self.undecided.is_empty()
    }

    /// Whether there is something to tell.
    #[inline]
    pub fn has_verdicts(&self) -> bool {
        self.accepted_through > self.told_through || !self.singles.is_empty()
    }

    /// Takes what there is to tell, in order.
    pub fn poll_verdicts(&mut self, mut tell: impl FnMut(Verdict)) {
        let base = self.base;
        let mut tell = |verdict: Verdict| tell(Verdict { number: verdict.number - base, ..verdict });
        let singles = std::mem::take(&mut self.singles);
        for verdict in singles {
            if !verdict.accepted {
                self.tell_accepted(verdict.number - 1, &mut tell);
                if self.told_through + 1 == verdict.number {
                    self.told_through = verdict.number;
                }
                tell(verdict);
            } else if verdict.number > self.accepted_through {
                tell(verdict);
            }
        }
        self.tell_accepted(u64::MAX, &mut tell);
    }

    /// Tells what was accepted in order, up to `limit` at most.
    fn tell_accepted(&mut self, limit: u64, tell: &mut impl FnMut(Verdict)) {
        let through = self.accepted_through.min(limit);
        if through > self.told_through {
            tell(Verdict { number: through, multiple: through - self.told_through > 1, accepted: true });
            self.told_through = through;
        }
    }

    fn decide(&mut self, number: u64) {
        let mut first = self.next - self.undecided.len() as u64;
        let at = usize::try_from(number - first).expect("the window fits into memory");
        let undecided = &mut self.undecided[at];
        if undecided.rejected {
            undecided.told = true;
            self.singles.push(Verdict { number, multiple: false, accepted: false });
        } else if at > 0 {
            undecided.told = true;
            self.singles.push(Verdict { number, multiple: false, accepted: true });
        }
        while let Some(front) = self.undecided.front() {
            if front.queues_left > 0 {
                break;
            }
            if !front.rejected {
                self.accepted_through = first;
            }
            self.undecided.pop_front();
            first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(confirms: &mut Confirms) -> Vec<(u64, bool, bool)> {
        let mut all = Vec::new();
        confirms.poll_verdicts(|verdict| all.push((verdict.number, verdict.multiple, verdict.accepted)));
        all
    }

    /// Goal: what is decided in order is told once, coalesced.
    #[test]
    fn decided_in_order_is_coalesced() {
        let mut confirms = Confirms::new(3);
        confirms.publish(0, false);
        assert_eq!(verdicts(&mut confirms), [(1, false, true)]);
        for _ in 0..3 {
            confirms.publish(0, false);
        }
        assert_eq!(verdicts(&mut confirms), [(4, true, true)]);
        assert!(!confirms.has_verdicts());
    }

    /// Goal: a publish that waits for another shard holds back nobody else, and is told when it is decided.
    #[test]
    fn decided_ahead_is_told_singly() {
        let mut confirms = Confirms::new(3);
        confirms.publish(2, false);
        confirms.publish(0, false);
        assert_eq!(verdicts(&mut confirms), [(2, false, true)]);
        confirms.answer((3 << COUNT_BITS) + 1, true);
        assert_eq!(verdicts(&mut confirms), []);
        confirms.answer((3 << COUNT_BITS) + 1, true);
        assert_eq!(verdicts(&mut confirms), [(2, true, true)]);
        assert!(confirms.is_settled());
    }

    /// Goal: an answer to the channel that had this number before decides nothing.
    #[test]
    fn late_answer_to_an_earlier_channel_is_nothing() {
        let mut earlier = Confirms::new(2);
        let mut confirms = Confirms::new(3);
        earlier.publish(1, false);
        confirms.publish(1, false);
        confirms.answer(earlier.next_number() - 1, true);
        assert_eq!(verdicts(&mut confirms), []);
        confirms.answer(confirms.next_number() - 1, true);
        assert_eq!(verdicts(&mut confirms), [(1, false, true)]);
    }

    /// Goal: a rejected publish is nacked by its own number, after the acks of those before it.
    #[test]
    fn rejected_is_nacked_singly() {
        let mut confirms = Confirms::new(3);
        confirms.publish(0, false);
        confirms.publish(0, false);
        confirms.publish(0, true);
        confirms.publish(0, false);
        let all = verdicts(&mut confirms);
        assert_eq!(all, [(2, true, true), (3, false, false), (4, false, true)]);
        confirms.publish(0, true);
        assert_eq!(verdicts(&mut confirms), [(5, false, false)]);
    }
}
