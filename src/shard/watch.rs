//! Watching for work for a moment instead of sleeping: to wake a core that sleeps takes longer, often, than what is waited for.
//!
//! A shard that has little to do watches while a commit that somebody waits for is on its way to the disk, if those are quick
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
/// A shard that nothing has come to for so long, in microseconds, has had nothing to do.
const IDLE_MICROS: u64 = 60;
/// The highest score of idleness.
const SCORE_MAX: u32 = 16;
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
    /// When the shard was busy last, and whether it has had nothing to do since the last commit was asked for.
    busy_micros: u64,
    was_idle: bool,
    /// Rises with each commit since the one before which it has had nothing to do, falls with each other one.
    idle_score: u32,
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
            busy_micros: 0,
            was_idle: false,
            idle_score: SCORE_MAX,
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
        self.was_idle |= now_micros.saturating_sub(self.busy_micros) >= IDLE_MICROS;
    }

    /// The shard has done something until now.
    #[inline]
    pub fn note_busy(&mut self, now_micros: u64) {
        self.busy_micros = now_micros;
    }

    /// Whether the shard has little to do: waiting for it costs nothing then, and its core has time for the commits.
    pub fn is_idle(&self) -> bool {
        2 * self.idle_score >= SCORE_MAX
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

    /// A commit was asked for; a long one is not worth while to be waited for awake.
    pub fn note_commit(&mut self, is_long: bool, now_micros: u64) {
        let was_idle = std::mem::take(&mut self.was_idle) && !is_long;
        self.idle_score =
            if was_idle { (self.idle_score + 1).min(SCORE_MAX) } else { self.idle_score.saturating_sub(1) };
        self.commit_began = (!is_long).then_some(now_micros);
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
        let is_committing = self.awaits_commit() && self.commit_began.is_some_and(is_soon);
        self.is_allowed && (is_committing || (self.is_always && is_soon(self.turned_micros)))
    }

    /// Whether the task that watches is to be woken.
    #[inline]
    pub fn is_to_begin(&self) -> bool {
        !self.is_attended && self.is_allowed && (self.awaits_commit() || self.is_always)
    }

    fn awaits_commit(&self) -> bool {
        self.commit_began.is_some() && self.commit_micros < WATCH_MICROS && self.is_idle()
    }

    /// I/O is about to be looked for.
    pub fn begin_pause(&mut self) {
        self.turns_at_pause = self.turns;
    }

    /// The pause is over: whether nothing has come in meanwhile.
    pub fn end_pause(&mut self) -> bool {
        let was_idle = self.turns == self.turns_at_pause;
        self.was_idle |= was_idle;
        was_idle
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

    /// A commit of a shard that had nothing to do before, which takes so long.
    fn commit(watch: &mut Watch, began: u64, micros: u64) {
        watch.note_turn(began);
        watch.note_commit(false, began);
        watch.note_busy(began);
        watch.note_committed(began + micros);
    }

    /// Goal: a shard with a core of its own watches while a commit is under way that will be quick, but not for long.
    /// Method: before, at and after each bound; commits that become slow, and quick again.
    #[test]
    fn quick_commits_are_watched_for() {
        let mut watch = Watch::new(true, false);
        assert!(!watch.is_to_begin() && !watch.leave(1_000));
        watch.note_commit(false, 1_000);
        assert!(watch.is_to_begin());
        watch.attend();
        assert!(!watch.is_to_begin(), "the task is at it");
        assert!(watch.leave(1_000 + WATCH_MICROS - 1) && !watch.is_to_begin(), "the task comes back");
        assert!(!watch.leave(1_000 + WATCH_MICROS) && watch.is_to_begin());
        watch.note_committed(1_100);
        assert!(!watch.is_to_begin() && !watch.leave(1_101));
        (1..30).for_each(|number| commit(&mut watch, 10_000 * number, 5_000));
        watch.note_commit(false, 1_000_000);
        assert!(watch.is_idle() && !watch.is_to_begin() && !watch.leave(1_000_001), "the disk is slow");
        (0..60).for_each(|number| commit(&mut watch, 2_000_000 + 10_000 * number, 100));
        watch.note_commit(false, 3_000_000);
        assert!(watch.is_to_begin() && watch.leave(3_000_001));
        let mut watch = Watch::new(false, true);
        watch.note_commit(false, 1);
        watch.note_turn(1);
        assert!(!watch.is_to_begin() && !watch.leave(2), "the core is not its own");
    }

    /// Goal: a busy shard does not watch, nor does one that writes much, and an idle one does. Method: commits with and without
    /// something to do in between, long ones, and pauses in which something comes in or does not.
    #[test]
    fn busy_shards_do_not_watch() {
        let mut watch = Watch::new(true, false);
        let mut now = 1_000;
        let mut repeat = |watch: &mut Watch, times: u32, gap: u64, is_long: bool| {
            for _ in 0..times {
                now += gap;
                watch.note_turn(now);
                watch.note_commit(is_long, now);
                watch.note_busy(now);
            }
            watch.is_idle()
        };
        assert!(repeat(&mut watch, 100, IDLE_MICROS, false));
        assert!(repeat(&mut watch, SCORE_MAX / 2, IDLE_MICROS - 1, false));
        assert!(!repeat(&mut watch, 1, IDLE_MICROS - 1, false) && !watch.is_to_begin());
        assert!(!repeat(&mut watch, 100, IDLE_MICROS - 1, false));
        assert!(!repeat(&mut watch, SCORE_MAX / 2 - 1, IDLE_MICROS, false));
        assert!(repeat(&mut watch, 1, IDLE_MICROS, false) && watch.is_to_begin());
        assert!(!repeat(&mut watch, 100, IDLE_MICROS, true) && !watch.is_to_begin(), "much is written");
        for is_idle in [true, false] {
            for _ in 0..SCORE_MAX {
                watch.begin_pause();
                if !is_idle {
                    watch.note_turn(0);
                }
                assert_eq!(watch.end_pause(), is_idle);
                watch.note_commit(false, 0);
            }
            assert_eq!(watch.is_idle(), is_idle);
        }
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
        assert!(watch.end_pause() && watch.leave(5_000 + WATCH_MICROS - 1));
        assert!(!watch.leave(5_000 + WATCH_MICROS));
        watch.begin_pause();
        watch.note_turn(6_000);
        assert!(!watch.end_pause());
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
