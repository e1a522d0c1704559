//! When a batch of the journal waits for more publishers to share it.
//!
//! Publishers that each wait for the confirm of one message before they send the next fall into two groups if every batch is
//! written as soon as the disk is free: those whose messages are being written, and the others, whose messages gather
//! meanwhile. Each write serves but a part of them. So a batch is held back while fewer than three quarters of those who are
//! active wait for it: for half the time that a write takes, and from there on while more keep coming, one closely behind the
//! other, for [`JOURNAL_HOLD_MICROS_MAX`].
//!
//! That time is up when a timer says so, not when somebody looks at the clock: the shard may have been busy all the while, with
//! the confirms of the batch before, say, and messages of those who answered them lie unread. (Of 100 publishers 58 share a
//! sync, where a look at the clock was enough 32 did.)
//!
//! Active are those who have come in two slices of time, one behind the other. Whoever publishes now and then is not waited for,
//! and neither is anybody by a publisher that has several messages under way: it waits for each batch.

use crate::limits::{JOURNAL_HOLD_MICROS_MAX, JOURNAL_WAITERS_MIN};
use ahash::AHashMap;

/// The moving average of a commit's duration takes so many to forget one, about.
const AVERAGE_COMMITS: u64 = 8;
/// The length of a slice of time, in microseconds.
const SLICE_MICROS: u64 = 3_000;
/// Publishers that follow each other so closely, in microseconds, keep coming.
const FOLLOW_MICROS: u64 = 150;
/// Who has not come back for so many batches is forgotten when there are many.
const FORGET_BATCHES: u64 = 16;

#[derive(Clone, Copy, Debug)]
struct Waiter {
    /// The last batch that it waited for.
    sequence: u64,
    /// The last slice of time that it came in.
    slice: u64,
}

/// Who waits for the gathering batch, and who may be waited for.
#[derive(Debug, Default)]
pub(super) struct Hold {
    waiters: AHashMap<u64, Waiter>,
    /// How many waiters there may be before those are forgotten that are gone.
    waiters_max: usize,
    /// Who has come since the time was told last: waiter and batch.
    arrived: Vec<(u64, u64)>,
    now_micros: u64,
    /// Those who wait for the gathering batch.
    present: u64,
    /// The slice of time, those who are active in it so far, and those who were in the one before.
    slice: u64,
    active: u64,
    active_before: u64,
    /// What a commit takes on average, in microseconds.
    commit_micros: u64,
    /// The batch may be held back until then ...
    until_micros: u64,
    /// ... and until then if more keep coming.
    until_micros_max: u64,
    /// Whether that was long enough.
    is_over: bool,
    is_holding: bool,
    holds: u64,
}

impl Hold {
    /// `waiter` waits for the gathering batch, which is the number `sequence`.
    #[inline]
    pub fn add_waiter(&mut self, waiter: u64, sequence: u64) {
        if self.arrived.last() != Some(&(waiter, sequence)) {
            self.arrived.push((waiter, sequence));
        }
    }

    /// It is `now_micros`, and who has come until now has come now.
    #[inline]
    pub fn handle_now(&mut self, now_micros: u64) {
        self.now_micros = now_micros;
        let slice = now_micros / SLICE_MICROS;
        if slice != self.slice {
            self.active_before = if slice == self.slice + 1 { self.active } else { 0 };
            self.active = 0;
            self.slice = slice;
        }
        if !self.arrived.is_empty() {
            self.count_arrived();
        }
    }

    fn count_arrived(&mut self) {
        let present_before = self.present;
        let mut arrived = std::mem::take(&mut self.arrived);
        for (waiter, sequence) in arrived.drain(..) {
            self.count(waiter, sequence);
        }
        self.arrived = arrived;
        if self.present > present_before {
            let until = (self.now_micros + FOLLOW_MICROS).min(self.until_micros_max);
            self.until_micros = self.until_micros.max(until);
        }
    }

    fn count(&mut self, waiter: u64, sequence: u64) {
        let known = self.waiters.get(&waiter).copied();
        if known.is_some_and(|known| known.sequence == sequence) {
            return;
        }
        self.present += 1;
        self.active += u64::from(known.is_some_and(|known| known.slice + 1 == self.slice));
        self.waiters.insert(waiter, Waiter { sequence, slice: self.slice });
        if self.waiters.len() > self.waiters_max {
            self.waiters.retain(|_, waiter| waiter.sequence + FORGET_BATCHES >= sequence);
            self.waiters_max = JOURNAL_WAITERS_MIN.max(2 * self.waiters.len());
        }
    }

    /// The gathering batch is complete, and the next begins.
    pub fn begin_batch(&mut self) {
        self.count_arrived();
        self.present = 0;
        self.is_holding = false;
        self.is_over = false;
    }

    /// A batch is written, and that took so long.
    pub fn handle_committed(&mut self, commit_micros: u64, now_micros: u64) {
        self.handle_now(now_micros);
        self.commit_micros = (self.commit_micros * (AVERAGE_COMMITS - 1) + commit_micros) / AVERAGE_COMMITS;
        self.until_micros_max = now_micros + JOURNAL_HOLD_MICROS_MAX;
        // Who was just served takes a while to come back.
        self.until_micros = now_micros + (self.commit_micros / 2).clamp(FOLLOW_MICROS, JOURNAL_HOLD_MICROS_MAX);
        self.is_over = false;
    }

