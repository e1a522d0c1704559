//! When a batch of the journal waits for more publishers to share it.
//!
//! Publishers that each wait for the confirm of one message before they send the next come in two groups if every batch is
//! written as soon as the disk is free: those whose messages are being written, and the others, whose messages gather
//! meanwhile. What one group has saved by waiting for the other is the half of all writes. So: a batch is held back while
//! fewer than three quarters of those who are active wait for it; for half the time that a write takes, at most.
//!
//! Active are those who wait for the gathering batch, and of those who waited for the batch before it the regular ones: who
//! had waited for one of the two batches before that. Whoever publishes now and then is not waited for.

use crate::limits::{JOURNAL_HOLD_MICROS_MAX, JOURNAL_WAITERS_MIN};
use ahash::AHashMap;

/// A publisher that comes back after no more batches than this is regular: the one in between was written while it waited.
const REGULAR_BATCHES: u64 = 2;
/// The moving average of a commit's duration takes so many to forget one, about.
const AVERAGE_COMMITS: u64 = 8;

#[derive(Clone, Copy, Debug)]
struct Waiter {
    /// The last batch that it waited for.
    sequence: u64,
    is_regular: bool,
}

/// Who waits for the gathering batch, and who may be waited for.
#[derive(Debug, Default)]
pub(super) struct Hold {
    waiters: AHashMap<u64, Waiter>,
    /// How many waiters there may be before those are forgotten that are gone.
    waiters_max: usize,
    last: Option<(u64, u64)>,
    /// Those who wait for the gathering batch ...
    present: u64,
    /// ... and those of them who are regular.
    present_regular: u64,
    /// Regular ones who waited for the batch before it and do not wait for this one yet.
    absent: u64,
    /// What a commit takes on average, in microseconds.
    commit_micros: u64,
    /// The batch may be held back until then.
    until_micros: u64,
    is_holding: bool,
    holds: u64,
}

impl Hold {
    /// `waiter` waits for the gathering batch, which is the number `sequence`.
    #[inline]
    pub fn add_waiter(&mut self, waiter: u64, sequence: u64) {
        if self.last == Some((waiter, sequence)) {
            return;
        }
        self.last = Some((waiter, sequence));
        let known = self.waiters.get(&waiter).copied();
        if known.is_none_or(|known| known.sequence != sequence) {
            self.add(waiter, known, sequence);
        }
    }

    fn add(&mut self, waiter: u64, known: Option<Waiter>, sequence: u64) {
        let is_regular = known.is_some_and(|known| known.sequence + REGULAR_BATCHES >= sequence);
        self.present += 1;
        self.present_regular += u64::from(is_regular);
        if known.is_some_and(|known| known.is_regular && known.sequence + 1 == sequence) {
            self.absent -= 1;
        }
        self.waiters.insert(waiter, Waiter { sequence, is_regular });
        if self.waiters.len() > self.waiters_max {
            self.waiters.retain(|_, waiter| waiter.sequence + REGULAR_BATCHES >= sequence);
            self.waiters_max = JOURNAL_WAITERS_MIN.max(2 * self.waiters.len());
        }
    }

    /// The gathering batch is complete, and the next begins.
    pub fn begin_batch(&mut self) {
        self.absent = self.present_regular;
        self.present = 0;
        self.present_regular = 0;
        self.is_holding = false;
    }

    /// A batch is written, and that took so long.
    pub fn handle_committed(&mut self, commit_micros: u64, now_micros: u64) {
        self.commit_micros = (self.commit_micros * (AVERAGE_COMMITS - 1) + commit_micros) / AVERAGE_COMMITS;
        self.until_micros = now_micros + (self.commit_micros / 2).min(JOURNAL_HOLD_MICROS_MAX);
    }

    /// Whether the gathering batch is to wait still.
    pub fn holds(&mut self, now_micros: u64) -> bool {
        let holds = self.is_short() && now_micros < self.until_micros;
        self.holds += u64::from(holds && !self.is_holding);
        self.is_holding = holds;
        holds
    }

    /// Until when it may wait, if it is to.
    pub fn until_micros(&self) -> Option<u64> {
        self.is_short().then_some(self.until_micros)
    }

    /// Whether fewer than three quarters of the active ones wait.
    fn is_short(&self) -> bool {
        4 * self.present < 3 * (self.present + self.absent)
    }

    /// How many batches had to wait.
    pub fn holds_counted(&self) -> u64 {
        self.holds
    }

    /// How many octets of memory it holds, about.
    pub fn octets_held(&self) -> u64 {
        (self.waiters.capacity() * size_of::<(u64, Waiter)>()) as u64
    }
}
