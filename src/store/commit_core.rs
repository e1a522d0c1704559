//! On which core the thread of a journal runs.
//!
//! Left to itself, it is moved to another core and back for each commit, and where cores sleep in between, each move wakes one: of
//! 1,000 confirms a second, one at a time, 1 % took more than 780 us then, and 430 to 580 us on the core of the shard (2 virtual
//! cores). So commits are made on the shard's core as long as that has time for them. A busy shard would keep them waiting, and they
//! would take time from it: to write 1 GB/s costs a fifth of a core. Then the scheduler finds a place (18 % more messages of 1 KiB a
//! second, where there was another core).

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of the current thread, which makes the commits of one shard.
#[derive(Debug)]
pub(super) struct CommitCore {
    /// The core that the shard is pinned to, and all that the process may use.
    home: CpuSet,
    all: CpuSet,
    is_home: bool,
}

impl CommitCore {
    /// On the core that the shard is pinned to. `None` where it is not, or the system refuses: then the scheduler places it.
    pub fn new(shard_core: Option<usize>) -> Option<CommitCore> {
        let core = shard_core.filter(|core| *core < CpuSet::MAX_CPU)?;
        let all = sched_getaffinity(None).ok()?;
        let mut home = CpuSet::new();
        home.set(core);
        sched_setaffinity(None, &home).ok()?;
        Some(CommitCore { home, all, is_home: true })
    }

    /// A commit is about to be made, and whether the shard's core has time for it.
    pub fn prepare(&mut self, has_time: bool) {
        if has_time != self.is_home {
            self.is_home = has_time;
            // Where it fails, commits are slower.
            let _ = sched_setaffinity(None, if has_time { &self.home } else { &self.all });
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

    /// Goal: the thread is at the shard's core while that has time. Method: there and back; and a shard that is not pinned.
    #[test]
    fn commits_are_made_where_there_is_time() {
        let all = cores();
        let home = *all.last().expect("there is a core");
        assert!(CommitCore::new(None).is_none());
        assert_eq!(cores(), all);
        let mut core = CommitCore::new(Some(home)).expect("it is available");
        assert_eq!(cores(), [home]);
        for has_time in [true, false, false, true] {
            core.prepare(has_time);
            assert_eq!(cores(), if has_time { vec![home] } else { all.clone() });
        }
    }
}
