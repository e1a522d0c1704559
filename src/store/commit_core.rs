//! On which core the thread of a journal runs.
//!
//! Left to itself, it is moved to another core and back for each commit, and where cores sleep in between, each move wakes one: of
//! 1,000 confirms a second, one at a time, 1 % took more than 780 us then, and 430 to 580 us on the core of the shard (2 virtual
//! cores). When much is written at once, though, nobody sleeps, and the writing takes a fifth of a core: another one that has
//! nothing to do is better then (18 % more messages of 1 KiB a second). So commits are made on the shard's core until several in
//! a row were long, and again once several in a row were not.

use crate::limits::JOURNAL_LONG_COMMIT_OCTETS;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// After so many of the other kind in a row the thread moves.
const IN_A_ROW: u32 = 8;

/// The cores of the current thread, which makes the commits of one shard.
#[derive(Debug)]
pub(super) struct CommitCore {
    /// The core that the shard is pinned to, and all that the process may use.
    home: CpuSet,
    all: CpuSet,
    is_home: bool,
    /// Commits in a row for which it would rather be elsewhere.
    misplaced: u32,
}

impl CommitCore {
    /// On the core that the shard is pinned to. `None` where it is not, or the system refuses: then the scheduler places it.
    pub fn new(shard_core: Option<usize>) -> Option<CommitCore> {
        let core = shard_core.filter(|core| *core < CpuSet::MAX_CPU)?;
        let all = sched_getaffinity(None).ok()?;
        let mut home = CpuSet::new();
        home.set(core);
        sched_setaffinity(None, &home).ok()?;
        Some(CommitCore { home, all, is_home: true, misplaced: 0 })
    }

    /// The next commit has so many octets.
    pub fn prepare(&mut self, octets: usize) {
        if (octets < JOURNAL_LONG_COMMIT_OCTETS) == self.is_home {
            self.misplaced = 0;
            return;
        }
        self.misplaced += 1;
        if self.misplaced == IN_A_ROW {
            self.misplaced = 0;
            self.is_home = !self.is_home;
            // Where it fails, commits are slower.
            let _ = sched_setaffinity(None, if self.is_home { &self.home } else { &self.all });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cores that this thread may use.
    fn cores() -> Vec<usize> {
        let set = sched_getaffinity(None).expect("the system tells");
        (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
    }

    /// Goal: the thread is at the shard's core, but for long commits. Method: few and many in a row of each kind; and a shard that
    /// is not pinned.
    #[test]
    fn long_commits_are_made_anywhere() {
        let all = cores();
        let home = *all.last().expect("there is a core");
        assert!(CommitCore::new(None).is_none());
        assert_eq!(cores(), all);
        let mut core = CommitCore::new(Some(home)).expect("it is available");
        let mut check = |octets: usize, times: u32, expected: &[usize]| {
            (0..times).for_each(|_| core.prepare(octets));
            assert_eq!(cores(), expected, "after {times} of {octets} octets");
        };
        check(JOURNAL_LONG_COMMIT_OCTETS - 1, 100, &[home]);
        check(JOURNAL_LONG_COMMIT_OCTETS, IN_A_ROW - 1, &[home]);
        check(0, 1, &[home]);
        check(JOURNAL_LONG_COMMIT_OCTETS, IN_A_ROW - 1, &[home]);
        check(JOURNAL_LONG_COMMIT_OCTETS, 1, &all);
        check(0, IN_A_ROW - 1, &all);
        check(1 << 30, 1, &all);
        check(0, IN_A_ROW, &[home]);
    }
}