    /// It is `now_micros`, and what has come until then was looked at.
    pub fn handle_deadline(&mut self, now_micros: u64) {
        self.handle_now(now_micros);
        self.is_over |= now_micros >= self.until_micros;
    }

    /// Whether the gathering batch is to wait still.
    pub fn holds(&mut self) -> bool {
        let holds = self.is_short() && !self.is_over;
        self.holds += u64::from(holds && !self.is_holding);
        self.is_holding = holds;
        holds
    }

    /// Until when the gathering batch is held back, if it was when that was asked last, or will be if somebody comes.
    pub fn deadline_micros(&self) -> Option<u64> {
        let may_hold = self.present == 0 && !self.is_over && self.is_short_with(1);
        (self.is_holding || may_hold).then_some(self.until_micros)
    }

    /// Whether fewer than three quarters of the active ones wait for the gathering batch.
    fn is_short(&self) -> bool {
        self.is_short_with(self.present)
    }

    fn is_short_with(&self, present: u64) -> bool {
        4 * present < 3 * self.active.max(self.active_before)
    }

    /// How many batches had to wait.
    pub fn holds_counted(&self) -> u64 {
        self.holds
    }

    /// How many octets of memory it holds, about.
    pub fn octets_held(&self) -> u64 {
        (self.waiters.capacity() * size_of::<(u64, Waiter)>() + self.arrived.capacity() * size_of::<(u64, u64)>())
            as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is remembered of publishers is bounded by how many there are at a time. Method: ever new ones, few and many
    /// a batch.
    #[test]
    fn those_who_are_gone_are_forgotten() {
        for waiters in [10, 1000] {
            let mut hold = Hold::default();
            for sequence in 1..500 {
                for waiter in 0..waiters {
                    hold.add_waiter(sequence * waiters + waiter, sequence);
                }
                hold.handle_now(sequence * 100);
                hold.begin_batch();
                hold.handle_committed(100, sequence * 100);
            }
            let most = 2 * (JOURNAL_WAITERS_MIN as u64).max((FORGET_BATCHES + 1) * waiters) + 1;
            assert!(hold.waiters.len() as u64 <= most, "{} of {waiters} a batch", hold.waiters.len());
            assert_eq!(hold.active, 0, "none is active");
        }
    }

    /// Goal: nobody is told of a deadline that has passed, or they would ask again and again. Method: one of ten has come; ask
    /// before the deadline, at it, and whether more who come put it off.
    #[test]
    fn a_deadline_passes() {
        let mut hold = Hold::default();
        for sequence in 1..4 {
            (0..10).for_each(|waiter| hold.add_waiter(waiter, sequence));
            hold.handle_now((sequence - 1) * SLICE_MICROS);
            hold.begin_batch();
        }
        (0..20).for_each(|_| hold.handle_committed(800, 10_000));
        hold.add_waiter(0, 4);
        hold.handle_now(10_000);
        let deadline = 10_000 + hold.commit_micros / 2;
        assert!(hold.holds() && hold.deadline_micros() == Some(deadline));
        hold.handle_deadline(deadline - 1);
        assert!(hold.holds());
        hold.add_waiter(1, 4);
        hold.handle_deadline(deadline);
        let later = deadline + FOLLOW_MICROS;
        assert!(hold.holds() && hold.deadline_micros() == Some(later));
        // Who looks later without a timer may have been busy.
        hold.handle_now(later + 1);
        assert!(hold.holds());
        hold.handle_deadline(later + 1);
        assert!(!hold.holds() && hold.deadline_micros().is_none());
        hold.add_waiter(2, 4);
        hold.handle_now(later + 2);
        assert!(!hold.holds(), "what is over is over");
        hold.begin_batch();
        hold.handle_committed(800, 20_000);
        let longest = 20_000 + JOURNAL_HOLD_MICROS_MAX;
        hold.add_waiter(0, 5);
        hold.handle_deadline(longest);
        assert!(!hold.holds(), "it was held back for as long as may be");
    }

    /// Goal: those who come again and again are active, each once; who stays away is not. Method: the same ones in several slices
    /// of time, some twice; then fewer; then nobody.
    #[test]
    fn the_active_are_counted() {
        let mut hold = Hold::default();
        for sequence in 1..5 {
            let come = if sequence == 4 { 3 } else { 10 };
            for waiter in (0..come).chain(0..come) {
                hold.add_waiter(waiter, sequence);
            }
            hold.handle_now(sequence * SLICE_MICROS);
            assert_eq!(hold.present, come, "in batch {sequence}");
            assert_eq!(hold.is_short(), sequence == 4);
            if sequence < 4 {
                hold.begin_batch();
            }
        }
        // Three quarters of ten are eight.
        (3..7).for_each(|waiter| hold.add_waiter(waiter, 4));
        hold.handle_now(4 * SLICE_MICROS);
        assert!(hold.is_short(), "seven wait");
        hold.add_waiter(7, 4);
        hold.handle_now(4 * SLICE_MICROS);
        assert!(!hold.is_short(), "eight wait");
        hold.begin_batch();
        hold.handle_now(6 * SLICE_MICROS);
        assert!(!hold.is_short(), "nobody is active any more");
    }
}
