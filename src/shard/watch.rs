//! Watching for work for a moment instead of sleeping: to wake a core that sleeps takes longer, often, than what is waited for.
//!
//! A shard that has nothing to do watches while a commit that somebody waits for is on its way to the disk, if those are quick
//! there; with `--busy-poll` whenever something was done just now. It watches in slices, between which the executor looks for
//! I/O, and gives the core away to whoever wants it: the thread that makes its commits is one. (The executor's own way of
//! spinning gives nothing away, and does not notice what other threads have woken: a confirm took 200 us longer with it.)
//!
//! Knows the time only as it is told. The waiting itself is [`slice()`].

use super::mesh::Doorbell;
use std::thread;
use std::time::{Duration, Instant};

/// How long it watches, in microseconds. Commits that take longer on average are not watched for.
const WATCH_MICROS: u64 = 200;
/// For how long the executor does not look for I/O.
const SLICE: Duration = Duration::from_micros(20);
/// The moving average of a commit's duration takes so many to forget one, about.
const AVERAGE_COMMITS: u64 = 8;

/// Whether a shard watches.
#[derive(Debug)]
pub(super) struct Watch {
    /// Whether the core is its own.
    is_allowed: bool,
    /// Whether it watches after everything.
    is_always: bool,
    /// When the commit under way was asked for, and how long they take on average, in microseconds.
    commit_began: Option<u64>,
    commit_micros: u64,
    /// How often something has come in, when it did last, and how often it had when I/O was about to be looked for.
    turns: u64,
    turned_micros: u64,
    turns_at_pause: u64,
    /// Whether the task that watches is at it, or will be.
    is_attended: bool,
}

impl Watch {
    pub fn new(is_allowed: bool, is_always: bool) -> Watch {
        Watch {
            is_allowed,
            is_always,
            commit_began: None,
            commit_micros: 0,
            turns: 0,
            turned_micros: 0,
            turns_at_pause: 0,
            is_attended: false,
        }
    }

    /// Something has come in.
    #[inline]
    pub fn note_turn(&mut self, now_micros: u64) {
        self.turns += 1;
        self.turned_micros = now_micros;
    }

    /// The task that watches is at it.
    pub fn attend(&mut self) {
        self.is_attended = true;
    }

    /// The task that watches leaves: whether it is to come back.
    pub fn leave(&mut self, now_micros: u64) -> bool {
        self.is_attended = self.wants(now_micros);
        self.is_attended
    }

    /// A commit was asked for that is not long.
    pub fn note_commit(&mut self, now_micros: u64) {
        self.commit_began = Some(now_micros);
    }

    /// It is on the disk.
    pub fn note_committed(&mut self, now_micros: u64) {
        let Some(began) = self.commit_began.take() else { return };
        let took = now_micros.saturating_sub(began);
        self.commit_micros = (self.commit_micros * (AVERAGE_COMMITS - 1) + took) / AVERAGE_COMMITS;
    }

    /// Whether to look for work at `now_micros` instead of sleeping.
    fn wants(&self, now_micros: u64) -> bool {
        let is_soon = |began: u64| now_micros.saturating_sub(began) < WATCH_MICROS;
        let is_committing = self.commit_micros < WATCH_MICROS && self.commit_began.is_some_and(is_soon);
        self.is_allowed && (is_committing || (self.is_always && is_soon(self.turned_micros)))
    }

    /// Whether the task that watches is to be woken.
    #[inline]
    pub fn is_to_begin(&self) -> bool {
        let awaits_commit = self.commit_began.is_some() && self.commit_micros < WATCH_MICROS;
        !self.is_attended && self.is_allowed && (awaits_commit || self.is_always)
    }

    /// I/O is about to be looked for.
    pub fn begin_pause(&mut self) {
        self.turns_at_pause = self.turns;
    }

    /// I/O was looked for, and no task can run: whether nothing has come in.
    pub fn was_idle(&self) -> bool {
        self.turns == self.turns_at_pause
    }
}

/// Waits a little for somebody to ring. Whether somebody has.
pub(super) fn slice(doorbell: &Doorbell) -> bool {
    let began = Instant::now();
    while !doorbell.is_rung() {
        if began.elapsed() > SLICE {
            return false;
        }
        thread::yield_now();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A commit that takes so long.
    fn commit(watch: &mut Watch, began: u64, micros: u64) {
        watch.note_commit(began);
        watch.note_committed(began + micros);
    }

    /// Goal: a shard with a core of its own watches while a commit is under way that will be quick, but not for long.
    /// Method: before, at and after each bound; commits that become slow, and quick again.
    #[test]
    fn quick_commits_are_watched_for() {
        let mut watch = Watch::new(true, false);
        assert!(!watch.is_to_begin() && !watch.leave(1_000));
        watch.note_commit(1_000);
        assert!(watch.is_to_begin());
        watch.attend();
        assert!(!watch.is_to_begin(), "the task is at it");
        assert!(watch.leave(1_000 + WATCH_MICROS - 1) && !watch.is_to_begin(), "the task comes back");
        assert!(!watch.leave(1_000 + WATCH_MICROS) && watch.is_to_begin());
        watch.note_committed(1_100);
        assert!(!watch.is_to_begin() && !watch.leave(1_101));
        (0..30).for_each(|number| commit(&mut watch, 10_000 * number, 5_000));
        watch.note_commit(1_000_000);
        assert!(!watch.is_to_begin() && !watch.leave(1_000_001), "the disk is slow");
        (0..60).for_each(|number| commit(&mut watch, 2_000_000 + 10_000 * number, 100));
        watch.note_commit(3_000_000);
        assert!(watch.is_to_begin() && watch.leave(3_000_001));
        let mut watch = Watch::new(false, true);
        watch.note_commit(1);
        watch.note_turn(1);
        assert!(!watch.is_to_begin() && !watch.leave(2), "the core is not its own");
    }

    /// Goal: where it is asked for, a shard watches after everything; what comes in while I/O is looked for is noticed.
    /// Method: a turn, and what it is told around it.
    #[test]
    fn a_turn_is_watched_after() {
        let mut watch = Watch::new(true, true);
        watch.note_turn(5_000);
        assert!(watch.is_to_begin());
        watch.attend();
        watch.begin_pause();
        assert!(watch.was_idle() && watch.leave(5_000 + WATCH_MICROS - 1));
        assert!(!watch.leave(5_000 + WATCH_MICROS));
        watch.note_turn(6_000);
        assert!(!watch.was_idle());
    }

    /// Goal: a slice ends when somebody rings, and else by itself. Method: both.
    #[test]
    fn a_slice_ends() {
        let doorbell = Doorbell::default();
        assert!(!slice(&doorbell));
        doorbell.ring();
        assert!(slice(&doorbell));
    }
}
